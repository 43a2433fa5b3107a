"""Privacy over random catalogs: no path of the policy takes a private decision to the cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.catalog import Catalog
from config.consensus import Consensus
from config.errors import InputError
from config.settings import Settings
from ledger import lifecycle
from ledger.clock import SECOND
from ledger.records import Planned
from ledger.runs import start_run
from routing.audit import audit_lane, audit_question
from routing.cascade import Path as Cascade
from routing.classification import classification_question, classified
from routing.critique import critic_question
from routing.decision import (
    ChoiceOutput,
    Complexity,
    Decision,
    Hop,
    Plan,
    Preferences,
    Privacy,
    Signals,
    Status,
    TextOutput,
)
from routing.learnt import Learnt
from routing.live import Live, scope_of
from routing.policy import lower_plan, next_hop, plan
from routing.wishes import as_private_as_wished, raised_to
from tests.unit.catalogs import KINDS, PROVIDERS, RAISES, RULES, TIERS, catalog, decision
from tests.unit.ledgers import LEASE_US, claim_one, fresh, rows
from workers.answering import Answerer
from workers.backends.scripted import ScriptedBackend
from workers.consensus import able_members
from workers.guard import Guard
from workers.questions import Questions

PAID = Path(__file__).parents[1] / "profiles_paid.toml"
NAMES = [f"lane{i}" for i in range(6)]
HOMES = [
    {"backend": "scripted"},
    {"backend": "openai", "provider": "near"},
    {"backend": "openai", "provider": "openai"},
    {"backend": "openai"},
    {"backend": "anthropic", "provider": "anthropic"},
    {"backend": "ollama", "provider": "far"},
]
WHERE = {**PROVIDERS, "near": {"backend": "openai", "local": True}, "far": {"backend": "ollama"}}
LOCAL = {0, 1}
"""Of ``HOMES``: in process, and over HTTP at a provider that says it is local."""
SPECIALITIES = {"math": {"words": {"residue": 3}}}
LEVELS = st.sampled_from(["low", "medium", "high", "maximum"])


@st.composite
def catalogs(draw: st.DrawFn) -> tuple[Catalog, set[str]]:
    """A catalog, and the lanes of it that are on the machine."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    home = {name: draw(st.integers(0, len(HOMES) - 1)) for name in names}
    lanes = {
        name: {
            "tier": draw(st.sampled_from(list(TIERS))),
            "model": f"of-{name}",
            "speciality": "math" if name == names[0] else draw(st.sampled_from(["general", "law"])),
        }
        for name in names
    }
    models = {
        f"of-{name}": {
            **HOMES[home[name]],
            "price": {"input": draw(st.sampled_from(["0", "3"])), "output": "0"},
            "quality": draw(st.floats(0, 1)),
        }
        for name in names
    }
    preset = {"privacy": draw(LEVELS), "strategy": draw(st.sampled_from(["cost", "hybrid"]))}
    routing = {
        "overrides": draw(
            st.dictionaries(st.sampled_from(list(KINDS)), st.sampled_from(list(TIERS)))
        ),
        "critic_tier": draw(st.sampled_from(list(TIERS))),
        "unknown_kind_tier": draw(st.sampled_from(list(TIERS))),
        "rules": draw(st.lists(st.sampled_from(RULES), max_size=3)),
        "raises": draw(st.lists(st.sampled_from(RAISES), max_size=1)),
        "max_climbs": draw(st.integers(0, 5)),
        "strategy": draw(st.sampled_from(["local_first", "cost", "quality", "hybrid"])),
        "preset": draw(st.sampled_from([None, "house"])),
    }
    made = catalog(
        lanes=lanes, models=models, providers=WHERE, routing=routing, specialities=SPECIALITIES,
        presets={"house": preset, "vault": {"privacy": "maximum"}},
    )  # fmt: skip
    return made, {name for name in names if home[name] in LOCAL}


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """A decision with any wishes, among them such as pull it to the cloud."""
    return Decision(
        kind=draw(st.sampled_from([*KINDS, "never_heard_of", "self_critique"])),
        prompt=draw(st.sampled_from(["What next?", "The residue of 5?"])),
        output=TextOutput(),
        key="k",
        signals=Signals(
            creativity=draw(st.booleans()),
            novel=draw(st.booleans()),
            multi_agent=draw(st.booleans()),
            multi_file=draw(st.booleans()),
            complexity=draw(st.sampled_from([None, *Complexity])),
            domain=draw(st.sampled_from(["", "math"])),
            urgency=draw(st.sampled_from(["low", "high"])),
        ),
        preferences=Preferences(
            privacy=draw(st.sampled_from(Privacy)),
            prefer_local=draw(st.booleans()),
            quality_critical=draw(st.booleans()),
            force_tier=draw(st.sampled_from([None, *TIERS])),
            specialist=draw(st.sampled_from([None, "math", "general"])),
            strategy=draw(st.sampled_from([None, "cost", "quality", "hybrid"])),
            preset=draw(st.sampled_from([None, "vault"])),
            min_quality=draw(st.sampled_from([None, 0.5])),
        ),
    )


