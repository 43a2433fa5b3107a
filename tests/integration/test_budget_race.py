"""Many workers draw on one budget at once: it is never overspent by a micro-dollar.

The cases are those of gateways that check and book in two steps: calls at the same time
(LiteLLM #34732), and first calls of a scope that has no row yet (LiteLLM #40095).
"""

from __future__ import annotations

import multiprocessing
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, select

from config.settings import Settings
from ledger import budgets
from ledger.budgets import BUDGETS, Bound
from ledger.database import migrate, open_ledger, reading, writing
from tests.integration.places import Place

THREADS = 64
PROCESSES = 4
CALLS = 6
LIMIT = 20_000


def spend(settings: dict[str, Any], seed: int, gate: Any, kept: Any) -> None:
    """One process: its threads reserve, settle and release; ``kept`` gets what they spent."""
    engine = open_ledger(Settings(**settings))
    totals: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        rng = random.Random(f"{seed}.{number}")
        for _ in range(CALLS):
            cost = one_call(engine, rng)
            with lock:
                totals.append(cost)

    gate.wait()
    with ThreadPoolExecutor(THREADS // PROCESSES) as pool:
        list(pool.map(work, range(THREADS // PROCESSES)))
    engine.dispose()
    kept.put((sum(totals), sum(1 for cost in totals if cost)))


def one_call(engine: Engine, rng: random.Random) -> int:
    """Reserve, then settle or release; what was spent."""
    most = rng.randint(50, 150)
    bounds = [Bound("day:today", micros=LIMIT), Bound(f"agent:{rng.randint(0, 3)}", calls=1000)]
    with writing(engine) as connection:
        if budgets.reserve(connection, bounds, most) is not None:
            return 0
    cost = 0 if rng.random() < 0.1 else rng.randint(most // 2, most)
    with writing(engine) as connection:
        scopes = [bound.scope for bound in bounds]
        if cost:
            budgets.settle(connection, scopes, most, cost)
        else:
            budgets.release(connection, scopes, most)
    return cost


@pytest.mark.timeout(900)
def test_sixty_four_threads_in_four_processes_never_overspend(place: Place) -> None:
    settings = place.settings()
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    migrate(settings)
    context = multiprocessing.get_context("spawn")
    gate, kept = context.Barrier(PROCESSES), context.Queue()
    workers = [
        context.Process(target=spend, args=(given, seed, gate, kept)) for seed in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    found = [kept.get(timeout=240) for _ in workers]
    for worker in workers:
        worker.join(timeout=90)
    engine = open_ledger(settings)
    with reading(engine) as connection:
        rows = {r.scope: r for r in connection.execute(select(*BUDGETS.c))}
    engine.dispose()
    day = rows.pop("day:today")
    assert (day.spent_micros, day.calls) == (
        sum(spent for spent, _ in found), sum(calls for _, calls in found),
    )  # fmt: skip
    assert LIMIT - 150 < day.spent_micros <= LIMIT
    assert day.reserved_micros == 0
    assert sum(r.spent_micros for r in rows.values()) == day.spent_micros
    assert all(r.reserved_micros == 0 for r in rows.values())
