"""What whole plans came to below the bar: when it is kept, and that it counts as served."""

from __future__ import annotations

from pathlib import Path

from ledger import cache
from ledger.cache_stats import cache_stats
from ledger.reports import report
from ledger.runs import find_run
from routing.decision import ChoiceOutput, Status
from tests.unit.house import House
from tests.unit.ledgers import rows

LADDER = """
[lanes.tier1]
tier = "low"
model = "fast"
[lanes.tier2]
tier = "high"
model = "better"
[models.fast]
backend = "scripted"
[[models.fast.script.lines]]
contains = "broken"
fail = "out of order"
retryable = false
[[models.fast.script.lines]]
answer = "A"
p = 0.51
[models.better]
backend = "scripted"
[[models.better.script.lines]]
answer = "B"
p = 0.51
[kinds.easy]
tier = "low"
output = "choice"
labels = ["A", "B"]
cache = true
[kinds.weighed]
tier = "low"
output = "choice"
labels = ["A", "B"]
cache = true
critique = true
"""


def test_only_what_every_lane_has_answered_is_kept_below_the_bar(tmp_path: Path) -> None:
    house = House(tmp_path, LADDER, knowing=True)
    labels = ChoiceOutput(labels=("A", "B"))
    for kind, prompt, kept in (("easy", "broken", 0), ("weighed", "hard", 0), ("easy", "hard", 1)):
        assert house.ask(kind, prompt, labels, key=f"{kind} {prompt}").status is Status.DEGRADED
        assert len(rows(house.engine, "cache_entry")) == kept
    house.close()


def test_what_the_cache_gave_below_the_bar_counts_as_served(tmp_path: Path) -> None:
    house = House(tmp_path, LADDER, knowing=True)
    labels = ChoiceOutput(labels=("A", "B"))
    first, again = (house.ask("easy", "hard", labels, key=key) for key in "ab")
    assert first.reason != again.reason == cache.BELOW
    assert (first.status, first.answer) == (again.status, again.answer)
    catalog, run = house.settings.catalog, find_run(house.engine, house.run)
    assert run is not None
    assert report(house.engine, house.settings, catalog, run).cache_share == 0.5
    assert cache_stats(house.engine, catalog, "none").by_kind["easy"].served == 1
    house.close()
