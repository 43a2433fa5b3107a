"""LoRA adapters on the real SmolLM2: random ones, strong enough to move every answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from config.catalog import Sampling
from config.errors import BackendError, WeightsError
from config.load import PROFILES
from config.settings import Settings, load_settings
from routing.decision import ChoiceOutput, TextOutput
from tests.lora_file import write_lora
from workers.backends.base import Completion, Request
from workers.backends.llama_cpp import LlamaBackend, open_llama
from workers.engine import adapters as adapters_module
from workers.engine.adapters import Adapters
from workers.engine.context import LlamaContext, Shape
from workers.engine.engine import Engine
from workers.engine.jobs import ChoiceJob, Job, TextJob
from workers.engine.labels import build_trie
from workers.models import weights_path

LABELS = ("CONTINUE", "REST", "ASK", "BLOCKED")
RULES = f"Decide what to do next: one of {', '.join(LABELS)}. Finish what is begun first."
QUESTION = "Agent 1 waits for a reply."
NEAR = 0.15
"""Nats by which rounding may move a label's logarithm; the adapters move some by more than 1."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    made = {name: write_lora(folder / f"{name}.gguf", seed) for seed, name in enumerate("abc")}
    return made | {"misfit": write_lora(folder / "misfit.gguf", 9, width=64)}


@pytest.fixture(scope="module")
def open_engine(smollm2: None, files: dict[str, Path]) -> Iterator[Any]:
    path = weights_path(load_settings(profile="tiny"), "smollm2-135m")
    opened: list[Engine] = []

    def build(at_most: int = 4, preload: Sequence[str] = (), **more: Any) -> Engine:
        context = LlamaContext(path, Shape(2048, batch=512, sequences=64, threads=1))
        adapters = Adapters(context, files, at_most)
        adapters.preload(preload)
        opened.append(Engine(context, adapters, **more))
        return opened[-1]

    yield build
    for engine in opened:
        engine.close()


@pytest.fixture(scope="module")
def engine(open_engine: Any) -> Engine:
    built: Engine = open_engine()
    return built


def prompt(engine: Engine, text: str) -> tuple[tuple[int, ...], int]:
    tokens = engine.vocabulary.tokens
    shared = tokens(f"<|im_start|>system\n{RULES}<|im_end|>\n<|im_start|>user\n", special=True)
    own = tokens(f"{text}<|im_end|>\n<|im_start|>assistant\nAnswer:", special=True)
    return (*shared, *own), len(shared)


def choice(engine: Engine, adapter: str, text: str = QUESTION) -> ChoiceJob:
    labels = tuple(tuple(engine.vocabulary.tokens(" " + label)) for label in LABELS)
    trie = build_trie(labels, engine.vocabulary.end_of_turn)
    return ChoiceJob(*prompt(engine, text), adapter, trie=trie)


def ask(engine: Engine, *jobs: Job) -> list[Any]:
    engine.submit(jobs)
    return [job.future.result(timeout=400).answer for job in jobs]


def logs(engine: Engine, adapter: str, text: str = QUESTION) -> tuple[float, ...]:
    found: tuple[float, ...] = ask(engine, choice(engine, adapter, text))[0].logs
    return found


def differ(one: Sequence[float], other: Sequence[float]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) > 3 * NEAR


def test_an_adapter_moves_the_answers_and_leaving_it_restores_them(engine: Engine) -> None:
    plain, a, b = (logs(engine, name) for name in ("", "a", "b"))
    assert differ(plain, a)
    assert differ(plain, b)
    assert differ(a, b)
    for name, first in (("b", b), ("", plain), ("a", a)):
        assert logs(engine, name) == pytest.approx(first, abs=NEAR)


def test_what_one_adapter_computed_is_never_read_by_another(open_engine: Any) -> None:
    """The same prompts under three names, mixed; each as in an engine that knows one name."""
    mixed: Engine = open_engine()
    asked = [(name, f"Agent {i} has {i} tasks.") for i in range(4) for name in ("", "a", "b")]
    jobs = [choice(mixed, name, text) for name, text in asked]
    found = [answer.logs for answer in ask(mixed, *jobs)]
    for name in ("", "a", "b"):
        alone: Engine = open_engine()
        own = [choice(alone, name, text) for one, text in asked if one == name]
        expected = [answer.logs for answer in ask(alone, *own)]
        got = [logs for (one, _), logs in zip(asked, found, strict=True) if one == name]
        for one_logs, other_logs in zip(got, expected, strict=True):
            assert one_logs == pytest.approx(other_logs, abs=NEAR)
        first = next(job for job in jobs if job.adapter == name)
        assert first.future.result().tokens_cached == 0


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loaded: list[str] = []
    real = adapters_module.llama_cpp.llama_adapter_lora_init

    def load(model: Any, path: bytes) -> Any:
        loaded.append(Path(path.decode()).stem)
        return real(model, path)

    monkeypatch.setattr(adapters_module.llama_cpp, "llama_adapter_lora_init", load)
    return loaded


