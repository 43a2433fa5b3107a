"""Judges corrections of label probabilities by the history of labelled decisions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ledger.calibrations import Labelled, Subject
from routing.confidence import (
    Correction,
    Example,
    Fit,
    Row,
    batch_bias,
    ece,
    fit,
    log_probabilities,
    loss,
)

ENOUGH = 50
"""Labelled samples from which strength and temperature are fitted, on half of them."""
TELLING = 10
"""Labelled samples below which nothing shows whether a correction helps."""
NONE = Correction()
SEED = 0
"""Of the split into halves."""
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Form:
    """How a kind asks: ``content_free`` has its prompt's state without content, three times.

    ``labels`` are the kind's own, empty where each decision brings others: then there is no bias
    to be found, only a temperature.
    """

    kind: str
    template: str
    system: str
    content_free: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """How good probabilities are: two shares between 0 and 1, and a loss in nats."""

    ece: float
    accuracy: float
    loss: float


@dataclass(frozen=True)
class Finding:
    """What was found for a kind; ``held_out`` samples gave both scores.

    ``questions`` counts the different prompts among the samples: repeats show nothing new.
    ``method`` says where the bias comes from: ``contextual``, ``batch`` or ``none``; ``strength``
    is the share of it that is subtracted, ``correction`` has it already.
    """

    subject: Subject
    samples: int
    questions: int
    held_out: int = 0
    method: str = "none"
    strength: float = 0.0
    correction: Correction = NONE
    before: Score | None = None
    after: Score | None = None
    stored: bool = False
    note: str = ""


def find(subject: Subject, form: Form, history: Sequence[Labelled], contextual: Row) -> Finding:
    """The best correction for a kind, judged on samples that it was not fitted to.

    ``contextual`` is the bias by content-free inputs in nats, one value a label, empty if it is
    not known.
    """
    samples = [s for s in history if not form.labels or set(s.labels) == set(form.labels)]
    found = Finding(
        subject, len(samples), len({s.prompt for s in samples}),
        method="contextual" if contextual else "none", strength=1.0 if contextual else 0.0,
        correction=_correction(form, contextual, 1.0, 1.0),
    )  # fmt: skip
    if len(samples) < TELLING:
        note = f"not stored: {len(samples)} labelled samples do not show whether it helps"
        return replace(found, note=note)
    if len(samples) < ENOUGH:
        return _judged(found, samples, f"T = 1: fitting needs {ENOUGH} labelled samples")
    trains, tests = split(samples)
    method, bias, fitted = _best(form, trains, contextual)
    correction = _correction(form, bias, fitted.strength, fitted.temperature)
    found = replace(found, method=method, strength=fitted.strength, correction=correction)
    return _judged(found, tests)


def _judged(found: Finding, tests: Sequence[Labelled], note: str = "") -> Finding:
    before, after = score(tests, NONE), score(tests, found.correction)
    objection = _objection(before, after)
    return replace(
        found, held_out=len(tests), before=before, after=after, stored=not objection,
        note="; ".join(part for part in (objection, note) if part),
    )  # fmt: skip


def split(samples: Sequence[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """Two halves of about the same size, none of whose questions is in both; always the same."""
    asked: dict[str, list[Labelled]] = {}
    for sample in samples:
        asked.setdefault(sample.prompt, []).append(sample)
    prompts = sorted(asked)
    random.Random(SEED).shuffle(prompts)
    halves: tuple[list[Labelled], list[Labelled]] = ([], [])
    for prompt in prompts:
        min(halves, key=len).extend(asked[prompt])
    return halves


def score(samples: Sequence[Labelled], correction: Correction) -> Score:
    """How good a correction's probabilities are on these samples."""
    rows = [correction.apply(s.labels, s.probabilities) for s in samples]
    hits = [s.labels[r.index(max(r))] == s.expected for s, r in zip(samples, rows, strict=True)]
    z = [Example(log_probabilities(r), s.labels.index(s.expected))
         for s, r in zip(samples, rows, strict=True)]  # fmt: skip
    return Score(ece([max(r) for r in rows], hits), fmean(hits), loss(z, (), 0.0, 1.0))


def _best(form: Form, samples: Sequence[Labelled], contextual: Row) -> tuple[str, Row, Fit]:
    """The bias, with strength and temperature, that makes the samples' answers likeliest."""
    order = form.labels or None
    rows = [_row(s, order) for s in samples]
    examples = [
        Example(log_probabilities(row), (order or s.labels).index(s.expected))
        for s, row in zip(samples, rows, strict=True)
    ]
    biases: dict[str, Row] = {"none": ()}
    if order is not None:
        biases["batch"] = batch_bias(rows)
    if contextual:
        biases["contextual"] = contextual
    fits = {name: fit(examples, bias) for name, bias in biases.items()}
    name = min(fits, key=lambda n: fits[n].loss)
    return ("none" if not fits[name].strength else name), biases[name], fits[name]


def _row(sample: Labelled, order: Sequence[str] | None) -> tuple[float, ...]:
    if order is None:
        return sample.probabilities
    by_label = dict(zip(sample.labels, sample.probabilities, strict=True))
    return tuple(by_label[label] for label in order)


def _correction(form: Form, bias: Row, strength: float, temperature: float) -> Correction:
    parts = [strength * b for b in bias]
    by_label = dict(zip(form.labels, parts, strict=True)) if any(parts) else {}
    return Correction(by_label, temperature)


def _objection(before: Score, after: Score) -> str:
    """Why a correction is not stored; empty if nothing speaks against it."""
    if after.accuracy < before.accuracy:
        return "not stored: it lowers the accuracy on held-out samples"
    if after.loss > before.loss + TOLERANCE:
        return "not stored: it makes the right answers of held-out samples less likely"
    return ""
