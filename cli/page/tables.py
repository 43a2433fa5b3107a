"""The figures behind the charts, for those who read rather than see, or want to copy them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from cli.page.charts import below
from cli.page.drawing import count, duration, money, share
from cli.page.markup import Html, table, tag
from cli.page.palette import Palette
from ledger.reports import Report
from ledger.run_story import (
    BINS,
    CONFIDENCES,
    EDGES_US,
    SHARES,
    Flow,
    LaneLatency,
    Reliability,
    RunStory,
)


def behind(*tables: Html) -> Html:
    """Tables that are folded away under their chart."""
    return tag("details", tag("summary", "The figures as a table"), *tables, class_="behind")


def over_time(story: RunStory, palette: Palette) -> Html:
    """Who answered in each bin of time."""
    found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one in story.settled:
        found[one.bin][palette.answerer(one.lane, one.status)[0]] += one.count
    names = sorted({name for row in found.values() for name in row}, key=palette.order)
    step = (story.ends - story.begins) / 1_000_000 / BINS
    rows = [
        [duration(step * (place + 1)), *(count(row.get(name, 0)) for name in names)]
        for place, row in sorted(found.items())
    ]
    return table(["until", *names], rows, "Decisions settled, by who answered")


def latencies(lanes: Sequence[LaneLatency], palette: Palette) -> Html:
    """Quantiles and bins of each lane."""
    heads = ["lane", *(f"at the model p{s}" for s in SHARES), *(f"waiting p{s}" for s in SHARES)]
    rows = [
        [lane.lane, *(_ms(found.get(s)) for found in (lane.inference_ms, lane.waiting_ms)
                      for s in SHARES)]
        for lane in sorted(lanes, key=lambda one: palette.order(one.lane))
    ]  # fmt: skip
    return table(heads, rows, "Time of attempts, by lane")


def latency_bins(lanes: Sequence[LaneLatency], palette: Palette) -> Html:
    """How many attempts of each lane were how fast."""
    ordered = sorted(lanes, key=lambda one: palette.order(one.lane))
    rows = [
        [below(place), *(count(lane.bins[place]) for lane in ordered)]
        for place in range(len(EDGES_US) + 1)
        if any(lane.bins[place] for lane in ordered)
    ]
    return table(["took", *(lane.lane for lane in ordered)], rows, "Attempts, by time at the model")


def flows(links: Sequence[Flow]) -> Html:
    """Every flow."""
    rows = [
        [f"{_hop(link.source)}", _hop(link.target), count(link.count)]
        for link in sorted(links, key=lambda one: (one.source, -one.count))
    ]
    return table(["from", "to", "decisions"], rows, "Where decisions went")


def _hop(place: tuple[int, str]) -> str:
    hop, name = place
    return f"{name} (stop {hop})" if hop > 0 else name


def costs(report: Report) -> Html:
    """What each lane did and cost."""
    rows = [
        [name, lane.model, count(lane.attempts), count(lane.failed), _percent(lane.pass_rate),
         count(lane.tokens_in), count(lane.tokens_out), money(lane.cost_usd * 1e6)]
        for name, lane in report.lanes.items()
    ]  # fmt: skip
    heads = ["lane", "model", "attempts", "failed", "passed", "tokens in", "tokens out", "cost"]
    return table(heads, rows, "What each lane did")


def kinds(report: Report) -> Html:
    """Decisions by kind, and how many of them were right."""
    rows = [
        [kind, count(number), _percent(report.accuracy.by_kind.get(kind))]
        for kind, number in report.decisions.by_kind.items()
    ]
    return table(["kind", "decisions", "right"], rows, "Decisions by kind")


def reliability(bins: Sequence[Reliability]) -> Html:
    """Stated and found, bin by bin."""
    rows = [
        [f"{one.bin / CONFIDENCES:.1f} to {(one.bin + 1) / CONFIDENCES:.1f}", count(one.count),
         f"{one.stated:.3f}", share(one.right, one.count)]
        for one in bins
    ]  # fmt: skip
    heads = ["stated probability", "decisions", "mean stated", "right"]
    return table(heads, rows, "Stated probability and the share that was right")


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else duration(milliseconds / 1000)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