def test_the_adapter_used_least_recently_leaves_for_another(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = count_loads(monkeypatch)
    engine: Engine = open_engine(at_most=2)
    first = {name: logs(engine, name) for name in ("a", "b")}
    logs(engine, "a")
    logs(engine, "c")
    assert loaded == ["a", "b", "c"]
    assert engine.figures()["adapters_loaded"] == 2
    assert logs(engine, "a") == pytest.approx(first["a"], abs=NEAR)
    assert loaded == ["a", "b", "c"]
    assert logs(engine, "b") == pytest.approx(first["b"], abs=NEAR)
    assert loaded == ["a", "b", "c", "b"]
    assert engine.figures()["adapter_switches"] == 6


def test_one_at_a_time_is_enough(open_engine: Any) -> None:
    engine: Engine = open_engine(at_most=1)
    first = {name: logs(engine, name) for name in ("", "a", "b")}
    for name in ("a", "b", "", "a", "", "b"):
        assert logs(engine, name) == pytest.approx(first[name], abs=NEAR)


def test_preloaded_adapters_are_there_before_the_first_question(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = count_loads(monkeypatch)
    engine: Engine = open_engine(preload=("b", "misfit", "a"))
    assert loaded == ["b", "misfit", "a"]
    assert engine.figures()["adapters_loaded"] == 2
    assert "does not fit this model" in caplog.text
    logs(engine, "a")
    assert loaded == ["b", "misfit", "a"]


def test_an_adapter_that_does_not_fit_fails_alone(engine: Engine) -> None:
    good, plain, bad, worse = (choice(engine, name) for name in ("a", "", "misfit", "nobody"))
    engine.submit([bad, good, worse, plain])
    assert differ(good.future.result(60).answer.logs, plain.future.result(60).answer.logs)  # type: ignore[union-attr]
    with pytest.raises(BackendError, match="'misfit' does not fit this model: replace"):
        bad.future.result(60)
    with pytest.raises(BackendError, match="'nobody' has no file for this model: give it one"):
        worse.future.result(60)
    assert engine.alive


def test_reproducible_answers_are_the_same_to_the_last_bit_with_adapters_too(
    open_engine: Any,
) -> None:
    one, other = open_engine(reproducible=True), open_engine(reproducible=True, at_most=1)

    def job(engine: Engine, number: int) -> Job:
        name, asked = ("", "a", "b")[number % 3], f"Agent {number} has {number % 4} tasks."
        if number % 4:
            return choice(engine, name, asked)
        sampling = Sampling(max_tokens=6, temperature=0.8)
        return TextJob(*prompt(engine, asked), name, vocabulary=engine.vocabulary,
                       sampling=sampling, seed=number)  # fmt: skip

    together = ask(one, *(job(one, i) for i in range(9)))
    backwards = [ask(other, job(other, i))[0] for i in reversed(range(9))]
    assert together == backwards[::-1]


# The backend, opened from a profile.


def profile(folder: Path, files: dict[str, Path], missing: str = "") -> Settings:
    """Profile ``tiny`` with adapters, in batches."""
    text = (PROFILES / "tiny.toml").read_text()
    text = text.replace("reproducible = true\n", 'max_adapters = 2\npreload = ["a"]\n')
    for name, path in files.items():
        path = Path("/nowhere.gguf") if name == missing else path
        text += f'\n[models.smollm2-135m.adapters.{name}]\nfile = "{name}.gguf"\n'
        text += f'source = {{ kind = "file", path = "{path}" }}\n'
    text += "\n[models.smollm2-135m.adapters.named]\n"
    path = folder / "adapted.toml"
    path.write_text(text)
    return load_settings(profile=str(path))


@pytest.fixture(scope="module")
def backend(
    smollm2: None, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaBackend]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPTIER_THREADS", "1")
        opened = open_llama(profile(tmp_path_factory.mktemp("profile"), files), "tier1")
    yield opened
    opened.close()


def request(name: str, adapter: str = "", text: str = QUESTION, **more: Any) -> Request:
    given: dict[str, Any] = {
        "output": ChoiceOutput(labels=LABELS),
        "sampling": Sampling(max_tokens=4),
        "seed": 1,
    }
    return Request(id=name, kind="question", system=RULES, prompt=text, adapter=adapter,
                   **(given | more))  # fmt: skip


def answers(backend: LlamaBackend, *requests: Request) -> dict[str, Completion]:
    return {done.id: done for done in backend.answer(requests)}


def test_the_same_question_with_another_adapter_is_another_question(backend: LlamaBackend) -> None:
    before = backend.figures()
    found = answers(
        backend, request("plain"), request("one", "a"), request("other", "a"), request("b", "b")
    )
    assert backend.figures()["jobs"] - before["jobs"] == 3
    assert found["one"].probabilities == found["other"].probabilities
    odds = [found[name].probabilities for name in ("plain", "one", "b")]
    assert len({tuple(round(p, 3) for p in each or ()) for each in odds}) == 3


def test_texts_are_written_with_the_adapter_too(backend: LlamaBackend) -> None:
    sampling = Sampling(max_tokens=24, temperature=0)
    texts = [
        request(name, name.strip("-"), "Tell of the sea.", output=TextOutput(), sampling=sampling)
        for name in ("-", "a", "b")
    ]
    said = answers(backend, *texts)
    assert len({done.raw for done in said.values()}) == 3


def test_an_adapter_without_a_file_is_refused_and_its_neighbours_are_not(
    backend: LlamaBackend,
) -> None:
    found = answers(backend, request("ok", "a"), request("named", "named"), request("no", "nobody"))
    assert found["ok"].error is None
    for name, adapter in (("named", "named"), ("no", "nobody")):
        error = found[name].error
        assert error is not None
        assert not error.retryable
        assert str(error) == (
            f"adapter {adapter!r} has no file for this model: give it one in the profile, or ask "
            "for one of a, b, c, misfit"
        )


def test_a_worker_does_not_start_without_an_adapters_file(
    smollm2: None, files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="weights of smollm2-135m/b are missing at /nowhere"):
        open_llama(profile(tmp_path, files, missing="b"), "tier1")


def test_a_message_becomes_one_batch(
    backend: LlamaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[int] = []
    real = Engine.submit

    def submit(self: Engine, jobs: Any) -> None:
        jobs = list(jobs)
        handed.append(len(jobs))
        real(self, jobs)

    monkeypatch.setattr(Engine, "submit", submit)
    before = backend.figures()
    answers(backend, *(request(f"r{i}", text=f"Agent {i} is in a batch.") for i in range(12)))
    assert handed == [12]
    assert backend.figures()["passes"] - before["passes"] <= 3


def test_messages_that_come_together_share_passes(backend: LlamaBackend) -> None:
    """Four messages of texts at once take fewer passes than one after another."""
    sampling = Sampling(max_tokens=12, temperature=0)

    def message(number: int) -> list[Request]:
        return [
            request(f"{number}.{i}", text=f"Agent {number}{i} tells of its day.",
                    output=TextOutput(), sampling=sampling)
            for i in range(2)
        ]  # fmt: skip

    def passes(workers: int) -> float:
        before = backend.figures()["passes"]
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda n: answers(backend, *message(n)), range(4)))
        return backend.figures()["passes"] - before

    alone = passes(1)
    assert passes(4) < 0.7 * alone


def test_figures_add_up_and_are_read_while_it_works(backend: LlamaBackend) -> None:
    before = backend.figures()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(
            answers, backend, *(request(f"f{i}", text=f"Agent {i} counts.") for i in range(8))
        )
        seen = [backend.figures()]
        while not work.done():
            seen.append(backend.figures())
    done = work.result()
    after = backend.figures()
    assert after["tokens_in"] - before["tokens_in"] == sum(d.tokens_in for d in done.values())
    cached = sum(d.tokens_cached for d in done.values())
    assert after["tokens_cached"] - before["tokens_cached"] == cached
    assert after["jobs"] - before["jobs"] == 8
    assert 0 <= after["prefix_hit_rate"] <= 1
    assert after["tokens_per_s"] > 0
    for one, other in pairwise(seen):
        assert all(one[name] <= other[name] for name in ("passes", "tokens_computed", "busy_s"))
