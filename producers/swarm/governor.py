"""The governor: whether an action is taken, put before a person, or denied. Rules are data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from config.errors import ConfigurationError
from config.swarm import Governor, GovernorRule, Verdict

STRICTNESS = tuple(Verdict)
UNCHECKED = "the answer that chose it did not pass the quality check"


@dataclass(frozen=True)
class Ruling:
    """What the governor says of an action, and why."""

    verdict: Verdict
    reason: str


def rule(
    governor: Governor,
    action: str,
    arguments: Mapping[str, Any],
    *,
    command: Sequence[str] = (),
    checked: bool = True,
) -> Ruling:
    """The strictest of what the action's own ruling and the rules that match say.

    ``command`` are the words of the program that it would run. ``checked`` tells whether the
    answers behind it passed the quality check: what did not is never more than proposed.
    """
    found = Ruling(*_own(governor, action))
    for ruling in _stricter(governor, action, arguments, command, checked):
        if STRICTNESS.index(ruling.verdict) > STRICTNESS.index(found.verdict):
            found = ruling
    return found


def always_denied(governor: Governor, action: str) -> str | None:
    """Why an action is denied whatever its arguments are, or ``None`` if it is not."""
    ruling = rule(governor, action, {})
    return ruling.reason if ruling.verdict is Verdict.DENY else None


def is_withheld(governor: Governor, path: str) -> bool:
    """Whether a rule keeps the daemon from reading that file as it reads others: then no other
    action may show what is in it either."""
    strict = STRICTNESS.index(rule(governor, "read_file", {"path": path}).verdict)
    return strict > STRICTNESS.index(rule(governor, "read_file", {}).verdict)


def check_names(governor: Governor, known: Iterable[str], place: str) -> None:
    """Refuse rulings on actions that there are not.

    Raises:
        ConfigurationError: an action is unknown.
    """
    names = tuple(known)
    for name in governor.rulings:
        if name not in names:
            raise ConfigurationError(
                f"{place}: swarm.governor.rulings.{name} is no action of the daemon: choose from "
                f"{', '.join(names)}"
            )
    for index, one in enumerate(governor.rules):
        for pattern in one.actions:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigurationError(
                    f"{place}: swarm.governor.rules[{index}].actions {pattern!r} matches no action "
                    f"of the daemon: choose from {', '.join(names)}"
                )


def _own(governor: Governor, action: str) -> tuple[Verdict, str]:
    verdict = governor.rulings.get(action)
    if verdict is None:
        return governor.default, f"no ruling names {action}, so the default holds"
    return verdict, f"the ruling on {action} is {verdict.value}"


def _stricter(
    governor: Governor,
    action: str,
    arguments: Mapping[str, Any],
    command: Sequence[str],
    checked: bool,
) -> Iterator[Ruling]:
    for one in governor.rules:
        if _matches(one, action, arguments, command):
            yield Ruling(one.ruling, one.reason)
    if not checked:
        yield Ruling(Verdict.ESCALATE, UNCHECKED)


def _matches(
    one: GovernorRule, action: str, arguments: Mapping[str, Any], command: Sequence[str]
) -> bool:
    if not any(fnmatchcase(action, pattern) for pattern in one.actions):
        return False
    if one.words:
        texts = [text.casefold() for text in (action, *command)]
        if not any(word.casefold() in text for word in one.words for text in texts):
            return False
    return all(
        name in arguments and re.search(pattern, _text(arguments[name])) is not None
        for name, pattern in one.where.items()
    )


def _text(value: Any) -> str:
    """An argument as rules see it: lists are joined by blanks."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)
