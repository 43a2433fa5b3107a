"""Runs in which every lane was tried on every decision, for what is learnt from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import insert

from ledger.database import writing
from ledger.outbox import new_id
from ledger.records import StoredVerdict
from ledger.tables import TABLES, Attempt, Decision, Run
from tests.unit.audited_house import AB, House

LANES = ("tier1", "tier2", "tier3")
COSTS = {"tier1": 10, "tier2": 300, "tier3": 2_000}
"""Micro-dollars a call."""
Said = dict[str, tuple[str, float | None]]
"""What each lane says, and how sure it is."""


SURE = (0.96, 0.99)
UNSURE = {"tier1": (0.74, 0.84), "tier2": (0.74, 0.84), "tier3": (0.6, 0.66)}


def sayings(seed: int, n: int, blind: dict[str, float]) -> list[tuple[str, Said]]:
    """What is right, and what the lanes say: all but the ``blind`` know how sure they are."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        truth = AB.labels[int(rng.integers(2))]
        said: Said = {}
        for lane in LANES:
            p = round(float(rng.uniform(*(SURE if rng.random() < 0.7 else UNSURE[lane]))), 6)
            right = rng.random() < blind.get(lane, p)
            said[lane] = (truth if right else "BA"[AB.labels.index(truth)], p)
        found.append((truth, said))
    return found


def tried_run(
    house: House,
    name: str,
    kinds: Mapping[str, Iterable[tuple[str, Said]]],
    *,
    lanes: Sequence[str] = LANES,
    run: bool = True,
    **more: Any,
) -> None:
    """Write a run of which every answer is known to be right or wrong; ``more`` is of attempts.

    Without ``run`` its decisions are added to one that is there.
    """
    decisions, attempts = [], []
    for kind, told in kinds.items():
        for truth, said in told:
            one = Decision(
                id=new_id(), run_id=name, key=new_id(), kind=kind, prompt="?", expected=truth,
                output=AB.model_dump_json(), plan="{}", lane="tier3", state="settled",
                created_at=1, queued_at=1,
            )  # fmt: skip
            decisions.append(one.model_dump())
            attempts += [_attempt(house, one.id, lane, *said[lane], more) for lane in lanes]
    with writing(house.engine) as connection:
        if run:
            made = Run(id=name, mode="batch", profile="test", created_at=1)
            connection.execute(insert(TABLES.tables["run"]), [made.model_dump()])
        for table, values in (("decision", decisions), ("attempt", attempts)):
            connection.execute(insert(TABLES.tables[table]), values)


def _attempt(
    house: House, decision: str, lane: str, label: str, p: float | None, more: dict[str, Any]
) -> dict[str, Any]:
    model = house.settings.catalog.lanes[lane].model
    verdict = StoredVerdict(format=1, completeness=1, coherence=1, score=1, passed=lane == "tier3",
                            usable=True, answer=label, p_answer=p, sound=True)  # fmt: skip
    given = {"model": model, "fingerprint": f"f.{model}"} | more
    return Attempt(
        id=new_id(), decision_id=decision, lane=lane, number=1, outcome="answered", created_at=1,
        cost_micros=COSTS[lane], verdict=verdict.model_dump_json(), **given,
    ).model_dump()  # fmt: skip
