"""Questions that are alike: what they must share, when their answers agree, and what is proven."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_SPELLED = (
    "zero two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty "
    "hundred thousand million half twice double first second third last"
)
_NEGATION = "not no never none nothing nobody neither nor without cannot except unless"
_WORDS = re.compile(
    rf"\b(?:{'|'.join((_SPELLED + ' ' + _NEGATION).split())})\b|n['\u2019]t\b", re.IGNORECASE
)
_STEPS = 60


class Trust(StrEnum):
    """How far the semantic layer of a kind has proven itself."""

    TRIAL = "on trial"
    """Not proven: every hit is answered for real, and compared."""
    ON = "on"
    """Proven: hits serve, a share of them is answered for real as well."""
    OFF = "off"
    """Disproven: nothing is looked for."""


def guards(prompt: str, any_numbers: bool = False) -> list[str]:
    """The numbers of a prompt, and its words of counting and denying, each in order.

    Embeddings hardly see them, and they change the answer: only questions that share them are
    compared at all. With ``any_numbers`` just the words of denying count.
    """
    words = [w.lower() for w in _WORDS.findall(prompt)]
    if any_numbers:
        return [w for w in words if w not in _SPELLED.split()]
    return [*_NUMBER.findall(prompt), "|", *words]


def trust(agreed: int, audited: int, floor: float, confidence: float) -> Trust:
    """What ``agreed`` of ``audited`` comparisons say of an agreement of at least ``floor``.

    One-sided Clopper-Pearson bounds, each at ``confidence``: the lower one at the floor or above
    proves it, the upper one below the floor disproves it.
    """
    if lower_bound(agreed, audited, confidence) >= floor:
        return Trust.ON
    if 1 - lower_bound(audited - agreed, audited, confidence) < floor:
        return Trust.OFF
    return Trust.TRIAL


def lower_bound(hits: int, trials: int, confidence: float) -> float:
    """The one-sided lower confidence bound of a share (Clopper and Pearson 1934)."""
    if hits == 0:
        return 0.0
    return _bisected(lambda p: _tail(hits, trials, p) < 1 - confidence)


def same_answer(one: str, other: str) -> bool:
    """Whether two accepted answers say the same: equal JSON, or equal but for case, blanks and
    the full stop. Texts that say the same in other words count as different."""
    if one == other:
        return True
    try:
        return bool(_plain(json.loads(one)) == _plain(json.loads(other)))
    except ValueError:
        return _folded(one) == _folded(other)


def _plain(value: Any) -> Any:
    # JSON's true is not its 1, though Python holds them equal.
    return json.dumps(value, sort_keys=True)


def _folded(text: str) -> Sequence[str]:
    return text.casefold().strip(" \t\r\n.").split()


def _tail(hits: int, trials: int, p: float) -> float:
    """The probability of ``hits`` or more."""
    if p <= 0 or p >= 1:
        return float(p >= 1)
    logs = (
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(p) + (trials - k) * math.log1p(-p)
        for k in range(hits, trials + 1)
    )  # fmt: skip
    return math.fsum(math.exp(log) for log in logs)


def _bisected(below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low
