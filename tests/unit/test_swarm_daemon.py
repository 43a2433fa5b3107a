"""The loop: what is chosen, asked, done and noted, iteration by iteration."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.load import load_catalog
from ledger import memories
from ledger.clock import SECOND
from ledger.memories import NewMemory, Source
from ledger.swarm import State
from producers.swarm.daemon import Ending, the_only_choice
from routing.decision import Privacy, Status
from tests.unit.daemons import (
    EDIT,
    START,
    Answers,
    after_reading,
    closed,
    does,
    ground,
    swarm_catalog,
)  # fmt: skip

__all__ = ["closed"]


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


def test_a_key_in_a_file_is_in_no_prompt(tmp_path: Path) -> None:
    here = ground(tmp_path, does("summarize"), actions=("summarize", "git_log"), max_iterations=2)
    (here.root / "long.md").write_text("sk-ant-REDACTED\n" + "a line\n" * 400)
    here.work()
    assert any(d.key.endswith(".work") for d in here.answers.asked)
    assert not any("sk-ant" in d.prompt for d in here.answers.asked)


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


def test_what_a_private_daemon_noted_is_hidden_from_those_whose_prompts_may_leave(
    tmp_path: Path,
) -> None:
    note = after_reading(does("write_memory", content="a private fact"))
    here = ground(tmp_path, note, max_iterations=2, privacy=Privacy.HIGH)
    here.work()
    (tmp_path / "open").mkdir()
    for privacy, offered in ((Privacy.MEDIUM, False), (Privacy.MAXIMUM, True)):
        here.order = replace(here.order, privacy=privacy, max_iterations=1, actions=())
        here.run = here._run(here.order)
        here.answers = Answers(does("query_memory"))
        here.work()
        [chosen] = [d for d in here.answers.asked if d.kind == "daemon_action"]
        assert ("query_memory" in chosen.output.labels) is offered  # type: ignore[union-attr]
        assert any("a private fact" in s.output for s in here.steps) is offered


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
