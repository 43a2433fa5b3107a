"""``python -m benchmarks.specialists``: how well words choose the specialist, on queries held out.

``--write`` fits on all queries and writes config/specialities/math.toml.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from benchmarks.specialists.fit import KNOWN, Query, fit, queries
from config.load import SPECIALITIES
from config.strategies import Speciality
from routing.specialists import by_words, words_of

FOLDS = 10
Outcomes = Counter[tuple[bool, bool]]
"""How many by (is math, went to math)."""

HEADER = """\
# Words that speak for the math specialist (above 0) or against it. Written by
# `python -m benchmarks.specialists --write` from the labelled queries beside it; do not edit.
[specialities.math]
"""


def held_out(every: Sequence[Query], seed: int) -> Outcomes:
    """Each query judged by a fit that has not seen it, over ``FOLDS`` folds."""
    shuffled = random.Random(seed).sample(list(every), len(every))
    outcomes: Outcomes = Counter()
    for fold in range(FOLDS):
        learned = fit([q for i, q in enumerate(shuffled) if i % FOLDS != fold])
        outcomes += judged(shuffled[fold::FOLDS], partial(goes_to_math, learned))
    return outcomes


def judged(known: Iterable[Query], is_math: Callable[[str], bool]) -> Outcomes:
    """What becomes of queries."""
    return Counter((query.math, is_math(query.text)) for query in known)


def goes_to_math(learned: Speciality, text: str) -> bool:
    """Whether a prompt goes to the math specialist."""
    return by_words(text, {"math": learned}).name == "math"


def accuracy(outcomes: Outcomes) -> float:
    """The share that went right."""
    return sum(n for (is_math, went), n in outcomes.items() if is_math == went) / outcomes.total()


def recall(outcomes: Outcomes, math: bool) -> float:
    """The share of one sort that went right."""
    return outcomes[math, math] / (outcomes[math, True] + outcomes[math, False])


def toml(learned: Speciality) -> str:
    """The weights as a file of the catalog."""
    lines = [f"{word} = {weight}" for word, weight in sorted(learned.words.items())]
    words = "\n".join(lines)
    figures = f"""bias = {learned.bias}
number = {learned.number}
most_numbers = {learned.most_numbers}
"""
    return f"{HEADER}{figures}\n[specialities.math.words]\n{words}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="shuffles of the folds")
    parser.add_argument("--write", action="store_true", help="write the weights")
    given = parser.parse_args()
    every = queries()
    total = f"{len(every)} queries, {sum(q.math for q in every)} of them math"
    print(f"{total}; {FOLDS} folds, {given.repeats} shuffles")
    runs = [held_out(every, seed) for seed in range(given.repeats)]
    plain = judged(every, lambda text: any(word in text.lower() for word in KNOWN["listed"]))
    whole = judged(every, lambda text: not words_of(text).isdisjoint(KNOWN["listed"]))
    _show("learned, held out", sum(runs, Counter()))
    print("  by shuffle         " + ", ".join(f"{accuracy(run):.1%}" for run in runs))
    weights = fit(every)
    apart = queries("unseen_")
    _show(f"learned, {len(apart)} apart", judged(apart, partial(goes_to_math, weights)))
    _show("list, within words", plain)
    _show("list, whole words", whole)
    if given.write:
        (SPECIALITIES / "math.toml").write_text(toml(weights), encoding="utf-8")
        print(f"written: {SPECIALITIES / 'math.toml'}")


def _show(name: str, outcomes: Outcomes) -> None:
    print(
        f"{name:<20} {accuracy(outcomes):.1%} right; math {recall(outcomes, True):.1%}, "
        f"others {recall(outcomes, False):.1%}"
    )


if __name__ == "__main__":
    main()
