"""What the card holds that this worker is pinned to, read through NVML."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import lru_cache

import pynvml

from workers.nvml import read_cards, told

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"


def card_figures(
    environ: Mapping[str, str] = os.environ, *, lone: bool = False
) -> dict[str, float]:
    """``gpu`` (its number by bus), ``vram_used_bytes`` and ``vram_total_bytes``; empty for a worker
    that is not pinned to a single card, or without a driver.

    With ``lone``, the only card there is counts as the worker's where nothing pins it: a container
    is given its card so. What is in use is so by whomever: a card that something else fills is full
    all the same. Of a slice in MIG mode, the memory is the slice's and the number that of the card
    which it is of.
    """
    chosen = _lone_card() if lone and VISIBLE not in environ else environ.get(VISIBLE)
    card = (chosen or "").strip()
    return {} if not card or "," in card or not _begun() else _figures(card)


@lru_cache(maxsize=1)
def _lone_card() -> str | None:
    """The name of the only card, or slice, that there is; looked for once a process."""
    cards = read_cards() or ()
    return cards[0].name if len(cards) == 1 else None


def _figures(card: str) -> dict[str, float]:
    try:
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(card))
            if card.isdecimal()
            else pynvml.nvmlDeviceGetHandleByUUID(card)
        )
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        whole = told(lambda: pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle), handle)
        return {
            "gpu": float(pynvml.nvmlDeviceGetIndex(whole)),
            "vram_used_bytes": float(memory.used),
            "vram_total_bytes": float(memory.total),
        }
    except pynvml.NVMLError as error:  # a card that was lost must not take its worker along
        log.debug("NVML does not tell of card %s: %s", card, error)
        return {}


@lru_cache(maxsize=1)
def _begun() -> bool:
    """Begin NVML, once a process; whether there is a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("NVML is not here: %s", error)
        return False
    return True
