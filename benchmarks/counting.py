"""What each part of being watched takes of a processor: counts, events, a scrape, a fold.

The rate of a whole stack swings by more than these parts cost (overhead_watched.py shows it); so
each is timed by itself, in processor time of this process, by turns with and without, and the
tenth percentile is taken, which other work on the machine hardly moves.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from config.queues import make_app
from config.settings import Settings, load_settings
from ledger import lifecycle
from ledger.answers import find_answered
from ledger.database import migrate, open_ledger
from ledger.metrics import totals
from ledger.metrics.page import Page
from ledger.records import Planned, StoredVerdict, Tried
from ledger.rulings import Ruling, Settlement
from ledger.runs import start_run
from routing.decision import ChoiceOutput, Complexity, Decision, Hop, Plan, Status
from workers.valkey import Valkey, free_port

HERE = Path(__file__).parent
FOREVER_US = 10**12
PLAN = Plan(hops=(Hop(lane="tier1", reason="bench"),), complexity=Complexity.SIMPLE)
VERDICT = StoredVerdict(
    format=1, completeness=1, coherence=1, score=1, passed=True, usable=True, answer="IDLE"
).model_dump_json()


class House:
    """A ledger through which decisions are led, message by message."""

    def __init__(self, folder: Path, *, metrics: bool) -> None:
        self.settings: Settings = load_settings(
            profile=str(HERE / "scripted.toml"), data_dir=folder, metrics=metrics
        )
        migrate(self.settings)
        self.engine = open_ledger(self.settings)
        self._run = start_run(self.engine, mode="bench", profile="scripted", now=0).id
        self._asked = 0

    def message(self, size: int) -> float:
        """Processor seconds of the four transactions that settle ``size`` decisions."""
        output = ChoiceOutput(labels=("CONTINUE", "SWITCH", "IDLE"))
        asked = [
            Decision(kind="next_action", prompt="What next?", output=output, key=f"bench-{n}")
            for n in range(self._asked, self._asked + size)
        ]
        self._asked += size
        token = f"bench-{self._asked}"
        begun = time.process_time()
        planned = [Planned(decision, PLAN) for decision in asked]
        ids = list(lifecycle.submit(self.engine, self._run, planned, 10).ids)
        lifecycle.claim(self.engine, "tier1", ids, token=token, now=20, lease_us=FOREVER_US)
        tried = [Tried(one, "m", "f", raw="IDLE", label="IDLE", tokens_in=100, tokens_out=2,
                       inference_us=1_000) for one in ids]  # fmt: skip
        lifecycle.record(self.engine, token, tried, 30)
        spent = time.process_time() - begun
        attempts = self._attempts(ids)
        ending = Settlement(Status.ACCEPTED, "IDLE", "tier1", "passed")
        rulings = [Ruling(one, 0, attempts[one], VERDICT, 1.0, True, ending) for one in ids]
        begun = time.process_time()
        lifecycle.rule(self.engine, rulings, 50)
        return spent + time.process_time() - begun

    def _attempts(self, ids: Sequence[str]) -> dict[str, str]:
        return {one.id: one.attempt_id for one in find_answered(self.engine, ids)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    repeats = parser.parse_args(arguments).repeats
    with tempfile.TemporaryDirectory(prefix="uptier-bench-") as name:
        folder = Path(name)
        with_counts = House(folder / "with", metrics=True)
        without = House(folder / "without", metrics=False)
        print("processor time, tenth percentiles")
        for size, times in ((50, repeats), (1, 10 * repeats)):
            _compare(with_counts, without, size, times)
        _reading(with_counts, repeats)
        _events(folder, repeats)
    return 0


def _compare(with_counts: House, without: House, size: int, repeats: int) -> None:
    plain, counted = [], []
    for _ in range(repeats):
        plain.append(without.message(size))
        counted.append(with_counts.message(size))
    off, on = (1e6 * _tenth(times) / size for times in (plain, counted))
    print(f"{size:>3} decisions a message: the ledger {off:,.0f} us a decision, its counts "
          f"{on - off:.1f} us")  # fmt: skip


def _reading(house: House, repeats: int) -> None:
    page = Page(house.settings)
    scrape = _tenth([_took(lambda: page.text(fresh=True)) for _ in range(repeats)])
    pages = f"{len(page.text()) / 1000:.0f} kB"
    page.close()
    begun = time.process_time()
    folded = totals.fold(house.engine, totals.known_kinds(house.settings.catalog), limit=10**6)
    fold = (time.process_time() - begun) / max(1, folded)
    print(f"a scrape of {pages} {1e3 * scrape:.1f} ms; folding one transaction's counts "
          f"{1e6 * fold:.0f} us")  # fmt: skip


def _events(folder: Path, repeats: int) -> None:
    """What an event takes to be gathered, and a bundle to be published, on a real Valkey."""
    broker = Valkey(folder / "valkey", folder / "valkey.log", free_port())
    broker.start(lambda: None)
    try:
        app = make_app(load_settings(profile="tiny", data_dir=folder), broker.url)
        with app.connection_for_write() as connection:
            events = app.events.Dispatcher(connection, hostname="bench", buffer_group=["task"])
            events.buffer_limit = 10**6

            def gather() -> None:
                for _ in range(100):
                    events.send("task-received", uuid="0" * 36, name="uptier.decide", args="[]")

            gathered, published = [], []
            for _ in range(repeats):
                gathered.append(_took(gather) / 100)
                published.append(_took(events.flush))
        print(f"an event {1e6 * _tenth(gathered):.0f} us, a bundle of a hundred "
              f"{1e3 * _tenth(published):.2f} ms")  # fmt: skip
        app.close()
    finally:
        broker.stop()


def _took(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _tenth(times: list[float]) -> float:
    return sorted(times)[len(times) // 10]


if __name__ == "__main__":
    sys.exit(main())
