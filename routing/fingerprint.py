"""The key under which an answer is kept: equal for questions that deserve the same answer.

Dates, times and UUIDs do not tell questions apart. That is the point (a state that is printed
with its clock is the same state a minute later) and the danger: where the answer hangs on the
date itself, the prompt has to say what follows from it ("due in 2 days"), or the signals have.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache

from config.catalog import Catalog, Model, OutputType
from config.demands import Demands
from routing.adapters import adapter_of
from routing.decision import CacheScope, Decision, Privacy, Signals
from routing.similar import guards

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


@dataclass(frozen=True)
class Place:
    """Where an answer is kept: under ``key``; ``space`` names all that an alike one must share,
    where there is an embedder."""

    key: str
    space: str | None
    prompt: str
    """The prompt, normalised."""


def place_of(
    decision: Decision,
    run_id: str,
    model_fingerprint: str,
    policy: str = "",
    *,
    embedder: str = "",
    any_numbers: bool = False,
    exact: bool = False,
) -> Place:
    """The place of a decision's answer; key and space are 64 hexadecimal digits (SHA-256).

    Both cover the agent's role, the kind, the load, the constant prompt, what is asked for, the
    template's version, the adapter that was asked for, the privacy domain, the run where answers
    do not leave it, ``policy`` (see :func:`policy_of`) and ``model_fingerprint``, so that an
    answer never outlives the model or the prompt that it came from. The key adds the prompt less
    dates, times and UUIDs; the space its numbers and negations (no numbers with ``any_numbers``)
    and the embedder. Left out are the agent itself, except under maximum privacy, and the seed:
    agents of one role in one situation share an answer. With ``exact`` role and load are left out
    as well, and prompts count as they stand, with their dates and times.
    """
    prompt = decision.prompt if exact else normalised(decision.prompt)
    parts = (
        None if exact else decision.agent_id.partition("-")[0],
        decision.kind,
        None if exact else load_bucket(decision.signals),
        decision.system if exact else _normalised_once(decision.system),
        decision.output.model_dump_json(),  # as text: the order of properties is asked for too
        decision.template,
        decision.preferences.adapter,
        privacy_domain(decision),
        run_id if _stays_in_run(decision) else None,
        policy,
        model_fingerprint,
    )
    key = _hash(("exact", *parts, prompt))
    if not embedder:
        return Place(key, None, prompt)
    return Place(key, _hash(("alike", *parts, embedder, guards(prompt, any_numbers))), prompt)


def privacy_domain(decision: Decision) -> str:
    """Within which an answer may be shared: ``open``, ``high``, or the agent's own."""
    privacy = decision.preferences.privacy
    if privacy is Privacy.MAXIMUM:
        return f"maximum:{decision.agent_id}"
    return "high" if privacy.stays_home else "open"


def policy_of(decision: Decision, catalog: Catalog, lane: str) -> str:
    """What of the profile shapes a lane's accepted answer: how it is drawn, by which adapter it is
    given, whose service gives it with how much thought, and the check that it passed."""
    kind = catalog.kind(decision.kind)
    drawn = None
    if decision.output.type is not OutputType.CHOICE:
        drawn = catalog.sampling(lane).model_dump(mode="json")
    adapter = adapter_of(decision, catalog, lane)
    demands = {name: getattr(kind, name) for name in Demands.model_fields}
    checks = [kind.threshold, kind.margin, kind.critique, kind.certified, demands]
    service = service_of(catalog, catalog.lane_model(lane))
    return json.dumps([drawn, adapter, *checks, *service], sort_keys=True)


def service_of(catalog: Catalog, model: Model) -> list[str | None]:
    """Servers call what they serve as they like: two of one name are not one model."""
    provider = None if model.provider is None else catalog.providers[model.provider]
    if provider is None:
        return []
    return [model.provider, provider.base_url, provider.base_url_env, model.reasoning_effort]


def _stays_in_run(decision: Decision) -> bool:
    wishes = decision.preferences
    return wishes.cache is not CacheScope.SHARED or wishes.privacy is Privacy.MAXIMUM


def _hash(parts: tuple[object, ...]) -> str:
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
