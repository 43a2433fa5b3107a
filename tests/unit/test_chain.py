"""From one provider to the next: closed lanes are passed over at planning and at hops."""

from __future__ import annotations

from collections.abc import Container

from config.load import AbsentLane
from ledger.planning import narrow
from ledger.records import Claimed
from routing.decision import Complexity, Hop, Plan, Privacy
from routing.policy import plan
from tests.unit.catalogs import catalog, decision
from workers.backends.scripted import ScriptedBackend
from workers.questions import Questions

CLOSED = AbsentLane("tier3", "cloud", "provider anthropic is not called for another 30 s: down")


def next_lane(lanes: tuple[str, ...], closed: Container[str], **wishes: Privacy) -> str | None:
    """Where a decision goes from the first of ``lanes`` after an error there."""
    shop, asked = catalog(), list[str]()

    def ask() -> Container[str]:
        asked.append("the ledger")
        return closed

    questions = Questions(
        shop, lanes[0], backend=ScriptedBackend("small", shop.models["small"]), fingerprint="f",
        clock=lambda: 0, closed=ask,
    )  # fmt: skip
    whole = Plan(
        hops=tuple(Hop(lane=lane, reason="test") for lane in lanes), complexity=Complexity.SIMPLE
    )
    claimed = Claimed("1", "r", decision(**wishes), lanes[0], 0, 0, 0, whole.model_dump_json(), 0)
    found = questions.next_lane(claimed)
    assert bool(asked) is (found is not None and not shop.is_local(shop.lanes[lanes[1]].model))
    return None if found is None else found[1]


def test_a_plan_begins_with_the_provider_that_can_be_called_and_names_the_other() -> None:
    shop = catalog()
    narrowed = narrow(shop, {"tier3": CLOSED})
    found = plan(decision("conflict_resolution"), narrowed, (CLOSED,))
    assert found.lanes == ("tier3.openai",)
    assert found.notes == (f"cloud without tier3: {CLOSED.reason}",)


def test_nothing_is_narrowed_where_nothing_is_closed_or_nothing_would_be_left() -> None:
    shop = catalog()
    assert narrow(shop, {}) is shop
    assert narrow(shop, dict.fromkeys(shop.lanes, CLOSED)) is shop


def test_a_hop_passes_over_a_closed_provider_to_the_next() -> None:
    lanes = ("tier2", "tier3", "tier3.openai")
    assert next_lane(lanes, ()) == "tier3"
    assert next_lane(lanes, {"tier3"}) == "tier3.openai"


def test_a_closed_provider_is_waited_for_where_there_is_no_other() -> None:
    assert next_lane(("tier2", "tier3"), {"tier3"}) == "tier3"


def test_a_hop_to_a_local_lane_asks_nobody() -> None:
    assert next_lane(("tier1", "tier2", "tier3"), {"tier3"}) == "tier2"
    assert next_lane(("tier2", "tier3"), (), privacy=Privacy.HIGH) is None
