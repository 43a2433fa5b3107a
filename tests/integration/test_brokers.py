"""What a broker or a database says no to, told apart in one line; and TLS that is verified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import redis

from config.broker import check_broker, queue_lengths
from config.errors import BrokerUnavailable, ConfigurationError, LedgerError
from config.queues import make_app, notify
from config.settings import load_settings
from ledger.database import migrate
from tests.integration.conftest import not_here
from tests.integration.places import (
    PASSWORD,
    Absent,
    postgres,
    rabbitmq,
    tls_redis,
    write_certificates,
)
from tests.integration.test_bad_input import PROMPT, refused
from tests.integration.test_decisions import PROFILE
from tests.integration.tls_front import tls_in_front_of
from workers.valkey import free_port

Given = dict[str, Any]


def opened(place: Any, folder: Path) -> Iterator[Given]:
    with ExitStack() as undo:
        try:
            given: Given = undo.enter_context(place(folder))
        except Absent as error:
            not_here(str(error))
        yield given


@pytest.fixture(scope="module")
def behind_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    """Redis with a password and a certificate for localhost."""
    yield from opened(tls_redis, tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    yield from opened(rabbitmq, tmp_path_factory.mktemp("rabbit"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    yield from opened(postgres, tmp_path_factory.mktemp("postgres"))


def look(given: Given, **other: Any) -> dict[str, int]:
    """Connect with these settings as every command does; the lengths of the queues."""
    settings = load_settings(profile=str(PROFILE), **given | other)
    assert settings.broker_url is not None
    app = make_app(settings, settings.broker_url)
    try:
        check_broker(app)
        return queue_lengths(app)
    finally:
        app.close()


def trouble(given: Given, **other: Any) -> str:
    """What is wrong with that, in one line without the password."""
    with pytest.raises(BrokerUnavailable) as caught:
        look(given, **other)
    line = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in line
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "wrong-one"):
        assert secret not in line
    return line


def with_password(url: str, password: str, user: str = "") -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}").geturl()


def test_a_certificate_of_the_named_authority_is_good(behind_tls: Given) -> None:
    assert set(look(behind_tls).values()) == {0}


def test_a_certificate_of_another_authority_is_refused(behind_tls: Given, tmp_path: Path) -> None:
    other = write_certificates(tmp_path)
    line = trouble(behind_tls, broker_ca_file=other)
    assert "not trusted" in line
    assert "UPTIER_BROKER_CA_FILE" in line


def test_without_a_named_authority_those_of_the_system_count(behind_tls: Given) -> None:
    assert "not trusted" in trouble({"broker_url": behind_tls["broker_url"]})


def test_a_certificate_for_another_host_is_refused(behind_tls: Given) -> None:
    url = behind_tls["broker_url"].replace("localhost", "127.0.0.1")
    assert "certificate for another host" in trouble(behind_tls, broker_url=url)


@pytest.mark.parametrize("query", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_verification_cannot_be_turned_off(behind_tls: Given, query: str) -> None:
    with pytest.raises(ConfigurationError, match="always verified") as caught:
        look(behind_tls, broker_url=f"{behind_tls['broker_url']}?{query}")
    assert quote(PASSWORD, safe="") not in str(caught.value)


def test_a_file_that_holds_no_certificate_is_refused(behind_tls: Given, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigurationError, match="not a readable PEM file"):
        look(behind_tls, broker_ca_file=tmp_path / "ca.pem")


def test_a_wrong_password_is_told_from_everything_else(behind_tls: Given) -> None:
    url = with_password(behind_tls["broker_url"], "wrong-one")
    assert "refuses the user or the password" in trouble(behind_tls, broker_url=url)


def test_a_user_without_the_rights_is_told_from_one_that_is_unknown(behind_tls: Given) -> None:
    url, ca_file = behind_tls["broker_url"], str(behind_tls["broker_ca_file"])
    with redis.Redis.from_url(url, ssl_ca_certs=ca_file) as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", ">wrong-one", "~*", "+ping")
    weak = with_password(url, "wrong-one", "weak")
    assert "keeps its user from what workers need" in trouble(behind_tls, broker_url=weak)


def test_a_scheme_without_tls_at_a_server_behind_it_gets_a_hint(behind_tls: Given) -> None:
    url = behind_tls["broker_url"].replace("rediss:", "redis:")
    assert "behind TLS its scheme is rediss://" in trouble(behind_tls, broker_url=url)


def test_the_command_says_it_in_one_line(behind_tls: Given, tmp_path: Path) -> None:
    refused(
        "decide", *PROMPT, "--choices", "A,B", "--profile", str(PROFILE),
        data=tmp_path, says=("refuses the user or the password",),
        UPTIER_BROKER_URL=with_password(behind_tls["broker_url"], "wrong-one"),
        UPTIER_BROKER_CA_FILE=str(behind_tls["broker_ca_file"]),
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["redis", "rediss", "amqp", "amqps"])
def test_a_broker_that_is_away_does_not_answer(scheme: str) -> None:
    line = trouble({"broker_url": f"{scheme}://:wrong-one@127.0.0.1:{free_port()}/0"})
    assert "does not answer" in line
    assert "UPTIER_BROKER_URL" in line


def test_rabbitmq_refuses_a_password(rabbit: Given) -> None:
    url = with_password(rabbit["broker_url"], "wrong-one", "guest")
    assert "refuses the user or the password" in trouble(rabbit, broker_url=url)


def test_rabbitmq_has_no_such_virtual_host(rabbit: Given) -> None:
    url = urlsplit(rabbit["broker_url"])._replace(path="/nowhere").geturl()
    assert "no such virtual host" in trouble(rabbit, broker_url=url)


def test_rabbitmq_has_a_queue_of_another_type(rabbit: Given) -> None:
    settings = load_settings(profile=str(PROFILE), **rabbit)
    app = make_app(settings, rabbit["broker_url"])
    name = app.conf.task_default_queue
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.queue_delete(name)
        channel.queue_declare(name, durable=True, auto_delete=False)
        try:
            assert "another type" in trouble(rabbit)
        finally:
            connection.channel().queue_delete(name)
    app.close()


def test_rabbitmq_behind_tls_is_verified_and_takes_messages(rabbit: Given, tmp_path: Path) -> None:
    ca_file = write_certificates(tmp_path)
    with tls_in_front_of(rabbit["broker_url"], tmp_path / "server.pem") as port:
        url = f"amqps://guest:guest@localhost:{port}//"
        behind = rabbit | {"broker_url": url, "broker_ca_file": ca_file}
        assert set(look(behind).values()) == {0}
        settings = load_settings(profile=str(PROFILE), **behind)
        app = make_app(settings, url)
        notify(app, [("run", "decision")])
        app.close()
        assert "not trusted" in trouble(behind | {"broker_ca_file": None})
        other = url.replace("localhost", "127.0.0.1")
        assert "certificate for another host" in trouble(behind, broker_url=other)


def test_tls_at_a_server_without_it_is_told_from_a_bad_certificate(rabbit: Given) -> None:
    url = rabbit["broker_url"].replace("amqp:", "amqps:")
    assert "does not agree on TLS" in trouble(rabbit, broker_url=url)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"netloc": "postgres:wrong-one@127.0.0.1:1"}, "onnection refused"),
        ({"path": "/nowhere"}, '"nowhere" does not exist'),
        ({"netloc": "nobody:wrong-one@127.0.0.1:5432"}, 'role "nobody" does not exist'),
        ({"query": "sslmode=require"}, "SSL"),
    ],
)
def test_postgresql_says_no_in_one_line(
    database: Given, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    url = urlsplit(database["database_url"])._replace(**change).geturl()
    with pytest.raises(LedgerError) as caught:
        migrate(load_settings(profile=str(PROFILE), data_dir=tmp_path, database_url=url))
    line = str(caught.value)
    assert said in line
    assert "UPTIER_DATABASE_URL" in line
    assert "\n" not in line
    assert "wrong-one" not in line
    assert caught.value.exit_code == 2


def test_a_port_that_is_none_is_refused_without_the_password() -> None:
    with pytest.raises(ConfigurationError, match="port must be a number") as caught:
        load_settings(database_url="postgresql://u:wrong-one@host:port/name")
    assert "wrong-one" not in str(caught.value)
