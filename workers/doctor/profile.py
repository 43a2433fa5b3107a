"""What the profile needs beside machine and software: keys, a budget, and the bar of answers."""

from __future__ import annotations

import os
from decimal import Decimal

from config.catalog import Catalog
from config.keys import OWN_FILE, find_key, read_key
from config.load import load_catalog
from config.settings import Settings
from workers.doctor.finding import Finding, warning, well


def profile(settings: Settings) -> list[Finding]:
    """Keys of providers, which are never shown; what may be spent; when an answer will do."""
    whole = load_catalog(settings.profile)  # with the lanes that are absent here
    lanes = [well("lanes", ", ".join(settings.catalog.lanes))]
    return [*lanes, *_keys(settings, whole), _budget(settings.catalog), _bar(settings.catalog)]


def _keys(settings: Settings, whole: Catalog) -> list[Finding]:
    lanes: dict[str, list[str]] = {}
    for name, lane in whole.lanes.items():
        model = whole.models[lane.model]
        provider = whole.providers.get(model.provider) if model.provider else None
        if provider is not None and provider.api_key_env and model.enabled:
            lanes.setdefault(provider.api_key_env, []).append(name)
    return [_key(settings, name, served) for name, served in lanes.items()]


def _key(settings: Settings, name: str, lanes: list[str]) -> Finding:
    if find_key(name, settings.keys_file) is not None:
        return well(f"key {name}", f"present in {_source(name)}")
    said = f"absent, and so is {', '.join(lanes)}: plans end on the last lane that is there"
    mend = f"set {name}, or {name}{OWN_FILE} to a file with mode 600 that holds it"
    return warning(f"key {name}", said, mend)


def _source(name: str) -> str:
    if os.environ.get(name, "").strip():
        return "the environment"
    return f"the file of {name}{OWN_FILE}" if read_key(name) else "the file of UPTIER_KEYS_FILE"


def _budget(catalog: Catalog) -> Finding:
    paid = [name for name in catalog.lanes if catalog.is_paid(name)]
    if not paid:
        return well("budget", "no lane is paid for")
    bounds = {"a run": catalog.cloud_budget.per_run_usd, "a day": catalog.cloud_budget.per_day_usd}
    set_ones = [f"{_usd(bound)} {what}" for what, bound in bounds.items() if bound is not None]
    if set_ones:
        return well("budget", f"{', '.join(set_ones)} for {', '.join(paid)}")
    return warning("budget", f"what {', '.join(paid)} may cost is not bounded",
                   "set per_day_usd under [cloud_budget] of the profile")  # fmt: skip


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}"


def _bar(catalog: Catalog) -> Finding:
    bars = sorted({kind.threshold for kind in catalog.kinds.values()})
    between = f"{bars[0]:.2f}" if len(bars) == 1 else f"{bars[0]:.2f} to {bars[-1]:.2f}"
    return well("threshold", f"answers are accepted from {between} by {len(catalog.kinds)} kinds")
