"""Prompts as llama-server's model reads them: the server's own template and tokens."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

from routing.decision import ChoiceOutput
from workers.backends.base import Request
from workers.backends.http_client import JsonClient
from workers.label_paths import Path, whole_paths

ANSWER_LEAD = "Answer:"
"""Labels are scored as what follows it."""
MARK = "\x02"
KEPT = 64
"""Templates and label sets that are remembered."""

T = TypeVar("T")


class Prompts:
    """Makes tokens of requests; what many requests share is asked of the server once."""

    def __init__(self, client: JsonClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._kept: OrderedDict[object, object] = OrderedDict()

    def tokens(self, request: Request) -> list[int]:
        """The whole prompt. What the asker wrote is never read as markup."""
        choice = isinstance(request.output, ChoiceOutput)
        before, after = self._once(
            ("markup", request.system, choice), lambda: self._markup(request.system, choice)
        )
        return [*before, *self._tokens(request.prompt), *after]

    def labels(self, labels: tuple[str, ...]) -> tuple[Path, ...]:
        """Each label's tokens, ended where it begins another."""
        return self._once(("labels", labels), lambda: self._labels(labels))

    def _labels(self, labels: Sequence[str]) -> tuple[Path, ...]:
        tokens = [self._tokens(" " + label) for label in labels]
        return whole_paths(tokens, self._once("end", self._end))

    def _end(self) -> int | None:
        """The token that ends an answer."""
        text = self._client.get("/props", timeout_s=30).get("eos_token") or ""
        tokens = self._tokens(text, markup=True)
        return tokens[0] if len(tokens) == 1 else None

    def _markup(self, system: str, choice: bool) -> tuple[list[int], list[int]]:
        """The tokens before and after what is a request's own."""
        said = [{"role": "user", "content": MARK * 2}]
        if system:
            said.insert(0, {"role": "system", "content": MARK})
        text = self._client.post("/apply-template", {"messages": said})["prompt"]
        before, after = text.split(MARK * 2)
        tail = self._tokens(after + (ANSWER_LEAD if choice else ""), markup=True)
        first, *between = before.split(MARK)
        tokens = self._tokens(first, markup=True, start=True)
        if between:
            tokens += [*self._tokens(system), *self._tokens(between[0], markup=True)]
        return tokens, tail

    def _tokens(self, text: str, *, markup: bool = False, start: bool = False) -> list[int]:
        if not text and not start:
            return []
        body = {"content": text, "parse_special": markup, "add_special": start}
        return [int(token) for token in self._client.post("/tokenize", body)["tokens"]]

    def _once(self, key: object, make: Callable[[], T]) -> T:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]  # type: ignore[return-value]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made
