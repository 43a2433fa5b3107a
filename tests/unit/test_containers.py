"""docker-compose.yml, the Dockerfile and the secrets: what can be known without an engine."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from cli.main import COMMANDS, run
from config.deployment import SECRETS
from config.settings import Settings
from deploy.runtime_lock import runtime
from tests.containers import (
    ROOT,
    image_environment,
    own_services,
    seconds,
    secrets,
    services,
    stages,
    tool,
    variables,
)

ONE_SHOT = {"migrate", "models"}
CONTEXT_ONLY = {"UPTIER_IMAGE", "UPTIER_SECRETS"}
"""Variables that few will ever set: not in the example."""
IMAGES = {"VALKEY_IMAGE", "POSTGRES_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"}
HADOLINT, DOCKER_COMPOSE = tool("hadolint"), tool("docker-compose")
PROFILES = ("cpu", "gpu", "cpu,cloud", "gpu,cloud")


def service_names() -> list[str]:
    return sorted(services())


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The secrets as the script makes them."""
    where = tmp_path / "secrets"
    subprocess.run(["sh", ROOT / "deploy/secrets.sh", where], check=True, capture_output=True)
    return where


def mounted_paths(service: dict[str, Any]) -> set[str]:
    return {volume.split(":")[1] for volume in service.get("volumes", [])}


@pytest.mark.parametrize("name", service_names())
def test_every_container_is_hardened_bounded_and_watched(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    if name not in ONE_SHOT:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert service["restart"] == "unless-stopped"
        assert seconds(service["stop_grace_period"]) >= 10


@pytest.mark.parametrize("name", service_names())
def test_nothing_listens_beyond_this_machine(name: str) -> None:
    service = services()[name]
    ports = service.get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)
    # Without a way out nothing can be published either.
    assert not ports or "outside" in service["networks"]


def test_broker_database_and_local_models_have_no_way_out() -> None:
    closed = {name for name, service in services().items() if service["networks"] == ["inside"]}
    assert {"broker", "database", "tier1-cpu", "tier2-gpu", "quality", "metrics"} <= closed


def test_workers_get_as_long_to_end_as_their_leases_last() -> None:
    lease_s = Settings.model_fields["lease_s"].default
    workers = [s for s in own_services().values() if s["command"][0] == "worker"]
    assert len(workers) == 6
    assert {seconds(worker["stop_grace_period"]) for worker in workers} == {lease_s}
    gateway = services()["gateway"]
    grace = gateway["command"][gateway["command"].index("--grace") + 1]
    assert seconds(gateway["stop_grace_period"]) > float(grace)


def test_our_containers_run_commands_that_there_are_and_check_themselves() -> None:
    for name, service in own_services().items():
        command = service["command"][0]
        assert command in COMMANDS
        if command == "worker":
            assert service["healthcheck"]["test"] == [
                "CMD",
                "uptier",
                "health",
                service["command"][1],
            ]
        elif name not in ONE_SHOT:
            port = service["command"][service["command"].index("--port") + 1]
            assert f"127.0.0.1:{port}/" in service["healthcheck"]["test"][-1]


def test_a_model_computes_with_as_many_threads_as_its_container_has_processors() -> None:
    """It would take every core of the machine, and wait for its quota with all of them."""
    local = {name: s for name, s in own_services().items() if name.endswith(("-cpu", "-gpu"))}
    assert len(local) == 4
    for service in local.values():
        cpus = service["deploy"]["resources"]["limits"]["cpus"]
        assert service["environment"].get("UPTIER_THREADS") == cpus


def test_our_containers_write_only_where_something_is_mounted() -> None:
    environment = image_environment()
    for name, service in own_services().items():
        writable = mounted_paths(service) | {"/tmp"}
        if name in ("gateway", "flower"):
            assert environment["UPTIER_DATA_DIR"] in writable
        if name == "models":
            assert environment["UPTIER_MODELS_DIR"] in writable
        if service["command"][0] == "worker":
            assert all(volume.endswith(":ro") for volume in service["volumes"])


