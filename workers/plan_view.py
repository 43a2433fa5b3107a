"""A placement as `uptier fleet plan` shows it, before anything starts."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from config.catalog import Catalog
from config.settings import Settings
from workers.gpus import Hardware, read_hardware, this_hardware
from workers.needs import lane_needs
from workers.placement import Plan, Seat, place
from workers.stack_state import StackState


class CardView(BaseModel):
    """A card; sizes in MB of 2**20 bytes, ``None`` where it does not tell its memory."""

    model_config = ConfigDict(frozen=True)

    card: int
    name: str
    product: str
    memory_mb: int | None
    taken_mb: int
    needed_mb: int
    spare_mb: int | None
    workers: tuple[str, ...]
    lent: bool = False


class SeatView(BaseModel):
    """A worker; sizes in MB, ``None`` where it loads nothing or nobody knows."""

    model_config = ConfigDict(frozen=True)

    worker: str
    lane: str
    model: str
    card: int | None
    runs_on: str
    threads: int
    own_cores: bool
    weights_mb: int | None
    cache_mb: int | None
    context_mb: int | None
    workspace_mb: int | None
    total_mb: int | None
    note: str


class PlanView(BaseModel):
    """A whole plan."""

    model_config = ConfigDict(frozen=True)

    profile: str
    cores: int
    memory_mb: int | None
    cards_known: bool
    """Whether anybody can tell which cards there are."""
    cards: tuple[CardView, ...]
    workers: tuple[SeatView, ...]
    absent: dict[str, str] = {}
    """Lanes of the profile that cannot be used here, with the reason."""


def planned(settings: Settings, described: Path | None = None) -> PlanView:
    """The placement of a profile on this machine, or on the hardware that a file describes.

    What the workers of the stack that runs here hold counts as free.

    Raises:
        ConfigurationError: something does not fit, or the file is wrong.
    """
    hardware = hardware_here(settings) if described is None else read_hardware(described)
    plan = place(settings.catalog, hardware, lane_needs(settings))
    absent = {lane.lane: lane.reason for lane in settings.absent_lanes}
    return plan_view(settings.catalog, plan, absent)


def hardware_here(settings: Settings) -> Hardware:
    """This machine's; what the workers of its stack hold counts as free, also of one that crashed:
    the next start ends them first."""
    state = StackState.read(settings.stack_dir)
    processes = [worker.process for worker in state.workers] if state is not None else []
    return this_hardware({one.pid for one in processes if one is not None and one.lingers()})


def plan_view(catalog: Catalog, plan: Plan, absent: dict[str, str]) -> PlanView:
    """A plan in figures."""
    return PlanView(
        profile=catalog.profile,
        cores=plan.hardware.cores,
        memory_mb=plan.hardware.memory_mb,
        cards_known=plan.hardware.gpus is not None,
        cards=tuple(_card(plan, card) for card in range(len(plan.gpus))),
        workers=tuple(map(_seat, plan.seats)),
        absent=absent,
    )


def _card(plan: Plan, card: int) -> CardView:
    gpu = plan.gpus[card]
    return CardView(
        card=card,
        name=gpu.name,
        product=gpu.product,
        memory_mb=gpu.memory_mb,
        taken_mb=gpu.taken_mb,
        needed_mb=plan.needed_mb(card),
        spare_mb=None if gpu.memory_mb is None else plan.room_mb(card),
        workers=tuple(seat.worker for seat in plan.on(card)),
        lent=card in plan.lent,
    )


def _seat(seat: Seat) -> SeatView:
    need = seat.need
    return SeatView(
        worker=seat.worker,
        lane=seat.lane,
        model=seat.model,
        card=seat.card,
        runs_on=_runs_on(seat),
        threads=seat.placement.threads,
        own_cores=seat.placement.own_cores,
        weights_mb=None if need is None else need.weights_mb,
        cache_mb=None if need is None else need.cache_mb,
        context_mb=None if need is None else need.context_mb,
        workspace_mb=None if need is None else need.workspace_mb,
        total_mb=None if need is None else need.total_mb,
        note=seat.note,
    )


def _runs_on(seat: Seat) -> str:
    if seat.server is not None:
        where = "" if seat.card is None else f", GPU {seat.card}"
        return f"server {seat.server}{where}"
    if seat.card is not None:
        return f"GPU {seat.card}"
    return str(seat.placement)
