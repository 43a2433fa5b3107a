"""The whole life of decisions: real brokers, real workers, scripted models, a provider stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.session import Session, session
from config.broker import is_amqp
from config.load import load_catalog
from config.queues import make_app
from ledger.reports import report
from ledger.trail import trail
from routing.decision import (
    CacheScope,
    ChoiceOutput,
    Complexity,
    Decision,
    Output,
    Preferences,
    Privacy,
    Settled,
    Status,
    TextOutput,
)
from tests.integration.places import Place
from tests.standin import MessagesStandin, Reply, fault, message
from workers.stack_state import StackState

PROFILE = Path(__file__).parents[1] / "profiles_scripted.toml"
AB = ChoiceOutput(labels=("A", "B"))
COUNTER = iter(range(1_000_000))


def provider(number: int, body: Reply) -> Reply:
    """Overloaded once, then too slow once, then fine, for each question that says so."""
    question = body["messages"][0]["content"]
    before = SEEN.setdefault(question, 0)
    SEEN[question] += 1
    if "overloaded" in question and before == 0:
        return fault(529, "overloaded_error")
    if "slow" in question and before == 0:
        return message("late") | {"hang_s": 2.5}
    return message("B", tokens_in=1000, tokens_out=4)


SEEN: dict[str, int] = {}


@pytest.fixture(scope="module")
def live(place: Place) -> Iterator[Session]:
    SEEN.clear()
    with pytest.MonkeyPatch.context() as patch, MessagesStandin(provider) as standin:
        patch.setenv("ANTHROPIC_API_KEY", "sk-test")
        patch.setenv("ANTHROPIC_BASE_URL", standin.url)
        settings = place.settings(profile=str(PROFILE), stale_after_s=5)
        with session(settings, mode="test", own_workers=True) as opened:
            yield opened


def ask(live: Session, prompt: str, kind: str = "question", **more: Any) -> Settled:
    output: Output = more.pop("output", AB)
    key = f"k{next(COUNTER)}"
    decision = Decision(kind=kind, prompt=prompt, output=output, key=key, **more)
    return live.client.gather([decision], timeout_s=60)[0]


def test_an_easy_question_is_accepted_on_the_first_tier(live: Session) -> None:
    settled = ask(live, "easy")
    assert (settled.status, settled.lane, settled.climbs) == (Status.ACCEPTED, "tier1", 0)
    assert settled.answer in AB.labels


def test_a_guess_climbs(live: Session) -> None:
    settled = ask(live, "this is hard")
    assert (settled.status, settled.lane, settled.climbs) == (Status.ACCEPTED, "tier2", 1)
    verdicts = [a.verdict for a in trail(live.engine, settled.id).attempts]
    assert [v.score for v in verdicts if v] == [0.625, 1.0]


def test_a_label_outside_the_set_is_a_veto_and_climbs(live: Session) -> None:
    settled = ask(live, "off the set")
    assert (settled.lane, settled.answer in AB.labels) == ("tier2", True)


def test_a_failed_call_is_tried_again_on_the_same_lane(live: Session) -> None:
    settled = ask(live, "breaks once")
    assert (settled.status, settled.lane) == (Status.ACCEPTED, "tier1")
    found = trail(live.engine, settled.id)
    assert [(a.number, a.outcome) for a in found.attempts] == [(1, "failed"), (2, "answered")]


def test_a_lane_that_cannot_answer_hands_on_to_the_next(live: Session) -> None:
    settled = ask(live, "fast tier broken")
    assert (settled.status, settled.lane) == (Status.ACCEPTED, "tier2")


def test_a_gather_keeps_the_order_of_submission(live: Session) -> None:
    decisions = [
        Decision(kind="question", prompt="hard" if i % 7 == 0 else "easy", output=AB,
                 key=f"order-{i}", seed=i)
        for i in range(120)
    ]  # fmt: skip
    settled = live.client.gather(decisions, timeout_s=60)
    assert [s.key for s in settled] == [d.key for d in decisions]


def test_the_same_key_is_asked_once(live: Session) -> None:
    decision = Decision(kind="question", prompt="easy", output=AB, key="once")
    first, second = (live.client.gather([decision], timeout_s=60)[0] for _ in range(2))
    assert first == second
    assert len(trail(live.engine, first.id).attempts) == 1


def test_a_text_is_shown_to_a_critic_that_is_counted_as_a_decision(live: Session) -> None:
    settled = ask(live, "write a note", kind="note", output=TextOutput())
    assert settled.status is Status.ACCEPTED
    verdict = trail(live.engine, settled.id).attempts[-1].verdict
    assert verdict is not None
    assert verdict.critique in (0.0, 1.0)
    kinds = figures(live).decisions.by_kind
    assert kinds["self_critique"] >= 1


def test_a_request_that_turns_out_to_be_private_stays_on_the_machine(live: Session) -> None:
    wishes = Preferences(classify=True)
    settled = ask(live, "a conflict about salaries", kind="conflict", preferences=wishes)
    assert (settled.status, settled.lane) == (Status.ACCEPTED, "tier2")
    found = trail(live.engine, settled.id)
    assert found.plan.complexity is Complexity.COMPLEX
    assert found.plan.notes == ("cloud: privacy high keeps this decision on the machine",)
    assert figures(live).decisions.by_kind["request_classification"] >= 1


def test_a_request_that_cannot_be_classified_is_planned_as_it_was_asked(live: Session) -> None:
    settled = ask(live, "a conflict", kind="conflict", preferences=Preferences(classify=True))
    assert (settled.status, settled.lane) == (Status.ACCEPTED, "tier3")


def test_a_cloud_answer_brings_tokens_and_cost_into_the_ledger(live: Session) -> None:
    settled = ask(live, "a conflict", kind="conflict")
    assert (settled.status, settled.lane, settled.answer) == (Status.ACCEPTED, "tier3", "B")
    assert settled.cost_micros == 255
    attempt = trail(live.engine, settled.id).attempts[0]
    assert (attempt.tokens_in, attempt.tokens_out, attempt.cost_usd) == (1000, 4, 0.000255)


def test_an_overloaded_provider_is_called_again_by_the_ledger(live: Session) -> None:
    settled = ask(live, "overloaded conflict", kind="conflict")
    assert (settled.status, settled.cost_micros) == (Status.ACCEPTED, 255)
    found = trail(live.engine, settled.id)
    assert [(a.number, a.outcome) for a in found.attempts] == [(1, "failed"), (2, "answered")]
    assert "529" in found.attempts[0].error


def test_a_call_that_timed_out_is_an_unknown_charge_and_is_called_again(live: Session) -> None:
    settled = ask(live, "slow conflict", kind="conflict")
    assert settled.status is Status.ACCEPTED
    found = trail(live.engine, settled.id)
    assert [a.outcome for a in found.attempts] == ["unknown_charge", "answered"]
    assert figures(live).unknown_charge_usd > 0


def test_a_private_question_never_reaches_the_provider(live: Session) -> None:
    private = Preferences(privacy=Privacy.HIGH)
    settled = ask(live, "private conflict", kind="conflict", preferences=private)
    assert settled.lane == "tier2"
    assert not any("private conflict" in question for question in SEEN)


def test_a_panel_outvotes_the_lane_that_asked_it(live: Session) -> None:
    settled = ask(live, "a vote", kind="voted")
    assert (settled.status, settled.answer, settled.lane) == (Status.ACCEPTED, "B", "tier1")
    assert settled.reason == "2 of 3 agree: tier1, tier3"
    [attempt] = trail(live.engine, settled.id).attempts
    assert attempt.verdict is not None
    assert attempt.verdict.agreement == {"tier1": False, "tier3": False}
    assert any("a vote" in question for question in SEEN)


def test_a_private_vote_is_not_put_to_the_provider(live: Session) -> None:
    private = Preferences(privacy=Privacy.HIGH)
    settled = ask(live, "a private vote", kind="voted", preferences=private)
    assert (settled.status, settled.answer, settled.lane) == (Status.DEGRADED, "A", "tier2")
    assert "no consensus: 1 of 3 agree, 2 are needed" in settled.reason
    assert not any("a private vote" in question for question in SEEN)


def figures(live: Session) -> Any:
    return report(live.engine, live.settings, load_catalog(live.settings.profile), live.run)


def test_the_report_adds_up(live: Session) -> None:
    found = figures(live)
    counts = found.decisions
    assert found.unsettled == 0
    assert found.empty == counts.by_status.get("dead", 0)  # the one that cannot be classified
    for part in (counts.by_status, counts.by_tier, counts.by_kind):
        assert sum(part.values()) == counts.total
    assert found.cost_usd == pytest.approx(sum(lane.cost_usd for lane in found.lanes.values()))
    assert {"waiting", "inference"} == set(found.latency_ms.model_dump())


def uptier(*arguments: str, data: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ANTHROPIC")}
    environment |= {**env, "UPTIER_DATA_DIR": str(data)}
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=400, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.usefixtures("live")
def test_decide_prints_answer_routing_verdict_and_attempts(place: Place, tmp_path: Path) -> None:
    here = place.for_a_command(tmp_path)
    done = uptier(
        "decide", "--kind", "question", "--prompt", "this is hard", "--choices", "A,B",
        "--profile", str(PROFILE), data=here.data_dir, **here.env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in ("Answer", "Routing", "belongs to local_fast", "ANTHROPIC_API_KEY is not set",
                 "verdict failed with 0.625", "verdict passed", "Cost"):  # fmt: skip
        assert word in done.stdout
    assert not (tmp_path / "stack" / "stack.json").exists()


@pytest.mark.usefixtures("live")
def test_decide_prints_json_and_answers_a_cacheable_kind_from_another_run(
    place: Place, tmp_path: Path
) -> None:
    here = place.for_a_command(tmp_path)

    def decide() -> dict[str, Any]:
        done = uptier(
            "decide", "--kind", "routine", "--prompt", "easy", "--json",
            "--profile", str(PROFILE), data=here.data_dir, **here.env,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    first, second = decide(), decide()
    assert first["answer"] == second["answer"]
    assert (first["status"], second["status"]) == ("accepted", "cached")
    assert (len(first["attempts"]), len(second["attempts"])) == (1, 0)


def test_status_shows_the_stack_its_queues_and_its_workers(live: Session, place: Place) -> None:
    done = uptier(
        "status", "--json", "--profile", str(PROFILE), data=place.data_dir,
        ANTHROPIC_API_KEY="sk-test", **place.env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["condition"], found["broker_problem"], found["ledger_problem"]) == (
        "up", None, None,
    )  # fmt: skip
    assert found["queues"] == dict.fromkeys(("tier1", "tier2", "tier3", "quality", "intake"), 0)
    assert {(w["lane"], w["state"]) for w in found["workers"]} == {
        (lane, "ready") for lane in ("tier1", "tier2", "tier3", "quality")
    }


def test_workers_answer_to_remote_control(live: Session, place: Place) -> None:
    state = StackState.read(live.settings.stack_dir)
    assert state is not None
    app = make_app(live.settings, state.broker_url)
    replies = app.control.inspect(timeout=2).active_queues()
    app.close()
    lanes = {name.split("-")[0]: [q["name"] for q in queues] for name, queues in replies.items()}
    prefix = live.settings.key_prefix if is_amqp(state.broker_url) else ""
    served = {"tier1": ["tier1"], "tier2": ["tier2"], "tier3": ["tier3"],
              "quality": ["quality", "intake"]}  # fmt: skip
    assert lanes == {name: [prefix + queue for queue in some] for name, some in served.items()}


def test_a_run_of_its_own_scope_shares_no_answers(live: Session) -> None:
    own = Preferences(cache=CacheScope.RUN)
    statuses = [
        ask(live, "routine in scope", kind="routine", preferences=own).status for _ in range(2)
    ]
    assert statuses == [Status.ACCEPTED, Status.CACHED]
    shared = ask(live, "routine in scope", kind="routine")
    assert shared.status is Status.ACCEPTED
