"""Takes raw decisions from programs that have the broker and nothing else of Uptier.

Such a program sends ``uptier.intake`` with decisions as plain JSON and ``uptier.fetch`` to see what
became of them. Both are served by the quality workers, from the queue ``intake``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine

from config.errors import InputError
from config.settings import Settings
from ledger import lifecycle, tracing
from ledger.clock import Clock
from ledger.patience import patiently
from ledger.planning import Planner
from ledger.raw import find_by_keys, find_run_id
from ledger.records import Planned
from ledger.rulings import Followers
from ledger.runs import ensure_run
from routing.decision import MAX_KEY_CHARS, Decision, Settled
from routing.raw import can_be_kept, decision_from
from workers.publishing import Publisher

MODE = "intake"
MOST_DECISIONS = 200
"""In one message."""
MOST_CHARS = 4_000_000
"""Of all prompts and constant parts in one message."""
MOST_NAME_CHARS = 200

log = logging.getLogger(__name__)


class Intake:
    """Writes raw decisions into the ledger, and tells what became of them."""

    def __init__(
        self, settings: Settings, *, engine: Engine, publisher: Publisher, clock: Clock
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher
        self._clock = clock
        self._planner = Planner(settings, engine, clock=clock)

    def take(self, run: object = None, decisions: object = None) -> dict[str, Any]:
        """Submit the decisions to the intake run of that name, which is made if it is new.

        A key that the run knows keeps its old decision, so that a message that comes twice changes
        nothing. A malformed decision is refused by itself. The reply has the ``run``'s id,
        ``accepted`` (key and id of each) and ``refused`` (place in the list from 0, and why).

        Raises:
            InputError: the run's name is missing, or ``decisions`` is no list of objects.
        """
        name, given = _name(run), _bounded(decisions)
        planned, refused = self._planned(given)
        for one in refused:
            log.warning("intake into run %r: decisions[%d]: %s", name, one["index"], one["error"])
        run_id = patiently(self._run, name)
        began = self._clock()
        submission = patiently(lifecycle.submit, self._engine, run_id, planned, self._clock())
        self._publisher.publish(Followers(messages=list(submission.messages)))
        tracing.submitted(submission.messages, began, self._clock())
        accepted = [
            {"key": one.decision.key, "id": found}
            for one, found in zip(planned, submission.ids, strict=True)
        ]
        return {"run": run_id, "accepted": accepted, "refused": refused}

    def fetch(self, run: object = None, keys: object = None) -> dict[str, Any]:
        """What became of decisions of an intake run, by their keys.

        The reply has ``settled`` (one object each), ``open`` and ``unknown`` (keys).

        Raises:
            InputError: the run's name is missing or ``keys`` is no list of strings.
        """
        name, wanted = _name(run), _keys(keys)
        run_id = patiently(find_run_id, self._engine, MODE, name)
        rows = {} if run_id is None else patiently(find_by_keys, self._engine, run_id, wanted)
        ended = [one for one in rows.values() if one is not None]
        return {
            "run": run_id,
            "settled": [_told(one) for one in ended],
            "open": [key for key, one in rows.items() if one is None],
            "unknown": [key for key in wanted if key not in rows],
        }

    def _run(self, name: str) -> str:
        settings = self._settings
        return ensure_run(
            self._engine, mode=MODE, name=name, profile=settings.profile, now=self._clock(),
            absent=settings.absent_lanes,
        )  # fmt: skip

    def _planned(self, given: Sequence[object]) -> tuple[list[Planned], list[dict[str, Any]]]:
        """The decisions that can be asked, and why the others cannot."""
        sound: dict[int, Decision] = {}
        refused: dict[int, str] = {}
        for index, one in enumerate(given):
            try:
                sound[index] = self._decision(one)
            except InputError as fault:
                refused[index] = str(fault)
            except (ValueError, ArithmeticError, RecursionError) as error:
                log.warning("decisions[%d] cannot be read", index, exc_info=error)
                refused[index] = f"cannot be read ({type(error).__name__})"
        try:
            planned = self._planner.plan(list(sound.values()))
        except InputError:
            planned = []
            for index, decision in sound.items():
                try:
                    planned += self._planner.plan([decision])
                except InputError as fault:
                    refused[index] = str(fault)
        return planned, [{"index": i, "error": refused[i]} for i in sorted(refused)]

    def _decision(self, given: object) -> Decision:
        if not isinstance(given, Mapping) or not isinstance(given.get("key"), str):
            raise InputError("key: must be a string: give one")
        return decision_from(given, self._settings.catalog)


def _told(settled: Settled) -> dict[str, Any]:
    return settled.model_dump(mode="json")


def _name(run: object) -> str:
    if not isinstance(run, str) or not 0 < len(run) <= MOST_NAME_CHARS or not _is_sound(run):
        raise InputError(f"run: must be a name of 1 to {MOST_NAME_CHARS} characters")
    return run


def _is_sound(text: str) -> bool:
    """Whether every ledger can look for it."""
    return "\0" not in text and can_be_kept(text)


def _bounded(decisions: object) -> Sequence[object]:
    if not isinstance(decisions, list) or not 0 < len(decisions) <= MOST_DECISIONS:
        raise InputError(f"decisions: must be a list of 1 to {MOST_DECISIONS} objects")
    sizes = [
        len(str(one.get("prompt", ""))) + len(str(one.get("system", "")))
        for one in decisions
        if isinstance(one, Mapping)
    ]
    if sum(sizes) > MOST_CHARS:
        raise InputError(
            f"decisions: {sum(sizes):,} characters of prompts are more than {MOST_CHARS:,}: "
            "send several messages"
        )
    return decisions


def _keys(keys: object) -> list[str]:
    sound = isinstance(keys, list) and 0 < len(keys) <= MOST_DECISIONS
    given = [k for k in keys if isinstance(k, str) and len(k) <= MAX_KEY_CHARS] if sound else []  # type: ignore[attr-defined]
    if not given or len(given) < len(keys):  # type: ignore[arg-type]
        raise InputError(f"keys: must be a list of 1 to {MOST_DECISIONS} strings")
    if not all(map(_is_sound, given)):
        raise InputError("keys: one holds a NUL character or half a character: no decision has it")
    return list(dict.fromkeys(given))
