"""Where Flower runs: one to a data directory, as other processes find it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from config.errors import ConfigurationError
from config.settings import Settings
from workers.children import ProcessRecord


class FlowerRecord(BaseModel):
    """A Flower that serves."""

    model_config = ConfigDict(frozen=True)

    url: str
    process: ProcessRecord

    @classmethod
    def read(cls, settings: Settings) -> Self | None:
        """The Flower of the data directory; ``None`` if none serves."""
        try:
            found = cls.model_validate_json(_record_path(settings).read_bytes())
        except (OSError, ValidationError):
            return None
        return found if found.process.alive() else None

    def write(self, settings: Settings) -> None:
        """Let others find it."""
        path = _record_path(settings)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(self.model_dump_json(), encoding="utf-8")
        os.replace(unfinished, path)


def flower_directory(settings: Settings) -> Path:
    """What Flower keeps: the tasks and workers that it has seen."""
    return settings.stack_dir / "flower"


@contextmanager
def only_one(settings: Settings) -> Iterator[Path]:
    """Hold Flower's directory, which two would spoil for one another.

    Raises:
        ConfigurationError: another process holds it; names where that one serves.
    """
    directory = flower_directory(settings)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(directory / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        found = FlowerRecord.read(settings)
        where = f" on {found.url} (process {found.process.pid})" if found is not None else ""
        raise ConfigurationError(
            f"Flower of {settings.data_dir} runs already{where}: look there, or end it first"
        ) from None
    try:
        yield directory
    finally:
        _record_path(settings).unlink(missing_ok=True)
        lock.release()


def _record_path(settings: Settings) -> Path:
    return flower_directory(settings) / "flower.json"
