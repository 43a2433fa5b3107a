"""The decisions that an iteration asks: what next, with which arguments, and what it means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from config.catalog import Catalog
from config.secrets import redact
from ledger.records import storable
from producers.prompts import Template, load_template
from producers.simulation.dice import seed_of
from producers.swarm.actions import Action, Sight
from producers.swarm.commands import middle_cut
from producers.swarm.memory import question
from producers.swarm.state import Known, shortened
from routing.complexity import complexity
from routing.decision import (
    ChoiceOutput,
    Decision,
    JsonOutput,
    Output,
    Preferences,
    Privacy,
    Signals,
    TextOutput,
)

OBJECTIVE_CHARS = 600
"""Of the objective that prompts show."""
FILES_CHARS = 600
NOTE_TOKENS = 60
HISTORY_OF_ARGUMENTS = 3


@dataclass(frozen=True)
class Order:
    """What a daemon is asked to do. ``actions`` are those it may choose from; none: all."""

    objective: str
    workdir: str
    max_iterations: int
    actions: tuple[str, ...] = ()
    privacy: Privacy = Privacy.LOW
    prefer_local: bool = True
    seed: int = 0

    def config(self) -> dict[str, Any]:
        """As the run keeps it."""
        return {
            "objective": self.objective, "workdir": self.workdir, "seed": self.seed,
            "max_iterations": self.max_iterations, "actions": list(self.actions),
            "privacy": self.privacy.value, "prefer_local": self.prefer_local,
        }  # fmt: skip

    @classmethod
    def of(cls, config: dict[str, Any]) -> Order:
        """What a run has kept."""
        return cls(
            objective=config["objective"], workdir=config["workdir"], seed=config["seed"],
            max_iterations=config["max_iterations"], actions=tuple(config["actions"]),
            privacy=Privacy(config["privacy"]), prefer_local=config["prefer_local"],
        )  # fmt: skip


class Questions:
    """Writes the decisions of one daemon; a key is one of an iteration, so none is asked twice."""

    def __init__(self, catalog: Catalog, order: Order) -> None:
        self._catalog = catalog
        self._rules = catalog.swarm
        self._order = order
        least = Privacy(catalog.swarm.privacy)
        self._privacy = order.privacy.at_least(least)

    @property
    def private(self) -> bool:
        """Whether nothing that is asked leaves the machine."""
        return self._privacy.stays_home

    def action(self, sight: Sight, offered: Sequence[Action]) -> Decision:
        """Which of the actions is next."""
        known, names = sight.known, tuple(action.name for action in offered)
        values = {
            "objective": self._objective(),
            "history": known.history(self._rules.history),
            "last": self._shown(known.last_output),
            "choices": ", ".join(names),
        }
        return self._decision(
            "daemon_action", "daemon_action", values, ChoiceOutput(labels=names), known, "action",
            fallback=names[0],
        )  # fmt: skip

    def arguments(self, sight: Sight, action: Action, schema: dict[str, Any]) -> Decision:
        """With which arguments it is done, as JSON."""
        known = sight.known
        values = {
            "objective": self._objective(),
            "files": shortened(" ".join(sight.files), FILES_CHARS) or "none",
            "history": known.history(HISTORY_OF_ARGUMENTS),
            "last": self._shown(known.last_output),
            "action": action.name,
            "does": action.does,
            "fields": ", ".join(schema["properties"]),
        }
        output = JsonOutput(
            json_schema=schema, max_tokens=self._catalog.kind(action.name).max_tokens
        )
        return self._decision(
            action.name, "daemon_arguments", values, output, known, "arguments",
            critical=action.critical,
        )  # fmt: skip

    def note(self, known: Known, iteration: int, action: str, given: str, said: str) -> Decision:
        """What matters of an output, in a sentence."""
        values = {
            "objective": self._objective(),
            "action": action,
            "given": shortened(given, 100),
            "output": self._shown(said),
        }
        output = TextOutput(max_tokens=NOTE_TOKENS, stops=("\n",))
        return self._decision(action, "daemon_note", values, output, known, "note", iteration)

    def work(self, known: Known, iteration: int, kind: str, task: str, material: str) -> Decision:
        """A piece of text, written about some material."""
        values = {"material": self._shown(material), "task": task}
        own = self._catalog.kind(kind)
        output = TextOutput(max_tokens=own.max_tokens, stops=own.stops)
        return self._decision(kind, "daemon_work", values, output, known, "work", iteration)

    def topic(self, iteration: int, content: str) -> Decision:
        """What a memory is about."""
        key = f"i{iteration:05d}.topic"
        seed = seed_of(self._order.seed, key)
        return question(self._catalog, content, key, privacy=self._order.privacy, seed=seed)

    def complexity(self, known: Known, kind: str) -> str:
        """The class of an action, by its kind and what was done before."""
        asked = Decision(
            kind=kind, key=kind, prompt=kind, output=TextOutput(),
            signals=self._signals(known, kind),
        )  # fmt: skip
        return complexity(asked, self._catalog).value

    def _decision(
        self,
        kind: str,
        template_name: str,
        values: Mapping[str, object],
        output: Output,
        known: Known,
        part: str,
        iteration: int | None = None,
        *,
        fallback: str | None = None,
        critical: bool = False,
    ) -> Decision:
        template: Template = load_template(template_name)
        key = f"i{iteration or known.iteration:05d}.{part}"
        return Decision(
            kind=kind, key=key, system=template.system, prompt=template.fill(values),
            template=template.id, output=output, seed=seed_of(self._order.seed, key),
            fallback=fallback,
            signals=self._signals(known, kind),
            preferences=Preferences(
                privacy=self._privacy, prefer_local=self._order.prefer_local,
                quality_critical=critical,
            ),
        )  # fmt: skip

    def _signals(self, known: Known, kind: str) -> Signals:
        return Signals(multi_file=kind == "edit_file" and len(known.edited()) > 1)

    def _objective(self) -> str:
        return shortened(self._order.objective, OBJECTIVE_CHARS)

    def _shown(self, said: str) -> str:
        clean = redact(said.replace("\0", "\ufffd"))  # a file may hold a key that was found
        return middle_cut(clean, self._rules.context_chars).strip() or "nothing"


def read_arguments(answer: str) -> dict[str, Any]:
    """The object that an answer holds.

    Raises:
        ValueError: it is none, or holds characters that no file or database takes.
    """
    value = json.loads(answer)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    text = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in text or storable(text) != text:
        raise ValueError("it holds characters that are no text")
    return value
