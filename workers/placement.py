"""Placement: which card or how many CPU threads each worker gets, decided before any starts.

Pure functions of a profile, the hardware and the needs; a plan never asks more of a card than it
has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from config.catalog import IN_PROCESS, BackendName, Catalog, Dialect, Lane, Model
from config.errors import ConfigurationError
from workers.gpus import Gpu, Hardware
from workers.needs import Need, gb
from workers.turns import OWN_CORES

UNKNOWN_MB = 1_000_000_000
"""The room on a card that does not tell its memory: whatever is asked for."""
WORTH_SHARING = 8
"""Cores that each model must get before they are divided for good; with fewer, models take turns
on all of them (docs/decisions/004)."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Placement:
    """Where a worker runs. ``gpu`` is ``None`` on the CPU."""

    gpu: str | None = None
    threads: int = 1
    hides_gpus: bool = False
    own_cores: bool = False
    """Whether nobody else computes on the cores of its threads."""

    def environment(self) -> dict[str, str]:
        """The variables that pin a process; they must be set before it starts."""
        pins = {"UPTIER_THREADS": str(self.threads), "OMP_NUM_THREADS": str(self.threads)}
        if self.own_cores:
            pins[OWN_CORES] = "1"
        if self.gpu is not None:
            # By bus, as NVML counts; CUDA alone would count the fastest card first.
            pins |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": self.gpu}
        elif self.hides_gpus:
            pins["CUDA_VISIBLE_DEVICES"] = ""
        return pins

    def __str__(self) -> str:
        if self.gpu is not None:
            return f"GPU {self.gpu}"
        return f"CPU, {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True)
class Seat:
    """A worker and what it gets.

    ``card`` counts the cards of the hardware from 0; ``None`` is the CPU. With ``server`` the
    model runs in a server beside the worker, and the card is that server's.
    """

    lane: str
    number: int
    model: str
    placement: Placement
    need: Need | None = None
    card: int | None = None
    server: str | None = None
    note: str = ""

    @property
    def worker(self) -> str:
        """The worker's name."""
        return f"{self.lane}-{self.number}"


