"""What a daemon knows at the start of an iteration, all of it read from the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ledger.approvals import digest_of
from ledger.swarm import State, Step

NOTE_CHARS = 160
"""Of an iteration's line in the history."""
LATELY, MOST_FAILURES = 5, 2
"""Of so many last iterations an action may fail in so many before it is left out for a while."""
SETTLED = (State.DONE, State.FAILED)
HELD = (State.WAITING, State.DENIED)
FAR = ("exec", "spawn_daemon")
"""Actions that may have changed what is not a file here, such as git's history."""
OF_MEMORY = ("query_memory", "consolidate")
"""Actions whose outcome hangs on the memories alone."""


class Effect(StrEnum):
    """What an action leaves behind, which decides whether it may be done again after a crash."""

    READS = "reads"
    """Nothing."""
    RECORDS = "records"
    """Something in the ledger, in the transaction that says that it is done."""
    CHANGES = "changes"
    """Something outside the ledger: never done twice without a person or a model asking anew."""


@dataclass(frozen=True)
class Known:
    """The history of a run, and what follows from it.

    ``memories`` are counts by topic, ``pending`` the actions that wait for a person, by the id of
    the request.
    """

    steps: Sequence[Step]
    memories: Mapping[str, int]
    pending: Mapping[str, str] = field(default_factory=dict)

    @property
    def iteration(self) -> int:
        """The number of the next iteration, the first being 1."""
        return self.steps[-1].iteration + 1 if self.steps else 1

    @property
    def last_output(self) -> str:
        """What the last action that said something said."""
        return next((s.output for s in reversed(self.steps) if s.output), "")

    @property
    def failed_last(self) -> bool:
        """Whether what was tried last went wrong."""
        return bool(self.steps) and self.steps[-1].state is State.FAILED

    def history(self, count: int) -> str:
        """The last iterations, one a line."""
        lines = [f"{s.iteration}. {headline(s)}" for s in self.steps[-count:]]
        return "\n".join(lines) or "nothing yet"

    def is_known(self, action: str, arguments: Mapping[str, Any], changed_at: int = 0) -> bool:
        """Whether this very thing was done and nothing has changed since, or may not be done.

        ``changed_at`` is when what it looks at was last changed, in microseconds since 1970.
        """
        digest = digest_of(action, arguments)
        tried = [s for s in self.steps if digest_of(s.action, s.arguments) == digest]
        if any(s.state is State.DENIED or s.approval_id in self.pending for s in tried):
            return True
        since = max(changed_at, self._reached_out_at())
        if action in OF_MEMORY:
            since = max((s.created_at for s in self.steps if s.effect == Effect.RECORDS), default=0)
        return any(s.state in SETTLED and _seen_at(s) >= since for s in tried)

    def is_unknown(self, action: str, arguments: Mapping[str, Any]) -> bool:
        """Whether this very thing was begun before and nobody knows whether it took effect."""
        digest = digest_of(action, arguments)
        begun = [s for s in self.steps if s.state is State.UNKNOWN]
        return any(digest_of(s.action, s.arguments) == digest for s in begun)

    def _reached_out_at(self) -> int:
        """When something was last done whose effects no file of the directory shows."""
        return max(
            (_seen_at(s) for s in self.steps if s.action in FAR and s.state not in HELD), default=0
        )

    def within(self, count: int, *actions: str) -> bool:
        """Whether one of the actions is among the last steps."""
        return any(s.action in actions for s in self.steps[-count:])

    def keeps_failing(self, action: str) -> bool:
        """Whether an action has gone wrong several times of late: others are tried first."""
        late = self.steps[-LATELY:]
        return sum(s.action == action and s.state is State.FAILED for s in late) >= MOST_FAILURES

    def done(self, action: str) -> list[Step]:
        """The steps in which that action succeeded."""
        return [s for s in self.steps if s.action == action and s.state is State.DONE]

    def new_since(self, action: str) -> bool:
        """Whether something else has succeeded since that action was last tried."""
        for step in reversed(self.steps):
            if step.action == action:
                return False
            if step.state is State.DONE:
                return True
        return False

    def edited(self) -> set[str]:
        """The files that were edited."""
        return {str(s.arguments.get("path")) for s in self.done("edit_file")}

    def counts(self) -> dict[str, dict[str, int]]:
        """How many steps there are by action, by class and by state."""
        return {
            "actions": dict(Counter(s.action for s in self.steps).most_common()),
            "classes": dict(Counter(s.complexity for s in self.steps).most_common()),
            "states": dict(Counter(s.state.value for s in self.steps).most_common()),
        }


def _seen_at(step: Step) -> int:
    """From when on its outcome holds; what it changed itself is no news."""
    if step.effect == Effect.CHANGES and step.finished_at is not None:
        return step.finished_at
    return step.created_at


def headline(step: Step) -> str:
    """A step in a line: what was done, with what, and what came of it."""
    given = ", ".join(str(value) for value in step.arguments.values())
    said = f"{step.action} {shortened(given, 50)}".strip()
    note = shortened(step.note, NOTE_CHARS)
    return f"{said}: {note}" if note else f"{said}: {step.state.value}"


def shortened(text: str, most: int) -> str:
    """A text on one line, of at most ``most`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3].rstrip() + "..."
