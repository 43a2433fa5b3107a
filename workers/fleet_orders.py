"""What operators ask of a running stack: drain, scale, free a card, give it back, restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy.exc import DBAPIError

from config.catalog import Catalog
from config.errors import InputError, UptierError
from config.queues import QUALITY
from ledger.lanes import Standing
from workers.fleet import Fleet
from workers.fleet_ledger import FleetLedger
from workers.launch import WorkerSpec
from workers.needs import Need
from workers.orders import Action, Answer, Order
from workers.placement import Placement, Plan, Seat, check_memory, seated
from workers.stack_state import WorkerState

log = logging.getLogger(__name__)

MOST_WORKERS = 64


@dataclass
class Stay:
    """Where the workers of a stack sit, as operators change it."""

    plan: Plan


class Orders:
    """Does what is asked, through the fleet and the ledger. Used by one thread.

    The ledger comes first: while it is away an order is refused, and nothing of it was done.
    """

    def __init__(
        self,
        catalog: Catalog,
        needs: Mapping[str, Need | None],
        stay: Stay,
        fleet: Fleet,
        ledger: FleetLedger,
    ) -> None:
        self._catalog = catalog
        self._needs = needs
        self._stay = stay
        self._fleet = fleet
        self._ledger = ledger
        self._draining: set[str] = set()
        self._drained: dict[str, int] = {}
        """Lanes without workers by an operator's word, and how many they had."""
        self._lent: dict[int, list[Seat]] = {}
        self._renewing: list[str] = []

    def answer(self, order: Order) -> Answer:
        """Begin what is asked; what takes longer is gone on with by :meth:`go_on`."""
        acts: dict[Action, Callable[[Order], Answer]] = {
            Action.DRAIN: self._drain, Action.SCALE: self._scale, Action.FREE: self._free,
            Action.GIVE_BACK: self._give_back, Action.RESTART: self._restart,
        }  # fmt: skip
        log.info("asked to %s %s", order.action.value, order.lane or order.number)
        try:
            return acts[order.action](order)
        except UptierError as error:
            return Answer(text=str(error), refused=True)
        except DBAPIError as error:
            log.warning("an order is refused, since the ledger does not take it: %s", error.orig)
            text = "the ledger does not answer, so nothing was changed: ask again when it does"
            return Answer(text=text, refused=True)

    def go_on(self) -> None:
        """The next step of what is under way."""
        for lane in sorted(self._draining):
            if not self._ledger.open_work(lane):
                self._empty(lane)
        here = {r.name: r for r in self._fleet.records()}
        busy = {here[n].lane for n in here
                if here[n].state in (WorkerState.STOPPING, WorkerState.STARTING)}  # fmt: skip
        for name in [n for n in self._renewing if n in here and here[n].lane not in busy][:1]:
            self._renewing.remove(name)
            self._fleet.renew(name)

    def _drain(self, order: Order) -> Answer:
        names = self._workers(order.lane)
        if order.lane == QUALITY:
            raise InputError("quality cannot be drained: without it nothing is checked or settled")
        waiting = self._ledger.open_work(order.lane)
        self._ledger.take_out(order.lane, Standing.DRAINING, "an operator drains it")
        self._draining.add(order.lane)
        return Answer(
            text=f"lane {order.lane} takes no new decisions; its workers end when the "
            f"{waiting} that are open are answered",
            leaving=self._pids(names),
        )

    def _empty(self, lane: str) -> None:
        names = self._workers(lane)
        self._ledger.take_out(lane, Standing.DRAINED, "an operator drained it")
        self._draining.discard(lane)
        self._drained[lane] = max(1, len(names))
        self._retire(names)

    def _scale(self, order: Order) -> Answer:
        lane, wanted = order.lane, order.number
        names = self._workers(lane)
        if not 1 <= wanted <= MOST_WORKERS:
            raise InputError(
                f"{wanted} workers for {lane}: choose 1 to {MOST_WORKERS}, or `uptier fleet drain "
                f"{lane}` to have none"
            )
        dead = self._dead(names)
        if wanted < len(names):
            # Who was given up goes first: the others serve.
            names = [name for name in names if name not in dead] + dead
            leaving = names[wanted:]
            return Answer(
                text=f"{', '.join(leaving)} finish what they have and go",
                leaving=self._retire(leaving),
            )
        plan, new = self._grown(lane, wanted - len(names))
        self._back([lane])
        self._start(plan, new)
        for name in dead:
            self._fleet.renew(name)
        coming = [*dead, *(spec.name for spec in new)]
        return self._started(coming, f"lane {lane} has {wanted} workers already")

    def _free(self, order: Order) -> Answer:
        card = self._card(order.number)
        if card in self._stay.plan.lent:
            raise InputError(f"GPU {card} is lent already: `uptier fleet give-back {card}`")
        seats = self._sitting(card)
        names = [seat.worker for seat in seats]
        for lane in sorted({seat.lane for seat in seats}):
            if not set(self._workers(lane)) - set(names):
                self._ledger.take_out(lane, Standing.LENT, f"GPU {card} is lent to other work")
        self._lent[card] = seats
        self._stay.plan = self._stay.plan.lending({*self._stay.plan.lent, card})
        leaving = self._retire(names)
        servers = sorted({seat.server for seat in seats if seat.server})
        yours = f"; the server at {', '.join(servers)} is yours to stop" if servers else ""
        who = f"{', '.join(names)} finish what they have and go" if names else "nobody sits there"
        return Answer(text=f"GPU {card}: {who}{yours}", leaving=leaving)

    def _give_back(self, order: Order) -> Answer:
        card = self._card(order.number)
        if card not in self._lent:
            raise InputError(f"GPU {card} is not lent: nothing is to be given back")
        seats, plan = self._lent[card], self._stay.plan
        going = {r.name for r in self._fleet.records()} & {seat.worker for seat in seats} - {
            seat.worker for seat in plan.seats
        }
        if going:
            raise InputError(
                f"GPU {card} is not free yet: {', '.join(sorted(going))} finish what they have; "
                "ask again when `uptier fleet status` does not show them any more"
            )
        here = {seat.worker for seat in plan.seats}
        seats = [seat for seat in seats if seat.worker not in here]
        plan = replace(plan.lending(plan.lent - {card}), seats=(*plan.seats, *seats))
        self._back(sorted({seat.lane for seat in seats}))
        del self._lent[card]
        new = [WorkerSpec(seat.worker, seat.lane, seat.placement) for seat in seats]
        self._start(plan, new)
        return self._started([seat.worker for seat in seats], f"GPU {card} is in use again")

    def _restart(self, order: Order) -> Answer:
        lane = order.lane
        names = self._workers(lane)
        leaving = self._pids(names)
        gone = self._drained.get(lane, 0) if not names and lane != QUALITY else 0
        plan, new = self._grown(lane, gone)
        coming = [*names, *(spec.name for spec in new)]
        if not coming:
            raise InputError(
                f"lane {lane} has no workers, since its card is lent: `uptier fleet give-back GPU`"
            )
        self._back([lane])
        self._start(plan, new)
        states = {r.name: r.state for r in self._fleet.records()}
        for name in names:
            if states[name] in (WorkerState.READY, WorkerState.STARTING):
                self._renewing += [name] if name not in self._renewing else []
            elif states[name] is not WorkerState.STOPPING:  # else it is being renewed
                self._fleet.renew(name)
        return Answer(
            text=f"{', '.join(coming)}: started anew, one after another", leaving=leaving,
            coming=tuple(coming),
        )  # fmt: skip

    def _grown(self, lane: str, count: int) -> tuple[Plan, list[WorkerSpec]]:
        """The plan with so many workers more, and who they are; refused if they do not all fit."""
        plan, new = self._stay.plan, []
        taken = {record.name for record in self._fleet.records()}
        free = (n for n in range(1, 10 * MOST_WORKERS) if f"{lane}-{n}" not in taken)
        for _ in range(count):
            number = next(free)
            if lane == QUALITY:
                new.append(WorkerSpec(f"{lane}-{number}", lane, _unseeing(plan)))
            else:
                plan = seated(plan, self._catalog, lane, number, self._needs.get(lane))
                seat = plan.seats[-1]
                new.append(WorkerSpec(seat.worker, lane, seat.placement))
        if count and lane != QUALITY:
            check_memory(plan)
        return plan, new

    def _start(self, plan: Plan, new: list[WorkerSpec]) -> None:
        self._stay.plan = plan
        for spec in new:
            self._fleet.add(spec)

    def _sitting(self, card: int) -> list[Seat]:
        """Who lives by a card: also those that a server asks which is planned there once."""
        plan = self._stay.plan
        served = {(seat.server, seat.model) for seat in plan.on(card) if seat.server is not None}
        return [
            seat for seat in plan.seats
            if seat.card == card or (seat.card is None and (seat.server, seat.model) in served)
        ]  # fmt: skip

    def _retire(self, names: list[str]) -> tuple[int, ...]:
        self._renewing = [name for name in self._renewing if name not in names]
        self._stay.plan = self._stay.plan.without(names)
        return tuple(self._fleet.retire(names))

    def _back(self, lanes: list[str]) -> None:
        self._ledger.put_back(lanes)
        for lane in lanes:
            self._draining.discard(lane)
            self._drained.pop(lane, None)

    def _workers(self, lane: str) -> list[str]:
        """The workers of a lane that stay, in the order of their names' numbers."""
        if lane != QUALITY and lane not in self._catalog.lanes:
            raise InputError(
                f"lane {lane!r} is not in profile {self._catalog.profile!r}: choose one of "
                f"{', '.join((*self._catalog.lanes, QUALITY))}"
            )
        names = self._fleet.staying(lane)
        return sorted(names, key=lambda name: int(name.rpartition("-")[2]))

    def _dead(self, names: list[str]) -> list[str]:
        """Those of them that were given up."""
        states = {record.name: record.state for record in self._fleet.records()}
        return [name for name in names if states[name] is WorkerState.FAILED]

    def _pids(self, names: list[str]) -> tuple[int, ...]:
        return tuple(
            r.process.pid for r in self._fleet.records()
            if r.name in names and r.process is not None
            and r.state in (WorkerState.READY, WorkerState.STARTING)
        )  # fmt: skip

    def _card(self, number: int) -> int:
        known = len(self._stay.plan.gpus)
        if not 0 <= number < known:
            raise InputError(
                f"GPU {number} is not here: this machine shows {known} GPUs, counted from 0"
            )
        return number

    def _started(self, names: list[str], nothing: str) -> Answer:
        text = f"{', '.join(names)}: started" if names else nothing
        return Answer(text=text, coming=tuple(names))


def _unseeing(plan: Plan) -> Placement:
    return Placement(hides_gpus=bool(plan.gpus))