def test_only_card_services_have_cards_and_both_find_one_on_a_machine_that_has_one() -> None:
    cards = {}
    for name, service in services().items():
        devices = service["deploy"]["resources"].get("reservations", {}).get("devices", [])
        assert bool(devices) == name.endswith("-gpu")
        for device in devices:
            assert service["image"].endswith(":cuda")
            cards[name] = device["device_ids"]
    assert cards == {"tier1-gpu": ["0"], "tier2-gpu": ["0"]}


def test_prometheus_has_no_login_and_is_never_opened_to_others() -> None:
    opened = services({"UPTIER_BIND": "0.0.0.0"})
    outside = {n for n, s in opened.items() if any("0.0.0.0:" in p for p in s.get("ports", []))}
    assert outside == {"gateway", "flower", "grafana"}


def test_quality_workers_have_the_weights_by_which_they_know_what_serves_a_lane() -> None:
    quality = services()["quality"]
    assert quality["volumes"] == ["models:/models:ro"]
    assert quality["depends_on"]["models"] == {"condition": "service_completed_successfully"}


def test_secrets_are_files_and_none_is_in_an_environment() -> None:
    known = {secret.file for secret in SECRETS}
    assert set(secrets()) == known
    assert {Path(each["file"]).name for each in secrets().values()} == known
    used = set()
    for service in services().values():
        used |= set(service.get("secrets", []))
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or name.endswith("FILE")
            if str(value).startswith("/run/secrets/"):
                assert Path(value).name in service["secrets"]
    assert used == known


def test_the_example_has_every_variable_and_no_other() -> None:
    text = (ROOT / "deploy/env.example").read_text()
    example = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert example.pop("COMPOSE_PROFILES") == "cpu"
    expected = {n: v for n, v in variables().items() if n not in CONTEXT_ONLY | IMAGES}
    assert example == expected


def test_the_script_makes_every_secret_and_keeps_those_there(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {secret.file for secret in SECRETS}
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o600}
    before = {path.name: path.read_text() for path in made.iterdir()}
    assert len(set(before.values())) == len(before)
    again = subprocess.run(
        ["sh", ROOT / "deploy/secrets.sh", made], check=True, capture_output=True, text=True
    )
    assert again.stdout == ""
    assert {path.name: path.read_text() for path in made.iterdir()} == before


