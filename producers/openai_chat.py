"""OpenAI's chat requests as decisions, and settlements as chat completions. Values only, no I/O."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from pydantic import ValidationError

from config.catalog import Catalog
from ledger.taken import Usage
from producers.openai_faults import (
    RequestFault,
    as_count,
    as_list,
    as_mapping,
    as_number,
    as_text,
    error_object,
    one_of,
    refuse_broken,
    shown,
)
from producers.openai_messages import rendered
from producers.openai_tools import calls_of, tools_of
from routing.decision import (
    MAX_PROMPT_CHARS,
    Decision,
    JsonOutput,
    Output,
    Preferences,
    Settled,
    Status,
    TextOutput,
)
from routing.structured import schema_fault

KIND = "chat"
AUTO = "auto"
"""The model's name that leaves the choice to the routing."""
CHAT_TEMPLATE, TOOLS_TEMPLATE = "openai.chat@1", "openai.tools@1"
MOST_TOKENS = 512
"""Of an answer whose asker sets no bound: a tier's own is meant for decisions."""
NEXT_TURN = "\n\nUser:"
"""Where a model begins to write the user's part of a conversation, its own has ended."""
MOST_STOPS = 4
FORMATS = ("text", "json_object", "json_schema")

SERVED = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
        "stop", "response_format", "tools", "tool_choice", "stream",
    }
)  # fmt: skip
"""What of a request is heeded; ``stream`` is a matter of whoever carries the answer."""
IGNORED = frozenset(
    {
        "user", "metadata", "store", "service_tier", "parallel_tool_calls", "stream_options",
        "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "reasoning_effort",
        "verbosity", "prediction",
    }
)  # fmt: skip
"""Labels, and hints to a provider: they change neither the question nor the form of its answer."""
USUAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "echo": (False,),
    "suffix": ("",),
}
"""What is served only as it is where nobody says anything."""

ANSWERED = (Status.ACCEPTED, Status.CACHED, Status.REPLAYED, Status.DEGRADED, Status.FALLBACK)
FAILURES: dict[Status, tuple[int, str]] = {
    Status.BUDGET: (429, "insufficient_quota"),
    Status.EXPIRED: (504, "deadline_passed"),
    Status.DEAD: (502, "no_answer"),
    Status.CANCELLED: (409, "cancelled"),
}
"""What an HTTP answer says of decisions that ended without one."""


def decision_of(
    body: Mapping[str, Any],
    *,
    catalog: Catalog,
    key: str,
    kind: str = KIND,
    preferences: Preferences = Preferences(),  # noqa: B008 - frozen
) -> Decision:
    """A chat request as a decision; of a profile's own kinds, if ``kind`` names one.

    The model is ``auto``, a tier, a lane or a model of the catalog, and is where the decision
    starts; ``preferences`` are what else is wished.

    Raises:
        RequestFault: a field cannot be served; names it. It is an ``InputError``.
    """
    refuse_unserved(body)
    for name in ("response_format", "tools"):
        refuse_broken(body.get(name), name)
    asked, tools = rendered(body.get("messages")), tools_of(body)
    system, output = asked.system, _output(body, kind, catalog)
    if tools is not None:
        if body.get("response_format") not in (None, {"type": "text"}):
            raise RequestFault("response_format", "does not go with tools: drop one of them")
        system = f"{system}\n\n{tools.system}" if system else tools.system
        output = checked(lambda: JsonOutput(json_schema=tools.schema, **drawing(body)), "tools")
    elif isinstance(output, TextOutput) and asked.is_conversation:
        output = output.model_copy(update={"stops": (*(output.stops or ()), NEXT_TURN)})
    return made(
        param="messages",
        kind=kind,
        key=key,
        system=system,
        prompt=asked.prompt,
        output=output,
        template=CHAT_TEMPLATE if tools is None else TOOLS_TEMPLATE,
        preferences=starting_on(body.get("model"), catalog, preferences),
        seed=seed_of(body),
    )


