"""The metadata of a step's file, held to ``config/schemas/agent_metadata.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

import config
from config.errors import InputError
from ledger.clock import SECOND
from ledger.spoken import Spoken
from producers.pipeline.queries import query_type
from producers.pipeline.steps import Role

SCHEMA = Path(config.__file__).parent / "schemas" / "agent_metadata.json"
VERSION = "1.0.4"
LAST_CALLS = 10
"""Calls that the trace keeps."""
SUFFIX = 6
SHOWN = 80
"""Characters of a wrong value that a message quotes."""


@lru_cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def check_metadata(metadata: Any, place: str) -> None:
    """Hold metadata to their schema.

    Raises:
        InputError: they do not; the message names the first fault with its value.
    """
    fault = best_match(_validator().iter_errors(metadata))
    if fault is None:
        return
    where = ".".join(["agent_metadata", *(str(part) for part in fault.absolute_path)])
    message = fault.message if len(fault.message) <= 2 * SHOWN else f"{fault.message[:SHOWN]}..."
    raise InputError(f"{place}: {where}: {message}; correct it, or run its step again")


def run_id(step: int, moment: int, seed: str) -> str:
    """The name of one run of a step, for example ``step1_20251201_143022_abc123``.

    ``moment`` is in microseconds since 1970; the last part follows from ``seed``.
    """
    at = datetime.fromtimestamp(moment / SECOND, UTC)
    suffix = hashlib.sha256(seed.encode()).hexdigest()[:SUFFIX]
    return f"step{step}_{at:%Y%m%d_%H%M%S}_{suffix}"


def llm_metadata(
    models: dict[Role, str],
    calls: Sequence[tuple[Role, str, Spoken]],
    decision: str = "",
    person_wanted: bool = False,
) -> dict[str, Any]:
    """What the specialists did; ``calls`` are in the order in which they were made, each with the
    specialist that it was for and the name of who answered."""
    return {
        "orchestrator_model": models[Role.ORCHESTRATOR],
        "math_model": models[Role.MATH],
        "orchestrator_calls": sum(1 for role, _, _ in calls if role is Role.ORCHESTRATOR),
        "math_calls": sum(1 for role, _, _ in calls if role is Role.MATH),
        "total_tokens_generated": sum(call.tokens_out for _, _, call in calls),
        "llm_reasoning_trace": [_entry(who, call) for _, who, call in calls[-LAST_CALLS:]],
        "llm_decision": decision,
        "human_override_requested": person_wanted,
    }


def _entry(who: str, call: Spoken) -> dict[str, Any]:
    return {
        "timestamp": f"{datetime.fromtimestamp(call.at / SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "model": who,
        "query_type": query_type(call.prompt),
        "tokens": call.tokens_out,
        "latency_ms": round(call.inference_us / 1000),
    }