def test_whole_secrets_are_told_without_what_they_hold(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--deploy", str(made)]) == 0
    said = capsys.readouterr().out
    assert "grafana_password: present" in said
    assert "anthropic_api_key: empty" in said
    for path in made.iterdir():
        text = path.read_text().strip()
        assert not text or text not in said


@pytest.fixture
def refused(made: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """What is said, in one line, once a secret was changed."""

    def told(name: str, text: str | None, mode: int = 0o600) -> str:
        path = made / name
        path.unlink()
        if text is not None:
            path.write_text(text)
            path.chmod(mode)
        assert run(["doctor", "--deploy", str(made)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err

    return told


def test_a_missing_grafana_password_is_one_line_and_exit_2(refused: Any) -> None:
    said = refused("grafana_password", None)
    assert "the Grafana password is missing" in said
    assert "sh deploy/secrets.sh" in said


def test_secrets_that_may_not_be_looked_at_are_one_line_too(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made by root, say: their directory has mode 700."""

    def denied(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "stat", denied)
    monkeypatch.setattr("config.keys.os.open", denied)
    status = run(["doctor", "--deploy", str(made)])
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert (status, said.count("\n"), "Permission denied" in said) == (2, 1, True)


@pytest.mark.parametrize(
    ("name", "text", "mode", "words"),
    [
        ("grafana_password", "", 0o600, "the Grafana password is empty"),
        ("grafana_password", "admin", 0o600, "fewer than 12"),
        ("broker_password", "two words of it", 0o600, "more than one word"),
        ("broker_password", 'long-enough"it-is', 0o600, 'holds a " or a \\'),
        ("broker_password", "long-enough\\it-is", 0o600, 'holds a " or a \\'),
        ("flower_login", "without-a-colon", 0o600, "user:password"),
        ("flower_login", "uptier:länger-als-zwölf", 0o600, "printable ASCII"),
        ("database_password", "long-enough-it-is", 0o644, "chmod 600"),
    ],
)
def test_other_faults_of_secrets_are_too(
    refused: Any, name: str, text: str, mode: int, words: str
) -> None:
    said = refused(name, text, mode)
    assert words in said
    assert not text or text not in said


def test_the_image_gives_root_up_and_starts_by_its_exec_form() -> None:
    image = stages()["image"]
    assert ("USER", "${UID}:${GID}") in image
    entry = [json.loads(rest) for name, rest in image if name == "ENTRYPOINT"]
    assert entry == [["tini", "--", "uptier"]]
    installed = " ".join(rest for name, rest in image if name == "RUN")
    assert "build-essential" not in installed
    assert " tini " in installed


def test_the_image_takes_the_packages_by_hash_and_the_last_stage_is_what_runs() -> None:
    built = " ".join(rest for _, rest in stages()["built"])
    assert "pip install --require-hashes -r runtime.lock" in built
    assert list(stages())[-1] == "image"
    assert {"builder-cpu", "builder-cuda"} <= set(stages())


def test_a_native_build_of_the_image_leaves_amx_out_as_make_does() -> None:
    built = stages()["built"]
    flagged = next(n for n, (name, rest) in enumerate(built) if "-U__AMX_INT8__" in rest)
    assert built[flagged][0] == "ENV"
    assert flagged < next(n for n, (_, rest) in enumerate(built) if "pip install" in rest)
    assert 'CXXFLAGS="-U__AMX_INT8__ ' in (ROOT / "Makefile").read_text()


def test_what_the_image_copies_is_let_through_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:].rstrip("/") for line in ignored if line.startswith("!")}
    copied = set()
    for name, rest in stages()["built"]:
        if name == "COPY":
            copied |= set(rest.split()[:-1])
    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)


def test_the_locks_part_that_is_installed_is_what_uptier_asks_for() -> None:
    kept = runtime((ROOT / "requirements.lock").read_text())
    try:
        asked = [line for line in requires("uptier") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        pytest.skip("uptier is not installed here")
    names = {re.split(r"[\[<>=; ]", line)[0].lower() for line in asked}
    assert names <= set(kept)
    assert {"vine", "sqlalchemy", "pydantic-core"} <= set(kept)  # asked for by others
    assert not {"pytest", "mypy", "ruff", "xllamacpp", "matplotlib"} & set(kept)
    assert all(any("--hash=sha256:" in line for line in lines) for lines in kept.values())


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not here")
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([str(HADOLINT), ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(DOCKER_COMPOSE is None, reason="docker-compose is not here")
@pytest.mark.parametrize("profiles", PROFILES)
def test_compose_itself_reads_the_file(tmp_path: Path, profiles: str) -> None:
    """With its own schema, its own interpolation, and every dependency resolved."""
    command = [
        str(DOCKER_COMPOSE),
        "--file",
        ROOT / "docker-compose.yml",
        "config",
        "--format",
        "json",
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COMPOSE_PROFILES": profiles}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    read = json.loads(done.stdout)["services"]
    chosen = set(profiles.split(","))
    expected = {
        name
        for name, s in services().items()
        if not s.get("profiles") or chosen & set(s["profiles"])
    }
    assert set(read) == expected
    for name, service in read.items():
        assert service["image"] == services()[name]["image"]
        assert service.get("command") == services()[name].get("command") or name == "broker"


def test_every_file_that_is_mounted_is_there_and_read_only() -> None:
    mounted = [v for s in services().values() for v in s.get("volumes", []) if v.startswith("./")]
    assert mounted
    for volume in mounted:
        here, _, mode = volume.split(":")
        assert mode == "ro"
        assert (ROOT / here).exists()


def test_prometheus_reads_the_service_that_tells_and_grafana_reads_prometheus() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())["scrape_configs"]
    command = services()["metrics"]["command"]
    port = command[command.index("--port") + 1]
    assert [job["static_configs"] for job in scraped] == [[{"targets": [f"metrics:{port}"]}]]
    source = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/uptier.yml").read_text()
    )["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    provider = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/dashboards/uptier.yml").read_text()
    )["providers"][0]
    where = provider["options"]["path"]
    assert f"./deploy/grafana:{where}:ro" in services()["grafana"]["volumes"]
