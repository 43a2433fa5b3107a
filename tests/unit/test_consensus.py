"""Consensus of several models, from the panel's question to the settlement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.consensus import Consensus
from config.demands import Demands
from ledger import lifecycle, sweeping
from ledger.clock import now
from ledger.outbox import CHECK
from routing.consensus import Vote, tally
from routing.critique import critic_question
from routing.decision import ChoiceOutput, Decision, Preferences, Privacy, Status
from tests.unit.house import House
from tests.unit.ledgers import rows

AB = ChoiceOutput(labels=("A", "B"))
PROFILE = """
[lanes.first]
tier = "low"
model = "one"
consensus = { members = ["second", "third"], agree = 0.66, kinds = ["voted", "critical"] }
[lanes.second]
tier = "low"
model = "two"
speciality = "other"
[lanes.third]
tier = "low"
model = "three"
speciality = "another"
[lanes.top]
tier = "high"
model = "best"
[models.one]
backend = "scripted"
[[models.one.script.lines]]
contains = "one guesses"
answer = "A"
p = 0.52
[[models.one.script.lines]]
answer = "A"
[models.two]
backend = "scripted"
[[models.two.script.lines]]
contains = "two fails"
fail = "out of order"
retryable = false
[[models.two.script.lines]]
contains = "two says B"
answer = "B"
[[models.two.script.lines]]
answer = "A"
[models.three]
backend = "scripted"
price = { input = "100", output = "100" }
[[models.three.script.lines]]
contains = "three says B"
answer = "B"
[[models.three.script.lines]]
contains = "three guesses"
answer = "B"
p = 0.52
[[models.three.script.lines]]
answer = "A"
[models.best]
backend = "scripted"
[[models.best.script.lines]]
contains = "best guesses"
answer = "B"
p = 0.52
[[models.best.script.lines]]
answer = "B"
[kinds.voted]
tier = "low"
output = "choice"
labels = ["A", "B"]
cache = true
[kinds.critical]
tier = "low"
critique = true
[kinds.plain]
tier = "low"
output = "choice"
labels = ["A", "B"]
cache = true
"""
CLOUD = PROFILE.replace(
    'price = { input = "100", output = "100" }', 'provider = "elsewhere"'
) + '[providers.elsewhere]\nbackend = "openai"\n'  # fmt: skip


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    opened: list[House] = []

    def open_one(profile: str = PROFILE, *, twice: bool = False) -> House:
        opened.append(House(tmp_path, profile, twice=twice))
        return opened[-1]

    yield open_one
    for house in opened:
        house.close()


@pytest.fixture
def house(open_house: Callable[..., House]) -> House:
    return open_house()


def test_two_that_agree_are_enough_and_the_third_is_called_off(house: House) -> None:
    decision = house.submit("voted", "easy", AB)
    for _ in range(2):  # its answer, then the check that asks the panel
        house.deliver(house.waiting.popleft())
    asked = house.children(decision)
    assert {row["kind"] for row in asked.values()} == {"voted"}
    assert list(asked) == ["second", "third"]
    [second] = [m for m in house.waiting if m.queue == "second"]
    house.waiting.remove(second)
    house.deliver(second)
    while house.row(decision)["state"] != "settled":
        house.deliver(next(m for m in house.waiting if m.task == CHECK))
        house.waiting.remove(next(m for m in house.waiting if m.task == CHECK))
    settled = house.settled(decision)
    assert (settled.status, settled.answer, settled.lane) == (Status.ACCEPTED, "A", "first")
    assert settled.reason == "2 of 3 agree: first, second"
    third = house.children(decision)["third"]
    assert (third["status"], third["tries"]) == ("cancelled", 0)


def test_who_is_outvoted_has_not_passed_and_the_others_answer_counts(house: House) -> None:
    settled = house.ask("voted", "two says B, three says B", AB)
    assert (settled.status, settled.answer, settled.lane) == (Status.ACCEPTED, "B", "second")
    [verdict] = house.verdicts(settled.id)
    assert (verdict.passed, verdict.agreement) == (False, {"second": False, "third": False})
    assert verdict.issues == ("outvoted: 2 of 3 agree: second, third",)


def test_a_guess_has_no_vote(house: House) -> None:
    settled = house.ask("voted", "one guesses", AB)
    assert (settled.answer, settled.lane) == ("A", "second")
    divided = house.ask("voted", "one guesses, two says B", AB)
    assert (divided.status, divided.lane, divided.climbs) == (Status.ACCEPTED, "top", 1)


def test_without_consensus_it_climbs_and_is_told_whom_it_agrees_with(house: House) -> None:
    settled = house.ask("voted", "two says B, three guesses", AB)
    assert (settled.status, settled.answer, settled.lane) == (Status.ACCEPTED, "B", "top")
    first, top = house.verdicts(settled.id)
    assert not first.passed
    assert "no consensus: 1 of 3 agree, 2 are needed" in first.issues
    assert top.agreement == {"first": False}


def test_at_the_end_of_the_ladder_the_best_attempt_is_returned_as_degraded(house: House) -> None:
    settled = house.ask("voted", "two says B, three guesses, best guesses", AB)
    assert (settled.status, settled.answer, settled.lane) == (Status.DEGRADED, "A", "first")


def test_a_member_that_fails_is_silent(house: House) -> None:
    settled = house.ask("voted", "two fails", AB)
    assert (settled.answer, settled.reason) == ("A", "2 of 3 agree: first, third")
    assert house.children(settled.id)["second"]["status"] == "dead"


def test_every_vote_is_an_attempt_that_is_counted_and_paid(house: House) -> None:
    settled = house.ask("voted", "two says B", AB)
    children = house.children(settled.id)
    assert [(lane, row["tries"], row["cost_micros"] > 0) for lane, row in children.items()] == [
        ("second", 1, False), ("third", 1, True),
    ]  # fmt: skip


def test_what_the_asker_grants_is_for_the_panel_as_well(house: House) -> None:
    settled = house.ask("voted", "two says B, at no cost", AB, max_cost_usd="0.000001")
    third = house.children(settled.id)["third"]
    assert (third["status"], third["cost_micros"]) == ("budget", 0)
    assert (settled.status, settled.lane) == (Status.ACCEPTED, "top")
    enough = house.ask("voted", "two says B, at some cost", AB, max_cost_usd="1")
    spent = {row["scope"]: row["spent_micros"] > 0 for row in rows(house.engine, "budget")}
    assert spent == {f"request:{settled.id}": False, f"request:{enough.id}": True}


def test_a_critic_is_as_private_and_draws_on_the_same_grant() -> None:
    wishes = Preferences(privacy=Privacy.HIGH, max_cost_usd=Decimal("0.01"))
    asked = Decision(kind="note", prompt="?", output=AB, key="k", preferences=wishes)
    critic = critic_question(asked, "A", "c").preferences
    assert (critic.privacy, critic.max_cost_usd) == (Privacy.HIGH, Decimal("0.01"))


def test_a_private_decision_asks_no_cloud_member(open_house: Callable[..., House]) -> None:
    house = open_house(CLOUD)
    agreed = house.ask("voted", "private", AB, privacy="high")
    assert (agreed.answer, agreed.reason) == ("A", "2 of 3 agree: first, second")
    divided = house.ask("voted", "private, two says B, three says B", AB, privacy="maximum")
    assert divided.lane == "top"
    for settled in (agreed, divided):
        assert list(house.children(settled.id)) == ["second"]


def test_a_panel_that_cannot_agree_any_more_is_not_asked(open_house: Callable[..., House]) -> None:
    house = open_house(CLOUD)
    settled = house.ask("voted", "private, one guesses", AB, privacy="high")
    assert (settled.lane, settled.climbs) == ("top", 1)
    assert house.children(settled.id) == {}


@pytest.mark.parametrize("backwards", [False, True])
def test_doubled_messages_ask_and_settle_once(
    open_house: Callable[..., House], backwards: bool
) -> None:
    house = open_house(twice=True)
    decision = house.submit("voted", "two says B", AB)
    house.work(backwards=backwards)
    settled = house.settled(decision)
    assert (settled.answer, settled.reason) == ("A", "2 of 3 agree: first, third")
    assert [row["tries"] for row in house.children(decision).values()] == [int(not backwards), 1]


def test_lost_messages_are_repeated_and_a_silent_panel_is_not_counted_against_it(
    house: House,
) -> None:
    decision = house.submit("voted", "easy", AB)
    for _ in range(2):
        house.deliver(house.waiting.popleft())
    house.waiting.clear()  # the members' messages are lost
    late = now() + 10_000_000
    for moment in (late, late + 1_000_000, late + 2_000_000):
        sent = sweeping.republish(house.engine, now=moment, stale_before=moment - 500_000)
        assert {m.queue for m in sent.messages} == {"second", "third"}
    house.publish(sent)
    house.work()
    assert house.settled(decision).answer == "A"


def test_the_end_of_a_decision_is_the_end_of_its_panel(house: House) -> None:
    decision = house.submit("voted", "easy", AB)
    for _ in range(2):
        house.deliver(house.waiting.popleft())
    lifecycle.cancel(house.engine, now(), ids=[decision])
    assert {row["status"] for row in house.children(decision).values()} == {"cancelled"}
    house.work()
    assert house.settled(decision).status is Status.CANCELLED


def test_other_kinds_of_the_lane_are_not_voted_on(house: House) -> None:
    settled = house.ask("plain", "two says B, three says B", AB)
    assert (settled.answer, house.children(settled.id)) == ("A", {})


def test_an_answer_that_no_panel_saw_is_not_served_from_the_cache_where_one_votes(
    open_house: Callable[..., House], tmp_path: Path
) -> None:
    with_panel = open_house()
    assert with_panel.ask("voted", "easy", AB, key="a").status is Status.ACCEPTED
    assert with_panel.ask("voted", "easy", AB, key="b").status is Status.CACHED
    line = (
        'consensus = { members = ["second", "third"], agree = 0.66, kinds = ["voted", "critical"] }'
    )
    without = open_house(PROFILE.replace(line, ""))
    assert without.ask("voted", "easy", AB, key="c").status is Status.ACCEPTED


def test_a_panel_takes_the_critics_place(house: House) -> None:
    settled = house.ask("critical", "easy", AB)
    assert {row["kind"] for row in house.children(settled.id).values()} == {"critical"}
    [verdict] = house.verdicts(settled.id)
    assert verdict.critique is None


# Counting


@given(
    st.lists(st.tuples(st.sampled_from([None, "A", "B", "C"]), st.booleans()), min_size=2),
    st.floats(min_value=0.51, max_value=1),
)
def test_a_vote_is_won_lost_or_open_and_a_win_stays_one(
    said: list[tuple[str | None, bool]], agree: float
) -> None:
    members = tuple(f"m{i}" for i in range(len(said) - 1))
    if len(members) > 8:
        said, members = said[:9], members[:8]
    needed = Consensus(members=members, agree=agree).needed
    votes = [Vote(f"l{i}", None if waits else a, open=waits) for i, (a, waits) in enumerate(said)]
    found = tally(votes, needed, AB, Demands())
    most = max([sum(v.answer == label for v in votes) for label in "ABC"])
    still_open = sum(v.open for v in votes)
    assert (found.winner is not None) == (most >= needed)
    assert found.lost == (most + still_open < needed)
    if found.winner is not None:
        closed = [Vote(v.lane, v.answer or "B") for v in votes]
        later = tally(closed, needed, AB, Demands())
        assert later.winner is not None
        assert later.winner.answer == found.winner.answer


@pytest.mark.parametrize(
    ("members", "agree", "needed"), [(2, 0.66, 2), (2, 0.67, 3), (1, 0.66, 2), (3, 0.75, 3)]
)
def test_how_many_must_agree(members: int, agree: float, needed: int) -> None:
    panel = Consensus(members=tuple("abc"[:members]), agree=agree)
    assert panel.needed == needed


@pytest.mark.parametrize("agree", [0.5, 1.1, -0.1])
def test_a_share_that_two_answers_could_reach_is_refused(agree: float) -> None:
    with pytest.raises(ValidationError, match="agree"):
        Consensus(members=("a",), agree=agree)
