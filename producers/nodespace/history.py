"""What was said before in a session, and as much of it as a prompt may hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config.catalog import Catalog
from routing.decision import Decision, Plan, Privacy, Status, TextOutput

BYTES_PER_TOKEN = 2
"""Fewer than texts in most languages have, so that what is reckoned to fit does."""
MARKUP_TOKENS = 64
"""Of the chat template around a prompt."""
HEAD = "The conversation so far:\n\n"
LEAD = "\n\nUser: "
ASIDE = "\n\nAnswer the user's last message."


@dataclass(frozen=True)
class Turn:
    """A request and what became of it."""

    number: int
    """From 1."""
    request: str
    answer: str
    status: Status
    reason: str
    lane: str | None
    tier: str | None
    model: str | None
    local: bool
    """Whether the answer was given on this machine."""
    privacy: Privacy
    """The level under which it was asked."""
    adapter: str | None
    cost_micros: int
    seconds: float
    streamed_chars: int = 0
    """Characters of the answer that were heard before it was settled."""
    recorded: bool = False
    """Whether it was answered before, and only read from the ledger."""


def composed(turns: Sequence[Turn], request: str, privacy: Privacy, room: int) -> str:
    """A request after as many of the last turns as fit into ``room`` bytes.

    A turn that was asked under a stricter privacy is left out: what must stay on the machine does
    not leave it as the history of something that may go.
    """
    shown: list[str] = []
    size = len((HEAD + LEAD + request + ASIDE).encode())
    for turn in reversed(turns):
        if not turn.answer or turn.privacy.at_least(privacy) is not privacy:
            continue
        text = f"User: {turn.request}\nAssistant: {turn.answer}"
        size += len(text.encode()) + 2
        if size > room:
            break
        shown.insert(0, text)
    if not shown:
        return request
    return f"{HEAD}{chr(10).join(shown)}{ASIDE}{LEAD}{request}"


def room_of(plan: Plan, decision: Decision, catalog: Catalog) -> int:
    """Bytes of prompt that the narrowest lane of a plan takes beside the agent's own words."""
    output = decision.output
    asked = output.max_tokens if isinstance(output, TextOutput) else None
    tokens = min(
        catalog.lane_model(lane).context - (asked or catalog.sampling(lane).max_tokens)
        for lane in plan.lanes
    )
    own = len(decision.system.encode())
    return max(0, (tokens - MARKUP_TOKENS) * BYTES_PER_TOKEN - own)
