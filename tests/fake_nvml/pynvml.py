"""A stand-in for NVML's Python module: the cards that ``FAKE_NVML`` (JSON) describes.

Each is ``{"memory_mb": 12288, "used_mb": 0, "processes": {"pid": MB}, "slices": [...]}``; a
``memory_mb`` of null is a card that does not tell, ``"dead": true`` one that does not answer. With
``FAKE_NVML`` unset there is no driver.
"""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

MIB = 1 << 20
_open = 0
"""How often it was begun and not ended; the driver counts, too."""


class NVMLError(Exception):
    """What every call may raise."""


def _cards() -> list[dict[str, Any]]:
    if _open <= 0:
        raise NVMLError("Uninitialized")
    return list(json.loads(os.environ["FAKE_NVML"]))


def nvmlInit() -> None:
    global _open
    if "FAKE_NVML" not in os.environ:
        raise NVMLError("NVML Shared Library Not Found")
    _open += 1


def nvmlShutdown() -> None:
    global _open
    _open -= 1


def nvmlDeviceGetCount() -> int:
    return len(_cards())


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:
    if index >= nvmlDeviceGetCount():
        raise NVMLError("Invalid Argument")
    card = _cards()[index]
    if card.get("dead"):
        raise NVMLError("GPU is lost")
    return {"index": index, **card}


def nvmlDeviceGetHandleByUUID(uuid: str) -> dict[str, Any]:
    for index in range(nvmlDeviceGetCount()):
        handle = nvmlDeviceGetHandleByIndex(index)
        if nvmlDeviceGetUUID(handle) == uuid:
            return handle
        for number, one in enumerate(handle.get("slices", ())):
            if one["uuid"] == uuid:
                return {"of": index, "index": number, **one}
    raise NVMLError("Not Found")


def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle: dict[str, Any]) -> dict[str, Any]:
    if "of" not in handle:
        raise NVMLError("Invalid Argument")
    return nvmlDeviceGetHandleByIndex(handle["of"])


def nvmlDeviceGetIndex(handle: dict[str, Any]) -> int:
    return int(handle["index"])


def nvmlDeviceGetName(handle: dict[str, Any]) -> bytes:
    return str(handle.get("product", "Fake RTX")).encode()


def nvmlDeviceGetUUID(handle: dict[str, Any]) -> str:
    return str(handle.get("uuid", f"GPU-{handle.get('index', 0):04d}"))


def nvmlDeviceGetMemoryInfo(handle: dict[str, Any]) -> SimpleNamespace:
    if handle["memory_mb"] is None:
        raise NVMLError("Not Supported")
    used = handle.get("used_mb", 0)
    return SimpleNamespace(total=handle["memory_mb"] * MIB, used=used * MIB)


def nvmlDeviceGetMigMode(handle: dict[str, Any]) -> list[int]:
    if "slices" not in handle:
        raise NVMLError("Not Supported")
    return [1, 1]


def nvmlDeviceGetMaxMigDeviceCount(handle: dict[str, Any]) -> int:
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle: dict[str, Any], index: int) -> dict[str, Any]:
    try:
        return dict(handle["slices"][index])
    except IndexError:
        raise NVMLError("Not Found") from None


def nvmlDeviceGetComputeRunningProcesses(handle: dict[str, Any]) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(pid=int(pid), usedGpuMemory=None if mb is None else mb * MIB)
        for pid, mb in handle.get("processes", {}).items()
    ]
