"""Runs: what decisions belong to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Engine, insert, select, update

from config.load import AbsentLane
from ledger.database import insert_or_ignore, reading, writing
from ledger.outbox import new_id
from ledger.tables import TABLES

RUNS = TABLES.tables["run"]


@dataclass(frozen=True)
class RunInfo:
    """A run as its commands know it."""

    id: str
    mode: str
    profile: str
    seed: int
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    absent: tuple[AbsentLane, ...] = ()
    created_at: int = 0
    finished_at: int | None = None


def start_run(
    engine: Engine,
    *,
    mode: str,
    profile: str,
    now: int,
    seed: int = 0,
    name: str = "",
    config: dict[str, Any] | None = None,
    absent: tuple[AbsentLane, ...] = (),
) -> RunInfo:
    """Write a new run."""
    info = RunInfo(new_id(), mode, profile, seed, name, config or {}, absent, now)
    row = {
        "id": info.id,
        "name": name,
        "mode": mode,
        "profile": profile,
        "seed": seed,
        "config": json.dumps(info.config),
        "absent": json.dumps([asdict(lane) for lane in absent]),
        "created_at": now,
    }
    with writing(engine) as connection:
        connection.execute(insert(RUNS).values(**row))
    return info


def ensure_run(
    engine: Engine,
    *,
    mode: str,
    name: str,
    profile: str,
    now: int,
    absent: tuple[AbsentLane, ...] = (),
) -> str:
    """The id of the run of that mode and name; it is written if it is not there.

    The id follows from both, so that whoever names the same run at the same time gets one run.
    """
    run_id = hashlib.sha256(f"{mode}\0{name}".encode()).hexdigest()[:32]
    row = {"id": run_id, "name": name, "mode": mode, "profile": profile, "created_at": now,
           "seed": 0, "config": "{}",
           "absent": json.dumps([asdict(lane) for lane in absent])}  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert_or_ignore(connection, RUNS, ["id"]), [row])
    return run_id


def note_config(engine: Engine, run_id: str, config: dict[str, Any]) -> None:
    """Note what a run was last set to, for whoever goes on with it."""
    with writing(engine) as connection:
        connection.execute(
            update(RUNS).where(RUNS.c.id == run_id).values(config=json.dumps(config))
        )


def finish_run(engine: Engine, run_id: str, now: int) -> None:
    """Note that a run is through."""
    with writing(engine) as connection:
        connection.execute(update(RUNS).where(RUNS.c.id == run_id).values(finished_at=now))


def find_run(engine: Engine, run_id: str | None = None, mode: str | None = None) -> RunInfo | None:
    """The run of that id, or the latest one of that mode."""
    query = select(*RUNS.c).order_by(RUNS.c.created_at.desc(), RUNS.c.id.desc())
    if run_id is not None:
        query = query.where(RUNS.c.id == run_id)
    if mode is not None:
        query = query.where(RUNS.c.mode == mode)
    with reading(engine) as connection:
        row = connection.execute(query.limit(1)).first()
    return None if row is None else run_of(row)


def run_of(row: Any) -> RunInfo:
    """A row as a run."""
    absent = tuple(AbsentLane(**lane) for lane in json.loads(row.absent))
    return RunInfo(row.id, row.mode, row.profile, row.seed, row.name, json.loads(row.config),
                   absent, row.created_at, row.finished_at)  # fmt: skip
