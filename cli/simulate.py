"""``uptier simulate``: simulated working days, decided end to end or replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from cli.output import bar, err, print_json
from cli.report import print_report
from cli.session import ledger_session, session
from cli.simulate_watch import Watched
from config.errors import InputError
from config.files import written_whole
from config.load import load_catalog
from config.settings import Settings, load_settings
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.reports import Report, report
from ledger.runs import RunInfo, find_run
from producers.asking import Settling
from producers.recording import FileRecording, Recording, Replayer, RunRecording, write_recording
from producers.simulation.run import Simulation, SimulationConfig
from producers.stepping import run_freely, run_in_step
from routing.decision import CacheScope

MODE = "simulate"
SHAPE = {"agents": 50, "days": 1, "seed": 7, "teams": 1}
"""What makes a simulation the one it is, and what it is unless somebody says otherwise."""


class Order(StrEnum):
    """Who may go on when."""

    STEP = "step"
    FREE = "free"


@dataclass(frozen=True)
class Manner:
    """How a simulation is gone through; kept with the run, so that it is resumed alike."""

    order: Order = Order.STEP
    lead: int = 32
    replay: str | None = None
    or_live: bool = False


def simulate(
    agents: Annotated[int | None, typer.Option(min=1, max=5000, help="engineers [50]")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=2000, help="days of 32 ticks [1]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="all chance comes from it [7]")] = None,
    teams: Annotated[int | None, typer.Option(min=1, help="that never meet [1]")] = None,
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    order: Annotated[
        Order, typer.Option(help="teams in step, or each as far as it gets")
    ] = Order.STEP,
    lead: Annotated[int, typer.Option(min=0, help="ticks that a free team may be ahead")] = 32,
    replay: Annotated[str | None, typer.Option(help="answer from this run or recording")] = None,
    or_live: Annotated[bool, typer.Option("--or-live", help="ask what is not recorded")] = False,
    record: Annotated[Path | None, typer.Option(help="write the answers to this file")] = None,
    state: Annotated[Path | None, typer.Option(help="write the final state to this file")] = None,
    resume: Annotated[bool, typer.Option(help="go on with the last unfinished simulation")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> int:
    """Let engineers work through simulated days, every decision answered by the tiers."""
    settings = load_settings(profile=profile)
    for option, path in (("--record", record), ("--state", state)):
        _must_be_writable(option, path)
    given = {"agents": agents, "days": days, "seed": seed, "teams": teams}
    play = _play_of(settings, given, Manner(order, lead, replay, or_live), resume=resume)
    with _open(play) as (engine, run, asker):
        _live(play, asker)
        if record is not None:
            write_recording(engine, run, play.config, record)
        figures = report(engine, settings, load_catalog(settings.profile), run)
    if state is not None:
        with written_whole(state, "--state") as unfinished:
            unfinished.write_text(play.simulation.state())
    _show(figures, play.simulation, as_json=as_json)
    return 1 if figures.unsettled else 0


@dataclass(frozen=True)
class _Play:
    settings: Settings
    simulation: Simulation
    config: dict[str, int]
    manner: Manner
    recording: Recording | None
    run: RunInfo | None


def _play_of(
    settings: Settings, given: dict[str, int | None], manner: Manner, *, resume: bool
) -> _Play:
    """What is to be lived: what is given, else as it was recorded, else as usual."""
    settings.catalog  # noqa: B018 - a broken profile must show before anything is written
    old = _unfinished(settings) if resume else None
    if old is not None:
        manner = _manner(old.config)
        given = {}
    if manner.or_live and manner.replay is None:
        raise InputError("--or-live has nothing to fall back from: give --replay RUN or FILE")
    recording = None if manner.replay is None else _recording(settings, manner.replay)
    known = old.config if old else recording.config if recording else {}
    said = {name: value for name, value in given.items() if value is not None}
    config = {name: int((SHAPE | dict(known) | said)[name]) for name in SHAPE}
    shape = SimulationConfig(
        config["agents"], config["days"], config["seed"], teams=config["teams"]
    )
    simulation = Simulation(shape, settings.catalog)
    return _Play(settings, simulation, config, manner, recording, old)


def _manner(config: dict[str, Any]) -> Manner:
    kept = {name: value for name, value in config.items() if name not in SHAPE}
    return Manner(**kept | {"order": Order(kept.get("order", Order.STEP))})


def _unfinished(settings: Settings) -> RunInfo:
    run = _run(settings, None)
    if run is None or run.finished_at is not None:
        raise InputError("there is no unfinished simulation to resume: start one without --resume")
    if run.profile != settings.profile:
        raise InputError(
            f"the unfinished simulation is of profile {run.profile!r}, not {settings.profile!r}: "
            f"resume it with --profile {run.profile}"
        )
    return run


def _run(settings: Settings, run_id: str | None) -> RunInfo | None:
    migrate(settings)
    engine = open_ledger(settings)
    try:
        return find_run(engine, run_id, mode=MODE)
    finally:
        engine.dispose()


def _recording(settings: Settings, name: str) -> Recording:
    """A recording by its file, or by the id of a run."""
    if Path(name).is_file():
        return FileRecording(Path(name))
    run = _run(settings, name)
    if run is None:
        raise InputError(f"--replay {name!r} is neither a file nor a simulation's run: check it")
    return RunRecording(open_ledger(settings), run)


def _must_be_writable(option: str, path: Path | None) -> None:
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InputError(f"{option} {path}: name a file in a folder that is there")


@contextmanager
def _open(play: _Play) -> Iterator[tuple[Engine, RunInfo, Settling]]:
    """Ledger, run and whoever answers: the stack, unless all answers are recorded."""
    known: dict[str, Any] = {
        "mode": MODE, "seed": play.config["seed"], "config": play.config | asdict(play.manner),
        "run": play.run,
    }  # fmt: skip
    if play.recording is not None and not play.manner.or_live:
        with closing(play.recording), ledger_session(play.settings, **known) as (engine, run):
            yield engine, run, _replayer(play, engine, run, None)
        return
    held = nullcontext() if play.recording is None else closing(play.recording)
    with held, session(play.settings, cache=CacheScope.RUN, **known) as live:
        asker: Settling = live.client
        if play.recording is not None:
            asker = _replayer(play, live.engine, live.run, live.client)
        yield live.engine, live.run, asker


def _replayer(play: _Play, engine: Engine, run: RunInfo, live: Settling | None) -> Replayer:
    assert play.recording is not None
    return Replayer(
        play.recording, engine=engine, run=run, catalog=play.settings.catalog, clock=now, live=live
    )


def _live(play: _Play, asker: Settling) -> None:
    simulation = play.simulation
    with bar() as progress:
        watched = Watched(asker, play.settings.catalog, simulation.expected_decisions, progress)
        if play.manner.order is Order.FREE:
            run_freely(simulation.teams, watched, lead=play.manner.lead)
        else:
            run_in_step(simulation, watched)


def _show(figures: Report, simulation: Simulation, *, as_json: bool) -> None:
    outcome = json.loads(simulation.summary().to_json())
    if as_json:
        print_json(json.dumps(figures.model_dump() | {"simulation": outcome}, indent=2))
        return
    print_report(figures)
    err.print("Simulated: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in outcome.items()
                                        if isinstance(v, int | float)))  # fmt: skip
    err.print(f"Final state: {outcome['state']}", markup=False)
