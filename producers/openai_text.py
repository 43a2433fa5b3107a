"""OpenAI's older text completions: a prompt as a decision, and its settlement back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config.catalog import Catalog
from ledger.taken import Usage
from producers.openai_chat import (
    checked,
    drawing,
    extras,
    made,
    refuse_unserved,
    seed_of,
    starting_on,
    stops_of,
    usage_object,
)
from producers.openai_faults import RequestFault, as_list, as_text
from routing.decision import Decision, Preferences, Settled, TextOutput

KIND = "completion"
TEMPLATE = "openai.completion@1"
SERVED = frozenset({
    "model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stop", "stream",
})  # fmt: skip


def decision_of_prompt(
    body: Mapping[str, Any],
    *,
    catalog: Catalog,
    key: str,
    kind: str = KIND,
    preferences: Preferences = Preferences(),  # noqa: B008 - frozen
) -> Decision:
    """A request of ``/v1/completions`` as a decision; see ``openai_chat.decision_of``.

    Raises:
        RequestFault: a field cannot be served; names it.
    """
    refuse_unserved(body, served=SERVED)
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        if len(as_list(prompt, "prompt")) != 1:
            raise RequestFault("prompt", f"holds {len(prompt)} prompts: send each by itself")
        [prompt] = prompt
    prompt = as_text(prompt, "prompt")
    if not prompt.strip():
        raise RequestFault("prompt", "is empty: ask something")
    output = checked(lambda: TextOutput(**drawing(body), stops=stops_of(body)), "stop")
    return made(
        param="prompt",
        kind=kind,
        key=key,
        system="",
        prompt=prompt,
        output=output,
        template=TEMPLATE,
        preferences=starting_on(body.get("model"), catalog, preferences),
        seed=seed_of(body),
    )


def text_body(settled: Settled, usage: Usage, *, created: int, model: str) -> dict[str, Any]:
    """The answer as a ``text_completion``; ``created`` is in seconds since 1970."""
    reason = "length" if usage.truncated else "stop"
    choice = {"index": 0, "text": settled.answer, "logprobs": None, "finish_reason": reason}
    return {
        "id": f"cmpl-{settled.id}",
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": usage_object(usage),
        "uptier": extras(settled, usage),
    }
