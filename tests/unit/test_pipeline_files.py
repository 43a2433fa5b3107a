"""Files of a pipeline: written whole, read strictly, never over what is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigurationError, InputError
from producers.pipeline.beginning import settle_step, unchanged
from producers.pipeline.files import write_json
from producers.pipeline.learning import TrainingParameters, train
from producers.pipeline.plan import read_json
from producers.pipeline.state import read_state
from producers.pipeline.statistics import folds
from producers.pipeline.work import StepError, Work
from tests.unit.pipeline_bench import bench, two

STATE = "pipeline.state.json"


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "step.json").mkdir()
    (tmp_path / "step.json" / "inner").write_text("")
    with pytest.raises(InputError, match=r"step.json cannot be written"):
        write_json(tmp_path / "step.json", {})
    assert [p.name for p in tmp_path.iterdir()] == ["step.json"]


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": 1e999}', '"\\ud800"', "[" * 90_000])
def test_what_is_no_json_is_not_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "step.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"step.json"):
        read_json(path)


@pytest.mark.parametrize(
    "said", ['{"value": 1e999}', '{"value": NaN}', '{"value": "\\ud800"}', "[7]", "[" * 5_000]
)
def test_an_answer_that_no_file_could_hold_is_a_wrong_one(tmp_path: Path, said: str) -> None:
    line = f"{{ contains = \"degrees of freedom does\", answer = '{said}' }}"
    it = bench(tmp_path, two(line))
    it.run()
    assert it.file(1)["calculations"][0] | {"right": False} == it.file(1)["calculations"][0]


@pytest.mark.parametrize("said", ['{"steps": [1e999]}', '{"steps": ["\\ud800"]}', "[]"])
def test_a_plan_that_no_file_could_hold_is_none(tmp_path: Path, said: str) -> None:
    it = bench(tmp_path, two(f"{{ contains = \"Plan:\", answer = '{said}' }}"))
    it.run()
    assert it.file(1)["plan"] == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state["steps"].pop(), "steps"),
        (lambda state: state["steps"].reverse(), "steps"),
        (lambda state: state.update(steps=[]), "steps"),
        (lambda state: state["steps"][0].update(file="../../draws.json"), "file"),
        (lambda state: state["steps"][0].update(number=9), "steps"),
        (lambda state: state["steps"][0].update(standing="perhaps"), "standing"),
    ],
)
def test_a_state_that_is_none_is_refused(tmp_path: Path, change: Any, says: str) -> None:
    it = bench(tmp_path)
    it.run()
    state = json.loads((it.workdir / STATE).read_text())
    change(state)
    (it.workdir / STATE).write_text(json.dumps(state))
    with pytest.raises((InputError, ConfigurationError), match=says):
        read_state(it.workdir)
    (it.workdir / STATE).write_text(json.dumps(state)[:100])
    with pytest.raises(InputError, match="is not valid JSON"):
        read_state(it.workdir)


def test_no_step_writes_over_the_runs_state(tmp_path: Path) -> None:
    it = bench(tmp_path, change=lambda data: data["steps"][2].update(output=STATE))
    with pytest.raises(ConfigurationError, match="where the run's state is"):
        it.run()


@pytest.mark.parametrize("name", ["draws.json", "pipeline.json"])
def test_no_step_writes_over_what_is_read(tmp_path: Path, name: str) -> None:
    it = bench(tmp_path, change=lambda data: data["steps"][1].update(output=name))
    it.workdir = tmp_path
    before = (tmp_path / name).read_bytes()
    with pytest.raises(InputError, match=rf"step 2 would write over .*{name}"):
        it.run()
    assert (tmp_path / name).read_bytes() == before


def test_only_what_the_step_wrote_is_approved(tmp_path: Path) -> None:
    unsure = '{ kind = "pipeline_judgement", answer = "PROCEED", p = 0.7 }'
    it = bench(tmp_path, two(unsure))
    state = it.run()
    path = it.workdir / state.steps[0].file
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b"survivors", b"survivers", 1))
    with pytest.raises(InputError, match="is expected"):
        settle_step(it.state(resume=True), it.workdir, approve=True)
    path.unlink()
    with pytest.raises(InputError, match="is gone"):
        settle_step(it.state(resume=True), it.workdir, approve=True)
    settle_step(it.state(resume=True), it.workdir, approve=False)
    path.write_bytes(kept)
    settle_step(it.state(resume=True), it.workdir, approve=True)
    unchanged(path, state.steps[0].hash, 1)


def test_a_holdout_of_all_draws_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    it = bench(tmp_path, change=lambda data: data.update(holdout=400))
    with pytest.raises(InputError, match="holdout 400 leaves none of the 400 draws"):
        it.state()


def test_folds_without_rows_are_refused() -> None:
    with pytest.raises(StepError, match="10 rows do not make 20 folds"):
        folds(10, 20, 1)
    assert len(folds(10, 10, 1)) == 10


def test_a_validation_of_all_rows_is_refused() -> None:
    rows = [{"seed": n, "score": 1.0, "early": [0.5, 0.1 * n], "late": 0.5} for n in range(10)]
    earlier = {"full_scoring": {"rows": rows}, "ml_meta_optimizer": {"penalty": 1.0}}
    work = Work(None, 1, 1, earlier, "anti_overfit_training")
    with pytest.raises(StepError, match="leaves none of 10 rows"):
        train(work, TrainingParameters(validation_share=0.99))
    assert train(work, TrainingParameters(validation_share=0.9)).figures["trained_on"] == 1
