"""``uptier costs`` on what real workers did, on SQLite and PostgreSQL; a stand-in provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli import main
from cli.session import session
from config.load import load_catalog
from ledger.reports import Report, report
from routing.decision import ChoiceOutput, Decision, Status
from tests.integration.conftest import not_here
from tests.integration.places import Absent, place_of
from tests.standin import MessagesStandin, Reply, fault, message

PROFILE = Path(__file__).parents[1] / "profiles_paid.toml"
AB = ChoiceOutput(labels=("A", "B"))
PROMPTS = {
    "question": ("one", "two", "three", "hard", "hard nobody knows", "hard nobody knows either"),
    "conflict": ("first", "second", "refuse me"),
}
"""By kind: the last two questions fall back to the API, and all conflicts are sent there."""


def provider(_number: int, body: Reply) -> Reply:
    """Refuses what asks for it and answers the rest."""
    if "refuse me" in str(body["messages"]):
        return fault(400, "invalid_request_error")
    return message("B", tokens_in=200, tokens_out=10)


@dataclass
class Done:
    """A run that is over: where it is, its own report, and what the provider took."""

    env: dict[str, str]
    run: str
    report: Report
    billed: int


@pytest.fixture(scope="module", params=["embedded", "postgres"])
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Done]:
    with ExitStack() as undo:
        try:
            place = undo.enter_context(place_of(request.param, tmp_path_factory.mktemp("costs")))
        except Absent as error:
            not_here(str(error))
        patch = undo.enter_context(pytest.MonkeyPatch.context())
        standin = undo.enter_context(MessagesStandin(provider))
        patch.setenv("ANTHROPIC_API_KEY", "sk-test")
        patch.setenv("ANTHROPIC_BASE_URL", standin.url)
        settings = place.settings(profile=str(PROFILE))
        with session(settings, mode="test", own_workers=True) as live:
            settled = live.client.gather(
                [Decision(kind=kind, prompt=prompt, output=AB, key=prompt)
                 for kind, prompts in PROMPTS.items() for prompt in prompts],
                timeout_s=60,
            )  # fmt: skip
            assert {one.status for one in settled} <= {Status.ACCEPTED, Status.DEGRADED}
            found = report(live.engine, settings, load_catalog(str(PROFILE)), live.run)
        billed = sum(bill.micros for bill in standin.bills)
        yield Done(place.env | {"UPTIER_PROFILE": str(PROFILE)}, found.run, found, billed)


@pytest.fixture
def costs(done: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command on the finished run's ledger; its exit status and its JSON."""
    for name, value in done.env.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> tuple[int, Any]:
        status = main.run(["costs", *arguments])
        out = capsys.readouterr().out
        return status, json.loads(out) if out else None

    return call


def test_the_reports_cost_is_the_bill(done: Done, costs: Any) -> None:
    status, found = costs("report", "--run", done.run, "--by", "kind", "--json")
    total = found["total"]
    assert status == 0
    assert round(total["cost_usd"] * 1e6) == done.billed > 0
    assert total["cost_usd"] == done.report.cost_usd
    assert total["api_only_usd"] == done.report.all_cloud_cost_usd
    assert total["savings_share"] == pytest.approx(done.report.savings_share)
    assert (total["routed_to_api"], total["fell_back_to_api"]) == (2, 2)
    assert total["calls"] == sum(use.attempts for use in done.report.lanes.values())
    assert found["groups"]["conflict"]["success_rate"] < 1
    assert found["total"]["average_score"] > 0.7
    assert costs("report", "--since", "1h", "--json")[1]["total"] == total
    assert costs("report", "--run", "nowhere")[0] == 2


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_its_log_says_the_same(done: Done, costs: Any, tmp_path: Path, name: str) -> None:
    log = str(tmp_path / name)
    assert costs("export", log, "--run", done.run) == (0, None)
    for by in ("tier", "model", "lane", "kind", "day", "run"):
        _, ledger = costs("report", "--run", done.run, "--by", by, "--json")
        status, read = costs("import", log, "--by", by, "--json")
        assert status == 0
        assert {part: read[part] for part in ("total", "roles", "groups")} == {
            part: ledger[part] for part in ("total", "roles", "groups")
        }
    _, [drawn] = costs("project", "--usage", log, "--days", "1", "--json")
    assert drawn["cost"]["yearly"] == pytest.approx(365 * done.billed / 1e6)
    _, [by_run] = costs("project", "--run", done.run, "--days", "1", "--json")
    assert drawn["references"] == by_run["references"]


def test_its_targets(done: Done, costs: Any) -> None:
    status, found = costs("check", "--run", done.run, "--json")
    words = {one["name"]: one["word"] for one in found["targets"]}
    assert status == 1
    assert words["cost a week"] == words["budgets overrun"] == "met"
    assert words["fell back to the API"] == words["pass rate"] == "missed"
    assert words["critics said yes"] == "not measured"
    assert found["api"] == {
        "answered": found["api"]["answered"], "routed": 2,
        "routed_share": pytest.approx(2 / found["api"]["answered"]), "fell_back": 2,
        "fell_back_share": pytest.approx(2 / (found["api"]["answered"] - 2)),
    }  # fmt: skip
    recent = costs("check", "--since", "1h", "--json")[1]
    assert recent["targets"] == found["targets"] or recent["targets"][2]["of"] > 1
