"""The key under which an answer is kept: equal for questions that deserve the same answer."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache

from routing.decision import Decision, Signals

HIGH_LOAD_QUEUE = 5
"""Waiting tasks beyond which an agent is under high load."""
URGENT_DAYS = 3
"""Days until the deadline below which a task is urgent."""

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?"
_ZONE = r"(?:\s?[AaPp]\.?[Mm]\b\.?|Z\b|\s?UTC\b|[+-]\d{2}:?\d{2}\b)?"
_VOLATILE = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (
        re.compile(
            rf"\b(?:\d{{4}}-\d{{2}}-\d{{2}}(?=T{_CLOCK}|\b)|\d{{1,2}}/\d{{1,2}}/\d{{2,4}}\b"
            rf"|\d{{1,2}}\.\d{{1,2}}\.\d{{4}}\b"
            rf"|\d{{1,2}} {_MONTH},? \d{{4}}\b|{_MONTH} \d{{1,2}},? \d{{4}}\b)"
        ),
        "<date>",
    ),
    (re.compile(rf"(?:(?<=<date>)T|\b){_CLOCK}{_ZONE}"), "<time>"),
    (re.compile(r"\b1?\d(?::[0-5]\d)?\s?[AaPp]\.?[Mm]\b\.?"), "<time>"),
)
"""What differs between two askings of one question, and what stands in for it, in order."""


def cache_key(decision: Decision, model_fingerprint: str) -> str:
    """The key as 64 hexadecimal digits (SHA-256).

    It covers the agent's role, the kind, the load, the prompt less dates, times and UUIDs, what
    is asked for, the template's version, the adapter that was asked for and
    ``model_fingerprint``, so that an answer never outlives the model or the prompt that it came
    from; which adapter a kind has is part of the model's fingerprint. Left out are the agent
    itself and the seed: agents of one role in one situation share an answer.
    """
    parts = (
        decision.agent_id.partition("-")[0],
        decision.kind,
        load_bucket(decision.signals),
        _normalised_once(decision.system),
        normalised(decision.prompt),
        decision.output.model_dump(mode="json"),
        decision.template,
        decision.preferences.adapter,
        model_fingerprint,
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load_bucket(signals: Signals) -> str:
    """``high_load``, ``urgent`` or ``normal``: the queue is looked at before the deadline."""
    if signals.queue_length > HIGH_LOAD_QUEUE:
        return "high_load"
    return "urgent" if signals.deadline_days < URGENT_DAYS else "normal"


@lru_cache(maxsize=256)
def _normalised_once(system: str) -> str:
    # Decisions of one template share it, and it is the longer part of their prompts.
    return normalised(system)


def normalised(text: str) -> str:
    """``text`` with its dates, times of day and UUIDs replaced by their names."""
    for pattern, name in _VOLATILE:
        text = pattern.sub(name, text)
    return text
