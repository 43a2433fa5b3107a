"""A session: requests of one agent, one after another, each with what was said before it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import InputError
from config.load import AbsentLane
from ledger import runs
from ledger.turns import StoredTurn, find_turns
from producers.client import Client
from producers.nodespace.agents import agent_of, changed, output_of, planned
from producers.nodespace.history import Turn, composed, room_of
from producers.streaming import Piece
from routing.decision import Decision, Preferences, Privacy, Settled, Status
from routing.wishes import as_private_as_wished

MODE = "session"
KEYS = "turn."
"""How the keys of requests begin: ``turn.NUMBER.TRY.LENGTH``. The request is the end of its prompt,
of so many characters; what is before it is history."""


class NodeSession:
    """Asks for one agent. ``clock`` gives seconds; only their differences count."""

    def __init__(
        self,
        client: Client,
        engine: Engine,
        catalog: Catalog,
        absent: Sequence[AbsentLane],
        agent: str,
        preferences: Preferences,
        *,
        seed: int = 0,
        clock: Callable[[], float],
        replay: bool = False,
    ) -> None:
        """Go on with the client's run. With ``replay`` its requests are asked again from the first
        on, and those that were answered come from the ledger.

        Raises:
            InputError: the profile has no such agent.
        """
        self.agent = agent
        self.preferences = preferences
        self.turns: list[Turn] = []
        self._agent = agent_of(catalog, agent)[1]
        self._client = client
        self._engine = engine
        self._catalog = catalog
        self._absent = absent
        self._seed = seed
        self._clock = clock
        self._tries: dict[int, int] = {}
        self._stored = self._read()
        if self._wishes() != client.run.config.get("wishes"):
            self._note()
        if not replay:
            self.turns = [self._turn_of(one) for one in self._stored.values()]

    def ask(self, request: str) -> Generator[Piece | Turn]:
        """Ask, and hear the answer as it is written; the turn, with the answer, comes last.

        Raises:
            InputError: no lane may or can answer it.
        """
        number = len(self.turns) + 1
        stored = self._stored.get(number)
        if stored is not None and not _is_open(stored):
            self.turns.append(self._turn_of(stored))
            yield self.turns[-1]
            return
        tried = 1 if stored is None else _try_of(stored) + (stored.settled is not None)
        # What was given up in this process has its key, and the next request may be as long.
        tried = max(tried, self._tries.get(number, 0) + 1)
        self._tries[number] = tried
        decision = self._decision(request, f"{KEYS}{number:05}.{tried}.{len(request)}")
        start, heard = self._clock(), 0
        stream = cast("Generator[Piece | Settled]", self._client.stream(decision))
        with closing(stream):  # left early, it is cancelled
            for item in stream:
                if isinstance(item, Piece):
                    heard += len(item.text)
                    yield item
                else:
                    turn = self._turn(number, request, decision, item, self._clock() - start)
                    self.turns.append(replace(turn, streamed_chars=min(heard, len(turn.answer))))
                    yield self.turns[-1]

    def change(self, **wishes: Any) -> None:
        """Ask from now on with other wishes.

        Raises:
            InputError: with them nothing could be asked; the old ones stay.
        """
        new = changed(self.preferences, **wishes)
        planned(self.probe(new), self._catalog, self._absent)
        self.preferences = new
        self._note()

    def probe(self, preferences: Preferences, request: str = "?") -> Decision:
        """A request with those wishes and nothing before it, as it would be asked."""
        return bare(self.agent, request, preferences, self._catalog)

    @property
    def privacy(self) -> Privacy:
        """The level that holds: the stricter of the session's own and its preset's."""
        wished = as_private_as_wished(self.probe(self.preferences), self._catalog)
        return wished.preferences.privacy

    def _note(self) -> None:
        """Keep the wishes for whoever resumes."""
        run = self._client.run
        run.config.update(agent=self.agent, wishes=self._wishes())
        runs.note_config(self._engine, run.id, run.config)

    def _wishes(self) -> dict[str, Any]:
        return self.preferences.model_dump(mode="json", exclude_defaults=True)

    def _decision(self, request: str, key: str) -> Decision:
        """The request as it goes out. The small model sees it alone: what was said before has been
        sorted before."""
        alone = self.probe(self.preferences, request)
        alone = alone.model_copy(update={"key": key, "seed": self._seed})
        [sorted_out] = self._client.classify([alone])
        decision = as_private_as_wished(sorted_out, self._catalog)
        preferences = decision.preferences.model_copy(update={"classify": False})
        decision = decision.model_copy(update={"preferences": preferences})
        room = room_of(planned(decision, self._catalog, self._absent), decision, self._catalog)
        prompt = composed(self.turns, request, preferences.privacy, room)
        return decision.model_copy(update={"prompt": prompt})

    def _read(self) -> dict[int, StoredTurn]:
        """The last try of each request of the run, with what is still open waited for."""
        found = find_turns(self._engine, self._client.run.id, KEYS)
        open_ones = [one.id for one in found if one.settled is None]
        if open_ones:
            self._client.wait(open_ones)
            found = find_turns(self._engine, self._client.run.id, KEYS)
        found.sort(key=lambda one: (_number_of(one), _try_of(one)))
        return {_number_of(one): one for one in found}

    def _turn_of(self, stored: StoredTurn) -> Turn:
        length = int(stored.decision.key.rpartition(".")[2])
        request = stored.decision.prompt[-length:]
        number = _number_of(stored)
        assert stored.settled is not None
        turn = self._turn(number, request, stored.decision, stored.settled, stored.seconds)
        return replace(turn, recorded=True)

    def _turn(
        self, number: int, request: str, decision: Decision, settled: Settled, seconds: float
    ) -> Turn:
        lane = self._catalog.lanes.get(settled.lane or "")
        return Turn(
            number=number,
            request=request,
            answer=settled.answer,
            status=settled.status,
            reason=settled.reason,
            lane=settled.lane,
            tier=None if lane is None else lane.tier,
            model=None if lane is None else lane.model,
            local=lane is not None and self._catalog.is_local(lane.model),
            privacy=decision.preferences.privacy,
            adapter=decision.preferences.adapter,
            cost_micros=settled.cost_micros,
            seconds=seconds,
        )


def bare(agent: str, request: str, preferences: Preferences, catalog: Catalog) -> Decision:
    """A request of an agent without any history.

    Raises:
        InputError: there is no such agent, or the request is empty or too long.
    """
    found = agent_of(catalog, agent)[1]
    try:
        return Decision(
            kind=found.kind, prompt=request, output=output_of(found, catalog), key="?",
            system=found.system, agent_id=agent, preferences=preferences,
        )  # fmt: skip
    except ValueError:
        raise InputError(
            f"a request of {len(request)} characters cannot be asked: give between 1 and 200,000, "
            "none of them NUL"
        ) from None


def _is_open(stored: StoredTurn) -> bool:
    """Whether a request still has no outcome: what was cancelled is asked anew."""
    return stored.settled is None or stored.settled.status is Status.CANCELLED


def _number_of(stored: StoredTurn) -> int:
    return int(stored.decision.key.split(".")[1])


def _try_of(stored: StoredTurn) -> int:
    return int(stored.decision.key.split(".")[2])
