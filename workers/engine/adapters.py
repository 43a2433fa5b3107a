"""LoRA adapters: loaded on first use, at most some at a time, one in force for a pass."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import llama_cpp

from config.errors import BackendError
from workers.engine.context import LlamaContext

log = logging.getLogger(__name__)

AT_MOST = 4


class Adapters:
    """The adapters of one model by name; ``paths`` says where each one's file lies.

    The engine's thread alone uses it once the engine has it; only :meth:`check` is anybody's.
    """

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
        self.current = ""
        """The one in force."""

    @property
    def loaded(self) -> int:
        """How many are loaded."""
        return len(self._loaded)

    def check(self, name: str) -> None:
        """Refuse an adapter that has no file.

        Raises:
            BackendError: the adapter is unknown, or no more than a name.
        """
        if name and name not in self._paths:
            known = ", ".join(self._paths)
            raise BackendError(
                f"adapter {name!r} has no file for this model: give it one in the profile, or ask "
                f"{f'for one of {known}' if known else 'without'}",
                retryable=False,
            )

    def preload(self, names: Iterable[str]) -> None:
        """Load adapters ahead of their first use. One that does not load is logged and fails only
        the requests that ask for it."""
        for name in names:
            try:
                self._load(name)
            except BackendError as error:
                log.error("preloading: %s", error)

    def use(self, name: str) -> list[str]:
        """Put an adapter in force, or none for ``""``; names of those that were unloaded for it.

        Raises:
            BackendError: there is none of that name, or it does not fit the model.
        """
        if name == self.current:
            return []
        evicted = self._load(name) if name else []
        self._context.adapt(self._loaded.get(name))
        self.current = name
        return evicted

    def forget_current(self) -> None:
        """The context was made anew: nothing is in force."""
        self.current = ""

    def close(self) -> None:
        """Unload all."""
        for adapter in self._loaded.values():
            llama_cpp.llama_adapter_lora_free(adapter)
        self._loaded.clear()

    def _load(self, name: str) -> list[str]:
        if name in self._loaded:
            self._loaded.move_to_end(name)
            return []
        self.check(name)
        path = self._paths[name]
        adapter = llama_cpp.llama_adapter_lora_init(self._context.model, str(path).encode())
        if not adapter:
            raise BackendError(
                f"adapter {name!r} does not fit this model: replace {path} by one that was made "
                "for it",
                retryable=False,
            )
        evicted: list[str] = []
        while len(self._loaded) >= self._at_most:
            old, handle = self._loaded.popitem(last=False)
            if old == self.current:
                self._context.adapt(None)
                self.current = ""
            llama_cpp.llama_adapter_lora_free(handle)
            evicted.append(old)
        self._loaded[name] = adapter
        return evicted
