"""Files that clients upload, and results of batches: on disk, each beside a note of what it is."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ValidationError

from config.errors import InputError, StackError
from config.files import written_whole
from ledger.outbox import new_id

log = logging.getLogger(__name__)

FILE_ID = re.compile(r"file-[0-9a-z]{1,40}(-(output|errors))?")
NOTE, DATA = ".json", ".data"
COPY_BYTES = 1 << 20
LONGEST_NAME = 200


class StoredFile(BaseModel):
    """What is known of a file; ``created_at`` is in seconds since 1970."""

    id: str
    owner: str
    """The name of the key that may see it; empty for none."""
    filename: str
    purpose: str
    bytes: int
    created_at: int


class Store:
    """A folder of files. A file is there once its note is, and it is whole then."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock

    def add(self, source: BinaryIO, *, owner: str, filename: str, purpose: str) -> StoredFile:
        """Keep an upload."""
        file_id = f"file-{new_id()}"
        with self._writing(file_id, DATA) as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
        return self._note(file_id, owner, filename, purpose)

    def write(
        self, file_id: str, lines: Iterable[bytes], *, owner: str, filename: str, purpose: str
    ) -> StoredFile:
        """Keep lines under an id that is known beforehand, in place of what was there."""
        with self._writing(file_id, DATA) as target:
            target.writelines(lines)
        return self._note(file_id, owner, filename, purpose)

    def find(self, file_id: str) -> StoredFile | None:
        """What is known of a file; ``None`` if there is none of that id."""
        if FILE_ID.fullmatch(file_id) is None:
            return None
        try:
            return StoredFile.model_validate_json(self._place(file_id, NOTE).read_bytes())
        except (OSError, ValidationError):
            return None

    def all(self) -> list[StoredFile]:
        """All files, the newest first."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        found = [self.find(name.removesuffix(NOTE)) for name in names if name.endswith(NOTE)]
        return sorted(filter(None, found), key=lambda f: (f.created_at, f.id), reverse=True)

    def data(self, file_id: str) -> Path:
        """Where the content of a file lies."""
        return self._place(file_id, DATA)

    def remove(self, file_id: str) -> None:
        """Forget a file."""
        for kind in (NOTE, DATA):  # without its note it is no file any more
            self._place(file_id, kind).unlink(missing_ok=True)

    def _place(self, file_id: str, kind: str) -> Path:
        return self._folder / f"{file_id}{kind}"

    @contextmanager
    def _writing(self, file_id: str, kind: str) -> Iterator[BinaryIO]:
        """A file that is there as a whole or not at all.

        Raises:
            StackError: the disk does not take it.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            with written_whole(self._place(file_id, kind)) as part, part.open("wb") as target:
                yield target
        except (OSError, InputError) as error:
            log.error("a file cannot be kept: %s", error)
            raise StackError("the gateway cannot keep files now; see its log") from None

    def _note(self, file_id: str, owner: str, filename: str, purpose: str) -> StoredFile:
        size = self.data(file_id).stat().st_size
        name = "".join(c for c in filename if c.isprintable())[-LONGEST_NAME:] or "file"
        note = StoredFile(id=file_id, owner=owner, filename=name, purpose=purpose, bytes=size,
                          created_at=int(self._clock()))  # fmt: skip
        with self._writing(file_id, NOTE) as target:
            target.write(note.model_dump_json().encode())
        return note
