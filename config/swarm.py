"""What the swarm daemon may do by itself, with which commands, and how much at a time."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator

from config.weights import Name, Strict


class Verdict(StrEnum):
    """What the governor says of an action, from the mildest to the strictest."""

    ALLOW = "allow"
    ESCALATE = "escalate"
    """A person has to approve it first."""
    DENY = "deny"


class GovernorRule(Strict):
    """Makes the ruling on matching actions stricter; no rule makes one milder.

    It matches if one of ``actions`` does (patterns as of file names), one of ``words`` occurs in
    the action's name or in a word of the command that it would run, and each argument of ``where``
    has a text that its regular expression is found in.
    """

    actions: tuple[str, ...] = ("*",)
    """Names or patterns."""
    words: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Words of names and commands."""
    where: dict[str, str] = {}
    """Regular expressions, by argument."""
    ruling: Literal[Verdict.ESCALATE, Verdict.DENY]
    """What it makes of them."""
    reason: str = Field(min_length=1)
    """What is told to whoever asks why."""

    @field_validator("where")
    @classmethod
    def _can_be_searched(cls, where: dict[str, str]) -> dict[str, str]:
        for name, pattern in where.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{name}: {pattern!r} is no regular expression: {error}") from None
        return where


class Governor(Strict):
    """Which actions the daemon takes by itself; the strictest of ruling and rules holds."""

    default: Verdict = Verdict.ESCALATE
    """Of actions that ``rulings`` do not name."""
    rulings: dict[Name, Verdict] = {}
    """By action."""
    rules: tuple[GovernorRule, ...] = ()
    """What makes rulings stricter."""
    approval_ttl_s: int = Field(default=86_400, ge=1)
    """After so long a request to a person lapses, also an approved one that was not used."""


class Swarm(Strict):
    """How the swarm daemon works. Characters bound prompts, since lanes differ in their tokens."""

    governor: Governor = Governor()
    """What it may do by itself."""
    commands: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """What ``run`` may run, by name: a program with its arguments, started without a shell."""
    topics: tuple[Name, ...] = Field(default=("progress", "other"), min_length=2)
    """Of memories."""
    privacy: Literal["low", "medium", "high", "maximum"] = "low"
    """The least of every decision; ``high`` and ``maximum`` never leave the machine."""
    history: int = Field(default=6, ge=1, le=50)
    """Past iterations that prompts tell of."""
    context_chars: int = Field(default=1_200, ge=200, le=50_000)
    """Of the last output that prompts show."""
    note_from_chars: int = Field(default=300, ge=50)
    """From this length on an output is put into a sentence for the history."""
    output_chars: int = Field(default=4_000, ge=200, le=200_000)
    """Of an action's output; what is longer loses its middle."""
    file_bytes: int = Field(default=200_000, ge=1_000, le=10_000_000)
    """Of a file that is read, searched or written."""
    files: int = Field(default=2_000, ge=1)
    """Files of the directory that are looked at."""
    command_s: float = Field(default=60, gt=0, le=3_600)
    """How long a command may run, and a request to a server."""
    child_iterations: int = Field(default=5, ge=1, le=100)
    """Of a daemon that the daemon starts."""
