"""Weights from the hub, answered by a stand-in on the loopback interface."""

from __future__ import annotations

import http.server
from collections.abc import Iterator
from typing import Any

import pytest

from config.errors import WeightsError
from tests.unit.models.loopback import loopback
from tests.unit.models.toy import SHA, WHOLE
from workers import models, verified
from workers.models import State, list_models, weights_path
from workers.progress import Step
from workers.pull import pull


class Hub(http.server.BaseHTTPRequestHandler):
    """Just enough of the hub for one repository with one large file."""

    asked: list[tuple[str, str, str | None]]
    promised = SHA

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        self._file(body=True)

    def _file(self, *, body: bool) -> None:
        wanted = self.headers.get("Range")
        self.asked.append((self.command, self.path, wanted))
        if not self.path.startswith("/people/toy/resolve/main/toy.gguf"):
            self._answer(404, b"{}", {})
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = {
            "ETag": f'"{self.promised}"',
            "X-Repo-Commit": "b" * 40,
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(WHOLE) - 1}/{len(WHOLE)}"
        self._answer(206 if start else 200, WHOLE[start:], headers, body=body)

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str], *, body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    handler = type("FreshHub", (Hub,), {"asked": []})
    with loopback(handler) as address:
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield handler


HUB_SOURCE = '{ kind = "hub", repo = "people/toy" }'


def test_hub_weights_are_fetched_and_checked_against_the_hubs_own_hash(
    profile: Any, hub: type[Hub]
) -> None:
    settings = profile(HUB_SOURCE, sha256=None)
    assert pull(settings)[0].fetched
    assert weights_path(settings, "toy").read_bytes() == WHOLE
    assert verified.recall(settings.models_dir).hub == {"people/toy@main/toy.gguf": SHA}
    asked = len(hub.asked)
    assert not pull(settings)[0].fetched
    assert len(hub.asked) == asked


def test_hub_weights_unlike_the_hubs_hash_are_deleted(profile: Any, hub: type[Hub]) -> None:
    hub.promised = "1" * 64
    settings = profile(HUB_SOURCE, sha256=None)
    with pytest.raises(WeightsError, match="instead of " + "1" * 64):
        pull(settings)
    assert list_models(settings)[0].state is State.MISSING


def test_an_interrupted_hub_download_goes_on_where_it_stopped(profile: Any, hub: type[Hub]) -> None:
    settings, done = profile(HUB_SOURCE), list[int]()

    def interrupt(step: Step) -> None:
        done.append(step.done)
        if step.note == "fetching":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(settings, report=interrupt)
    directory = models.partial_dir(settings, models.weights_of(settings, "toy"))
    (directory / f"{SHA}.incomplete").write_bytes(WHOLE[:1500])
    (directory / "older.incomplete").write_bytes(b"of another revision")
    hub.asked.clear()
    steps = list[Step]()
    assert pull(settings, report=steps.append)[0].fetched
    assert ("GET", "/people/toy/resolve/main/toy.gguf", "bytes=1500-") in hub.asked
    assert [s.done for s in steps if s.note == "fetching"][-1] == len(WHOLE)
    assert weights_path(settings, "toy").read_bytes() == WHOLE
    assert not directory.exists()


def test_a_file_that_the_hub_does_not_have_is_named(profile: Any, hub: type[Hub]) -> None:
    with pytest.raises(WeightsError, match="the hub did not give toy.gguf of people/none@main"):
        pull(profile('{ kind = "hub", repo = "people/none" }'))


def test_a_hub_that_cannot_be_reached_gives_one_line(
    profile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(WeightsError, match="the hub did not give toy.gguf") as caught:
        pull(profile(HUB_SOURCE, sha256=None))
    assert "\n" not in str(caught.value)
