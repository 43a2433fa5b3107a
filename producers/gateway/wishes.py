"""What a request wishes of Uptier: in headers, or under ``uptier`` in its body."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from ledger.outbox import new_id
from producers.gateway.callers import Caller
from producers.gateway.errors import fault_of_field
from producers.openai_faults import RequestFault, as_mapping
from routing.decision import (
    MAX_ANSWER_CHARS,
    MAX_KEY_CHARS,
    MOST_SECONDS,
    ChoiceOutput,
    Decision,
    Preferences,
    Privacy,
    Signals,
    Value,
)

HEADER = "x-uptier-"
IDEMPOTENCY = "idempotency-key"
OURS = frozenset({"payer", "force_tier", "force_lane", "stream"})
"""Preferences that the key, the model's name and the way of answering set."""
OF_ROUTING = frozenset(Preferences.model_fields) - OURS
STRUCTURED = frozenset({"weights", "signals", "choices"})
"""Wishes that no header can hold."""


class Own(Value):
    """Wishes that are the decision's, not the routing's."""

    kind: str | None = Field(default=None, min_length=1, max_length=64)
    key: str | None = Field(default=None, min_length=1, max_length=MAX_KEY_CHARS)
    """The same key is asked once in a gateway's run, and goes on when its client leaves."""
    choices: tuple[str, ...] | None = None
    agent_id: str = Field(default="", max_length=100)
    deadline_s: float | None = Field(default=None, gt=0, le=MOST_SECONDS)
    fallback: str | None = Field(default=None, max_length=MAX_ANSWER_CHARS)
    signals: Signals = Signals()


class Wishes(Value):
    """All that is wished of one request."""

    own: Own
    preferences: Preferences

    def key(self, caller: Caller) -> str:
        """The decision's key: the asker's own within what it asked itself, else a new one."""
        if self.own.key is None:
            return new_id()
        whole = f"{caller.name}:{self.own.key}"
        if len(whole) <= MAX_KEY_CHARS:
            return whole
        return f"{caller.name}:{hashlib.sha256(whole.encode()).hexdigest()}"


def wishes_of(headers: Mapping[str, str], body: dict[str, Any], caller: Caller) -> Wishes:
    """The wishes of a request; ``uptier`` is taken out of its body, and goes before headers.

    Of privacy levels the strictest holds: the key's, the header's, the body's.

    Raises:
        RequestFault: one is unknown or malformed.
    """
    given = as_mapping(body.pop("uptier", None) or {}, "uptier")
    by_header = _headers(headers)
    known = OF_ROUTING | Own.model_fields.keys()
    for name in given:
        if name not in known:
            raise _unknown(f"uptier.{name}", known)
    whole = {**by_header, **given}
    own = _validated(Own, {n: v for n, v in whole.items() if n in Own.model_fields})
    wishes = {n: v for n, v in whole.items() if n in OF_ROUTING}
    preferences = _validated(Preferences, wishes)
    levels = [_validated(Preferences, {"privacy": m["privacy"]}).privacy
              for m in (by_header, given) if "privacy" in m]  # fmt: skip
    for level in (*levels, caller.privacy):
        privacy = preferences.privacy.at_least(level)
        preferences = preferences.model_copy(update={"privacy": privacy})
    preferences = preferences.model_copy(update={"payer": caller.payer})
    return Wishes(own=own, preferences=preferences)


def wished(decision: Decision, wishes: Wishes, caller: Caller) -> Decision:
    """The decision with what its wishes say of it beside the routing.

    Raises:
        RequestFault: choices that are none.
    """
    own = wishes.own
    changes: dict[str, Any] = {"signals": own.signals, "agent_id": _agent(own, wishes, caller)}
    if own.deadline_s is not None:
        changes["deadline_s"] = own.deadline_s
    if own.fallback is not None:
        changes["fallback"] = own.fallback
    if own.choices is not None:
        changes["output"] = _validated(ChoiceOutput, {"labels": own.choices}, "uptier.choices")
    values = {name: getattr(decision, name) for name in Decision.model_fields} | changes
    found: Decision = _validated(Decision, values)
    return found


def _agent(own: Own, wishes: Wishes, caller: Caller) -> str:
    """The agent, within its caller's own: agents of two callers share no budget, and under
    maximum privacy no answer."""
    alone = wishes.preferences.privacy is Privacy.MAXIMUM
    if caller.name and (own.agent_id or alone):
        return f"{caller.name}/{own.agent_id}"
    return own.agent_id


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    known = (OF_ROUTING | Own.model_fields.keys()) - STRUCTURED
    found: dict[str, Any] = {}
    for header, value in headers.items():
        if not header.startswith(HEADER):
            continue
        name = header.removeprefix(HEADER).replace("-", "_")
        if name not in known:
            raise _unknown(header, [HEADER + n.replace("_", "-") for n in known])
        if name in found:
            raise RequestFault(header, "is there twice: drop one of them")
        found[name] = value
    if IDEMPOTENCY in headers:
        found.setdefault("key", headers[IDEMPOTENCY])
    return found


def _validated(kind: Any, values: Mapping[str, Any], place: str = "uptier") -> Any:
    try:
        return kind(**values)
    except ValidationError as error:
        raise fault_of_field(error, place) from None


def _unknown(param: str, known: Any) -> RequestFault:
    return RequestFault(
        param, f"is not known: choose of {', '.join(sorted(known))}", code="unknown_parameter"
    )
