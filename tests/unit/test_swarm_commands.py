"""Programs that the daemon runs: no shell, no keys, bounded, ended with all they started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from producers.swarm.commands import Ran, middle_cut, run_program
from producers.swarm.sandbox import Refused


def run(tmp_path: Path, *argv: str, timeout_s: float = 30, max_chars: int = 1_000) -> Ran:
    return run_program(argv, tmp_path, timeout_s=timeout_s, max_chars=max_chars)


def python(tmp_path: Path, code: str, **bounds: float) -> Ran:
    return run_program(
        [sys.executable, "-I", "-c", code], tmp_path,
        timeout_s=bounds.get("timeout_s", 30), max_chars=int(bounds.get("max_chars", 1_000)),
    )  # fmt: skip


def test_a_program_runs_in_the_directory_and_its_words_are_no_shell(tmp_path: Path) -> None:
    ran = run(tmp_path, "echo", "$HOME", ";", "touch", "x")
    assert ran == Ran(0, "$HOME ; touch x\n")
    assert python(tmp_path, "import os; print(os.getcwd())").output.strip() == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_key_is_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-very-secret")
    monkeypatch.setenv("UPTIER_DATABASE_URL", "postgresql://user:word@host/db")
    ran = python(tmp_path, "import os; print(sorted(os.environ))")
    assert "ANTHROPIC" not in ran.output
    assert "UPTIER" not in ran.output
    assert "PATH" in ran.output


def test_what_it_says_is_bounded_on_the_way(tmp_path: Path) -> None:
    ran = python(tmp_path, "print('a' * 3_000_000 + 'end')", max_chars=1_000)
    assert ran.code == 0
    assert len(ran.output) < 1_100
    assert ran.output.startswith("aaa")
    assert ran.output.endswith("end\n")
    assert "left out" in ran.output


def test_keys_that_it_says_are_hidden(tmp_path: Path) -> None:
    assert "sk-ant" not in run(tmp_path, "echo", "sk-ant-REDACTED").output


def test_a_program_past_its_time_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('pid').write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    ran = python(tmp_path, code, timeout_s=3)
    assert ran.code is None
    assert not alive(int((tmp_path / "pid").read_text()))


def test_what_a_program_leaves_running_is_ended(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('pid').write_text(str(child.pid))"
    )
    assert python(tmp_path, code).code == 0
    assert not alive(int((tmp_path / "pid").read_text()))


def test_it_has_no_input(tmp_path: Path) -> None:
    assert python(tmp_path, "import sys; print(repr(sys.stdin.read()))").output == "''\n"


@pytest.mark.parametrize("program", ["no-such-program", "a\0b", "./script"])
def test_a_program_that_is_not_there_is_refused(tmp_path: Path, program: str) -> None:
    with pytest.raises(Refused):
        run(tmp_path, program)


def test_a_program_of_the_directory_is_found_wherever_the_daemon_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder, says in ((tmp_path, "right"), (tmp_path / "here", "wrong")):
        (folder / "check.sh").write_text(f"#!/bin/sh\necho {says}\n")
        (folder / "check.sh").chmod(0o755)
    assert run(tmp_path, "./check.sh").output == "right\n"
    (tmp_path / "check.sh").unlink()
    with pytest.raises(Refused):
        run(tmp_path, "./check.sh")


@pytest.mark.parametrize("entry", ["", ".", "bin"])
def test_no_program_of_the_directory_stands_in_for_one_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{entry}{os.pathsep}{os.environ['PATH']}")
    for place in (tmp_path, tmp_path / "bin"):
        place.mkdir(exist_ok=True)
        (place / "git").write_text("#!/bin/sh\necho planted\n")
        (place / "git").chmod(0o755)
    assert run(tmp_path, "git", "--version").output.startswith("git version")
    assert run(tmp_path, "env", "git", "--version").output.startswith("git version")


def test_the_middle_is_cut() -> None:
    assert middle_cut("short", 10) == "short"
    cut = middle_cut("a" * 50 + "b" * 50, 20)
    assert cut.startswith("a" * 10)
    assert cut.endswith("b" * 10)
    assert "80 characters" in cut


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and pid != os.getpid()
    except psutil.NoSuchProcess:
        return False
