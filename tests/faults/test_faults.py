"""Every fault in its short form: nothing is lost, done twice, or billed twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.ground import Grounds
from tests.faults.performance import in_order, leftovers, play
from tests.faults.scene import Scene

SEED = 7


@pytest.fixture(scope="module")
def grounds() -> Iterator[Grounds]:
    with Grounds(SEED) as opened:
        yield opened


@pytest.mark.timeout(150)
@pytest.mark.parametrize("scene", in_order(short=True), ids=lambda s: f"{s.number} {s.title}")
def test_nothing_is_lost_or_doubled_or_billed_twice(scene: Scene, grounds: Grounds) -> None:
    outcome = play(scene, grounds, short=True, rounds=None, tell=print)
    assert outcome.held, outcome.story()


@pytest.mark.timeout(120)
def test_the_brokers_are_empty_after_all_faults(grounds: Grounds) -> None:
    assert list(leftovers(grounds)) == []
