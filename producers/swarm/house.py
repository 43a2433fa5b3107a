"""What daemons share, and who looks on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Engine

from config.catalog import Catalog
from ledger.clock import Clock
from ledger.runs import RunInfo
from ledger.swarm import Step
from producers.asking import Asker
from producers.swarm.pace import Pace
from producers.swarm.questions import Order

Hire = Callable[[Order], AbstractContextManager[tuple[RunInfo, Asker]]]
"""Gives a run of its own, and an asker for it, to a daemon that a daemon starts."""


@dataclass(frozen=True)
class Watch:
    """Sees each step as it ends, is told what else matters, and is called after each iteration."""

    on_step: Callable[[Step], None] = lambda step: None
    say: Callable[[str], None] = lambda line: None
    after_step: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class House:
    """What a daemon lives in, whatever it is asked to do.

    ``waits`` says whether an action that needs a person is waited for, instead of going on with
    others meanwhile.
    """

    catalog: Catalog
    engine: Engine
    clock: Clock
    pace: Pace
    hire: Hire
    watch: Watch = Watch()
    waits: bool = False
