"""Keys, their budgets and bounds, and the end of a gateway."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from config.gateway import digest
from ledger import lookup
from ledger.database import open_ledger
from tests.integration.gateways import PROFILE, ROOT, Gateway, serving
from tests.integration.stacks import assert_nothing_is_left, process_ids, state_of, wait_until
from tests.integration.test_gateway import user

KEYS = {"ann": "sk-uptier-ann", "bob": "sk-uptier-bob", "busy": "sk-uptier-busy"}
FILE = f"""
[keys.ann]
sha256 = "{digest(KEYS["ann"])}"
budget_usd = "0.7"

[keys.bob]
sha256 = "{digest(KEYS["bob"])}"
privacy = "high"

[keys.busy]
sha256 = "{digest(KEYS["busy"])}"
max_concurrent = 1
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("keys")
    path = folder / "keys.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    with serving(folder / "data", "--keys", str(path), "--metrics") as found:
        yield found


def client(gateway: Gateway, name: str) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=KEYS.get(name, name), max_retries=0)


def ask(opened: OpenAI, text: str, model: str = "auto", **more: Any) -> Any:
    given: dict[str, Any] = {"model": model, "messages": [user(text)]} | more
    return opened.chat.completions.with_raw_response.create(**given)


def test_metrics_are_told_to_those_who_are_let_in(gateway: Gateway) -> None:
    with gateway.http() as nobody:
        assert nobody.get("/metrics").status_code == 401
    with gateway.http(KEYS["bob"]) as bob:
        page = bob.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "uptier_ledger_up 1.0" in page.text


def test_a_wrong_key_is_not_let_in(gateway: Gateway) -> None:
    with client(gateway, "sk-uptier-wrong") as opened:
        for call in (lambda: ask(opened, "x"), opened.models.list, opened.files.list):
            with pytest.raises(openai.AuthenticationError) as error:
                call()
            assert error.value.code == "invalid_api_key"
    with gateway.http() as http:
        assert http.get("/v1/decisions").status_code == 401
        assert http.get("/health").status_code == 200


def test_a_budget_that_is_used_up_leaves_the_free_lanes(gateway: Gateway) -> None:
    with client(gateway, "ann") as opened:
        ends = []
        for number in range(12):
            said = ask(opened, f"Anything new, number {number}?", "cloud", max_tokens=16)
            headers = said.headers
            ends.append((headers["x-uptier-status"], headers["x-uptier-lane"]))
        assert ends[0] == ("accepted", "tier3")
        assert ends[-1] == ("budget", "tier2")
        assert ends == sorted(ends)  # once it is used up, it stays so


def test_a_budget_that_is_used_up_where_no_lane_is_free_is_an_empty_quota(
    tmp_path: Path,
) -> None:
    profile = tmp_path / "paid.toml"
    free = ("lanes.tier1", "lanes.slow", "lanes.tier2")
    parts = PROFILE.read_text().split("\n[")
    kept = [part for part in parts if part.partition("]")[0] not in free]
    text = "\n[".join(kept).replace('model = "dear"', 'model = "dear"\nspeciality = "general"')
    profile.write_text(text)
    keys = tmp_path / "keys.toml"
    keys.write_text(FILE)
    keys.chmod(0o600)
    with (
        serving(tmp_path / "data", "--keys", str(keys), profile=profile) as gateway,
        client(gateway, "ann") as opened,
    ):
        with pytest.raises(openai.RateLimitError) as error:
            ask(opened, "Anything?", max_tokens=400)
        assert error.value.code == "insufficient_quota"
        assert "payer:ann" in error.value.message
        assert error.value.response.headers["x-should-retry"] == "false"
        assert ask(opened, "Anything?", max_tokens=16).headers["x-uptier-status"] == "accepted"


def test_nobody_sees_what_another_key_asked(gateway: Gateway) -> None:
    with gateway.http(KEYS["bob"]) as bob, gateway.http(KEYS["busy"]) as other:
        mine = bob.post("/v1/decisions", json={"kind": "question", "prompt": "mine"}).json()
        path = f"/v1/decisions/{mine['id']}"
        assert bob.get(path).status_code == 200
        assert other.get(path).status_code == 404
        assert other.post(f"{path}/cancel").status_code == 404
        assert mine["id"] in [d["id"] for d in bob.get("/v1/decisions").json()["data"]]
        assert mine["id"] not in [d["id"] for d in other.get("/v1/decisions").json()["data"]]


