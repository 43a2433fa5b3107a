"""The charts of a run, but for the one of its flows; see flows.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from cli.page.drawing import (
    WIDE,
    Box,
    count,
    duration,
    legend,
    line,
    money,
    picture,
    rect,
    round_money,
    share,
    text,
    ticks,
    time_ticks,
    vertical_axis,
)
from cli.page.markup import Html, joined, tag
from cli.page.palette import CACHE, NONE, Palette
from ledger.run_story import BINS, CONFIDENCES, EDGES_US, LaneLatency, Reliability, RunStory

LANE_HIGH = 66
DECADES = {100: "0.1 ms", 1_000: "1 ms", 10_000: "10 ms", 100_000: "0.1 s", 1_000_000: "1 s",
           10_000_000: "10 s", 100_000_000: "100 s"}  # fmt: skip
SQUARE = 380


def over_time(story: RunStory, palette: Palette) -> Html:
    """Stacked columns: who answered, bin after bin."""
    seconds = (story.ends - story.begins) / 1_000_000
    stacks: dict[int, dict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))
    for one in story.settled:
        stacks[one.bin][palette.answerer(one.lane, one.status)] += one.count
    series = sorted({who for stack in stacks.values() for who in stack}, key=_place(palette))
    top = ticks(max((sum(stack.values()) for stack in stacks.values()), default=0), least=1)
    box = Box(58, 12, WIDE - 70, 240)
    parts = vertical_axis(box, top, [count(value) for value in top])
    wide = box.wide / BINS
    for place, stack in sorted(stacks.items()):
        y = box.bottom
        until = duration(seconds * (place + 1) / BINS)
        for who, fill in series:
            number = stack.get((who, fill), 0)
            high = box.high * number / top[-1]
            y -= high
            if number:
                hint = f"{who}: {number:,} by {until}"
                parts.append(rect(box.left + place * wide + 1, y, wide - 2, high, fill, hint))
    for tick in time_ticks(seconds):
        x = box.left + box.wide * (tick / seconds if seconds else 0)
        parts.append(text(x, box.bottom + 20, duration(tick), "middle"))
    said = "Columns of decisions settled, one for each part of the run's time, by who answered."
    drawn = picture("time", "Who answered, over time", said, WIDE, 284, *parts)
    return joined([legend(series), drawn])


def _place(palette: Palette) -> Callable[[tuple[str, str]], tuple[int, tuple[int, str]]]:
    last = {CACHE: 1, NONE: 2}
    return lambda who: (last.get(who[0], 0), palette.order(who[0]))


def latencies(lanes: Sequence[LaneLatency], palette: Palette) -> Html:
    """A row for each lane: how long its attempts took, on one logarithmic scale."""
    used = [n for lane in lanes for n, number in enumerate(lane.bins) if number]
    first, last = max(0, min(used) - 1), min(len(EDGES_US), max(used) + 1)
    box = Box(150, 8, WIDE - 162, LANE_HIGH * len(lanes))
    wide = box.wide / (last - first + 1)
    parts = []
    for edge, words in DECADES.items():
        place = EDGES_US.index(edge) + 1 - first
        if 0 <= place <= last - first + 1:
            x = box.left + place * wide
            parts += [line(x, box.top, x, box.bottom), text(x, box.bottom + 20, words, "middle")]
    for row, lane in enumerate(sorted(lanes, key=lambda one: palette.order(one.lane))):
        floor = box.top + LANE_HIGH * (row + 1)
        parts += _latency_row(lane, box, floor, wide, first, palette)
    said = "For each lane the distribution of the time that a model took, with its median and 95th."
    return picture("latency", "Time at the model, by lane", said, WIDE, box.bottom + 30, *parts)


def _latency_row(
    lane: LaneLatency, box: Box, floor: float, wide: float, first: int, palette: Palette
) -> list[Html]:
    most = max(lane.bins)
    p50, p95 = lane.inference_ms.get(50, 0.0), lane.inference_ms.get(95, 0.0)
    parts = [
        line(box.left, floor, box.right, floor, "axis"),
        text(box.left - 12, floor - 30, lane.lane, "end", "name"),
        text(box.left - 12, floor - 13, f"{_ms(p50)}, {_ms(p95)}", "end"),
    ]
    for place, number in enumerate(lane.bins):
        if number:
            high = (LANE_HIGH - 14) * number / most
            x = box.left + (place - first) * wide
            hint = f"{lane.lane}: {number:,} {below(place)}"
            parts.append(rect(x + 1, floor - high, wide - 2, high, palette.lane(lane.lane), hint))
    return parts


def below(place: int) -> str:
    """What a bin of latency holds."""
    if place == len(EDGES_US):
        return f"at {duration(EDGES_US[-1] / 1_000_000)} or above"
    return f"below {duration(EDGES_US[place] / 1_000_000)}"


def _ms(milliseconds: float) -> str:
    return duration(milliseconds / 1000)


def costs(
    by_lane: Mapping[str, float], reference: tuple[str, float] | None, palette: Palette
) -> Html:
    """What the run cost by lane, beside all of it on the reference model; micro-dollars."""
    spent = sum(by_lane.values())
    bars = [("this run", by_lane)]
    if reference is not None:
        bars.append((f"all on {reference[0]}", {"": reference[1]}))
    top = ticks(max([spent, *([reference[1]] if reference else [])]))
    box = Box(220, 8, WIDE - 340, 46 * len(bars))
    parts = []
    for value in top:
        x = box.left + box.wide * value / top[-1]
        parts += [line(x, box.top, x, box.bottom),
                  text(x, box.bottom + 18, round_money(value), "middle")]  # fmt: skip
    for row, (name, pieces) in enumerate(bars):
        y, x = box.top + 46 * row + 9, box.left
        parts.append(text(box.left - 12, y + 19, name, "end", "name"))
        for lane, micros in pieces.items():
            wide = box.wide * micros / top[-1]
            fill = palette.lane(lane) if lane else "muted"
            parts.append(rect(x, y, wide, 28, fill, f"{lane or name}: {money(micros)}"))
            x += wide
        parts.append(text(x + 8, y + 19, money(sum(pieces.values())), "start", "name"))
    said = "Bars of what this run cost and what the reference model alone would have cost."
    drawn = picture("cost", "Cost beside the cloud alone", said, WIDE, box.bottom + 28, *parts)
    paid = [(lane, palette.lane(lane)) for lane, micros in by_lane.items() if micros]
    return joined([legend(paid) if paid else None, drawn])


def reliability(bins: Sequence[Reliability]) -> Html:
    """Stated probability against the share that was right; on the diagonal both are the same."""
    box = Box(48, 10, SQUARE - 66, SQUARE - 66)
    total = sum(one.count for one in bins)
    most = max(one.count for one in bins)
    parts = [line(box.left, box.bottom, box.right, box.top, "diagonal")]
    for step in range(6):
        value = step / 5
        x, y = box.left + box.wide * value, box.bottom - box.high * value
        parts += [line(box.left, y, box.right, y), text(box.left - 8, y + 4, f"{value:.1f}", "end"),
                  text(x, box.bottom + 18, f"{value:.1f}", "middle")]  # fmt: skip
    for one in bins:
        right = one.right / one.count
        x, y = box.left + box.wide * one.stated, box.bottom - box.high * right
        level = box.bottom - box.high * one.stated
        hint = (f"stated {one.stated:.2f}, right {right:.2f}: {one.count:,} decisions "
                f"({share(one.count, total)})")  # fmt: skip
        parts.append(line(x, y, x, level, "gap"))
        parts.append(tag("circle", tag("title", hint), cx=x, cy=y,
                         r=4 + 9 * (one.count / most) ** 0.5, class_="point"))  # fmt: skip
    middle = box.left + box.wide / 2
    parts.append(text(middle, box.bottom + 40, "stated probability", "middle", "name"))
    said = (f"Points for {CONFIDENCES} bins of stated probability against the share of right "
            "answers; the dashed diagonal is perfect calibration.")  # fmt: skip
    return picture("reliability", "Stated and found", said, SQUARE, SQUARE, *parts)
