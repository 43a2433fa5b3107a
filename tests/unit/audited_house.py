"""A ledger with a checker and no broker: decisions are asked, answered and checked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from config.settings import Settings
from ledger import lifecycle
from ledger.database import migrate, open_ledger, reading
from ledger.policies import Policies
from ledger.records import Planned, Tried
from ledger.rulings import Followers
from ledger.runs import start_run
from ledger.tables import TABLES
from routing.decision import ChoiceOutput, Decision
from routing.policy import plan
from tests.unit.ledgers import claim_one, rows
from workers.checking import Checker

PROFILE = Path(__file__).parents[1] / "profiles_audited.toml"
AB = ChoiceOutput(labels=("A", "B"))
LEASE_US = 1_000


class Nowhere:
    """A publisher whose messages nobody gets: the test carries them out."""

    def publish(self, followers: Followers) -> bool:
        return True


class House:
    """Settings, ledger and checker; ``now`` is the time in microseconds, and moves on by itself."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.settings = Settings(**{"data_dir": folder, "profile": str(PROFILE)} | more)
        migrate(self.settings)
        self.engine: Engine = open_ledger(self.settings)
        self.now = 1_000_000
        self.run_id = start_run(self.engine, mode="test", profile="test", now=self.now).id
        self.checker = self.new_checker()
        self._policies = Policies(self.engine, self.clock)
        self._count = 0

    def clock(self) -> int:
        self.now += 1
        return self.now

    def new_checker(self) -> Checker:
        return Checker(
            self.settings, engine=self.engine, publisher=Nowhere(), clock=self.clock  # type: ignore[arg-type]
        )  # fmt: skip

    def ask(self, kind: str = "question", **more: Any) -> str:
        """Submit a decision; its id."""
        self._count += 1
        given = {"prompt": "What now?", "output": AB, "key": f"k{self._count}"} | more
        decision = Decision(kind=kind, **given)
        live = self._policies.find()
        whole = plan(decision, self.settings.catalog, self.settings.absent_lanes, live=live)
        planned = Planned(decision, whole)
        [found] = lifecycle.submit(self.engine, self.run_id, [planned], self.clock()).ids
        return found

    def answer(
        self, decision_id: str, label: str = "A", p: float | None = 0.9, fingerprint: str = ""
    ) -> None:
        """Answer a decision on the lane where it is, without a check."""
        lane = str(self.row(decision_id)["lane"])
        token = f"t{self.clock()}"
        claim_one(self.engine, decision_id, token, self.clock(), lane)
        labels = AB.labels
        shares = None if p is None else tuple(p if x == label else 1 - p for x in labels)
        model = self.settings.catalog.lanes[lane].model
        tried = Tried(
            decision_id, model, fingerprint or f"f.{model}", raw=label, label=label if p else None,
            probabilities=shares,
        )  # fmt: skip
        lifecycle.record(self.engine, token, [tried], self.clock())

    def settle(self, decision_id: str, *said: tuple[str, float | None]) -> dict[str, Any]:
        """Answer and check a decision until it is settled, by what each lane says; its row."""
        for label, p in said:
            self.answer(decision_id, label, p)
            self.checker.check([decision_id])
            if self.row(decision_id)["state"] == "settled":
                break
        return self.row(decision_id)

    def row(self, decision_id: str) -> dict[str, Any]:
        table = TABLES.tables["decision"]
        with reading(self.engine) as connection:
            query = select(*table.c).where(table.c.id == decision_id)
            return dict(connection.execute(query).one()._mapping)

    def audits(self) -> list[dict[str, Any]]:
        return [r for r in rows(self.engine, "decision") if r["propensity"] is not None]

    def labels(self) -> list[tuple[str, bool, str, float | None]]:
        """Lane, right or wrong, source and propensity."""
        return [
            (r["lane"], r["correct"], r["source"], r["propensity"])
            for r in rows(self.engine, "label")
        ]
