"""``uptier up``, ``down`` and ``status``: the stack of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.output import err, out, percent, print_json, say
from cli.report import budget_line
from config import logs
from config.errors import ConfigurationError
from config.flower import flower_login
from config.settings import Settings, load_settings
from ledger.certificates import CertificateState
from ledger.database import ledger_place
from ledger.lanes import LaneView
from ledger.policies import PolicyState
from ledger.providers import ProviderState
from workers.flower_place import FlowerRecord
from workers.stack_control import Down, start_detached, stay_up, stop_detached
from workers.stack_state import logs_directory
from workers.stack_status import Condition, StackStatus, stack_status

Profile = Annotated[
    str | None, typer.Option(help="Profile, or the path of a .toml file.", metavar="NAME")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Data directory of the stack.", metavar="DIRECTORY")
]

_DOWN = {
    Down.STOPPED: "the stack is stopped",
    Down.CLEANED: "nothing is running; what a crash had left is cleaned up",
    Down.NOTHING: "nothing is running",
}


def up(
    profile: Profile = None,
    data_dir: DataDir = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay attached until Ctrl-C or SIGTERM.")
    ] = False,
    flower: Annotated[
        bool, typer.Option("--flower", help="Run Flower beside the workers.")
    ] = False,
) -> None:
    """Start broker and workers, or workers alone for the broker that is set; leave them running."""
    settings = load_settings(profile=profile, data_dir=data_dir, flower=flower or None)
    if settings.flower:
        flower_login(settings)  # what is wrong is told before anything is started
    if foreground:
        logs.set_up(settings)
        if not stay_up(settings, say, lambda: _show_up(settings, "up; Ctrl-C stops it")):
            _require_flower(settings)
            typer.echo("it is up already, in another process")
        return
    with progress() as tell:
        _, ran_before = start_detached(settings, tell)
    _require_flower(settings)
    _show_up(settings, "already up" if ran_before else "up; `uptier down` stops it")


def down(data_dir: DataDir = None) -> None:
    """Stop the stack of the data directory, whoever started it."""
    settings = load_settings(data_dir=data_dir)
    with progress() as tell:
        outcome = stop_detached(settings, tell)
    typer.echo(_DOWN[outcome])


def status(
    profile: Profile = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell whether the stack is up, its queues, its workers and its ledger."""
    found = stack_status(load_settings(profile=profile, data_dir=data_dir))
    if as_json:
        print_json(found.model_dump_json(indent=2))
    else:
        _show_status(found)


def _require_flower(settings: Settings) -> None:
    if settings.flower and FlowerRecord.read(settings) is None:
        raise ConfigurationError(
            "the stack is up without Flower: run `uptier flower` beside it, or `uptier down` first"
        )


def _show_up(settings: Settings, headline: str) -> None:
    found = stack_status(settings)
    typer.echo(headline)
    for name, value in (
        ("profile", found.profile),
        ("broker", found.broker),
        ("ledger", ledger_place(settings)),
        ("lanes", ", ".join(settings.catalog.lanes)),
        ("logs", logs_directory(settings)),
        *_metrics_line(settings),
        *([("flower", found.flower)] if found.flower else []),
    ):
        typer.echo(f"  {name:<8}{value}")
    for absent in found.absent_lanes:
        typer.echo(f"  {'absent':<8}{absent.lane}: {absent.reason}")


def _metrics_line(settings: Settings) -> list[tuple[str, str]]:
    port, host = settings.metrics_port, settings.metrics_host
    return [] if port is None else [("metrics", f"http://{host}:{port}/metrics")]


def _show_status(found: StackStatus) -> None:
    reach = "" if found.broker_reachable or found.broker is None else " (does not answer)"
    decisions = found.decisions or {}
    rows = [
        ("stack", found.condition.value),
        ("profile", found.profile),
        ("broker", f"{found.broker or 'none'}{reach}"),
        ("ledger", found.ledger),
        ("logs", str(found.log_directory)),
        *([("flower", found.flower)] if found.flower else []),
        ("queues", ", ".join(f"{name} {n}" for name, n in (found.queues or {}).items()) or "-"),
        ("decisions", ", ".join(f"{name} {n}" for name, n in decisions.items()) or "none"),
    ]
    if found.condition is Condition.EXTERNAL:
        rows.append(("workers", "none of this machine; `uptier up` starts some"))
    if found.broker_restarts:
        rows.append(("broker", f"started again {found.broker_restarts} times: "
                     f"{found.broker_message}"))  # fmt: skip
    rows += [("lane", _lane_line(one)) for one in found.lanes if one.standing is not None]
    rows += [("lent", f"GPU {card}") for card in found.lent_cards]
    rows += [("provider", _provider_line(provider)) for provider in found.providers]
    rows += [("certified", _certificate_line(one)) for one in found.certificates]
    if found.policy is not None:
        rows.append(("policy", _policy_line(found.policy)))
    rows += [("budget", budget_line(use)) for use in found.budgets]
    rows += [("absent", f"{absent.lane}: {absent.reason}") for absent in found.absent_lanes]
    problems = (found.failure, found.broker_problem, found.ledger_problem)
    rows += [("problem", text) for text in problems if text]
    for name, value in rows:
        typer.echo(f"{name:<11}{value}")
    if found.workers:
        out.print(_worker_table(found))


def _lane_line(lane: LaneView) -> str:
    since = "" if lane.since_s is None else f" for {lane.since_s:.0f} s"
    return f"{lane.lane} is {lane.standing}{since}: {lane.reason}"


def _provider_line(provider: ProviderState) -> str:
    parts = [f"{provider.name}: breaker {provider.breaker}"]
    if provider.reopens_in_s is not None:
        parts.append(f"for another {provider.reopens_in_s:.0f} s")
    if provider.paused_for_s is not None:
        parts.append(f"asked to be spared for {provider.paused_for_s:.0f} s")
    if provider.reason:
        parts.append(f"({provider.failures} failures, the last: {provider.reason})")
    return " ".join(parts)


def _certificate_line(state: CertificateState) -> str:
    why = f": {state.reason}" if state.reason else ""
    return f"{state.kind} on {state.lane} {state.standing.value.replace('_', ' ')}{why}"


def _policy_line(state: PolicyState) -> str:
    why = f": {state.reason}" if state.reason else ""
    return f"learnt from run {state.run} {state.standing.value.replace('_', ' ')}{why}"


def _worker_table(found: StackStatus) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("worker", "state", "pid", "uptime", "restarts", "runs on", "tokens/s",
                    "prefix hits", "runs/waits", "died last"):  # fmt: skip
        table.add_column(heading)
    for worker in found.workers:
        uptime = "-" if worker.uptime_s is None else f"{worker.uptime_s:.0f} s"
        pid = "-" if worker.pid is None else str(worker.pid)
        table.add_row(
            worker.name, worker.state, pid, uptime, str(worker.restarts), worker.placement,
            *_figures(worker.figures), escape(worker.message or ""),
        )  # fmt: skip
    return table


def _figures(told: Mapping[str, float]) -> tuple[str, str, str]:
    """Of a worker whose backend counts: its speed, its luck, its load."""
    if not {"tokens_per_s", "prefix_hit_rate", "running", "waiting"} <= told.keys():
        return ("-", "-", "-")
    return (
        f"{told['tokens_per_s']:,.0f}",
        percent(told["prefix_hit_rate"]),
        f"{told['running']:.0f}/{told['waiting']:.0f}",
    )


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """What shows how far long work is, on standard error."""
    if not err.is_terminal:
        yield say
        return
    with err.status("looking at the stack") as spinner:
        yield lambda text: spinner.update(escape(text))
