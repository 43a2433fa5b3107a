"""The paid provider's stand-in: every call has a price of its own, and hooks may strike."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable

from tests.standin import MessagesStandin, Reply, message

LATENCY_S = 0.3
_MARK = re.compile(r"\[([0-9a-z.-]+)\]")


class Provider(MessagesStandin):
    """Answers "B". ``after_bill`` is called once between the next bill and its reply."""

    def __init__(self) -> None:
        super().__init__(_reply)
        self._after_bill: list[Callable[[], None]] = []
        self._hooks = threading.Lock()

    def after_next_bill(self, strike: Callable[[], None]) -> None:
        """Call ``strike`` when a call has been billed and not yet answered."""
        with self._hooks:
            self._after_bill.append(strike)

    def micros_by_key(self) -> dict[str, list[int]]:
        """What was billed for each decision, by the key that its prompt bears."""
        found: dict[str, list[int]] = defaultdict(list)
        for bill in list(self.bills):
            mark = _MARK.search(bill.prompt)
            found[mark.group(1) if mark else bill.prompt].append(bill.micros)
        return found

    def _answered(self, body: Reply, headers: dict[str, str]) -> Reply:
        reply = super()._answered(body, headers)
        with self._hooks:
            strikes, self._after_bill = self._after_bill, []
        for strike in strikes:
            strike()
        return reply


def _reply(number: int, _body: Reply) -> Reply:
    # No two calls near each other cost the same, so that a bill can be told from another.
    reply = message("B", tokens_in=1000 + 4 * (number % 5000), tokens_out=4)
    return reply | {"hang_s": LATENCY_S}
