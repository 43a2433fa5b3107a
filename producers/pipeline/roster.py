"""Who the two specialists are on this machine, and whether they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from sqlalchemy import Engine

from config.catalog import Catalog
from config.load import AbsentLane
from ledger.clock import Clock
from ledger.providers import closed_lanes
from ledger.workers import serving
from producers.pipeline.steps import Role
from routing.decision import Decision, Preferences, Privacy, TextOutput
from routing.digest import GENERAL, digest_of
from routing.policy import plan

BYTES_PER_TOKEN = 3
"""Fewer than English has, so that what is reckoned to be left is there."""
MARKUP_TOKENS = 64
"""What the chat markup around a prompt takes at most."""
LEAST_TOKENS = 16
"""Of an answer; a prompt that leaves no more is refused by the model, which counts its tokens."""


@dataclass(frozen=True)
class Desk:
    """Where a specialist's questions go: the speciality that is wished for, and its first lane."""

    role: Role
    speciality: str
    lane: str
    model: str
    """The file of its weights, without ending, else its name."""


class Roster:
    """The specialists of a profile; one that has no lane of its own is stood in for by the lane
    that a general question would take."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        absent: Sequence[AbsentLane],
        clock: Clock,
        privacy: Privacy = Privacy.LOW,
    ) -> None:
        self._engine, self._catalog, self._clock = engine, catalog, clock
        self.desks: Mapping[Role, Desk] = {
            role: _desk(role, catalog, absent, privacy) for role in Role
        }

    @property
    def alone(self) -> bool:
        """Whether one lane answers for both."""
        return len({desk.lane for desk in self.desks.values()}) == 1

    @property
    def models(self) -> dict[Role, str]:
        """The models by their names."""
        return {role: desk.model for role, desk in self.desks.items()}

    def healthy(self) -> dict[Role, bool]:
        """Whether each one's lane has a worker that serves it, and its provider is called now."""
        moment = self._clock()
        served = serving(self._engine, moment)
        closed = closed_lanes(self._engine, self._catalog, moment)
        return {
            role: desk.lane in served and desk.lane not in closed
            for role, desk in self.desks.items()
        }

    def nodes(self) -> list[str]:
        """The machines whose workers serve a lane now."""
        found = serving(self._engine, self._clock())
        return sorted({host for lane, hosts in found.items() if lane in self._catalog.lanes
                       for host in hosts})  # fmt: skip

    @property
    def gpus(self) -> int:
        """Distinct GPUs to which the profile's lanes are pinned."""
        pinned = {lane.gpu for lane in self._catalog.lanes.values() if lane.gpu is not None}
        return len(pinned)

    def room(self, role: Role, prompt: str) -> int:
        """Tokens that are left for an answer beside a prompt."""
        context = self._catalog.lane_model(self.desks[role].lane).context
        taken = len(prompt.encode("utf-8", "replace")) // BYTES_PER_TOKEN + MARKUP_TOKENS
        return max(LEAST_TOKENS, context - taken)

    def who(self, role: Role, lane: str, model: str) -> tuple[Role, str]:
        """As whom a lane answered what was meant for ``role``: the specialist it counts for, and
        its name in the trace, which is the model's where no specialist sits there."""
        if lane == self.desks[role].lane:
            return role, role.value
        for other, desk in self.desks.items():
            if lane == desk.lane:
                return other, other.value
        return role, model


def _desk(role: Role, catalog: Catalog, absent: Sequence[AbsentLane], privacy: Privacy) -> Desk:
    wanted = GENERAL if role is Role.ORCHESTRATOR else role.value
    speciality = wanted if wanted in digest_of(catalog).known else GENERAL
    question = Decision(
        kind=GENERAL, prompt="?", key="?", output=TextOutput(),
        preferences=Preferences(specialist=speciality, privacy=privacy),
    )  # fmt: skip
    lane = plan(question, catalog, absent).hops[0].lane
    model = catalog.lane_model(lane)
    name = catalog.lanes[lane].model
    if model.weights is not None:
        name = PurePath(model.weights.file).stem
    return Desk(role, speciality, lane, name)
