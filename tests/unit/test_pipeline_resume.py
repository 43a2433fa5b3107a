"""A pipeline that died goes on; what is not what it was is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError, StackError
from ledger.workers import Life, announce
from producers.pipeline.beginning import alone_in, found_state
from producers.pipeline.state import Condition
from producers.pipeline.work import StepError
from routing.decision import Decision, Settled, Status
from tests.unit.ledgers import rows
from tests.unit.pipeline_bench import Asker, bench, two


def test_a_step_that_died_goes_on_with_what_was_settled(tmp_path: Path) -> None:
    whole = bench(tmp_path / "whole")
    whole.run()
    it = bench(tmp_path / "cut")
    it.asker.dies_at = "step3.g0.judge"
    with pytest.raises(StackError):
        it.run()
    state = it.state(resume=True)
    assert (state.condition, state.failure) == (Condition.FAILED, "the power went")
    begun, before = state.steps[2].run_id, (it.workdir / state.steps[0].file).read_bytes()
    it.asker.dies_at = ""
    state = it.run(state)
    assert state.condition is Condition.DONE
    assert state.steps[2].run_id == begun
    assert (it.workdir / state.steps[0].file).read_bytes() == before
    assert sorted(it.asked()) == sorted(whole.asked())
    attempts = rows(it.house.engine, "attempt")
    assert len(attempts) == len({row["decision_id"] for row in attempts})
    for number in range(1, 7):
        assert it.file(number)["result"] == whole.file(number)["result"]


def test_a_question_whose_time_ran_out_is_asked_once_more(tmp_path: Path) -> None:
    it = bench(tmp_path)

    class Late(Asker):
        def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
            return [
                one.model_copy(update={"status": Status.EXPIRED, "answer": ""})
                if one.key == "step1.g0.think" else one
                for one in super().gather(decisions)
            ]  # fmt: skip

    it.asker = Late(it.house)
    it.run()
    assert "step1.g0.think+1" in it.asked()
    assert not [key for key in it.asked() if key.endswith("+1+1") or key.startswith("step2.g0+")]
    assert it.file(1)["agent_metadata"]["reasoning"].startswith("They agree")


def test_a_changed_step_file_is_refused_with_both_hashes(tmp_path: Path) -> None:
    it = bench(tmp_path)
    state = it.run()
    path = it.workdir / state.steps[1].file
    kept = path.read_text()
    path.write_text(kept.replace("0.92", "0.99", 1))
    with pytest.raises(InputError) as caught:
        it.state(begin_from=3)
    for part in (str(path), str(state.steps[1].hash), "--from 2"):
        assert part in str(caught.value)
    path.write_text(kept)
    assert it.run(it.state(begin_from=3)).condition is Condition.DONE
    path.unlink()
    with pytest.raises(InputError, match="is gone: write it anew with --from 2"):
        it.state(begin_from=3)


def test_draws_of_another_hash_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    it = bench(tmp_path)
    draws = tmp_path / "draws.json"
    draws.write_text(draws.read_text().replace("904", "905", 1))
    with pytest.raises(InputError, match=r"draws.json has sha256:.* but sha256:"):
        it.state()
    assert it.asked() == []


def test_a_step_without_survivors_fails_in_one_line(tmp_path: Path) -> None:
    def deaf(data: Any) -> None:
        data["steps"][0]["parameters"]["match_rate"] = 1.0
        data["steps"][0]["success"] = {"survivors": {"at_most": 5}}

    it = bench(tmp_path, change=deaf)
    with pytest.raises(StepError, match="no survivors"):
        it.run()
    assert it.state(resume=True).condition is Condition.FAILED


def test_a_specialist_who_is_away_is_stood_in_for(tmp_path: Path) -> None:
    it = bench(tmp_path)
    announce(it.house.engine, Life("low.math", "low.math", "low.math"), "stopping")
    it.run()
    found = it.file(1)
    assert found["notes"] == ["math is not there, so orchestrator was asked"]
    assert found["judgements"][0]["lane"] == "low"
    llm = found["agent_metadata"]["llm_metadata"]
    assert (llm["math_calls"], llm["orchestrator_calls"]) == (0, 5)


def test_a_private_pipeline_asks_private_questions(tmp_path: Path) -> None:
    it = bench(tmp_path, change=lambda data: data.update(privacy="maximum"))
    it.run()
    asked = [json.loads(row["preferences"]) for row in rows(it.house.engine, "decision")]
    assert {wishes["privacy"] for wishes in asked} == {"maximum"}
    assert {wishes["cache"] for wishes in asked} == {"off"}


def test_one_lane_answers_for_both(tmp_path: Path) -> None:
    it = bench(tmp_path, two().replace('speciality = "math"', ""))
    state = it.run()
    assert state.condition is Condition.DONE
    assert len(it.file(3)["judgements"]) == 1
    llm = it.file(3)["agent_metadata"]["llm_metadata"]
    assert llm["math_model"] == llm["orchestrator_model"] == "general"
    assert llm["math_calls"] == 1


def test_another_config_or_profile_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    it = bench(tmp_path)
    it.asker.dies_at = "step2."
    with pytest.raises(StackError):
        it.run()
    with pytest.raises(InputError, match="of profile 'house'"):
        found_state(it.loaded, it.workdir, "tiny", begin_from=None, resume=True)
    it.config.write_text(it.config.read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(InputError, match="began with sha256:"):
        it.state(resume=True)
    with pytest.raises(InputError, match="--from 7 is no step"):
        it.state(begin_from=7)
    with pytest.raises(InputError, match="no pipeline to resume"):
        found_state(it.loaded, tmp_path, "house", begin_from=None, resume=True)


def test_a_work_directory_is_for_one_pipeline_at_a_time(tmp_path: Path) -> None:
    with alone_in(tmp_path / "new"), pytest.raises(InputError, match="another pipeline"):  # noqa: SIM117
        with alone_in(tmp_path / "new"):
            pass
    with alone_in(tmp_path / "new"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), alone_in(tmp_path / "file"):
        pass
