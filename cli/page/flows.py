"""The flows of a run as a Sankey chart: from asking, over lanes, to how decisions ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cli.page.drawing import WIDE, Box, path, picture, rect, text
from cli.page.markup import Html
from cli.page.palette import Palette
from ledger.run_story import Flow

Place = tuple[int, str]
NODE_WIDE = 14
GAP = 18
HIGH = 330
LEAST = 1.5
"""Pixels: a flow of few among many is still seen."""


@dataclass
class Node:
    """A bar of the chart, with how much of its two sides is taken already, in pixels."""

    x: float
    y: float
    high: float
    out: float = 0.0
    come: float = 0.0


def flows(links: Sequence[Flow], palette: Palette) -> Html:
    """The chart. Ribbons are as wide as decisions are many."""
    columns = _columns(links, palette)
    box = Box(16, 26, WIDE - 190, HIGH)
    total = sum(link.count for link in links if link.source[0] == 0)
    scale = _scale(columns, links, box.high, total)
    nodes = _laid_out(columns, links, box, scale)
    parts = [_ribbon(link, nodes, scale, palette) for link in _in_order(links, nodes)]
    for place, node in nodes.items():
        number = _size(place, links)
        fill = _fill(place, palette)
        words = f"{place[1]}: {number:,}"
        parts.append(rect(node.x, node.y, NODE_WIDE, node.high, fill, words))
        parts.append(text(node.x + NODE_WIDE + 7, node.y + node.high / 2 + 4, words, kind="over"))
    said = (f"{total:,} decisions flow from left to right: asked, answered by lanes in turn, and "
            "ended. The table below has every flow.")  # fmt: skip
    title = "How decisions climbed and ended"
    return picture("flows", title, said, WIDE, box.bottom + 26, *parts)


def _columns(links: Sequence[Flow], palette: Palette) -> list[list[Place]]:
    places = {place for link in links for place in (link.source, link.target)}
    hops = sorted({hop for hop, _ in places if hop >= 0})
    order = [sorted((p for p in places if p[0] == hop), key=lambda p: palette.order(p[1]))
             for hop in hops]  # fmt: skip
    rank = {"good": 0, "cache": 1, "fair": 2, "bad": 3, "muted": 4}
    endings = sorted(
        (p for p in places if p[0] < 0), key=lambda p: (rank[palette.ending(p[1])], p[1])
    )
    return [*order, endings]


def _size(place: Place, links: Sequence[Flow]) -> int:
    come = sum(link.count for link in links if link.target == place)
    return come or sum(link.count for link in links if link.source == place)


def _scale(
    columns: Sequence[Sequence[Place]], links: Sequence[Flow], high: float, total: int
) -> float:
    """Pixels a decision, such that the fullest column fits."""
    fits = [(high - _gap(column, high) * (len(column) - 1)) / sum(_size(p, links) for p in column)
            for column in columns if column]  # fmt: skip
    return min(fits, default=high / max(total, 1))


def _gap(column: Sequence[Place], high: float) -> float:
    """Pixels between the bars of a column: at most half of it is left empty."""
    return min(GAP, high / 2 / max(1, len(column) - 1))


def _laid_out(
    columns: Sequence[Sequence[Place]], links: Sequence[Flow], box: Box, scale: float
) -> dict[Place, Node]:
    nodes: dict[Place, Node] = {}
    step = box.wide / max(1, len(columns) - 1)
    for number, column in enumerate(columns):
        highs = [max(LEAST, _size(place, links) * scale) for place in column]
        gap = _gap(column, box.high)
        y = box.top + (box.high - sum(highs) - gap * (len(column) - 1)) / 2
        for place, high in zip(column, highs, strict=True):
            nodes[place] = Node(box.left + step * number, y, high)
            y += high + gap
    return nodes


def _in_order(links: Sequence[Flow], nodes: dict[Place, Node]) -> list[Flow]:
    """From the top down on both sides, so that ribbons cross as little as they can."""
    return sorted(links, key=lambda link: (nodes[link.source].y, nodes[link.target].y))


def _ribbon(link: Flow, nodes: dict[Place, Node], scale: float, palette: Palette) -> Html:
    source, target = nodes[link.source], nodes[link.target]
    wide = max(LEAST, link.count * scale)
    y0, y1 = source.y + source.out, target.y + target.come
    source.out += link.count * scale
    target.come += link.count * scale
    x0, x1 = source.x + NODE_WIDE, target.x
    middle = (x0 + x1) / 2
    d = (f"M{x0:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
         f"V{y1 + wide:.1f}C{middle:.1f} {y1 + wide:.1f} {middle:.1f} {y0 + wide:.1f} "
         f"{x0:.1f} {y0 + wide:.1f}Z")  # fmt: skip
    fill = _fill(link.target, palette)
    hint = f"{link.source[1]} to {link.target[1]}: {link.count:,}"
    return path(d, f"ribbon {fill}", hint)


def _fill(place: Place, palette: Palette) -> str:
    hop, name = place
    if hop == 0:
        return "muted"
    return palette.ending(name) if hop < 0 else palette.lane(name)
