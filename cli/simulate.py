"""``uptier simulate``: simulated working days, decided end to end or replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
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
from ledger.recorded import unfinished
from ledger.reports import Report, report
from ledger.runs import RunInfo, find_run, finish_run
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
        Order | None, typer.Option(help="teams in step, or each as far as it gets [step]")
    ] = None,
    lead: Annotated[
        int | None, typer.Option(min=0, help="ticks that a free team may be ahead [32]")
    ] = None,
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
    manner = {"order": order, "lead": lead, "replay": replay, "or_live": or_live or None}
    play = _play_of(settings, _said(given), _said(manner), resume=resume)
    with _open(play) as (engine, run, asker):
        _live(play, asker)
        if record is not None:
            write_recording(engine, run, play.config, record)
        figures = report(engine, settings, load_catalog(settings.profile), run)
    if state is not None:
        with written_whole(state, "--state") as part:
            part.write_text(play.simulation.state())
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


def _said(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _play_of(
    settings: Settings, given: dict[str, int], wished: dict[str, Any], *, resume: bool
) -> _Play:
    """What is to be lived: what is given, else as it was recorded, else as usual."""
    settings.catalog  # noqa: B018 - a broken profile must show before anything is written
    old = _unfinished(settings, [*given, *wished]) if resume else None
    manner = Manner(**wished) if old is None else _manner(old.config)
    if manner.or_live and manner.replay is None:
        raise InputError("--or-live has nothing to fall back from: give --replay RUN or FILE")
    recording = None if manner.replay is None else _recording(settings, manner.replay)
    if isinstance(recording, FileRecording):
        # Whoever resumes it may stand in another folder.
        manner = replace(manner, replay=str(Path(manner.replay or "").absolute()))
    known = old.config if old else recording.config if recording else {}
    config = {name: (SHAPE | dict(known) | given)[name] for name in SHAPE}
    for name, value in config.items():
        if type(value) is not int:
            raise InputError(f"{manner.replay} has {name} = {value!r}: record it again")
    shape = SimulationConfig(
        config["agents"], config["days"], config["seed"], teams=config["teams"]
    )
    simulation = Simulation(shape, settings.catalog)
    return _Play(settings, simulation, config, manner, recording, old)


def _manner(config: dict[str, Any]) -> Manner:
    kept = {name: value for name, value in config.items() if name not in SHAPE}
    return Manner(**kept | {"order": Order(kept.get("order", Order.STEP))})


def _unfinished(settings: Settings, options: Sequence[str]) -> RunInfo:
    """The latest simulation of the profile that was not lived to its end."""
    if options:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise InputError(f"--resume goes on with a simulation as it was: drop {names}")
    with _ledger(settings) as engine:
        own = unfinished(engine, MODE, settings.profile)
        other = own or unfinished(engine, MODE)
    if own is not None:
        return own
    if other is None:
        raise InputError("there is no unfinished simulation to resume: start one without --resume")
    raise InputError(
        f"the unfinished simulation is of profile {other.profile!r}, not {settings.profile!r}: "
        f"resume it with --profile {other.profile}"
    )


@contextmanager
def _ledger(settings: Settings) -> Iterator[Engine]:
    migrate(settings)
    engine = open_ledger(settings)
    try:
        yield engine
    finally:
        engine.dispose()


def _recording(settings: Settings, name: str) -> Recording:
    """A recording by its file, or by the id of a run."""
    if Path(name).is_file():
        return FileRecording(Path(name))
    with _ledger(settings) as engine:
        run = find_run(engine, name, mode=MODE)
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
            try:
                yield engine, run, _replayer(play, engine, run, None)
            except InputError:
                finish_run(engine, run.id, now())  # a miss stays one: there is nothing to resume
                raise
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
