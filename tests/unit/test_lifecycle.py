"""Every state change of a decision, on a real SQLite ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from config.settings import Settings
from ledger import lifecycle, outbox, sweeping
from ledger.database import migrate, open_ledger, reading
from ledger.outbox import CHECK, DECIDE
from ledger.records import Planned, StoredVerdict, Tried
from ledger.rulings import Ruling, Settlement
from ledger.runs import start_run
from ledger.tables import TABLES
from routing.decision import ChoiceOutput, Complexity, Decision, Hop, Plan, Status

DECISIONS = TABLES.tables["decision"]
ATTEMPTS = TABLES.tables["attempt"]
LEASE = 1_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    settings = Settings(data_dir=tmp_path)
    migrate(settings)
    engine = open_ledger(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def run_id(engine: Engine) -> str:
    return start_run(engine, mode="test", profile="tiny", now=0).id


def planned(key: str, *, fallback: str | None = None, deadline_s: float | None = None) -> Planned:
    decision = Decision(
        kind="next_action", prompt=f"What about {key}?", output=ChoiceOutput(labels=("A", "B")),
        key=key, system="Choose.", fallback=fallback, deadline_s=deadline_s,
    )  # fmt: skip
    hops = (Hop(lane="tier1", reason="first"), Hop(lane="tier2", reason="then"))
    return Planned(decision, Plan(hops=hops, complexity=Complexity.SIMPLE))


def submit(engine: Engine, run_id: str, *keys: str, **more: object) -> list[str]:
    items = [planned(key, **more) for key in keys]  # type: ignore[arg-type]
    return list(lifecycle.submit(engine, run_id, items, now=10).ids)


def claim(engine: Engine, ids: list[str], token: str, now: int, lane: str = "tier1") -> list[str]:
    found = lifecycle.claim(engine, lane, ids, token=token, now=now, lease_us=LEASE)
    return [c.id for c in found]


def answer(decision_id: str, label: str = "A", **more: object) -> Tried:
    tried = Tried(decision_id, "m", "f", raw=label, label=label, probabilities=(0.9, 0.1))
    return replace(tried, **more)  # type: ignore[arg-type]


def row(engine: Engine, decision_id: str) -> dict[str, object]:
    with reading(engine) as connection:
        query = select(*DECISIONS.c).where(DECISIONS.c.id == decision_id)
        return dict(connection.execute(query).one()._mapping)


def attempts(engine: Engine) -> list[dict[str, object]]:
    with reading(engine) as connection:
        return [dict(r._mapping) for r in connection.execute(select(*ATTEMPTS.c))]


def ruling(engine: Engine, decision_id: str, *, score: float = 1.0, **more: object) -> Ruling:
    found = [a for a in attempts(engine) if a["decision_id"] == decision_id][-1]
    verdict = StoredVerdict(format=1, completeness=1, coherence=1, score=score, passed=score >= 0.7,
                            usable=True, answer=str(found["raw"]))  # fmt: skip
    hop = row(engine, decision_id)["hop"]
    return Ruling(decision_id, int(str(hop)), str(found["id"]), verdict.model_dump_json(), score,
                  score >= 0.7, **more)  # type: ignore[arg-type]  # fmt: skip


def test_submission_writes_decisions_and_one_message_a_lane(engine: Engine, run_id: str) -> None:
    submission = lifecycle.submit(engine, run_id, [planned("a"), planned("b")], now=10)
    assert [(m.task, m.queue, m.ids) for m in submission.messages] == [
        (DECIDE, "tier1", submission.ids)
    ]
    assert outbox.unsent(engine, older_than=11) == list(submission.messages)


def test_a_key_that_the_run_knows_is_not_written_again(engine: Engine, run_id: str) -> None:
    first = lifecycle.submit(engine, run_id, [planned("a")], now=10)
    again = lifecycle.submit(engine, run_id, [planned("b"), planned("a")], now=20)
    assert again.ids[1] == first.ids[0]
    assert [m.ids for m in again.messages] == [again.ids[:1]]


def test_ids_come_back_in_the_order_of_submission(engine: Engine, run_id: str) -> None:
    keys = [f"k{i % 7}.{i}" for i in range(700)]
    ids = submit(engine, run_id, *keys)
    assert [row(engine, i)["key"] for i in (ids[0], ids[350], ids[699])] == [
        keys[0], keys[350], keys[699],
    ]  # fmt: skip


def test_a_published_message_leaves_the_outbox_and_a_failed_one_stays(
    engine: Engine, run_id: str
) -> None:
    submission = lifecycle.submit(engine, run_id, [planned("a")], now=10)

    def refuse(message: outbox.Message) -> None:
        raise OSError("broker away")

    with pytest.raises(OSError, match="away"):
        outbox.publish(engine, submission.messages, refuse)
    assert len(outbox.unsent(engine, older_than=11)) == 1
    assert outbox.publish(engine, submission.messages, lambda m: None) == 1
    assert outbox.unsent(engine, older_than=11) == []


def test_only_one_of_two_claims_gets_a_decision(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a", "b")
    assert claim(engine, ids, "one", now=20) == ids
    assert claim(engine, ids, "two", now=21) == []


def test_a_claim_for_another_lane_takes_nothing(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    assert claim(engine, ids, "one", now=20, lane="tier2") == []


def test_an_expired_lease_can_be_claimed_and_its_old_holder_cannot_write(
    engine: Engine, run_id: str
) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "old", now=20)
    assert claim(engine, ids, "new", now=21 + LEASE) == ids
    late = lifecycle.record(engine, "old", [answer(ids[0])], now=22 + LEASE)
    assert late.messages == []
    assert attempts(engine) == []
    assert lifecycle.record(engine, "new", [answer(ids[0])], now=23 + LEASE).messages


def test_what_was_lost_with_its_worker_is_only_taken_alone(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a", "b", "c")
    claim(engine, ids[:2], "old", now=20)
    later = 21 + LEASE
    assert claim(engine, ids, "batch", now=later) == ids[2:]
    assert claim(engine, ids[:1], "alone", now=later) == ids[:1]
    found = sweeping.republish(engine, now=later, stale_before=later)
    assert [m.ids for m in found.messages] == [(ids[1],)]


def test_a_renewed_lease_is_not_claimed_by_others(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "one", now=20)
    assert lifecycle.renew(engine, "one", now=20 + LEASE, lease_us=LEASE) == 1
    assert claim(engine, ids, "two", now=21 + LEASE) == []


def test_a_claim_carries_the_whole_question(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    found = lifecycle.claim(engine, "tier1", ids, token="t", now=20, lease_us=LEASE)[0]
    asked = planned("a").decision
    assert (found.decision.system, found.decision.prompt) == (asked.system, asked.prompt)
    assert found.decision.output == asked.output


def test_an_answer_is_recorded_once_and_sent_to_the_check(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "t", now=20)
    followers = lifecycle.record(engine, "t", [answer(ids[0], cost_micros=7)], now=30)
    assert [(m.task, m.ids) for m in followers.messages] == [(CHECK, (ids[0],))]
    again = lifecycle.record(engine, "t", [answer(ids[0], cost_micros=7)], now=31)
    assert again.messages == []
    assert len(attempts(engine)) == 1
    assert row(engine, ids[0])["cost_micros"] == 7


def test_a_ruling_settles_and_a_second_one_changes_nothing(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "t", now=20)
    lifecycle.record(engine, "t", [answer(ids[0])], now=30)
    accept = ruling(engine, ids[0], settle=Settlement(Status.ACCEPTED, "A", "tier1", "passed", 0.9))
    assert lifecycle.rule(engine, [accept], now=40).settled == [(run_id, ids[0])]
    assert lifecycle.rule(engine, [accept], now=50).settled == []
    settled = lifecycle.find_settled(engine, ids)
    assert [(s.status, s.answer, s.lane) for s in settled] == [(Status.ACCEPTED, "A", "tier1")]


def test_a_failed_check_queues_the_next_lane(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "t", now=20)
    lifecycle.record(engine, "t", [answer(ids[0])], now=30)
    climb = ruling(engine, ids[0], score=0.6, climb_to=(1, "tier2"))
    followers = lifecycle.rule(engine, [climb], now=40)
    assert [(m.task, m.queue) for m in followers.messages] == [(DECIDE, "tier2")]
    assert claim(engine, ids, "u", now=41, lane="tier2") == ids
    assert row(engine, ids[0])["climbs"] == 1


def test_without_a_lane_left_the_best_attempt_counts_not_the_last(
    engine: Engine, run_id: str
) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "t", now=20)
    lifecycle.record(engine, "t", [answer(ids[0], "A")], now=30)
    lifecycle.rule(engine, [ruling(engine, ids[0], score=0.65, climb_to=(1, "tier2"))], now=40)
    claim(engine, ids, "u", now=41, lane="tier2")
    lifecycle.record(engine, "u", [answer(ids[0], "B")], now=50)
    lifecycle.rule(engine, [ruling(engine, ids[0], score=0.5, degrade="no lane left")], now=60)
    settled = lifecycle.find_settled(engine, ids)[0]
    assert (settled.status, settled.answer, settled.lane) == (Status.DEGRADED, "A", "tier1")


@pytest.mark.parametrize(
    ("rounds", "best"),
    [
        ([("A", 0.625, 0.4, True), ("B", 0.625, 0.6, True)], "B"),
        ([("A", 0.625, 0.6, True), ("B", 0.625, 0.4, True)], "A"),
        ([("A", 0.6, 0.9, True), ("B", 0.625, 0.4, True)], "B"),
        ([("A", 0.625, 0.9, True), ("B", 0.625, None, True)], "B"),
        ([("A", 0.4, None, True), ("B", 0.9, 0.99, False)], "A"),
    ],
)
def test_of_attempts_over_lanes_the_best_score_then_the_surest_then_the_latest_counts(
    engine: Engine, run_id: str, rounds: list[tuple[str, float, float | None, bool]], best: str
) -> None:
    ids = submit(engine, run_id, "a")
    for hop, (label, score, p_answer, usable) in enumerate(rounds):
        claim(engine, ids, f"t{hop}", now=20 + hop, lane=f"tier{hop + 1}")
        lifecycle.record(engine, f"t{hop}", [answer(ids[0], label)], now=30 + hop)
        last = hop == len(rounds) - 1
        ends = {"degrade": "no lane left"} if last else {"climb_to": (hop + 1, f"tier{hop + 2}")}
        ruled = ruling(engine, ids[0], score=score, **ends)
        verdict = StoredVerdict.model_validate_json(ruled.verdict)
        changes = {"p_answer": p_answer, "usable": usable, "passed": False}
        told = verdict.model_copy(update=changes).model_dump_json()
        lifecycle.rule(engine, [replace(ruled, verdict=told, passed=False)], now=40 + hop)
    settled = lifecycle.find_settled(engine, ids)[0]
    assert (settled.status, settled.answer) == (Status.DEGRADED, best)


@pytest.mark.parametrize(("calibrated", "best"), [(None, "B"), ((0.9, 0.1), "A")])
def test_what_two_models_say_of_themselves_counts_only_once_calibrated(
    engine: Engine, run_id: str, calibrated: tuple[float, ...] | None, best: str
) -> None:
    ids = submit(engine, run_id, "a")
    for hop, (label, p_answer) in enumerate([("A", 0.9), ("B", 0.6)]):
        claim(engine, ids, f"t{hop}", now=20 + hop, lane=f"tier{hop + 1}")
        tried = replace(answer(ids[0], label), fingerprint=f"f{hop}", calibrated=calibrated)
        lifecycle.record(engine, f"t{hop}", [tried], now=30 + hop)
        ends = {"degrade": "no lane left"} if hop else {"climb_to": (1, "tier2")}
        ruled = ruling(engine, ids[0], score=0.6, **ends)
        verdict = StoredVerdict.model_validate_json(ruled.verdict)
        told = verdict.model_copy(update={"p_answer": p_answer, "passed": False})
        ruled = replace(ruled, verdict=told.model_dump_json(), passed=False)
        lifecycle.rule(engine, [ruled], now=40 + hop)
    assert lifecycle.find_settled(engine, ids)[0].answer == best


def test_without_a_usable_attempt_no_answer_is_handed_back(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "t", now=20)
    lifecycle.record(engine, "t", [answer(ids[0])], now=30)
    ruled = ruling(engine, ids[0], score=0.9, degrade="no lane left")
    vetoed = StoredVerdict.model_validate_json(ruled.verdict).model_copy(update={"usable": False})
    lifecycle.rule(engine, [replace(ruled, verdict=vetoed.model_dump_json())], now=40)
    settled = lifecycle.find_settled(engine, ids)[0]
    assert (settled.status, settled.answer) == (Status.DEAD, "")


def test_a_failure_waits_for_its_time_and_is_then_published(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "t", now=20)
    failure = Tried(ids[0], "m", "f", error="overloaded", again_at=500)
    assert lifecycle.record(engine, "t", [failure], now=30).messages == []
    assert claim(engine, ids, "u", now=499) == []
    early = sweeping.republish(engine, now=499, stale_before=0)
    assert early.messages == []
    due = sweeping.republish(engine, now=501, stale_before=0)
    assert [(m.queue, m.ids) for m in due.messages] == [("tier1", (ids[0],))]
    assert sweeping.republish(engine, now=502, stale_before=0).messages == []
    assert claim(engine, ids, "u", now=502) == ids


def test_a_lane_that_gives_up_hands_on_to_the_next(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "t", now=20)
    broken = Tried(ids[0], "m", "f", error="broken", climb_to=(1, "tier2"))
    followers = lifecycle.record(engine, "t", [broken], now=30)
    assert [(m.task, m.queue) for m in followers.messages] == [(DECIDE, "tier2")]


@pytest.mark.parametrize(
    ("fallback", "status", "text"), [(None, Status.DEAD, ""), ("B", Status.FALLBACK, "B")]
)
def test_a_plan_of_failures_ends_dead_or_with_the_askers_fallback(
    engine: Engine, run_id: str, fallback: str | None, status: Status, text: str
) -> None:
    ids = submit(engine, run_id, "a", fallback=fallback)
    for lane, token, onward in (("tier1", "t", (1, "tier2")), ("tier2", "u", None)):
        claim(engine, ids, token, now=20, lane=lane)
        broken = Tried(ids[0], "m", "f", error="broken", climb_to=onward)
        lifecycle.record(engine, token, [broken], now=30)
    settled = lifecycle.find_settled(engine, ids)[0]
    assert (settled.status, settled.answer) == (status, text)
    assert "broken" in settled.reason


def test_lost_work_is_published_again_once_it_is_stale(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a", "b", "c")
    claim(engine, ids[:1], "t", now=20)
    claim(engine, ids[1:2], "t2", now=20)
    lifecycle.record(engine, "t2", [answer(ids[1])], now=21)
    found = sweeping.republish(engine, now=5_000, stale_before=4_000)
    assert [m.ids for m in found.messages].count((ids[2],)) == 1
    assert {(m.task, m.queue): set(m.ids) for m in found.messages} == {
        (DECIDE, "tier1"): {ids[0]},
        (CHECK, "quality"): {ids[1]},
    }


def test_a_decision_past_its_deadline_expires_with_its_fallback(
    engine: Engine, run_id: str
) -> None:
    ids = submit(engine, run_id, "a", fallback="B", deadline_s=1)
    assert sweeping.expire(engine, now=1_000_000).settled == []
    assert sweeping.expire(engine, now=1_000_011).settled == [(run_id, ids[0])]
    settled = lifecycle.find_settled(engine, ids)[0]
    assert (settled.status, settled.answer) == (Status.EXPIRED, "B")


def test_a_critics_answer_brings_its_parent_back_to_the_check(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "t", now=20)
    lifecycle.record(engine, "t", [answer(ids[0])], now=30)
    question = replace(planned("a.critic"), parent_id=ids[0])
    followers = lifecycle.rule(engine, [ruling(engine, ids[0], questions=(question,))], now=40)
    critic = followers.messages[0].ids[0]
    claim(engine, [critic], "c", now=41)
    lifecycle.record(engine, "c", [answer(critic)], now=42)
    accept = ruling(engine, critic, settle=Settlement(Status.ACCEPTED, "A", "tier1", "ok"))
    done = lifecycle.rule(engine, [accept], now=43)
    assert (CHECK, (ids[0],)) in [(m.task, m.ids) for m in done.messages]


def test_a_check_that_kills_its_worker_ends_alone_after_some_tries(
    engine: Engine, run_id: str
) -> None:
    bad, good = submit(engine, run_id, "bad", "good")
    claim(engine, [bad, good], "t", now=20)
    lifecycle.record(engine, "t", [answer(bad), answer(good)], now=30)
    for now in (100, 200, 300):  # nobody has come to it yet: one message each time
        again = sweeping.republish(engine, now=now, stale_before=now - 10).messages
        assert [m.ids for m in again] == [(bad, good)]
    assert sweeping.begin_checks(engine, [bad, good], 3, now=310)[0] == {bad, good}
    alone = sweeping.republish(engine, now=400, stale_before=390).messages
    assert [m.ids for m in alone] == [(bad,), (good,)]
    assert [sweeping.begin_checks(engine, [bad], 3, now=410)[0] for _ in range(2)] == [{bad}] * 2
    going_on, ended = sweeping.begin_checks(engine, [bad], 3, now=420)
    assert going_on == set()
    assert [decision for _, decision in ended.settled] == [bad]
    assert "its checkers may have died" in str(row(engine, bad)["reason"])
    assert row(engine, good)["state"] == "answered"


def test_a_claim_whose_answer_was_lost_is_claimed_again_by_the_same(
    engine: Engine, run_id: str
) -> None:
    ids = submit(engine, run_id, "a", "b")
    for _ in range(2):
        found = lifecycle.claim(engine, "tier1", ids, token="t", now=20, lease_us=LEASE)
        assert [(c.id, c.deliveries) for c in found] == [(i, 1) for i in ids]
    assert claim(engine, ids, "u", now=30) == []


def test_decisions_of_a_lane_without_workers_move_on(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    [message] = sweeping.strand(engine, "tier1", {"tier2"}, now=50).messages
    assert (message.queue, message.ids) == ("tier2", (ids[0],))
    ended = sweeping.strand(engine, "tier2", {"tier1"}, now=60)
    assert [i for _, i in ended.settled] == ids
    settled = lifecycle.find_settled(engine, ids)[0]
    assert (settled.status, settled.reason) == (Status.DEAD, "no worker serves tier2")


def test_only_a_decision_that_was_lost_with_its_worker_is_a_suspect(
    engine: Engine, run_id: str
) -> None:
    ids = submit(engine, run_id, "a")
    assert not lifecycle.is_suspect(engine, ids[0], now=10)
    claim(engine, ids, "t", now=20)
    assert not lifecycle.is_suspect(engine, ids[0], now=30)
    assert lifecycle.is_suspect(engine, ids[0], now=21 + LEASE)


def test_more_than_a_round_takes_does_not_starve(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, *map(str, range(7)))
    sent: list[str] = []
    for now in (1_000, 1_100, 1_200):
        found = sweeping.republish(engine, now=now, stale_before=now - 50, limit=3)
        sent += [i for m in found.messages for i in m.ids]
    assert set(sent) == set(ids)


def test_who_waits_for_a_critic_is_not_asked_for_again(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, "a")
    claim(engine, ids, "t", now=20)
    lifecycle.record(engine, "t", [answer(ids[0])], now=30)
    lifecycle.rule(engine, [ruling(engine, ids[0], questions=(planned("critic"),))], now=40)
    waiting = sweeping.republish(engine, now=1_000, stale_before=990).messages
    assert [m.task for m in waiting] == [DECIDE]  # the critic itself


def test_suspects_go_out_some_at_a_time(engine: Engine, run_id: str) -> None:
    ids = submit(engine, run_id, *map(str, range(120)))
    claim(engine, ids, "t", now=20)
    lost = [sweeping.republish(engine, now=5_000 + i, stale_before=4_000).messages
            for i in range(4)]  # fmt: skip
    assert [len(messages) for messages in lost] == [50, 50, 20, 0]
    assert all(len(m.ids) == 1 for messages in lost for m in messages)
