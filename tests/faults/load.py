"""Questions of all sorts at a steady pace, as a producer that does not give up asks them."""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections.abc import Callable, Sequence

from producers.client import Client
from routing.decision import CacheScope, ChoiceOutput, Decision, Output, Preferences, TextOutput

log = logging.getLogger(__name__)

AB = ChoiceOutput(labels=("A", "B"))
UNCACHED = Preferences(cache=CacheScope.OFF)
BATCH = 4
EVERY_S = 0.25
REFUSED_AT_MOST_S = 60.0
MIX = (
    ("question", "easy", 10),
    ("question", "hard", 3),
    ("question", "harder", 1),
    ("note", "easy", 1),
    ("paid", "easy", 2),
    ("paid_once", "easy", 2),
)
"""Kind, word that the scripts know, weight: settled at once, climbing, criticised, paid."""


class Questions:
    """Makes decisions whose prompt bears their key, so that a bill can be told from another."""

    def __init__(self, prefix: str, rng: random.Random) -> None:
        self._prefix = prefix
        self._rng = rng
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def one(self, kind: str = "question", word: str = "easy", *, mild: bool = True) -> Decision:
        """A decision; a ``mild`` one has a fallback."""
        with self._lock:
            key = f"{self._prefix}-{next(self._numbers)}"
        output: Output = TextOutput(max_tokens=60, stops=None) if kind == "note" else AB
        return Decision(
            kind=kind,
            prompt=f"{word}? [{key}]",
            output=output,
            key=key,
            preferences=UNCACHED,
            fallback="B" if mild and output is AB else None,
        )

    def many(self, count: int, kind: str = "question", word: str = "easy") -> list[Decision]:
        """Decisions of one sort."""
        return [self.one(kind, word) for _ in range(count)]

    def mixed(self, count: int) -> list[Decision]:
        """Decisions of all sorts."""
        weights = [weight for *_, weight in MIX]
        return [self.one(kind, word) for kind, word, _ in self._rng.choices(MIX, weights, k=count)]


class Load:
    """Submits a batch every now and then, the same one again if it was told that it failed."""

    def __init__(self, client: Client, batch: Callable[[], Sequence[Decision]]) -> None:
        self._client = client
        self._batch = batch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._gives_up = False
        self.ids: list[str] = []
        self.refused = 0
        """How often a submission failed and its producer was told so."""

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a batch that is under way is seen through.

        Raises:
            TimeoutError: the ledger refuses it all the time.
        """
        self._stop.set()
        self._thread.join(REFUSED_AT_MOST_S)
        if self._thread.is_alive():
            self._gives_up = True
            raise TimeoutError(f"a submission is refused since {REFUSED_AT_MOST_S:.0f} s")

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            batch = self._batch()
            while not self._gives_up and not self._submitted(batch):
                # Not the event: a batch that failed must come through before the end.
                threading.Event().wait(EVERY_S)

    def _submitted(self, batch: Sequence[Decision]) -> bool:
        try:
            self.ids += self._client.submit(batch)
        except Exception as error:  # whatever it is, the producer knows and asks again
            self.refused += 1
            log.info("refused: %s", error)
            return False
        return True
