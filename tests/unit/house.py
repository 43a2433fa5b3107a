"""Answerers and checker of all lanes in one process, with scripted models and no broker."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from config.load import AbsentLane
from config.settings import Settings
from ledger import lifecycle, outbox
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.outbox import DECIDE, Message
from ledger.records import Planned, StoredVerdict
from ledger.rulings import Followers
from ledger.runs import start_run
from routing.decision import Decision, Output, Preferences, Settled
from routing.policy import plan
from tests.unit.ledgers import rows
from workers.answering import Answerer
from workers.backends.scripted import ScriptedBackend
from workers.checking import Checker

TIERS = """
[tiers.low]
rank = 1
[tiers.high]
rank = 2
[routing]
unknown_kind_tier = "low"
critic_tier = "low"
"""


class House:
    """What stands behind a client, to be driven message by message.

    ``twice`` delivers each message twice, as a broker may; ``knowing`` tells every process what
    serves the other lanes, as on one machine; ``top`` stands before all tables of the profile.
    """

    def __init__(
        self,
        folder: Path,
        profile: str,
        *,
        twice: bool = False,
        knowing: bool = False,
        top: str = "",
    ) -> None:
        path = folder / "profile.toml"
        path.write_text(top + TIERS + profile)
        self.settings = Settings(profile=str(path), data_dir=folder)
        migrate(self.settings)
        self.engine = open_ledger(self.settings)
        self.run = start_run(self.engine, mode="test", profile="house", now=0).id
        self.waiting: deque[Message] = deque()
        self._twice = twice
        catalog = self.settings.catalog
        common: dict[str, Any] = {"engine": self.engine, "publisher": self, "clock": now}
        if knowing:
            common["fingerprint_of"] = lambda lane: catalog.lanes[lane].model
        self.lanes = {
            name: Answerer(
                self.settings, name, fingerprint=lane.model,
                backend=ScriptedBackend(lane.model, catalog.models[lane.model]), **common,
            )
            for name, lane in catalog.lanes.items()
        }  # fmt: skip
        self.checker = Checker(self.settings, **common)

    def publish(self, followers: Followers) -> bool:
        """Stands in for the broker."""
        outbox.publish(self.engine, followers.messages, self.waiting.append)
        return True

    def submit(self, kind: str, prompt: str, output: Output, **wishes: Any) -> str:
        """A new decision, announced but not yet delivered; ``key`` names it, if given."""
        key = wishes.pop("key", prompt)
        asked = Decision(
            kind=kind, prompt=prompt, output=output, key=key, preferences=Preferences(**wishes)
        )
        absent: tuple[AbsentLane, ...] = self.settings.absent_lanes
        item = Planned(asked, plan(asked, self.settings.catalog, absent))
        submission = lifecycle.submit(self.engine, self.run, [item], now())
        outbox.publish(self.engine, submission.messages, self.waiting.append)
        return submission.ids[0]

    def deliver(self, message: Message) -> None:
        """One message to whom it is for."""
        for _ in range(2 if self._twice else 1):
            if message.task == DECIDE:
                self.lanes[message.queue].answer(message.queue, message.ids)
            else:
                self.checker.check(message.ids)

    def work(self, *, backwards: bool = False) -> None:
        """Deliver until nothing is left, the oldest first, or the newest."""
        while self.waiting:
            self.deliver(self.waiting.pop() if backwards else self.waiting.popleft())

    def ask(self, kind: str, prompt: str, output: Output, **wishes: Any) -> Settled:
        """Submit, work, and the settlement."""
        found = self.submit(kind, prompt, output, **wishes)
        self.work()
        return self.settled(found)

    def settled(self, decision: str) -> Settled:
        """The settlement of a decision that is settled."""
        [found] = lifecycle.find_settled(self.engine, [decision])
        return found

    def row(self, decision: str) -> dict[str, Any]:
        """A decision as the ledger has it."""
        [found] = [row for row in rows(self.engine, "decision") if row["id"] == decision]
        return found

    def children(self, decision: str) -> dict[str, dict[str, Any]]:
        """What a decision asked others, by lane."""
        found = rows(self.engine, "decision")
        return {row["lane"]: row for row in found if row["parent_id"] == decision}

    def verdicts(self, decision: str) -> list[StoredVerdict]:
        """What was said of its attempts, in their order."""
        return [
            StoredVerdict.model_validate_json(row["verdict"])
            for row in rows(self.engine, "attempt")
            if row["decision_id"] == decision and row["verdict"]
        ]

    def close(self) -> None:
        """End threads and connections."""
        for answerer in self.lanes.values():
            answerer.close()
        self.engine.dispose()