def completion_body(
    decision: Decision, settled: Settled, usage: Usage, *, created: int, model: str
) -> dict[str, Any]:
    """The answer to a decision that :func:`decision_of` made, as a ``chat.completion``.

    ``created`` is in seconds since 1970; ``uptier`` holds what OpenAI has no field for.
    """
    return completion_of(decision.template, settled, usage, created=created, model=model)


def completion_of(
    template: str, settled: Settled, usage: Usage, *, created: int, model: str
) -> dict[str, Any]:
    """:func:`completion_body` where of the decision only its template is at hand."""
    content: str | None = settled.answer
    calls: list[dict[str, Any]] = []
    if template == TOOLS_TEMPLATE:
        content, calls = calls_of(settled.answer, settled.id)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    reason = "tool_calls" if calls else "length" if usage.truncated else "stop"
    return {
        "id": f"chatcmpl-{settled.id}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        ],
        "usage": usage_object(usage),
        "uptier": extras(settled, usage),
    }  # fmt: skip


def failure_of(settled: Settled) -> tuple[int, dict[str, Any]] | None:
    """The HTTP status and OpenAI's error for a decision without an answer; ``None`` for others.

    What ran out of budget but has an answer all the same (the best so far, or the asker's
    fallback) is answered.
    """
    if settled.status in ANSWERED or settled.answer:
        return None
    status, code = FAILURES[settled.status]
    kind = "insufficient_quota" if settled.status is Status.BUDGET else "server_error"
    return status, error_object(settled.reason, code=code, kind=kind)


def usage_object(usage: Usage) -> dict[str, Any]:
    """Tokens of the call that gave the answer; all are 0 for one from the cache."""
    return {
        "prompt_tokens": usage.tokens_in,
        "completion_tokens": usage.tokens_out,
        "total_tokens": usage.tokens_in + usage.tokens_out,
        "prompt_tokens_details": {"cached_tokens": usage.tokens_cached},
    }


def extras(settled: Settled, usage: Usage) -> dict[str, Any]:
    """How an answer came about; the cost of all its calls in micro-dollars."""
    return {
        "decision": settled.id,
        "kind": settled.kind,
        "status": settled.status.value,
        "reason": settled.reason,
        "lane": settled.lane,
        "tier": usage.tier,
        "model": usage.model,
        "attempts": usage.attempts,
        "climbs": settled.climbs,
        "cost_micros": settled.cost_micros,
    }


def starting_on(model: object, catalog: Catalog, preferences: Preferences) -> Preferences:
    """The preferences with the model that a request names: the tier, or the lane that serves it.

    Raises:
        RequestFault: it is neither ``auto`` nor a tier, lane or served model of the profile.
    """
    name = as_text(model, "model")
    if name == AUTO:
        return preferences
    lane = name if name in catalog.lanes else None
    if name in catalog.tiers:
        wish = {"force_tier": name, "force_lane": None}
    else:
        lane = lane or next((n for n, one in catalog.lanes.items() if one.model == name), None)
        if lane is None:
            raise RequestFault("model", _unknown(name, catalog), code="model_not_found")
        wish = {"force_tier": None, "force_lane": lane}
    return preferences.model_copy(update=wish)


def model_names(catalog: Catalog) -> list[str]:
    """Every name that a request may have as its model: ``auto``, tiers, lanes and their models."""
    models = [lane.model for lane in catalog.lanes.values()]
    served = [lane.tier for lane in catalog.lanes.values()]
    tiers = [tier for tier in catalog.tiers if tier in served]
    return list(dict.fromkeys([AUTO, *tiers, *catalog.lanes, *models]))


def refuse_unserved(body: Mapping[str, Any], served: Container[str] = SERVED) -> None:
    """Say of the first field that cannot be honoured that it is not; never drop it silently.

    Raises:
        RequestFault: there is one.
    """
    for name, value in body.items():
        if name in served or name in IGNORED or value is None:
            continue
        if name not in USUAL:
            raise RequestFault(name, "is not served: drop it", code="unsupported_parameter")
        if value not in USUAL[name]:
            only = shown(USUAL[name][0])
            raise RequestFault(
                name, f"only {only} is served (got {shown(value)}): drop it",
                code="unsupported_value",
            )  # fmt: skip


