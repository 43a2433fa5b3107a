"""What the driver tells of NVIDIA cards, through NVML: no process is started, no text parsed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

log = logging.getLogger(__name__)

T = TypeVar("T")
MIB = 1 << 20


@dataclass(frozen=True)
class Card:
    """A card, or a slice of one in MIG mode; memory in MiB, ``None`` where the driver is silent."""

    name: str
    """What ``CUDA_VISIBLE_DEVICES`` takes: its number by bus, or the uuid of a slice."""
    uuid: str
    product: str
    memory_mb: int | None
    taken_mb: int
    """In use by processes other than those asked about."""


def read_cards(ours: Collection[int] = ()) -> tuple[Card, ...] | None:
    """The cards of this machine by bus, as CUDA counts them with ``PCI_BUS_ID``.

    What the processes ``ours`` (ids) hold does not count as taken. ``None`` if there is no driver
    that could tell; a card that does not answer keeps its number and tells nothing.
    """
    try:
        with _driver():
            found: list[Card] = []
            for number in range(pynvml.nvmlDeviceGetCount()):
                found += _card(number, ours)
            return tuple(found)
    except pynvml.NVMLError as error:
        log.debug("NVML tells nothing: %s", error)
        return None


@contextmanager
def _driver() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _card(number: int, ours: Collection[int]) -> list[Card]:
    handle = told(lambda: pynvml.nvmlDeviceGetHandleByIndex(number), None)
    if handle is None:  # fallen off the bus
        return [Card(str(number), "", "does not answer", 0, 0)]
    slices = _slices(handle)
    if slices:
        return [_described(uuid, one, ours) for one in slices if (uuid := _uuid(one))]
    return [_described(str(number), handle, ours)]


def _described(name: str, handle: Any, ours: Collection[int]) -> Card:
    memory = told(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle), None)
    product = _text(told(lambda: pynvml.nvmlDeviceGetName(handle), ""))
    if memory is None:
        return Card(name, _uuid(handle), product, None, 0)
    used = memory.used - _held(handle, ours)
    return Card(name, _uuid(handle), product, memory.total // MIB, max(0, used // MIB))


def _slices(handle: Any) -> list[Any]:
    """The slices of a card in MIG mode, each of which is a card to CUDA."""
    mode = told(lambda: pynvml.nvmlDeviceGetMigMode(handle)[0], 0)
    if not mode:
        return []
    most = told(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(handle), 0)
    found = (
        told(lambda n=n: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, n), None)  # type: ignore[misc]
        for n in range(most)
    )
    return [one for one in found if one is not None]


def _held(handle: Any, ours: Collection[int]) -> int:
    """Bytes that our own processes hold on a card."""
    if not ours:
        return 0
    none: list[Any] = []
    running = told(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle), none)
    return sum(int(one.usedGpuMemory or 0) for one in running if one.pid in ours)


def _uuid(handle: Any) -> str:
    return _text(told(lambda: pynvml.nvmlDeviceGetUUID(handle), ""))


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def told(ask: Callable[[], T], otherwise: T) -> T:
    """An answer, or ``otherwise`` where a card has none: old and shared-memory ones lack some."""
    try:
        return ask()
    except pynvml.NVMLError as error:
        log.debug("NVML does not tell: %s", error)
        return otherwise
