"""``/v1/chat/completions`` and ``/v1/completions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from producers import openai_chat, openai_text
from producers.gateway.answering import Endpoint, answer
from producers.gateway.sse import Chunk, Form
from producers.hub import Ended
from routing.decision import Decision

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    """Answer a chat."""
    return await answer(request, CHAT)


@router.post("/v1/completions")
async def text(request: Request) -> Response:
    """Go on with a prompt."""
    return await answer(request, TEXT)


def _chat_form(decision: Decision, created: int, model: str) -> Form:
    def whole(ended: Ended) -> dict[str, Any]:
        return openai_chat.completion_body(
            decision, ended.settled, ended.usage, created=created,
            model=ended.usage.model or model,
        )  # fmt: skip

    return Form(
        object="chat.completion.chunk",
        whole=whole,
        begins=lambda: _delta({"role": "assistant", "content": ""}),
        says=lambda piece: _delta({"content": piece}),
        text=lambda body: body["choices"][0]["message"]["content"] or "",
        rest=_tool_calls,
        ends=lambda reason: _delta({}, reason),
    )


def _tool_calls(body: Mapping[str, Any]) -> list[Chunk]:
    calls = body["choices"][0]["message"].get("tool_calls", [])
    return [_delta({"tool_calls": [{"index": i, **call}]}) for i, call in enumerate(calls)]


def _delta(delta: dict[str, Any], reason: str | None = None) -> Chunk:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _text_form(_decision: Decision, created: int, model: str) -> Form:
    def whole(ended: Ended) -> dict[str, Any]:
        return openai_text.text_body(
            ended.settled, ended.usage, created=created, model=ended.usage.model or model
        )

    return Form(
        object="text_completion",
        whole=whole,
        begins=lambda: None,
        says=_text,
        text=lambda body: str(body["choices"][0]["text"]),
        rest=lambda _: [],
        ends=lambda reason: _text("", reason),
    )


def _text(piece: str, reason: str | None = None) -> Chunk:
    return {"index": 0, "text": piece, "logprobs": None, "finish_reason": reason}


CHAT = Endpoint(openai_chat.KIND, "chatcmpl-", openai_chat.decision_of, _chat_form)
TEXT = Endpoint(openai_text.KIND, "cmpl-", openai_text.decision_of_prompt, _text_form)
