"""Files between the steps: written whole or not at all, and known by their sha256."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.files import written_whole
from producers.pipeline.metadata import check_metadata
from producers.pipeline.plan import InputFile, read_json


@dataclass(frozen=True)
class Read:
    """A file that was read: ``name`` as the config has it, ``hash`` of what was there."""

    name: str
    hash: str
    required: bool
    content: Any

    @property
    def entry(self) -> dict[str, Any]:
        """As ``agent_metadata.inputs`` lists it."""
        return {"file": self.name, "hash": self.hash, "required": self.required}


def hash_of(content: bytes) -> str:
    """``sha256:`` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def file_hash(path: Path) -> str:
    """The hash of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return hash_of(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): correct the path") from None


def write_json(path: Path, value: Any) -> str:
    """Put a file in place at once, whatever happens meanwhile; its hash.

    Raises:
        InputError: it cannot be written.
    """
    content = (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    with written_whole(path) as unfinished, unfinished.open("wb") as new:
        new.write(content)
        new.flush()
        os.fsync(new.fileno())  # a machine that loses its power keeps the old file or the new one
    return hash_of(content)


def read_input(given: InputFile, path: Path, expected: str | None, mend: str) -> Read | None:
    """A file of the hash that the config gives or that was ``expected``; ``None`` if it is not
    there and need not be.

    Raises:
        InputError: it is missing, another one, or malformed.
    """
    if not path.is_file():
        if not given.required:
            return None
        raise InputError(f"input {given.file!r} is not at {path}: {mend}")
    found = file_hash(path)
    for wanted in (given.hash, expected):
        if wanted not in (None, found):
            raise InputError(f"{path} has {found}, but {wanted} is expected: {mend}")
    content = read_json(path) if path.suffix == ".json" else None
    return Read(given.file, found, given.required, content)


def check_step_file(content: Any, place: str) -> Mapping[str, Any]:
    """A step's file whose metadata hold to their schema.

    Raises:
        InputError: a key is missing, or something is not as the schema has it.
    """
    if not isinstance(content, dict):
        raise InputError(f"{place} must hold an object with result and agent_metadata: correct it")
    for key in ("run_id", "result", "agent_metadata"):
        if key not in content:
            raise InputError(f"{place} has no key {key!r}: add it, or run its step again")
    check_metadata(content["agent_metadata"], place)
    return content


def check_neighbours(step: Mapping[str, Any], file: Path) -> None:
    """Hold those inputs of a step's file that lie beside it to the hashes it read them by.

    Raises:
        InputError: one is not as it was.
    """
    for entry in step["agent_metadata"].get("inputs", ()):
        path = file.parent / entry["file"]
        if "hash" not in entry or not path.is_file():
            continue
        found = file_hash(path)
        if found != entry["hash"]:
            raise InputError(
                f"{path} has {found}, but {file} read {entry['hash']}: restore it, or run the "
                "step again"
            )
