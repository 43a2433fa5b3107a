"""What a decision wishes in the end: its own preferences, its preset, its profile."""

from __future__ import annotations

from typing import NamedTuple

from config.catalog import Catalog
from config.errors import InputError
from config.strategies import Factors, Preset, Strategy
from routing.decision import Decision, Preferences, Privacy
from routing.digest import digest_of


class Wishes(NamedTuple):
    """Strategy, weights and bounds that hold for a decision."""

    privacy: Privacy
    strategy: Strategy = Strategy.LOCAL_FIRST
    weights: Factors | None = None
    """Of ``hybrid``; ``None`` where the strategy is another one."""
    min_quality: float | None = None
    max_latency_ms: int | None = None


def wishes_of(decision: Decision, catalog: Catalog) -> Wishes:
    """The wishes of a decision.

    What it states itself goes before its preset, and that before the profile; of privacy levels
    the strictest holds, whoever named it.

    Raises:
        InputError: the preset is unknown.
    """
    own = decision.preferences
    if own.strategy is None and own.preset is None and digest_of(catalog).plain:
        return Wishes(own.privacy, Strategy.LOCAL_FIRST, None, own.min_quality, own.max_latency_ms)
    routing, preset = catalog.routing, _preset(own, catalog)
    strategy = own.strategy or preset.strategy or routing.strategy
    return Wishes(
        privacy=_strictest(own, preset, catalog),
        strategy=strategy,
        weights=own.weights or preset.weights or routing.weights,
        min_quality=preset.min_quality if own.min_quality is None else own.min_quality,
        max_latency_ms=own.max_latency_ms or preset.max_latency_ms,
    )


def privacy_of(decision: Decision, catalog: Catalog) -> Privacy:
    """How private a stored decision is; one whose preset is gone counts as ``maximum``."""
    try:
        return wishes_of(decision, catalog).privacy
    except InputError:
        return Privacy.MAXIMUM


def as_private_as_wished(decision: Decision, catalog: Catalog) -> Decision:
    """The decision with the privacy that its presets demand, as it is to be stored.

    Raises:
        InputError: the preset is unknown.
    """
    privacy = wishes_of(decision, catalog).privacy
    return raised_to(decision, privacy)


def raised_to(decision: Decision, privacy: Privacy) -> Decision:
    """The decision, at least that private; it never becomes less so."""
    own = decision.preferences
    level = own.privacy.at_least(privacy)
    if level is own.privacy:
        return decision
    preferences = own.model_copy(update={"privacy": level})
    return decision.model_copy(update={"preferences": preferences})


def _preset(own: Preferences, catalog: Catalog) -> Preset:
    name = own.preset or catalog.routing.preset
    if name is None:
        return Preset()
    if name not in catalog.presets:
        known = ", ".join(catalog.presets) or "none: the profile has no presets"
        raise InputError(
            f"preset {name!r} is not in profile {catalog.profile!r}: choose one of {known}"
        )
    return catalog.presets[name]


def _strictest(own: Preferences, preset: Preset, catalog: Catalog) -> Privacy:
    level = own.privacy.at_least(Privacy(preset.privacy))
    if catalog.routing.preset is None:
        return level
    return level.at_least(Privacy(catalog.presets[catalog.routing.preset].privacy))
