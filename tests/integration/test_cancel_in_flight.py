"""A decision is cancelled while the real SmolLM2 writes: its slot is free, counted in steps."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from config.catalog import Catalog
from config.settings import Settings, load_settings
from ledger import lifecycle
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.records import Planned
from ledger.rulings import Followers
from ledger.runs import start_run
from routing.decision import Decision, Plan, Preferences, Status, TextOutput
from routing.policy import plan
from tests.integration.stacks import wait_until
from tests.unit.ledgers import rows
from workers.answering import Answerer
from workers.backends.llama_cpp import LlamaBackend, open_llama
from workers.engine.engine import Engine
from workers.telling import Teller

LIMIT = 1500


class Silent:
    """Publishes nothing: no broker is needed."""

    def publish(self, followers: Followers) -> bool:
        return True


@pytest.fixture(scope="module")
def backend(smollm2: None) -> Iterator[LlamaBackend]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPTIER_THREADS", "1")
        opened = open_llama(load_settings(profile="tiny"), "tier2")
    yield opened
    opened.close()


def asked(catalog: Catalog, key: str, max_tokens: int) -> Planned:
    decision = Decision(
        kind="tale", prompt="Write a very long tale about the sea, in many chapters.", key=key,
        output=TextOutput(max_tokens=max_tokens, stops=()),
        preferences=Preferences(stream=True, force_tier="local_quality"),
    )  # fmt: skip
    found: Plan = plan(decision, catalog, ())
    return Planned(decision, found)


def test_a_cancelled_text_leaves_the_engine_within_a_step_of_its_notice(
    backend: LlamaBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Settings = load_settings(profile="tiny", data_dir=tmp_path)
    migrate(settings)
    ledger = open_ledger(settings)
    run = start_run(ledger, mode="test", profile="tiny", now=now())
    first, second = (
        lifecycle.submit(ledger, run.id, [asked(settings.catalog, key, size)], now()).ids[0]
        for key, size in (("long", LIMIT), ("short", 8))
    )
    told, left = threading.Event(), threading.Event()
    real = Engine._step

    def step(self: Engine) -> None:
        if told.is_set():
            left.wait(30)  # nothing more is computed until the cancellation was noticed
        real(self)

    def send(run_id: str, pieces: Sequence[Mapping[str, Any]]) -> None:
        told.set()

    monkeypatch.setattr(Engine, "_step", step)
    answerer = Answerer(
        settings, "tier2", engine=ledger, backend=backend, fingerprint="f",
        publisher=Silent(), clock=now, teller=Teller(send),  # type: ignore[arg-type]
    )  # fmt: skip
    work = threading.Thread(target=answerer.answer, args=("tier2", [first]))
    work.start()
    assert told.wait(60)
    written = backend.figures()["tokens_out"]
    lifecycle.cancel(ledger, now(), ids=[first])
    work.join(timeout=30)  # the thread has its slot back although the engine stands still
    assert not work.is_alive()
    left.set()
    wait_until(lambda: backend.figures()["running"] == 0)
    assert backend.figures()["tokens_out"] <= written + 2 < LIMIT
    assert backend.figures()["waiting"] == 0
    [settled] = lifecycle.find_settled(ledger, [first])
    assert settled.status is Status.CANCELLED
    answerer.answer("tier2", [second])
    assert [row["decision_id"] for row in rows(ledger, "attempt")] == [second]
    answerer._leases.close()
    ledger.dispose()
