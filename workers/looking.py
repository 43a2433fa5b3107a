"""Looks at a stack: queues, lanes, workers, rates and money of this moment."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from config.broker import queue_lengths, shown
from config.errors import BrokerUnavailable, ConfigurationError
from config.load import AbsentLane
from config.queues import INTAKE, QUALITY, make_app
from config.settings import Settings
from ledger.budgets import BudgetUse, usage
from ledger.clock import SECOND, Clock
from ledger.clock import now as wall_clock
from ledger.database import ledger_error, ledger_place, open_ledger
from ledger.lanes import WorkerView as Supervised
from ledger.lanes import out_of_service, supervised
from ledger.money import dollars
from ledger.providers import ProviderState, states
from ledger.pulse import Books, Pulse, Recent, Sign, Spent, Waiting, take_pulse
from routing.decision import State
from workers.fleet_ledger import supervisor_of
from workers.flower_place import FlowerRecord
from workers.glance_views import Glance, LaneView, Money, QueueView, Rates, WorkerView
from workers.stack_state import StackState, WorkerRecord
from workers.watched import as_it_runs, stack_in_use

RATE_S = 60.0
"""How far back the rate of settlement goes, once it has been looked at for so long."""


class Looker:
    """Looks at the stack of the settings again and again, over one connection to each part.

    Raises:
        ConfigurationError: there is no ledger to look at.
    """

    def __init__(self, settings: Settings, clock: Clock = wall_clock) -> None:
        self._given = settings
        self._settings = as_it_runs(settings)
        self._clock = clock
        self._engine: Engine = _opened(settings)
        self._app: tuple[str, Celery] | None = None
        self._own = supervisor_of(settings)
        catalog = self._settings.catalog
        paid = [n for n, lane in catalog.lanes.items() if catalog.models[lane.model].provider]
        self._books = Books(self._engine, paid)
        self._settled: deque[tuple[int, int]] = deque()
        self._last: Glance | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.dispose()

    def look(self) -> Glance:
        """How everything stands; what does not answer is among the problems."""
        state = stack_in_use(self._given)
        moment = self._clock()
        problems = [state.failure] if state is not None and state.failure else []
        lengths = self._lengths(state, problems)
        try:
            found = self._found(state, moment, lengths, problems)
        except DBAPIError as error:
            problems.append(str(ledger_error(self._engine, error)))
            found = self._stale(state, moment, problems)
        except SQLAlchemyError as error:
            problems.append(f"the ledger does not answer: {str(error).splitlines()[0]}")
            found = self._stale(state, moment, problems)
        self._last = found
        return found

    def _found(
        self,
        state: StackState | None,
        moment: int,
        lengths: Mapping[str, int] | None,
        problems: list[str],
    ) -> Glance:
        pulse = take_pulse(self._engine, moment)
        today, per_hour = self._books.look(moment)
        catalog = self._settings.catalog
        providers = states(self._engine, catalog, moment)
        share = catalog.cloud_budget.alert_share
        flower = FlowerRecord.read(self._given)
        return Glance(
            at=moment, profile=self._settings.profile, stack=_condition(state, self._given),
            broker=_broker(state, self._given), ledger=ledger_place(self._settings),
            flower=None if flower is None else flower.url, problems=problems,
            decisions=pulse.states, queues=_queues(self._settings, pulse, lengths),
            lanes=_lanes(self._settings, pulse, providers, out_of_service(self._engine, catalog)),
            workers=_workers(state, pulse, supervised(self._engine, moment), self._own),
            rates=self._rates(pulse),
            money=_money(today, per_hour, usage(self._engine, None, share, moment)),
            providers=providers,
        )  # fmt: skip

    def _stale(self, state: StackState | None, moment: int, problems: list[str]) -> Glance:
        """What was seen last, or nothing yet."""
        if self._last is not None:
            return self._last.model_copy(update={"problems": problems})
        return Glance(
            at=moment, profile=self._settings.profile, stack=_condition(state, self._given),
            broker=_broker(state, self._given), ledger=ledger_place(self._settings), flower=None,
            problems=problems, decisions={}, queues=[], lanes=[], workers=[],
            rates=Rates(settled_per_s=None, settled_over_s=0, accepted_share=None,
                        climbed_share=None),
            money=_money(Spent(), 0, []), providers=[],
        )  # fmt: skip

    def _lengths(self, state: StackState | None, problems: list[str]) -> dict[str, int] | None:
        url = self._given.broker_url or (state.broker_url if state is not None else None)
        if url is None:
            return None
        try:
            if self._app is None or self._app[0] != url:
                self._app = url, make_app(self._settings, url)
            return queue_lengths(self._app[1])
        except BrokerUnavailable as error:
            problems.append(str(error))
            return None

    def _rates(self, pulse: Pulse) -> Rates:
        settled = pulse.states.get(State.SETTLED.value, 0)
        seen = self._settled
        seen.append((pulse.at, settled))
        while len(seen) > 2 and pulse.at - seen[1][0] >= RATE_S * SECOND:
            seen.popleft()
        seconds = (pulse.at - seen[0][0]) / SECOND
        judged = sum(one.judged for one in pulse.recent)
        return Rates(
            settled_per_s=(settled - seen[0][1]) / seconds if seconds else None,
            settled_over_s=seconds,
            accepted_share=_share(sum(one.passed for one in pulse.recent), judged),
            climbed_share=_share(pulse.climbed, pulse.decided),
        )


def take_two(looker: Looker, apart_s: float) -> Glance:
    """A look that knows rates: they are changes from one look to the next."""
    looker.look()
    time.sleep(apart_s)
    return looker.look()


def _opened(settings: Settings) -> Engine:
    place = ledger_place(settings)
    if settings.ledger_url.startswith("sqlite") and not Path(place).exists():
        raise ConfigurationError(
            f"there is no ledger at {place} yet: run `uptier up`, or correct UPTIER_DATA_DIR"
        )
    return open_ledger(settings)


def _condition(state: StackState | None, settings: Settings) -> str:
    if state is None:
        return "down" if settings.broker_url is None else "no stack of this machine"
    return "failed" if state.failure else state.phase.value


def _broker(state: StackState | None, settings: Settings) -> str | None:
    url = settings.broker_url or (state.broker_url if state is not None else None)
    return None if url is None else shown(url)


def _queues(settings: Settings, pulse: Pulse, lengths: Mapping[str, int] | None) -> list[QueueView]:
    open_lanes = {one.lane: one for one in pulse.waiting}  # of a capped look, those that it saw
    names = dict.fromkeys((*settings.catalog.lanes, *open_lanes))
    views = []
    for name in names:
        one = open_lanes.get(name, Waiting(name))
        views.append(QueueView(
            name=name, messages=_length(lengths, name), waiting=one.queued, running=one.running,
            oldest_s=_age(one.oldest_us, pulse.at), capped=pulse.capped,
        ))  # fmt: skip
    unchecked = pulse.states.get(State.ANSWERED.value, 0)
    views.append(QueueView(name=QUALITY, messages=_length(lengths, QUALITY), waiting=unchecked,
                           running=0, oldest_s=_age(pulse.unchecked_us, pulse.at)))  # fmt: skip
    raw = _length(lengths, INTAKE)
    return [*views, QueueView(name=INTAKE, messages=raw, waiting=0, running=0, oldest_s=None)]


def _length(lengths: Mapping[str, int] | None, name: str) -> int | None:
    return None if lengths is None else lengths.get(name, 0)


def _lanes(
    settings: Settings,
    pulse: Pulse,
    providers: list[ProviderState],
    closed: Mapping[str, AbsentLane],
) -> list[LaneView]:
    catalog = settings.catalog
    seconds = pulse.window_us / SECOND
    recent = {one.lane: one for one in pulse.recent}
    open_breakers = {one.name for one in providers if one.breaker == "open"}
    ranked = sorted(catalog.lanes, key=lambda n: (catalog.tiers[catalog.lanes[n].tier].rank, n))
    views = []
    for name in ranked:
        lane = catalog.lanes[name]
        alive = [s for s in pulse.signs if s.lane == name and _lives(s, pulse.at)]
        broken = catalog.models[lane.model].provider in open_breakers
        did = recent.get(name, Recent(name, 0, 0, 0, 0, 0, 0))
        views.append(LaneView(
            name=name, tier=lane.tier, model=lane.model, workers=len(alive),
            state="closed" if name in closed else _lane_state(alive, broken),
            reason=closed[name].reason if name in closed else "",
            answers_per_s=did.answered / seconds,
            failed=did.failed, accepted_share=_share(did.passed, did.judged),
            tokens_per_s=did.tokens_out / seconds,
            per_hour_usd=dollars(did.cost_micros) * 3600 / seconds,
        ))  # fmt: skip
    absent = [LaneView(name=one.lane, tier=one.tier, model="", state="absent", reason=one.reason)
              for one in settings.absent_lanes]  # fmt: skip
    return [*views, *absent]


def _lane_state(alive: list[Sign], broken: bool) -> str:
    """A lane's state, from what its workers say of themselves."""
    if broken:
        return "breaker open"
    if any(sign.state == "ready" for sign in alive):
        return "serving"
    return "starting" if alive else "no worker"


