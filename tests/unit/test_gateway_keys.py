"""Keys of the gateway: their file, who is let in, and whose money a paid call takes."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from sqlalchemy import Engine

from config.catalog import CloudBudget
from config.errors import ConfigurationError, InputError
from config.gateway import KEY_VARIABLE, digest, load_keys, new_key, take_plain_key
from config.secrets import redact
from ledger import budgets, lifecycle
from ledger.budgets import Bound, bounds_of, usage
from ledger.clock import SECOND
from ledger.database import writing
from ledger.lookup import of_run
from ledger.records import Claimed
from ledger.runs import start_run
from producers.gateway.callers import LOOK_S, NOBODY, Keyring, is_loopback, refuse_open_house
from producers.gateway.errors import Fault
from routing.critique import critic_question
from routing.decision import ChoiceOutput, Decision, Payer, Preferences, Privacy
from tests.unit.ledgers import fresh, planned

KEY = "sk-uptier-of-ann"
DAY = 86_400 * SECOND


def keys_file(folder: Path, text: str = "", mode: int = 0o600) -> Path:
    path = folder / "keys.toml"
    path.write_text(text or f'[keys.ann]\nsha256 = "{digest(KEY)}"\nbudget_usd = "2"\n'
                    'per_day_usd = "0.5"\nprivacy = "high"\nmax_concurrent = 3\n')  # fmt: skip
    path.chmod(mode)
    return path


def asked(key: str | None = None, **headers: str) -> Request:
    given = {"host": "localhost"} | headers
    if key is not None:
        given["authorization"] = key
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": raw,
                             "query_string": b"", "server": ("localhost", 80),
                             "scheme": "http"}  # fmt: skip
    return Request(scope)


def test_a_key_brings_its_name_its_budgets_and_its_privacy(tmp_path: Path) -> None:
    caller = Keyring(keys_file(tmp_path)).caller(asked(f"Bearer {KEY}"))
    payer = Payer(name="ann", budget_usd=Decimal(2), per_day_usd=Decimal("0.5"))
    assert (caller.payer, caller.privacy, caller.max_concurrent) == (payer, Privacy.HIGH, 3)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY])
def test_whoever_has_no_key_is_not_let_in(tmp_path: Path, header: str | None) -> None:
    with pytest.raises(Fault) as error:
        Keyring(keys_file(tmp_path)).caller(asked(header))
    assert (error.value.status, error.value.body["error"]["code"]) == (401, "invalid_api_key")
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[keys", "not valid TOML"),
        ("keys = {}", "at least 1"),
        ('[keys.ann]\nsha256 = "short"', "keys.ann.sha256"),
        (f'[keys."a b"]\nsha256 = "{digest(KEY)}"', "a b"),
        (f'[keys.ann]\nsha256 = "{digest(KEY)}"\nbudget = 2', "keys.ann.budget"),
        (f'[keys.ann]\nsha256 = "{digest(KEY)}"\nbudget_usd = "-1"', "budget_usd"),
        (f'[keys.a]\nsha256 = "{digest(KEY)}"\n[keys.b]\nsha256 = "{digest(KEY)}"', "same key"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_keys(keys_file(tmp_path, text))
    assert words in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--keys .* has mode 644"):
        load_keys(keys_file(tmp_path, mode=0o644))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_keys(tmp_path / "nosuch.toml")


def test_the_key_of_the_environment_is_taken_out_of_it() -> None:
    environ = {KEY_VARIABLE: f" {KEY} "}
    plain = take_plain_key(environ)
    assert environ == {}
    assert Keyring(None, plain).caller(asked(f"Bearer {KEY}")).name == "gateway"
    assert KEY not in redact(f"said {KEY}")


def test_keys_are_read_anew_when_their_file_changes_and_kept_when_it_breaks(tmp_path: Path) -> None:
    time = [0.0]
    path = keys_file(tmp_path)
    ring = Keyring(path, clock=lambda: time[0])
    bob = f'[keys.bob-the-second]\nsha256 = "{digest("sk-of-bob")}"\n'
    path.write_text(bob)
    time[0] += LOOK_S
    assert ring.caller(asked("Bearer sk-of-bob")).name == "bob-the-second"
    with pytest.raises(Fault):
        ring.caller(asked(f"Bearer {KEY}"))
    for broken in ("[keys", ""):
        path.write_text(broken)
        time[0] += LOOK_S
        assert ring.caller(asked("Bearer sk-of-bob")).name == "bob-the-second"
    path.unlink()
    time[0] += LOOK_S
    assert not ring.is_open


def test_new_keys_are_long_and_differ() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert min(map(len, made)) > 40
    assert redact(f"a {next(iter(made))} b") == "a *** b"


def test_without_keys_only_this_machine_is_served(tmp_path: Path) -> None:
    ring = Keyring(None)
    assert ring.caller(asked()) is NOBODY
    for header in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        with pytest.raises(Fault) as error:
            ring.caller(asked(**header))
        assert error.value.status == 403
    refuse_open_house("127.0.0.1", ring)
    for host in ("0.0.0.0", "::", "10.0.0.3", "example.org"):
        with pytest.raises(InputError, match="--keys"):
            refuse_open_house(host, ring)
        refuse_open_house(host, Keyring(keys_file(tmp_path)))


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("LOCALHOST", True),
     ("0.0.0.0", False), ("localhost.evil.example", False), ("", False), ("1", False)],
)  # fmt: skip
def test_what_counts_as_this_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = fresh(tmp_path)
    yield engine
    engine.dispose()


def paid_by(payer: Payer) -> Decision:
    return Decision(
        kind="question", prompt="?", output=ChoiceOutput(labels=("A", "B")), key="k",
        preferences=Preferences(payer=payer),
    )  # fmt: skip


def test_a_payer_is_drawn_on_by_its_decision_and_the_critic_of_it() -> None:
    payer = Payer(name="ann", budget_usd=Decimal(2), per_day_usd=Decimal("0.5"))
    expected = (Bound("payer:ann", 2_000_000), Bound("payer:ann:1970-01-03", 500_000))
    for decision in (paid_by(payer), critic_question(paid_by(payer), "A", "c")):
        claimed = Claimed("d", "r", decision, "tier3", 0, 1, 0, "{}", 0)
        assert bounds_of(CloudBudget(), claimed, now=2 * DAY) == expected
    free = Claimed("d", "r", paid_by(Payer(name="ann")), "tier3", 0, 1, 0, "{}", 0)
    assert bounds_of(CloudBudget(), free, now=0) == ()


def test_budgets_of_payers_are_shown_those_of_past_days_are_not(engine: Engine) -> None:
    scopes = [budgets.payer_scope("a_n"), *(budgets.payer_scope("a_n", d * DAY) for d in (1, 2))]
    with writing(engine) as connection:
        for scope in scopes:
            assert budgets.reserve(connection, [Bound(scope, 1_000)], 100) is None
    shown = [use.scope for use in usage(engine, None, 0.8, now=2 * DAY)]
    assert shown == ["payer:a_n", "payer:a_n:1970-01-03"]


def test_keys_whose_names_differ_in_a_capital_see_nothing_of_one_another(tmp_path: Path) -> None:
    engine = fresh(tmp_path)
    run = start_run(engine, mode="gateway", profile="p", now=1)
    names = ("ann", "Ann", "an_")
    for name in names:
        one = planned(name, "tier1", preferences=Preferences(payer=Payer(name=name)))
        lifecycle.submit(engine, run.id, [one], 1)
    seen = [of_run(engine, run.id, payer=name, limit=10) for name in names]
    assert [[one.key for one in found] for found in seen] == [["ann"], ["Ann"], ["an_"]]
    engine.dispose()
