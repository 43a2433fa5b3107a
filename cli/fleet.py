"""``uptier fleet``: where workers go, how they fare, and what an operator does to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.output import out, print_json
from cli.stack import progress
from config.settings import load_settings
from ledger.lanes import LaneView, WorkerView
from workers.fleet_control import carried_out, fleet_status
from workers.needs import gb
from workers.orders import Action, ask
from workers.plan_view import CardView, PlanView, SeatView, planned

app = typer.Typer(
    help="Where workers go, how they fare, and what you do to them.", no_args_is_help=True
)
WIDTH = 200
"""Characters of a line where the output is no terminal."""

Profile = Annotated[
    str | None, typer.Option(help="Profile, or the path of a .toml file.", metavar="NAME")
]
LaneName = Annotated[str, typer.Argument(help="A lane of the profile, or quality.")]
CardNumber = Annotated[int, typer.Argument(help="The card, counted from 0.", metavar="GPU")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def plan(
    profile: Profile = None,
    hardware: Annotated[
        Path | None,
        typer.Option(help="Plan for the hardware that this file describes.", metavar="FILE.toml"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell which card or cores each worker would get, and what each takes; start nothing."""
    found = planned(load_settings(profile=profile), hardware)
    if as_json:
        print_json(found.model_dump_json(indent=2))
        return
    out.print(f"profile {escape(found.profile)}; {_machine(found)}; sizes in GB")
    if found.cards:
        show(_card_table(found.cards))
    show(_seat_table(found.workers))
    for lane, reason in found.absent.items():
        out.print(f"absent {escape(lane)}: {escape(reason)}")


@app.command()
def status(profile: Profile = None, as_json: AsJson = False) -> None:
    """Tell which lanes serve, what waits on them, and how each worker fares, on all machines."""
    settings = load_settings(profile=profile)
    found = fleet_status(settings)
    if as_json:
        print_json(found.model_dump_json(indent=2))
        return
    show(_lane_table(found.lanes))
    if found.workers:
        show(_worker_table(found.workers))
    for card in found.lent_cards:
        out.print(
            f"GPU {card} is lent to other work; `uptier fleet give-back {card}` takes it back"
        )


@app.command()
def drain(lane: LaneName) -> None:
    """Take a lane out of service: what waits on it is answered, then its workers end."""
    _order(Action.DRAIN, lane=lane)


@app.command()
def scale(
    lane: LaneName, workers: Annotated[int, typer.Argument(help="How many it is to have.")]
) -> None:
    """Give a lane more workers or fewer; those that go finish what they have."""
    _order(Action.SCALE, lane=lane, number=workers)


@app.command()
def free(card: CardNumber) -> None:
    """Lend a card to other work: its workers finish what they have and go."""
    _order(Action.FREE, number=card)


@app.command("give-back")
def give_back(card: CardNumber) -> None:
    """Take a card back that was lent, and start its workers again."""
    _order(Action.GIVE_BACK, number=card)


@app.command()
def restart(lane: LaneName) -> None:
    """Start a lane's workers anew, one after another, and put the lane back into service."""
    _order(Action.RESTART, lane=lane)


def _order(action: Action, lane: str = "", number: int = 0) -> None:
    settings = load_settings()
    answer = ask(settings, action, lane, number)
    typer.echo(answer.text)
    with progress() as tell:
        carried_out(settings, answer, tell)
    if answer.leaving or answer.coming:
        typer.echo("done")


def show(table: Table) -> None:
    """A table, not squeezed into 80 columns where nobody looks at a terminal."""
    (out if out.is_terminal else Console(width=WIDTH, highlight=False)).print(table)


def _lane_table(lanes: tuple[LaneView, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("lane", "standing", "workers", "waiting", "oldest", "running", "reason"):
        table.add_column(heading)
    for lane in lanes:
        oldest = "-" if lane.oldest_s is None else f"{lane.oldest_s:.0f} s"
        table.add_row(
            lane.lane, "in service" if lane.standing is None else lane.standing.value,
            str(lane.workers_ready), str(lane.waiting), oldest, str(lane.running),
            escape(lane.reason),
        )  # fmt: skip
    return table


def _worker_table(workers: tuple[WorkerView, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("worker", "state", "pid", "restarts", "runs on", "supervisor", "started again"):
        table.add_column(heading)
    for one in workers:
        pid = "-" if one.pid is None else str(one.pid)
        table.add_row(
            one.name, one.state, pid, str(one.restarts), one.placement, escape(one.supervisor),
            escape(one.reason),
        )  # fmt: skip
    return table


def _machine(found: PlanView) -> str:
    memory = "" if found.memory_mb is None else f", {gb(found.memory_mb)} GB of memory"
    cards = f"{len(found.cards)} cards" if found.cards_known else "cards unknown (no NVML here)"
    return f"{found.cores} cores{memory}, {cards}"


def _card_table(cards: tuple[CardView, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("card", "product", "has", "others use", "planned", "to spare", "workers"):
        right = heading in ("has", "others use", "planned", "to spare")
        table.add_column(heading, justify="right" if right else "left")
    for card in cards:
        name = f"GPU {card.card}" + ("" if card.name == str(card.card) else f" ({card.name})")
        table.add_row(
            name, escape(card.product) or "-", _size(card.memory_mb), _size(card.taken_mb),
            _size(card.needed_mb), _size(card.spare_mb), ", ".join(card.workers) or "-",
        )  # fmt: skip
    return table


def _seat_table(seats: tuple[SeatView, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    sizes = ("weights", "cache", "CUDA", "work", "together")
    for heading in ("worker", "model", "runs on", *sizes, "note"):
        table.add_column(heading, justify="right" if heading in sizes else "left")
    for seat in seats:
        carded = seat.card is not None
        table.add_row(
            seat.worker, escape(seat.model), escape(seat.runs_on), _size(seat.weights_mb),
            _size(seat.cache_mb), _size(seat.context_mb if carded else None),
            _size(seat.workspace_mb if carded else None),
            _size(seat.total_mb if carded else _without_card(seat)), escape(_note(seat)),
        )  # fmt: skip
    return table


def _note(seat: SeatView) -> str:
    both = seat.weights_mb is not None and seat.cache_mb is None
    notes = (
        seat.note,
        "weights and cache as the catalog has them" if both else "",
        "cores of its own" if seat.own_cores else "",
    )
    return "; ".join(filter(None, notes))


def _without_card(seat: SeatView) -> int | None:
    return None if seat.weights_mb is None else seat.weights_mb + (seat.cache_mb or 0)


def _size(megabytes: int | None) -> str:
    return "-" if megabytes is None else gb(megabytes)
