"""Whether a pipeline may be run in a work directory, and where it begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from config.errors import InputError
from producers.pipeline.files import file_hash, hash_of
from producers.pipeline.inputs import gather_inputs
from producers.pipeline.plan import Loaded
from producers.pipeline.state import Condition, PipelineState, read_state
from producers.pipeline.steps import STEPS

LOCK = ".pipeline.lock"


@contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Keep other pipelines out of a work directory, which is made if it is not there.

    Raises:
        InputError: another one is at work in it, or it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(workdir / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another pipeline is at work in {workdir}: wait for it, or give another --workdir"
        ) from None
    except OSError as error:
        raise InputError(
            f"--workdir {workdir} cannot be written ({error.strerror}): choose another"
        ) from None
    try:
        yield
    finally:
        lock.release()


def found_state(
    loaded: Loaded, workdir: Path, profile: str, *, begin_from: int | None, resume: bool
) -> PipelineState | None:
    """The run that is to be gone on with; ``None`` where a new one begins.

    Raises:
        InputError: what is there forbids it; one line says what to do instead.
    """
    _refuse_to_write_over(loaded, workdir)
    state = read_state(workdir)
    if begin_from is not None:
        return _anew_from(begin_from, state, loaded, workdir, profile)
    if resume:
        if state is None:
            raise InputError(f"there is no pipeline to resume in {workdir}: run without --resume")
        _same_profile(state, profile)
        _same_config(state, loaded)
        return _resumable(state)
    if state is not None and state.condition in (Condition.RUNNING, Condition.WAITING,
                                                 Condition.FAILED):  # fmt: skip
        raise InputError(
            f"{workdir} has run {state.run}, which is {state.condition.value}: go on with "
            "--resume, begin anew with --from 1, or give another --workdir"
        )
    return None


def settle_step(state: PipelineState, workdir: Path, *, approve: bool) -> None:
    """A person's word on the step that waits, whose file must be the one that was written.

    Raises:
        InputError: none waits, or what would be approved is not what the step wrote.
    """
    step = state.settle(approve)
    if approve:
        unchanged(workdir / step.file, step.hash, step.number)


def check_inputs(loaded: Loaded, workdir: Path, state: PipelineState) -> None:
    """Read what the next step reads, before anything is started for it.

    Raises:
        InputError: something is missing, not what it was, or malformed.
    """
    step = state.next
    if step is not None:
        gather_inputs(loaded, loaded.config.steps[step.number - 1], workdir, state)


def config_hash(loaded: Loaded) -> str:
    """The hash of a config's file."""
    return hash_of(loaded.text)


def _anew_from(
    number: int, state: PipelineState | None, loaded: Loaded, workdir: Path, profile: str
) -> PipelineState | None:
    if not 1 <= number <= len(STEPS):
        raise InputError(f"--from {number} is no step: choose one from 1 to {len(STEPS)}")
    if state is None:
        if number == 1:
            return None
        raise InputError(
            f"--from {number} needs the files of the steps before it, and {workdir} has none: run "
            "without --from"
        )
    _same_profile(state, profile)
    for step, one in zip(state.steps, loaded.config.steps, strict=True):
        if step.number >= number:
            step.file = one.file
        elif step.file != one.file:
            raise InputError(
                f"step {step.number} wrote {step.file!r} and the config says {one.file!r}: begin "
                f"with --from {step.number}"
            )
    state.begin_from(number)
    for step in state.steps[: number - 1]:
        unchanged(workdir / step.file, step.hash, step.number)
    state.config, state.config_hash = str(loaded.path), config_hash(loaded)
    return state


def _refuse_to_write_over(loaded: Loaded, workdir: Path) -> None:
    """Where config and steps lie in one directory, no step may write what is read."""
    given = {loaded.config.data.file}
    given |= {one.file for step in loaded.config.steps for one in step.inputs or ()}
    given -= {step.file for step in loaded.config.steps} - {loaded.config.data.file}
    read = {loaded.path.resolve(), *((loaded.path.parent / name).resolve() for name in given)}
    for step in loaded.config.steps:
        if (workdir / step.file).resolve() in read:
            raise InputError(
                f"step {step.step.number} would write over {workdir / step.file}: give it another "
                "output, or another --workdir"
            )


def unchanged(path: Path, expected: str | None, number: int) -> None:
    """Hold a step's file to the hash it was written with.

    Raises:
        InputError: it is gone, or another one.
    """
    if not path.is_file():
        raise InputError(f"{path} is gone: write it anew with --from {number}")
    found = file_hash(path)
    if found != expected:
        raise InputError(
            f"{path} has {found}, but {expected} is expected: restore it, or write it anew with "
            f"--from {number}"
        )


def _resumable(state: PipelineState) -> PipelineState:
    if state.condition is Condition.REJECTED:
        step = state.next
        number = 1 if step is None else step.number
        raise InputError(
            f"step {number} of run {state.run} was rejected: go on with --from {number}, or from "
            "a step before it"
        )
    return state


def _same_profile(state: PipelineState, profile: str) -> None:
    if state.profile != profile:
        raise InputError(
            f"run {state.run} is of profile {state.profile!r}, not {profile!r}: go on with "
            f"--profile {state.profile}"
        )


def _same_config(state: PipelineState, loaded: Loaded) -> None:
    found = config_hash(loaded)
    if found != state.config_hash:
        raise InputError(
            f"{loaded.path} has {found}, and run {state.run} began with {state.config_hash}: "
            "restore it, or begin anew with --from N"
        )