def drawing(body: Mapping[str, Any]) -> dict[str, Any]:
    """The bound of tokens and how text is drawn, as fields of an output."""
    names = [n for n in ("max_completion_tokens", "max_tokens") if body.get(n) is not None]
    bounds = {as_count(body[name], name) for name in names}
    if len(bounds) > 1:
        raise RequestFault("max_tokens", "differs from max_completion_tokens: drop it")
    wishes: dict[str, Any] = {"max_tokens": bounds.pop() if bounds else MOST_TOKENS}
    if body.get("temperature") is not None:
        wishes["temperature"] = as_number(body["temperature"], "temperature", 0, 2)
    if body.get("top_p") is not None:
        wishes["top_p"] = as_number(body["top_p"], "top_p", 0.000001, 1)
    return wishes


def stops_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """What ends the answer; none of the lane's own stops, which are meant for decisions."""
    stop = body.get("stop")
    if stop is None or stop == []:
        return ()
    given = [stop] if isinstance(stop, str) else as_list(stop, "stop")
    if len(given) > MOST_STOPS:
        raise RequestFault("stop", f"at most {MOST_STOPS} are served (got {len(given)})")
    found = tuple(as_text(one, "stop") for one in given)
    if not all(found):
        raise RequestFault("stop", "one is empty: it would end every answer before it begins")
    return found


def seed_of(body: Mapping[str, Any]) -> int:
    """The seed that fixes how text is drawn."""
    seed = body.get("seed") or 0
    if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**63:
        raise RequestFault("seed", f"must be a whole number of 64 bits (got {shown(seed)})")
    return seed


def made(param: str, **values: Any) -> Decision:
    """The decision; what it cannot be is the fault of the field ``param``."""
    for name in ("system", "prompt"):
        if len(values[name]) > MAX_PROMPT_CHARS:
            raise RequestFault(
                param, f"{len(values[name]):,} characters of {name} are more than "
                f"{MAX_PROMPT_CHARS:,}: shorten them", code="context_length_exceeded",
            )  # fmt: skip
    found: Decision = checked(lambda: Decision(**values), param)
    return found


def checked(make: Any, param: str) -> Any:
    """What ``make`` gives; a fault of its own checks under the name of the request's field."""
    try:
        return make()
    except ValidationError as error:
        first = error.errors()[0]
        words = first["msg"].removeprefix("Value error, ")
        place = ".".join(str(part) for part in first["loc"])
        raise RequestFault(param, f"{place}: {words}" if place else words) from None


def _output(body: Mapping[str, Any], kind: str, catalog: Catalog) -> Output:
    given = body.get("response_format")
    form = {"type": "text"} if given is None else as_mapping(given, "response_format")
    sort = one_of(form.get("type"), "response_format.type", FORMATS)
    stops = stops_of(body)
    if sort == "text":
        own = catalog.kind(kind)
        wishes = drawing(body)
        if body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
            wishes["max_tokens"] = own.max_tokens or MOST_TOKENS
        return TextOutput(**wishes, stops=stops or own.stops or ())
    if stops:
        raise RequestFault("stop", "would break JSON in two: drop it, or response_format")
    schema: Mapping[str, Any] = {"type": "object"}
    if sort == "json_schema":
        place = "response_format.json_schema"
        held = as_mapping(form.get("json_schema"), place)
        schema = as_mapping(held.get("schema"), f"{place}.schema")
        fault = schema_fault(schema)
        if fault is not None:
            raise RequestFault(f"{place}.schema", f"is no JSON Schema: {fault}")
    found: JsonOutput = checked(
        lambda: JsonOutput(json_schema=dict(schema), **drawing(body)), "response_format"
    )
    return found


def _unknown(name: str, catalog: Catalog) -> str:
    known = model_names(catalog)
    return (
        f"{shown(name)} is neither a tier nor a lane nor a served model of profile "
        f"{catalog.profile!r}: choose one of {', '.join(known)}"
    )
