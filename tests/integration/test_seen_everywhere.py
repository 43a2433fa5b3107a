"""Flower, the live view and a run's page at every place: each broker and each database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import dom, find_browser
from cli.page.document import Found, document
from cli.session import Session, session
from config.broker import is_amqp
from config.flower import LOGIN
from ledger.clock import now
from ledger.reports import report
from ledger.run_extremes import slowest, worst_scored
from ledger.run_story import run_story
from routing.decision import ChoiceOutput, Decision
from tests.integration.places import Place
from tests.integration.stacks import wait_until
from workers.flower_place import FlowerRecord
from workers.looking import Looker, take_two
from workers.watched import broker_in_use

PROFILE = str(Path(__file__).parents[1] / "profiles_scripted.toml")


@pytest.fixture(scope="module")
def live(place: Place) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(LOGIN, raising=False)
        settings = place.settings(profile=PROFILE, flower=True, flower_port=0)
        with session(settings, mode="test", own_workers=True) as opened:
            time.sleep(6)  # Flower asks the workers for events every 5 s
            prompts = ["hard one", "hard two", "easy one", "easy two"]
            opened.client.gather(
                [Decision(kind="question", key=p, prompt=p, output=ChoiceOutput(labels=("A", "B")))
                 for p in prompts]
            )  # fmt: skip
            yield opened


def test_flower_sees_the_tasks_and_the_queues(live: Session) -> None:
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium on PATH: install the package chromium, or Chrome")
    found = FlowerRecord.read(live.settings)
    assert found is not None
    url = found.url

    def seen() -> bool:
        return f"tier2: 2 decisions of run {live.run.id}" in dom(browser, f"{url}/tasks")

    wait_until(seen, timeout_s=60)
    if not is_amqp(broker_in_use(live.settings)):  # where Flower asks a plugin, which may be absent
        page = dom(browser, f"{url}/broker")
        assert all(name in page for name in ("tier1", "tier2", "quality", "intake"))


def test_the_live_view_tells_what_went_on(live: Session) -> None:
    with Looker(live.settings) as looker:
        found = take_two(looker, 0.2)
    assert found.problems == []
    assert found.decisions == {"settled": 4}
    assert {lane.name: lane.state for lane in found.lanes}["tier1"] == "serving"
    assert {worker.name for worker in found.workers} >= {"tier1-1", "tier2-1", "quality-1"}
    assert {worker.restarts for worker in found.workers} == {0}
    assert {queue.messages for queue in found.queues} == {0}
    assert found.rates.climbed_share in (0.5, None)  # of the last minute
    assert found.rates.settled_per_s == 0


def test_the_page_of_the_run_adds_up(live: Session) -> None:
    catalog = live.settings.catalog
    story = run_story(live.engine, live.run.id)
    page = document(
        Found(
            report=report(live.engine, live.settings, catalog, live.run), story=story,
            slowest=slowest(live.engine, live.run.id), worst=worst_scored(live.engine, live.run.id),
            catalog=catalog, made_at=now(),
        )
    )  # fmt: skip
    assert sum(one.count for one in story.settled) == 4
    flows = {(f.source[1], f.target[1]): f.count for f in story.flows}
    assert flows["asked", "tier1"] == 4
    assert flows["tier1", "tier2"] == 2
    assert sum(f.count for f in story.flows if f.target[0] < 0) == 4
    assert "hard two" in page
