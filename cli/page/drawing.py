"""What charts share: the picture's frame, scales with round ticks, colours, legends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cli.page.markup import Attribute, Child, Html, tag

WIDE = 1040
TIME_STEPS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600,
    900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
)  # fmt: skip


@dataclass(frozen=True)
class Box:
    """The part of a picture that data are drawn in, in pixels from its upper left corner."""

    left: float
    top: float
    wide: float
    high: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.wide

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.high


def picture(name: str, title: str, said: str, wide: float, high: float, *parts: Child) -> Html:
    """An SVG that tells those who do not see it what it shows. ``name`` is unique on the page."""
    drawn = tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", said, id=f"{name}-said"),
        *parts,
        viewBox=f"0 0 {wide:g} {high:g}",
        role="img",
        aria_labelledby=f"{name}-title {name}-said",
    )
    return tag("div", drawn, class_="chart")


def rect(x: float, y: float, wide: float, high: float, fill: str, hint: str = "") -> Html:
    """A filled rectangle; ``hint`` appears where the pointer rests on it."""
    inside = [tag("title", hint)] if hint else []
    return tag("rect", *inside, x=x, y=y, width=max(wide, 0.0), height=max(high, 0.0), class_=fill)


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> Html:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "tick") -> Html:
    """Words at a place; ``anchor`` is start, middle or end."""
    return tag("text", words, x=x, y=y, text_anchor=anchor, class_=kind)


def path(d: str, kind: str, hint: str = "", **more: Attribute) -> Html:
    """A path."""
    return tag("path", *([tag("title", hint)] if hint else []), d=d, class_=kind, **more)


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """Names beside their colours."""
    items = [tag("li", tag("span", class_=f"swatch {fill}"), name) for name, fill in entries]
    return tag("ul", *items, class_="legend")


def ticks(top: float, most: int = 5, least: float = 0.0) -> list[float]:
    """Round values from 0 to at least ``top``, no two nearer than ``least``."""
    if top <= 0:
        return [0.0, 1.0]
    step = 10.0 ** math.floor(math.log10(top / most))
    step = max(least, next(step * by for by in (1, 2, 5, 10) if step * by * most >= top))
    return [step * n for n in range(math.ceil(top / step - 1e-9) + 1)]


def time_ticks(seconds: float, most: int = 6) -> list[float]:
    """Round times from 0 up to ``seconds``: whole seconds, minutes, hours or days of them."""
    step = next((s for s in TIME_STEPS if s * most >= seconds), None)
    if step is None:
        days = ticks(seconds / 86_400, most)
        return [day * 86_400 for day in days if day * 86_400 <= seconds]
    return [step * n for n in range(int(seconds / step + 1e-9) + 1)]


def vertical_axis(box: Box, values: Sequence[float], shown: Sequence[str]) -> list[Html]:
    """Lines across with their values at the left, the last value at the top."""
    parts = []
    for value, words in zip(values, shown, strict=True):
        y = box.bottom - box.high * value / values[-1]
        parts += [line(box.left, y, box.right, y), text(box.left - 8, y + 4, words, "end")]
    return parts


def count(number: float) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """A time span as people say it."""
    if seconds == 0:
        return "0"
    if seconds < 0.9995:  # more is 1 s, to three digits
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120 and seconds != 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours >= 48 and not minutes and not hours % 24:
        return f"{hours // 24} d"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def money(micros: float) -> str:
    """Micro-dollars as dollars: cents for large sums, more places for small ones."""
    dollars = micros / 1_000_000
    places = 2 if dollars >= 100 or dollars == 0 else 4 if dollars >= 0.001 else 6
    return f"${dollars:,.{places}f}"


def round_money(micros: float) -> str:
    """A round sum without places that say nothing."""
    dollars = micros / 1_000_000
    return f"${dollars:,.6f}".rstrip("0").rstrip(".")


def share(part: float, whole: float) -> str:
    """A share as a percentage."""
    return f"{100 * part / whole:.1f} %" if whole else "-"
