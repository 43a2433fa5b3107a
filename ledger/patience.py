"""Waits for a ledger that is locked, full, or away for a moment, instead of losing work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE_S = 300.0
"""How long work that is done waits for a ledger that cannot take it."""
MISTAKES = ("no such", "syntax error", "has no column", "readonly")
"""What SQLite also calls operational, though waiting does not mend it."""


def patiently(operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The operation's result, tried again with back-off while the ledger is away.

    Only for operations that are one transaction. One whose commit went through although its
    answer was lost finds nothing left to do, since every write is conditional on the state.

    Raises:
        DBAPIError: it is still away after :data:`PATIENCE_S`, or the fault is no outage.
    """
    try:
        return operation(*args, **kwargs)
    except Exception as error:
        if not passes(error):
            raise
    # Only now: to set up the retrying takes longer than many an operation.
    retrying = Retrying(
        retry=retry_if_exception(passes),
        wait=wait_random_exponential(multiplier=0.1, max=2.0),
        stop=stop_after_delay(PATIENCE_S),
        before_sleep=_tell,
        reraise=True,
    )
    return retrying(operation, *args, **kwargs)


def passes(error: BaseException) -> bool:
    """Whether an error of the ledger may mend itself."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if any(word in str(error.orig) for word in MISTAKES):
        return False
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    if state.attempt_number in (3, 10) and isinstance(error, DBAPIError):
        log.warning("the ledger is away, waiting for it: %s", error.orig)
