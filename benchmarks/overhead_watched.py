"""What being watched costs: decisions per second with metrics and events, and without either.

Two stacks side by side, each with its own broker, ledger and workers; they take turns, so that
whatever the machine does meets both. With: counts in the ledger, Celery's events, and a scrape of
the page every 5 seconds. Rates are medians with quartiles; ratios are medians over the pairs of
turns with their 95 % bounds. Processor time is that of all processes for one decision.
"""

from __future__ import annotations

import statistics
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
from scipy.stats import binom

from cli.output import say
from cli.session import Session, session
from config.settings import load_settings
from routing.decision import CacheScope
from workers.stack_state import StackState
from workers.valkey import free_port

SCRAPE_S = 5.0
FEWEST_PAIRS = 6
"""Below it even the least and the greatest ratio are no bounds of 95 %."""
WITHOUT = {"metrics": False, "task_events": False}
Rate = Callable[[Session, int, int], float]


def watched(folder: Path, profile: str, rate: Rate, pairs: int, sizes: dict[int, int]
            ) -> dict[str, Any]:  # fmt: skip
    """Ratios with to without by decisions a message; ``sizes`` has how many decisions a turn, 0
    for none."""
    with ExitStack() as undo:
        plain = undo.enter_context(_stack(folder / "without", profile, **WITHOUT))
        port = free_port()
        live = undo.enter_context(
            _stack(folder / "with", profile, metrics_port=port, task_events=True)
        )
        scraper = undo.enter_context(_scraped(port))
        for one in (plain, live):
            rate(one, 400, 50)
        return {str(size): _compare(plain, live, scraper, rate, pairs, size, count)
                for size, count in sizes.items() if count}  # fmt: skip


def _compare(
    plain: Session,
    live: Session,
    scraper: Scraper,
    rate: Rate,
    pairs: int,
    size: int,
    count: int,
) -> dict[str, Any]:
    turns: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
    for number in range(pairs):
        say(f"{size} a message: pair {number + 1} of {pairs}")
        order = [("with", live), ("without", plain)]
        for name, one in order if number % 2 else reversed(order):  # drift meets both
            with scraper.at_work() if one is live else nullcontext():
                before = _cpu_s(one)
                per_s = rate(one, count, size)
            turns[name].append((per_s, (_cpu_s(one) - before) / count))
    rates = {name: [per_s for per_s, _ in found] for name, found in turns.items()}
    cpu = {name: [spent for _, spent in found] for name, found in turns.items()}
    return {
        "with_per_s": _spread(rates["with"]),
        "without_per_s": _spread(rates["without"]),
        "ratio": _sure([a / b for a, b in zip(rates["with"], rates["without"], strict=True)]),
        "with_cpu_ms": _spread([1000 * s for s in cpu["with"]]),
        "without_cpu_ms": _spread([1000 * s for s in cpu["without"]]),
        "cpu_ratio": _sure([a / b for a, b in zip(cpu["with"], cpu["without"], strict=True)]),
    }


@contextmanager
def _stack(folder: Path, profile: str, **more: Any) -> Iterator[Session]:
    settings = load_settings(profile=profile, data_dir=folder, log_level="WARNING", **more)
    with session(settings, mode="bench", cache=CacheScope.OFF) as live:
        yield live


class Scraper:
    """Reads the page three times as often as deploy/prometheus does, while it is at work.

    The page is made by the process that measures, whose time counts on both sides: so nobody reads
    it while the other side has its turn.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._on = threading.Event()
        self.done = threading.Event()
        self._fault: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """It scrapes meanwhile.

        Raises:
            RuntimeError: a scrape failed, and nothing was measured with scrapes.
        """
        self._on.set()
        try:
            yield
        finally:
            self._on.clear()
        if self._fault is not None:
            raise RuntimeError(f"{self._url} could not be read: {self._fault}")

    def _run(self) -> None:
        while not self.done.is_set() and self._fault is None:
            if self._on.wait(0.1):
                try:
                    with urllib.request.urlopen(self._url, timeout=10) as page:
                        assert b"uptier_ledger_up 1.0" in page.read()
                except Exception as fault:
                    self._fault = fault
                self.done.wait(SCRAPE_S)


@contextmanager
def _scraped(port: int) -> Iterator[Scraper]:
    scraper = Scraper(port)
    scraper.thread.start()
    try:
        yield scraper
    finally:
        scraper.done.set()
        scraper.thread.join()


def _cpu_s(live: Session) -> float:
    """Processor time of the client and of all processes of its stack so far, in seconds."""
    state = StackState.read(live.settings.stack_dir)
    assert state is not None
    records = [w.process for w in state.workers] + [state.broker]
    found = [psutil.Process()]
    for record in records:
        if record is not None:
            process = psutil.Process(record.pid)
            found += [process, *process.children(recursive=True)]
    return sum(p.cpu_times().user + p.cpu_times().system for p in found)


def _spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def _sure(values: list[float]) -> dict[str, float]:
    """The median, and between which it lies with 95 % confidence: by order statistics, which ask
    for no distribution (David and Nagaraja, Order Statistics, 7.1)."""
    ordered = sorted(values)
    place = max(0, int(binom.ppf(0.025, len(ordered), 0.5)) - 1)
    return {"median": statistics.median(ordered), "low": ordered[place],
            "high": ordered[-1 - place]}  # fmt: skip


def table(figures: dict[str, Any]) -> str:
    """The figures as lines to read."""
    rows = []
    for size, found in figures.items():
        for title, key, digits in (
            ("decisions a second, watched", "with_per_s", 0),
            ("decisions a second, unwatched", "without_per_s", 0),
            ("ratio", "ratio", 3),
            ("processor ms a decision, watched", "with_cpu_ms", 3),
            ("processor ms a decision, unwatched", "without_cpu_ms", 3),
            ("ratio", "cpu_ratio", 3),
        ):
            middle, *between = (
                f"{found[key][name]:,.{digits}f}" for name in ("median", "low", "high")
            )
            rows.append(f"{size:>3} a message: {title:<36}{middle:>9}  ({' to '.join(between)})")
    return "\n".join(rows)
