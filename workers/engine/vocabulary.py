"""A model's tokens and chat markup. Reads only the model, so any thread may use it.

The model is not freed while one reads it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import llama_cpp

from config.errors import BackendError

MARK = "\x02"


class Vocabulary:
    """Text to tokens and back."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._closed = False
        self._readers = 0
        self._gate = threading.Condition()
        self.raw = llama_cpp.llama_model_get_vocab(model)

    def tokens(self, text: str, *, special: bool = False, start: bool = False) -> list[int]:
        """Token ids of ``text``. Markup is read as such only if ``special``; ``start`` adds what
        the model wants at the start of a text."""
        data = text.encode()
        room = len(data) + 8
        buffer = (llama_cpp.llama_token * room)()
        with self._reading():
            count = llama_cpp.llama_tokenize(
                self.raw, data, len(data), buffer, room, start, special
            )
        if count < 0:
            raise BackendError(f"text of {len(data)} bytes cannot be tokenized", retryable=False)
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; none for markup. Only for who keeps the model open."""
        buffer = ctypes.create_string_buffer(64)
        count = llama_cpp.llama_token_to_piece(self.raw, token, buffer, 64, 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = llama_cpp.llama_token_to_piece(self.raw, token, buffer, -count, 0, False)
        return buffer.raw[:count]

    def ends(self, token: int) -> bool:
        """Whether the token ends the model's turn. Only for who keeps the model open."""
        return bool(llama_cpp.llama_vocab_is_eog(self.raw, token))

    def close(self) -> None:
        """The model is about to be freed: read it no more. Waits for those who do."""
        with self._gate:
            self._closed = True
            self._gate.wait_for(lambda: self._readers == 0)

    @cached_property
    def end_of_turn(self) -> int:
        """The token with which the model ends its turn: that of its chat markup, if it has one.

        The library's own end-of-turn token may be the end of a document instead.
        """
        markup = self.chat([("user", MARK), ("assistant", MARK * 2)], reply=False) or ""
        after = markup.rpartition(MARK * 2)[2]
        found = self.tokens(after, special=True)
        with self._reading():
            ends = (token for token in found if self.ends(token))
            return next(ends, int(llama_cpp.llama_vocab_eos(self.raw)))

    def chat(self, messages: Sequence[tuple[str, str]], *, reply: bool = True) -> str | None:
        """The messages (role, text) in the model's own chat markup, ``None`` if it has none.

        With ``reply`` the markup goes on to where the assistant's turn begins.
        """
        with self._reading():
            # A copy: the model's own text goes when the model goes.
            template = llama_cpp.llama_model_chat_template(self._model, None)
        if not template:
            return None
        chat = (llama_cpp.llama_chat_message * len(messages))()
        for slot, (role, text) in zip(chat, messages, strict=True):
            slot.role, slot.content = role.encode(), text.encode()
        room = 4096 + 2 * sum(len(text.encode()) for _, text in messages)
        buffer = ctypes.create_string_buffer(room)
        count = llama_cpp.llama_chat_apply_template(
            template, chat, len(messages), reply, buffer, room
        )
        return buffer.raw[:count].decode() if 0 < count <= room else None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._gate:
            if self._closed:
                raise BackendError("the model is no longer loaded")
            self._readers += 1
        try:
            yield
        finally:
            with self._gate:
                self._readers -= 1
                self._gate.notify_all()
