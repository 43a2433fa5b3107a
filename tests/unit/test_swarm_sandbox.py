"""No path gets out of the directory, whatever it is made of and whatever links lie in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from config.errors import InputError
from producers.swarm import sandbox
from producers.swarm.sandbox import Directory, Refused, fingerprint

SECRET = "outside"
NAMES = st.sampled_from(
    ["..", ".", "", "a", "b", "new", "up", "etc", "loop", "dangling", "gitlink", ".git", ".GIT",
     ".git.", "config", "inner", "file.txt", "~", "...", "..a", "a\\..\\..", "C:", "\u2024\u2024"]
)  # fmt: skip
PATHS = st.one_of(
    st.lists(NAMES, min_size=1, max_size=6).map("/".join),
    st.lists(NAMES, min_size=1, max_size=6).map(lambda names: "/" + "/".join(names)),
    st.text(max_size=30),
)
FEW = settings(
    max_examples=300, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory full of traps, beside which a secret lies."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file.txt").write_text(SECRET)
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text(SECRET)
    (root / "a" / "file.txt").write_text("inside")
    (root / "up").symlink_to("..")
    (root / "etc").symlink_to("/etc")
    (root / "a" / "b" / "inner").symlink_to("../../up")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("../planted")
    (root / "gitlink").symlink_to(".git")
    (root / "new").symlink_to("a")
    return_to = os.getcwd()
    yield root
    os.chdir(return_to)


def directory(root: Path) -> Directory:
    return Directory(root, file_bytes=1_000, files=50)


@FEW
@given(PATHS)
@example("up/secret")
@example("a/b/inner/secret")
@example("dangling")
@example("gitlink/config")
@example(".Git/config")
def test_no_path_reads_what_is_outside(root: Path, path: str) -> None:
    try:
        text = directory(root).text(path)
    except Refused:
        return
    assert text in ("inside", "planted")


@FEW
@given(PATHS)
@example("dangling")
@example("up/planted")
@example("etc/planted")
@example("gitlink/hooks")
def test_no_path_writes_outside(root: Path, path: str) -> None:
    before = everything_outside(root)
    try:
        directory(root).write(path, "planted")
    except Refused:
        pass
    else:
        assert directory(root).text(path) == "planted"
    assert everything_outside(root) == before


def everything_outside(root: Path) -> dict[str, str]:
    found = {}
    for folder, _, names in os.walk(root.parent):
        inside = Path(folder).is_relative_to(root) and not Path(folder).is_relative_to(
            root / ".git"
        )
        if not inside:
            found.update({str(Path(folder, n)): Path(folder, n).read_text() for n in names})
    return found


def test_links_within_the_directory_are_followed(root: Path) -> None:
    assert directory(root).text("new/file.txt") == "inside"
    assert directory(root).locate("new/file.txt") == ("a", "file.txt")


def test_a_link_that_appears_between_look_and_step_leads_nowhere(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = directory(root)
    real = Directory.locate

    def swapped(self: Directory, path: str) -> tuple[str, ...]:
        names = real(self, path)
        (root / "a" / "b" / "inner").unlink()
        (root / "a" / "b").rmdir()
        (root / "a" / "b").symlink_to(root.parent / "folder")
        return names

    monkeypatch.setattr(Directory, "locate", swapped)
    with pytest.raises(Refused, match="not below the working directory"):
        place.text("a/b/file.txt")


def test_a_folder_that_becomes_a_link_while_it_is_listed_is_not_entered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sandbox._is_skipped

    def swapped(name: str) -> bool:
        if name == "b":
            (root / "a" / "b" / "inner").unlink()
            (root / "a" / "b").rmdir()
            (root / "a" / "b").symlink_to(root.parent / "folder")
        return real(name)

    monkeypatch.setattr(sandbox, "_is_skipped", swapped)
    assert [one.path for one in directory(root).files()] == ["a/file.txt"]
    assert (root / "a" / "b" / "file.txt").exists()


def test_a_write_keeps_the_mode_and_breaks_hard_links(root: Path) -> None:
    script = root / "a" / "run.sh"
    script.write_text("old")
    script.chmod(0o755)
    os.link(script, root.parent / "twin")
    directory(root).write("a/run.sh", "new")
    assert (script.read_text(), script.stat().st_mode & 0o777) == ("new", 0o755)
    assert (root.parent / "twin").read_text() == "old"
    assert [p.name for p in (root / "a").iterdir() if p.name.endswith(".part")] == []


def test_folders_on_the_way_are_made(root: Path) -> None:
    directory(root).write("docs/how/to.md", "text")
    assert (root / "docs" / "how" / "to.md").read_text() == "text"


def test_what_is_no_regular_file_is_refused(root: Path) -> None:
    os.mkfifo(root / "pipe")
    place = directory(root)
    for path in ("pipe", "a"):
        with pytest.raises(Refused):
            place.read(path)
        with pytest.raises(Refused):
            place.write(path, "text")


def test_sizes_are_bounded(root: Path) -> None:
    (root / "large").write_text("x" * 1_001)
    (root / "binary").write_bytes(b"a\0b")
    place = directory(root)
    with pytest.raises(Refused, match="1001 bytes"):
        place.text("large")
    with pytest.raises(Refused, match="binary"):
        place.text("binary")
    with pytest.raises(Refused, match="more than the 1000"):
        place.write("a/file.txt", "x" * 1_001)
    assert place.text("a/file.txt") == "inside"


def test_lists_leave_out_links_and_what_programs_made(root: Path) -> None:
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "x.pyc").write_text("")
    found = directory(root).files()
    assert [one.path for one in found] == ["a/file.txt"]
    assert list(directory(root).folders(found)) == [".", "a"]
    for number in range(60):
        (root / f"{number}.txt").write_text("")
    assert len(directory(root).files()) == 50


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_root_that_is_no_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=name):
        Directory(tmp_path / name, file_bytes=1, files=1)


def test_a_file_that_is_not_there_has_a_fingerprint_of_its_own() -> None:
    assert fingerprint(None) == "absent"
    assert fingerprint(b"") != fingerprint(b"a")
