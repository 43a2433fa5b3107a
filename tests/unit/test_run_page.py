"""A run's report as a page: its figures are the ledger's, and no text of it is more than text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from benchmarks.browser import dom, find_browser
from cli import main
from cli.page.document import Found, document
from cli.page.drawing import count, duration, money, ticks, time_ticks
from cli.page.markup import escaped
from ledger.database import writing
from ledger.reports import report
from ledger.run_extremes import FEW, MOST_CHARS, slowest, worst_scored
from ledger.run_story import BINS, CONFIDENCES, run_story
from ledger.runs import find_run
from routing.decision import ChoiceOutput, Privacy, TextOutput
from tests.unit.house import House
from tests.unit.ledgers import rows

AB = ChoiceOutput(labels=("A", "B"))
EVIL = (
    "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)>"
    "\"'><svg onload=alert(3)> javascript:alert(4) &lt;b&gt; ]]> <!-- \x1b[31m \u202eexe.txt"
)
TOP = 'reference_model = "best"'
PROFILE = """
[lanes.tier1]
tier = "low"
model = "fast"
[lanes.tier2]
tier = "high"
model = "best"
[models.fast]
backend = "scripted"
[models.best]
backend = "scripted"
price = { input = "3", output = "15" }
[kinds.question]
tier = "low"
output = "choice"
labels = ["A", "B"]
cache = true
[kinds.note]
tier = "low"
output = "text"
[kinds.self_critique]
tier = "low"
output = "choice"
labels = ["yes", "no"]
"""
LINES = """
[[models.fast.script.lines]]
contains = "hard"
answer = "A"
p = 0.51
[[models.fast.script.lines]]
contains = "broken"
fail = "<b>out of order</b>"
retryable = false
[[models.fast.script.lines]]
kind = "note"
answer = '''<script>alert("model")</script> <img src="http://evil.example/x.png">'''
[[models.fast.script.lines]]
answer = "A"
p = 0.9
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, PROFILE + LINES, top=TOP)
    yield made
    made.close()


def live(house: House) -> None:
    """A run with every kind of ending that a page shows."""
    for number in range(4):
        house.ask("question", f"easy {number}", AB)
        house.ask("question", f"hard {number}", AB)
    house.ask("question", "easy 0", AB, key="again")
    house.ask("question", "broken", AB)
    with writing(house.engine) as connection:
        connection.execute(text("UPDATE decision SET expected = 'A' WHERE kind = 'question'"))


def found_of(house: House, **more: Any) -> Found:
    info = find_run(house.engine, house.run)
    assert info is not None
    catalog = house.settings.catalog
    return Found(
        report=report(house.engine, house.settings, catalog, info),
        story=run_story(house.engine, house.run), slowest=slowest(house.engine, house.run),
        worst=worst_scored(house.engine, house.run), catalog=catalog, made_at=0, **more,
    )  # fmt: skip


