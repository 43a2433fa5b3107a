"""The Anthropic backend: the real SDK against a local stand-in of the Messages API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from config.catalog import BackendName, Model, Price, Provider, Sampling
from config.errors import ConfigurationError
from routing.decision import MAX_ANSWER_CHARS, ChoiceOutput, JsonOutput, Output, TextOutput
from tests.standin import MessagesStandin, Reply, fault, message
from workers.backends.anthropic import AnthropicBackend
from workers.backends.base import Completion, Request
from workers.backends.bounds import most_cost

KEY = "sk-test"
MODEL = Model(
    backend=BackendName.ANTHROPIC,
    provider="anthropic",
    remote_name="claude-test",
    timeout_s=1,
    price=Price(input="0.25", output="1.25", cached_input="0.03"),
)


@contextmanager
def backend(
    monkeypatch: pytest.MonkeyPatch, script: Callable[[int, Reply], Reply], model: Model = MODEL
) -> Iterator[tuple[AnthropicBackend, MessagesStandin]]:
    with MessagesStandin(script, price=MODEL.price) as standin:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", standin.url)
        provider = Provider(backend=BackendName.ANTHROPIC)
        opened = AnthropicBackend("claude", model, provider, slots=4, key=KEY)
        yield opened, standin
        opened.close()


def request(output: Output, request_id: str = "1") -> Request:
    sampling = Sampling(max_tokens=60, stops=("\n\n", "---"))
    return Request(request_id, "conflict_resolution", "You settle conflicts.", "Who yields?",
                   output, sampling, 1)  # fmt: skip


def ask(opened: AnthropicBackend, output: Output) -> Completion:
    return next(iter(opened.answer([request(output)])))


def test_an_answer_brings_its_tokens_and_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = message("YIELD", tokens_in=1000, tokens_out=10)
    with backend(monkeypatch, lambda n, b: reply) as (opened, standin):
        completion = ask(opened, ChoiceOutput(labels=("YIELD", "INSIST")))
    assert (completion.raw, completion.tokens_in, completion.tokens_out) == ("YIELD", 1000, 10)
    # 1000 * 0.25 + 10 * 1.25 = 262.5 micro-dollars, half a one rounded up.
    assert completion.cost_micros == 263
    assert [bill.micros for bill in standin.bills] == [263]
    assert standin.bills[0].prompt.startswith("Who yields?")
    sent = standin.requests[0]["body"]
    assert sent["model"] == "claude-test"
    assert "YIELD, INSIST" in sent["messages"][0]["content"]
    assert sent["system"] == "You settle conflicts."


def test_cached_tokens_are_priced_as_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = message("YIELD", tokens_in=100, tokens_out=0)
    reply["body"]["usage"]["cache_read_input_tokens"] = 1000
    with backend(monkeypatch, lambda n, b: reply) as (opened, _):
        completion = ask(opened, TextOutput())
    assert completion.cost_micros == 25 + 30
    assert (completion.tokens_in, completion.tokens_cached) == (1100, 1000)


def test_json_comes_from_a_forced_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = message("")
    tool = {"type": "tool_use", "id": "t", "name": "answer", "input": {"hours": 3}}
    reply["body"]["content"] = [tool]
    schema = {"type": "object", "properties": {"hours": {"type": "number"}}}
    with backend(monkeypatch, lambda n, b: reply) as (opened, standin):
        completion = ask(opened, JsonOutput(json_schema=schema))
    assert completion.raw == '{"hours": 3}'
    assert standin.requests[0]["body"]["tool_choice"] == {"type": "tool", "name": "answer"}


@pytest.mark.parametrize(
    ("effort", "sent", "choice"),
    [
        (None, {}, {"type": "tool", "name": "answer"}),
        ("none", {"thinking": {"type": "disabled"}}, {"type": "tool", "name": "answer"}),
        (
            "minimal",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            {"type": "auto"},
        ),
    ],
)
def test_thinking_is_switched_as_the_catalog_says(
    monkeypatch: pytest.MonkeyPatch,
    effort: str | None,
    sent: dict[str, object],
    choice: dict[str, str],
) -> None:
    thinking = {"type": "thinking", "thinking": "Three?", "signature": "s"}
    tool = {"type": "tool_use", "id": "t", "name": "answer", "input": {"hours": 3}}
    reply = message("")
    reply["body"]["content"] = [thinking, tool]
    wishes = {"reasoning_effort": effort, "sampling": Sampling(temperature=0.5)}
    model = MODEL.model_copy(update=wishes)
    with backend(monkeypatch, lambda n, b: reply, model) as (opened, standin):
        completion = ask(opened, JsonOutput(json_schema={"type": "object"}))
    body = standin.requests[0]["body"]
    assert completion.raw == '{"hours": 3}'
    assert {k: body[k] for k in ("thinking", "output_config") if k in body} == sent
    assert body["tool_choice"] == choice
    assert ("temperature" in body) == (choice["type"] == "tool")


@pytest.mark.parametrize("status", [429, 500, 529])
def test_an_overloaded_service_is_called_once_and_may_be_retried_by_the_ledger(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    reply = fault(status, "overloaded_error", retry_after="7")
    with backend(monkeypatch, lambda n, b: reply) as (opened, standin):
        error = ask(opened, TextOutput()).error
    assert error is not None
    assert error.retryable
    assert error.retry_after_s == 7
    assert error.unknown_charge_micros is None
    assert len(standin.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refused_request_is_not_worth_a_retry(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with backend(monkeypatch, lambda n, b: fault(status, "refused")) as (opened, _):
        error = ask(opened, TextOutput()).error
    assert error is not None
    assert not error.retryable
    assert str(status) in str(error)


def test_a_call_that_times_out_may_have_been_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    with backend(monkeypatch, lambda n, b: message("late") | {"hang_s": 3}) as (opened, standin):
        error = ask(opened, TextOutput()).error
    assert error is not None
    assert error.outage
    assert error.unknown_charge_micros == opened.most_micros(request(TextOutput()))
    assert [bill.micros for bill in standin.bills] <= [error.unknown_charge_micros]
    assert len(standin.requests) == standin.billed == 1


def test_a_service_that_is_not_there_has_billed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with backend(monkeypatch, lambda n, b: message("x")) as (opened, standin):
        standin.stop()
        error = ask(opened, TextOutput()).error
    assert error is not None
    assert error.outage
    assert error.unknown_charge_micros is None


def test_one_failing_request_leaves_its_neighbours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(number: int, body: Reply) -> Reply:
        bad = "bad" in body["messages"][0]["content"]
        return fault(400, "invalid_request_error") if bad else message("fine")

    with backend(monkeypatch, script) as (opened, _):
        requests = [request(TextOutput(), str(i)) for i in range(6)]
        requests[3] = Request("3", "k", "", "bad", TextOutput(), Sampling(), 1)
        done = {c.id: c for c in opened.answer(requests)}
    assert [i for i, c in sorted(done.items()) if c.error] == ["3"]
    assert len(done) == 6


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (402, "billing_error", "payment required"),
        (429, "insufficient_quota", ""),
        (429, "some_error", "You exceeded your current quota, please check your plan"),
        (400, "invalid_request_error", "Your credit balance is too low to access the API."),
        (400, "invalid_request_error", "You have reached your specified API usage limits."),
        (403, "permission_error", "Go to Plans & Billing to upgrade"),
    ],
)
def test_an_account_without_money_is_an_outage_and_not_worth_a_retry(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: str, said: str
) -> None:
    with backend(monkeypatch, lambda n, b: fault(status, kind, said)) as (opened, _):
        error = ask(opened, TextOutput()).error
    assert error is not None
    assert (error.quota, error.outage, error.retryable) == (True, True, False)


@pytest.mark.parametrize(
    ("status", "said", "outage"),
    [
        (500, "", True),
        (503, "", True),
        (529, "", True),
        (401, "", True),
        (403, "", True),
        (429, "Number of request tokens has exceeded your per-minute rate limit", False),
        (400, "tools.0.input_schema.properties.quota: Input should be an object", False),
        (400, "'billing' is a required property", False),
        (404, "", False),
        (413, "", False),
        (422, "", False),
    ],
)
def test_only_what_any_request_would_meet_speaks_against_the_provider(
    monkeypatch: pytest.MonkeyPatch, status: int, said: str, outage: bool
) -> None:
    with backend(monkeypatch, lambda n, b: fault(status, "some_error", said)) as (opened, _):
        error = ask(opened, TextOutput()).error
    assert error is not None
    assert (error.outage, error.quota) == (outage, False)


def test_no_answer_can_cost_more_than_what_was_reserved_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schema = {"type": "object", "properties": {"größe": {"type": "number"}}}
    outputs = (ChoiceOutput(labels=("JA", "NEIN")), TextOutput(), JsonOutput(json_schema=schema))
    with backend(monkeypatch, lambda n, b: message("x")) as (opened, _):
        text, asked = "你好" * 50, request
        for output in outputs:
            most = opened.most_micros(replace(asked(output), prompt=text))
            tokens_in = len("You settle conflicts.") + len(text.encode()) + 600
            tokens_out = 30 if isinstance(output, ChoiceOutput) else 60
            assert most >= MODEL.price.micros(tokens_in, tokens_out)
        plain = opened.most_micros(asked(TextOutput()))
        assert opened.most_micros(asked(outputs[2])) > plain


def test_the_dearest_way_to_read_a_token_is_reserved_for() -> None:
    written = Price(input="1", output="2", cached_input="0.1", cache_write="1.25")
    assert most_cost(written, ("four",), 10) == round(604 * 1.25 + 20)


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    with backend(monkeypatch, lambda n, b: message("x" * 300_000)) as (opened, _):
        completion = ask(opened, TextOutput())
    assert (len(completion.raw), completion.truncated) == (MAX_ANSWER_CHARS, True)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with backend(monkeypatch, lambda n, b: message("x")) as (opened, standin):
        standin.listing = fault(status, "authentication_error", f"invalid key {KEY}")
        with pytest.raises(ConfigurationError) as error:
            opened.check()
    expected = "anthropic refuses the key in ANTHROPIC_API_KEY: correct it"
    assert str(error.value) == expected
    assert (standin.looks, standin.requests) == (1, [])


@pytest.mark.parametrize("key", ["clé", "sk-a\nsk-b", "sk-a\x00"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key: str) -> None:
    with pytest.raises(ConfigurationError, match="characters") as error:
        AnthropicBackend("claude", MODEL, None, slots=1, key=key)
    assert key[:3] not in str(error.value)


def test_a_key_that_is_known_passes_at_no_cost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with backend(monkeypatch, lambda n, b: message("x")) as (opened, standin):
        opened.check()
    assert (standin.looks, standin.billed) == (1, 0)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "listing",
    [
        fault(404, "not_found_error"),
        fault(500, "api_error"),
        fault(529, "overloaded_error"),
        fault(403, "permission_error", "see Plans & Billing"),
        None,
    ],
)
def test_a_provider_that_is_away_is_only_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, listing: Reply | None
) -> None:
    with backend(monkeypatch, lambda n, b: message("x")) as (opened, standin):
        if listing is None:
            standin.stop()
        else:
            standin.listing = listing
        opened.check()
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "127.0.0.1" in warnings[0]
    assert "network" in warnings[0]


@pytest.mark.parametrize(
    "url", ["api.anthropic.com", "ftp://host", "http://", "http://host:port", "https://[::1"]
)
def test_a_malformed_base_url_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    with pytest.raises(ConfigurationError) as error:
        AnthropicBackend("claude", MODEL, None, slots=1, key=KEY)
    assert url in str(error.value)
    assert "ANTHROPIC_BASE_URL" in str(error.value)
    written = Provider(backend=BackendName.ANTHROPIC, base_url=url)
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    with pytest.raises(ConfigurationError, match="base_url"):
        AnthropicBackend("claude", MODEL, written, slots=1, key=KEY)


def test_a_provider_without_a_key_names_the_variable() -> None:
    provider = Provider(backend=BackendName.ANTHROPIC, api_key_env="TEAM_KEY")
    with pytest.raises(ConfigurationError, match="set TEAM_KEY"):
        AnthropicBackend("claude", MODEL, provider, slots=1, key=None)


@pytest.mark.parametrize("body", ["no object", {"type": "message"}, []])
def test_an_answer_that_is_no_message_fails_alone_and_may_have_been_billed(
    monkeypatch: pytest.MonkeyPatch, body: object
) -> None:
    reply = {"status": 200, "body": body}
    with backend(monkeypatch, lambda n, b: reply) as (opened, _):
        error = ask(opened, TextOutput()).error
    assert error is not None
    assert error.unknown_charge_micros == opened.most_micros(request(TextOutput()))
    assert "\n" not in str(error)