def test_the_same_idempotency_key_of_two_callers_is_two_questions(gateway: Gateway) -> None:
    ids = []
    for name in ("bob", "busy", "bob"):
        with client(gateway, name) as opened:
            found = ask(opened, f"from {name}", extra_headers={"idempotency-key": "k"})
            ids.append(found.headers["x-uptier-decision"])
    assert ids[0] == ids[2] != ids[1]


def test_a_key_of_another_question_gets_no_answer_to_that(gateway: Gateway) -> None:
    with client(gateway, "bob") as opened:
        headers = {"idempotency-key": "once"}
        first = ask(opened, "the first", extra_headers=headers).headers["x-uptier-decision"]
        with pytest.raises(openai.ConflictError) as error:
            ask(opened, "another", extra_headers=headers)
        assert error.value.code == "idempotency_conflict"
        again = ask(opened, "the first", extra_headers=headers)
        assert again.headers["x-uptier-decision"] == first


def test_a_key_with_all_its_places_taken_is_told_to_wait(gateway: Gateway) -> None:
    with gateway.http(KEYS["busy"]) as http:
        body = {"model": "slow", "messages": [user("long")], "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=body):
            again = http.post("/v1/chat/completions", json=body)
        assert (again.status_code, again.headers["retry-after"]) == (429, "1")
        assert again.json()["error"]["code"] == "rate_limit_exceeded"
        wait_until(lambda: http.get("/health").json()["under_way"] == 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--keys FILE"),
        (["--host", "256.1.1.1"], "--host"),
        (["--keys", "/nosuch"], "--keys /nosuch cannot be read"),
        (["--profile", "nosuch"], "'nosuch' is unknown"),
        (["--new-key", "a b"], "--new-key 'a b'"),
    ],
)
def test_wrong_options_end_it_before_anything_starts(
    tmp_path: Path, options: list[str], words: str
) -> None:
    done = command(tmp_path, *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "stack").exists()


def test_a_taken_port_is_said_in_one_line(gateway: Gateway, tmp_path: Path) -> None:
    done = command(tmp_path, "--port", gateway.url.rpartition(":")[2])
    assert (done.returncode, "is taken" in done.stderr) == (2, True)


def test_a_new_key_is_printed_with_its_lines(tmp_path: Path) -> None:
    done = command(tmp_path, "--new-key", "carol")
    key = done.stderr.strip().rpartition(" ")[2]
    assert done.returncode == 0
    assert key not in done.stdout
    assert done.stdout.splitlines()[:2] == ['[keys."carol"]', f'sha256 = "{digest(key)}"']


def command(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "serve", "--profile", str(PROFILE), *options],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "UPTIER_DATA_DIR": str(data), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_stop_finishes_what_is_under_way_cancels_the_rest_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    answers: dict[str, Any] = {}

    def one(name: str, model: str) -> None:
        body = {"kind": "q", "prompt": name, "text": True, "model": model}
        try:
            answers[name] = http.post("/v1/decisions", json=body)
        except httpx2.HTTPError as error:
            answers[name] = error

    with serving(tmp_path, "--grace", "9") as gateway, gateway.http() as http:
        ids = process_ids(state_of(gateway.settings))
        # The first takes 6 s, which the grace leaves it; the second would take 6 s more.
        threads = [threading.Thread(target=one, args=(name, "slow")) for name in ("first", "late")]
        for number_started, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda n=number_started: len(asked(http)) == n)  # type: ignore[misc]
        assert gateway.stop(number) == status
        for thread in threads:
            thread.join()
        assert_nothing_is_left(gateway.settings, ids)
        assert any("finished or cancelled" in line for line in gateway.said)
    assert answers["first"].json()["status"] == "accepted"
    assert not isinstance(answers["late"], httpx2.Response) or answers["late"].status_code >= 499
    assert statuses(gateway) == {"accepted", "cancelled"}


def asked(http: httpx2.Client) -> list[Any]:
    found: list[Any] = http.get("/v1/decisions").json()["data"]
    return found


def statuses(gateway: Gateway) -> set[str]:
    engine = open_ledger(gateway.settings)
    found = lookup.of_run(engine, gateway.run, payer=None, limit=100)
    engine.dispose()
    return {"open" if one.settled is None else one.settled.status.value for one in found}
