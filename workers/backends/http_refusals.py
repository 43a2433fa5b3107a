"""Refusals that a service tells by a field of its own and not in the answer's words."""

from __future__ import annotations

from routing.refusals import refuses

REFUSAL = "I cannot help with this request."
"""Stands for an answer that was refused; every rubric knows it for what it is."""


def refusal(said: str) -> str:
    """A text that no check passes: the refusal in the model's own words, if they are plain.

    What it had written before does not belong here: it was withdrawn, and half of it may look
    whole. A code block would be taken out and judged by itself.
    """
    return said if refuses(said) and "```" not in said else REFUSAL
