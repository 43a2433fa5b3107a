"""``uptier pipeline``: run a pipeline's steps, see where it stands, say a person's word."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from cli.output import out, print_json, say
from cli.pipeline_report import as_json_text, print_state
from cli.session import Session, session
from config.errors import InputError, UptierError
from config.settings import Settings, load_settings
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.outbox import new_id
from ledger.runs import RunInfo, find_run, finish_run
from producers.asking import Asker
from producers.pipeline.beginning import (
    alone_in,
    check_inputs,
    config_hash,
    found_state,
    settle_step,
)
from producers.pipeline.caller import Caller
from producers.pipeline.files import check_neighbours, check_step_file
from producers.pipeline.plan import Loaded, load_config, read_json
from producers.pipeline.roster import Roster
from producers.pipeline.runner import Runner
from producers.pipeline.state import (
    Condition,
    PipelineState,
    Standing,
    StepState,
    new_state,
    read_state,
)
from producers.pipeline.steps import Role

MODE, SERVE_MODE = "pipeline", "pipeline_serve"
app = typer.Typer(
    help="Pipelines of two specialists: run, status, approve, reject, validate, serve.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Config = Annotated[Path, typer.Argument(help="a pipeline's .toml or .json file")]
Profile = Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")]
AsJson = Annotated[bool, typer.Option("--json", help="print everything as JSON")]


class _Stopped(UptierError):
    """The run stopped before its end, which is no failure of the stack."""


@app.command("run")
def run_command(
    config: Config,
    begin_from: Annotated[
        int | None, typer.Option("--from", help="begin anew with this step, 1 to 6")
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run in the work directory")] = False,
    approve: Annotated[bool, typer.Option(help="approve the step that waits, and go on")] = False,
    reject: Annotated[bool, typer.Option(help="reject the step that waits")] = False,
    workdir: Annotated[Path | None, typer.Option(help="where the steps' files lie")] = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> int:
    """Run the six steps, each as far as its confidence lets it go on by itself."""
    if sum((begin_from is not None, approve, reject)) > 1:
        raise InputError("--from, --approve and --reject exclude one another: give one of them")
    settings = load_settings(profile=profile)
    loaded = load_config(config)
    place = (workdir or settings.data_dir / "pipelines" / loaded.config.name).absolute()
    with alone_in(place):
        state = found_state(
            loaded, place, settings.profile, begin_from=begin_from,
            resume=resume or approve or reject,
        )  # fmt: skip
        if state is not None and (approve or reject):
            settle_step(state, place, approve=approve)
        state = _gone_on(settings, loaded, place, state)
    return _show(state, place, settings, as_json=as_json)


def _gone_on(
    settings: Settings, loaded: Loaded, workdir: Path, state: PipelineState | None
) -> PipelineState:
    """The state after as many steps as may be done; without a stack where there are none."""
    fresh = state or new_state(loaded, "", settings.profile, config_hash(loaded))
    check_inputs(loaded, workdir, fresh)
    step = fresh.next
    if state is not None and (step is None or step.standing is not Standing.OPEN):
        _keep(settings, workdir, state)
        return state
    try:
        with session(
            settings, mode=MODE, seed=loaded.config.seed, run=_old_run(settings, state),
            config={"config": str(loaded.path), "workdir": str(workdir)},
        ) as live:  # fmt: skip
            fresh.run = live.run.id
            fresh.write(workdir)
            _runner(live, loaded, workdir, fresh).run()
            if fresh.condition is not Condition.DONE:
                raise _Stopped  # a run that waits is not finished
    except _Stopped:
        pass
    return fresh


def _runner(live: Session, loaded: Loaded, workdir: Path, state: PipelineState) -> Runner:
    return Runner(
        loaded, workdir, state, asker=live.client, engine=live.engine,
        catalog=live.settings.catalog, absent=live.settings.absent_lanes, clock=now, tell=_tell,
    )  # fmt: skip


def _tell(step: StepState, word: str) -> None:
    head = f"step {step.number} of 6, {step.name}"
    if word == "begins":
        say(f"{head}: begins as {step.run_id}")
    else:
        say(f"{head}: confidence {step.confidence:.2f}, {step.gate}")


def _old_run(settings: Settings, state: PipelineState | None) -> RunInfo | None:
    if state is None:
        return None
    migrate(settings)
    engine = open_ledger(settings)
    try:
        found = find_run(engine, state.run)
    finally:
        engine.dispose()
    if found is None:
        raise InputError(
            f"run {state.run} is not in the ledger: set UPTIER_DATA_DIR or UPTIER_DATABASE_URL to "
            "the one it was begun with, or give another --workdir"
        )
    return found


@app.command("status")
def status_command(
    run: Annotated[str | None, typer.Argument(help="id of a run", metavar="[RUN]")] = None,
    as_json: AsJson = False,
) -> int:
    """Show where a pipeline stands: the latest, or that of an id."""
    settings = load_settings()
    workdir, state = _of_run(settings, run)
    _show(state, workdir, settings, as_json=as_json)
    return 0


@app.command("approve")
def approve_command(
    run: Annotated[str, typer.Argument(help="id of a run")], as_json: AsJson = False
) -> int:
    """Approve the step that waits; `run CONFIG --resume` goes on then."""
    return _say_word(run, approve=True, as_json=as_json)


@app.command("reject")
def reject_command(
    run: Annotated[str, typer.Argument(help="id of a run")], as_json: AsJson = False
) -> int:
    """Reject the step that waits; `run CONFIG --from N` tries again."""
    return _say_word(run, approve=False, as_json=as_json)


def _say_word(run: str, *, approve: bool, as_json: bool) -> int:
    settings = load_settings()
    workdir, _ = _of_run(settings, run)
    with alone_in(workdir):
        _, state = _of_run(settings, run)  # as it is now that nobody else writes it
        settle_step(state, workdir, approve=approve)
        _keep(settings, workdir, state)
    _show(state, workdir, settings, as_json=as_json)
    return 0


def _keep(settings: Settings, workdir: Path, state: PipelineState) -> None:
    """Write what a person's word made of a run, which may be its end."""
    state.write(workdir)
    if state.condition is Condition.DONE:
        engine = open_ledger(settings)
        finish_run(engine, state.run, now())
        engine.dispose()


