"""What commands share in showing things to a person."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from config.visible import visible

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """A text of anybody's, such as a kind or a provider's error, as a terminal may have it: nothing
    steers it, hides, or turns the direction of others."""
    return visible(text, keep="\n")


def say(message: str) -> None:
    """A line on standard error, for a person who waits."""
    err.print(message, style="dim" if err.is_terminal else None)


def print_json(text: str) -> None:
    """JSON on standard output as it is, not wrapped or coloured."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def bar() -> Progress:
    """A progress bar on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=err,
        refresh_per_second=4,
    )


def percent(share: float | None) -> str:
    """A share as a percentage, or a dash."""
    return "-" if share is None else f"{100 * share:.1f} %"


def usd(amount: float | None) -> str:
    """Dollars to a hundredth of a cent, or a dash."""
    return "-" if amount is None else f"${amount:,.4f}"


def milliseconds(value: float | None) -> str:
    """Milliseconds, or a dash."""
    return "-" if value is None else f"{value:,.1f} ms"
