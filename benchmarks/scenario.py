"""The scenario: 50 agents over 130 days, 208,000 decisions, and what became of them.

``--scripted`` has models that answer at once and no cache: what queue and ledger alone carry.
``--compare N`` first lives N days with and without the cache, and compares how often the answers
are right by the simulation's rules.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from cli.output import bar, say
from cli.session import Session, session
from cli.simulate_watch import Watched
from config.load import load_catalog
from config.settings import Settings, load_settings
from ledger.reports import Report, report
from producers.simulation.run import Simulation, SimulationConfig
from producers.stepping import run_freely, run_in_step
from routing.decision import CacheScope

HERE = Path(__file__).parent
DOCUMENTS_S = 15 * 60
"""What the documents claim for all of it, with a cache, on an RTX 4080."""
DOCUMENTS_RATE = 1_390
"""Decisions a second that a simulated year of 100 agents in 10 minutes takes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Live the scenario and print what came of it."""
    options = _options(arguments)
    found: dict[str, Any] = {"machine": _machine()}
    if options.compare:
        found["compared"] = _compared(options)
    found["scenario"] = _lived(options, options.days, _scope(options))
    if options.json:
        print(json.dumps(found))
    print(_table(found, options))
    return 1 if found["scenario"]["unsettled"] else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--scripted", action="store_true")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--days", type=int, default=130)
    parser.add_argument("--teams", type=int, default=5)
    parser.add_argument("--order", choices=("step", "free"), default="free")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--compare", type=int, default=0, metavar="DAYS")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def _scope(options: argparse.Namespace) -> CacheScope:
    return CacheScope.OFF if options.scripted else CacheScope.RUN


def _compared(options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy of the same days with the cache and without it."""
    found = {}
    for scope in (CacheScope.RUN, CacheScope.OFF):
        say(f"{options.compare} days with cache: {scope.value}")
        lived = _lived(options, options.compare, scope)
        found[scope.value] = {key: lived[key] for key in ("seconds", "accuracy", "known")}
    return found


def _lived(options: argparse.Namespace, days: int, scope: CacheScope) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="uptier-scenario-") as folder:
        profile = str(HERE / "scripted_day.toml") if options.scripted else options.profile
        settings = load_settings(profile=profile, data_dir=Path(folder), log_level="WARNING")
        config = SimulationConfig(options.agents, days, options.seed, teams=options.teams)
        simulation = Simulation(config, settings.catalog)
        with session(settings, mode="simulate", seed=config.seed, cache=scope) as live:
            begun = time.perf_counter()
            _play(simulation, live, free=options.order == "free")
            seconds = time.perf_counter() - begun
            figures = report(live.engine, settings, load_catalog(settings.profile), live.run)
            return _figures(figures, seconds, settings)


def _play(simulation: Simulation, live: Session, *, free: bool) -> None:
    with bar() as progress:
        expected = simulation.expected_decisions
        watched = Watched(live.client, live.settings.catalog, expected, progress)
        if free:
            run_freely(simulation.teams, watched, lead=32)
        else:
            run_in_step(simulation, watched)


def _figures(figures: Report, seconds: float, settings: Settings) -> dict[str, Any]:
    families = _families(settings)
    return {
        "decisions": figures.decisions.total,
        "seconds": seconds,
        "decisions_per_second": figures.decisions.total / seconds,
        "by_status": figures.decisions.by_status,
        "by_tier": figures.decisions.by_tier,
        "attempts": {name: lane.attempts for name, lane in figures.lanes.items()},
        "unsettled": figures.unsettled,
        "empty": figures.empty,
        "accuracy": figures.accuracy.overall,
        "known": figures.accuracy.known,
        "from_cache": figures.cache_share,
        "cost_usd": figures.cost_usd,
        "all_cloud_cost_usd": figures.all_cloud_cost_usd,
        "memory_mb": {name: round(_rss(family), 1) for name, family in families.items()},
        "cpu_s": {name: round(_cpu(family), 1) for name, family in families.items()},
        "ledger_mb": _ledger_mb(settings),
    }


def _families(settings: Settings) -> dict[str, list[psutil.Process]]:
    """All processes by name; a pool's children count with their parent."""
    state = json.loads((settings.stack_dir / "stack.json").read_text())
    found = {"client": [psutil.Process()]}
    for worker in state["workers"]:
        with suppress(psutil.NoSuchProcess, TypeError):  # one that is being started again
            process = psutil.Process(worker["process"]["pid"])
            found[worker["name"]] = [process, *process.children(recursive=True)]
    return found


def _rss(family: Sequence[psutil.Process]) -> float:
    """Resident megabytes at the end."""
    return sum(p.memory_info().rss for p in family) / 2**20


def _cpu(family: Sequence[psutil.Process]) -> float:
    """Seconds of processor time since the start, loading included."""
    return float(sum(t.user + t.system for t in (p.cpu_times() for p in family)))


def _ledger_mb(settings: Settings) -> float:
    return round(sum(p.stat().st_size for p in settings.data_dir.glob("ledger.db*")) / 2**20, 1)


def _machine() -> str:
    return (f"{platform.machine()}, {psutil.cpu_count(logical=False)} cores, Python "
            f"{platform.python_version()}")  # fmt: skip


def _table(found: dict[str, Any], options: argparse.Namespace) -> str:
    one = found["scenario"]
    shares = ", ".join(f"{k} {v / one['decisions']:.1%}" for k, v in one["by_status"].items())
    tiers = ", ".join(f"{k} {v / one['decisions']:.1%}" for k, v in one["by_tier"].items())
    right = "-" if one["accuracy"] is None else f"{one['accuracy']:.1%} of {one['known']:,}"
    dear = one["all_cloud_cost_usd"]
    cloud = "not known" if dear is None else f"${dear:.2f}"
    profile = "scripted models" if options.scripted else f"profile {options.profile}"
    rows = [
        f"{found['machine']}; {options.agents} agents in {options.teams} teams, "
        f"{options.days} days, {profile}",
        f"decisions       {one['decisions']:,} in {one['seconds']:,.0f} s: "
        f"{one['decisions_per_second']:,.0f}/s",
        f"by status       {shares}",
        f"by tier         {tiers}",
        f"models asked    {', '.join(f'{k} {v:,} times' for k, v in one['attempts'].items())}",
        f"right by rules  {right}",
        f"cost            ${one['cost_usd']:.4f}; "
        f"all on the cloud {cloud}",
        f"not settled     {one['unsettled']}; empty answers {one['empty']}",
        "memory, MB      " + ", ".join(f"{k} {v}" for k, v in one["memory_mb"].items())
        + f"; ledger on disk {one['ledger_mb']}",
        "processor, s    " + ", ".join(f"{k} {v}" for k, v in one["cpu_s"].items()),
    ]  # fmt: skip
    if options.scripted:
        rows.append(f"the documents' year of 100 agents in 10 minutes: {DOCUMENTS_RATE:,}/s")
    else:
        rows.append(f"the documents' claim on an RTX 4080: {DOCUMENTS_S} s for 130 days")
    for scope, lived in found.get("compared", {}).items():
        right = "-" if lived["accuracy"] is None else f"{lived['accuracy']:.1%}"
        rows.append(
            f"cache {scope:<9} {right} right of {lived['known']:,}, {lived['seconds']:.0f} s"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
