"""What a stack's keeper does: lanes marked down, ill workers ended, orders carried out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from config.catalog import Catalog
from config.settings import Settings
from ledger.lanes import Standing
from ledger.workers import Sign
from tests.unit.test_fleet import StandIn
from tests.unit.test_placement import WEIGHTS, catalog
from workers.fleet import Fleet
from workers.fleet_ledger import FleetLedger
from workers.fleet_orders import Orders, Stay
from workers.gpus import Gpu, Hardware
from workers.keeper import Keeper
from workers.launch import WorkerSpec, worker_specs
from workers.needs import need
from workers.orders import Action, Answer, Order
from workers.placement import place
from workers.stack_broker import ExternalBroker
from workers.stack_state import WorkerState

ACTING = {"acting": {"backend": "scripted", "vram_mb": 5000}}
CARDS = Hardware((Gpu("0", memory_mb=8000), Gpu("1", memory_mb=8000)), 4)


class Notes(FleetLedger):
    """A ledger in memory, which may be away."""

    def __init__(self) -> None:
        self.supervisor = "me"
        self.out: dict[str, Standing] = {}
        self.open: dict[str, int] = {}
        self.told: list[Mapping[str, Any]] = []
        self.heard: dict[str, Sign] = {}
        self.elsewhere = False
        self.away = False
        self.vacated: list[str] = []

    def _reached(self) -> None:
        if self.away:
            raise OperationalError("select", {}, Exception("away"))

    def take_out(self, lane: str, standing: Standing, reason: str) -> None:
        self._reached()
        self.out[lane] = standing

    def put_back(self, names: Collection[str]) -> None:
        self._reached()
        for name in names:
            self.out.pop(name, None)

    def serves_elsewhere(self, lane: str, tokens: Collection[str]) -> bool:
        return self.elsewhere

    def open_work(self, lane: str) -> int:
        return self.open.get(lane, 0)

    def waiting(self) -> Mapping[str, int]:
        return self.open

    def signs(self, tokens: Collection[str]) -> dict[str, Sign]:
        self._reached()
        return {token: sign for token, sign in self.heard.items() if token in tokens}

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.told = list(rows)

    def vacate(self, token: str) -> None:
        self._reached()
        self.vacated.append(token)


class Broker(ExternalBroker):
    """A broker that may be away."""

    def __init__(self) -> None:
        self.well = True

    def answers(self) -> bool:
        return self.well


class Scene:
    """A fleet of stand-ins with its keeper and a clock in the test's hand."""

    def __init__(self, folder: Path, profile: Catalog) -> None:
        self.now = 0.0
        self.children: dict[str, StandIn] = {}
        needs = {n: need(profile.models[lane.model], lane, None, None)
                 for n, lane in profile.lanes.items()}  # fmt: skip
        self.stay = Stay(place(profile, CARDS, needs))
        self.ready: set[str] = set()
        self.fleet = Fleet(
            worker_specs(self.stay.plan), self.spawn, lambda: self.ready, start_timeout_s=100,
            clock=lambda: self.now,
        )  # fmt: skip
        self.ledger, self.broker = Notes(), Broker()
        self.orders = Orders(profile, needs, self.stay, self.fleet, self.ledger)
        settings = Settings(data_dir=folder, stale_after_s=30)
        settings.__dict__["catalog"] = profile
        self.keeper = Keeper(
            settings, self.fleet, self.broker, self.ledger, self.orders, lambda: None,
            clock=lambda: self.now,
        )  # fmt: skip
        self.fleet.start()
        self.serve()

    def spawn(self, spec: WorkerSpec, token: str) -> StandIn:
        child = StandIn(len(self.children) + 1)
        self.children[token] = child
        return child

    def serve(self) -> None:
        self.ready |= set(self.children)
        self.fleet.watch()

    def token(self, name: str) -> str:
        return next(t for t, s in self.fleet.tokens(*WorkerState).items() if s.name == name)

    def states(self) -> dict[str, WorkerState]:
        return {record.name: record.state for record in self.fleet.records()}

    def ask(self, action: Action, lane: str = "", number: int = 0) -> Answer:
        return self.orders.answer(Order(id="1", action=action, lane=lane, number=number))

    def end(self, name: str) -> None:
        self.children[self.token(name)].code = 0
        self.fleet.watch()

    def kill_for_good(self, name: str) -> None:
        while self.states()[name] is not WorkerState.FAILED:
            child = self.children[self.token(name)]
            child.code = 1
            self.now += 5
            self.fleet.watch()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    profile = catalog(ACTING, a={"model": "acting"}, b={"model": "script", "workers": 2})
    return Scene(tmp_path, profile)


