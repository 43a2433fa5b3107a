"""Lets threads work side by side, and one of them alone when it asks for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Solitude:
    """Many in company, or one alone. Who asks to be alone keeps newcomers out while it waits."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._company = 0
        self._alone = False
        self._asking = 0

    @contextmanager
    def company(self) -> Iterator[None]:
        """Work beside others; waits while somebody is alone or asks to be."""
        with self._change:
            self._change.wait_for(lambda: not self._alone and not self._asking)
            self._company += 1
        try:
            yield
        finally:
            with self._change:
                self._company -= 1
                self._change.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work with nobody beside until the block ends; waits until the others are through."""
        with self._change:
            self._asking += 1
            self._change.wait_for(lambda: not self._alone and not self._company)
            self._asking -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._change:
                self._alone = False
                self._change.notify_all()