def _of_run(settings: Settings, run: str | None) -> tuple[Path, PipelineState]:
    migrate(settings)
    engine = open_ledger(settings)
    try:
        found = find_run(engine, run, mode=MODE)
    finally:
        engine.dispose()
    if found is None:
        what = "there is no pipeline run" if run is None else f"pipeline run {run!r} is not"
        raise InputError(f"{what} in the ledger: check the id, or run one first")
    workdir = Path(found.config["workdir"])
    state = read_state(workdir)
    if state is None or state.run != found.id:
        raise InputError(
            f"run {found.id} has no state in {workdir} any more: another run began there, or the "
            "files are gone"
        )
    return workdir, state


@app.command("validate")
def validate_command(
    file: Annotated[Path, typer.Argument(help="a pipeline's config, or a step's file")],
    as_json: AsJson = False,
) -> int:
    """Hold a config, or a step's file with its metadata, to what they must be."""
    what = _validated(file)
    if as_json:
        print_json(as_json_text({"file": str(file), "valid": True, "is": what}))
    else:
        out.print(f"{file}: a valid {what}", markup=False)
    return 0


def _validated(file: Path) -> str:
    content = read_json(file) if file.suffix == ".json" else {"steps": ...}
    if isinstance(content, dict) and "steps" in content and "result" not in content:
        loaded = load_config(file)
        check_inputs(loaded, file.parent, new_state(loaded, "", "", config_hash(loaded)))
        return f"config of pipeline {loaded.config.name}"
    step = check_step_file(content, str(file))
    check_neighbours(step, file)
    return f"step file of run {step['run_id']}"


def _show(state: PipelineState, workdir: Path, settings: Settings, *, as_json: bool) -> int:
    print_state(state, workdir, settings, as_json=as_json)
    return 0 if state.condition is Condition.DONE else 1


@app.command("serve")
def serve_command(
    port_orchestrator: Annotated[
        int, typer.Option(min=0, max=65535, help="of the orchestrator; 0 takes a free one")
    ] = 8080,
    port_math: Annotated[
        int, typer.Option(min=0, max=65535, help="of the math specialist; 0 takes a free one")
    ] = 8081,
    profile: Profile = None,
) -> int:
    """Serve both specialists on loopback, each on a port, as llama-server does: /completion and
    /health."""
    # Its libraries would delay the start of every other command.
    from producers.pipeline.serving import bound, make_app, serve

    settings = load_settings(profile=profile)
    if port_orchestrator == port_math != 0:
        raise InputError(
            f"--port-orchestrator and --port-math are both {port_math}: give each its own"
        )
    ports = {Role.ORCHESTRATOR: port_orchestrator, Role.MATH: port_math}
    with ExitStack() as undo:
        sockets = {
            role: undo.enter_context(bound(role, port, settings.catalog))
            for role, port in ports.items()
        }
        live = undo.enter_context(session(settings, mode=SERVE_MODE))
        catalog, absent = settings.catalog, settings.absent_lanes
        roster = Roster(live.engine, catalog, absent, now)

        def new_caller(asker: Asker) -> Caller:
            return Caller(
                asker, live.engine, catalog, absent=absent, prefix=f"{new_id()}.",
                roster=roster,
            )  # fmt: skip

        def ready() -> None:
            for role, one in sockets.items():
                desk = roster.desks[role]
                out.print(
                    f"{role.value:<13}http://127.0.0.1:{one.getsockname()[1]}/completion "
                    f"({desk.model} on {desk.lane})"
                )

        roles = {one.getsockname()[1]: role for role, one in sockets.items()}
        serve(make_app(roles, roster, live.client, new_caller), list(sockets.values()), ready)
    return 0
