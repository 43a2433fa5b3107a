"""What watchers are shown of a task: its lane, how many decisions, their run; never prompts.

Whoever can write to the broker can send any message, with any words about its arguments, and raw
decisions carry their prompts. So it is told here what is shown, and not by the message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.request import Request

from config.queues import FETCH, INTAKE_TASK
from ledger.outbox import CHECK, DECIDE

OURS = re.compile(r"[\w.:-]{1,80}: \d{1,6} decisions?( of run [\w-]{1,40})?")
"""What Uptier's own messages say of themselves; see Message.described."""
MOST_CHARS = 80


BASE: Any = Request


class ShownRequest(BASE):  # type: ignore[misc]
    """A request that shows of its arguments what may be seen, also to those who inspect workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except (KeyError, TypeError, ValueError) as error:
            # Else it would end the worker, and the next that the message comes back to.
            raise InvalidTaskError(type(error).__name__) from None
        self._argsrepr = shown(self.name, self.request_dict.get("argsrepr"), self.args, self.kwargs)
        self._kwargsrepr = ""

    def info(self, safe: bool = False) -> Any:
        """It as other processes may see it; the arguments as they are, for nobody."""
        return super().info(safe=True)


def shown(task: str, told: object, args: object, kwargs: object) -> str:
    """The words in the place of a task's arguments."""
    if task in (DECIDE, CHECK) and isinstance(told, str) and OURS.fullmatch(told):
        return told
    given = list(args) if isinstance(args, Sequence) and not isinstance(args, str) else []
    named = kwargs if isinstance(kwargs, Mapping) else {}
    if task == INTAKE_TASK:
        return _of_run(_count(_pick(given, 1, named, "decisions")), _pick(given, 0, named, "run"))
    if task == FETCH:
        return _of_run(_count(_pick(given, 1, named, "keys")), _pick(given, 0, named, "run"))
    return _count(given[-1] if given else named.get("ids"))


def _pick(given: Sequence[object], place: int, named: Mapping[Any, object], name: str) -> object:
    return given[place] if len(given) > place else named.get(name)


def _count(many: object) -> str:
    number = len(many) if isinstance(many, list) else 0
    return "1 decision" if number == 1 else f"{number} decisions"


def _of_run(words: str, name: object) -> str:
    return f"{words} of run {name[:MOST_CHARS]}" if isinstance(name, str) else words
