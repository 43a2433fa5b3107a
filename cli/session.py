"""What a command that asks decisions needs: a ledger, a stack, a run and a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from cli.output import say
from config.broker import check_broker
from config.queues import make_app
from config.settings import Settings
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.runs import RunInfo, finish_run, start_run
from producers.client import Client
from routing.decision import CacheScope
from workers.stack import running_stack


@dataclass(frozen=True)
class Session:
    """An open stack with a run and a client on it."""

    settings: Settings
    engine: Engine
    run: RunInfo
    client: Client
    failure: Callable[[], str | None] = lambda: None
    """Why nothing more will be answered; ``None`` while all is well."""


@contextmanager
def session(
    settings: Settings,
    *,
    mode: str,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    run: RunInfo | None = None,
    cache: CacheScope | None = None,
    own_workers: bool = False,
) -> Iterator[Session]:
    """Everything started, and stopped again if nobody had started it before.

    A ``run`` that is given is gone on with; else a new one is written. ``own_workers`` starts
    workers also where the operator runs the broker.
    """
    settings.catalog  # noqa: B018 - a broken profile must show before anything is started
    migrate(settings)
    with running_stack(settings, progress=say, own_workers=own_workers) as endpoint:
        if settings.broker_url is not None:
            check_broker(make_app(settings, endpoint.broker_url))
        engine = open_ledger(settings)
        this = run or start_run(
            engine, mode=mode, profile=settings.profile, now=now(), seed=seed, config=config,
            absent=settings.absent_lanes,
        )  # fmt: skip
        try:
            with Client(
                settings, endpoint.broker_url, this, cache=cache, failure=endpoint.failure
            ) as client:
                yield Session(settings, engine, this, client, endpoint.failure)
            finish_run(engine, this.id, now())
        finally:
            engine.dispose()


@contextmanager
def ledger_session(
    settings: Settings,
    *,
    mode: str,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    run: RunInfo | None = None,
) -> Iterator[tuple[Engine, RunInfo]]:
    """A ledger and a run alone, for what asks nobody: neither broker nor workers are needed."""
    settings.catalog  # noqa: B018 - a broken profile must show before anything is written
    migrate(settings)
    engine = open_ledger(settings)
    try:
        this = run or start_run(
            engine, mode=mode, profile=settings.profile, now=now(), seed=seed, config=config,
            absent=settings.absent_lanes,
        )  # fmt: skip
        yield engine, this
        finish_run(engine, this.id, now())
    finally:
        engine.dispose()
