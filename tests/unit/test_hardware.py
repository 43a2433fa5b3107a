"""What the machine has, as its driver or a file tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigurationError
from tests.fake_nvml import pynvml as fake
from workers.gpus import Gpu, detect_gpus, read_hardware, threads_asked, visible

CARDS = (Gpu(name="0", uuid="GPU-aa"), Gpu(name="1", uuid="GPU-bb"))


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("workers.nvml.pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def describe(nvml: pytest.MonkeyPatch, *told: dict[str, Any]) -> None:
    nvml.setenv("FAKE_NVML", json.dumps(told))


def test_cards_are_read_with_what_others_use(nvml: pytest.MonkeyPatch) -> None:
    describe(
        nvml,
        {"memory_mb": 12_288, "used_mb": 900, "processes": {"11": 600, "12": 200, "13": None}},
        {"memory_mb": None},
        {"memory_mb": 1, "dead": True},
    )
    assert detect_gpus(ours=[11, 13]) == (
        Gpu("0", "GPU-0000", 12_288, 300, "Fake RTX"),
        Gpu("1", "GPU-0001", None, 0, "Fake RTX"),
        Gpu("2", "", 0, 0, "does not answer"),
    )


def test_slices_are_cards(nvml: pytest.MonkeyPatch) -> None:
    slices = [{"uuid": f"MIG-{n}", "memory_mb": 9_856} for n in (1, 2)]
    describe(nvml, {"memory_mb": 40_000, "slices": slices}, {"memory_mb": 40_000})
    found = detect_gpus()
    assert found is not None
    assert [(gpu.name, gpu.memory_mb) for gpu in found] == [
        ("MIG-1", 9_856), ("MIG-2", 9_856), ("1", 40_000),
    ]  # fmt: skip


def test_without_a_driver_nothing_is_known(nvml: pytest.MonkeyPatch) -> None:
    nvml.delenv("FAKE_NVML", raising=False)
    assert detect_gpus() is None
    assert detect_gpus({"CUDA_VISIBLE_DEVICES": "3"}) == (Gpu("3"),)
    describe(nvml)
    assert detect_gpus() == ()


@pytest.mark.parametrize(
    ("chosen", "names"),
    [(None, "01"), ("1,0", "10"), ("GPU-bb", "1"), ("", ""), ("1,7,0", "1"), ("-1", "")],
)
def test_cuda_visible_devices_chooses_and_orders(chosen: str | None, names: str) -> None:
    left = visible(CARDS, chosen)
    assert left is not None
    assert "".join(gpu.name for gpu in left) == names


def test_without_a_listing_cuda_visible_devices_stands() -> None:
    assert visible(None, None) is None
    assert visible(None, "") == ()
    assert visible(None, "2,3") == (Gpu("2"), Gpu("3"))


def test_a_file_describes_hardware(tmp_path: Path) -> None:
    path = tmp_path / "rack.toml"
    path.write_text(
        "cores = 16\nmemory_gb = 64\n[[gpus]]\nmemory_gb = 12\n[[gpus]]\nmemory_gb = 24\n"
    )
    found = read_hardware(path)
    assert found.gpus is not None
    assert [gpu.memory_mb for gpu in found.gpus] == [12_288, 24_576]
    assert (found.cores, found.memory_mb) == (16, 65_536)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[gpus]]\nmemory_gb = -12\n", "gpus.0.memory_gb"),
        ("[[gpus]]\nproduct = 'x'\n", "gpus.0.memory_gb"),
        ("cores = 0\n", "cores"),
        ("memory_gb = 'much'\n", "memory_gb"),
        ("memory_gb = inf\n", "memory_gb"),
        ("[[gpus]]\nmemory_gb = 12\ntaken_gb = inf\n", "gpus.0.taken_gb"),
        ("gpu = 2\n", "gpu"),
        ("cores = \n", "not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_in_one_line(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "rack.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_hardware(path)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_threads_are_a_whole_number_or_left_to_the_lane() -> None:
    assert threads_asked({"UPTIER_THREADS": " 4"}) == 4
    assert threads_asked({}) == threads_asked({"UPTIER_THREADS": ""}) == 0


@pytest.mark.parametrize("asked", ["1.5", "-1", "two"])
def test_other_threads_are_one_line_and_exit_2(asked: str) -> None:
    """A container's processors may be 1.5, its threads not."""
    with pytest.raises(ConfigurationError) as caught:
        threads_asked({"UPTIER_THREADS": asked})
    assert f"UPTIER_THREADS '{asked}' is not a whole number" in str(caught.value)
    assert caught.value.exit_code == 2