def _workers(
    state: StackState | None, pulse: Pulse, watched: Sequence[Supervised], own: str
) -> list[WorkerView]:
    """Workers by their signs of life, and what supervisors know besides: the broker, and workers
    that have not said anything yet or died."""
    ours = () if state is None else state.workers
    views, heard = [], set()
    for sign in pulse.signs:
        known = next((one for one in ours if _is_of(sign, one)), None)
        if known is not None:
            heard.add(known.name)
        elif not _lives(sign, pulse.at):
            continue  # an earlier process of a worker that is listed, or one that was ended
        view = _worker(sign, known, pulse.at)
        views.append(view if known is not None else _as_watched(view, watched))
    silent = [_silent(record) for record in ours if record.name not in heard]
    told = {(view.name, view.pid) for view in views}
    # Of this machine's workers the state of the stack tells, and sooner.
    others = [one for one in watched if not (one.supervisor == own and one.lane and ours)]
    return [*views, *silent, *(_unheard(o) for o in others if (o.name, o.pid) not in told)]


def _as_watched(view: WorkerView, watched: Sequence[Supervised]) -> WorkerView:
    """With what the supervisor of another machine knows of it."""
    for one in watched:
        if (one.name, one.pid) == (view.name, view.pid):
            more = {"placement": one.placement, "restarts": one.restarts, "message": one.reason}
            return view.model_copy(update=more)
    return view


