"""What every served backend makes of failures: retried or not, billed or not, whose fault."""

from __future__ import annotations

import logging
import threading

import pytest

from config.errors import BackendError, ConfigurationError
from routing.decision import MAX_ANSWER_CHARS
from tests.contract.cases import CHOICE, KEY, PRICE, TEXT, Case, ask, request
from tests.contract.protocols import Answer, Asked
from tests.contract.standins import Fault, Late, Outcome, Raw
from workers.backends.base import Backend
from workers.backends.http_pool import SideBySide
from workers.backends.http_provider import Defaults, access

FINE = Answer("fine")


def failed(backend: Backend) -> BackendError:
    error = ask(backend, TEXT).error
    assert error is not None
    assert "\n" not in str(error)
    return error


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_server_is_called_once_and_may_be_asked_again(
    case: Case, status: int
) -> None:
    fault = Fault(status, "overloaded", headers={"retry-after": "7"})
    with case.opened(lambda asked: fault) as (backend, standin):
        error = failed(backend)
    assert error.retryable
    assert error.retry_after_s == 7
    assert error.unknown_charge_micros is None
    assert error.outage is (status >= 500)
    assert str(status) in str(error)
    assert len(standin.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_a_refused_request_is_not_asked_again(case: Case, status: int) -> None:
    with case.opened(lambda asked: Fault(status, "refused", f"no: {KEY}")) as (backend, _):
        error = failed(backend)
    assert not error.retryable
    assert not error.quota
    assert error.outage is (status in (401, 403))
    assert error.unknown_charge_micros is None
    assert KEY not in str(error)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(402, "billing_error", "payment required"),
        Fault(429, "insufficient_quota", "You exceeded your current quota, check your plan"),
    ],
    ids=["402", "quota"],
)
def test_an_account_without_money_is_an_outage_and_not_worth_a_retry(
    case: Case, fault: Fault
) -> None:
    with case.opened(lambda asked: fault) as (backend, _):
        error = failed(backend)
    assert (error.quota, error.outage, error.retryable) == (True, True, False)


@pytest.mark.parametrize("headers", [{}, {"retry-after": "20"}])
def test_a_rate_limit_with_a_link_to_billing_is_worth_a_retry(
    case: Case, headers: dict[str, str]
) -> None:
    said = "Rate limit reached: raise it at https://platform.openai.com/account/billing."
    fault = Fault(429, "rate_limit_exceeded", said, headers)
    with case.opened(lambda asked: fault) as (backend, _):
        error = failed(backend)
    assert (error.quota, error.outage, error.retryable) == (False, False, True)


def test_a_call_that_times_out_may_have_been_billed_where_calls_are(case: Case) -> None:
    with case.opened(lambda asked: Late(FINE, 1.5), timeout_s=0.3) as (backend, standin):
        error = failed(backend)
        most = backend.most_micros(request(TEXT))
    assert (error.retryable, error.outage) == (True, True)
    assert error.unknown_charge_micros == (most if case.paid else None)
    assert len(standin.asked) == 1


def test_a_server_that_is_not_there_has_billed_nothing(case: Case) -> None:
    with case.opened(lambda asked: FINE) as (backend, standin):
        standin.stop()
        error = failed(backend)
    assert (error.retryable, error.outage) == (True, True)
    assert error.unknown_charge_micros is None


@pytest.mark.parametrize(
    "raw",
    [Raw("no JSON"), Raw([]), Raw({}), Raw({"choices": []}), Raw("<html>", "text/html")],
    ids=["broken", "list", "empty", "no-choices", "html"],
)
def test_an_answer_that_is_none_fails_and_may_have_been_billed(case: Case, raw: Raw) -> None:
    with case.opened(lambda asked: raw) as (backend, _):
        error = failed(backend)
        most = backend.most_micros(request(TEXT))
    assert error.unknown_charge_micros == (most if case.paid else None)


def test_an_answer_without_end_is_cut(case: Case) -> None:
    with case.opened(lambda asked: Answer("x" * (MAX_ANSWER_CHARS + 9))) as (backend, _):
        found = ask(backend, TEXT)
    assert len(found.raw) == MAX_ANSWER_CHARS
    assert found.truncated


