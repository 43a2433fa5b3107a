"""A small project under git, for trying the daemon: it has a bug, a gap in its tests, and a note
of what is to be done."""

from __future__ import annotations

from pathlib import Path

from config.errors import InputError
from producers.swarm.commands import run_program
from producers.swarm.sandbox import Refused

FIRST = {
    "README.md": """# Tally

Counts the words of text files. `python -m tally FILE...` prints each file with its count.
""",
    "pyproject.toml": """[project]
name = "tally"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["rich>=13.0"]
""",
    "tally/__init__.py": '"""Counts the words of text files."""\n',
    "tally/counting.py": '''"""Counts words."""


def count_words(text):
    """The number of words in a text."""
    return len(text.split(" "))


def average_length(text):
    """The average length of the words in a text."""
    words = text.split()
    return sum(len(word) for word in words) / len(words)
''',
    "tally/__main__.py": '''"""The command."""

import sys

import yaml

from tally.counting import count_words

for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        print(yaml.safe_dump({name: count_words(file.read())}).strip())
''',
    "tests/__init__.py": "",
    "tests/test_counting.py": """import unittest

from tally.counting import count_words


class CountWords(unittest.TestCase):
    def test_two_words(self):
        self.assertEqual(count_words("one two"), 2)
""",
}
SECOND = {
    "TODO.md": """# To do

- count_words counts an empty text as one word
- average_length fails on an empty text
- yaml is imported and not declared
""",
}
THIRD = {
    "tally/counting.py": FIRST["tally/counting.py"].replace('text.split(" ")', "text.split()"),
}
"""Not committed: what `git diff` shows."""
COMMIT = (
    "git",
    "-c",
    "user.name=Tally",
    "-c",
    "user.email=tally@example.org",
    "commit",
    "-q",
    "-m",
)


def refuse_occupied(directory: Path) -> None:
    """Refuse a directory that has something in it, or is none.

    Raises:
        InputError: it is one of these.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"--sample: {directory} is not empty: name another --workdir")


def make_sample(directory: Path) -> None:
    """Write the project and its two commits into a directory that is empty or not there yet.

    Raises:
        InputError: there is something in it, it cannot be written, or there is no git.
    """
    refuse_occupied(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _git(directory, "git", "init", "-q", "-b", "main")
        for files, message in ((FIRST, "Count words"), (SECOND, "Note what is to be done")):
            _write(directory, files)
            _git(directory, "git", "add", ".")
            _git(directory, *COMMIT, message)
        _write(directory, THIRD)
    except (OSError, Refused) as error:
        raise InputError(f"--sample: {directory} cannot be made: {error}") from None


def _write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _git(directory: Path, *argv: str) -> None:
    ran = run_program(argv, directory, timeout_s=30, max_chars=1_000)
    if ran.code != 0:
        raise Refused(ran.output.strip() or "git took too long")
