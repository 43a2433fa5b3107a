"""Choices: reading a label out of text, and the rubric for answers from a closed set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from routing.findings import Findings, nothing_said
from routing.refusals import refuses

SHOWN = 60
"""Characters of a wrong answer that are quoted back."""


def parse_choice(raw: str, labels: Sequence[str]) -> str | None:
    """The one label that a text names, or ``None`` if it names none or several.

    The text may be the label, or the label in another case, or hold it as a whole word; of
    labels that contain one another the longest counts. A label in its own case comes before one
    in another case.
    """
    text = raw.strip()
    if text in labels:
        return text
    folded = [label for label in labels if label.casefold() == text.casefold()]
    if len(folded) == 1:
        return folded[0]
    named = _named(text, labels, 0) or _named(text, labels, re.IGNORECASE)
    return named.pop() if len(named) == 1 else None


def check_choice(
    raw: str,
    label: str | None,
    probabilities: Sequence[float] | None,
    labels: Sequence[str],
    margin: float,
) -> Findings:
    """The rubric of a choice.

    Format: a label of the set. Completeness: answered at all, be it with one digit. Coherence:
    the label's probability exceeds every other by more than ``margin``; without probabilities,
    the text names the label unambiguously.
    """
    chosen = parse_choice(raw, labels) if label is None else label
    if chosen is None or chosen not in labels:
        return _no_label(raw, label)
    if label is None and chosen.casefold() != raw.strip().casefold() and refuses(raw):
        return Findings(coherence=0.0, vetoes=("the model refuses",))
    doubt = None if probabilities is None else _doubt(chosen, probabilities, labels, margin)
    if doubt is not None:
        return Findings(answer=chosen, coherence=0.0, issues=(doubt,))
    return Findings(answer=chosen)


def _named(text: str, labels: Sequence[str], flags: int) -> set[str]:
    """The labels that occur as whole words and not merely within a longer one."""
    found = [
        (match.start(), match.end(), label)
        for label in labels
        for match in re.finditer(_whole_word(label), text, flags)
    ]
    named: set[str] = set()
    covered = 0
    for _, group in groupby(sorted(found, key=itemgetter(0)), key=itemgetter(0)):
        together = list(group)
        longest = max(end for _, end, _ in together)
        if longest > covered:
            named |= {label for _, end, label in together if end == longest}
            covered = longest
    return named


def _whole_word(label: str) -> str:
    # "4" is not named by "-4" or "4.5", nor "do" by "don't" or "re-do".
    return rf"(?<![\w-])(?<!\d[.,]){re.escape(label)}(?![\w-])(?![.,]\d)(?!['\u2019]\w)"


def _doubt(
    chosen: str, probabilities: Sequence[float], labels: Sequence[str], margin: float
) -> str | None:
    if len(probabilities) != len(labels):
        return f"{len(probabilities)} probabilities for {len(labels)} labels"
    by_label = dict(zip(labels, probabilities, strict=True))
    own = by_label.pop(chosen)
    second = max(by_label, key=lambda label: by_label[label])
    if own - by_label[second] > margin:
        return None
    return f"a guess: {chosen!r} has {own:.3f}, {second!r} {by_label[second]:.3f}"


def _no_label(raw: str, label: str | None) -> Findings:
    said = raw.strip() if label is None else label
    if not said:
        return nothing_said()
    if refuses(said):
        veto = "the model refuses"
    else:
        veto = f"{said[:SHOWN]!r} does not name exactly one of the labels"
    return Findings(format=0.0, coherence=0.0, vetoes=(veto,))
