"""Keeps a stack's workers healthy, its lanes' standing true, and does what operators ask.

Runs beside the watch over processes, in a thread of its own: a ledger that is slow or away must
not keep a dead worker from being started again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError

from config.catalog import BackendName
from config.errors import UptierError
from config.queues import QUALITY
from config.settings import Settings
from ledger.lanes import Standing
from ledger.workers import Sign
from workers.children import ProcessRecord
from workers.fleet import Fleet
from workers.fleet_ledger import FleetLedger
from workers.fleet_orders import Orders
from workers.health import HEARD_AT_LEAST_S, Patience, Ward, has_worked
from workers.launch import WorkerSpec
from workers.logs import cut
from workers.orders import reply, waiting_orders
from workers.stack_broker import StackBroker
from workers.stack_state import WorkerState, logs_directory

log = logging.getLogger(__name__)

ROUND_S = 0.5
TELL_S = 10.0
"""Between two words to the ledger, if nothing changes."""
LOGS_S = 30.0
BROKER = "broker"
SLOW_STEP = 10
"""How many times its average a single pass may take."""


class Keeper:
    """One round after another, until it is told to end."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        broker: StackBroker,
        ledger: FleetLedger,
        orders: Orders,
        publish: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._broker = broker
        self._ledger = ledger
        self._orders = orders
        self._publish = publish
        self._clock = clock
        self._wards: dict[str, Ward] = {}
        self._down: dict[str, frozenset[str]] = {}
        self._told: list[dict[str, Any]] = []
        self._told_at = self._looked_at = self._cut_at = float("-inf")
        self._away = ""
        self._office: set[str] = set()

    def run(self, stopping: threading.Event) -> None:
        """Do rounds until ``stopping`` is set."""
        duties = (self._obey, self._release, self._judge, self._look, self._tell, self._cut)
        while not stopping.wait(ROUND_S):
            # Each is done whatever becomes of the others.
            done = [self._done(duty) for duty in duties]
            if all(done):
                self._away = ""

    def _done(self, duty: Callable[[], None]) -> bool:
        try:
            duty()
        except (DBAPIError, UptierError, OSError) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            if words != self._away:
                log.warning("a duty of the stack's keeper waits: %s", words)
            self._away = words
            return False
        except Exception:
            log.exception("a duty of the stack's keeper failed")
        return True

    def _obey(self) -> None:
        """Take orders and answer them; go on with those that take their time."""
        for order in waiting_orders(self._settings.stack_dir):
            answer = self._orders.answer(order)
            self._publish()  # who asked looks at the state next
            reply(self._settings.stack_dir, order, answer)
        self._orders.go_on()

    def _release(self) -> None:
        """Give up the steward's office of instances that are gone."""
        up = self._fleet.tokens(WorkerState.STARTING, WorkerState.READY, WorkerState.STOPPING)
        now = {token for token, spec in up.items() if spec.lane == QUALITY}
        self._office |= now
        for token in self._office - now:
            self._ledger.vacate(token)
            self._office.remove(token)  # not before: the ledger may be away

    def _judge(self) -> None:
        """Mark lanes down of which every worker was given up, here and elsewhere."""
        dead = {lane: why for lane, why in self._fleet.given_up().items() if lane != QUALITY}
        failed = self._fleet.tokens(WorkerState.FAILED)
        for lane, why in dead.items():
            tokens = frozenset(token for token, spec in failed.items() if spec.lane == lane)
            # The same dead ones are told of once: an operator may put the lane back meanwhile.
            if self._down.get(lane) != tokens and not self._ledger.serves_elsewhere(lane, tokens):
                self._ledger.take_out(lane, Standing.DOWN, why)
                self._down[lane] = tokens
                log.error("lane %s is down: %s", lane, why)

    def _look(self) -> None:
        """Look for workers that are there and get nowhere."""
        now = self._clock()
        if now - self._looked_at < min(5.0, self._settings.health_s / 4):
            return
        self._looked_at = now
        ready = self._fleet.tokens(WorkerState.READY)
        try:
            signs, waiting = self._ledger.signs(ready), self._ledger.waiting()
        except DBAPIError:
            self._wards.clear()  # nobody can be heard, so nobody is judged by silence
            raise
        if not self._broker.answers():
            self._wards.clear()  # they wait for it, as they should
            return
        for token in ready:
            if token in signs and has_worked(signs[token]):
                self._fleet.proven(token)
        for lane, own in _by_lane(ready, signs).items():
            ward = self._wards.setdefault(lane, Ward())
            ill = ward.look(own, waiting.get(lane, 0), self._patience(lane, own), now)
            for token, why in ill.items():
                self._fleet.condemn(token, why)

    def _patience(self, lane: str, signs: Mapping[str, Sign]) -> Patience:
        # Figures are as old as the last sign of life.
        health = max(self._settings.health_s, HEARD_AT_LEAST_S)
        # What a broker lost is announced again after this time; until then nobody is to blame.
        nobody = max(health, self._settings.stale_after_s + HEARD_AT_LEAST_S)
        held = any(sign.figures.get("held") for sign in signs.values())
        step = max((self._step_s(lane, sign) for sign in signs.values()), default=0.0)
        return Patience(health, (health if held else nobody) + step)

    def _step_s(self, lane: str, sign: Sign) -> float:
        """The longest that a worker which does get on may take to show it, in seconds."""
        if lane == QUALITY:
            return 0.0
        model = self._settings.catalog.lane_model(lane)
        if model.backend is BackendName.SCRIPTED:
            return 0.0
        if passes := sign.figures.get("passes"):
            return SLOW_STEP * sign.figures.get("busy_s", 0.0) / passes
        return model.timeout_s  # of one answer, or of the first pass

    def _tell(self) -> None:
        """Write how the processes fare, for metrics and other machines."""
        rows, now = self._rows(), self._clock()
        if rows == self._told and now - self._told_at < TELL_S:
            return
        self._ledger.write(rows)
        self._told, self._told_at = rows, now

    def _rows(self) -> list[dict[str, Any]]:
        rows = [
            {"name": w.name, "lane": w.lane, "state": w.state.value, "placement": w.placement[:80],
             "pid": _pid(w.process), "restarts": w.restarts, "reason": w.message or ""}
            for w in self._fleet.records()
        ]  # fmt: skip
        if self._broker.process is not None:
            up = "ready" if self._broker.is_up() else "waiting"
            rows.append({
                "name": BROKER, "lane": "", "state": "failed" if self._broker.failure else up,
                "placement": "CPU", "pid": _pid(self._broker.process),
                "restarts": self._broker.restarts, "reason": self._broker.message or "",
            })  # fmt: skip
        return rows

    def _cut(self) -> None:
        """Keep logs from filling the disk."""
        now = self._clock()
        if now - self._cut_at >= LOGS_S:
            self._cut_at = now
            paths = logs_directory(self._settings).glob("*.log")
            cut(paths, int(self._settings.log_max_mb * (1 << 20)))


def _pid(process: ProcessRecord | None) -> int | None:
    return None if process is None else process.pid


def _by_lane(
    ready: Mapping[str, WorkerSpec], signs: Mapping[str, Sign]
) -> dict[str, dict[str, Sign]]:
    lanes: dict[str, dict[str, Sign]] = {}
    for token, spec in ready.items():
        if token in signs:
            lanes.setdefault(spec.lane, {})[token] = signs[token]
    return lanes
