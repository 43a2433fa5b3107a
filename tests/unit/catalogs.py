"""Small catalogs for tests, built in code, so that no test hangs on what a profile says today."""

from __future__ import annotations

from typing import Any

from config.catalog import Catalog
from config.load import AbsentLane
from routing.decision import ChoiceOutput, Decision, Preferences, Signals

KEY_MISSING = "ANTHROPIC_API_KEY is not set"
TIERS = {"local_fast": {"rank": 1}, "local_quality": {"rank": 2}, "cloud": {"rank": 3}}
LANES = {
    "tier1": {"tier": "local_fast", "model": "small"},
    "tier2": {"tier": "local_quality", "model": "medium"},
    "tier2.math": {"tier": "local_quality", "model": "sums", "speciality": "math"},
    "tier3": {"tier": "cloud", "model": "sonnet"},
    "tier3.openai": {"tier": "cloud", "model": "gpt"},
}
MODELS = {
    "small": {"backend": "scripted"},
    "medium": {"backend": "scripted"},
    "sums": {"backend": "scripted"},
    "sonnet": {"backend": "anthropic", "provider": "anthropic"},
    "gpt": {"backend": "openai", "provider": "openai"},
}
PROVIDERS = {"anthropic": {"backend": "anthropic"}, "openai": {"backend": "openai"}}
KINDS = {
    "next_action": {"tier": "local_fast"},
    "blocker_resolution": {"tier": "local_quality"},
    "residue_analysis": {"tier": "local_quality", "speciality": "math"},
    "conflict_resolution": {"tier": "cloud"},
}
RULES = [
    {"when": {"multi_agent": True, "novel": True}, "tier": "cloud", "reason": "new to several"},
    {"when": {"creativity": True}, "tier": "cloud", "reason": "creativity is asked for"},
    {"when": {"quality_critical": True}, "tier": "cloud", "reason": "quality is critical"},
    {"when": {"prefer_local": False}, "tier": "cloud", "reason": "local is not preferred"},
]
RAISES = [{"when": {"multi_file": True}, "tier": "cloud", "reason": "several files"}]


def catalog(*, without: tuple[str, ...] = (), **changes: Any) -> Catalog:
    """Three tiers with five lanes, less those named ``without``; ``changes`` replace tables."""
    routing = {
        "unknown_kind_tier": "local_quality",
        "critic_tier": "local_fast",
        "rules": RULES,
        "raises": RAISES,
        **changes.pop("routing", {}),
    }
    data = {
        "profile": "test",
        "tiers": TIERS,
        "lanes": {name: lane for name, lane in LANES.items() if name not in without},
        "models": MODELS,
        "providers": PROVIDERS,
        "kinds": KINDS,
        "routing": routing,
        **changes,
    }
    return Catalog.model_validate(data)


def offline() -> tuple[Catalog, tuple[AbsentLane, ...]]:
    """The catalog of a machine without keys, and what is absent there."""
    gone = ("tier3", "tier3.openai")
    absent = tuple(AbsentLane(lane=lane, tier="cloud", reason=KEY_MISSING) for lane in gone)
    return catalog(without=gone), absent


def decision(kind: str = "next_action", **values: Any) -> Decision:
    """A decision between two labels; signals and preferences by their fields' names."""
    signals = {k: values.pop(k) for k in list(values) if k in Signals.model_fields}
    wishes = {k: values.pop(k) for k in list(values) if k in Preferences.model_fields}
    given = {"prompt": "What next?", "output": ChoiceOutput(labels=("A", "B")), "key": "k"}
    return Decision(
        kind=kind,
        signals=Signals(**signals),
        preferences=Preferences(**wishes),
        **{**given, **values},
    )
