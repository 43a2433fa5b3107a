"""The classifier's question: the small local model says how hard and how private a request is."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.catalog import Catalog
from routing.critique import CRITIC_KIND
from routing.decision import Complexity, Decision, JsonOutput, Preferences, Privacy
from routing.wishes import raised_to

CLASSIFICATION_KIND = "request_classification"
TEMPLATE = "request_classification@1"
LONGEST_QUOTE = 1_000
"""Characters of the request that the classifier is shown, from its beginning."""
MAX_TOKENS = 80
MOST_TOKENS = 200_000
"""The most that an estimate may say."""

SYSTEM = (
    "You sort requests before anybody works on them. You do not answer them. "
    "Give JSON with complexity (simple: a glance is enough, moderate: some thought, "
    "complex: several steps, expert: a specialist's work), domain (one word), "
    "urgency (low, medium, high), privacy_sensitivity (low: public, medium: internal, "
    "high: personal or secret, maximum: passwords, health, money), and "
    "estimated_tokens (of request and answer together)."
)
SCHEMA = {
    "type": "object",
    "required": ["complexity", "domain", "urgency", "privacy_sensitivity", "estimated_tokens"],
    "additionalProperties": False,
    "properties": {
        "complexity": {"enum": [level.value for level in Complexity]},
        "domain": {"type": "string", "minLength": 1, "maxLength": 40},
        "urgency": {"enum": ["low", "medium", "high"]},
        "privacy_sensitivity": {"enum": [level.value for level in Privacy]},
        "estimated_tokens": {"type": "integer", "minimum": 1, "maximum": MOST_TOKENS},
    },
}


class Classification(BaseModel):
    """What the classifier says of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    complexity: Complexity
    domain: str = Field(max_length=64)
    urgency: Literal["low", "medium", "high"]
    privacy_sensitivity: Privacy
    estimated_tokens: int = Field(ge=1, le=MOST_TOKENS)


def wants_classification(decision: Decision, catalog: Catalog) -> bool:
    """Whether a decision is to be classified before it is planned."""
    if decision.kind in (CLASSIFICATION_KIND, CRITIC_KIND):
        return False
    asked = decision.preferences.classify
    return catalog.routing.classify if asked is None else asked


def classification_question(asked: Decision) -> Decision:
    """The decision that classifies ``asked``. It never leaves the machine, whatever that may."""
    name = hashlib.sha256(asked.key.encode()).hexdigest()[:32]
    return Decision(
        kind=CLASSIFICATION_KIND,
        prompt=f"Request: {asked.prompt[:LONGEST_QUOTE]}\nClassify it.",
        output=JsonOutput(json_schema=SCHEMA, max_tokens=MAX_TOKENS),
        key=f"classify.{name}",
        system=SYSTEM,
        template=TEMPLATE,
        agent_id=asked.agent_id,
        day=asked.day,
        preferences=Preferences(
            privacy=Privacy.MAXIMUM, cache=asked.preferences.cache, classify=False
        ),
        seed=asked.seed,
    )


def classified(asked: Decision, answer: str) -> Decision:
    """``asked`` with what the classifier said of it; as it was, if that cannot be read.

    Privacy is raised and never lowered. What the asker stated of the rest is left as it is.
    """
    try:
        said = Classification.model_validate(json.loads(answer))
    except (ValidationError, ValueError):
        return asked
    stated = asked.signals.model_fields_set
    news = {
        "complexity": said.complexity,
        "domain": said.domain,
        "urgency": said.urgency,
        "estimated_tokens": said.estimated_tokens,
    }
    fresh = {name: value for name, value in news.items() if name not in stated}
    signals = asked.signals.model_copy(update=fresh)
    return raised_to(asked.model_copy(update={"signals": signals}), said.privacy_sensitivity)
