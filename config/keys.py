"""Keys of providers: from the environment, or from a file that only its owner can read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from config import secrets
from config.errors import ConfigurationError

MOST_BYTES = 64 << 10
"""No file of keys is longer; what is was named by mistake."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OTHERS = stat.S_IRWXG | stat.S_IRWXO
HOLDS = "lines NAME=value"


def find_key(
    name: str, keys_file: Path | None, environ: Mapping[str, str] = os.environ
) -> str | None:
    """The key of that name from the environment, else from the file; ``None`` if in neither.

    The file is read anew each time and its keys never enter the environment, so that no child
    process inherits them.

    Raises:
        ConfigurationError: the file is missing, malformed, or open to other users.
    """
    found = environ.get(name, "").strip()
    if not found and keys_file is not None:
        found = read_keys(keys_file).get(name, "")
    secrets.remember(found)
    return found or None


def read_keys(path: Path) -> dict[str, str]:
    """The keys of a file of lines ``NAME=value``; empty lines and ``#`` comments are skipped.

    Raises:
        ConfigurationError: as for :func:`find_key`; the message never shows a line of the file.
    """
    keys = {}
    for number, line in enumerate(read_private(path, "UPTIER_KEYS_FILE", HOLDS).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not NAME.fullmatch(name):
            raise ConfigurationError(
                f"UPTIER_KEYS_FILE {path}: line {number} is not NAME=value; correct it"
            )
        keys[name] = value
    return keys


def read_private(path: Path, setting: str, holds: str) -> str:
    """The text of a file of keys that only its owner can read.

    ``setting`` is what named the file, ``holds`` what is to stand in it; both for the message.

    Raises:
        ConfigurationError: the file is missing, too long, no text, or open to other users.
    """
    place = f"{setting} {path}"
    try:
        # Without O_NONBLOCK a named pipe would keep us waiting for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            f"{place} cannot be read ({error.strerror}): correct the path, or run "
            f"`chmod 600 {path}` as its owner"
        ) from None
    try:
        # The open file is looked at, for the name may point to another one a moment later.
        _check(path, place, holds, os.fstat(descriptor))
        data = os.read(descriptor, MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MOST_BYTES:
        raise ConfigurationError(f"{place} has more than {MOST_BYTES} bytes: name a file of keys")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{place} is not UTF-8 text: write it as {holds}") from None


def _check(path: Path, place: str, holds: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"{place} is not a regular file: name a file of {holds}")
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"{place} belongs to user {found.st_uid}: keep the keys in a file of "
            f"your own, with `chmod 600 {path}`"
        )
    if found.st_mode & OTHERS:
        raise ConfigurationError(
            f"{place} has mode {stat.S_IMODE(found.st_mode):03o}, so others may "
            f"read it: run `chmod 600 {path}`"
        )
