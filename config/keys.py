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
KEY_ALONE = "one line, the key alone"
OWN_FILE = "_FILE"
"""Ends the variable that names a file of one key."""


def find_key(
    name: str, keys_file: Path | None, environ: Mapping[str, str] = os.environ
) -> str | None:
    """The key of that name; ``None`` if there is none.

    It is looked for in the environment, then in the file that the environment names under
    ``NAME_FILE``, which holds nothing else, then in the file of keys. Files are read anew each time
    and their keys never enter the environment, so that no child process inherits them.

    Raises:
        ConfigurationError: the file is missing, malformed, or open to other users.
    """
    found = environ.get(name, "").strip() or read_key(name, environ)
    if not found and keys_file is not None:
        found = read_keys(keys_file).get(name, "")
    secrets.remember(found)
    return found or None


def read_key(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """The key of the file that ``NAME_FILE`` names, as containers are given secrets; an empty file
    or no such variable is no key.

    Raises:
        ConfigurationError: the file is missing, or open to other users, or has several lines.
    """
    variable = name + OWN_FILE
    if not environ.get(variable):
        return ""
    path = Path(environ[variable]).expanduser()
    key = read_private(path, variable, KEY_ALONE).strip()
    if len(key.split()) > 1:
        raise ConfigurationError(f"{variable} {path} holds more than a key: write {KEY_ALONE}")
    return key


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
    allowed = stat.S_IRGRP if _is_handed_down(found) else 0
    if found.st_mode & OTHERS & ~allowed:
        raise ConfigurationError(
            f"{place} has mode {stat.S_IMODE(found.st_mode):03o}, so others may "
            f"read it: run `chmod 600 {path}`"
        )


def _is_handed_down(found: os.stat_result) -> bool:
    """Whether the file is root's and ours by our group: so Kubernetes mounts secrets."""
    ours = {os.getegid(), *os.getgroups()}
    return found.st_uid == 0 != os.geteuid() and found.st_gid in ours
