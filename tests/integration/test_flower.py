"""Flower beside a real stack, looked at with a real browser."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import dom, find_browser
from cli.session import Session, session
from config.flower import LOGIN
from config.queues import INTAKE, INTAKE_TASK, make_app
from config.settings import Settings
from routing.decision import ChoiceOutput, Decision
from tests.integration.stacks import ROOT, wait_until
from workers.flower_place import FlowerRecord, flower_directory
from workers.stack_state import StackState

PROFILE = str(Path(__file__).parents[1] / "profiles_scripted.toml")
SECRET = "what Ada earns, and why that is hard"
USER, PASSWORD = "ada", "a-password-of-hers"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOGIN, f"{USER}:{PASSWORD}")
        patch.delenv("UPTIER_BROKER_URL", raising=False)
        settings = Settings(
            profile=PROFILE, data_dir=tmp_path_factory.mktemp("data"), flower=True, flower_port=0
        )
        with session(settings, mode="test") as opened:
            time.sleep(6)  # it asks the workers for events every 5 s
            yield opened


@pytest.fixture(scope="module")
def browser() -> str:
    found = find_browser()
    if found is None:
        pytest.skip("no Chromium on PATH: install the package chromium, or Chrome")
    return found


def url_of(settings: Settings, path: str, user: str = f"{USER}:{PASSWORD}@") -> str:
    found = FlowerRecord.read(settings)
    assert found is not None
    return found.url.replace("http://", f"http://{user}") + path


def status_of(settings: Settings, path: str, **headers: str) -> int:
    request = urllib.request.Request(url_of(settings, path, user=""), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def ask(live: Session) -> None:
    labels = ChoiceOutput(labels=("A", "B"))
    live.client.gather(
        [Decision(kind="question", key=f"k{time.monotonic_ns()}-{n}", prompt=f"{SECRET} {n}",
                  output=labels) for n in range(3)]
    )  # fmt: skip


def page_with(browser: str, url: str, *words: str) -> str:
    """The page, once it says all of this: events come in bundles."""
    pages = [""]

    def says_so() -> bool:
        pages[0] = dom(browser, url)
        return all(word in pages[0] for word in words)

    wait_until(says_so, timeout_s=60)
    return pages[0]


def test_a_browser_sees_lanes_counts_and_runs_and_never_a_prompt(
    live: Session, browser: str
) -> None:
    ask(live)
    state = StackState.read(live.settings.stack_dir)
    assert state is not None
    raw = {"run": "raw", "decisions": [{"key": "r", "kind": "question", "prompt": SECRET}]}
    make_app(live.settings, state.broker_url).send_task(INTAKE_TASK, kwargs=raw, queue=INTAKE)
    told = (f"tier1: 3 decisions of run {live.run.id}", "quality: 3 decisions",
            "1 decision of run raw", "uptier.decide")  # fmt: skip
    tasks = page_with(browser, url_of(live.settings, "/tasks"), *told)
    host = socket.gethostname()
    workers = dom(browser, url_of(live.settings, "/workers"))
    assert all(f"{name}@{host}" in workers for name in ("tier1-1", "tier2-1", "quality-1"))
    pages = [tasks, workers, dom(browser, url_of(live.settings, "/broker")),
             dom(browser, url_of(live.settings, f"/worker/quality-1@{host}"))]  # fmt: skip
    password = state.broker_url.split(":")[2].split("@")[0]
    assert "intake" in pages[2]
    for page in pages:
        assert "Ada" not in page
        assert password not in page


def test_the_login_is_asked_for_and_stands_in_no_command_line(live: Session) -> None:
    assert status_of(live.settings, "/workers") == 401
    wrong = base64.b64encode(f"{USER}:wrong".encode()).decode()
    assert status_of(live.settings, "/workers", Authorization=f"Basic {wrong}") == 401
    right = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert status_of(live.settings, "/workers", Authorization=f"Basic {right}") == 200
    found = FlowerRecord.read(live.settings)
    assert found is not None
    assert PASSWORD not in " ".join(found.process.command)


def test_what_it_saw_outlives_it_and_the_stack_starts_it_again(live: Session, browser: str) -> None:
    ask(live)
    done = f"tier1: 3 decisions of run {live.run.id}"
    page_with(browser, url_of(live.settings, "/tasks"), done)
    first = FlowerRecord.read(live.settings)
    assert first is not None
    os.kill(first.process.pid, signal.SIGTERM)
    wait_until(lambda: _another(live.settings, first.process.pid), timeout_s=30)
    page_with(browser, url_of(live.settings, "/tasks"), done)


def test_a_damaged_state_is_laid_aside(live: Session) -> None:
    first = FlowerRecord.read(live.settings)
    assert first is not None
    os.kill(first.process.pid, signal.SIGKILL)
    for path in flower_directory(live.settings).glob("state*"):
        path.write_bytes(b"\0garbage")
    wait_until(lambda: _another(live.settings, first.process.pid), timeout_s=30)
    assert status_of(live.settings, "/healthcheck") == 200


def _another(settings: Settings, pid: int) -> bool:
    found = FlowerRecord.read(settings)
    return found is not None and found.process.pid != pid


def uptier(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("UPTIER_")}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], capture_output=True, text=True,
        timeout=60, check=False, cwd=ROOT, env={**environment, **variables},
    )  # fmt: skip


def test_a_second_one_says_where_the_first_serves(live: Session) -> None:
    refused = uptier("flower", "--port", "0", "--data-dir", str(live.settings.data_dir))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert url_of(live.settings, "", user="") in refused.stderr


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        port = str(taker.getsockname()[1])
        directory = {"UPTIER_DATA_DIR": str(tmp_path), "UPTIER_PROFILE": PROFILE}
        for words, named in (
            (("flower",), "uptier up"),
            (("flower", "--address", "0.0.0.0"), LOGIN),
            (("up", "--flower"), port),
        ):
            refused = uptier(*words, **directory, UPTIER_FLOWER_PORT=port)
            assert refused.returncode == 2, refused.stderr
            last = refused.stderr.strip().splitlines()[-1]
            assert last.startswith("uptier: ")
            assert named in last
    assert StackState.read(tmp_path / "stack") is None


def test_a_stack_leaves_no_flower_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOGIN, raising=False)
    settings = Settings(profile=PROFILE, data_dir=tmp_path, flower=True, flower_port=0)
    with session(settings, mode="test"):
        found = FlowerRecord.read(settings)
        assert found is not None
        assert status_of(settings, "/workers") == 200
        assert status_of(settings, "/workers", Host="evil.example") == 403
    assert not found.process.lingers()
    assert FlowerRecord.read(settings) is None
