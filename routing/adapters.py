"""Which LoRA adapter answers a decision."""

from __future__ import annotations

from config.catalog import Catalog
from routing.decision import Decision


def adapter_of(decision: Decision, catalog: Catalog, lane: str) -> str:
    """The adapter with which a lane answers a decision; empty for the model as it is.

    What the asker wants goes before what the kind names. An adapter belongs to one model: a lane
    whose model does not have it, such as the cloud's, answers without. A name that no model of
    the profile has is a mistake and is handed on, for the backend to refuse.
    """
    wanted = decision.preferences.adapter
    if wanted is None:
        wanted = catalog.kind(decision.kind).adapter or ""
    if wanted in catalog.lane_model(lane).adapters:
        return wanted
    elsewhere = any(wanted in model.adapters for model in catalog.models.values())
    return "" if elsewhere else wanted
