"""What a step asks the specialists, each from its prompt template."""

from __future__ import annotations

from collections.abc import Mapping

from producers.pipeline.agent import plan_output
from producers.pipeline.caller import Ask
from producers.pipeline.confidence import JUDGEMENTS
from producers.pipeline.plan import Criterion, StepConfig
from producers.pipeline.queries import query_type
from producers.pipeline.steps import Role
from producers.pipeline.work import Calculation
from producers.prompts import load_template
from routing.decision import ChoiceOutput, JsonOutput, Output, TextOutput

THOUGHT_TOKENS = 80
NUMBER_TOKENS = 24
JUDGEMENT_KIND = "pipeline_judgement"
NUMBER = JsonOutput(
    max_tokens=NUMBER_TOKENS,
    json_schema={
        "type": "object",
        "properties": {"value": {"type": "number"}},
        "required": ["value"],
        "additionalProperties": False,
    },
)
CLOSE = 0.01
"""By how much of the exact value an answer may differ."""


class Questions:
    """The questions of one step; ``seed`` is that of their drawing."""

    def __init__(self, one: StepConfig, seed: int) -> None:
        self._one, self._seed = one, seed

    def think(self, figures: Mapping[str, float]) -> Ask:
        """What the figures mean, of the step's first specialist."""
        step = self._one.step
        values = {"step": step.name, "purpose": step.purpose, "figures": in_words(figures)}
        role = self._one.assigned.roles[0]
        return self._ask("think", role, "pipeline_think", values,
                         TextOutput(max_tokens=THOUGHT_TOKENS))  # fmt: skip

    def calculate(self, number: int, calculation: Calculation) -> Ask:
        """A calculation of which the code knows the result."""
        values = {"question": calculation.question}
        return self._ask(f"calculate{number}", Role.MATH, "pipeline_calculate", values, NUMBER)

    def plan(self, name: str, of: StepConfig, figures: Mapping[str, float], task: str) -> Ask:
        """A plan for the step ``of``, by the orchestrator, with parameters within its bounds."""
        bounds = [f"{n} {low:g} to {high:g}" for n, (low, high) in of.bounds.items()]
        values = {
            "step": self._one.name, "figures": in_words(figures), "task": task,
            "parameters": ", ".join(bounds) or "none", "file": of.file,
        }  # fmt: skip
        output = plan_output(of.bounds, of.file)
        return self._ask(name, Role.ORCHESTRATOR, "pipeline_plan", values, output)

    def judge(self, name: str, role: Role, figures: Mapping[str, float],
              *, force_tier: str | None = None) -> Ask:  # fmt: skip
        """Whether the step's result may go on."""
        missed = missed_in_words(self._one.success, figures)
        count = len(self._one.success)
        values = {
            "met": count - len(missed), "criteria": count, "missed": ", ".join(missed) or "none",
        }  # fmt: skip
        return self._ask(name, role, "pipeline_judge", values, ChoiceOutput(labels=JUDGEMENTS),
                         kind=JUDGEMENT_KIND, force_tier=force_tier)  # fmt: skip

    def _ask(
        self,
        key: str,
        role: Role,
        template_name: str,
        values: Mapping[str, object],
        output: Output,
        *,
        kind: str | None = None,
        force_tier: str | None = None,
    ) -> Ask:
        template = load_template(template_name)
        prompt = template.fill(values)
        return Ask(
            key, role, prompt, output, kind or query_type(prompt), template.system, template.id,
            force_tier, self._seed,
        )  # fmt: skip


def in_words(figures: Mapping[str, float]) -> str:
    """Figures as a prompt names them."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.6g}" for name, value in figures.items())


def missed_in_words(success: Mapping[str, Criterion], figures: Mapping[str, float]) -> list[str]:
    """The criteria that figures miss, each with by what."""
    missed = []
    for name, criterion in success.items():
        value = figures[name]
        if criterion.met(value):
            continue
        low = criterion.at_least is not None and value < criterion.at_least
        bound = criterion.at_least if low else criterion.at_most
        side = "below" if low else "above"
        missed.append(f"{name.replace('_', ' ')} {value:.6g} {side} {bound:g}")
    return missed


def is_right(said: object, exact: float) -> bool:
    """Whether a number that was said is the exact one, within a hundredth of it."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return False
    return abs(said - exact) <= CLOSE * abs(exact)
