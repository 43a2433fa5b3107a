"""An agent of two specialists: it thinks, calculates, plans, and finalizes a run's result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producers.pipeline.caller import Ask, Caller, Unanswered
from producers.pipeline.plan import strict_json
from producers.pipeline.steps import Role
from routing.decision import JsonOutput
from routing.review import review_phrases

Bounds = Mapping[str, tuple[float, float]]
PLAN_TOKENS = 200
MOST_STEPS = 3
STEP_CHARS = 80


def plan_output(bounds: Bounds | None = None, file: str | None = None) -> JsonOutput:
    """A plan: steps, parameters, expected_outputs. With ``bounds`` only those parameters, each
    between its two values; with ``file`` that is what it writes."""
    parameters: dict[str, Any] = {"type": "object"}
    if bounds is not None:
        of = {n: {"type": "number", "minimum": a, "maximum": b} for n, (a, b) in bounds.items()}
        parameters |= {"properties": of, "additionalProperties": False}
    writes: dict[str, Any] = {"type": "string"} if file is None else {"enum": [file]}
    return JsonOutput(
        max_tokens=PLAN_TOKENS,
        json_schema={
            "type": "object",
            "properties": {
                "steps": {
                    "type": "array",
                    "items": {"type": "string", "maxLength": STEP_CHARS},
                    "minItems": 1,
                    "maxItems": MOST_STEPS,
                },
                "parameters": parameters,
                "expected_outputs": {"type": "array", "items": writes, "maxItems": MOST_STEPS},
            },
            "required": ["steps", "parameters", "expected_outputs"],
            "additionalProperties": False,
        },
    )


class Agent:
    """One agent of a pipeline; everything it asks goes through its caller's books."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._plans = 0
        self._person_wanted = False

    def think(self, context: str) -> str:
        """Reasoning about where things stand, by the specialist that the words speak for."""
        return self._noted(self._caller.route(context))

    def calculate(self, question: str) -> str:
        """The math specialist's answer."""
        return self._noted(self._caller.calculate(question))

    def plan(self, task: str) -> dict[str, Any]:
        """The orchestrator's plan: steps, parameters and expected_outputs.

        Raises:
            Unanswered: it gave none.
        """
        self._plans += 1
        prompt = (
            f"Plan this task: {task}\nReply with one JSON object: steps, parameters, "
            "expected_outputs."
        )
        ask = Ask(f"plan{self._plans}", Role.ORCHESTRATOR, prompt, plan_output(), "orchestration")
        [heard] = self._caller.gather([ask])
        try:
            found = strict_json(self._noted(heard.answer))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unanswered(f"no plan from the orchestrator: {heard.settled.reason}")
        return found

    def finalize_run(self, result: Mapping[str, Any], decision: str = "") -> dict[str, Any]:
        """The result with ``llm_metadata`` of all that was asked; the books begin anew."""
        metadata = dict(result.get("agent_metadata", {}))
        metadata["llm_metadata"] = self._caller.metadata(decision, self._person_wanted)
        self._caller.reset()
        self._person_wanted = False
        return {**result, "agent_metadata": metadata}

    def _noted(self, answer: str) -> str:
        self._person_wanted |= bool(review_phrases(answer))
        return answer
