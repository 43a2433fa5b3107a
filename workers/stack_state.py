"""What a stack leaves in its directory: its lock, and its state for other processes."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from config.errors import ConfigurationError
from config.settings import Settings
from workers.children import ProcessRecord


class Phase(StrEnum):
    """Where a stack is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class WorkerState(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    """It died and is to be started again."""
    STOPPING = "stopping"
    """It finishes its running messages and goes."""
    FAILED = "failed"
    """It is not started again."""


class WorkerRecord(BaseModel):
    """A worker as other processes see it."""

    model_config = ConfigDict(frozen=True)

    name: str
    lane: str
    state: WorkerState
    restarts: int
    process: ProcessRecord | None
    placement: str
    message: str | None = None
    """Why it died last."""


class StackState(BaseModel):
    """A stack as other processes see it. Holds the broker's password: mode 600."""

    model_config = ConfigDict(frozen=True)

    phase: Phase
    profile: str
    broker_url: str
    owner: ProcessRecord
    broker: ProcessRecord | None = None
    """The embedded server; absent beside an external broker."""
    broker_restarts: int = 0
    broker_message: str | None = None
    """Why the server was started again last."""
    workers: tuple[WorkerRecord, ...] = ()
    lent: tuple[int, ...] = ()
    """Cards that were given to other work, counted from 0."""
    failure: str | None = None

    def write(self, directory: Path) -> None:
        """Replace the state in ``directory`` at once and as a whole."""
        descriptor, name = tempfile.mkstemp(prefix="stack.", suffix=".tmp", dir=directory)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:  # mkstemp gives mode 600
            file.write(self.model_dump_json(indent=1))
        os.replace(name, state_path(directory))

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The state in ``directory``; ``None`` if there is none or it cannot be understood."""
        try:
            return cls.model_validate_json(state_path(directory).read_bytes())
        except (OSError, ValidationError):
            return None


class StackLock:
    """Held by the one process that owns the stack of a data directory.

    The system gives it up however that process ends.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock if nobody has it.

        Raises:
            ConfigurationError: the data directory cannot be written, or cannot lock.
        """
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    return False
                raise ConfigurationError(
                    f"{self.path} cannot be locked ({error.strerror}): set UPTIER_DATA_DIR to a "
                    "local disk"
                ) from None
            if _is_file(descriptor, self.path):
                self._descriptor = descriptor
                return True
            os.close(descriptor)  # the last holder removed the file in between

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be opened ({error.strerror}): correct its permissions, or "
                "set UPTIER_DATA_DIR to another directory"
            ) from None

    def release(self) -> None:
        """Remove the file and give up the lock."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def state_path(directory: Path) -> Path:
    """Where a stack's state lies."""
    return directory / "stack.json"


def remove_state(directory: Path) -> None:
    """Remove the state, and what a crash left half-written."""
    state_path(directory).unlink(missing_ok=True)
    for path in directory.glob("stack.*.tmp"):
        path.unlink(missing_ok=True)


def profile_key(profile: str) -> str:
    """A profile's name, or the absolute path of its file."""
    return str(Path(profile).absolute()) if profile.endswith(".toml") else profile


def serves_broker(state: StackState, settings: Settings) -> bool:
    """Whether the stack works on the broker that the settings name, if they name one."""
    return settings.broker_url is None or settings.broker_url == state.broker_url


def logs_directory(settings: Settings) -> Path:
    """Where the stack's processes write their logs."""
    return settings.stack_dir / "logs"


def prepare_directories(settings: Settings) -> None:
    """Make the stack's directories, readable by their owner only.

    Raises:
        ConfigurationError: the data directory cannot be written; names it and the mend.
    """
    stack = settings.stack_dir
    try:
        logs_directory(settings).mkdir(parents=True, exist_ok=True)
        stack.chmod(0o700)
        with tempfile.TemporaryFile(dir=stack):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"data directory {settings.data_dir} cannot be written ({error.strerror}): make it "
            "writable, or set UPTIER_DATA_DIR to a directory that is"
        ) from None


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        ours, there = os.fstat(descriptor), path.stat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
