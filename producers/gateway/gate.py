"""The gateway's state, and the way of every question through it: let in, submitted, awaited."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

from config.settings import Settings
from ledger import lookup
from producers.client import Client
from producers.gateway.batching import Batching
from producers.gateway.callers import Caller, Keyring
from producers.gateway.errors import FINAL, LATER_S, Fault, fault_of_settled, unavailable
from producers.gateway.store import Store
from producers.hub import Ended, Hub, Ticket
from routing.decision import Decision

MIB = 1 << 20
CHARS_PER_TOKEN = 3
"""Prompts with fewer characters a token of the smallest context are sent as they are: to count
tokens takes longer than most answers. One that is too long all the same is refused by its lane."""
EXPIRY_S = 5
"""How much longer than its deadline a decision is awaited: the steward settles it then."""


@dataclass(frozen=True)
class Bounds:
    """What the gateway bears."""

    max_concurrent: int = 512
    """Requests under way at once."""
    body_bytes: int = 4 * MIB
    file_bytes: int = 100 * MIB
    timeout_s: float = 600
    """How long a request waits for its answer."""


class Gate:
    """All that the routes share. Made on the loop that serves them."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        keys: Keyring,
        bounds: Bounds,
        check: Callable[[Decision], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.catalog = settings.catalog
        self.client = client
        self.keys = keys
        self.bounds = bounds
        self.check = check
        """Refuses with an InputError what no model can take; may be slow."""
        self._least_context = min(model.context for model in self.catalog.models.values())
        self.hub = Hub(client, settings.catalog)
        self.store = Store(settings.data_dir / "gateway" / "files", time.time)
        self.batching = Batching(settings, client, self.store)
        self._under_way: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """Requests that are being answered."""
        return self._under_way.total()

    @contextmanager
    def admitted(self, caller: Caller) -> Iterator[None]:
        """A place for one request.

        Raises:
            Fault: 503 while nothing can be answered or all places are taken, 429 where the key's
                own are.
        """
        if self.hub.failure is not None:
            raise unavailable(self.hub.failure)
        if self._under_way.total() >= self.bounds.max_concurrent:
            raise unavailable(f"{self.bounds.max_concurrent} requests are under way: try later")
        most = caller.max_concurrent
        if most is not None and self._under_way[caller.name] >= most:
            raise Fault(
                429, f"{most} requests of this key are under way: try later", kind="requests",
                code="rate_limit_exceeded", headers={"retry-after": str(LATER_S)},
            )  # fmt: skip
        self._under_way[caller.name] += 1
        try:
            yield
        finally:
            self._under_way[caller.name] -= 1
            if not self._under_way[caller.name]:
                del self._under_way[caller.name]

    async def submit(self, decision: Decision, *, kept: bool = False) -> Ticket:
        """Have a decision checked and submitted; one that is ``kept`` has a key of its asker's.

        Raises:
            InputError: it cannot be answered as it is asked.
            Fault: 409 where its key was another question's.
            StackError: nothing can be answered now.
        """
        chars = len(decision.system) + len(decision.prompt)
        if chars >= CHARS_PER_TOKEN * self._least_context:
            await asyncio.to_thread(self.check, decision)
        ticket = await self.hub.submit(decision, kept=kept)
        if kept:
            try:
                await self._require_same(ticket.id, decision)
            except BaseException:
                self.hub.leave(ticket)
                raise
        return ticket

    async def _require_same(self, decision_id: str, decision: Decision) -> None:
        """Nobody is to be given the answer to another question, silently."""
        if not await asyncio.to_thread(lookup.asks, self.client.engine, decision_id, decision):
            raise Fault(409, "this key was another question's: ask with a new one",
                        param="key", code="idempotency_conflict", headers=FINAL)  # fmt: skip

    async def reply(self, ticket: Ticket) -> Ended:
        """The end of a decision, with or without an answer.

        Raises:
            Fault: 504 where it takes too long.
            StackError: the workers died for good.
        """
        limit = self.bounds.timeout_s
        own = None if ticket.decision is None else ticket.decision.deadline_s
        try:
            async with asyncio.timeout(limit if own is None else min(limit, own + EXPIRY_S)):
                return await asyncio.shield(ticket.outcome)
        except TimeoutError:
            raise Fault(504, "no answer in time", code="deadline_passed", kind="server_error",
                        headers={"x-should-retry": "false"}) from None  # fmt: skip

    async def answer(self, ticket: Ticket) -> Ended:
        """The end of a decision that was answered.

        Raises:
            Fault: as :meth:`reply`, and where it ended without an answer.
        """
        found = await self.reply(ticket)
        fault = fault_of_settled(found.settled, headers_of(found, self.client.run.id))
        if fault is not None:
            raise fault
        return found

    def close(self) -> None:
        """End the threads beneath."""
        self.batching.close()
        self.hub.close()


def headers_of(ended: Ended, run_id: str) -> dict[str, str]:
    """What the headers of an answer tell: who answered, how it ended, what it cost."""
    settled, usage = ended.settled, ended.usage
    found = {
        "x-uptier-decision": settled.id,
        "x-uptier-run": run_id,
        "x-uptier-status": settled.status.value,
        "x-uptier-tier": usage.tier,
        "x-uptier-lane": settled.lane,
        "x-uptier-model": usage.model,
        "x-uptier-attempts": str(usage.attempts),
        "x-uptier-climbs": str(settled.climbs),
        "x-uptier-cost-usd": f"{Decimal(settled.cost_micros) / 1_000_000:.6f}",
    }
    return {name: value for name, value in found.items() if value}
