"""What is logged and traced of a decision's way through the workers; ids, never texts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ledger import tracing
from ledger.answers import Answered
from ledger.records import Claimed, Tried
from ledger.rulings import Ruling

if TYPE_CHECKING:
    from ledger.spans import Attributes

log = logging.getLogger(__name__)


def tell_attempt(lane: str, claimed: Claimed, tried: Tried, begun: int, now: int) -> None:
    """An attempt that has ended, before it is written: what it waited for, and what it took."""
    number = claimed.tries + 1
    if tried.error:
        # Its words may hold some of the prompt: they are in the ledger, not here.
        told = {"run": claimed.run_id, "decision": claimed.id, "lane": lane, "attempt": number}
        log.warning("an attempt failed; %s", _next(tried), extra=told)
    spans = tracing.spans()
    if spans is None:
        return
    attributes: Attributes = {
        "lane": lane, "model": tried.model, "attempt": number, "tokens_in": tried.tokens_in,
        "tokens_cached": tried.tokens_cached, "tokens_out": tried.tokens_out,
        "cost_usd": tried.cost_micros / 1_000_000,
        "inference_s": tried.inference_us / 1_000_000,
    }  # fmt: skip
    queued = begun - tried.waiting_us
    spans.hop("wait", claimed.id, queued, begun, {"lane": lane})
    spans.hop("attempt", claimed.id, begun, now, attributes, failed=bool(tried.error))


def tell_checks(
    answered: Iterable[Answered], rulings: Mapping[str, Ruling], began: int, now: int
) -> None:
    """Answers that were ruled on."""
    spans = tracing.spans()
    if spans is None:
        return
    for one in answered:
        ruling = rulings.get(one.id)
        if ruling is not None:
            attributes: Attributes = {
                "lane": one.lane, "passed": ruling.passed, "score": ruling.score,
                "follows": _follows(ruling),
            }  # fmt: skip
            spans.hop("check", one.id, began, now, attributes)


def _follows(ruling: Ruling) -> str:
    if ruling.climb_to is not None:
        return f"asks {ruling.climb_to[1]}"
    if ruling.questions:
        return "asks about it"
    return "settles"


def _next(tried: Tried) -> str:
    if tried.again_at is not None:
        return "it is tried again"
    return "it goes on" if tried.climb_to is not None else "no dearer lane is left"
