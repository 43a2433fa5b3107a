"""LoRA adapters: loaded on first use, at most some at a time, one in force for a pass."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp

from config.errors import BackendError
from workers.engine.context import LlamaContext

AT_MOST = 4


class Adapters:
    """The adapters of one model by name; ``paths`` says where each one's file lies."""

    def __init__(
        self,
        context: LlamaContext,
        paths: Mapping[str, Path] | None = None,
        at_most: int = AT_MOST,
    ) -> None:
        self._context = context
        self._paths = dict(paths or {})
        self._at_most = at_most
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._current = ""

    def preload(self) -> None:
        """Load as many as may be loaded, in the order in which they were named."""
        for name in list(self._paths)[: self._at_most]:
            self._load(name)

    def use(self, name: str) -> list[str]:
        """Put an adapter in force, or none for ``""``; names of those that were unloaded for it.

        Raises:
            BackendError: there is none of that name, or it does not load.
        """
        if name == self._current:
            return []
        evicted = self._load(name) if name else []
        self._context.adapt(self._loaded.get(name))
        self._current = name
        return evicted

    def forget_current(self) -> None:
        """The context was made anew: nothing is in force."""
        self._current = ""

    def close(self) -> None:
        """Unload all."""
        for adapter in self._loaded.values():
            llama_cpp.llama_adapter_lora_free(adapter)
        self._loaded.clear()

    def _load(self, name: str) -> list[str]:
        if name in self._loaded:
            self._loaded.move_to_end(name)
            return []
        path = self._paths.get(name)
        if path is None:
            known = ", ".join(self._paths) or "none"
            raise BackendError(f"adapter {name!r} is not in the catalog: {known}", retryable=False)
        adapter = llama_cpp.llama_adapter_lora_init(self._context.model, str(path).encode())
        if not adapter:
            raise BackendError(f"adapter {path} does not load on this model", retryable=False)
        evicted: list[str] = []
        while len(self._loaded) >= self._at_most:
            old, handle = self._loaded.popitem(last=False)
            if old == self._current:
                self._context.adapt(None)
                self._current = ""
            llama_cpp.llama_adapter_lora_free(handle)
            evicted.append(old)
        self._loaded[name] = adapter
        return evicted
