"""What every scene has: rounds, progress, complaints, an outcome."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tests.faults.books import Findings
from tests.faults.outcome import Outcome
from tests.faults.scene import Form, Scene

Tell = Callable[[str], None]


class Rounds:
    """What every scene has: its form, its chance, and its outcome."""

    def __init__(self, scene: Scene, form: Form, rng: random.Random, tell: Tell) -> None:
        self.form = form
        self.rng = rng
        self.outcome = Outcome(scene.number, scene.title, scene.bound_s)
        self._tell = tell

    def rounds(self) -> Iterator[float]:
        """The form's values one after the other."""
        values = self.form.values or (0.0,) * self.form.rounds
        for number, value in enumerate(values, 1):
            self.before_round()
            before = len(self.outcome.recoveries_s)
            yield value
            self.outcome.rounds += 1
            took = self.outcome.recoveries_s[before:]
            shown = ", ".join(f"{s:.1f} s" for s in took) or "-"
            self.tell(f"round {number} of {len(values)}, recovered after {shown}")

    def before_round(self) -> None:
        """Nothing has to be waited for."""

    def tell(self, line: str) -> None:
        """Show progress."""
        self._tell(f"fault {self.outcome.number}: {line}")

    def complain(self, sentence: str) -> None:
        """Note what ought not to be."""
        self.tell(sentence)
        self.outcome.complaints.append(sentence)

    def enter(self, found: Findings) -> None:
        """Put what the books say into the outcome."""
        self.outcome.decisions += found.decisions
        self.outcome.lost += len(found.lost)
        self.outcome.doubled += len(found.doubled)
        self.outcome.billed_twice += len(found.billed_twice)
        self.outcome.complaints += found.sentences()

    def finish(self) -> Outcome:
        """The outcome."""
        return self.outcome
