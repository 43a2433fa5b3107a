"""The whole page of a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cli.output import percent
from cli.page import charts, flows, tables
from cli.page.decisions import decisions
from cli.page.drawing import count, duration, money
from cli.page.markup import Child, Html, joined, tag
from cli.page.palette import Palette
from config.catalog import Catalog
from ledger.reports import Report
from ledger.run_extremes import Told
from ledger.run_story import RunStory, expected_error

STYLE = Path(__file__).with_name("style.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing is loaded and nothing runs, should ever a text of a model escape its escaping."""


@dataclass(frozen=True)
class Found:
    """What a page is made of. ``made_at`` is microseconds since 1970."""

    report: Report
    story: RunStory
    slowest: tuple[Told, ...]
    worst: tuple[Told, ...]
    catalog: Catalog
    made_at: int
    texts: bool = True


def document(found: Found) -> str:
    """The page as one HTML file."""
    palette = Palette(found.catalog)
    report = found.report
    title = f"Uptier run {report.run}"
    style = Html(STYLE.read_text(encoding="utf-8"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", style),
    )
    body = tag("body", _header(found), tag("main", *_sections(found, palette)), _footer(found))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _header(found: Found) -> Html:
    report, story = found.report, found.story
    facts = [f"{report.mode}", f"profile {report.profile}", f"seed {report.seed}",
             *([f"began {_moment(story.begins)}"] if story.begins else [])]  # fmt: skip
    return tag(
        "header",
        tag("p", "Uptier · run report", class_="eyebrow"),
        tag("h1", "Run ", tag("code", report.run)),
        tag("p", " · ".join(facts), class_="note"),
        tag("ul", *(_tile(*tile) for tile in _tiles(report)), class_="tiles"),
        *(tag("p", f"Tier {tier} was absent: {reason}.", class_="note")
          for tier, reason in report.absent_tiers.items()),
    )  # fmt: skip


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    counts, rate = report.decisions, report.decisions_per_second
    endings = ", ".join(f"{number:,} {name}" for name, number in counts.by_status.items())
    inference = report.latency_ms.inference
    saved = (
        f"saved {percent(report.savings_share)} of {money(report.all_cloud_cost_usd * 1e6)}"
        if report.all_cloud_cost_usd is not None
        else "no reference model"
    )
    tiles = [
        ("Decisions", count(counts.total), endings),
        ("Climbed", percent(report.escalation_rate), f"{report.escalated:,} left their first lane"),
        ("Cost", money(report.cost_usd * 1e6), saved),
        ("Speed", "-" if rate is None else f"{rate:,.1f}/s", f"over {duration(report.seconds)}"),
        ("At the model", "-" if inference.p50 is None else duration(inference.p50 / 1000),
         "median" if inference.p95 is None else f"median; 95 % below "
         f"{duration(inference.p95 / 1000)}"),
    ]  # fmt: skip
    if report.accuracy.known:
        tiles.insert(2, ("Right", percent(report.accuracy.overall),
                         f"of {report.accuracy.known:,} that the asker can judge"))  # fmt: skip
    if report.unsettled:
        tiles.append(("Open", count(report.unsettled), "not settled yet"))
    if report.unknown_charges:
        tiles.append(("Unknown charges", count(report.unknown_charges),
                      f"at most {money(report.unknown_charge_usd * 1e6)}"))  # fmt: skip
    return tiles


def _tile(name: str, figure: str, more: str) -> Html:
    return tag("li", tag("span", name, class_="label"), tag("strong", figure), tag("span", more))


def _sections(found: Found, palette: Palette) -> list[Html]:
    story, report = found.story, found.report
    parts = []
    if story.settled:
        parts.append(_section(
            "Who answered, over time", "Decisions settled in each part of the run's time.",
            charts.over_time(story, palette), tables.behind(tables.over_time(story, palette)),
        ))  # fmt: skip
    if story.flows:
        parts.append(_section(
            "How decisions climbed and ended",
            "From left to right: asked, the lanes that tried, the ending.",
            flows.flows(story.flows, palette), tables.behind(tables.flows(story.flows)),
        ))  # fmt: skip
    if story.latency:
        parts.append(_section(
            "Time at the model",
            "Each lane's attempts on one logarithmic scale; median and 95th percentile at the "
            "left. Waiting in the queue is in the table.",
            charts.latencies(story.latency, palette),
            tables.behind(tables.latencies(story.latency, palette),
                          tables.latency_bins(story.latency, palette)),
        ))  # fmt: skip
    parts += [_costs(report, palette), _reliability(story)]
    parts.append(_section("Kinds", None, tables.kinds(report)))
    return [*parts, *_extremes(found, palette)]


def _costs(report: Report, palette: Palette) -> Html:
    by_lane = {name: lane.cost_usd * 1e6 for name, lane in report.lanes.items()}
    model, alone = report.all_cloud_model, report.all_cloud_cost_usd
    reference = None if model is None or alone is None else (model, alone * 1e6)
    note = (
        "The same questions and answers at the reference model's prices."
        if reference is not None
        else "The profile names no reference model to compare with."
    )
    chart = charts.costs(by_lane, reference, palette)
    return _section("Cost beside the cloud alone", note, chart, tables.behind(tables.costs(report)))


def _reliability(story: RunStory) -> Html:
    title, bins = "How sure, and how right", story.reliability
    if not bins:
        return _section(
            title,
            "Nothing to draw: of no decision it is known both how sure its model was and whether "
            "it was right. Askers who know the right answer, audits and `uptier label` tell that.",
        )
    error = expected_error(bins) or 0.0
    total = sum(one.count for one in bins)
    note = (
        f"Of {total:,} decisions it is known whether they were right. Points above the dashed "
        "line were right more often than their model said, points below it less often. The "
        f"expected calibration error is {error:.3f}."
    )
    drawn = tag("div", charts.reliability(bins), class_="square")
    return _section(title, note, drawn, tables.behind(tables.reliability(bins)))


def _extremes(found: Found, palette: Palette) -> list[Html]:
    parts = []
    for name, note, told, by in (
        ("Slowest decisions", "From being asked to settled, waiting included.",
         found.slowest, "time"),
        ("Worst-scored decisions", "By the best score that the quality check gave an attempt.",
         found.worst, "score"),
    ):  # fmt: skip
        if told:
            parts.append(_section(name, note, decisions(told, palette, by, found.texts)))
    return parts


def _section(title: str, note: str | None, *parts: Child) -> Html:
    words = [] if note is None else [tag("p", note, class_="note")]
    return tag("section", tag("h2", title), *words, joined(parts))


def _footer(found: Found) -> Html:
    return tag("footer", f"Made by uptier report on {_moment(found.made_at)}. Ledger: "
               f"{found.report.ledger}")  # fmt: skip


def _moment(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
