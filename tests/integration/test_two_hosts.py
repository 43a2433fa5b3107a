"""Broker and ledger on one host, workers on another, and the link between them is cut.

The cut takes 8 s here; `UPTIER_TEST_CUT_S=30 python -m pytest tests/integration/test_two_hosts.py`
makes it longer. Where this user may not make network namespaces the test is skipped, in CI too.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ledger.database import migrate, open_ledger, reading
from tests.distributed.hosts import WORK_ADDRESS, Host, TwoHosts, two_hosts
from tests.distributed.services import REDIS_PORT, services
from tests.faults.books import audit, keep_trail
from tests.integration.places import Absent, Place
from tests.integration.stacks import wait_until
from workers.stack_state import StackState, WorkerState

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
CUT_S = float(os.environ.get("UPTIER_TEST_CUT_S", "8"))
ASKED = int(max(200, 24 * CUT_S))
"""By each of two producers, at 16 a second: before the cut, during it and after it."""
SETTLED_BEFORE = 40
WORKERS = 4
STATUS_WITHIN_S = 40.0
"""A broker and a database that are silent are each asked a few times, 5 s long."""

MENDS = (("broker", "UPTIER_BROKER_URL"), ("ledger", "UPTIER_DATABASE_URL"))


@dataclass(frozen=True)
class Scene:
    """Two hosts with a stack on one of them."""

    hosts: TwoHosts
    place: Place
    """As it is seen from the hosts."""
    engine: Engine
    """The ledger, past the link."""

    @property
    def env(self) -> dict[str, str]:
        """Of commands on a host."""
        return {**os.environ, **self.place.env, "PYTHONPATH": str(ROOT)}

    def uptier(
        self, host: Host, *words: str, timeout_s: float = 400
    ) -> subprocess.CompletedProcess[str]:
        """A command of Uptier on a host."""
        python = (sys.executable, "-m", "cli.main")
        return host.run(*python, *words, env=self.env, timeout_s=timeout_s)

    def settled(self) -> int:
        """Decisions that are."""
        with reading(self.engine) as connection:
            query = text("SELECT count(*) FROM decision WHERE state = 'settled'")
            return int(connection.execute(query).scalar_one())

    def asked(self) -> int:
        """Decisions that are in the ledger."""
        with reading(self.engine) as connection:
            return int(connection.execute(text("SELECT count(*) FROM decision")).scalar_one())

    def connected(self) -> int:
        """Connections of the work host that the database believes in."""
        with reading(self.engine) as connection:
            query = text("SELECT count(*) FROM pg_stat_activity WHERE client_addr = :work")
            return int(connection.execute(query, {"work": WORK_ADDRESS}).scalar_one())

    def workers(self) -> dict[int, WorkerState]:
        """What became of each process of the stack."""
        state = StackState.read(self.place.settings().stack_dir)
        assert state is not None
        return {w.process.pid: w.state for w in state.workers if w.process is not None}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as undo:
        try:
            hosts = undo.enter_context(two_hosts())
            served = undo.enter_context(services(hosts))
        except Absent as error:
            pytest.skip(str(error))
        lease_s = max(3.0, CUT_S / 3)  # so that leases end while nobody can renew them
        given: dict[str, Any] = {
            "data_dir": tmp_path_factory.mktemp("work"),
            "profile": str(ROOT / "tests" / "distributed" / "profile.toml"),
            "broker_url": served.broker_url, "database_url": served.database_url,
            "lease_s": lease_s, "stale_after_s": 3, "leader_lease_s": 3,
        }  # fmt: skip
        place = Place("two-hosts", given)
        within = place.settings(database_url=served.past_the_link)
        migrate(within)
        engine = open_ledger(within)
        undo.callback(engine.dispose)
        keep_trail(engine)
        found = Scene(hosts, place, engine)
        up = found.uptier(hosts.work, "up")
        assert up.returncode == 0, up.stderr
        undo.callback(found.uptier, hosts.work, "down")
        yield found


@contextmanager
def running(scene: Scene, host: Host, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A module of tests.distributed on a host."""
    command = host.command(sys.executable, "-m", *words)
    process = subprocess.Popen(
        command, env=scene.env, cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints, if it does within a minute."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0], "it says nothing"
    return process.stdout.readline()


@contextmanager
def link_cut(hosts: TwoHosts) -> Iterator[None]:
    """No link for the time of the cut, or as long as the block takes."""
    until = time.monotonic() + CUT_S
    hosts.cut()
    try:
        yield
        time.sleep(max(0.0, until - time.monotonic()))
    finally:
        hosts.join()


def test_a_link_that_is_cut_loses_nothing(
    scene: Scene, record_property: pytest.RecordProperty
) -> None:
    before = scene.workers()
    assert list(before.values()) == [WorkerState.READY] * WORKERS
    with ExitStack() as undo:
        producers = [
            undo.enter_context(running(scene, host, "tests.distributed.producer", str(ASKED)))
            for host in (scene.hosts.work, scene.hosts.store)
        ]
        wait_until(lambda: scene.settled() >= SETTLED_BEFORE, 90)
        with link_cut(scene.hosts):
            asked = scene.asked()
            wait_until(lambda: scene.asked() >= asked + 8, 30)  # the other host goes on asking
            settled = scene.settled()
        joined = time.monotonic()
        wait_until(lambda: scene.settled() > settled, 60)
        record_property("first_settled_s", round(time.monotonic() - joined, 2))
        told = [json.loads(producer.communicate(timeout=240)[0]) for producer in producers]
        record_property("all_settled_s", round(time.monotonic() - joined, 2))
    assert scene.workers() == before
    for one in told:
        assert len(one["ids"]) == ASKED
        assert one["settled"] == one["ids"]
        look_at_books(scene.engine, one)


def look_at_books(engine: Engine, told: dict[str, Any]) -> None:
    """Nothing is lost, done twice, or stuck, and attempts are numbered from one on."""
    found = audit(engine, told["run"], {}, submitted=told["ids"])
    assert list(found.sentences()) == []
    assert found.decisions == ASKED
    with reading(engine) as connection:
        query = text("SELECT decision_id, lane, number FROM attempt ORDER BY number")
        rows = connection.execute(query).all()
        unsent = connection.execute(text("SELECT count(*) FROM outbox")).scalar_one()
    highest = {(row.decision_id, row.lane): row.number for row in rows}
    assert Counter((row.decision_id, row.lane) for row in rows) == highest
    assert unsent == 0


def test_commands_tell_in_one_line_that_the_link_is_cut(scene: Scene) -> None:
    scene.hosts.cut()
    try:
        status = scene.uptier(scene.hosts.work, "status", timeout_s=STATUS_WITHIN_S)
        asked = scene.uptier(
            scene.hosts.work,
            "decide",
            "--prompt",
            "A or B?",
            "--choices",
            "A,B",
            timeout_s=STATUS_WITHIN_S,
        )
    finally:
        scene.hosts.join()
    assert status.returncode == 0, status.stderr
    problems = [line for line in status.stdout.splitlines() if line.startswith("problem")]
    assert len(problems) == 2, status.stdout
    for line, (part, setting) in zip(problems, MENDS, strict=True):
        assert part in line
        assert setting in line
    assert asked.returncode == 2
    [line] = asked.stderr.splitlines()
    assert "does not answer" in line or "cannot be used" in line


def test_a_store_that_was_gone_is_connected_to_anew(scene: Scene) -> None:
    """Each side gives the other up by itself; nobody waits for what his kernel believes in."""
    work, store = scene.hosts.work, scene.hosts.store
    module = "tests.distributed.listener"
    with ExitStack() as undo:
        listener = undo.enter_context(running(scene, work, module, "run"))
        assert said(listener) == "listening\n"
        scene.hosts.cut()
        try:
            scene.hosts.forget(REDIS_PORT)
            # With statements under way, and with nothing under way.
            wait_until(lambda: scene.connected() == 0, 60)
        finally:
            scene.hosts.join()
        undo.enter_context(running(scene, store, module, "run", "decision"))
        assert said(listener) == "decision\n"
    done = scene.uptier(
        work, "decide", "--prompt", "A or B?", "--choices", "A,B", "--kind", "question"
    )
    assert done.returncode == 0, done.stderr