def policy_of(shop: Catalog, asked: Decision, lane: str) -> Live:
    """A policy in force that begins the decision's kind on this lane."""
    lanes = tuple(shop.lanes)
    starts = np.array([[lanes.index(lane)]])
    path = Cascade(lanes, np.zeros(len(lanes)), {}, (), np.zeros(1), starts)
    learnt = Learnt((asked.kind,), (), path, 0)
    return Live(learnt, frozenset({scope_of(asked, lane, "f", shop)}), "r")


def is_private(asked: Decision, shop: Catalog) -> bool:
    """By the words of the requirement alone: any of the three who have a say says so."""
    levels = [asked.preferences.privacy.value]
    if asked.preferences.preset is not None:
        levels.append(shop.presets[asked.preferences.preset].privacy)
    if shop.routing.preset is not None:
        levels.append(shop.presets[shop.routing.preset].privacy)
    return bool({"high", "maximum"} & set(levels))


@settings(max_examples=400, deadline=None)
@given(made=catalogs(), asked=decisions(), data=st.data())
def test_no_path_takes_a_private_decision_to_the_cloud(
    made: tuple[Catalog, set[str]], asked: Decision, data: st.DataObject
) -> None:
    shop, at_home = made
    private = is_private(asked, shop)
    stored = as_private_as_wished(asked, shop)
    assert stored.preferences.privacy.stays_home or not private
    lanes = data.draw(st.permutations(list(shop.lanes)))
    current = data.draw(st.integers(-1, len(lanes) - 1))
    hop = next_hop(lanes, current, shop, stored.preferences.privacy)
    wanted = data.draw(st.sampled_from(lanes))
    directed = next_hop(lanes, current, shop, stored.preferences.privacy, only=wanted)
    assert directed is None or lanes[directed] == wanted
    forged = Plan(hops=tuple(Hop(lane=n, reason="x") for n in lanes[:1]), complexity="simple")
    lower = lower_plan(asked, forged, 0, shop)
    reached = [] if lower is None else list(lower.lanes[1:])
    reached += [lanes[one] for one in (hop, directed) if one is not None]
    critic = critic_question(stored, "an answer", "k.critic")
    choice = stored.model_copy(update={"output": ChoiceOutput(labels=("A", "B"))})
    audits = [audit_lane(choice, lane, shop) for lane in shop.lanes]
    reached += [lane for lane in audits if lane is not None]
    panel = Consensus(members=tuple(lanes), agree=0.66)
    reached += able_members(panel, stored, shop)
    for question in (asked, stored, critic, audit_question(choice, "d", 0)):
        try:
            reached += plan(question, shop, ()).lanes
        except InputError:
            assert question is not critic or not at_home or private
    try:
        usual = plan(stored, shop, ())
        begun = plan(stored, shop, (), live=policy_of(shop, stored, wanted))
    except InputError:
        begun = None
    if begun is not None:
        assert begun.lanes == usual.lanes[len(usual.lanes) - len(begun.lanes) :]
        reached += begun.lanes
    if private:
        assert set(reached) <= at_home


@settings(max_examples=100, deadline=None)
@given(made=catalogs(), asked=decisions())
def test_a_classification_never_leaves_the_machine_whatever_its_request_may(
    made: tuple[Catalog, set[str]], asked: Decision
) -> None:
    shop, at_home = made
    try:
        lanes = plan(classification_question(asked), shop, ()).lanes
    except InputError:
        assert not at_home
    else:
        assert set(lanes) <= at_home


@given(own=st.sampled_from(Privacy), said=st.sampled_from(Privacy))
def test_privacy_is_raised_and_never_lowered(own: Privacy, said: Privacy) -> None:
    level = raised_to(decision(privacy=own), said).preferences.privacy
    order = list(Privacy)
    assert order.index(level) == max(order.index(own), order.index(said))


def test_what_a_classifier_says_raises_privacy_and_fills_in_what_nobody_stated() -> None:
    said = (
        '{"complexity": "complex", "domain": "law", "urgency": "high", '
        '"privacy_sensitivity": "high", "estimated_tokens": 900}'
    )
    found = classified(decision(privacy=Privacy.LOW, urgency="low"), said)
    assert found.preferences.privacy is Privacy.HIGH
    assert found.signals.complexity is Complexity.COMPLEX
    assert (found.signals.domain, found.signals.estimated_tokens) == ("law", 900)
    assert found.signals.urgency == "low"
    public = said.replace('"privacy_sensitivity": "high"', '"privacy_sensitivity": "low"')
    kept = classified(decision(privacy=Privacy.MAXIMUM), public)
    assert kept.preferences.privacy is Privacy.MAXIMUM


