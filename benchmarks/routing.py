"""What it costs to route a decision and to check an answer, on one core.

``python -m benchmarks.routing`` prints microseconds a call: the median of repeats, with the least
and the greatest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from config.load import load_catalog
from routing.attempts import Question, Tried, tabulate
from routing.cascade import learn
from routing.certify import Certificate, Scope
from routing.decision import ChoiceOutput, Decision, JsonOutput, Output, TextOutput
from routing.drift import begin, watch
from routing.learnt import Learnt, learnt_of
from routing.policy import plan
from routing.quality import Answer, check

CALLS = 2000
LABELS = ("CONTINUE", "COMPLETE", "SWITCH", "IDLE")
SCHEMA = {
    "type": "object",
    "required": ["approach", "steps"],
    "properties": {
        "approach": {"type": "string"},
        "steps": {"type": "array", "items": {"type": "string"}},
    },
}
PROSE = "The valve was closed at noon. Pressure then fell slowly, which suggests a small leak. " * 6
PROMPT = "State: the queue holds 4 tasks, the deadline is in 3 days. What now?"


def main() -> None:
    """Read the arguments and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"microseconds a call, {CALLS} calls a repeat, {repeats} repeats: median (least, most)")
    for name, (call, aim) in _calls().items():
        times = sorted(_time(call) for _ in range(repeats))
        middle = statistics.median(times)
        print(f"{name:28} {middle:8.1f} ({times[0]:.1f}, {times[-1]:.1f}); aim below {aim:g}")


def _calls() -> dict[str, tuple[Callable[[], object], float]]:
    catalog = load_catalog("laptop")
    choice, text = ChoiceOutput(labels=LABELS), TextOutput(stops=None)
    decision = Decision(kind="next_action", prompt=PROMPT, output=choice, key="k")
    found = Certificate(Scope("k", "tier1", "m", "f", "t"), 0.1, 0.1, {"MOVE": 0.8, "IDLE": 0.9})
    state = begin(np.random.default_rng(0).random(1000).tolist())
    learnt = _learnt()
    return {
        "plan": (lambda: plan(decision, catalog, ()), 50),
        "rubric, choice": (lambda: _check(Answer(
            raw="IDLE", label="IDLE", probabilities=(0.1, 0.1, 0.1, 0.7), prompt=PROMPT), choice),
            200),
        "rubric, JSON": (lambda: _check(Answer(
            raw='{"approach": "sketch", "steps": ["sketch", "model"]}', prompt=PROMPT),
            JsonOutput(json_schema=SCHEMA)), 200),
        "rubric, prose": (lambda: _check(Answer(raw=PROSE, prompt=PROMPT), text), 200),
        "certificate": (lambda: found.accepts(0.85, "IDLE"), 50),
        "next model": (lambda: learnt.next("small", "k", "a", 0.6), 50),
        "drift, a new score": (lambda: watch(state, [0.5]), 200),
    }  # fmt: skip


def _check(answer: Answer, output: Output) -> object:
    return check(answer, output, threshold=0.7, margin=0.1, critique=None)


def _learnt() -> Learnt:
    rng = np.random.default_rng(0)
    questions = []
    for _ in range(400):
        sure = float(rng.random())
        tried = (Tried("a", sure, 0.1, bool(rng.random() < sure)), Tried("b", 0.9, 1.0, True))
        questions.append(Question("k", tried))
    rows = tabulate(("small", "large"), questions)
    path = learn(rows)
    return learnt_of(rows, path, path.prices.size // 2)


def _time(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - begun) / CALLS * 1e6


if __name__ == "__main__":
    main()