class Page(HTMLParser):
    """The elements and attributes of a page as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def assert_harmless(page: str) -> None:
    seen = Page(page)
    assert not {"script", "img", "iframe", "object", "link", "a", "b", "base"} & seen.tags.keys()
    names = {name for name, _ in seen.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not {"src", "href", "style", "action", "xlink:href"} & names
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_what_is_drawn_adds_up_to_the_ledger(house: House) -> None:
    live(house)
    found = found_of(house)
    decisions = rows(house.engine, "decision")
    total = len(decisions)
    assert found.report.decisions.total == total
    assert sum(one.count for one in found.story.settled) == total
    flows = found.story.flows
    assert sum(f.count for f in flows if f.source[0] == 0) == total
    assert sum(f.count for f in flows if f.target[0] < 0) == total
    for place in {f.target for f in flows if f.target[0] > 0}:
        come = sum(f.count for f in flows if f.target == place)
        gone = sum(f.count for f in flows if f.source == place)
        assert come == gone
    endings = Counter(row["status"] for row in decisions)
    assert {f.target[1] for f in flows if f.target[0] < 0} == set(endings)
    climbed = {(f.source[1], f.target[1]): f.count for f in flows if f.source[0] == 1}
    assert climbed["tier1", "tier2"] == 5
    attempts = rows(house.engine, "attempt")
    counted = {one.lane: sum(one.bins) for one in found.story.latency}
    assert counted == Counter(row["lane"] for row in attempts)


@pytest.mark.parametrize(("many", "p50", "p95"), [(1, 1, 1), (20, 10, 19), (21, 11, 20)])
def test_quantiles_are_nearest_ranks(house: House, many: int, p50: int, p95: int) -> None:
    for number in range(many + 1):
        house.ask("question", f"easy {number}", AB)
    attempts = [row["id"] for row in rows(house.engine, "attempt")]
    times = [{"id": one, "us": 1000 * place} for place, one in enumerate(attempts, 1)]
    with writing(house.engine) as connection:
        set_times = "UPDATE attempt SET inference_us = :us, waiting_us = 7 * :us WHERE id = :id"
        connection.execute(text(set_times), times)
        # The last is a call of which nobody knows whether it was served: its times mean nothing.
        lost = "UPDATE attempt SET outcome = 'unknown_charge' WHERE id = :id"
        connection.execute(text(lost), times[-1:])
    found = found_of(house)
    [lane] = found.story.latency
    assert (lane.inference_ms[50], lane.inference_ms[95]) == (p50, p95)
    waiting = found.report.latency_ms.waiting
    assert (waiting.p50, waiting.p95) == (7 * p50, 7 * p95)


def test_how_sure_and_how_right_agree_with_the_answers(house: House) -> None:
    live(house)
    bins = run_story(house.engine, house.run).reliability
    known = [row for row in rows(house.engine, "decision")
             if row["expected"] is not None and row["p_answer"] is not None]  # fmt: skip
    assert sum(one.count for one in bins) == len(known) > 0
    assert sum(one.right for one in bins) == sum(r["answer"] == r["expected"] for r in known)
    for one in bins:
        assert one.bin / CONFIDENCES <= one.stated <= (one.bin + 1) / CONFIDENCES + 1e-9


def test_the_page_has_the_figures_and_needs_nothing_else(house: House) -> None:
    live(house)
    page = document(found_of(house))
    assert_harmless(page)
    seen = Page(page)
    words = "".join(seen.words)
    for title in ("Who answered, over time", "How decisions climbed and ended",
                  "Time at the model", "Cost beside the cloud alone", "How sure, and how right",
                  "Slowest decisions", "Worst-scored decisions"):  # fmt: skip
        assert title in words
    assert house.run in words
    assert "hard 2" in words
    assert "#1" in words
    charts = [value for name, value in seen.attributes if name == "aria-labelledby"]
    ids = {value for name, value in seen.attributes if name == "id"}
    assert len(charts) == seen.tags["svg"] == 5
    assert all(set((value or "").split()) <= ids for value in charts)
    assert seen.tags["table"] > len(charts)


def test_no_text_of_a_prompt_or_a_model_becomes_markup(house: House) -> None:
    house.ask("note", EVIL, TextOutput(max_tokens=50), key=EVIL[:150])
    house.ask("question", "broken " + EVIL, AB)
    page = document(found_of(house))
    assert_harmless(page)
    words = "".join(Page(page).words)
    assert "<script>alert(1)</script>" in words, "it is shown as it was asked"
    assert '<img src="http://evil.example/x.png">' in words
    assert "\\u202eexe.txt" in words


def test_a_real_browser_runs_nothing_of_it(house: House, tmp_path: Path) -> None:
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium on PATH: install the package chromium, or Chrome")
    house.ask("note", EVIL, TextOutput(max_tokens=50))
    path = tmp_path / "run.html"
    path.write_text(document(found_of(house)), encoding="utf-8")
    shown = dom(browser, path.as_uri())
    assert "Worst-scored decisions" in shown
    assert not re.search(r"<(img|script|iframe|object)[\s>]", shown)


@pytest.mark.parametrize("privacy", [Privacy.HIGH, Privacy.MAXIMUM])
def test_private_texts_stay_out_of_a_file_that_travels(house: House, privacy: Privacy) -> None:
    secret = "what Ada earns"
    house.ask("note", secret, TextOutput(max_tokens=50), privacy=privacy, key="private-key")
    page = document(found_of(house))
    assert "private-key" in page
    assert "Private" in page
    assert secret not in page
    assert "alert" not in page, "nor what was answered"


def test_texts_can_be_left_out(house: House) -> None:
    house.ask("note", "an ordinary question", TextOutput(max_tokens=50), key="k")
    assert "an ordinary question" in document(found_of(house))
    page = document(found_of(house, texts=False))
    assert "an ordinary question" not in page
    assert "alert" not in page


def test_long_texts_are_cut_and_said_to_be(house: House) -> None:
    house.ask("note", "x" * 5_000, TextOutput(max_tokens=50), key="long")
    page = document(found_of(house))
    assert "x" * MOST_CHARS in page
    assert "x" * (MOST_CHARS + 1) not in page
    assert "of 5,000 characters" in page


def test_a_run_without_decisions_has_a_page_too(house: House) -> None:
    page = document(found_of(house))
    assert_harmless(page)
    assert "Nothing to draw" in page
    assert "began" not in page


def test_clocks_that_disagree_stay_inside_the_chart(house: House) -> None:
    for number in range(3):
        house.ask("question", f"easy {number}", AB)
    first = min(row["id"] for row in rows(house.engine, "decision"))
    with writing(house.engine) as connection:
        early = "UPDATE decision SET settled_at = created_at - 10000000 WHERE id = :id"
        connection.execute(text(early), {"id": first})
    assert {one.bin for one in found_of(house).story.settled} <= set(range(BINS))


def test_an_attempt_of_twenty_minutes_is_not_told_as_one_of_less(house: House) -> None:
    house.ask("question", "easy", AB)
    with writing(house.engine) as connection:
        connection.execute(text("UPDATE attempt SET inference_us = 1200000000"))
    found = found_of(house)
    assert found.story.latency[0].bins[-1] == 1
    assert "at 16 min 40 s or above" in document(found)


MANY = 200_000
FILL = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {many})
INSERT INTO {table} ({names}) SELECT {columns} FROM n, {table} AS one WHERE one.id = :like
"""


