"""What an operator asks of a stack that another process runs: files in its directory.

An order is written whole, found by the stack at its next look, and answered in a file beside it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from config.errors import ConfigurationError, InputError, StackError
from config.settings import Settings
from ledger.outbox import new_id
from workers.stack_state import Phase, StackState

ANSWERED_WITHIN_S = 30.0
POLL_S = 0.1

M = TypeVar("M", bound=BaseModel)


class Action(StrEnum):
    """What can be asked."""

    DRAIN = "drain"
    SCALE = "scale"
    FREE = "free"
    GIVE_BACK = "give_back"
    RESTART = "restart"


class Order(BaseModel):
    """What is asked: of a lane, of a card, or both numbers and lane for ``scale``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    action: Action
    lane: str = ""
    number: int = 0
    """How many workers, or which card."""


class Answer(BaseModel):
    """What comes of it: what is under way, or why it is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    refused: bool = False
    leaving: tuple[int, ...] = ()
    """Ids of processes that end."""
    coming: tuple[str, ...] = ()
    """Workers that are started."""


def ask(
    settings: Settings, action: Action, lane: str = "", number: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Answer:  # fmt: skip
    """Give an order to the stack of the data directory, and wait for its answer.

    Raises:
        ConfigurationError: no stack runs there.
        InputError: it refuses; its own words.
        StackError: it does not answer.
    """
    state = StackState.read(settings.stack_dir)
    if state is None or not state.owner.alive() or state.phase is not Phase.READY:
        raise ConfigurationError(
            f"no stack is up on {settings.data_dir}: start one with `uptier up`, or name its "
            "directory in UPTIER_DATA_DIR"
        )
    order = Order(id=new_id(), action=action, lane=lane, number=number)
    folder = orders_directory(settings.stack_dir)
    folder.mkdir(mode=0o700, exist_ok=True)
    _write(folder / f"{order.id}.order", order)
    reply = folder / f"{order.id}.answer"
    deadline = time.monotonic() + ANSWERED_WITHIN_S
    try:
        while (answer := _read(reply, Answer)) is None:
            check()
            if not state.owner.alive() or time.monotonic() > deadline:
                raise StackError(
                    f"process {state.owner.pid}, which runs the stack, does not answer: see "
                    "`uptier status` and its supervisor.log"
                )
            time.sleep(POLL_S)
    finally:
        for path in (reply, folder / f"{order.id}.order"):
            path.unlink(missing_ok=True)
    if answer.refused:
        raise InputError(answer.text)
    return answer


def orders_directory(stack_dir: Path) -> Path:
    """Where the orders of a stack lie."""
    return stack_dir / "orders"


def waiting_orders(stack_dir: Path) -> list[Order]:
    """Orders that were not taken yet, the oldest first; what is no order is dropped."""
    found = []
    for path in sorted(orders_directory(stack_dir).glob("*.order")):
        order = _read(path, Order)
        path.unlink(missing_ok=True)
        if order is not None:
            found.append(order)
    return found


def reply(stack_dir: Path, order: Order, answer: Answer) -> None:
    """Answer an order."""
    _write(orders_directory(stack_dir) / f"{order.id}.answer", answer)


def forget_orders(stack_dir: Path) -> None:
    """Remove all orders: nobody takes them any more."""
    shutil.rmtree(orders_directory(stack_dir), ignore_errors=True)


def _write(path: Path, value: BaseModel) -> None:
    partial = path.with_suffix(".tmp")
    partial.write_text(value.model_dump_json(), encoding="utf-8")
    os.replace(partial, path)


def _read(path: Path, kind: type[M]) -> M | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
