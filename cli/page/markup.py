"""Builds HTML and SVG in which every text is escaped, unless it was built here."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

VOID = frozenset({"meta", "br", "hr", "link"})
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What HTML has no place for; models and askers send it all the same."""
DIRECTIONS = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of text around, and could make an answer look like another."""


class Html(str):
    """Markup that is put into a page as it is."""

    __slots__ = ()


Child = str | Html | None
Attribute = str | int | float | None


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """An element. A trailing ``_`` of an attribute's name is dropped, others become ``-``."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(_written(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Html:
    """Pieces side by side; those that are no markup are escaped."""
    return Html(
        "".join(c if isinstance(c, Html) else escaped(c) for c in children if c is not None)
    )


def escaped(text: str) -> str:
    """A text as markup shows it, whatever is in it."""
    visible = DIRECTIONS.sub(lambda m: f"\\u{ord(m.group()):04x}", UNPRINTABLE.sub("\ufffd", text))
    return html.escape(visible, quote=True)


def table(heads: Iterable[str], rows: Iterable[Iterable[Child]], caption: str) -> Html:
    """A table whose first column names its rows, and whose others hold figures."""
    top = tag("tr", *(tag("th", head, scope="col") for head in heads))
    body = [
        tag("tr", *(tag("th", cell, scope="row") if place == 0 else tag("td", cell)
                    for place, cell in enumerate(row)))
        for row in rows
    ]  # fmt: skip
    inner = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body))
    return tag("div", inner, class_="scroll")


def _written(value: str | int | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
