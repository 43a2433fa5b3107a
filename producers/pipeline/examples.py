"""One question of each sort for each step, to show what prompts weigh."""

from __future__ import annotations

from producers.pipeline.caller import Ask
from producers.pipeline.plan import Criterion, StepConfig
from producers.pipeline.questions import Questions
from producers.pipeline.steps import STEPS
from producers.pipeline.work import Calculation
from routing.decision import Decision

TYPICAL = 0.123456
"""Of a figure; as long as most are."""
SUM = Calculation("320 draws fall evenly into 8 classes. How many are expected in each class?", 40)


def example_decisions() -> dict[str, list[Decision]]:
    """Decisions by the id of their template."""
    found: dict[str, list[Decision]] = {}
    for step in STEPS:
        figures = dict.fromkeys(step.figures, TYPICAL)
        one = StepConfig(name=step.name, success={step.figures[-1]: Criterion(at_least=1)})
        asks = Questions(one, 0)
        for ask in (
            asks.think(figures),
            asks.calculate(1, SUM),
            asks.plan("plan", one, figures, step.purpose),
            asks.judge("judge", one.assigned.roles[0], figures),
        ):
            found.setdefault(ask.template, []).append(_decision(step.name, ask))
    return found


def _decision(step: str, ask: Ask) -> Decision:
    return Decision(
        kind=ask.kind, key=f"{step}.{ask.key}", prompt=ask.prompt, output=ask.output,
        system=ask.system, template=ask.template,
    )  # fmt: skip
