"""What a person may type in a session: requests, and commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from config.errors import InputError

COMMANDS = {
    "privacy": "LEVEL: low, medium, high or maximum; the last two never leave the machine",
    "preset": "NAME, or none",
    "adapter": "NAME, or none",
    "max-cost": "USD for one request, or none",
    "cost": "what the session has cost",
    "history": "what was asked",
    "help": "these lines",
    "quit": "end the session",
}
PLAIN = frozenset({"cost", "history", "help", "quit"})
"""Commands that take nothing."""


@dataclass(frozen=True)
class Line:
    """A request, or a command with its argument."""

    command: str | None
    text: str


def parsed(line: str) -> Line | None:
    """A line as it is meant; ``None`` for one without anything. Two slashes begin a request.

    Raises:
        InputError: there is no such command, or it lacks its argument.
    """
    text = line.strip()
    if not text:
        return None
    if not text.startswith("/") or text.startswith("//"):
        return Line(None, text.removeprefix("/"))
    name, _, argument = text[1:].partition(" ")
    argument = argument.strip()
    if name not in COMMANDS:
        known = ", ".join(f"/{one}" for one in COMMANDS)
        raise InputError(f"unknown command '/{name}': choose one of {known}")
    if name in PLAIN and argument:
        raise InputError(f"/{name} takes nothing (got {argument!r}): leave it out")
    if name not in PLAIN and not argument:
        raise InputError(f"/{name} needs {COMMANDS[name]}")
    return Line(name, argument)


def read_script(path: Path) -> list[Line]:
    """The lines of a file, less those that begin with ``#``.

    Raises:
        InputError: it cannot be read, one of its lines is wrong, or it asks nothing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--script {path}: {error}; give a file with a request a line") from None
    lines = list(_lines(text.splitlines(), path))
    if not any(line.command is None for line in lines):
        raise InputError(f"--script {path} asks nothing: give a file with a request a line")
    return lines


def _lines(texts: Iterable[str], path: Path) -> Iterable[Line]:
    for number, text in enumerate(texts, start=1):
        if text.lstrip().startswith("#"):
            continue
        try:
            line = parsed(text)
        except InputError as error:
            raise InputError(f"--script {path}, line {number}: {error}") from None
        if line is not None:
            yield line


def wish_of(line: Line) -> dict[str, object]:
    """The wish that a command changes, by its name among the preferences."""
    value = None if line.text == "none" else line.text
    if line.command == "max-cost":
        return {"max_cost_usd": value}
    if line.command == "privacy":
        return {"privacy": line.text}
    assert line.command is not None
    return {line.command: value}
