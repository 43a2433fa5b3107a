"""What is decided about decisions, and what follows from it: records without a word of SQL."""

from __future__ import annotations

from dataclasses import dataclass, field

from ledger.outbox import Message
from ledger.records import Ended, Planned, StoredVerdict
from routing.decision import Plan, Status


@dataclass(frozen=True)
class Submission:
    """Ids in the order of submission, and the messages that announce the new ones."""

    ids: tuple[str, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Settlement:
    """How a decision ends."""

    status: Status
    answer: str
    lane: str | None
    reason: str
    p_answer: float | None = None


@dataclass(frozen=True)
class Ruling:
    """What the quality check decided for one attempt, and what follows.

    One of ``settle``, ``climb_to`` (hop index and lane), ``questions`` (to a critic or a panel,
    to be settled first) and ``degrade`` (why the best attempt so far has to do) is set.
    """

    id: str
    hop: int
    attempt_id: str
    verdict: str
    score: float
    passed: bool
    settle: Settlement | None = None
    climb_to: tuple[int, str] | None = None
    questions: tuple[Planned, ...] = ()
    degrade: str | None = None
    audit: Planned | None = None
    """With ``settle``: the same question to the top lane, which labels the answer."""
    is_top: bool = False
    """With ``settle`` or ``degrade``: whether the answer is the top lane's.

    Unless it was vetoed, it labels those below.
    """

    @property
    def top_answer(self) -> str | None:
        """What the top lane said where that ends the decision; ``None``: nothing that stands."""
        if not self.is_top or (self.settle is None and self.degrade is None):
            return None
        verdict = StoredVerdict.model_validate_json(self.verdict)
        return verdict.answer if verdict.usable else None


@dataclass(frozen=True)
class Refusal:
    """Why a decision may not be asked on its lane, and what is left, tried in this order.

    ``climb_to`` is another lane of its plan. Then the best answer so far settles it with
    ``status``. Then ``lower`` is its plan with a free lane put after the hop it stands on, whose
    answer will settle it with ``status``. Then it waits until ``again_at``, or ends.
    """

    id: str
    status: Status
    reason: str
    climb_to: tuple[int, str] | None = None
    lower: Plan | None = None
    again_at: int | None = None


@dataclass
class Followers:
    """Messages to publish and decisions that settled, once a transaction is through."""

    messages: list[Message] = field(default_factory=list)
    settled: list[tuple[str, str]] = field(default_factory=list)
    """(run id, decision id)"""
    ended: list[Ended] = field(default_factory=list)
    """More of the same decisions."""
