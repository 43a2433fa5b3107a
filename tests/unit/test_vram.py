"""What a worker tells of its card, with a stand-in for NVML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from config.catalog import BackendName
from tests.fake_nvml import pynvml as fake
from workers import vram
from workers.app import _may_offload
from workers.nvml import read_cards
from workers.vram import card_figures

GIB = 2**30
CARDS = [
    {"uuid": "GPU-aa", "memory_mb": 12 * 1024, "used_mb": 1024},
    {"uuid": "GPU-bb", "memory_mb": 12 * 1024, "used_mb": 2048},
    {"uuid": "GPU-cc", "memory_mb": 40 * 1024, "slices": [
        {"uuid": "MIG-a", "memory_mb": 5 * 1024}, {"uuid": "MIG-b", "memory_mb": 10 * 1024},
    ]},
]  # fmt: skip


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setattr("workers.nvml.pynvml", fake)
    monkeypatch.setattr("workers.vram.pynvml", fake)
    monkeypatch.setattr(fake, "_open", 0)
    monkeypatch.setenv("FAKE_NVML", json.dumps(CARDS))
    for remembered in (vram._begun, vram._lone_card):
        remembered.cache_clear()
    yield monkeypatch
    for remembered in (vram._begun, vram._lone_card):
        remembered.cache_clear()


@pytest.mark.parametrize("card", ["1", "GPU-bb"])
def test_the_card_that_a_worker_is_pinned_to_is_told(nvml: Any, card: str) -> None:
    told = {"gpu": 1.0, "vram_used_bytes": 2.0 * GIB, "vram_total_bytes": 12.0 * GIB}
    assert card_figures({"CUDA_VISIBLE_DEVICES": card}) == told
    assert read_cards() is not None  # whoever else asks ends what it began, and nothing more
    assert card_figures({"CUDA_VISIBLE_DEVICES": card}) == told
    assert fake._open == 1


def test_of_a_slice_its_memory_is_told_and_the_number_of_its_card(nvml: Any) -> None:
    told = card_figures({"CUDA_VISIBLE_DEVICES": "MIG-b"})
    assert (told["gpu"], told["vram_total_bytes"]) == (2.0, 10.0 * GIB)


@pytest.mark.parametrize("environ", [{}, {"CUDA_VISIBLE_DEVICES": ""},
                                     {"CUDA_VISIBLE_DEVICES": "0,1"}])  # fmt: skip
def test_a_worker_without_a_card_of_its_own_asks_nothing(nvml: Any, environ: Any) -> None:
    assert card_figures(environ) == {}
    assert fake._open == 0


@pytest.mark.parametrize("card", ["7", "GPU-gone"])
def test_a_card_that_is_lost_takes_nothing_along(nvml: Any, card: str) -> None:
    assert card_figures({"CUDA_VISIBLE_DEVICES": card}) == {}


def test_without_a_driver_nothing_is_told(nvml: Any) -> None:
    nvml.delenv("FAKE_NVML")
    assert card_figures({"CUDA_VISIBLE_DEVICES": "0"}) == {}


@pytest.mark.parametrize(
    ("cards", "number", "memory"),
    [(CARDS[:1], 0.0, 12.0), ([{**CARDS[2], "slices": [{"uuid": "MIG-b", "memory_mb": 5 * 1024}]}],
                              0.0, 5.0)],
)  # fmt: skip
def test_the_only_card_of_a_container_is_its_workers(
    nvml: Any, cards: list[Any], number: float, memory: float
) -> None:
    """Engines give a container its card without a word in CUDA_VISIBLE_DEVICES."""
    nvml.setenv("FAKE_NVML", json.dumps(cards))
    told = card_figures({}, lone=True)
    assert (told["gpu"], told["vram_total_bytes"]) == (number, memory * GIB)
    assert card_figures({}) == {}
    assert card_figures({"CUDA_VISIBLE_DEVICES": ""}, lone=True) == {}  # kept from every card


def test_of_several_cards_none_is_taken_for_the_workers_own(nvml: Any) -> None:
    assert card_figures({}, lone=True) == {}


@pytest.mark.parametrize(
    ("backend", "layers", "own"),
    [("llama_cpp", -1, True), ("llama_cpp", 0, False), ("anthropic", -1, False)],
)
def test_only_a_worker_that_computes_on_cards_takes_the_only_one_for_its_own(
    backend: str, layers: int, own: bool
) -> None:
    class Model:
        def __init__(self) -> None:
            self.backend, self.gpu_layers = BackendName(backend), layers

    class Settings:
        class catalog:
            @staticmethod
            def lane_model(lane: str) -> Model:
                return Model()

    assert _may_offload(Settings, "tier1") is own  # type: ignore[arg-type]
    assert _may_offload(Settings, "quality") is False  # type: ignore[arg-type]