def multiplied(house: House, decision: str, many: int) -> None:
    """As many decisions more, each with an attempt like the one's."""
    places = {"decision": {"id": "'d' || i", "key": "'k' || i",
                           "settled_at": "one.settled_at + i * 1000",
                           "p_answer": "(i % 100) / 100.0"},
              "attempt": {"id": "'a' || i", "decision_id": "'d' || i",
                          "inference_us": "100 + (i * 37) % 900000",
                          "score": "(i % 50) / 50.0"}}  # fmt: skip
    attempt = next(r["id"] for r in rows(house.engine, "attempt") if r["decision_id"] == decision)
    with writing(house.engine) as connection:
        for table, like in (("decision", decision), ("attempt", attempt)):
            names = rows(house.engine, table)[0].keys()
            columns = ", ".join(places[table].get(name, f"one.{name}") for name in names)
            query = FILL.format(many=many, table=table, names=", ".join(names), columns=columns)
            connection.execute(text(query), {"like": like})


def test_a_large_run_has_a_small_page(house: House) -> None:
    one = house.submit("question", "easy", AB)
    house.work()
    multiplied(house, one, MANY)
    page = document(found_of(house))
    seen = Page(page)
    assert f"{MANY + 1:,}" in "".join(seen.words)
    assert seen.tags["details"] <= 2 * FEW + 10
    assert len(page) < 400_000


@pytest.mark.parametrize("top", [0, 1, 3, 7, 10, 99, 101, 12_345])
def test_ticks_are_round_and_reach_the_top(top: float) -> None:
    found = ticks(top)
    assert found[0] == 0
    assert found[-1] >= top
    assert 2 <= len(found) <= 6


@pytest.mark.parametrize("top", [1, 2, 3, 4, 5, 6, 48])
def test_decisions_are_counted_by_whole_numbers_on_the_axis(top: int) -> None:
    found = ticks(top, least=1)
    assert len({count(value) for value in found}) == len(found)
    assert found == [round(value) for value in found]
    assert found[-1] >= top


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0004, "0.4 ms"), (0.9994, "999 ms"), (0.99951, "1 s"), (1.5, "1.5 s"), (59.99, "60 s"),
     (60, "1 min"), (119.99, "120 s"), (3_600, "60 min"), (172_800, "2 d")],
)  # fmt: skip
def test_times_are_said_without_powers_of_ten(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize("seconds", [0, 0.0004, 0.3, 1, 59, 61.7, 247, 3_600, 90_000, 1e7])
def test_times_on_an_axis_are_round_and_within(seconds: float) -> None:
    found = time_ticks(seconds)
    assert found[0] == 0
    assert found[-1] <= seconds + 1e-9
    assert len(found) <= 7
    assert len({duration(value) for value in found}) == len(found)


def test_what_cannot_be_shown_is_replaced() -> None:
    assert escaped("a\x00b\ud800c\u2028") == "a\ufffdb\ufffdc\u2028"


def uptier(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main.run(["report", *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_command_writes_a_page_or_says_in_one_line_why_not(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("UPTIER_DATA_DIR", str(house.settings.data_dir))
    monkeypatch.setenv("UPTIER_PROFILE", house.settings.profile)
    monkeypatch.chdir(tmp_path)
    live(house)
    status, out, _ = uptier(capsys, house.run, "--html", "--out", "page.html")
    assert (status, out.strip()) == (0, "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    status, out, _ = uptier(capsys, "--html")
    assert (status, out.strip()) == (0, f"run-{house.run}.html")
    for words, named in (
        (("nobody", "--html"), "'nobody'"),
        ((house.run, "--out", "x.html"), "--html"),
        ((house.run, "--html", "--json"), "--json"),
        ((house.run, "--html", "--out", "no/such/folder.html"), "no/such/folder.html"),
        ((house.run, "--html", "--out", str(tmp_path)), str(tmp_path)),
    ):
        status, out, said = uptier(capsys, *words)
        assert (status, out, said.count("\n")) == (2, "", 1)
        assert named in said
    assert not (tmp_path / "no").exists()


def test_no_kind_that_an_asker_thinks_of_steers_the_terminal(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(house.settings.data_dir))
    monkeypatch.setenv("UPTIER_PROFILE", house.settings.profile)
    house.ask("a\x1b[2J\x1b]0;mine\x07 [bold]kind", "easy", AB)
    status, out, _ = uptier(capsys, house.run)
    assert status == 0
    assert "a\\x1b[2J\\x1b]0;mine\\x07 [bold]kind" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("micros", "said"), [(0, "$0.00"), (34, "$0.000034"), (1_000, "$0.0010"), (123e6, "$123.00")]
)
def test_no_cost_is_rounded_to_nothing(micros: float, said: str) -> None:
    assert money(micros) == said
