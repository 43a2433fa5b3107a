"""Files that are there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import InputError
from config.files import written_whole


def test_a_file_is_there_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with written_whole(path) as unfinished:
        unfinished.write_text("all of it")
        assert not path.exists()
    assert path.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as unfinished:
        unfinished.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with written_whole(tmp_path / "link") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("name", ["/dev/null", "n" * 300, "no/such/folder/file"])
def test_where_no_file_can_be_is_one_line(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(InputError, match="--out .*name another") as caught,
        written_whole(tmp_path / name, "--out") as unfinished,
    ):
        unfinished.write_text("x")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
