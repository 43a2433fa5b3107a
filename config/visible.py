"""Texts of anybody's where they are read: on a terminal and in a log."""


def visible(text: str, keep: str = "") -> str:
    """``text`` with escapes in the place of what is obeyed rather than shown, but for ``keep``."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )
