"""The same question of several messages at once, with the real SmolLM2: one job for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.catalog import Sampling
from config.errors import BackendError, Cancelled, DeadlinePassed
from config.load import PROFILES
from config.settings import load_settings
from routing.decision import ChoiceOutput, TextOutput
from tests.integration.stacks import wait_until
from workers.backends.base import Completion, Request
from workers.backends.llama_answers import completions
from workers.backends.llama_cpp import LlamaBackend, open_llama
from workers.backends.llama_prompt import TEMPLATES, Prompts
from workers.cancellation import CancellationToken
from workers.engine.engine import Engine, EngineDied

LABELS = ("CONTINUE", "REST", "ASK", "BLOCKED")


@pytest.fixture(scope="module")
def backend(smollm2: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaBackend]:
    path: Path = tmp_path_factory.mktemp("profile") / "batched.toml"
    path.write_text((PROFILES / "tiny.toml").read_text().replace("reproducible = true\n", ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPTIER_THREADS", "1")
        opened = open_llama(load_settings(profile=str(path)), "tier1")
    yield opened
    opened.close()


def request(name: str, text: str = "Agent 1 waits for a reply.", **more: Any) -> Request:
    return Request(
        id=name, kind="question", system="Decide what to do next.", prompt=text,
        output=ChoiceOutput(labels=LABELS), sampling=Sampling(), seed=1, **more,
    )  # fmt: skip


def answers(backend: LlamaBackend, *requests: Request) -> dict[str, Completion]:
    return {done.id: done for done in backend.answer(requests)}


@contextmanager
def held_engine(backend: LlamaBackend) -> Iterator[threading.Event]:
    """Nothing is computed until the event is set, so that what is asked meanwhile is in flight."""
    real, go_on = Engine._step, threading.Event()

    def step(self: Engine) -> None:
        go_on.wait(30)
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_step", step)
        try:
            yield go_on
        finally:
            go_on.set()


def leave(completions: Iterator[Completion]) -> None:
    assert isinstance(completions, Generator)
    completions.close()


def askers(backend: LlamaBackend) -> int:
    return sum(question.askers for question in list(backend._open._open.values()))


def test_the_same_question_of_several_messages_is_computed_once(backend: LlamaBackend) -> None:
    before = backend.figures()["jobs"]
    with held_engine(backend) as go_on, ThreadPoolExecutor(5) as pool:
        work = [pool.submit(answers, backend, request(f"m{i}")) for i in range(4)]
        work.append(pool.submit(answers, backend, request("own", own_sample=True)))
        wait_until(lambda: askers(backend) == 5)
        go_on.set()
        found = [next(iter(one.result(60).values())) for one in work]
    assert backend.figures()["jobs"] - before == 2
    assert len({done.probabilities for done in found[:4]}) == 1
    computed = [done for done in found[:4] if done.tokens_cached < done.tokens_in]
    assert len(computed) == 1
    assert askers(backend) == 0


def test_a_question_is_given_up_only_when_its_last_asker_leaves(backend: LlamaBackend) -> None:
    with held_engine(backend) as go_on, ThreadPoolExecutor(2) as pool:
        listening = pool.submit(answers, backend, request("stays", text="Who stays?"))
        wait_until(lambda: askers(backend) == 1)
        misfit = request("refused", adapter="nobody")
        leaver = backend.answer([misfit, request("leaves", text="Who stays?")])
        assert next(leaver).error is not None  # the refusal comes first; the question is asked
        assert askers(backend) == 2
        leave(leaver)
        [question] = backend._open._open.values()
        assert not question.job.future.cancelled()
        last = backend.answer([misfit, request("alone", text="Who goes?")])
        next(last)
        gone = next(q for q in backend._open._open.values() if q is not question)
        leave(last)
        assert gone.job.future.cancelled()
        go_on.set()
        assert listening.result(60)["stays"].error is None


def test_a_question_lasts_as_long_as_the_most_patient_of_its_askers_and_no_longer(
    backend: LlamaBackend,
) -> None:
    def asked(deadline: float | None) -> Request:
        return request("late", text="Who is late?", deadline=deadline)

    now = time.monotonic()
    with held_engine(backend) as go_on, ThreadPoolExecutor(3) as pool:
        passed = [pool.submit(answers, backend, asked(now - i)) for i in (2, 1)]
        wait_until(lambda: askers(backend) == 2)
        [question] = backend._open._open.values()
        assert question.job.deadline == now - 1
        go_on.set()
        assert {type(one.result(60)["late"].error) for one in passed} == {DeadlinePassed}
        go_on.clear()
        both = [pool.submit(answers, backend, asked(at)) for at in (now, now + 600)]
        wait_until(lambda: askers(backend) == 2)
        go_on.set()
        assert [one.result(60)["late"].error for one in both] == [None, None]


def test_who_has_time_left_may_ask_again_when_the_others_have_none() -> None:
    ended: Future[Any] = Future()
    ended.set_exception(DeadlinePassed("its deadline passed", retryable=False))
    pair = [request("late", deadline=0.0), request("soon", deadline=time.monotonic() + 600)]
    late, soon = (done.error for done in completions(pair, ended, joined=False))
    assert isinstance(late, DeadlinePassed)
    assert not isinstance(soon, DeadlinePassed)
    assert soon is not None
    assert soon.retryable


def test_no_more_templates_are_remembered_than_can_be_in_use(backend: LlamaBackend) -> None:
    prompts = Prompts(backend._engine.vocabulary)
    asked = request("r")
    first = prompts.prompt(asked)
    for number in range(TEMPLATES + 10):
        prompts.prompt(replace(asked, system=f"House {number}."))
    assert prompts._markup.cache_info().currsize == TEMPLATES
    assert prompts.prompt(asked) == first


def test_a_fault_of_a_shared_question_is_all_its_askers(backend: LlamaBackend) -> None:
    with held_engine(backend) as go_on, ThreadPoolExecutor(3) as pool:
        work = [pool.submit(answers, backend, request("f", text="Who fails?")) for _ in range(3)]
        wait_until(lambda: askers(backend) == 3)
        [question] = backend._open._open.values()
        question.job.settle(BackendError("a fault"))
        go_on.set()
        assert {str(one.result(60)["f"].error) for one in work} == {"a fault"}


def test_a_question_that_cannot_be_handed_over_fails_who_joined_it_too(
    backend: LlamaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[Future[dict[str, Completion]]] = []
    with ThreadPoolExecutor(1) as pool:

        def submit(self: Engine, jobs: Any) -> None:
            if list(jobs):
                joined.append(pool.submit(answers, backend, request("second")))
                wait_until(lambda: askers(backend) == 2)
                raise EngineDied("gone")

        monkeypatch.setattr(Engine, "submit", submit)
        with pytest.raises(EngineDied):
            answers(backend, request("first"))
        assert str(joined[0].result(30)["second"].error) == "gone"


def tale(name: str, **more: Any) -> Request:
    asked = request(name, text="Tell a tale of the sea.", **more)
    return replace(asked, output=TextOutput(), sampling=Sampling(max_tokens=40, temperature=0))


def test_all_who_ask_the_same_hear_its_text_from_the_beginning(backend: LlamaBackend) -> None:
    heard: dict[str, list[str]] = {name: [] for name in ("a", "b", "c")}
    before = backend.figures()["jobs"]
    with held_engine(backend) as go_on, ThreadPoolExecutor(4) as pool:
        work = [
            pool.submit(answers, backend, tale(name, on_text=parts.append))
            for name, parts in heard.items()
        ]
        work.append(pool.submit(answers, backend, tale("silent")))
        wait_until(lambda: askers(backend) == 4)
        go_on.set()
        found = [next(iter(one.result(60).values())) for one in work]
    assert backend.figures()["jobs"] - before == 1
    assert {"".join(parts) for parts in heard.values()} == {found[-1].raw}
    assert all(len(parts) > 5 for parts in heard.values())


def test_a_cancelled_asker_leaves_and_the_others_get_their_answer(backend: LlamaBackend) -> None:
    token = CancellationToken()
    with held_engine(backend) as go_on, ThreadPoolExecutor(2) as pool:
        gone = pool.submit(answers, backend, tale("gone", cancellation=token), request("other"))
        stays = pool.submit(answers, backend, tale("stays"))
        wait_until(lambda: askers(backend) == 3)
        token.set()
        wait_until(lambda: askers(backend) == 2)
        go_on.set()
        left = gone.result(60)
        assert isinstance(left["gone"].error, Cancelled)
        assert left["other"].error is None
        assert stays.result(60)["stays"].error is None
    assert askers(backend) == 0
