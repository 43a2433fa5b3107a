"""A running fleet on four described cards: placed by its plan, healed, drained, scaled, lent.

Real workers with scripted models, a real broker and ledger; only NVML is a stand-in.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.session import Session, session
from config.settings import Settings
from ledger.clock import now
from ledger.database import open_ledger
from ledger.lanes import FleetView, Standing, WorkerView, fleet_view
from ledger.runs import start_run
from ledger.trail import trail
from producers.client import Client
from routing.decision import ChoiceOutput, Decision, Settled, Status
from tests.integration.stacks import ROOT, runs, state_of, wait_until
from workers.fleet_control import carried_out
from workers.launch import WorkerSpec, worker_command
from workers.orders import Action
from workers.orders import ask as give
from workers.stack import Hooks, running_stack
from workers.stack_state import StackState, WorkerRecord, WorkerState

pytestmark = pytest.mark.timeout(240)

AB = ChoiceOutput(labels=("A", "B"))
HEALED_S = 15.0
COUNTER = iter(range(1_000_000))
PROFILE = """
[tiers.low]
rank = 1
[tiers.high]
rank = 2
[lanes.tier1]
tier = "low"
model = "small"
workers = 2
[lanes.tier2]
tier = "high"
model = "large"
[models.small]
backend = "scripted"
vram_mb = 5000
[models.small.script]
lines = [
  { contains = "hangs", delay_s = 3600 },
  { contains = "slow", delay_s = 0.05 },
]
[models.large]
backend = "scripted"
vram_mb = 9000
[kinds.question]
tier = "low"
output = "choice"
labels = ["A", "B"]
[routing]
unknown_kind_tier = "low"
critic_tier = "low"
"""
CARDS = [{"memory_mb": 12_288, "uuid": f"GPU-{n}"} for n in range(4)]


def environment(settings: Settings) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UPTIER_")}
    clean.pop("CUDA_VISIBLE_DEVICES", None)
    return {
        **clean,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "fake_nvml")]),
        "FAKE_NVML": json.dumps(CARDS),
        "UPTIER_DATA_DIR": str(settings.data_dir),
        "UPTIER_PROFILE": settings.profile,
        "UPTIER_HEALTH_S": "5",
        "UPTIER_LEASE_S": "5",
        "UPTIER_STALE_AFTER_S": "5",
    }


def uptier(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words], env=environment(settings), text=True,
        capture_output=True, timeout=400,
    )  # fmt: skip


def did(settings: Settings, *words: str) -> str:
    done = uptier(settings, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("fleet")
    profile = folder / "fleet.toml"
    profile.write_text(PROFILE)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("UPTIER_BROKER_URL", "UPTIER_DATABASE_URL"):
            patch.delenv(name, raising=False)
        settings = Settings(profile=str(profile), data_dir=folder / "data", health_s=5)
        did(settings, "up")
        try:
            with session(settings, mode="test") as opened:
                yield opened
        finally:
            did(settings, "down")


def question(prompt: str, **more: Any) -> Decision:
    return Decision(kind="question", prompt=prompt, output=AB, key=f"k{next(COUNTER)}", **more)


def ask(live: Session, *prompts: str) -> list[Settled]:
    return live.client.gather([question(prompt) for prompt in prompts], timeout_s=90)


def view(live: Session) -> FleetView:
    return fleet_view(live.engine, ["tier1", "tier2"], now())


def told(live: Session, name: str) -> WorkerView:
    return next(worker for worker in view(live).workers if worker.name == name)


def here(live: Session, lane: str) -> dict[str, WorkerRecord]:
    return {w.name: w for w in state_of(live.settings).workers if w.lane == lane}


def pid(record: WorkerRecord) -> int:
    assert record.process is not None
    return record.process.pid


def standing(live: Session, lane: str) -> Standing | None:
    return next(one.standing for one in view(live).lanes if one.lane == lane)


def pinned_to(record: WorkerRecord) -> str:
    return psutil.Process(pid(record)).environ()["CUDA_VISIBLE_DEVICES"]


def test_each_worker_gets_the_card_that_the_plan_says(live: Session) -> None:
    plan = json.loads(did(live.settings, "fleet", "plan", "--json"))
    assert {one["worker"]: one["card"] for one in plan["workers"]} == {
        "tier2-1": 0, "tier1-1": 1, "tier1-2": 2,
    }  # fmt: skip
    workers = {**here(live, "tier1"), **here(live, "tier2")}
    assert {name: pinned_to(worker) for name, worker in workers.items()} == {
        "tier2-1": "0", "tier1-1": "1", "tier1-2": "2",
    }  # fmt: skip
    assert pinned_to(here(live, "quality")["quality-1"]) == ""


@pytest.mark.parametrize("name", ["tier1-1", "quality-1", "broker"])
def test_whatever_is_killed_is_healed_and_seen(live: Session, name: str) -> None:
    settings = live.settings
    before = told(live, name)
    assert before.pid is not None
    ids = live.client.submit([question(f"slow {n}") for n in range(40)])
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: _healed(live, name, before), HEALED_S)
    after = told(live, name)
    assert after.restarts == before.restarts + 1
    assert "SIGKILL" in after.reason or "died" in after.reason
    found = json.loads(did(settings, "status", "--json"))
    shown = {w["name"]: w["restarts"] for w in found["workers"]}
    shown["broker"] = found["broker_restarts"]
    assert shown[name] == after.restarts
    settled = live.client.wait(ids, timeout_s=90)
    assert {one.status for one in settled} == {Status.ACCEPTED}


def _healed(live: Session, name: str, before: WorkerView) -> bool:
    found = told(live, name)
    return found.state == "ready" and found.pid not in (None, before.pid)


def test_a_stopped_process_is_started_anew(live: Session) -> None:
    before = told(live, "tier2-1")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGSTOP)
    wait_until(lambda: _healed(live, "tier2-1", before), 60)
    assert "was not heard of for" in told(live, "tier2-1").reason
    assert not runs(before.pid)


def test_a_worker_that_beats_and_gets_nowhere_is_started_anew(live: Session) -> None:
    before = {name: told(live, name) for name in ("tier1-1", "tier1-2")}
    # One for each of the two workers, so that everything behind them waits.
    hung = [live.client.submit([question("hangs")])[0] for _ in range(2)]
    behind = live.client.submit([question(f"behind {n}") for n in range(20)])

    def ill() -> list[WorkerView]:
        return [w for name in before if (w := told(live, name)).restarts > before[name].restarts]

    wait_until(lambda: bool(ill()), 90)
    assert all("got nowhere for" in worker.reason for worker in ill())
    live.client.cancel(hung)
    settled = live.client.wait(behind, timeout_s=90)
    assert {one.status for one in settled} == {Status.ACCEPTED}
    wait_until(lambda: all(told(live, name).state == "ready" for name in before), 60)


def test_a_lane_is_scaled_up_and_down_without_losing_a_decision(live: Session) -> None:
    ids = live.client.submit([question(f"slow {n}") for n in range(300)])
    did(live.settings, "fleet", "scale", "tier1", "4")
    workers = here(live, "tier1")
    assert len(workers) == 4
    # First the card that has none of the lane, then one that has room for another.
    assert sorted(map(pinned_to, workers.values())) == ["1", "1", "2", "3"]
    did(live.settings, "fleet", "scale", "tier1", "1")
    assert set(here(live, "tier1")) == {"tier1-1"}
    settled = live.client.wait(ids, timeout_s=90)
    assert {one.status for one in settled} == {Status.ACCEPTED}
    did(live.settings, "fleet", "scale", "tier1", "2")


def test_too_many_workers_are_refused_with_the_sum_and_nothing_is_started(live: Session) -> None:
    done = uptier(live.settings, "fleet", "scale", "tier2", "6")
    assert done.returncode == 2
    assert "8.8 weights and cache + 0.3 context + 0.2 workspace" in done.stderr
    assert done.stderr.count("\n") == 1
    assert set(here(live, "tier2")) == {"tier2-1"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("drain", "tier9"), "'tier9'"),
        (("drain", "quality"), "quality cannot be drained"),
        (("scale", "tier1", "0"), "0 workers"),
        (("free", "7"), "GPU 7"),
        (("give-back", "1"), "GPU 1 is not lent"),
    ],
)
def test_what_cannot_be_done_is_one_line(live: Session, words: tuple[str, ...], named: str) -> None:
    done = uptier(live.settings, "fleet", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert named in done.stderr


def test_a_drained_lane_finishes_ends_and_comes_back(live: Session) -> None:
    ids = live.client.submit([question(f"slow {n}") for n in range(100)])
    assert "takes no new decisions" in did(live.settings, "fleet", "drain", "tier1")
    assert here(live, "tier1") == {}
    wait_until(lambda: standing(live, "tier1") is Standing.DRAINED)
    settled = live.client.wait(ids, timeout_s=90)
    assert {one.lane for one in settled} == {"tier1"}  # what waited there was answered there
    [after] = ask(live, "while it is away")
    assert (after.status, after.lane) == (Status.ACCEPTED, "tier2")
    notes = trail(live.engine, after.id).plan.notes
    assert any("lane tier1 is drained: an operator drained it" in note for note in notes)
    did(live.settings, "fleet", "restart", "tier1")
    assert len(here(live, "tier1")) == 2
    assert standing(live, "tier1") is None
    assert ask(live, "again")[0].lane == "tier1"


def test_a_card_is_lent_and_comes_back_without_losing_a_decision(live: Session) -> None:
    [seat] = here(live, "tier2").values()
    card = seat.placement.removeprefix("GPU ")
    old = pid(seat)
    said = did(live.settings, "fleet", "free", card)
    assert "tier2-1 finish what they have and go" in said
    assert not runs(old)
    assert standing(live, "tier2") is Standing.LENT
    assert state_of(live.settings).lent == (int(card),)
    assert f"GPU {card} is lent" in did(live.settings, "fleet", "status")
    assert uptier(live.settings, "fleet", "scale", "tier2", "1").returncode == 0
    [moved] = here(live, "tier2").values()
    assert moved.placement != f"GPU {card}"
    did(live.settings, "fleet", "drain", "tier2")
    did(live.settings, "fleet", "give-back", card)
    [back] = here(live, "tier2").values()
    assert (back.placement, back.state) == (f"GPU {card}", WorkerState.READY)
    assert standing(live, "tier2") is None


def test_a_lane_is_started_anew_one_worker_after_another(live: Session) -> None:
    old = {pid(worker) for worker in here(live, "tier1").values()}
    ids = live.client.submit([question(f"slow {n}") for n in range(100)])
    did(live.settings, "fleet", "restart", "tier1")
    assert not old & {pid(worker) for worker in here(live, "tier1").values()}
    assert {one.status for one in live.client.wait(ids, timeout_s=90)} == {Status.ACCEPTED}


def test_a_lane_whose_worker_dies_at_every_start_is_down_until_an_operator_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UPTIER_BROKER_URL", raising=False)
    profile, broken = tmp_path / "fleet.toml", tmp_path / "broken"
    profile.write_text(PROFILE.replace("workers = 2", ""))
    settings = Settings(profile=str(profile), data_dir=tmp_path / "data", lease_s=5)

    def command(spec: WorkerSpec) -> list[str]:
        if spec.lane == "tier1" and broken.exists():
            return [sys.executable, "-c", "raise SystemExit('out of luck')"]
        return worker_command(spec)

    with running_stack(settings, hooks=Hooks(command=command)) as endpoint, ExitStack() as undo:
        engine = open_ledger(settings)
        undo.callback(engine.dispose)
        run = start_run(engine, mode="test", profile="fleet", now=now())
        client = undo.enter_context(
            Client(settings, endpoint.broker_url, run, failure=endpoint.failure)
        )
        live = Session(settings, engine, run, client, endpoint.failure)
        broken.touch()
        os.kill(pid(here(live, "tier1")["tier1-1"]), signal.SIGKILL)
        # Asked while it is not known yet to be down: goes on from there once it is.
        early = client.submit([question("early")])
        wait_until(lambda: standing(live, "tier1") is Standing.DOWN, 60)
        [row] = [lane for lane in view(live).lanes if lane.lane == "tier1"]
        assert "out of luck" in row.reason
        assert here(live, "tier1")["tier1-1"].restarts == 3
        [settled] = client.wait(early, timeout_s=60)
        assert settled.lane == "tier2"
        [late] = ask(live, "late")
        assert late.lane == "tier2"
        assert any("tier1 is down" in note for note in trail(engine, late.id).plan.notes)
        assert endpoint.failure() is None
        broken.unlink()
        answer = give(settings, Action.RESTART, "tier1")
        carried_out(settings, answer, lambda line: None)
        assert standing(live, "tier1") is None
        assert ask(live, "again")[0].lane == "tier1"


def test_orders_without_a_stack_are_one_line(tmp_path: Path) -> None:
    settings = Settings(profile="tiny", data_dir=tmp_path / "nobody")
    done = uptier(settings, "fleet", "drain", "tier1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no stack is up" in done.stderr
    assert StackState.read(settings.stack_dir) is None
