"""How a session looks: answers as they come, a line for each, and a report at its end."""

from __future__ import annotations

import sys
import unicodedata

from cli.output import out, percent, usd
from producers.nodespace.history import Turn
from producers.nodespace.summary import SessionSummary, summary
from producers.streaming import Piece

LONGEST_SHOWN = 60
"""Characters of a request in lists."""


class Screen:
    """Shows one answer after another on standard output; ``quiet`` shows none of it."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shown = ""
        self._writer: tuple[str, int] | None = None

    def piece(self, piece: Piece) -> None:
        """The next part of a text; what another lane or attempt wrote before it is void."""
        writer = (piece.lane, piece.attempt)
        if self._writer not in (None, writer):
            self._void(f"{piece.lane} writes anew")
        self._writer = writer
        self._shown += piece.text
        self._write(piece.text)

    def turn(self, turn: Turn) -> None:
        """The answer that counts, as far as it is not on the screen, and what it took."""
        if turn.answer.startswith(self._shown):
            self._write(turn.answer[len(self._shown) :])
        else:
            self._void("this is the answer that counts")
            self._write(turn.answer)
        if not turn.answer:
            self._write(f"no answer: {turn.reason}")
        self._write(f"\n  [{figures(turn)}]\n\n")
        self._shown, self._writer = "", None

    def broken_off(self) -> None:
        """The request that was under way is given up."""
        self._write("\n  [given up]\n\n")
        self._shown, self._writer = "", None

    def line(self, text: str) -> None:
        """A line of the session's own."""
        self._write(f"{text}\n")

    def _void(self, why: str) -> None:
        if self._shown:
            self._write(f"\n  [the text above did not pass; {why}]\n")
        self._shown = ""

    def _write(self, text: str) -> None:
        if not self._quiet:
            sys.stdout.write(printable(text))
            sys.stdout.flush()


def printable(text: str) -> str:
    """Text that changes nothing of a terminal but what it shows."""
    kept = (c for c in text if c in "\n\t" or not unicodedata.category(c).startswith("C"))
    return "".join(kept)


def figures(turn: Turn) -> str:
    """Where an answer came from and what it took, as one line."""
    place = "no lane" if turn.tier is None else f"{turn.tier}, {turn.model}"
    adapter = f" with {turn.adapter}" if turn.adapter else ""
    private = f", privacy {turn.privacy.value}" if turn.privacy.stays_home else ""
    again = ", from the ledger" if turn.recorded else ""
    return (
        f"{place}{adapter}{private}, {turn.status.value}, {usd(turn.cost_micros / 1_000_000)}, "
        f"{turn.seconds:.1f} s{again}"
    )


def history(turns: list[Turn]) -> list[str]:
    """The requests so far, one a line."""
    lines = [f"{turn.number:>3}  {_short(turn.request)}  [{figures(turn)}]" for turn in turns]
    return lines or ["nothing was asked yet"]


def cost_line(turns: list[Turn], ceiling: object) -> str:
    """What a session has cost."""
    found = summary(turns)
    bound = "none" if ceiling is None else f"${ceiling}"
    return (
        f"{usd(found.cost_usd)} for {found.requests} requests, the dearest "
        f"{usd(found.dearest_usd)}; bound for one: {bound}"
    )


def print_summary(found: SessionSummary, turns: list[Turn], total_usd: float) -> None:
    """The report of a session; ``total_usd`` counts what was asked beside its requests."""
    for line in history(turns):
        out.print(line, markup=False)
    out.print(f"Requests        {found.requests}, answered {found.answered}")
    out.print(f"On this machine {percent(found.local_share)} of answers; {found.private} private")
    out.print(f"Streamed        {found.streamed}")
    for name, count in found.by_adapter.items():
        out.print(f"Adapter         {name}: {count}")
    out.print(f"Cost            {usd(total_usd)}, of it {usd(found.cost_usd)} for the answers")
    out.print(f"Time            {found.seconds:.1f} s of answering")


def _short(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST_SHOWN else f"{line[: LONGEST_SHOWN - 1]}\u2026"
