"""What the quality check costs: ``python -m benchmarks.rubric``, one core, no model.

Prints microseconds for one check of each sort of answer: the median of the repeats' means, with the
smallest and largest.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable

from config.demands import Demands
from config.load import load_catalog
from routing.decision import ChoiceOutput, Output, TextOutput, output_for
from routing.quality import Answer, check

REPEATS, CALLS = 15, 200
LABELS = ("CONTINUE", "COMPLETE", "SWITCH", "BLOCKED", "COMMUNICATE", "IDLE")
PROMPT = "To the tester: report that the belt drawing TASK-17 is half done, 4 h are left."
MESSAGE = "The belt drawing TASK-17 is half done; it will be complete in 4 hours."
LONG = " ".join(
    f"Step {n}: somebody draws the bracket again and then checks it against load case {n * 3}, "
    f"which takes {n % 5} hours if the solver is free on that day."
    for n in range(10)
)
PLAN = json.dumps(
    {
        "approach": "sketch first, then model",
        "steps": ["sketch the plate", "model it", "check it"],
        "tools_needed": ["CAD"],
        "potential_blockers": ["licence"],
        "estimated_hours": 4,
    }
)
QUERY = (
    "SELECT t.id, count(*) AS n FROM tasks t JOIN people p ON p.id = t.owner "
    "WHERE t.due < '2026-01-01' GROUP BY t.id ORDER BY n DESC LIMIT 5"
)
CODE = "def late(tasks, today):\n    return [task for task in tasks if task.due < today]\n"


def cases() -> dict[str, tuple[Answer, Output, Demands]]:
    """An answer of each sort with what it is held to."""
    choice, text = ChoiceOutput(labels=LABELS), TextOutput(stops=None)
    plan = output_for(load_catalog("laptop"), "approach_selection")
    sure = (0.1, 0.1, 0.5, 0.1, 0.1, 0.1)
    plain = Demands()
    return {
        "choice with probabilities": (
            Answer("SWITCH", label="SWITCH", probabilities=sure), choice, plain
        ),
        "choice read out of text": (Answer("I would say SWITCH."), choice, plain),
        "JSON by a schema of five fields": (Answer(PLAN), plan, plain),
        f"text of {len(MESSAGE)} characters": (Answer(MESSAGE, prompt=PROMPT), text, plain),
        "the same, grounded": (Answer(MESSAGE, prompt=PROMPT), text, Demands(grounded=True)),
        f"text of {len(LONG)} characters": (Answer(LONG, prompt=PROMPT), text, plain),
        "Python of 2 lines": (Answer(CODE), text, Demands(language="python")),
        f"SQL of {len(QUERY)} characters": (Answer(QUERY), text, Demands(language="sql")),
    }  # fmt: skip


def microseconds(call: Callable[[], object]) -> list[float]:
    """The mean of each repeat, in microseconds."""
    found = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for _ in range(CALLS):
            call()
        found.append((time.perf_counter() - begun) / CALLS * 1e6)
    return found


def main() -> None:
    """Measure and print."""
    print(f"Python {platform.python_version()}, {REPEATS} repeats of {CALLS} checks, one core")
    for name, (answer, output, demands) in cases().items():

        def once(
            answer: Answer = answer, output: Output = output, demands: Demands = demands
        ) -> object:
            return check(answer, output, threshold=0.7, margin=0.1, critique=None, demands=demands)

        once()
        found = microseconds(once)
        spread = f"{min(found):.0f} to {max(found):.0f}"
        print(f"{name:34} {statistics.median(found):7.1f} us  ({spread})")


if __name__ == "__main__":
    main()
