"""What each server that speaks the OpenAI protocol takes, and what it wants in words of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from config.catalog import Dialect, Model
from routing.decision import ChoiceOutput, JsonOutput
from workers.backends.base import Request
from workers.backends.http_provider import Defaults
from workers.backends.http_questions import bound, messages, stops, thinks
from workers.backends.http_schema import as_object
from workers.backends.openai_schema import is_strict

TOP_LOGPROBS = 20
"""The most that OpenAI gives, and vLLM unless told otherwise."""


@dataclass(frozen=True)
class Customs:
    """One server's. ``stops`` is how many it takes at most, ``None`` without a bound."""

    defaults: Defaults
    limit: str = "max_tokens"
    stops: int | None = None
    seed: bool = True
    logprobs: bool = True
    strict: bool = False
    """Whether schemas are objects, and enforced only in a subset of JSON Schema."""
    closed_choice: bool = False
    """Whether an answer can be held to one of the labels."""
    thoughts_apart: bool = False
    """Whether tokens of thoughts are only in the total."""
    template_thinks: bool = False
    """Whether thinking is switched in the chat template, not by an argument."""


CUSTOMS = {
    Dialect.OPENAI: Customs(
        Defaults("openai", "OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com/v1"),
        limit="max_completion_tokens",
        stops=4,
        strict=True,
    ),
    Dialect.VLLM: Customs(Defaults("vllm"), closed_choice=True, template_thinks=True),
    Dialect.LLAMA_SERVER: Customs(Defaults("llama_server"), template_thinks=True),
    Dialect.OLLAMA: Customs(Defaults("ollama")),
    # Gemini answers 400 to arguments that it does not know, and 2.5 gives no log-probabilities.
    Dialect.GEMINI: Customs(
        Defaults("gemini", "GEMINI_API_KEY"),
        stops=4,
        seed=False,
        logprobs=False,
        thoughts_apart=True,
    ),
}


def arguments(
    request: Request, model: Model, remote: str, customs: Customs, *, logprobs: bool
) -> dict[str, Any]:
    """The arguments of ``chat.completions.create`` for a request."""
    call: dict[str, Any] = {
        "model": remote,
        "messages": messages(request),
        customs.limit: bound(request, model),
    }
    if customs.seed:
        call["seed"] = request.seed
    call |= _thinking(model, customs)
    if not thinks(model):
        call |= _drawing(request, customs)
    if isinstance(request.output, ChoiceOutput):
        if logprobs:
            call |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if customs.closed_choice:
            closed = {"structured_outputs": {"choice": list(request.output.labels)}}
            call["extra_body"] = call.get("extra_body", {}) | closed
    elif isinstance(request.output, JsonOutput):
        call |= _json(request.output, customs)
    return call


def _thinking(model: Model, customs: Customs) -> dict[str, Any]:
    if model.reasoning_effort is None:
        return {}
    if customs.template_thinks:
        switch = {"enable_thinking": thinks(model)}
        return {"extra_body": {"chat_template_kwargs": switch}}
    return {"reasoning_effort": model.reasoning_effort}


def _drawing(request: Request, customs: Customs) -> dict[str, Any]:
    """How text is drawn; the best label is read from the likeliest path, so none is drawn."""
    sampling = request.sampling
    if isinstance(request.output, ChoiceOutput):
        return {"temperature": 0}
    call: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    ends = stops(request)[: customs.stops]
    return call | {"stop": ends} if ends else call


def _json(output: JsonOutput, customs: Customs) -> dict[str, Any]:
    if not customs.strict:
        form: dict[str, Any] = {"name": "answer", "schema": output.json_schema}
    else:
        schema = as_object(output.json_schema)
        form = {"name": "answer", "schema": schema, "strict": is_strict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": form}}
