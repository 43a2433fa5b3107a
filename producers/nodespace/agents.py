"""An agent's wishes as a decision takes them, checked before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from config.agents import Agent
from config.catalog import Catalog
from config.errors import InputError
from config.load import AbsentLane, one_line
from routing.decision import Decision, Plan, Preferences, Privacy, TextOutput
from routing.policy import plan

UNNAMED = "assistant"
"""Who asks where the profile has no agents."""
STOPS = ("\nUser:",)
"""Where a model would go on to write the user's next request, of kinds without stops."""


def agent_of(catalog: Catalog, name: str | None) -> tuple[str, Agent]:
    """The agent of that name; the profile's first one, or one without wishes, if none is named.

    Raises:
        InputError: the profile has no such agent.
    """
    if name is None:
        return next(iter(catalog.agents.items()), (UNNAMED, Agent()))
    if name in catalog.agents:
        return name, catalog.agents[name]
    if not catalog.agents and name == UNNAMED:
        return name, Agent()
    known = ", ".join(catalog.agents) or f"{UNNAMED}: the profile defines none"
    raise InputError(f"agent {name!r} is not in profile {catalog.profile!r}: choose one of {known}")


def preferences_of(agent: Agent, catalog: Catalog) -> tuple[Preferences, str | None]:
    """An agent's wishes, and what of them cannot be had, in words.

    An adapter that is only named in the profile, without a file, answers nothing: it is left out.
    """
    adapter, missing = agent.adapter, None
    if adapter is not None and not has_file(adapter, catalog):
        missing = f"adapter {adapter} has no file yet: the model answers without it"
        adapter = None
    found = Preferences(
        preset=agent.preset, privacy=Privacy(agent.privacy), adapter=adapter,
        max_cost_usd=agent.max_cost_usd, prefer_local=agent.prefer_local, classify=agent.classify,
    )  # fmt: skip
    return found, missing


def changed(preferences: Preferences, **wishes: Any) -> Preferences:
    """The wishes with others in their place.

    Raises:
        InputError: one is malformed.
    """
    own = preferences.model_dump(exclude_defaults=True)
    try:
        return Preferences.model_validate({**own, **wishes})
    except ValidationError as error:
        raise InputError(one_line(error, "session")) from None


def has_file(adapter: str, catalog: Catalog) -> bool:
    """Whether a model of the profile has that adapter with a file."""
    return any(model.adapters.get(adapter) is not None for model in catalog.models.values())


def planned(decision: Decision, catalog: Catalog, absent: Sequence[AbsentLane]) -> Plan:
    """The plan of a request, or what is wrong with its wishes.

    Raises:
        InputError: preset or adapter are unknown, the adapter has no file, or no lane is left.
    """
    found = plan(decision, catalog, absent)
    adapter = decision.preferences.adapter
    if adapter and not has_file(adapter, catalog):
        raise InputError(
            f"adapter {adapter!r} has no file in profile {catalog.profile!r}: give it one "
            f"([models.MODEL.adapters.{adapter}]), or ask without it"
        )
    return found


def output_of(agent: Agent, catalog: Catalog) -> TextOutput:
    """Text as the agent's kind bounds it. The stops of tiers are made for short answers, so
    they do not hold here."""
    kind = catalog.kind(agent.kind)
    stops = STOPS if kind.stops is None else kind.stops
    return TextOutput(max_tokens=agent.max_tokens or kind.max_tokens, stops=stops)