def test_an_answer_without_measure_is_broken_off(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.backends.http_client.MOST_BYTES", 1 << 20)
    with case.opened(lambda asked: Answer("x" * (2 << 20))) as (backend, _):
        error = failed(backend)
    assert "MiB" in str(error)


def test_one_failing_request_leaves_its_neighbours_alone(case: Case) -> None:
    def script(asked: Asked) -> Outcome:
        if "bad" in asked.prompt:
            return Fault(400, "invalid_request")
        return Raw([]) if "mad" in asked.prompt else FINE

    prompts = ["good", "bad", "good", "mad", "good", "good"]
    requests = [request(TEXT, str(i), prompt) for i, prompt in enumerate(prompts)]
    with case.opened(script) as (backend, _):
        done = {c.id: c for c in backend.answer(requests)}
    assert sorted(done) == [str(i) for i in range(6)]
    assert [i for i, c in sorted(done.items()) if c.error] == ["1", "3"]


def test_nothing_more_is_asked_once_nobody_reads_on(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    """Four slots: one call is answered, at most four more have begun and are held."""
    first, goes_on = threading.Lock(), threading.Event()

    def script(asked: Asked) -> Outcome:
        if not first.acquire(blocking=False):
            goes_on.wait(30)
        return FINE

    with case.opened(script, timeout_s=30) as (backend, standin):
        assert isinstance(backend, SideBySide)
        answers = backend.answer([request(TEXT, str(i)) for i in range(12)])
        assert next(answers).error is None
        answers.close()
        goes_on.set()
        backend._pool.shutdown(wait=True)
    told = [message for message in caplog.messages if "nobody waited" in message]
    assert len(standin.asked) == len(told) + 1 <= 5
    price = PRICE.micros(100, 5) if case.paid else 0
    assert all(f"it cost {price} micro-dollars" in message for message in told)


def test_closing_twice_is_closing_once(case: Case) -> None:
    with case.opened(lambda asked: FINE) as (backend, _):
        ask(backend, TEXT)
        backend.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_before_anything_is_asked(case: Case, status: int) -> None:
    with case.opened(lambda asked: FINE) as (backend, standin):
        standin.looking = Fault(status, "authentication_error", f"invalid key {KEY}")
        with pytest.raises(ConfigurationError, match="standin refuses") as error:
            backend.check()
    assert KEY not in str(error.value)
    assert standin.asked == []


@pytest.mark.parametrize("fault", [None, Fault(500), Fault(503, "loading"), Fault(404)])
def test_a_server_that_is_away_is_only_warned_of(
    case: Case, caplog: pytest.LogCaptureFixture, fault: Fault | None
) -> None:
    with case.opened(lambda asked: FINE) as (backend, standin):
        if fault is None:
            standin.stop()
        else:
            standin.looking = fault
        backend.check()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "127.0.0.1" in warnings[0]


def test_a_server_that_is_there_is_not_spoken_of(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    with case.opened(lambda asked: FINE) as (backend, standin):
        backend.check()
    assert standin.asked == []
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_key_is_in_no_picture_of_what_holds_it(case: Case) -> None:
    reached = access(case.model(), case.provider("http://127.0.0.1"), Defaults("standin"), KEY)
    assert reached.key == KEY
    assert KEY not in f"{reached!r} {reached}"


@pytest.mark.parametrize("url", ["localhost:80", "ftp://host", "http://", "http://h:port"])
def test_a_malformed_url_is_named(case: Case, url: str) -> None:
    provider = case.provider("http://127.0.0.1").model_copy(update={"base_url": url})
    with pytest.raises(ConfigurationError, match="base_url") as error:
        case.open("standin", case.model(), provider)
    assert url in str(error.value)


def test_prompts_of_a_local_server_take_no_proxy(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.paid:
        pytest.skip("it is not local")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with case.opened(lambda asked: Answer("WAIT", {"WAIT": 1.0})) as (backend, standin):
        assert ask(backend, CHOICE).error is None
    assert standin.asked
