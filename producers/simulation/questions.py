"""Turns a situation into the decision that is asked: prompt, output, key and seed."""

from __future__ import annotations

from dataclasses import dataclass

from config.catalog import Catalog, OutputType
from config.errors import InputError
from producers.prompts import Template, load_template
from producers.simulation.apply import KINDS
from producers.simulation.dice import seed_of
from producers.simulation.labels import CLOSED_SETS
from producers.simulation.people import Agent
from producers.simulation.situations import Situation
from producers.simulation.world import World
from routing.decision import ChoiceOutput, Decision, Output, Preferences, output_for


@dataclass(frozen=True)
class _Form:
    """What all decisions of a kind have in common; no output where labels vary."""

    template: Template
    output: Output | None


class Questions:
    """Writes the decisions of one run."""

    def __init__(self, catalog: Catalog, seed: int, preferences: Preferences) -> None:
        """Raises: InputError when the catalog's kinds are not those of the simulation."""
        self._seed = seed
        self._preferences = preferences
        self._forms = {kind: _form(catalog, kind) for kind in KINDS}

    def decision(self, world: World, agent: Agent, situation: Situation) -> Decision:
        """The one decision of this agent in this tick."""
        form = self._forms[situation.kind]
        # The last part counts an agent's decisions within a tick; it takes one.
        key = f"d{world.day:03d}.t{world.tick_of_day:02d}.{agent.id}.0"
        return Decision(
            kind=situation.kind,
            system=form.template.system,
            prompt=form.template.fill(situation.values),
            output=form.output or ChoiceOutput(labels=situation.labels or ()),
            key=key,
            template=form.template.id,
            agent_id=agent.id,
            day=world.day,
            signals=situation.signals(agent, world.tick),
            preferences=self._preferences,
            seed=seed_of(self._seed, key),
            fallback=situation.fallback,
            expected=situation.expected,
        )


def _form(catalog: Catalog, name: str) -> _Form:
    kind = catalog.kinds.get(name)
    if kind is None:
        raise InputError(
            f"profile {catalog.profile!r} has no kind {name!r}, which the simulation asks: add "
            'include = ["eddt"] to it'
        )
    template = load_template(kind.template or name)
    if kind.output is OutputType.CHOICE and not kind.labels:
        return _Form(template, None)
    output = output_for(catalog, name)
    wanted, offered = CLOSED_SETS.get(name), getattr(output, "labels", ())
    if wanted is not None and set(offered) != set(wanted):
        raise InputError(
            f"profile {catalog.profile!r}: kinds.{name} must offer the labels {', '.join(wanted)}"
        )
    return _Form(template, output)
