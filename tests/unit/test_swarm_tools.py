"""What single actions do on a real directory, a real repository and a real server."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError
from ledger.swarm import State
from producers.swarm.actions import ACTIONS
from producers.swarm.dependencies import dependencies
from producers.swarm.memory import seconds
from producers.swarm.sample import make_sample
from producers.swarm.sandbox import Directory, Refused
from producers.swarm.tools import Result, Tools, bounded
from tests.unit.daemons import swarm_catalog


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    make_sample(tmp_path / "sample")
    return tmp_path / "sample"


def tools(root: Path, **swarm: Any) -> Tools:
    def nobody(*_: str) -> str:
        raise AssertionError("no model is asked here")

    return Tools(
        directory=Directory(root, file_bytes=100_000, files=100), catalog=swarm_catalog(**swarm),
        engine=None, run_id="run", think=nobody, classify=nobody, child=nobody,  # type: ignore[arg-type]
        status=lambda: "",
    )  # fmt: skip


def do(root: Path, action: str, **given: Any) -> Result:
    return ACTIONS[action].carry_out(tools(root), given, {})


def test_git_is_asked(sample: Path) -> None:
    assert do(sample, "git_status").text == "## main\n M tally/counting.py"
    log = do(sample, "git_log").text.splitlines()
    assert [line.split(" ", 2)[2] for line in log] == ["Note what is to be done", "Count words"]
    assert '-    return len(text.split(" "))' in do(sample, "git_diff").text


def test_a_directory_that_is_no_repository_says_so(tmp_path: Path) -> None:
    # Also where one of the folders above is one.
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "inner").mkdir()
    found = do(tmp_path / "inner", "git_status")
    assert (found.state, "not a git repository" in found.text) == (State.FAILED, True)


def test_a_repository_cannot_make_git_run_programs(sample: Path) -> None:
    script = sample / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {sample}/pwned\n")
    script.chmod(0o755)
    for name in ("core.fsmonitor", "diff.external", "core.pager", "diff.evil.textconv"):
        subprocess.run(["git", "-C", str(sample), "config", name, str(script)], check=True)
    (sample / ".gitattributes").write_text("*.py diff=evil\n")
    for action in ("git_status", "git_log", "git_diff"):
        assert do(sample, action).state is State.DONE
    assert not (sample / "pwned").exists()


def test_lines_are_found_whatever_their_case(sample: Path) -> None:
    found = do(sample, "search_text", query="DEF COUNT").text
    assert found == "tally/counting.py:4: def count_words(text):"
    assert do(sample, "search_text", query="nowhere").text == "no line holds 'nowhere'"


def test_dependencies_are_held_to_imports(sample: Path) -> None:
    found = dependencies(Directory(sample, file_bytes=10_000, files=50)).splitlines()
    assert found == [
        "1 declared",
        "rich>=13.0 (pyproject.toml): not exact",
        "imported but not declared: yaml",
    ]


def test_dependencies_of_every_sort_of_file(tmp_path: Path) -> None:
    (tmp_path / "requirements-dev.txt").write_text("# tools\n-r other.txt\nPyYAML==6.0 # why\n")
    (tmp_path / "package.json").write_text('{"dependencies": {"@scope/left": "1.2.3"}}')
    (tmp_path / "pyproject.toml").write_text("broken = = 1")
    (tmp_path / "bad.py").write_text("def :")
    (tmp_path / "good.py").write_text("import json, good\nfrom pyyaml.nodes import Node\n")
    found = dependencies(Directory(tmp_path, file_bytes=10_000, files=50))
    assert "2 declared" in found
    assert "PyYAML==6.0 (requirements-dev.txt): exact" in found
    assert "scope-left 1.2.3 (package.json): exact" in found
    assert "all imports are declared" in found


def test_files_that_are_nothing_but_depth_declare_nothing(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("[" * 90_000)
    (tmp_path / "pyproject.toml").write_text("a = " + "[" * 90_000)
    assert do(tmp_path, "check_deps").text == "0 declared"


class Page(BaseHTTPRequestHandler):
    """Answers by the path."""

    def do_GET(self) -> None:
        code = {"/moved": 302, "/gone": 404}.get(self.path, 200)
        body = b"x" * 100_000 if self.path == "/long" else b"hello"
        self.send_response(code)
        self.send_header("Location", "/long")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Page) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "state", "starts"),
    [
        ("/", State.DONE, "status 200\nhello"),
        ("/moved", State.DONE, "status 302\nhello"),
        ("/gone", State.FAILED, "status 404\nhello"),
        ("/long", State.DONE, "status 200\nxxx"),
    ],
)
def test_an_address_is_fetched(
    tmp_path: Path, server: str, path: str, state: State, starts: str
) -> None:
    found = do(tmp_path, "http_request", method="GET", url=server + path)
    assert (found.state, found.text[: len(starts)]) == (state, starts)
    assert len(found.text) < 5_000


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://user:word@host/", "ftp://x", "x"])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(Refused, match="no http or https address"):
        ACTIONS["http_request"].prepare(tools(tmp_path), {"method": "GET", "url": url})


@pytest.mark.parametrize("host", ["[::1", "a:99999999", "\u2028.example", "xn--\u00e9"])
def test_an_address_that_is_none_is_a_refusal(tmp_path: Path, host: str) -> None:
    with pytest.raises(Refused, match="does not answer|no http or https"):
        used = tools(tmp_path)
        action = ACTIONS["http_request"]
        given = {"method": "GET", "url": f"http://{host}/"}
        action.carry_out(used, action.prepare(used, given).arguments, {})


def test_a_server_that_drips_is_left_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        used = tools(tmp_path, command_s=0.5)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        try:
            with pytest.raises(Refused, match="took longer than 0.5 s"):
                ACTIONS["http_request"].carry_out(used, {"method": "GET", "url": url}, {})
        finally:
            stop.set()
            thread.join()


def test_an_address_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not answer"):
        do(tmp_path, "http_request", method="GET", url="http://127.0.0.1:9/")


def test_a_command_of_the_profile_runs(tmp_path: Path) -> None:
    used = tools(tmp_path, commands={"say": ("echo", "hello"), "fail": ("false",)})
    run = ACTIONS["run"].carry_out
    assert run(used, {"command": "say"}, {}) == Result("hello")
    assert run(used, {"command": "fail"}, {}).state is State.FAILED
    with pytest.raises(Refused, match="no command 'gone'"):
        run(used, {"command": "gone"}, {})


def test_outputs_are_bounded_and_hold_no_keys() -> None:
    found = bounded(Result("a\0b sk-ant-api03-aaaaaaaaaaaaaaaaaaaa " + "x" * 10_000), 1_000)
    assert len(found.text) < 1_100
    assert "\0" not in found.text
    assert "sk-ant" not in found.text


def test_a_sample_is_not_made_over_something(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    for place in (tmp_path, tmp_path / "mine"):
        with pytest.raises(InputError, match="is not empty"):
            make_sample(place)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(("age", "expected"), [("1h", 3_600), ("24h", 86_400), ("7d", 604_800)])
def test_ages(age: str, expected: int) -> None:
    assert seconds(age) == expected


@pytest.mark.parametrize("age", ["", "0h", "h", "-1d", "1w", "1.5h", "1h1"])
def test_what_is_no_age(age: str) -> None:
    with pytest.raises(InputError, match="is no age"):
        seconds(age)
