"""What a stack that crashed left does not stand in the way of the next one's placement."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from config.settings import Settings
from tests.fake_nvml import pynvml as fake
from workers.children import ProcessRecord
from workers.plan_view import hardware_here
from workers.stack_owner import Hooks, Stack
from workers.stack_state import (
    Phase,
    StackLock,
    StackState,
    WorkerRecord,
    WorkerState,
    prepare_directories,
)

PROFILE = Path(__file__).parents[1] / "profiles_scripted.toml"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("workers.nvml.pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    card = {"memory_mb": 12_000, "used_mb": 11_000, "processes": {str(os.getpid()): 11_000}}
    monkeypatch.setenv("FAKE_NVML", json.dumps([card]))
    settings = Settings(profile=str(PROFILE), data_dir=tmp_path)
    prepare_directories(settings)
    return settings


def leave(settings: Settings, process: ProcessRecord) -> None:
    worker = WorkerRecord(
        name="tier1-1", lane="tier1", state=WorkerState.READY, restarts=0, process=process,
        placement="GPU 0",
    )  # fmt: skip
    StackState(
        phase=Phase.READY, profile="x", broker_url="redis://x", owner=process, workers=(worker,)
    ).write(settings.stack_dir)


def test_a_card_that_workers_of_a_crashed_stack_fill_counts_as_free(settings: Settings) -> None:
    leave(settings, ProcessRecord.of(os.getpid()))
    lock = StackLock(settings.stack_dir)
    assert lock.acquire()
    stack = Stack(settings, settings.catalog, lock, Hooks())
    stack.stop()
    [card] = stack._stay.plan.gpus
    assert card.taken_mb == 0


def test_a_process_that_has_the_id_of_a_dead_worker_is_a_stranger(settings: Settings) -> None:
    own = ProcessRecord.of(os.getpid())
    leave(settings, own.model_copy(update={"created": own.created - 1000}))
    found = hardware_here(settings)
    assert found.gpus is not None
    assert found.gpus[0].taken_mb == 11_000
