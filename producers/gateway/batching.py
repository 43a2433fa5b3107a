"""Batches of the gateway: runs of their own, whose lines are asked in the background."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from config.errors import InputError
from config.settings import Settings
from ledger import lifecycle
from ledger.batches import (
    MODE,
    BatchState,
    list_batches,
    mark_cancelled,
    open_count,
    outcomes,
    state_of,
)
from ledger.clock import SECOND, now
from ledger.patience import patiently
from ledger.runs import RunInfo, find_run, finish_run, start_run
from producers.batch import result_of, submit_lines
from producers.batch_lines import BatchFile, Wanted, examine
from producers.client import Client
from producers.gateway.callers import Caller
from producers.gateway.store import Store, StoredFile
from routing.decision import Decision, Preferences
from routing.wishes import raised_to

log = logging.getLogger(__name__)

READING = 8
"""Batches whose files are read at a time; most of them wait for room."""
AHEAD = 2_000
"""Decisions of one batch that may be open when more of it is asked: whoever asks at the same time
waits behind them all. It is enough to keep the workers of many cards busy."""
LOOK_S = 0.2
"""How often it is looked whether there is room again."""
MOST_LISTED = 1_000
RESULT = "batch_output"


class Stopped(Exception):
    """A batch is not read on: it was cancelled, or the gateway is closing."""


class Origin(BaseModel):
    """What of a batch's configuration is the gateway's. ``window_s`` counts from its creation."""

    owner: str
    preferences: Preferences
    input_file_id: str
    endpoint: str
    window: str
    window_s: int
    metadata: dict[str, str]

    def ends_at(self, run: RunInfo) -> float:
        """When the window of a batch is over, in seconds since 1970."""
        return run.created_at / SECOND + self.window_s


class Batching:
    """Creates batches, has their lines asked, and writes their results once all are there."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        store: Store,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._client = client
        self._store = store
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._begun: set[str] = set()
        self._readers = ThreadPoolExecutor(READING, thread_name_prefix="batch")
        self._readers.submit(self._go_on_with_all)

    def create(self, file: StoredFile, origin: Origin) -> RunInfo:
        """A new batch of a file; its lines are asked soon.

        Raises:
            InputError: the file has no line.
        """
        try:
            read = examine(self._store.data(file.id))
        except InputError:  # whose message names a place that is nobody's business
            raise InputError(f"file {file.id} has no line: put one JSON object on each") from None
        config = {
            "file": str(read.path), "sha256": read.sha256, "lines": read.lines, "model": None,
            "privacy": origin.preferences.privacy.value, "gateway": origin.model_dump(mode="json"),
        }  # fmt: skip
        run = start_run(
            self._client.engine, mode=MODE, profile=self._settings.profile, now=now(),
            name=file.filename, config=config, absent=self._settings.absent_lanes,
        )  # fmt: skip
        self._begin(run, origin, read)
        return run

    def find(self, run_id: str, caller: Caller) -> tuple[RunInfo, Origin] | None:
        """A batch of the caller's."""
        run = find_run(self._client.engine, run_id, MODE)
        origin = None if run is None else origin_of(run)
        if run is None or origin is None or origin.owner != caller.name:
            return None
        return run, origin

    def all(self, caller: Caller) -> list[tuple[RunInfo, Origin]]:
        """The caller's batches, the newest first."""
        runs = list_batches(self._client.engine, MOST_LISTED)
        known = [(run, origin_of(run)) for run in runs]
        return [(r, o) for r, o in known if o is not None and o.owner == caller.name]

    def state(self, run: RunInfo, origin: Origin) -> tuple[BatchState, dict[str, StoredFile]]:
        """How far a batch is, and the files of its results, which are written once it has ended.

        One that could not be read to its end has ``expired`` when its window is over.
        """
        found = state_of(self._client.engine, run)
        over = origin.ends_at(run) < self._clock() and run.id not in self._begun
        if found.status == "incomplete" and over:
            found = found.model_copy(update={"status": "expired"})
        if found.status not in ("completed", "cancelled", "expired") or found.open:
            return found, {}
        with self._writing:
            return found, self._results(run, origin)

    def cancel(self, run: RunInfo) -> None:
        """Nobody wants the rest of a batch."""
        patiently(mark_cancelled, self._client.engine, run, now())
        patiently(lifecycle.cancel, self._client.engine, now(), run_id=run.id)

    def close(self) -> None:
        """Read no more; what is unread is gone on with by the next gateway."""
        self._closing.set()
        self._readers.shutdown(cancel_futures=True)

    def _go_on_with_all(self) -> None:
        """Read on what an earlier gateway on this ledger had begun."""
        for run in patiently(list_batches, self._client.engine, MOST_LISTED):
            origin = origin_of(run)
            if origin is None or run.profile != self._settings.profile or self._closing.is_set():
                continue
            try:
                self._go_on(run, origin)
            except Exception as error:  # nor does it keep the others from being read
                log.warning("batch %s cannot be gone on with: %s", run.id, error)

    def _go_on(self, run: RunInfo, origin: Origin) -> None:
        found = patiently(state_of, self._client.engine, run)
        over = origin.ends_at(run) < self._clock()
        if over or found.status == "cancelled" or found.read >= found.lines:
            return
        read = examine(Path(run.config["file"]))
        if read.sha256 != run.config["sha256"]:
            raise InputError(f"batch file {str(read.path)!r} is another one by now")
        self._begin(run, origin, read)

    def _begin(self, run: RunInfo, origin: Origin, read: BatchFile) -> None:
        with self._lock:
            if run.id in self._begun:
                return
            self._begun.add(run.id)
        self._readers.submit(self._read, run, origin, read)

    def _read(self, run: RunInfo, origin: Origin, read: BatchFile) -> None:
        try:
            submit_lines(
                self._client.engine, run.id, read, self._settings.catalog,
                Wanted(None, origin.preferences), self._asking(run, origin),
                lambda _: self._look_up(run, origin),
            )  # fmt: skip
        except Stopped:
            log.info("batch %s is not read on", run.id)
        except Exception:
            log.exception("batch %s was cut short; the next gateway goes on with it", run.id)
        finally:
            with self._lock:
                self._begun.discard(run.id)
            current = find_run(self._client.engine, run.id, MODE)
            if current is not None and current.config.get("cancelled"):
                patiently(lifecycle.cancel, self._client.engine, now(), run_id=run.id)

    def _look_up(self, run: RunInfo, origin: Origin) -> None:
        current = find_run(self._client.engine, run.id, MODE)
        over = origin.ends_at(run) < self._clock()
        if self._closing.is_set() or over or current is None or current.config.get("cancelled"):
            raise Stopped

    def _await_room(self, run: RunInfo, origin: Origin) -> None:
        while patiently(open_count, self._client.engine, run.id) > AHEAD:
            self._look_up(run, origin)
            self._closing.wait(LOOK_S)

    def _asking(self, run: RunInfo, origin: Origin) -> Callable[[Sequence[Decision]], list[str]]:
        """Who asks for a batch: in its run, at its payer's cost, within its window."""

        def ask(decisions: Sequence[Decision]) -> list[str]:
            self._await_room(run, origin)
            left = max(1.0, origin.ends_at(run) - self._clock())
            bound = [_bound(one, origin, left) for one in decisions]
            return self._client.submit(bound, run=run)

        return ask

    def _results(self, run: RunInfo, origin: Origin) -> dict[str, StoredFile]:
        """The files of a batch's results: ``output`` and ``errors``, as far as there are any."""
        names = {kind: f"file-{run.id}-{kind}" for kind in ("output", "errors")}
        marker = f"file-{run.id}"
        if self._store.find(marker) is None:
            about: dict[str, Any] = {"owner": origin.owner, "purpose": RESULT}
            for kind, name in names.items():
                self._store.write(name, self._lines(run, fails=kind == "errors"),
                                  filename=f"{run.id}_{kind}.jsonl", **about)  # fmt: skip
            hidden = {"owner": f"batch {run.id}", "purpose": RESULT}
            self._store.write(marker, [], filename=run.id, **hidden)
            if run.finished_at is None:
                finish_run(self._client.engine, run.id, now())
        found = {kind: self._store.find(name) for kind, name in names.items()}
        return {kind: file for kind, file in found.items() if file is not None and file.bytes}

    def _lines(self, run: RunInfo, *, fails: bool) -> Iterator[bytes]:
        for outcome in outcomes(self._client.engine, run.id, self._settings.catalog):
            result = result_of(outcome)
            if result is not None and (result["error"] is not None) == fails:
                yield json.dumps(result, ensure_ascii=False).encode() + b"\n"


def origin_of(run: RunInfo) -> Origin | None:
    """Where a batch comes from; ``None`` for one that is not the gateway's."""
    try:
        return Origin.model_validate(run.config.get("gateway"))
    except ValidationError:
        return None


def _bound(decision: Decision, origin: Origin, left_s: float) -> Decision:
    own = decision.deadline_s
    payer = origin.preferences.payer
    preferences = decision.preferences.model_copy(update={"payer": payer})
    changes = {
        "preferences": preferences,
        "deadline_s": left_s if own is None else min(own, left_s),
    }
    return raised_to(decision.model_copy(update=changes), origin.preferences.privacy)