def _unheard(one: Supervised) -> WorkerView:
    """A supervised process that tells nothing of itself: a broker, a worker that is not up."""
    return WorkerView(
        name=one.name, lane=one.lane, host="", pid=one.pid, state=one.state,
        placement=one.placement, uptime_s=None, heartbeat_s=one.seen_s, restarts=one.restarts,
        message=one.reason,
    )  # fmt: skip


def _is_of(sign: Sign, record: WorkerRecord) -> bool:
    """Whether a sign of life is that of a worker of this machine's stack."""
    here = sign.host == socket.gethostname()
    return here and record.process is not None and record.process.pid == sign.pid


def _lives(sign: Sign, now: int) -> bool:
    """Whether it was heard of lately, and on this machine whether it is there at all: a worker that
    was killed has not said so."""
    gone = sign.host == socket.gethostname() and not psutil.pid_exists(sign.pid)
    return sign.alive(now) and not gone


def _worker(sign: Sign, known: WorkerRecord | None, now: int) -> WorkerView:
    gone = known is not None and known.process is not None and not known.process.alive()
    state = "dead" if gone else sign.state if sign.alive(now) else "silent"
    return WorkerView(
        name=sign.name, lane=sign.lane, host=sign.host, pid=sign.pid, state=state,
        placement="-" if known is None else known.placement,
        uptime_s=(now - sign.started_us) / SECOND, heartbeat_s=_age(sign.heartbeat_us, now),
        restarts=None if known is None else known.restarts,
        message="" if known is None else known.message or "", figures=sign.figures,
    )  # fmt: skip


def _silent(record: WorkerRecord) -> WorkerView:
    """A worker of this machine that has not said anything yet, or that died."""
    running = record.process is not None and record.process.alive()
    return WorkerView(
        name=record.name, lane=record.lane, host="", state=record.state.value,
        pid=record.process.pid if running and record.process is not None else None,
        placement=record.placement, uptime_s=None, heartbeat_s=None, restarts=record.restarts,
        message=record.message or "",
    )  # fmt: skip


def _money(today: Spent, per_hour: int, budgets: list[BudgetUse]) -> Money:
    return Money(
        today_usd=dollars(today.micros), per_hour_usd=dollars(per_hour),
        unknown_charges=today.unknown, unknown_usd=dollars(today.unknown_micros), budgets=budgets,
    )  # fmt: skip


def _age(since: int | None, now: int) -> float | None:
    return None if since is None else max(0.0, (now - since) / SECOND)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
