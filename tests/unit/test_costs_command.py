"""``uptier costs``: its figures, its files, its exit codes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import main
from ledger.reports import report
from tests.unit.costs_house import AB, CostsHouse


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CostsHouse]:
    house = CostsHouse(tmp_path_factory.mktemp("costs"))
    house.live()
    yield house
    house.close()


@pytest.fixture
def house(lived: CostsHouse, monkeypatch: pytest.MonkeyPatch) -> CostsHouse:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(lived.settings.data_dir))
    monkeypatch.setenv("UPTIER_PROFILE", lived.settings.profile)
    return lived


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("UPTIER_PROFILE", raising=False)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main.run(["costs", *map(str, arguments)])
    got = capsys.readouterr()
    return status, got.out, got.err


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    status, out, _ = run(capsys, *arguments, "--json")
    assert status == 0
    return json.loads(out)


def test_the_report_of_a_run(house: CostsHouse, capsys: pytest.CaptureFixture[str]) -> None:
    known = report(house.engine, house.settings, house.catalog, house.info)
    found = told(capsys, "report", "--run", house.run, "--by", "lane")
    total = found["total"]
    assert (total["cost_usd"], total["api_only_usd"]) == (known.cost_usd, known.all_cloud_cost_usd)
    assert total["savings_share"] == pytest.approx(known.savings_share)
    assert found["reference_model"] == "cloud"
    assert set(found["roles"]) == {"question", "critique", "vote", "classification", "audit"}
    assert set(found["groups"]) == {"tier1", "tier1.two", "tier3"}
    assert total["success_rate"] == pytest.approx((total["calls"] - 2) / total["calls"])
    status, out, _ = run(capsys, "report", "--run", house.run)
    assert status == 0
    assert "sent to the API by routing" in out
    assert "cached 1" in out


def test_a_kind_and_a_time_narrow_it(house: CostsHouse, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "report", "--topic", "routed")["total"]["calls"] == 2
    assert set(told(capsys, "report", "--kind", "routed", "--by", "kind")["groups"]) == {"routed"}
    whole, recent = told(capsys, "report"), told(capsys, "report", "--since", "1h")
    assert recent["total"] == whole["total"]
    assert (recent["since"], whole["since"]) == ("1h", "all")


def test_another_reference_is_another_price(
    house: CostsHouse, capsys: pytest.CaptureFixture[str]
) -> None:
    swarm = told(capsys, "report", "--profile", "swarm", "--reference", "gpt-4o")["total"]
    own = told(capsys, "report")["total"]
    assert swarm["api_only_usd"] > 8 * own["api_only_usd"]
    assert swarm["cost_usd"] == own["cost_usd"]


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_an_exported_log_is_summed_up_alike(
    house: CostsHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / name
    status, out, said = run(capsys, "export", path, "--run", house.run)
    assert (status, out) == (0, "")
    assert "records" in said
    ledger, log = told(capsys, "report"), told(capsys, "import", path)
    assert [path.name] == [one.name for one in tmp_path.iterdir()]
    for part in ("total", "roles", "groups", "first", "last"):
        assert log[part] == ledger[part]
    days = ("--days", "2")
    [by_log] = told(capsys, "project", "--usage", path, *days)
    [by_run] = told(capsys, "project", "--run", house.run, *days)
    differing = {name for name in by_log if by_log[name] != by_run[name]}
    assert differing == {"workload"}
    assert by_log["references"][0]["cost"]["daily"] == pytest.approx(
        ledger["total"]["api_only_usd"] / 2
    )
    assert by_log["fallback_share"] == pytest.approx(
        ledger["total"]["fell_back_to_api"]
        / (ledger["total"]["answers"] - ledger["total"]["routed_to_api"])
    )


def test_a_log_goes_through_a_pipe(
    house: CostsHouse, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, _ = run(capsys, "export", "-", "--format", "csv")
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["kind"] for row in rows} >= {"easy", "routed"}
    assert {row["cost_usd"] for row in rows} == {"0.000000", "0.000002"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(out.encode())))
    found = told(capsys, "import", "-", "--format", "csv")
    assert found["total"] == told(capsys, "report")["total"]


def test_targets_missed_are_told_by_the_exit_code(
    house: CostsHouse, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "check", "--run", house.run, "--json")
    assert status == 1
    found = json.loads(out)
    assert not found["met"]
    assert found["api"]["routed"] == 2
    assert found["api"]["fell_back"] == 5
    status, out, _ = run(capsys, "check")
    assert status == 1
    assert "the last 7d" in out
    assert "missed" in out


def test_a_profile_sets_its_own_targets(
    house: CostsHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    easy = tmp_path / "easy.toml"
    targets = "[targets]\nsavings = 0\npass_rate = 0\nfallback = 1\nlocal = 0\ncritique = 0.4\n"
    easy.write_text(Path(house.settings.profile).read_text() + targets)
    status, out, _ = run(capsys, "check", "--profile", easy, "--json")
    assert status == 0
    assert json.loads(out)["met"]
    easy.write_text(easy.read_text() + "latency_ms = -1\n")
    status, _, said = run(capsys, "check", "--profile", easy)
    assert status == 2
    assert "targets.latency_ms" in said


def test_an_empty_ledger_has_nothing_to_say(
    nothing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, "report")
    assert (found["total"]["calls"], found["total"]["savings_share"], found["groups"]) == (
        0, None, {},
    )  # fmt: skip
    status, out, _ = run(capsys, "check")
    assert status == 0
    assert out.count("not measured") == 9
    assert run(capsys, "export", nothing / "none.jsonl")[0] == 0
    assert (nothing / "none.jsonl").read_text() == ""


def test_projections(nothing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "project", "--profile", "swarm")
    assert [one["workload"] for one in found] == ["light", "medium", "heavy"]
    costs = [(one["references"][0]["cost"]["total"], one["cost"]["total"]) for one in found]
    assert costs == [(3.258, 0.4194), (14.22, 1.9935), (39.825, 10.11375)]
    status, out, _ = run(capsys, "project", "--profile", "swarm")
    assert status == 0
    for amount in ("$3.26", "$0.42", "$14.22", "$1.99", "$39.83", "$10.11"):
        assert amount in out
    assert "Expected     local_fast 20 (40.0 %), local_quality 17 (35.0 %)" in out
    assert list(nothing.iterdir()) == []
    status, out, _ = run(capsys, "project", "eddt")
    assert "$2,808.00" in out
    assert "$234.00" in out
    assert "cloud tier3" in out


def test_each_option_of_a_workload_changes_it(
    nothing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    light = ("project", "light", "--profile", "swarm")
    [usual] = told(capsys, *light)
    for option, field, value in (
        (("--fallback", ".1"), "fallback_share", 0.1),
        (("--iterations", "100"), "iterations", 100),
        (("--days", "7"), "days", 7),
        (("--no-whole-calls",), "calls", 50),
    ):
        [changed] = told(capsys, *light, *option)
        assert usual[field] != changed[field] == value
    [half] = told(capsys, *light, "--fallback", ".1")
    assert half["fallback"]["daily"] == pytest.approx(2 * usual["fallback"]["daily"])
    mine = ("project", "--mix", "run=1", "--iterations", "10", "--profile", "swarm")
    assert told(capsys, *mine, "--fallback", "0")[0]["cost"]["daily"] == 0
    for option in (("--tokens", "10+10"), ("--output-share", ".5")):
        assert told(capsys, *light, *option)[0]["cost"] != usual["cost"]


def test_names_of_a_log_are_shown_as_they_are(
    nothing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nothing / "log.jsonl"
    path.write_text(json.dumps(json.loads(GOOD) | {"tier": "[/b]x", "kind": "$\\k$"}))
    picture = nothing / "a.png"
    assert run(capsys, "import", path, "--by", "kind", "--plot", picture)[0] == 0
    assert picture.is_file()
    for words in (("import", path), ("project", "--usage", path, "--days", "1")):
        status, out, said = run(capsys, *words)
        assert (status, said) == (0, "")
        assert "[/b]x" in out


def test_pictures(house: CostsHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("report.png", "project.png", "usage.png")]
    assert run(capsys, "report", "--by", "kind", "--plot", paths[0])[0] == 0
    assert run(capsys, "project", "--profile", "swarm", "--plot", paths[1])[0] == 0
    assert run(capsys, "project", "--run", house.run, "--plot", paths[2])[0] == 0
    assert {path.read_bytes()[:8] for path in paths} == {b"\x89PNG\r\n\x1a\n"}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}


def test_a_missing_extra_is_said_before_anything_is_done(
    house: CostsHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    status, out, said = run(capsys, "report", "--plot", tmp_path / "a.png")
    assert (status, out) == (2, "")
    assert "pip install 'uptier[plot]'" in said


GOOD = '{"prompt_tokens": 100, "completion_tokens": 10, "cost_usd": "0.001", "tier": "t"}'


def test_a_log_with_a_malformed_line(nothing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = nothing / "log.jsonl"
    path.write_text(f"{GOOD}\nnonsense\n{GOOD}\n")
    status, out, said = run(capsys, "import", path, "--json")
    assert status == 1
    assert json.loads(out)["total"]["calls"] == 2
    assert json.loads(out)["total"]["cost_usd"] == 0.002
    assert said.startswith("line 2: ")
    status, out, said = run(capsys, "project", "--usage", path, "--days", "30", "--json")
    assert status == 1
    assert json.loads(out)[0]["cost"]["yearly"] == pytest.approx(0.002 / 30 * 365)
    assert "line 2" in said


def test_a_log_that_tells_no_time_needs_days(
    nothing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nothing / "log.jsonl"
    path.write_text(GOOD)
    status, _, said = run(capsys, "project", "--usage", path)
    assert status == 2
    assert "--days" in said
    assert told(capsys, "project", "--usage", path, "--days", "0.5")[0]["calls"] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["report", "--run", "nowhere"], "'nowhere' is not in the ledger"),
        (["report", "--since", "yesterday"], "--since 'yesterday'"),
        (["report", "--since", "0h"], "--since '0h'"),
        (["report", "--since", "999999999w"], "--since"),
        (["report", "--kind", "unheard"], "--kind 'unheard'"),
        (["report", "--by", "colour"], "--by"),
        (["report", "--reference", "gpt-9"], "'gpt-9' is not in profile"),
        (["report", "--plot", "a.gif"], "ends in .png"),
        (["report", "--profile", "nowhere"], "profile 'nowhere'"),
        (["check", "--run", "nowhere"], "not in the ledger"),
        (["export", "a.xlsx"], "neither .jsonl nor .csv"),
        (["export", "a.jsonl", "--format", "xml"], "--format 'xml'"),
        (["export", "{tmp}/no/folder.jsonl"], "cannot be written"),
        (["import", "{tmp}/none.jsonl"], "cannot be read"),
        (["import", "{tmp}/empty.jsonl"], "it is empty"),
        (["import", "{tmp}/words.jsonl"], "no usage record as jsonl (line 1"),
        (["import", "{tmp}/words.csv"], "no usage record as csv"),
        (["import", "{tmp}"], "neither .jsonl nor .csv"),
        (["project", "busy"], "workload 'busy'"),
        (["project", "--mix", "run=1"], "--iterations"),
        (["project", "--fallback", "2"], "--fallback"),
        (["project", "light", "--kind", "run"], "--kind 'run' narrows"),
        (["project", "light", "--format", "csv"], "--format 'csv'"),
        (["export", "{tmp}/log.csv", "--kind", "unheard"], "--kind 'unheard'"),
        (["project", "--since", "7d"], "no usage that could be projected"),
        (["project", "light", "--since", "7d"], "all but --days"),
        (["project", "--usage", "{tmp}/a.jsonl", "--run", "x"], "name one of them"),
        (["project", "--since", "7d", "--days", "0"], "--days 0"),
        (["project", "--since", "7d", "--days", "nan"], "--days nan"),
        (["project", "--cloud", "gpt-9"], "--cloud 'gpt-9'"),
    ],
)
def test_wrong_input_is_one_line(
    nothing: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (nothing / "empty.jsonl").write_text("")
    for name in ("words.jsonl", "words.csv"):
        (nothing / name).write_text("some words\nand more\n")
    before = set(nothing.iterdir())
    status, out, said = run(capsys, *(one.format(tmp=nothing) for one in arguments))
    assert (status, out) == (2, "")
    [line] = said.splitlines()
    assert says in line
    assert set(nothing.iterdir()) - before <= {nothing / "data"}


def test_what_was_written_before_stays_when_writing_fails(
    house: CostsHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / "log.jsonl"
    path.write_text("of old")

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("producers.costs_log.as_object", full)
    status, _, said = run(capsys, "export", path)
    assert status == 2
    assert "No space left on device" in said
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("log.jsonl", "of old")]


def test_a_house_that_goes_on_is_reported_as_it_is_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = CostsHouse(tmp_path)
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UPTIER_PROFILE", own.settings.profile)
    own.ask("routed", "one", AB)
    first = told(capsys, "report")["total"]
    own.ask("routed", "two", AB)
    assert told(capsys, "report")["total"]["cost_usd"] == 2 * first["cost_usd"]
    own.close()
