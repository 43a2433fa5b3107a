"""The daemon as a command: real stack, real processes, scripted models, and the real small one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.stacks import wait_until

PROFILE = Path(__file__).parents[1] / "daemon.toml"


class Machine:
    """A data directory and a working directory, on which commands run."""

    def __init__(self, folder: Path, profile: str = str(PROFILE)) -> None:
        self.data = folder / "data"
        self.work = folder / "work"
        self.work.mkdir()
        (self.work / "notes.md").write_text("first line\n")
        self.profile = profile

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if "ANTHROPIC" not in k and "UPTIER" not in k}
        return kept | {"UPTIER_DATA_DIR": str(self.data), "UPTIER_PROFILE": self.profile}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "cli.main", *words]

    def uptier(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, env=self.env, timeout=400,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def read(self, *words: str) -> Any:
        return json.loads(self.uptier(*words, "--json").stdout)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command("daemon", *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.env, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def daemon(self, objective: str, iterations: int = 3, *more: str) -> Any:
        return self.read(
            "daemon", "--objective", objective, "--workdir", str(self.work),
            "--max-iterations", str(iterations), *more,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def begun(machine: Machine) -> Iterator[Path]:
    """The file that the slow program writes its id into; the program is ended afterwards."""
    path = machine.work / "begun"
    yield path
    with suppress(OSError, ValueError):
        os.kill(int(path.read_text()), signal.SIGKILL)


def test_a_session_of_twenty_iterations_on_the_sample(machine: Machine) -> None:
    there = machine.work / "tally"
    found = machine.read(
        "daemon", "--sample", "--workdir", str(there), "--objective", "Mend what TODO.md names",
        "--max-iterations", "20",
    )  # fmt: skip
    assert (found["iteration"], found["ending"]) == (20, "all iterations are done")
    assert [step["iteration"] for step in found["steps"]] == list(range(1, 21))
    assert sum(found["classes"].values()) == 20
    assert {"simple", "moderate"} <= set(found["classes"])
    assert found["report"]["decisions"]["total"] >= 20
    assert (found["report"]["unsettled"], found["report"]["empty"]) == (0, 0)
    assert found["report"]["mode"] == "daemon"
    again = machine.read("daemon", "--status")
    assert (again["run"], again["steps"]) == (found["run"], found["steps"])
    shown = machine.uptier("daemon", "--status").stdout
    assert "Iteration  20 of 20" in shown
    log = machine.read("approvals", "log")["rulings"]
    assert len(log) >= sum(1 for step in found["steps"] if step["ruling"])


def test_an_approved_action_is_done_by_the_next_daemon(machine: Machine) -> None:
    found = machine.daemon("exec", 1)
    [waiting] = found["approvals"]
    assert (waiting["action"], waiting["arguments"]) == ("exec", {"argv": ["touch", "touched"]})
    assert not (machine.work / "touched").exists()
    [listed] = machine.read("approvals", "list")["approvals"]
    assert listed["id"] == waiting["id"]
    shown = machine.uptier("approvals", "show", waiting["id"]).stdout
    assert '"touched"' in shown
    machine.uptier("approvals", "approve", waiting["id"], "--reason", "harmless")
    resumed = machine.read("daemon", "--resume")
    assert resumed["run"] == found["run"]
    assert resumed["steps"][-1]["state"] == "done"
    assert (machine.work / "touched").exists()
    refused = machine.uptier("daemon", "--resume", code=2).stderr
    assert "nothing approved waits" in refused
    refused = machine.uptier("approvals", "approve", waiting["id"], code=2).stderr
    assert "is used already" in refused
    more = machine.read("daemon", "--resume", "--max-iterations", "4")
    assert more["iteration"] == 4


def test_a_rejected_action_stays_undone(machine: Machine) -> None:
    [waiting] = machine.daemon("exec", 1)["approvals"]
    machine.uptier("approvals", "reject", waiting["id"], "--reason", "no need")
    machine.read("daemon", "--resume", "--max-iterations", "2")
    assert not (machine.work / "touched").exists()
    [rejected] = machine.read("approvals", "list", "--all")["approvals"]
    assert (rejected["state"], rejected["note"]) == ("rejected", "no need")
    assert machine.uptier("approvals", "list").stdout == "nothing waits\n"


def test_a_command_with_denied_words_is_denied(machine: Machine) -> None:
    found = machine.daemon("forbidden", 1)
    assert (found["steps"][0]["state"], found["approvals"]) == ("denied", [])


def test_a_daemon_that_is_killed_in_mid_action_goes_on_without_repeating_it(
    machine: Machine, begun: Path
) -> None:
    daemon = machine.start(
        "--objective", "slow", "--workdir", str(machine.work), "--max-iterations", "2"
    )
    try:
        wait_until(begun.exists, timeout_s=90)
    finally:
        daemon.kill()
        daemon.wait()
    os.kill(int(begun.read_text()), signal.SIGKILL)
    begun.unlink()
    resumed = machine.read("daemon", "--resume")
    states = [(step["action"], step["state"]) for step in resumed["steps"]]
    # The model wants it once more, which is a person's to say.
    assert states == [("run", "unknown"), ("run", "waiting")]
    assert not begun.exists()


def test_ctrl_c_ends_the_program_and_the_daemon_can_go_on(machine: Machine, begun: Path) -> None:
    daemon = machine.start(
        "--objective", "slow", "--workdir", str(machine.work), "--max-iterations", "2"
    )
    try:
        wait_until(lambda: begun.exists() and bool(begun.read_text()), timeout_s=90)
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(timeout=90) == 130
    finally:
        daemon.kill()
        daemon.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)
    begun.unlink()
    resumed = machine.read("daemon", "--resume")
    assert resumed["steps"][0]["state"] == "unknown"
    assert resumed["iteration"] == 2


def test_two_daemons_on_one_directory(machine: Machine, begun: Path) -> None:
    daemon = machine.start(
        "--objective", "slow", "--workdir", str(machine.work), "--max-iterations", "1"
    )
    try:
        wait_until(begun.exists, timeout_s=90)
        words = ("--objective", "x", "--workdir", str(machine.work))
        assert "another daemon works on" in machine.uptier("daemon", *words, code=2).stderr
        # The kill file is looked at before the next action; the one under way is let be.
        (machine.data / "daemon.kill").touch()
        time.sleep(0.1)
        assert daemon.poll() is None
    finally:
        daemon.send_signal(signal.SIGINT)
        daemon.wait(timeout=90)


def test_the_kill_file_says_so_and_is_no_failure(machine: Machine) -> None:
    machine.data.mkdir()
    (machine.data / "daemon.kill").touch()
    found = machine.daemon("anything", 5)
    assert (found["ending"], found["iteration"], found["killed"]) == (
        "the kill file is there", 0, True,
    )  # fmt: skip
    (machine.data / "daemon.kill").unlink()
    assert machine.read("daemon", "--resume")["iteration"] == 5


def test_memories_of_persons_get_a_topic_from_the_small_model(machine: Machine) -> None:
    topic = machine.read("memory", "add", "The parser is slow.")["topic"]
    machine.uptier("memory", "add", "Use TOML.", "--topic", "decision")
    found = machine.read("memory", "query", "--recent", "1h")["memories"]
    assert [(one["topic"], one["content"]) for one in found] == [
        (topic, "The parser is slow."), ("decision", "Use TOML."),
    ]  # fmt: skip
    found = machine.read("memory", "query", "--topic", "decision")["memories"]
    assert [one["content"] for one in found] == ["Use TOML."]
    assert machine.read("memory", "query", "--topic", "bug", "--recent", "7d")["memories"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("daemon", "--workdir", "."), "--objective is empty"),
        (("daemon", "--objective", " ", "--workdir", "."), "--objective is empty"),
        (("daemon", "--objective", "x"), "--workdir is missing"),
        (("daemon", "--objective", "x", "--workdir", "absent"), "absent is not there"),
        (("daemon", "--objective", "x", "--workdir", "notes.md"), "not a directory"),
        (("daemon", "--objective", "x", "--workdir", ".", "--max-iterations", "0"), "at least 1"),
        (("daemon", "--objective", "x", "--workdir", ".", "--iterations-per-hour", "0"),
         "at least 1"),
        (("daemon", "--objective", "x", "--workdir", ".", "--actions", "reboot"),
         "'reboot' is no action"),
        (("daemon", "--objective", "x", "--workdir", ".", "--sample"), "is not empty"),
        (("daemon", "--objective", "x" * 2_001, "--workdir", "."), "2001 characters"),
        (("daemon", "--objective", "x", "--workdir", ".", "--profile",
          str(PROFILE.with_name("profiles_scripted.toml"))), 'include = ["swarm"]'),
        (("daemon", "--resume", "--objective", "x"), "drop --objective"),
        (("daemon", "--resume"), "no daemon to resume"),
        (("daemon", "--status"), "no daemon has run"),
        (("approvals", "approve", "nobody"), "'nobody' is not in the ledger"),
        (("approvals", "show", "nobody"), "'nobody' is not in the ledger"),
        (("memory", "query", "--recent", "soon"), "'soon' is no age"),
        (("memory", "query", "--topic", "cars"), "'cars' is unknown"),
        (("memory", "add", " "), "1 to 4000 characters"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(machine: Machine, words: tuple[str, ...], says: str) -> None:
    done = subprocess.run(
        machine.command(*words), capture_output=True, text=True, cwd=machine.work, timeout=400,
        env=machine.env | {"PYTHONPATH": str(PROFILE.parents[1])}, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert says in line
    assert sorted(p.name for p in machine.work.iterdir()) == ["notes.md"]


@pytest.mark.usefixtures("smollm2")
@pytest.mark.timeout(900)
def test_a_few_iterations_on_the_real_small_model(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "tiny")
    there = machine.work / "tally"
    found = machine.read(
        "daemon", "--sample", "--workdir", str(there), "--objective", "Find what is wrong",
        "--max-iterations", "3", "--privacy", "high",
    )  # fmt: skip
    assert (found["iteration"], found["report"]["unsettled"]) == (3, 0)
    assert found["report"]["empty"] == 0
    assert set(found["states"]) <= {"done", "failed", "waiting", "denied"}
    assert set(found["report"]["lanes"]) <= {"tier1", "tier2"}