def test_a_classification_that_nobody_can_read_changes_nothing() -> None:
    asked = decision()
    for said in ("", "complex", "{}", "[1]", '{"complexity": "hopeless"}'):
        assert classified(asked, said) == asked


# The last guard: a worker in the cloud is sent a private decision by a plan that is wrong.


def forged(tmp_path: Path, *lanes: str, **wishes: Any) -> tuple[Any, str]:
    """A ledger with one decision whose plan was not made by the policy."""
    engine = fresh(tmp_path)
    run = start_run(engine, mode="test", profile="tiny", now=0)
    hops = tuple(Hop(lane=lane, reason="forged") for lane in lanes)
    whole = Plan(hops=hops, complexity=Complexity.SIMPLE)
    [made] = lifecycle.submit(engine, run.id, [Planned(decision(**wishes), whole)], now=0).ids
    return engine, made


def guard(shop: Catalog, lane: str) -> Guard:
    model = shop.models["small"]
    backend = ScriptedBackend("small", model)
    asks = Questions(shop, lane, backend=backend, fingerprint="f", clock=lambda: SECOND)
    return Guard(shop, lane, asks)


def turned_away(engine: Any, made: str, shop: Catalog) -> dict[str, Any]:
    """The decision's row after the worker of its first lane has looked at it."""
    claimed = claim_one(engine, made, "t", 10, "tier3")
    refusals = guard(shop, "tier3").refusals([claimed])
    lifecycle.turn_away(engine, "t", refusals, 10 + LEASE_US // 2)
    return rows(engine, "decision")[0]


def test_a_worker_in_the_cloud_hands_a_private_decision_on_to_a_lane_that_may_see_it(
    tmp_path: Path,
) -> None:
    engine, made = forged(tmp_path, "tier3", "tier3.openai", "tier2", privacy=Privacy.HIGH)
    row = turned_away(engine, made, catalog())
    assert (row["state"], row["lane"], row["hop"]) == ("queued", "tier2", 2)
    assert rows(engine, "attempt") == []
    engine.dispose()


def test_where_its_plan_has_none_the_best_free_lane_stands_in(tmp_path: Path) -> None:
    engine, made = forged(tmp_path, "tier3", privacy=Privacy.MAXIMUM)
    row = turned_away(engine, made, catalog())
    assert (row["state"], row["lane"]) == ("queued", "tier2")
    assert "privacy maximum keeps it on the machine" in row["held_reason"]
    engine.dispose()


def test_where_nothing_is_on_the_machine_it_ends_with_the_reason(tmp_path: Path) -> None:
    engine, made = forged(tmp_path, "tier3", privacy=Privacy.HIGH)
    row = turned_away(engine, made, catalog(without=("tier1", "tier2", "tier2.math")))
    assert (row["state"], row["status"]) == ("settled", Status.DEAD.value)
    assert "privacy high keeps it on the machine, which tier3 is not" in row["reason"]
    assert rows(engine, "attempt") == []
    engine.dispose()


def test_a_preset_that_the_catalog_forgot_counts_as_most_private(tmp_path: Path) -> None:
    engine, made = forged(tmp_path, "tier3", "tier2", preset="gone")
    assert turned_away(engine, made, catalog())["lane"] == "tier2"
    engine.dispose()


def test_what_may_be_seen_is_not_turned_away(tmp_path: Path) -> None:
    engine, made = forged(tmp_path, "tier3", "tier2", privacy=Privacy.MEDIUM)
    claimed = claim_one(engine, made, "t", 10, "tier3")
    assert guard(catalog(), "tier3").refusals([claimed]) == []
    house = catalog(routing={"preset": "house"}, presets={"house": {"privacy": "high"}})
    assert len(guard(house, "tier3").refusals([claimed])) == 1
    assert guard(house, "tier1").refusals([claimed]) == []
    engine.dispose()


class Silent:
    """A publisher of nothing."""

    def publish(self, followers: object) -> bool:
        return True


class Untouched(ScriptedBackend):
    """A backend in the cloud that must see no question."""

    def answer(self, requests: Any) -> Any:
        raise AssertionError(f"asked: {[request.prompt for request in requests]}")


def test_the_worker_itself_asks_its_model_nothing_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    chosen = Settings(data_dir=tmp_path, profile=str(PAID))
    engine, made = forged(tmp_path, "tier3", "tier2", privacy=Privacy.HIGH)
    model = chosen.catalog.models["fast"]
    worker = Answerer(
        chosen, "tier3", engine=engine, backend=Untouched("fast", model), fingerprint="f",
        publisher=Silent(), clock=lambda: SECOND,  # type: ignore[arg-type]
    )  # fmt: skip
    worker.answer("tier3", [made])
    [row] = rows(engine, "decision")
    assert (row["state"], row["lane"], rows(engine, "attempt")) == ("queued", "tier2", [])
    worker.close()
    engine.dispose()
