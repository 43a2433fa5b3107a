"""The caller of two specialists: route, orchestrate, calculate, health check, metadata, reset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import UptierError
from config.load import AbsentLane
from ledger.clock import Clock, now
from ledger.spoken import Spoken, spoken
from producers.asking import Asker
from producers.pipeline.metadata import llm_metadata
from producers.pipeline.queries import query_type, role_of
from producers.pipeline.roster import Roster
from producers.pipeline.steps import Role
from routing.decision import (
    CacheScope,
    Decision,
    Output,
    Preferences,
    Privacy,
    Settled,
    Status,
    TextOutput,
)

MAX_TOKENS = 2048
TEMPERATURE = 0.7
TIMEOUT_S = 120.0
STOPS = ("</s>", "<|im_end|>", "<|endoftext|>")
AGAIN = 1
"""Times that a question is asked anew whose time ran out, as it does in an interruption."""


class Unanswered(UptierError):
    """Nobody could answer a question."""


@dataclass(frozen=True)
class Ask:
    """A question for one of the specialists. ``key`` names it within the run."""

    key: str
    role: Role
    prompt: str
    output: Output
    kind: str
    system: str = ""
    template: str = ""
    force_tier: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Heard:
    """What became of a question; ``calls`` in their order, ``role`` who it was put to."""

    ask: Ask
    role: Role
    settled: Settled
    calls: tuple[Spoken, ...]

    @property
    def answer(self) -> str:
        """The answer, empty if there is none."""
        return self.settled.answer

    @property
    def call(self) -> Spoken | None:
        """The call whose answer it is."""
        mine = [c for c in self.calls if c.lane == self.settled.lane and c.outcome == "answered"]
        return mine[-1] if mine else None


class Caller:
    """Asks the specialists of a profile through the queue, and keeps the books of it.

    ``prefix`` begins the keys of its questions: with the same one, in the same run, the same
    questions in the same order are not asked again.
    """

    def __init__(
        self,
        asker: Asker,
        engine: Engine,
        catalog: Catalog,
        *,
        absent: Sequence[AbsentLane] = (),
        prefix: str = "",
        seed: int = 0,
        timeout_s: float = TIMEOUT_S,
        privacy: Privacy = Privacy.LOW,
        clock: Clock = now,
        roster: Roster | None = None,
    ) -> None:
        self._asker, self._engine, self._privacy = asker, engine, privacy
        self._prefix, self._seed, self._timeout_s = prefix, seed, timeout_s
        self.roster = roster or Roster(engine, catalog, absent, clock, privacy)
        self._asked: list[tuple[Role, str]] = []
        self._count = 0
        self.notes: list[str] = []

    def route(
        self,
        prompt: str,
        specialist: Role | None = None,
        *,
        temperature: float = TEMPERATURE,
        max_tokens: int = MAX_TOKENS,
    ) -> str:
        """The answer to a prompt, of the specialist for whom its words speak, if none is named.

        Raises:
            Unanswered: nobody could answer.
        """
        role = role_of(prompt) if specialist is None else specialist
        heard = self.complete(
            prompt, role, max_tokens=max_tokens, temperature=temperature, stops=STOPS,
            seed=self._seed,
        )  # fmt: skip
        return heard.answer

    def complete(
        self,
        prompt: str,
        role: Role,
        *,
        max_tokens: int,
        temperature: float,
        stops: tuple[str, ...],
        seed: int,
    ) -> Heard:
        """A specialist's answer, with how it came about.

        ``max_tokens`` is the most that it may have; it is less where prompt and answer would not
        fit the model together.

        Raises:
            Unanswered: nobody could answer.
        """
        self._count += 1
        output = TextOutput(
            max_tokens=min(max_tokens, self.roster.room(role, prompt)), temperature=temperature,
            stops=stops,
        )  # fmt: skip
        ask = Ask(f"call{self._count}", role, prompt, output, query_type(prompt), seed=seed)
        [heard] = self.gather([ask])
        if not heard.answer:
            raise Unanswered(f"no answer from {role.value}: {heard.settled.reason}")
        return heard

    def orchestrate(self, task: str) -> str:
        """The orchestrator's answer."""
        return self.route(task, Role.ORCHESTRATOR)

    def calculate(self, question: str) -> str:
        """The math specialist's answer."""
        return self.route(question, Role.MATH)

    def health_check(self) -> dict[str, bool]:
        """Whether each specialist's lane is served now, by its name."""
        return {role.value: well for role, well in self.roster.healthy().items()}

    def metadata(self, decision: str = "", person_wanted: bool = False) -> dict[str, Any]:
        """``llm_metadata`` of what was asked since the last reset."""
        return llm_metadata(self.roster.models, self.calls(), decision, person_wanted)

    def reset(self) -> None:
        """Begin new books."""
        self._asked, self.notes = [], []

    def calls(self) -> list[tuple[Role, str, Spoken]]:
        """All calls since the last reset: the specialist they count for, who answered, the call.

        In the order in which they were asked for: which of two specialists at work side by side
        ends first is chance.
        """
        roles = {id: role for role, id in self._asked}
        place = {id: number for number, id in enumerate(roles)}
        found = sorted(spoken(self._engine, list(roles)), key=lambda call: place[call.decision_id])
        return [
            (*self.roster.who(roles[call.decision_id], call.lane, call.model), call)
            for call in found
        ]

    def gather(self, asks: Sequence[Ask]) -> list[Heard]:
        """Ask together; what was heard in the order of ``asks``.

        Questions for a specialist who is not there go to the other one, if that one is.
        """
        placed = [(ask, self._stand_in(ask.role)) for ask in asks]
        settled = self._settle([self._decision(ask, role) for ask, role in placed], placed)
        for time in range(1, AGAIN + 1):
            lost = [i for i, one in enumerate(settled) if one.status is Status.EXPIRED]
            if not lost:
                break
            anew = [
                (replace(placed[i][0], key=f"{placed[i][0].key}+{time}"), placed[i][1])
                for i in lost
            ]
            found = self._settle([self._decision(ask, role) for ask, role in anew], anew)
            for i, one in zip(lost, found, strict=True):
                settled[i] = one
        calls = spoken(self._engine, [one.id for one in settled])
        return [
            Heard(ask, role, one, tuple(c for c in calls if c.decision_id == one.id))
            for (ask, role), one in zip(placed, settled, strict=True)
        ]

    def _settle(
        self, decisions: Sequence[Decision], placed: Sequence[tuple[Ask, Role]]
    ) -> list[Settled]:
        settled = self._asker.gather(decisions)
        self._asked += [(role, one.id) for (_, role), one in zip(placed, settled, strict=True)]
        return settled

    def _stand_in(self, role: Role) -> Role:
        if self.roster.alone:
            return role
        well = self.roster.healthy()
        other = Role.MATH if role is Role.ORCHESTRATOR else Role.ORCHESTRATOR
        if well[role] or not well[other]:
            return role
        note = f"{role.value} is not there, so {other.value} was asked"
        if note not in self.notes:
            self.notes.append(note)
        return other

    def _decision(self, ask: Ask, role: Role) -> Decision:
        return Decision(
            kind=ask.kind, key=f"{self._prefix}{ask.key}", prompt=ask.prompt, system=ask.system,
            template=ask.template, output=ask.output, seed=ask.seed, deadline_s=self._timeout_s,
            preferences=Preferences(
                specialist=self.roster.desks[role].speciality, cache=CacheScope.OFF,
                force_tier=ask.force_tier, privacy=self._privacy,
            ),
        )  # fmt: skip
