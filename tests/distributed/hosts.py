"""Two hosts in network namespaces, joined by a link that can be cut."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.places import Absent

STORE_ADDRESS = "192.0.2.1"
WORK_ADDRESS = "192.0.2.2"
"""Of RFC 5737's first network for documentation; nobody outside the namespaces sees them."""
CARD = "eth0"
KILL_AFTER_S = 15.0


@dataclass(frozen=True)
class Host:
    """A network namespace: interfaces, addresses and a loopback of its own, the same files."""

    name: str

    def command(self, *words: str | Path) -> list[str]:
        """What runs ``words`` on this host."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(
        self, *words: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run ``words`` on this host to their end, whatever that is."""
        return subprocess.run(
            self.command(*words), env=env, timeout=timeout_s, check=False,
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def process_ids(self) -> list[int]:
        """Every process on this host."""
        return [int(word) for word in ip("netns", "pids", self.name).split()]


@dataclass(frozen=True)
class TwoHosts:
    """The store, where servers run, and the work host, where workers do."""

    store: Host
    work: Host
    folder: Path
    """For the servers' files; gone afterwards."""

    def cut(self) -> None:
        """Cut the link. The work host sees silence, as of a host whose power is gone."""
        ip("-n", self.store.name, "link", "set", CARD, "down")

    def join(self) -> None:
        """Join the link again."""
        ip("-n", self.store.name, "link", "set", CARD, "up")

    def forget(self, port: int) -> None:
        """Have the store know nothing any more of connections to a port, as after a power cut.

        While the link is cut the other side is not told.
        """
        self.store.run("ss", "--kill", "--tcp", "state", "established", f"sport = :{port}")


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """Two joined hosts; whatever runs on them at the end is ended, and both are removed.

    Raises:
        Absent: this user, or this machine, makes no network namespaces.
    """
    mark = uuid.uuid4().hex[:4]
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix=f"uptier-hosts-{mark}-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # PostgreSQL's own user has to get in
        store, work = (undo.enter_context(_host(f"uptier-{n}-{mark}")) for n in ("store", "work"))
        _join(store, work)
        yield TwoHosts(store, work, folder)


@contextmanager
def _host(name: str) -> Iterator[Host]:
    _need_rights()
    host = Host(name)
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        yield host
    finally:
        _remove(host)


def _need_rights() -> None:
    if shutil.which("ip") is None:
        raise Absent("there is no `ip` on the PATH (Debian's package iproute2)")
    if os.geteuid() != 0:
        raise Absent("network namespaces need root")


def _join(store: Host, work: Host) -> None:
    ip("link", "add", CARD, "netns", store.name, "type", "veth",
       "peer", "name", CARD, "netns", work.name)  # fmt: skip
    for host, address in ((store, STORE_ADDRESS), (work, WORK_ADDRESS)):
        ip("-n", host.name, "addr", "add", f"{address}/24", "dev", CARD)
        ip("-n", host.name, "link", "set", CARD, "up")
    [card] = json.loads(ip("-n", store.name, "-j", "link", "show", CARD))
    # Else a cut host is "unreachable" after three seconds of asking for its hardware address: that
    # is what a neighbour looks like. Behind a router nobody says anything.
    ip("-n", work.name, "neigh", "replace", STORE_ADDRESS, "lladdr", card["address"],
       "dev", CARD, "nud", "permanent")  # fmt: skip


def _remove(host: Host) -> None:
    """End what runs on a host, and remove it; a second Ctrl-C does not keep it from that."""
    before = signal.getsignal(signal.SIGINT)
    with suppress(ValueError):  # not on the main thread, which alone hears of Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            _end_all(host, number)
        with suppress(Absent):
            ip("netns", "del", host.name)
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, before)


def _end_all(host: Host, number: signal.Signals) -> None:
    deadline = time.monotonic() + KILL_AFTER_S
    with suppress(Absent):  # it was never made
        for pid in host.process_ids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while host.process_ids() and time.monotonic() < deadline:
            time.sleep(0.05)


def ip(*words: str) -> str:
    """What iproute2 says.

    Raises:
        Absent: it refuses.
    """
    done: Any = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"`ip {' '.join(words)}`: {done.stderr.strip() or 'refused'}")
    return str(done.stdout)
