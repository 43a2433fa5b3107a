"""Asks git about the directory: nothing in a repository makes it run programs or look elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from config.swarm import Swarm
from producers.swarm.commands import Ran, run_program
from producers.swarm.governor import is_withheld
from producers.swarm.sandbox import Directory, Refused

GIT = (
    "git", "--no-pager", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}",
    "-c", "color.ui=false", "-c", "log.showSignature=false", "-c", "safe.bareRepository=explicit",
)  # fmt: skip
"""Git as the daemon runs it. A repository without ``.git`` is none: its configuration would be a
file that the model may write."""
SORTS = ("clean", "smudge", "process")
LIST_CHARS = 1_000_000
"""Of a list of names that is read before the question itself."""
STATUS = ("status", "--short", "--branch", "--ignore-submodules=all")
LOG = ("log", "--max-count=20", "--date=short", "--format=%h %ad %s")
DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=all")
NOTHING = Ran(128, "not a git repository\n")


def ask_git(directory: Directory, rules: Swarm, words: Sequence[str]) -> Ran:
    """What git says.

    Raises:
        Refused: its configuration names a filter that cannot be switched off.
    """
    return _asking(directory, rules)(words, rules.output_chars)


def changes(directory: Directory, rules: Swarm) -> Ran:
    """What is changed since the last commit, of files that the daemon may read unasked."""
    ask = _asking(directory, rules)
    listed = ask((*DIFF, "--name-only", "-z", "HEAD"), LIST_CHARS)
    if listed.code != 0:
        return ask((*DIFF, "HEAD"), rules.output_chars)  # says why
    if len(listed.output) >= LIST_CHARS:
        raise Refused("more files are changed than can be looked through: read some of them")
    held = [n for n in listed.output.split("\0") if n and is_withheld(rules.governor, n)]
    if not held:
        return ask((*DIFF, "HEAD"), rules.output_chars)
    without = [f":(top,exclude,literal){name}" for name in held]
    return ask((*DIFF, "HEAD", "--", ":/", *without), rules.output_chars)


def _asking(directory: Directory, rules: Swarm) -> Callable[[Sequence[str], int], Ran]:
    """Asks git with the filters of this repository switched off."""
    root = directory.root
    known = {
        "GIT_WORK_TREE": str(root),  # whatever core.worktree says
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_NO_LAZY_FETCH": "1",
    }

    def ask(words: Sequence[str], most: int, off: Sequence[str] = ()) -> Ran:
        if not (root / ".git").exists():
            return NOTHING
        return run_program(
            [*GIT, *off, *words], root, timeout_s=rules.command_s, max_chars=most, more=known
        )

    names = ask(("config", "--null", "--name-only", "--get-regexp", r"^filter\."), LIST_CHARS)
    off = tuple(_switched_off(names.output if names.code == 0 else ""))
    return lambda words, most: ask(words, most, off)


def _switched_off(names: str) -> Iterator[str]:
    """Options without which git would put files through programs before it compares them."""
    for filter_name in sorted({n.rpartition(".")[0] for n in names.split("\0") if n}):
        if "=" in filter_name or "\ufffd" in filter_name or "left out" in filter_name:
            raise Refused(f"git's filter {filter_name[:80]!r} cannot be switched off: remove it")
        for sort in SORTS:
            yield from ("-c", f"{filter_name}.{sort}=")
        yield from ("-c", f"{filter_name}.required=false")
