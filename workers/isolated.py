"""Calls llama.cpp in a process of its own, which may abort or be ended without harm."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from typing import TypeVar

from config.errors import UptierError

T = TypeVar("T")


class MeasureError(UptierError):
    """llama.cpp could not load, convert or run a file."""


class MeasureTimeout(MeasureError):
    """It took too long: the model is too large for this machine, or the machine is busy."""


def in_child(limit_s: float, function: Callable[..., T], *args: object) -> T:
    """``function(*args)`` in a process of its own, ended after ``limit_s`` seconds.

    llama.cpp aborts its process on bad input and does not notice Ctrl-C; so it does neither here.

    Raises:
        MeasureTimeout: it took too long.
        MeasureError: the function raised one, or its process died.
    """
    context = get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(send, function, args), daemon=True)
    child.start()
    send.close()
    try:
        if not receive.poll(limit_s):
            raise MeasureTimeout(f"took longer than {limit_s:.0f} s")
        answer = receive.recv()
    except EOFError:
        raise MeasureError("llama.cpp ended its process") from None
    finally:
        child.kill()
        child.join()
        receive.close()
    if isinstance(answer, BaseException):
        raise answer
    result: T = answer
    return result


def _child(send: Connection, function: Callable[..., object], args: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer: object = function(*args)
    except MeasureError as error:
        answer = error
    except Exception as error:
        answer = MeasureError(f"{type(error).__name__}: {error}")
    send.send(answer)


def _end_with_parent() -> None:
    """A parent that was killed leaves nothing behind that would slow the next measurement."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
