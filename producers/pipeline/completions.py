"""llama-server's /completion in JSON: what is asked for and what is given back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.errors import InputError
from config.load import one_line
from producers.pipeline.caller import MAX_TOKENS, TEMPERATURE, Heard
from routing.decision import MAX_PROMPT_CHARS

ANY = -1
"""As many tokens as there is room for; a seed of one's own choice."""
_PIECE = re.compile(r"\s*\S+\s*")


class Body(BaseModel):
    """What a call may state; what else llama-server knows is ignored, as it ignores what it does
    not know."""

    model_config = ConfigDict(extra="ignore", strict=True)

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS, pattern=r"^[^\x00]*$")
    n_predict: int = Field(default=ANY, ge=ANY)
    temperature: float = Field(default=TEMPERATURE, ge=0, le=2, allow_inf_nan=False)
    stop: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        default=None, max_length=16
    )
    stream: bool = False
    seed: int = Field(default=ANY, ge=ANY, lt=1 << 32)

    @property
    def max_tokens(self) -> int:
        """Tokens of the answer at most."""
        return MAX_TOKENS if self.n_predict == ANY else self.n_predict


def read_body(raw: bytes) -> Body:
    """A call's body.

    Raises:
        InputError: it is no JSON object, or one of its values cannot be.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is no JSON ({error}): send an object with a prompt") from None
    if not isinstance(data, dict):
        raise InputError("the body is no JSON object: send one with a prompt")
    if data.get("n_predict") == 0:
        raise InputError("n_predict 0 asks for no answer: give 1 or more, or -1 for any")
    try:
        return Body.model_validate(data)
    except ValidationError as error:
        raise InputError(one_line(error, "body").removesuffix("; correct it and start again")
                         + ": correct it") from None  # fmt: skip


def completion(body: Body, heard: Heard) -> dict[str, Any]:
    """An answer as llama-server gives it; ``uptier`` says where the ledger has it."""
    call = heard.call
    tokens_in, tokens_out, cached = (
        (0, 0, 0) if call is None else (call.tokens_in, call.tokens_out, call.tokens_cached)
    )
    return {
        "index": 0,
        "content": heard.answer,
        "tokens": [],
        "id_slot": -1,
        "stop": True,
        "model": "" if call is None else call.model,
        "tokens_predicted": tokens_out,
        "tokens_evaluated": tokens_in,
        "tokens_cached": cached,
        "generation_settings": {
            "n_predict": body.n_predict, "temperature": body.temperature,
            "stop": body.stop or [], "seed": heard.ask.seed, "stream": body.stream,
        },
        "prompt": body.prompt,
        "has_new_line": "\n" in heard.answer,
        "truncated": False,
        "stop_type": "limit" if call is not None and call.truncated else "eos",
        "stopping_word": "",
        "timings": _timings(
            tokens_in, tokens_out, cached, 0 if call is None else call.inference_us
        ),
        "uptier": {
            "decision": heard.settled.id, "status": heard.settled.status.value,
            "lane": heard.settled.lane,
        },
    }  # fmt: skip


def pieces(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same as a stream: its words one by one, then the end with all but the text."""
    for text in _PIECE.findall(whole["content"]):
        yield {
            "index": 0, "content": text, "tokens": [], "stop": False, "id_slot": -1,
            "tokens_predicted": whole["tokens_predicted"],
            "tokens_evaluated": whole["tokens_evaluated"],
        }  # fmt: skip
    yield whole | {"content": ""}


def fault(code: int, message: str) -> dict[str, Any]:
    """An error as llama-server gives it."""
    kinds = {400: "invalid_request_error", 404: "not_found_error", 503: "unavailable_error"}
    return {"error": {"code": code, "message": message, "type": kinds.get(code, "server_error")}}


def _timings(tokens_in: int, tokens_out: int, cached: int, took_us: int) -> dict[str, float]:
    """A call is timed as a whole: ``predicted_ms`` has all of it."""
    took_ms = took_us / 1000
    return {
        "cache_n": cached,
        "prompt_n": tokens_in - cached,
        "prompt_ms": 0.0,
        "predicted_n": tokens_out,
        "predicted_ms": took_ms,
        "predicted_per_token_ms": took_ms / tokens_out if tokens_out else 0.0,
        "predicted_per_second": tokens_out * 1000 / took_ms if took_ms else 0.0,
    }