def test_a_lane_is_down_once_all_its_workers_are_given_up(scene: Scene) -> None:
    scene.kill_for_good("b-1")
    scene.keeper._judge()
    assert scene.ledger.out == {}
    scene.kill_for_good("b-2")
    scene.keeper._judge()
    assert scene.ledger.out == {"b": Standing.DOWN}
    assert scene.fleet.failure() is None
    scene.kill_for_good("a-1")
    assert "uptier fleet restart" in (scene.fleet.failure() or "")


def test_a_lane_that_another_machine_serves_is_not_down(scene: Scene) -> None:
    scene.ledger.elsewhere = True
    scene.kill_for_good("a-1")
    scene.keeper._judge()
    assert scene.ledger.out == {}


def test_without_anybody_who_checks_nothing_goes_on(scene: Scene) -> None:
    scene.kill_for_good("quality-1")
    scene.keeper._judge()
    assert "quality" not in scene.ledger.out
    assert "quality-1" in (scene.fleet.failure() or "")


def test_a_lane_that_was_given_up_comes_back_by_an_operators_word(scene: Scene) -> None:
    scene.kill_for_good("a-1")
    scene.keeper._judge()
    answer = scene.ask(Action.RESTART, "a")
    assert answer.coming == ("a-1",)
    scene.serve()
    assert scene.states()["a-1"] is WorkerState.READY
    assert scene.ledger.out == {}
    scene.kill_for_good("a-1")
    scene.keeper._judge()
    assert scene.ledger.out == {"a": Standing.DOWN}


def hang(scene: Scene, name: str, seconds: int) -> None:
    token = scene.token(name)
    for _ in range(0, seconds, 5):
        scene.now += 5
        scene.ledger.heard[token] = Sign(int(scene.now), {"held": 1, "begun": 1})
        scene.keeper._look()


def test_a_worker_that_gets_nowhere_is_ended_and_started_again(scene: Scene) -> None:
    child = scene.children[scene.token("b-1")]
    hang(scene, "b-1", 60)
    assert not child.killed
    hang(scene, "b-1", 10)
    assert child.killed
    child.code = -9
    scene.fleet.watch()
    [record] = [r for r in scene.fleet.records() if r.name == "b-1"]
    assert record.state is WorkerState.WAITING
    assert "got nowhere for" in (record.message or "")


@pytest.mark.parametrize("what", ["broker", "ledger"])
def test_nobody_is_judged_while_the_broker_or_the_ledger_is_away(scene: Scene, what: str) -> None:
    child = scene.children[scene.token("b-1")]
    hang(scene, "b-1", 50)
    if what == "broker":
        scene.broker.well = False
        hang(scene, "b-1", 300)
    else:
        scene.ledger.away = True
        scene.now += 300
        with pytest.raises(OperationalError):
            scene.keeper._look()
    assert not child.killed
    scene.broker.well, scene.ledger.away = True, False
    hang(scene, "b-1", 50)
    assert not child.killed


def test_work_done_clears_the_account(scene: Scene) -> None:
    for _ in range(8):
        token = scene.token("b-1")
        scene.ledger.heard[token] = Sign(1, {"finished": 1})
        scene.now += 5
        scene.keeper._look()
        scene.children[token].code = -9
        scene.fleet.watch()
        scene.now += 1
        scene.fleet.watch()
        scene.serve()
        assert scene.states()["b-1"] is WorkerState.READY


def test_the_office_of_a_steward_that_died_is_given_up(scene: Scene) -> None:
    token = scene.token("quality-1")
    scene.keeper._release()
    scene.children[token].code = -9
    scene.fleet.watch()
    scene.ledger.away = True
    with pytest.raises(OperationalError):
        scene.keeper._release()
    scene.ledger.away = False
    scene.keeper._release()
    scene.keeper._release()
    assert scene.ledger.vacated == [token]