@dataclass(frozen=True)
class Plan:
    """All seats on a machine, and the cards that are lent to other work."""

    hardware: Hardware
    seats: tuple[Seat, ...] = ()
    lent: frozenset[int] = frozenset()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The cards that are known."""
        return self.hardware.gpus or ()

    def on(self, card: int) -> list[Seat]:
        """Who sits on a card."""
        return [seat for seat in self.seats if seat.card == card]

    def needed_mb(self, card: int) -> int:
        """What those on a card take together."""
        return sum(seat.need.total_mb for seat in self.on(card) if seat.need is not None)

    def room_mb(self, card: int) -> int:
        """What is left of a card. What a planned server holds already counts once."""
        gpu = self.gpus[card]
        if gpu.memory_mb is None:
            return UNKNOWN_MB
        seats = [seat for seat in self.on(card) if seat.need is not None]
        served = sum(s.need.total_mb for s in seats if s.need and s.server is not None)
        return gpu.memory_mb - max(gpu.taken_mb, served) - (self.needed_mb(card) - served)

    def seat(self, worker: str) -> Seat | None:
        """The seat of a worker."""
        return next((seat for seat in self.seats if seat.worker == worker), None)

    def without(self, workers: Collection[str]) -> Plan:
        """The plan less some workers."""
        return replace(self, seats=tuple(s for s in self.seats if s.worker not in workers))

    def lending(self, cards: Collection[int]) -> Plan:
        """The plan with these cards, and no others, lent to other work."""
        return replace(self, lent=frozenset(cards))


def place(
    catalog: Catalog, hardware: Hardware, needs: Mapping[str, Need | None] | None = None
) -> Plan:
    """A seat for every worker of a profile, in the catalog's order.

    A lane with ``gpu = n`` is pinned to the n-th card from 0. Others that put a model on a card
    share those where they fit, the hungriest first, each where fewest of its lane are and most
    room is; so the workers of one lane spread over several cards.

    Raises:
        ConfigurationError: a lane names a card that is not here, a model does not fit (tells the
            sum), nobody knows what it takes, or two servers would listen on one port.
    """
    check_ports(catalog)
    needs = needs or {}
    plan = Plan(hardware)
    wanted = [
        (name, number, lane, catalog.models[lane.model])
        for name, lane in catalog.lanes.items()
        for number in range(1, lane.workers + 1)
    ]
    # Lanes that name their card come first, so that those which do not fill what is left.
    for name, number, _, _ in sorted(
        wanted, key=lambda one: (one[2].gpu is None, -_hunger(needs.get(one[0])))
    ):
        plan = seated(plan, catalog, name, number, needs.get(name))
    order = {f"{name}-{number}": index for index, (name, number, _, _) in enumerate(wanted)}
    plan = replace(plan, seats=tuple(sorted(plan.seats, key=lambda seat: order[seat.worker])))
    check_memory(plan)
    return _with_threads(plan, catalog)


def seated(plan: Plan, catalog: Catalog, lane_name: str, number: int, need: Need | None) -> Plan:
    """The plan with one worker more.

    Raises:
        ConfigurationError: it does not fit.
    """
    lane = catalog.lanes[lane_name]
    model = catalog.models[lane.model]
    threads = (lane.threads or plan.hardware.cores) if model.backend in IN_PROCESS else 1
    server = _server(catalog, model)
    seat = Seat(
        lane_name, number, lane.model, Placement(threads=threads, hides_gpus=bool(plan.gpus)),
        need if server is not None or model.backend in IN_PROCESS else None, server=server,
    )  # fmt: skip
    if seat.server is not None and lane.gpu is None:
        return _with(plan, seat)
    if not _wants_card(model) and seat.server is None:
        return _with(plan, seat)
    if plan.hardware.gpus is None:  # the catalog's word stands, and CUDA has the last one
        known = None if lane.gpu is None or seat.server is not None else str(lane.gpu)
        return _with(plan, replace(seat, placement=replace(seat.placement, gpu=known)))
    if not plan.gpus:
        return _with(plan, seat)
    if seat.server is not None and any(s.server == seat.server and s.model == seat.model
                                       and s.card is not None for s in plan.seats):  # fmt: skip
        return _with(plan, replace(seat, need=None, note="served by the same server"))
    return _carded(plan, seat, lane, model)


def check_ports(catalog: Catalog) -> None:
    """Refuse two lanes whose servers of different models would listen on one port.

    Raises:
        ConfigurationError: names both lanes and the address.
    """
    taken: dict[str, tuple[str, str]] = {}
    for name, lane in catalog.lanes.items():
        address = _single_model_server(catalog, catalog.models[lane.model])
        if address is None:
            continue
        other, model = taken.setdefault(address, (name, lane.model))
        if model != lane.model:
            raise ConfigurationError(
                f"lanes.{other} ({model}) and lanes.{name} ({lane.model}) are both served at "
                f"{address}, and a llama-server there has one model: give one provider another port"
            )


def _carded(plan: Plan, seat: Seat, lane: Lane, model: Model) -> Plan:
    need = seat.need
    if need is None and seat.server is None:
        raise ConfigurationError(
            f"lanes.{seat.lane}: nobody knows what {seat.model} takes of a card: set its vram_mb "
            "(weights and cache, in MB), or its shape and weights_mb"
        )
    if lane.gpu is not None:
        return _pinned(plan, seat, lane.gpu)
    card = _roomiest(plan, seat.lane, need.total_mb if need is not None else 0)
    if card is not None:
        return _with(plan, _on_card(plan, seat, card))
    if lane.cpu_too:
        note = f"no card has {gb(_hunger(need))} GB left"
        return _with(plan, replace(seat, note=note))
    raise ConfigurationError(_fits_nowhere(plan, seat))


def _pinned(plan: Plan, seat: Seat, card: int) -> Plan:
    if card >= len(plan.gpus):
        raise ConfigurationError(
            f"lanes.{seat.lane}.gpu = {card}, but this machine shows {len(plan.gpus)} GPUs, "
            "counted from 0: choose one of them or leave gpu out"
        )
    if card in plan.lent:
        raise ConfigurationError(
            f"lanes.{seat.lane}.gpu = {card}, and GPU {card} is lent to other work: take it back "
            f"with `uptier fleet give-back {card}`"
        )
    found = _with(plan, _on_card(plan, seat, card))
    if found.room_mb(card) < 0:
        raise ConfigurationError(_overfull(found, card))
    return found


def _on_card(plan: Plan, seat: Seat, card: int) -> Seat:
    if seat.server is not None:
        return replace(seat, card=card)  # the server computes there; the worker sees no card
    return replace(seat, card=card, placement=replace(seat.placement, gpu=plan.gpus[card].name))


def _roomiest(plan: Plan, lane: str, need_mb: int) -> int | None:
    """The card with room for it where fewest of the lane are, then the one with most room."""
    cards = [c for c in range(len(plan.gpus))
             if c not in plan.lent and plan.room_mb(c) >= need_mb]  # fmt: skip
    if not cards:
        return None
    return min(cards, key=lambda c: (sum(s.lane == lane for s in plan.on(c)), -plan.room_mb(c), c))


def _overfull(plan: Plan, card: int) -> str:
    return (
        f"GPU {card} has {_memory_of(plan.gpus[card])}, but its workers need "
        f"{_terms(plan.on(card))} = {gb(plan.needed_mb(card))} GB: move a lane to another GPU, "
        "lower its workers or context, or choose a smaller model"
    )


def _fits_nowhere(plan: Plan, seat: Seat) -> str:
    lent = "".join(f"; GPU {card} is lent to other work" for card in sorted(plan.lent))
    free = [card for card in range(len(plan.gpus)) if card not in plan.lent]
    best = max(free, key=plan.room_mb, default=None)
    left = "no card is free"
    if best is not None:
        used = f", of which {_terms(plan.on(best))} is planned already" if plan.on(best) else ""
        left = f"the roomiest card, GPU {best}, has {_memory_of(plan.gpus[best])}{used}"
    return (
        f"lanes.{seat.lane}: worker {seat.worker} needs {_terms([seat])} = "
        f"{gb(_hunger(seat.need))} GB of a card, and {left}{lent}: choose a smaller model or "
        "context, lower its workers, or let it run on the CPU (cpu_too = true)"
    )


def _memory_of(gpu: Gpu) -> str:
    if gpu.memory_mb is None:
        return "memory that it does not tell"
    taken = f" less {gb(gpu.taken_mb)} GB in use by others" if gpu.taken_mb else ""
    return f"{gb(gpu.memory_mb)} GB{taken}"


def _terms(seats: Sequence[Seat]) -> str:
    return " + ".join(f"{s.worker} ({s.need})" for s in seats if s.need is not None)


def check_memory(plan: Plan) -> None:
    """Refuse models on the CPU that together exceed the machine's memory; tells the sum.

    Workers of one model share its weights, which are mapped from one file.

    Raises:
        ConfigurationError: names the models.
    """
    weights: dict[str, int] = {}
    caches = 0
    for seat in plan.seats:
        if seat.card is None and seat.placement.gpu is None and seat.need and not seat.server:
            weights[seat.model] = seat.need.weights_mb
            caches += seat.need.cache_mb or 0
    total, memory = sum(weights.values()) + caches, plan.hardware.memory_mb
    if memory is not None and total > memory:
        terms = " + ".join(f"{model} {gb(size)}" for model, size in weights.items())
        raise ConfigurationError(
            f"this machine has {gb(memory)} GB of memory, but its models need {terms} + caches "
            f"{gb(caches)} = {gb(total)} GB: choose smaller models or contexts"
        )


def _with_threads(plan: Plan, catalog: Catalog) -> Plan:
    """Cores for the models on the CPU: divided where each gets enough, else used in turns.

    Lanes that name their ``threads`` keep them; the rest is divided evenly, what is over to the
    first.
    """
    ours = [s for s in plan.seats if s.placement.gpu is None and s.server is None
            and _computes(catalog.models[s.model])]  # fmt: skip
    own = {s.worker: catalog.lanes[s.lane].threads for s in ours}
    left = plan.hardware.cores - sum(threads or 0 for threads in own.values())
    sharing = [worker for worker, threads in own.items() if threads is None]
    share, over = divmod(max(0, left), len(sharing)) if sharing else (0, 0)
    if len(ours) < 2 or left < 0 or (sharing and share < WORTH_SHARING):
        return plan
    threads = {w: t or share + (sharing.index(w) < over) for w, t in own.items()}
    return replace(plan, seats=tuple(
        replace(s, placement=replace(s.placement, threads=threads[s.worker], own_cores=True))
        if s.worker in threads else s for s in plan.seats
    ))  # fmt: skip


def _with(plan: Plan, seat: Seat) -> Plan:
    return replace(plan, seats=(*plan.seats, seat))


def _hunger(need: Need | None) -> int:
    return 0 if need is None else need.total_mb


def _wants_card(model: Model) -> bool:
    if model.backend is BackendName.SCRIPTED:  # nothing to load, unless a placement is rehearsed
        return model.vram_mb is not None
    return model.backend in IN_PROCESS and model.gpu_layers != 0


def _computes(model: Model) -> bool:
    return model.backend in IN_PROCESS and model.backend is not BackendName.SCRIPTED


def _server(catalog: Catalog, model: Model) -> str | None:
    """Where a server of this machine serves the model; ``None`` if none does."""
    if model.backend in IN_PROCESS or model.provider is None:
        return None
    url = catalog.providers[model.provider].base_url
    if url is None or urlsplit(url).hostname not in LOOPBACK:
        return None
    return urlsplit(url).netloc


def _single_model_server(catalog: Catalog, model: Model) -> str | None:
    """The address, where the server there can have one model only."""
    if model.provider is None:
        return None
    llama = catalog.providers[model.provider].dialect is Dialect.LLAMA_SERVER
    if model.backend is BackendName.LLAMA_SERVER or (model.backend is BackendName.OPENAI and llama):
        return _server(catalog, model)
    return None
