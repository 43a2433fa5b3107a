"""``uptier daemon``: works on a directory towards an objective, one decided action at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout
from rich.markup import escape
from sqlalchemy import Engine

from cli.chat_screen import printable
from cli.daemon_report import print_status
from cli.output import print_json, say
from cli.report import budget_line
from cli.session import Session, session
from config.errors import InputError
from config.load import load_catalog
from config.settings import Settings, load_settings
from ledger import swarm
from ledger.approvals import Standing, approvals
from ledger.budgets import usage
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.records import storable
from ledger.runs import RunInfo, finish_run, start_run
from ledger.swarm import CHILD_MODE, MODE, State, Step
from producers.asking import Asker
from producers.swarm.actions import allowed_actions
from producers.swarm.daemon import Daemon, Ending
from producers.swarm.house import House, Watch
from producers.swarm.pace import Pace
from producers.swarm.questions import Order
from producers.swarm.sample import make_sample, refuse_occupied
from producers.swarm.sandbox import existing
from producers.swarm.summary import DaemonStatus, daemon_status, details, one_line
from routing.decision import Privacy

KILL_FILE = "daemon.kill"
MAX_OBJECTIVE_CHARS = 2_000


def daemon(
    objective: Annotated[str | None, typer.Option(help="what to work towards")] = None,
    workdir: Annotated[Path | None, typer.Option(help="the directory it works on")] = None,
    max_iterations: Annotated[
        int | None, typer.Option(help="20, unless it is given; with --resume the new total")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="tell how the last one stands")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="tell outputs as well")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the last one")] = False,
    iterations_per_hour: Annotated[int | None, typer.Option(help="at most so many")] = None,
    actions: Annotated[str | None, typer.Option(help="only these, separated by commas")] = None,
    privacy: Annotated[
        Privacy, typer.Option(help="high and maximum never leave the machine")
    ] = Privacy.LOW,
    prefer_local: Annotated[
        bool, typer.Option(help="local models where the routing lets them")
    ] = True,
    wait: Annotated[
        bool, typer.Option("--wait", help="wait for approvals instead of going on without")
    ] = False,
    sample: Annotated[
        bool, typer.Option("--sample", help="first make a small project in --workdir")
    ] = False,
    kill_file: Annotated[
        Path | None, typer.Option(help="stops it; DATA_DIR/daemon.kill if absent")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="for the wording of texts")] = 7,
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> int:
    """Work on a directory towards an objective, every step decided by the tiers."""
    settings = load_settings(profile=profile)
    stops = kill_file or settings.data_dir / KILL_FILE
    if status:
        return _show(_last_status(settings, stops), as_json)
    if iterations_per_hour is not None and iterations_per_hour < 1:
        raise InputError(f"--iterations-per-hour {iterations_per_hour}: at least 1 is needed")
    if max_iterations is not None and max_iterations < 1:
        raise InputError(f"--max-iterations {max_iterations}: at least 1 is needed")
    old = _unfinished(settings, objective, workdir, max_iterations) if resume else None
    if old is not None:
        if actions is not None or sample:
            raise InputError("--resume goes on with what it had: drop --actions and --sample")
        order = Order.of(old.config)
        existing(Path(order.workdir))
    else:
        names = tuple(name.strip() for name in (actions or "").split(",") if name.strip())
        order = Order(
            objective=_objective(objective), workdir=str(_workdir(workdir, sample)),
            max_iterations=max_iterations or 20, actions=names, privacy=privacy,
            prefer_local=prefer_local, seed=seed,
        )  # fmt: skip
    least = Privacy(settings.catalog.swarm.privacy)
    order = replace(order, privacy=order.privacy.at_least(privacy).at_least(least))
    allowed_actions(settings.catalog, order.actions)
    _refuse_own_house(settings, Path(order.workdir))
    if old is not None:
        old = replace(old, config={**old.config, **order.config()})
    pace = Pace(iterations_per_hour, stops, now, time.sleep)
    with (
        _alone(settings, order),
        session(settings, mode=MODE, seed=order.seed, config=order.config(), run=old) as live,
    ):
        if old is not None:  # only now does nobody else work on it
            swarm.update_config(live.engine, old, old.config)
        if sample:
            make_sample(Path(order.workdir))
        ending = _work(live, order, pace, verbose=verbose, waits=wait)
        found = daemon_status(live.engine, settings, load_catalog(settings.profile), live.run,
                              stops, ending.value)  # fmt: skip
    return _show(found, as_json)


def _work(live: Session, order: Order, pace: Pace, *, verbose: bool, waits: bool) -> Ending:
    catalog, told = live.settings.catalog, set[str]()

    def on_step(step: Step) -> None:
        say(escape(printable(one_line(step))))
        if verbose:
            say(escape(printable(details(step))))
        if step.state is State.WAITING:
            say(f"   `uptier approvals approve {step.approval_id}` lets it happen")

    def alert() -> None:
        for line in alerts(live.engine, live.run.id, catalog.cloud_budget.alert_share, told):
            say(line)

    @contextmanager
    def hire(child: Order) -> Iterator[tuple[RunInfo, Asker]]:
        run = start_run(
            live.engine, mode=CHILD_MODE, profile=live.run.profile, now=now(), seed=child.seed,
            config=child.config(), absent=live.run.absent,
        )  # fmt: skip
        with live.client.beside(run) as asker:
            yield run, asker
        finish_run(live.engine, run.id, now())

    house = House(catalog, live.engine, now, pace, hire, Watch(on_step, say, alert), waits)
    return Daemon(order, live.run, live.client, house).work()


def alerts(engine: Engine, run_id: str, share: float, told: set[str]) -> list[str]:
    """A line for each budget that has come to that share of its limit since it was last asked;
    ``told`` are the scopes of those that were told before, and of these then."""
    news = [use for use in usage(engine, run_id, share, now()) if use.alert]
    news = [use for use in news if use.scope not in told]
    told.update(use.scope for use in news)
    return [f"budget {budget_line(use)}" for use in news]


def _show(found: DaemonStatus, as_json: bool) -> int:
    if as_json:
        print_json(found.model_dump_json(indent=2))
    else:
        print_status(found)
    return 1 if found.ending is not None and found.report.unsettled else 0


def _last_status(settings: Settings, kill_file: Path) -> DaemonStatus:
    migrate(settings)
    engine = open_ledger(settings)
    try:
        run = swarm.find_daemon(engine)
        if run is None:
            raise InputError("no daemon has run on this ledger: start one with --objective")
        return daemon_status(engine, settings, load_catalog(run.profile), run, kill_file)
    finally:
        engine.dispose()


def _objective(given: str | None) -> str:
    text = (given or "").strip()
    if not text:
        raise InputError("--objective is empty: say what the daemon is to work towards")
    if len(text) > MAX_OBJECTIVE_CHARS or storable(text) != text:
        raise InputError(
            f"--objective of {len(text)} characters: at most {MAX_OBJECTIVE_CHARS} are read, all "
            "of them UTF-8 and none NUL: correct it"
        )
    return text


def _workdir(given: Path | None, sample: bool) -> Path:
    if given is None:
        raise InputError("--workdir is missing: name the directory that the daemon works on")
    if sample:
        refuse_occupied(given)  # it is made once everything is known to work
        return given.resolve()
    return existing(given)


def _refuse_own_house(settings: Settings, workdir: Path) -> None:
    """What Uptier runs by is nothing that models may read and edit."""
    if settings.data_dir.resolve().is_relative_to(workdir):
        raise InputError(
            f"--workdir {workdir} holds Uptier's own data directory {settings.data_dir}: name "
            "another, or set UPTIER_DATA_DIR to one outside of it"
        )


def _unfinished(
    settings: Settings, objective: str | None, workdir: Path | None, max_iterations: int | None
) -> RunInfo:
    """The last daemon's run, if something is left to do in it; with the new total of iterations."""
    if objective is not None or workdir is not None:
        raise InputError("--resume goes on with the last daemon as it was: drop --objective and "
                         "--workdir")  # fmt: skip
    migrate(settings)
    engine = open_ledger(settings)
    try:
        run = swarm.find_daemon(engine)
        if run is None:
            raise InputError("there is no daemon to resume: start one with --objective")
        if run.profile != settings.profile:
            raise InputError(
                f"the last daemon is of profile {run.profile!r}, not {settings.profile!r}: resume "
                f"it with --profile {run.profile}"
            )
        if max_iterations is not None:
            run = replace(run, config={**run.config, "max_iterations": max_iterations})
        _refuse_finished(engine, run)
        return run
    finally:
        engine.dispose()


def _refuse_finished(engine: Engine, run: RunInfo) -> None:
    most, steps = run.config["max_iterations"], swarm.steps(engine, run.id)
    open_ones = any(step.state is State.INTENT for step in steps)
    if open_ones or len(steps) < most:
        return
    if not approvals(engine, run_id=run.id, states=(Standing.APPROVED,)):
        raise InputError(
            f"the last daemon has done its {most} iterations and nothing approved waits: raise "
            "--max-iterations, or start one without --resume"
        )


@contextmanager
def _alone(settings: Settings, order: Order) -> Iterator[None]:
    """Two daemons on one directory would edit under each other's hands."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(order.workdir.encode()).hexdigest()[:16]
    lock = FileLock(settings.data_dir / f"daemon-{name}.lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise InputError(
            f"another daemon works on {order.workdir}: wait for it, or stop it with the kill file"
        ) from None
