"""Files of the gateway: whole or not there, whatever the disk does."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.errors import StackError
from producers.gateway.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "files", lambda: 7.0)


class Full(io.BytesIO):
    """An upload in whose midst the disk is full."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The first part, and then no more."""
        if self.tell():
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().read(3)


def test_a_file_comes_back_as_it_was_kept(store: Store) -> None:
    kept = store.add(io.BytesIO(b"{}\n"), owner="ann", filename="a\nb.jsonl", purpose="batch")
    assert store.find(kept.id) == kept
    assert (kept.filename, kept.bytes, kept.created_at) == ("ab.jsonl", 3, 7)
    assert store.data(kept.id).read_bytes() == b"{}\n"
    store.remove(kept.id)
    assert (store.find(kept.id), store.all()) == (None, [])


def test_of_an_upload_that_does_not_fit_nothing_is_left(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="cannot keep files"):
        store.add(Full(b"{}\n" * 9), owner="ann", filename="a.jsonl", purpose="batch")
    assert list((tmp_path / "files").iterdir()) == []


def test_results_that_cannot_be_written_leave_those_before_as_they_were(store: Store) -> None:
    def lines(*, breaks: bool) -> Iterator[bytes]:
        yield b"one\n"
        if breaks:
            raise RuntimeError("the ledger is gone")

    about = {"owner": "ann", "filename": "r.jsonl", "purpose": "batch_output"}
    store.write("file-r-output", lines(breaks=False), **about)
    with pytest.raises(RuntimeError):
        store.write("file-r-output", lines(breaks=True), **about)
    assert store.data("file-r-output").read_bytes() == b"one\n"
    assert [one.id for one in store.all()] == ["file-r-output"]
