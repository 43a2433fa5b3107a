"""Breakers and rate limits that all workers share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config.catalog import BackendName, Provider
from ledger import providers
from ledger.clock import SECOND
from ledger.database import writing
from ledger.providers import Admission, Health, Verdict
from tests.unit.ledgers import fresh, rows

POLICY = Provider(
    backend=BackendName.ANTHROPIC, failures_to_open=3, cooldown_s=30, longest_cooldown_s=50,
    quota_cooldown_s=3600,
)  # fmt: skip


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = fresh(tmp_path)
    yield engine
    engine.dispose()


def admit(
    engine: Engine, now_s: float, policy: Provider = POLICY, slot_at: int | None = None
) -> Admission:
    with writing(engine) as connection:
        return providers.admit(connection, "p", policy, slot_at, int(now_s * SECOND))


def note(engine: Engine, verdict: Verdict, now_s: float, pause_s: float = 0.0) -> None:
    with writing(engine) as connection:
        health = Health("p", POLICY, verdict, "HTTP 500", pause_s)
        providers.note(connection, health, int(now_s * SECOND))


def test_outages_in_a_row_open_the_breaker_for_everybody(engine: Engine) -> None:
    for second in (1, 2):
        note(engine, Verdict.OUTAGE, second)
        assert admit(engine, second).granted
    note(engine, Verdict.OUTAGE, 3)
    refused = admit(engine, 4)
    assert refused.open_until == 33 * SECOND
    assert refused.reason == "provider p is not called for another 29 s: HTTP 500"


def test_a_success_between_starts_the_count_anew(engine: Engine) -> None:
    for verdict in (Verdict.OUTAGE, Verdict.OUTAGE, Verdict.WELL, Verdict.OUTAGE, Verdict.OUTAGE):
        note(engine, verdict, 1)
    assert admit(engine, 1).granted


def opened(engine: Engine, at_s: float = 0) -> None:
    for _ in range(3):
        note(engine, Verdict.OUTAGE, at_s)


def test_after_the_cooldown_one_call_tries_and_the_others_wait(engine: Engine) -> None:
    opened(engine)
    assert admit(engine, 31).granted
    others = admit(engine, 32)
    assert others.again_at == 34 * SECOND
    assert others.open_until is None
    note(engine, Verdict.WELL, 33)
    assert all(admit(engine, 33).granted for _ in range(5))


def test_a_failed_try_opens_it_for_twice_as_long_up_to_a_bound(engine: Engine) -> None:
    opened(engine)
    assert admit(engine, 31).granted
    note(engine, Verdict.OUTAGE, 32)
    assert admit(engine, 33).open_until == (32 + 50) * SECOND


def test_a_try_whose_worker_died_does_not_block_for_ever(engine: Engine) -> None:
    opened(engine)
    assert admit(engine, 31).granted
    assert not admit(engine, 32).granted
    assert admit(engine, 31 + 121).granted


def test_calls_that_were_in_flight_when_it_opened_do_not_lengthen_it(engine: Engine) -> None:
    opened(engine)
    note(engine, Verdict.OUTAGE, 5)
    assert admit(engine, 6).open_until == 30 * SECOND


def test_an_account_that_is_used_up_opens_it_at_once_and_long(engine: Engine) -> None:
    note(engine, Verdict.QUOTA, 10)
    assert admit(engine, 3000).open_until == 3610 * SECOND


def test_a_wish_to_be_spared_holds_for_all_calls(engine: Engine) -> None:
    note(engine, Verdict.WELL, 10, pause_s=20)
    assert admit(engine, 15).again_at == 30 * SECOND
    assert admit(engine, 30).granted


def test_the_rate_limit_hands_out_slots_that_are_kept(engine: Engine) -> None:
    policy = POLICY.model_copy(update={"requests_per_minute": 60, "burst": 3})
    asked = [admit(engine, 100, policy) for _ in range(6)]
    assert [a.granted for a in asked] == [True, True, True, False, False, False]
    assert [a.slot_at for a in asked[3:]] == [101 * SECOND, 102 * SECOND, 103 * SECOND]
    assert admit(engine, 102, policy, slot_at=102 * SECOND).granted
    assert not admit(engine, 102, policy).granted
    assert admit(engine, 105.5, policy).granted


def test_states_tell_open_and_half_open(engine: Engine) -> None:
    opened(engine)
    [row] = rows(engine, "provider")
    assert (row["failures"], row["openings"], row["reason"]) == (3, 1, "HTTP 500")


def test_slots_that_were_missed_by_long_are_void(engine: Engine) -> None:
    policy = POLICY.model_copy(update={"requests_per_minute": 60})
    asked = [admit(engine, 100, policy) for _ in range(30)]
    slots = [a.slot_at for a in asked if a.slot_at is not None]
    granted = [admit(engine, 1000, policy, slot_at=slot).granted for slot in slots]
    assert granted.count(True) == 1


def test_a_pause_holds_for_the_try_after_a_cooldown_too(engine: Engine) -> None:
    note(engine, Verdict.QUOTA, 10, pause_s=7200)
    assert admit(engine, 3700).again_at == 7210 * SECOND


def test_a_provider_that_wants_to_be_left_alone_for_long_is_away(engine: Engine) -> None:
    note(engine, Verdict.AWAY, 10, pause_s=900)
    assert admit(engine, 20).open_until == 910 * SECOND
