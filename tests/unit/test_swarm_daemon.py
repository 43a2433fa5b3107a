"""The loop: what is chosen is ruled on, done once, noted; and a daemon that ended goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from cli.daemon import alerts
from config.load import load_catalog
from config.swarm import Governor
from ledger import approvals, memories, swarm
from ledger.approvals import APPROVALS, Standing
from ledger.budgets import Bound, reserve, settle
from ledger.clock import SECOND
from ledger.database import writing
from ledger.memories import NewMemory, Source
from ledger.swarm import State
from producers.swarm import tools
from producers.swarm.daemon import Ending, the_only_choice
from producers.swarm.pace import Pace
from routing.decision import Decision, Status
from tests.unit.daemons import START, Answer, Ground, does, swarm_catalog

EDIT = {"path": "notes.md", "find": "first", "replace": "second"}
GROUNDS: list[Ground] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while GROUNDS:
        GROUNDS.pop().engine.dispose()


def ground(folder: Path, answer: Answer, **more: Any) -> Ground:
    GROUNDS.append(Ground(folder, answer, **more))
    return GROUNDS[-1]


def after_reading(then: Answer) -> Answer:
    """Reads the file first, since nothing is edited unseen."""

    def answer(decision: Decision) -> str | None:
        if decision.key.startswith("i00001"):
            return does("read_file", path="notes.md")(decision)
        return then(decision)

    return answer


# The seven steps.


def test_an_iteration_reads_and_notes(tmp_path: Path) -> None:
    here = ground(tmp_path, does("read_file"), actions=("read_file", "search_text"))
    assert here.work() is Ending.DONE
    [step] = here.steps
    assert (step.action, step.arguments, step.state) == (
        "read_file", {"path": "notes.md"}, State.DONE,
    )  # fmt: skip
    assert (step.output, step.complexity, step.ruling) == ("first line\n", "moderate", "allow")
    assert here.told == [replace(step, finished_at=here.told[0].finished_at)]
    # With one file there is nothing to choose, so the path was not asked for.
    assert [d.kind for d in here.answers.asked] == ["daemon_action"]


def test_the_prompt_has_objective_history_and_last_output(tmp_path: Path) -> None:
    here = ground(tmp_path, does("read_file"), max_iterations=2)
    here.work()
    prompt = [d for d in here.answers.asked if d.kind == "daemon_action"][-1].prompt
    assert prompt.startswith("Objective: test\n")
    assert "1. read_file notes.md: first line" in prompt
    assert "Last output:\nfirst line" in prompt


def test_what_is_known_is_not_offered_again_until_it_changes(tmp_path: Path) -> None:
    here = ground(tmp_path, does("read_file"), max_iterations=5, actions=("read_file",))
    assert here.work() is Ending.NOTHING_LEFT
    assert len(here.steps) == 1
    (here.root / "more.md").write_text("new")
    assert here.work() is Ending.NOTHING_LEFT
    assert [s.arguments["path"] for s in here.steps] == ["notes.md", "more.md"]


def test_only_files_that_no_prompt_shows_are_summed_up(tmp_path: Path) -> None:
    here = ground(tmp_path, does("summarize"), actions=("summarize", "git_log"), max_iterations=3)
    (here.root / "long.md").write_text("a long line\n" * 200)
    assert here.work() is Ending.NOTHING_LEFT
    [step] = [s for s in here.steps if s.action == "summarize"]
    assert (step.arguments, step.output) == ({"path": "long.md"}, "It says what it says.")
    prompt = next(d.prompt for d in here.answers.asked if d.key.endswith(".work"))
    assert prompt.startswith("Material:\na long line")
    assert prompt.endswith("Task: Sum up the file long.md.")


def test_a_long_output_is_put_into_a_sentence_by_its_own_class(tmp_path: Path) -> None:
    here = ground(tmp_path, does("list_files"), actions=("list_files",))
    for number in range(20):
        (here.root / f"a-file-with-a-name-{number}").write_text("")
    here.work()
    [note] = [d for d in here.answers.asked if d.key.endswith(".note")]
    assert (note.kind, here.steps[0].note) == ("list_files", "It says what it says.")


def test_signals_and_wishes_reach_the_decisions(tmp_path: Path) -> None:
    here = ground(
        tmp_path, does("exec", argv=["ls"]), prefer_local=False,
        catalog=swarm_catalog(privacy="high"),
    )  # fmt: skip
    here.work()
    chosen, arguments = here.answers.asked
    assert (chosen.preferences.privacy.value, chosen.preferences.prefer_local) == ("high", False)
    assert (chosen.preferences.quality_critical, arguments.preferences.quality_critical) == (
        False, True,
    )  # fmt: skip
    assert here.steps[0].complexity == "complex"


def test_answers_that_are_no_arguments_are_an_iteration_without_an_action(tmp_path: Path) -> None:
    here = ground(tmp_path, does("search_text", wrong="name"))
    here.work()
    [step] = here.steps
    assert (step.state, step.action) == (State.FAILED, "search_text")
    assert "no usable arguments" in step.note


@pytest.mark.parametrize("content", ["a\0b", "a\ud800b"])
def test_characters_that_are_no_text_are_no_arguments(tmp_path: Path, content: str) -> None:
    here = ground(tmp_path, after_reading(does("write_memory", content=content)), max_iterations=2)
    here.work()
    assert here.steps[1].state is State.FAILED
    assert memories.query(here.engine) == []


def test_files_whose_names_are_no_text_are_passed_over(tmp_path: Path) -> None:
    here = ground(tmp_path, does("list_files"), actions=("list_files",))
    (here.root / "line\nbreak").write_text("")
    (here.root / os.fsdecode(b"broken-\xff")).write_text("")
    here.work()
    assert here.steps[0].output == "notes.md (11 bytes)"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", ".git/config", "up/secret"])
def test_a_path_that_leads_out_is_an_action_that_failed(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("outside")
    edit = {"path": path, "find": "", "replace": "planted"}
    here = ground(tmp_path, after_reading(does("edit_file", **edit)), max_iterations=2)
    (here.root / "up").symlink_to("..")
    here.work()
    assert here.steps[1].state is State.FAILED
    assert (tmp_path / "secret").read_text() == "outside"


def test_an_edit_changes_the_file(tmp_path: Path) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    here.work()
    assert (here.root / "notes.md").read_text() == "second line\n"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({**EDIT, "find": "absent"}, "occurs 0 times"),
        ({**EDIT, "find": "i"}, "occurs 2 times"),
        ({**EDIT, "path": "new.md"}, "leave find empty"),
        ({**EDIT, "replace": "first"}, "as it is"),
    ],
)
def test_edits_that_do_not_fit_change_nothing(
    tmp_path: Path, edit: dict[str, str], says: str
) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **edit)), max_iterations=2)
    here.work()
    assert says in here.steps[1].note
    assert (here.root / "notes.md").read_text() == "first line\n"


def test_what_keeps_failing_is_left_out_for_a_while(tmp_path: Path) -> None:
    edit = {**EDIT, "find": "absent"}
    here = ground(tmp_path, after_reading(does("edit_file", **edit)), max_iterations=9)
    here.work()
    tried = [step.action == "edit_file" for step in here.steps]
    assert tried == [False, True, True, False, False, False, False, True, True]


def test_an_empty_find_adds_to_a_file_or_makes_one(tmp_path: Path) -> None:
    for path, expected in (("notes.md", "first line\nmore\n"), ("docs/new.md", "more\n")):
        (tmp_path / path.replace("/", "-")).mkdir()
        edit = {"path": path, "find": "", "replace": "more"}
        here = ground(tmp_path / path.replace("/", "-"),
                      after_reading(does("edit_file", **edit)), max_iterations=2)  # fmt: skip
        here.work()
        assert (here.root / path).read_text() == expected


def test_a_doubtful_edit_is_only_proposed(tmp_path: Path) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    here.answers.status = Status.DEGRADED
    here.work()
    assert [s.state for s in here.steps] == [State.DONE, State.WAITING]
    assert (here.root / "notes.md").read_text() == "first line\n"


# Memory.


def test_memories_are_written_with_their_topic_in_one_transaction(tmp_path: Path) -> None:
    here = ground(tmp_path, after_reading(does("write_memory", content="a fact")), max_iterations=2)
    here.work()
    [memory] = memories.query(here.engine)
    assert (memory.topic, memory.content, memory.source) == (
        "architecture", "a fact", Source.DAEMON,
    )  # fmt: skip


def test_consolidation_replaces_what_it_puts_together(tmp_path: Path) -> None:
    here = ground(tmp_path, does("consolidate"), actions=("consolidate", "search_text"))
    for number in range(3):
        memories.add(here.engine, NewMemory("bug", f"bug {number}", Source.PERSON), START)
    here.work()
    [memory] = memories.query(here.engine)
    assert (memory.source, memory.content) == (Source.CONSOLIDATED, "It says what it says.")
    assert "- bug 0\n- bug 1\n- bug 2" in here.answers.asked[-1].prompt


def test_memories_are_found_by_topic_and_age(tmp_path: Path) -> None:
    here = ground(tmp_path, does("read_file"))
    for number, topic in enumerate(("bug", "bug", "test")):
        made = NewMemory(topic, f"{topic} {number}", Source.PERSON)
        memories.add(here.engine, made, START + number * SECOND)
    found = memories.query(here.engine, topic="bug", since=START + SECOND)
    assert [one.content for one in found] == ["bug 1"]
    assert memories.topics(here.engine) == {"bug": 2, "test": 1}


# The governor and persons.


def exec_ground(folder: Path, **more: Any) -> Ground:
    return ground(folder, does("exec", argv=["touch", "touched"]), **more)


def decide(here: Ground, *, approve: bool) -> str:
    [request] = here.approvals(Standing.PENDING)
    approvals.decide(here.engine, request.id, approve=approve, note="so", now=here.clock())
    return request.id


def test_what_needs_a_person_waits_and_the_daemon_goes_on(tmp_path: Path) -> None:
    here = exec_ground(tmp_path, max_iterations=2)
    assert here.work() is Ending.DONE
    assert [s.state for s in here.steps] == [State.WAITING, State.DONE]
    assert len(here.approvals(Standing.PENDING)) == 1
    assert not (here.root / "touched").exists()


def test_an_approved_action_is_done_once_also_after_the_last_iteration(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    decide(here, approve=True)
    assert here.work() is Ending.DONE
    assert (here.root / "touched").exists()
    (here.root / "touched").unlink()
    here.work()
    assert not (here.root / "touched").exists()
    assert [s.state for s in here.steps] == [State.WAITING, State.DONE]
    assert here.approvals()[0].state is Standing.USED
    log = [one.ruling for one in approvals.audit_log(here.engine)]
    assert log == ["escalate", "approved", "used"]


def test_a_rejected_action_is_not_done(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    id = decide(here, approve=False)
    here.order = replace(here.order, max_iterations=8)
    here.work()
    assert [s.state for s in here.steps if s.action == "exec"] == [State.WAITING, State.DENIED]
    assert not (here.root / "touched").exists()
    with pytest.raises(ValueError.__base__, match="rejected already"):
        approvals.decide(here.engine, id, approve=True, note="", now=here.clock())


def test_what_was_rejected_is_not_asked_again(tmp_path: Path) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=3)
    here.answers.status = Status.DEGRADED
    here.order = replace(here.order, max_iterations=2)
    here.work()
    decide(here, approve=False)
    assert here.steps[1].note == "rejected by a person: so"
    here.order = replace(here.order, max_iterations=3)
    here.work()
    assert (here.steps[2].state, here.steps[2].note) == (
        State.DENIED, "denied: a person rejected it before so",
    )  # fmt: skip
    assert len(here.approvals()) == 1


def test_an_approval_lapses(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    decide(here, approve=True)
    here.clock.sleep(here.catalog.swarm.governor.approval_ttl_s)
    here.work()
    assert not (here.root / "touched").exists()
    assert here.approvals()[0].state is Standing.EXPIRED


def test_other_arguments_than_the_approved_ones_are_not_used(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    id = decide(here, approve=True)
    with writing(here.engine) as connection:
        connection.execute(
            update(APPROVALS)
            .where(APPROVALS.c.id == id)
            .values(arguments=json.dumps({"argv": ["touch", "other"]}))
        )
    here.work()
    assert list(here.root.glob("*o*")) == [here.root / "notes.md"]
    assert here.approvals()[0].note == "its arguments are not those that were approved"


def test_what_is_denied_by_now_is_not_done_though_it_was_approved(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    here.work()
    decide(here, approve=True)
    here.catalog = swarm_catalog(governor=Governor.model_validate({"rulings": {"exec": "deny"}}))
    here.work()
    assert not (here.root / "touched").exists()
    assert here.approvals()[0].state is Standing.REJECTED


def test_an_approved_edit_of_a_file_that_was_changed_since_is_not_made(tmp_path: Path) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    here.answers.status = Status.DEGRADED
    here.work()
    decide(here, approve=True)
    (here.root / "notes.md").write_text("first line, by a person\n")
    here.work()
    assert (here.root / "notes.md").read_text() == "first line, by a person\n"
    assert "changed since" in here.steps[2].note


def test_a_command_whose_words_are_denied_never_reaches_a_person(tmp_path: Path) -> None:
    here = ground(tmp_path, does("exec", argv=["dropdb", "production"]))
    here.work()
    assert here.steps[0].state is State.DENIED
    assert here.approvals() == []
    [line] = approvals.audit_log(here.engine)
    assert (line.ruling, line.arguments) == ("deny", {"argv": ["dropdb", "production"]})


def test_a_daemon_that_waits_goes_on_when_somebody_has_seen_to_it(tmp_path: Path) -> None:
    here = exec_ground(tmp_path)
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            decide(here, approve=True)

    here.clock.sleep = sleep  # type: ignore[method-assign]
    assert here.work(waits=True) is Ending.DONE
    assert (here.root / "touched").exists()


def test_a_daemons_daemon_works_within_the_same_bounds_and_asks_nobody(tmp_path: Path) -> None:
    here = ground(tmp_path, does("spawn_daemon", objective="sub"))
    here.work()
    decide(here, approve=True)
    here.work()
    assert here.steps[1].output.startswith(
        "all iterations are done; objective: sub\niteration 5 of 5"
    )
    with here.engine.connect() as connection:
        [child] = connection.execute(text("select id from run where mode = 'daemon-child'")).all()
    inner = swarm.steps(here.engine, child.id)
    assert "spawn_daemon" not in {s.action for s in inner}
    assert {s.state for s in inner} <= {State.DONE, State.FAILED, State.DENIED}


# Going on after an end in the midst of things.


class Killed(BaseException):
    """The process ends here; nothing after it happens."""


def cut(monkeypatch: pytest.MonkeyPatch, here: Ground, module: Any, name: str) -> None:
    """Let a daemon work until that function is called."""

    def dies(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dies)
        with pytest.raises(Killed):
            here.work()


def test_an_end_between_answer_and_intent_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    first = swarm.begin
    calls = iter(range(2))
    monkeypatch.setattr(
        swarm, "begin", lambda *a, **k: first(*a, **k) if next(calls) == 0 else killed()
    )
    with pytest.raises(Killed):
        here.work()
    monkeypatch.setattr(swarm, "begin", first)
    before = len(here.answers.asked)
    here.work()
    assert len(here.answers.asked) == before
    assert (here.root / "notes.md").read_text() == "second line\n"


def killed() -> Any:
    raise Killed


def test_an_edit_that_was_made_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = {"path": "notes.md", "find": "", "replace": "more"}
    here = ground(tmp_path, after_reading(does("edit_file", **edit)), max_iterations=2)
    first = swarm.finish
    calls = iter(range(2))
    monkeypatch.setattr(
        swarm, "finish", lambda *a, **k: first(*a, **k) if next(calls) == 0 else killed()
    )
    with pytest.raises(Killed):
        here.work()
    assert here.steps[1].state is State.INTENT
    monkeypatch.setattr(swarm, "finish", first)
    here.work()
    assert (here.root / "notes.md").read_text() == "first line\nmore\n"
    assert (here.steps[1].state, here.steps[1].note) == (State.DONE, "done, as the file shows")


def test_an_edit_that_was_not_made_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    cut(monkeypatch, here, tools.Directory, "write")
    assert here.steps[1].state is State.INTENT
    here.work()
    assert (here.root / "notes.md").read_text() == "second line\n"
    assert here.steps[1].state is State.DONE


def test_an_edit_of_a_file_that_is_neither_old_nor_new_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(tmp_path, after_reading(does("edit_file", **EDIT)), max_iterations=2)
    cut(monkeypatch, here, tools.Directory, "write")
    (here.root / "notes.md").write_text("something else\n")
    here.work()
    assert here.steps[1].state is State.UNKNOWN
    assert (here.root / "notes.md").read_text() == "something else\n"


def test_a_program_in_whose_midst_it_ended_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = exec_ground(tmp_path)
    here.work()
    decide(here, approve=True)
    cut(monkeypatch, here, swarm, "finish")
    assert (here.root / "touched").exists()
    (here.root / "touched").unlink()
    here.work()
    assert not (here.root / "touched").exists()
    assert [s.state for s in here.steps] == [State.WAITING, State.UNKNOWN]


def test_what_may_have_taken_effect_is_begun_again_by_a_person_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(
        tmp_path, does("run", command="once"), max_iterations=2,
        catalog=swarm_catalog(commands={"once": ("touch", "touched"), "other": ("true",)}),
    )  # fmt: skip
    cut(monkeypatch, here, swarm, "finish")
    (here.root / "touched").unlink()
    here.work()
    assert [s.state for s in here.steps] == [State.UNKNOWN, State.WAITING]
    assert not (here.root / "touched").exists()
    decide(here, approve=True)
    here.work()
    assert (here.root / "touched").exists()


def test_what_only_reads_or_records_is_done_again_and_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = does("write_memory", content="a fact")
    here = ground(tmp_path, after_reading(answer), max_iterations=2)
    cut(monkeypatch, here, swarm, "finish")
    assert here.steps[0].state is State.INTENT
    here.work()
    assert [s.state for s in here.steps] == [State.DONE, State.DONE]
    assert len(memories.query(here.engine)) == 1
    swarm.finish(here.engine, here.steps[1].id,
                 swarm.Outcome(State.DONE, "", "", NewMemory("bug", "twice", Source.DAEMON)),
                 here.clock())  # fmt: skip
    assert len(memories.query(here.engine)) == 1


# The kill file and the rate.


def test_the_kill_file_stops_it_before_the_next_action(tmp_path: Path) -> None:
    here = ground(tmp_path, does("read_file"), max_iterations=9)
    here.kill_file.touch()
    assert here.work() is Ending.KILLED
    assert (here.steps, here.answers.asked) == ([], [])
    here.kill_file.unlink()

    def answer(decision: Decision) -> str | None:
        if decision.key.startswith("i00002"):
            here.kill_file.touch()
        return does("search_text", query="x")(decision)

    here.answers._answer = answer
    assert here.work() is Ending.KILLED
    assert len(here.steps) == 2


def test_iterations_keep_to_their_rate(tmp_path: Path) -> None:
    here = ground(tmp_path, does("search_text", query="x"), max_iterations=5)
    here.work(per_hour=2)
    starts = [s.created_at for s in here.steps]
    assert len(starts) == 5
    for earlier, later in zip(starts, starts[2:], strict=False):
        assert later - earlier >= 3_600 * SECOND
    assert sum(here.clock.slept) == pytest.approx(7_200, abs=2)
    assert max(here.clock.slept) <= 1.0


def test_the_kill_file_ends_a_long_sleep(tmp_path: Path) -> None:
    here = ground(tmp_path, does("search_text", query="x"), max_iterations=5)
    here.clock.sleep = lambda seconds: here.kill_file.touch()  # type: ignore[method-assign]
    assert here.work(per_hour=1) is Ending.KILLED
    assert len(here.steps) == 1


def test_the_rate_counts_what_earlier_processes_did(tmp_path: Path) -> None:
    pace = Pace(3, tmp_path / "kill", lambda: START, lambda seconds: None)
    assert pace.due_at([1, 2]) == 0
    assert pace.due_at([5, 1, 9, 7]) == 5 + 3_600 * SECOND
    assert Pace(None, tmp_path, lambda: 0, print).due_at([1, 2, 3]) == 0


def test_a_budget_past_its_mark_is_told_of_once(tmp_path: Path) -> None:
    here = ground(tmp_path, does("read_file"))
    today = datetime.now(UTC).date().isoformat()
    bound, told = Bound(f"day:{today}", 10_000_000), set[str]()
    for micros, news in ((7_900_000, 0), (200_000, 1), (100_000, 0)):
        with writing(here.engine) as connection:
            assert reserve(connection, [bound], micros) is None
            settle(connection, [bound.scope], micros, micros)
        assert len(alerts(here.engine, here.run.id, 0.8, told)) == news


def test_a_schema_that_leaves_no_choice_is_not_asked() -> None:
    one: dict[str, Any] = {"properties": {"path": {"enum": ["a"]}}}
    assert the_only_choice(one) == {"path": "a"}
    assert the_only_choice({"properties": {"path": {"enum": ["a", "b"]}}}) is None
    assert the_only_choice({"properties": {"query": {"type": "string"}}}) is None


def test_every_action_is_told_to_the_model() -> None:
    from producers.prompts import load_template
    from producers.swarm.actions import ALL

    system = load_template("daemon_action").system
    for action in ALL:
        assert f"\n{action.name}: {action.does}\n" in system


def test_a_profiles_own_rules_come_to_those_of_the_swarm(tmp_path: Path) -> None:
    profile = Path(__file__).parents[1] / "daemon.toml"
    mine = tmp_path / "mine.toml"
    rule = '[[swarm.governor.rules]]\nactions = ["run"]\nruling = "deny"\nreason = "no"\n'
    mine.write_text(f"{profile.read_text()}\n{rule}")
    own, more = (load_catalog(str(one)).swarm.governor.rules for one in (profile, mine))
    assert more[: len(own)] == own
    assert [one.reason for one in more[len(own) :]] == ["no"]
