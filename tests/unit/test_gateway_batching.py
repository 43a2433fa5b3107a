"""Batches of the gateway that an earlier one left, that are cancelled, or whose window is over."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError
from ledger.batches import MODE
from ledger.clock import SECOND, now
from ledger.runs import RunInfo, find_run, start_run
from producers.batch_lines import CHAT, examine
from producers.gateway import batching as batching_module
from producers.gateway.batching import Batching, Origin
from producers.gateway.callers import NOBODY
from producers.gateway.store import Store, StoredFile
from routing.decision import Preferences
from tests.unit.ledgers import rows
from tests.unit.test_hub import House

HOUR_S = 3_600


class Office(House):
    """A house with batches on a clock that the tests set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.store = Store(folder / "files", time.time)
        self.ahead = 0.0

    def open(self) -> Batching:
        """What a gateway does with batches, from its start on."""
        return Batching(self.settings, self.client, self.store, lambda: time.time() + self.ahead)

    def upload(self, *names: str) -> StoredFile:
        body = {"model": "auto", "messages": [{"role": "user", "content": "Hello?"}]}
        lines = [{"custom_id": n, "method": "POST", "url": CHAT, "body": body} for n in names]
        text = [json.dumps(line).encode() + b"\n" for line in lines]
        return self.store.write(f"file-{now():x}", text, owner="", filename="f", purpose="batch")

    def left(self, file: StoredFile, **config: Any) -> RunInfo:
        """A batch that an earlier gateway has written and not read."""
        read = examine(self.store.data(file.id))
        origin = origin_of(file).model_dump(mode="json")
        whole = {"file": str(read.path), "sha256": read.sha256, "lines": read.lines,
                 "gateway": origin} | config  # fmt: skip
        return start_run(self.engine, mode=MODE, profile=self.settings.profile, now=now(),
                         config=whole)  # fmt: skip


def origin_of(file: StoredFile) -> Origin:
    return Origin(owner="", preferences=Preferences(), input_file_id=file.id, endpoint=CHAT,
                  window="24h", window_s=24 * HOUR_S, metadata={})  # fmt: skip


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.client.close()
    made.engine.dispose()


def until_read(batching: Batching, run: RunInfo, origin: Origin, lines: int) -> None:
    ends_at = time.monotonic() + 20
    while batching.state(run, origin)[0].read < lines:
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def test_a_batch_whose_file_is_gone_keeps_no_other_from_being_read(office: Office) -> None:
    whole, lost = office.upload("a", "b"), office.upload("c")
    first, second = office.left(whole), office.left(lost)
    office.store.remove(lost.id)
    batching = office.open()
    until_read(batching, first, origin_of(whole), 2)
    assert batching.state(second, origin_of(lost))[0].status == "incomplete"
    batching.close()


def test_what_is_not_read_when_the_window_is_over_has_expired(office: Office) -> None:
    file = office.upload("a", "b")
    run, origin = office.left(file), origin_of(file)
    office.ahead = 24 * HOUR_S + 60
    batching = office.open()
    batching.close()  # it waits for what was begun: nothing
    state, files = batching.state(run, origin)
    assert (state.status, state.read, files) == ("expired", 0, {})


def test_when_it_was_cancelled_stays_so_whenever_its_results_are_asked_for(
    office: Office,
) -> None:
    batching = office.open()
    file = office.upload("a")
    run = batching.create(file, origin_of(file))
    until_read(batching, run, origin_of(file), 1)
    batching.cancel(run)
    found = batching.find(run.id, NOBODY)
    assert found is not None
    cancelled_at = found[0].finished_at
    assert cancelled_at is not None
    assert cancelled_at <= now()
    time.sleep(2 / SECOND)
    state, files = batching.state(*found)
    assert (state.status, list(files)) == ("cancelled", ["errors"])
    again = find_run(office.engine, run.id)
    assert again is not None
    assert again.finished_at == cancelled_at
    batching.close()


def test_a_file_without_lines_is_named_as_its_uploader_knows_it(office: Office) -> None:
    batching = office.open()
    file = office.upload()
    with pytest.raises(InputError, match="has no line") as error:
        batching.create(file, origin_of(file))
    assert file.id in str(error.value)
    assert str(office.settings.data_dir) not in str(error.value)
    batching.close()


def test_of_a_large_batch_no_more_waits_than_others_can_bear(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching_module, "AHEAD", 150)
    batching = office.open()
    file = office.upload(*(f"q{i}" for i in range(350)))
    run = batching.create(file, origin_of(file))
    until_read(batching, run, origin_of(file), 200)
    time.sleep(5 * batching_module.LOOK_S)
    assert batching.state(run, origin_of(file))[0].read == 200
    office.settle(*(row["id"] for row in rows(office.engine, "decision")), tell=False)
    until_read(batching, run, origin_of(file), 350)
    batching.close()


def test_closing_does_not_wait_for_a_batch_that_waits_for_room(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching_module, "AHEAD", 50)
    batching = office.open()
    file = office.upload(*(f"q{i}" for i in range(350)))
    run = batching.create(file, origin_of(file))
    until_read(batching, run, origin_of(file), 100)
    batching.close()
    assert batching.state(run, origin_of(file))[0].read == 100
