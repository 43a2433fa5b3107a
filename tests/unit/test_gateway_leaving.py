"""What is left of a stream whose reader has gone, and what a ledger's refusal is told as."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from sqlalchemy.exc import DataError, OperationalError

from producers.client import Piece
from producers.gateway.errors import fault_of
from producers.gateway.pieces import pieces
from producers.hub import Ended, Ticket
from routing.decision import Decision, Preferences, TextOutput

TOLD = Decision(kind="chat", prompt="?", output=TextOutput(), key="k",
                preferences=Preferences(stream=True))  # fmt: skip


def test_who_leaves_in_mid_stream_leaves_no_task_behind() -> None:
    async def scene() -> None:
        ticket = Ticket(asyncio.get_running_loop().create_future(), TOLD)

        async def answer(_: Ticket) -> Ended:
            return await asyncio.shield(ticket.outcome)

        gate: Any = SimpleNamespace(answer=answer)
        source = pieces(gate, ticket)
        ticket.pieces.put_nowait(Piece("tier1", 1, "Once"))
        assert await anext(source) == "Once"
        waiting = asyncio.ensure_future(anext(source))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scene())


def test_what_the_ledger_cannot_hold_is_the_client_s_fault_and_an_outage_is_not() -> None:
    nul = DataError("", {}, Exception("PostgreSQL text fields cannot contain NUL (0x00) bytes"))
    assert fault_of(nul).status == 400
    assert fault_of(OperationalError("", {}, Exception("connection refused"))).status == 503
