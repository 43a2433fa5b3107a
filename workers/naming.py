"""What a worker is called where Celery's tools show it: by its lane and its card."""

from __future__ import annotations

import os
from collections.abc import Mapping

UUID_CHARS = 8
"""Of a card that is named by its uuid; as many tell cards apart."""


def node_name(name: str, lane: str, environ: Mapping[str, str] = os.environ) -> str:
    """``tier1-gpu0`` for the worker ``tier1-1`` on card 0, ``tier1-gpu1-2`` for ``tier1-2`` on
    card 1; without one card of its own a worker keeps its name.

    Names that differ stay different, also of workers that share a card.
    """
    card = environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    if not card or "," in card or card.startswith("-"):
        return name
    short = card.removeprefix("GPU-")[:UUID_CHARS]
    own = name.removeprefix(lane).lstrip("-") if name.startswith(lane) else name
    return f"{lane}-gpu{short}" + (f"-{own}" if own not in ("", "1") else "")
