"""``uptier simulate``: simulated working days, decided end to end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from cli.output import bar, err, print_json, say
from cli.report import print_report
from cli.session import Session, session
from config.errors import InputError
from config.load import load_catalog
from config.settings import Settings, load_settings
from ledger.database import migrate, open_ledger
from ledger.reports import report
from ledger.runs import RunInfo, find_run
from producers.simulation.run import Simulation, SimulationConfig, run_simulation
from routing.decision import CacheScope, Decision, Settled

MODE = "simulate"


def simulate(
    agents: Annotated[int, typer.Option(min=1, max=5000, help="how many engineers")] = 50,
    days: Annotated[int, typer.Option(min=1, max=2000, help="working days of 32 ticks")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="all chance comes from it")] = 7,
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    resume: Annotated[bool, typer.Option(help="go on with the last unfinished simulation")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> int:
    """Let engineers work through simulated days, every decision answered by the tiers."""
    settings = load_settings(profile=profile)
    config: dict[str, Any] = {"agents": agents, "days": days, "seed": seed}
    old = _unfinished(settings) if resume else None
    if old is not None:
        config = old.config
    simulation = Simulation(SimulationConfig(**config), settings.catalog)
    with session(
        settings, mode=MODE, seed=config["seed"], config=config, run=old, cache=CacheScope.RUN
    ) as live:
        summary = _play(simulation, live)
        figures = report(live.engine, settings, load_catalog(settings.profile), live.run)
    outcome = json.loads(summary.to_json())
    if as_json:
        print_json(json.dumps(figures.model_dump() | {"simulation": outcome}, indent=2))
    else:
        print_report(figures)
        err.print("Simulated: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in outcome.items()
                                            if isinstance(v, int | float)))  # fmt: skip
    return 1 if figures.unsettled else 0


def _unfinished(settings: Settings) -> RunInfo:
    migrate(settings)
    engine = open_ledger(settings)
    run = find_run(engine, mode=MODE)
    engine.dispose()
    if run is None or run.finished_at is not None:
        raise InputError("there is no unfinished simulation to resume: start one without --resume")
    if run.profile != settings.profile:
        raise InputError(
            f"the unfinished simulation is of profile {run.profile!r}, not {settings.profile!r}: "
            f"resume it with --profile {run.profile}"
        )
    return run


class _Watched:
    """Passes decisions to the client and shows on a bar how they settle."""

    def __init__(self, live: Session, expected: int, progress: Any) -> None:
        self._live = live
        self._progress = progress
        self._expected = expected
        self._next_line = 1
        self._tiers: Counter[str] = Counter()
        self._task = progress.add_task("deciding", total=expected, detail="")

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        return self._live.client.gather(decisions, on_settled=self._show)

    def _show(self, settled: Sequence[Settled]) -> None:
        lanes = self._live.settings.catalog.lanes
        for one in settled:
            lane = lanes.get(one.lane or "")
            self._tiers[lane.tier if lane else "none"] += 1
        detail = " ".join(f"{tier} {count}" for tier, count in sorted(self._tiers.items()))
        self._progress.update(self._task, advance=len(settled), detail=detail)
        done = sum(self._tiers.values())
        if not err.is_terminal and done >= self._next_line:
            # A log shows no bar, so it gets a line for each twentieth of the way.
            self._next_line = done + self._expected // 20
            say(f"decided {done} of {self._expected}: {detail}")


def _play(simulation: Simulation, live: Session) -> Any:
    with bar() as progress:
        watched = _Watched(live, simulation.expected_decisions, progress)
        return run_simulation(simulation, watched)
