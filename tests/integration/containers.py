"""The containers of docker-compose.yml as processes of this machine: same commands, same checks.

What an engine would give them is mapped: host names to 127.0.0.1, ports to free ones, the paths of
secrets and volumes to directories. They run as a user of no rights where the tests run as root.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.containers import ROOT, command_of, image_environment, seconds, services, stages
from tests.integration.stacks import wait_until

NOBODY = 65534
READ_ALL = "dac_read_search"
READY_S = 150
ENTRYPOINT = ["tini", "--", "uptier"]
NOWHERE = "/nonexistent"
"""Where an image's own directories would be that nothing is mounted on: read-only there."""


@dataclass
class Container:
    """A service as a process: its command, its health check, its end."""

    name: str
    service: Mapping[str, Any]
    environment: dict[str, str]
    changed: Mapping[str, str]
    """Texts of the file that are others here, such as ports."""
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Run its command as the engine would."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*as_nobody(), *self._line()], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd="/", env=self.environment, start_new_session=True,
            )  # fmt: skip

    def run(self) -> int:
        """Run a one-shot to its end; its exit code."""
        self.start()
        assert self.process is not None
        return self.process.wait(READY_S)

    def healthy(self) -> bool:
        """What its health check says."""
        check = [self._here(part) for part in command_of(self.service["healthcheck"]["test"])]
        command = [*as_nobody(), *_ours(check)]
        done = subprocess.run(command, capture_output=True, env=self.environment, cwd="/")
        return done.returncode == 0

    def wait_healthy(self) -> None:
        """Until its health check says so, or it has ended."""
        wait_until(lambda: self._ended() or self.healthy(), READY_S)
        assert not self._ended(), f"{self.name} ended: {self.said()}"

    def stop(self) -> int:
        """The engine's stop: its signal, then at most its grace; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds(self.service["stop_grace_period"]))

    def kill(self) -> None:
        """End it whatever it does."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # of a pool, every process
            self.process.wait()

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _line(self) -> list[str]:
        command = [self._here(str(part)) for part in self.service["command"]]
        return _ours([*_entrypoint(self.service), *command])

    def _here(self, text: str) -> str:
        for there, here in self.changed.items():
            text = text.replace(there, here)
        return text


@dataclass(frozen=True)
class Machine:
    """Directories, ports and services that stand for what an engine would give."""

    folder: Path
    secrets: Path
    database_url: str
    profile: Path
    broker_port: int
    programs: Path
    """Stands before the PATH: the commands of other images."""

    def container(self, name: str, **ports: int) -> Container:
        """A service of the file, with the ports that it listens on changed to others."""
        service = services({"UPTIER_PROFILE": str(self.profile)})[name]
        changed = {"/run/secrets": str(self.secrets), "dir /data": self._broker_settings()}
        changed |= {old.removeprefix("port_"): str(new) for old, new in ports.items()}
        changed |= {"0.0.0.0": "127.0.0.1"}  # every interface, of a network that is not here
        environment = self._environment(name, service, changed)
        return Container(name, service, environment, changed, self.folder / f"{name}.log")

    def _broker_settings(self) -> str:
        data = _given(self.folder / "broker")
        return f"dir {data}\nport {self.broker_port}\nbind 127.0.0.1"

    def _environment(
        self, name: str, service: Mapping[str, Any], changed: Mapping[str, str]
    ) -> dict[str, str]:
        mounted = {v.split(":")[1]: _given(self.folder / name) for v in service.get("volumes", [])}
        image = image_environment() if _entrypoint(service) else {}
        found = {"HOME": NOWHERE, "TMPDIR": str(_given(self.folder / "tmp"))}
        for variable, value in (image | dict(service.get("environment", {}))).items():
            text = str(mounted.get(value, NOWHERE if value.startswith("/var/lib") else value))
            found[variable] = text.replace("/run/secrets", changed["/run/secrets"])
        path = os.pathsep.join((str(self.programs), os.environ["PATH"]))
        found |= {"PATH": path, "PYTHONPATH": str(ROOT)}
        if "UPTIER_BROKER_URL" in found:
            found["UPTIER_BROKER_URL"] = f"redis://127.0.0.1:{self.broker_port}/0"
            found["UPTIER_DATABASE_URL"] = self.database_url
        return found


@cache
def as_nobody() -> tuple[str, ...]:
    """What stands before a command to run it as a user of no rights; nothing where that cannot be.

    Where nobody may not read the program (it lies below a home directory), the right to read all is
    left to him. What he may write to is the same.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return ()
    plain = (
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--no-new-privs",
    )
    nothing = (*plain, "--inh-caps=-all", "--bounding-set=-all")
    reading = (
        *plain, f"--inh-caps=-all,+{READ_ALL}", f"--ambient-caps=+{READ_ALL}",
        f"--bounding-set=-all,+{READ_ALL}",
    )  # fmt: skip
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": NOWHERE,
                   "PATH": os.environ["PATH"]}  # fmt: skip
    for before in (nothing, reading):
        # Python that cannot read its own library takes that of another installation.
        looks = [*before, sys.executable, "-c", "import os, cli.main; print(os.__file__)"]
        done = subprocess.run(looks, capture_output=True, text=True, cwd="/", env=environment)
        if done.stdout.strip() == os.__file__:
            return before
    return ()


def hand_over(*paths: Path) -> None:
    """Make files the containers' user's."""
    for path in paths if as_nobody() else ():
        os.chown(path, NOBODY, NOBODY)


def stand_ins(folder: Path, server: Path, broker_port: int) -> Path:
    """The programs of the broker's image, made of what is on this machine."""
    folder.mkdir()
    client = shutil.which("valkey-cli") or shutil.which("redis-cli") or "no-redis-cli"
    scripts = {
        "docker-entrypoint.sh": 'exec "$@"',
        "valkey-server": f'exec {shlex.quote(str(server))} "$@"',
        "valkey-cli": f'exec {shlex.quote(client)} -p {broker_port} "$@"',
    }
    for name, line in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return folder


def _given(folder: Path) -> Path:
    """A directory that the containers' user may write to."""
    folder.mkdir(exist_ok=True)
    hand_over(folder)
    return folder


def _entrypoint(service: Mapping[str, Any]) -> list[str]:
    declared = [rest for name, rest in stages()["image"] if name == "ENTRYPOINT"]
    assert declared == ['["tini", "--", "uptier"]']
    return ENTRYPOINT if service["image"].startswith("uptier:") else []


def _ours(command: list[str]) -> list[str]:
    """The image's programs by those of this environment."""
    if command[: len(ENTRYPOINT)] == ENTRYPOINT:
        command = command[2:]  # tini only passes signals on
    if command[0] == "uptier":
        return [sys.executable, "-m", "cli.main", *command[1:]]
    return [sys.executable, *command[1:]] if command[0] == "python" else command