def test_draining_waits_for_the_queue_and_then_for_the_workers(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    scene.ledger.open["b"] = 3
    answer = scene.ask(Action.DRAIN, "b")
    assert len(answer.leaving) == 2
    assert scene.ledger.out == {"b": Standing.DRAINING}
    scene.orders.go_on()
    assert scene.states()["b-1"] is WorkerState.READY
    scene.ledger.open["b"] = 0
    scene.orders.go_on()
    assert scene.ledger.out == {"b": Standing.DRAINED}
    assert scene.states()["b-1"] is WorkerState.STOPPING
    scene.end("b-1")
    scene.end("b-2")
    assert set(scene.states()) == {"a-1", "quality-1"}
    assert scene.ask(Action.RESTART, "b").coming == ("b-1", "b-2")
    scene.serve()
    assert scene.states()["b-2"] is WorkerState.READY
    assert scene.ledger.out == {}


def test_who_does_not_finish_in_time_is_ended(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    child = scene.children[scene.token("b-2")]
    scene.ask(Action.SCALE, "b", 1)
    scene.now += 59
    scene.fleet.watch()
    assert not child.killed
    scene.now += 2
    scene.fleet.watch()
    assert child.killed


def test_a_card_is_lent_and_given_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    assert scene.ask(Action.GIVE_BACK, number=0).refused
    scene.ask(Action.FREE, number=0)
    assert scene.ledger.out == {"a": Standing.LENT}
    assert scene.stay.plan.lent == {0}
    assert scene.ask(Action.FREE, number=0).refused
    assert scene.ask(Action.RESTART, "a").refused
    scene.end("a-1")
    scene.ask(Action.GIVE_BACK, number=0)
    scene.serve()
    assert scene.states()["a-1"] is WorkerState.READY
    assert scene.ledger.out == {}
    seat = scene.stay.plan.seat("a-1")
    assert seat is not None
    assert (seat.card, scene.stay.plan.lent) == (0, frozenset())


def test_a_lane_grows_only_as_far_as_cards_have_room(scene: Scene) -> None:
    answer = scene.ask(Action.SCALE, "a", 3)
    assert answer.refused
    assert "4.9 weights and cache" in answer.text
    assert set(scene.states()) == {"a-1", "b-1", "b-2", "quality-1"}
    assert scene.ask(Action.SCALE, "a", 2).coming == ("a-2",)
    seat = scene.stay.plan.seat("a-2")
    assert seat is not None
    assert seat.card == 1


def test_workers_are_renewed_one_after_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    old = {name: scene.token(name) for name in ("b-1", "b-2")}
    scene.ask(Action.RESTART, "b")
    scene.orders.go_on()
    scene.orders.go_on()
    assert [scene.states()[name] for name in ("b-1", "b-2")] == [
        WorkerState.STOPPING, WorkerState.READY,
    ]  # fmt: skip
    scene.end("b-1")
    scene.serve()
    scene.orders.go_on()
    assert scene.states()["b-2"] is WorkerState.STOPPING
    scene.end("b-2")
    scene.serve()
    assert all(scene.token(name) != token for name, token in old.items())
    assert [scene.states()[name] for name in ("b-1", "b-2")] == [WorkerState.READY] * 2


def test_what_is_told_has_the_restarts_and_the_reasons(scene: Scene) -> None:
    scene.children[scene.token("b-1")].code = -9
    scene.fleet.watch()
    scene.now += 1
    scene.fleet.watch()
    scene.keeper._tell()
    told = {row["name"]: row for row in scene.ledger.told}
    assert (told["b-1"]["restarts"], told["b-2"]["restarts"]) == (1, 0)
    assert "SIGKILL" in told["b-1"]["reason"]


ORDERS = [(Action.DRAIN, "b", 0), (Action.SCALE, "b", 3), (Action.FREE, "", 0),
          (Action.RESTART, "b", 0)]  # fmt: skip


@pytest.mark.parametrize(("action", "lane", "number"), ORDERS)
def test_an_order_that_the_ledger_does_not_take_is_refused_and_changes_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, action: Action, lane: str, number: int
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    before = (scene.states(), scene.stay.plan)
    scene.ledger.away = True
    answer = scene.ask(action, lane, number)
    assert answer.refused
    assert "the ledger does not answer" in answer.text
    scene.orders.go_on()
    assert (scene.states(), scene.stay.plan) == before
    scene.ledger.away = False
    assert not scene.ask(action, lane, number).refused


def test_a_card_is_given_back_although_the_ledger_was_away_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    scene.ask(Action.FREE, number=0)
    scene.end("a-1")
    scene.ledger.away = True
    assert scene.ask(Action.GIVE_BACK, number=0).refused
    assert "a-1" not in scene.states()
    scene.ledger.away = False
    assert scene.ask(Action.GIVE_BACK, number=0).coming == ("a-1",)
    assert scene.ledger.out == {}


def test_a_drained_lane_keeps_its_number_of_workers_although_the_ledger_was_away(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    scene.ask(Action.DRAIN, "b")
    scene.ledger.away = True
    with pytest.raises(OperationalError):
        scene.orders.go_on()
    assert scene.states()["b-1"] is WorkerState.READY
    scene.ledger.away = False
    scene.orders.go_on()
    scene.end("b-1")
    scene.end("b-2")
    assert scene.ask(Action.RESTART, "b").coming == ("b-1", "b-2")


def test_a_card_is_given_back_only_when_its_workers_have_gone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    scene.ask(Action.FREE, number=0)
    answer = scene.ask(Action.GIVE_BACK, number=0)
    assert answer.refused
    assert "a-1 finish what they have" in answer.text
    scene.end("a-1")
    assert scene.ask(Action.GIVE_BACK, number=0).coming == ("a-1",)


def test_scaling_a_lane_that_is_down_starts_its_workers_again(scene: Scene) -> None:
    scene.kill_for_good("a-1")
    scene.keeper._judge()
    assert scene.ask(Action.SCALE, "a", 1).coming == ("a-1",)
    scene.serve()
    assert scene.states()["a-1"] is WorkerState.READY
    assert scene.ledger.out == {}


def test_of_a_lane_that_shrinks_those_that_serve_stay(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    scene.kill_for_good("b-1")
    scene.ask(Action.SCALE, "b", 1)
    scene.fleet.watch()
    assert {n: s for n, s in scene.states().items() if n.startswith("b")} == {
        "b-2": WorkerState.READY
    }


def test_a_worker_that_is_being_renewed_counts_and_can_be_drained(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    scene.ask(Action.RESTART, "b")
    scene.orders.go_on()
    assert scene.states()["b-1"] is WorkerState.STOPPING
    assert scene.ask(Action.SCALE, "b", 2).coming == ()
    scene.ask(Action.DRAIN, "b")
    scene.orders.go_on()
    scene.end("b-1")
    scene.end("b-2")
    scene.orders.go_on()
    assert set(scene.states()) == {"a-1", "quality-1"}
    assert scene.ask(Action.SCALE, "b", 2).coming == ("b-1", "b-2")
    scene.serve()
    scene.orders.go_on()  # nobody asked to start these anew
    assert scene.states()["b-2"] is WorkerState.READY


def test_a_card_is_freed_of_all_who_ask_the_server_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "terminate", lambda self: None)
    served = {"backend": "llama_server", "provider": "one", "vram_mb": 5000}
    profile = catalog({"served": served}, a={"model": "served", "gpu": 0, "workers": 2})
    scene = Scene(tmp_path, profile)
    scene.ask(Action.FREE, number=0)
    assert scene.ledger.out == {"a": Standing.LENT}
    assert [scene.states()[f"a-{n}"] for n in (1, 2)] == [WorkerState.STOPPING] * 2
    scene.end("a-1")
    scene.end("a-2")
    assert scene.ask(Action.GIVE_BACK, number=0).coming == ("a-1", "a-2")


def test_a_lane_on_the_cpu_grows_only_as_far_as_memory_goes(tmp_path: Path) -> None:
    model = {"backend": "llama_cpp", "weights_mb": 100, "cache_mb": 400, "gpu_layers": 0,
             "weights": WEIGHTS}  # fmt: skip
    scene = Scene(tmp_path, catalog({"cpu": model}, a={"model": "cpu"}))
    scene.stay.plan = replace(scene.stay.plan, hardware=replace(CARDS, memory_mb=1000))
    assert scene.ask(Action.SCALE, "a", 2).coming == ("a-2",)
    answer = scene.ask(Action.SCALE, "a", 3)
    assert answer.refused
    assert "1.0 GB of memory" in answer.text
    assert set(scene.states()) == {"a-1", "a-2", "quality-1"}
