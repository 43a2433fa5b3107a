"""A pipeline's life over a real ledger: gates, retries, second opinions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError
from producers.pipeline.state import Condition, Standing
from tests.unit.ledgers import rows
from tests.unit.pipeline_bench import bench, two


def test_six_steps_run_by_themselves_and_their_files_follow_one_another(tmp_path: Path) -> None:
    it = bench(tmp_path)
    state = it.run()
    assert (state.condition, state.unattended) == (Condition.DONE, True)
    files = [it.file(number) for number in range(1, 7)]
    assert [f["agent_metadata"]["follow_up_agent"] for f in files][-1] is None
    assert files[0]["agent_metadata"]["parent_run_id"] is None
    for before, after, step in zip(files, files[1:], state.steps, strict=False):
        assert after["agent_metadata"]["parent_run_id"] == before["run_id"]
        read = {one["file"]: one["hash"] for one in after["agent_metadata"]["inputs"]}
        assert read[step.file] == step.hash
    assert all(f["run_id"].startswith(f"step{n}_20251201_143022_") for n, f in enumerate(files, 1))


def test_metadata_tell_what_the_ledger_knows(tmp_path: Path) -> None:
    it = bench(tmp_path)
    it.run()
    both = it.file(3)["agent_metadata"]
    llm = both["llm_metadata"]
    # Reasoning, plan and judgement of the orchestrator; calculation and judgement of the other.
    assert (llm["orchestrator_calls"], llm["math_calls"]) == (3, 2)
    assert (llm["orchestrator_model"], llm["math_model"]) == ("general", "math")
    spoken = rows(it.house.engine, "attempt")
    of_step = {r["id"] for r in rows(it.house.engine, "decision") if r["key"].startswith("step3.")}
    mine = [r for r in spoken if r["decision_id"] in of_step]
    assert llm["total_tokens_generated"] == sum(r["tokens_out"] for r in mine)
    assert len(llm["llm_reasoning_trace"]) == len(mine) == 5
    assert {one["model"] for one in llm["llm_reasoning_trace"]} == {"orchestrator", "math"}
    assert llm["llm_decision"] == "proceed_with_high_confidence"
    assert llm["human_override_requested"] is False
    assert both["confidence"] == 0.9
    assert both["cluster_resources"]["total_gpus"] == 0
    assert len(both["cluster_resources"]["nodes"]) == 1


def test_confidence_is_the_lesser_of_judges_and_checks(tmp_path: Path) -> None:
    wrong = '{ contains = "How many trials", answer = \'{"value": 9}\' }'
    it = bench(tmp_path, two(wrong))
    state = it.run()
    found = it.file(2)
    assert found["calculations"][0] == found["calculations"][0] | {"said": 9, "right": False}
    marks = found["marks"]
    assert marks["calculation 1"] == 0
    assert found["agent_metadata"]["confidence"] == pytest.approx(
        sum(marks.values()) / len(marks), abs=1e-4
    )
    assert state.steps[1].standing is Standing.WAITING
    assert state.condition is Condition.WAITING
    assert found["agent_metadata"]["llm_metadata"]["human_override_requested"] is True
    assert any("calculation 1 has 0.00" in why for why in state.steps[1].why)
    assert state.steps[2].standing is Standing.OPEN


def test_a_person_approves_and_it_goes_on_or_rejects_and_it_begins_again(tmp_path: Path) -> None:
    unsure = '{ kind = "pipeline_judgement", contains = "1 of 1", answer = "PROCEED", p = 0.7 }'
    it = bench(tmp_path, two(unsure))
    assert it.run().steps[1].standing is Standing.WAITING
    with pytest.raises(InputError, match="is waiting: go on with --resume"):
        it.state()
    state = it.state(resume=True)
    state.settle(approve=True)
    state = it.run(state)
    assert state.steps[1].approved
    assert state.next is not None
    assert (state.next.number, state.next.standing) == (4, Standing.WAITING)
    state.settle(approve=False)
    state.write(it.workdir)
    assert state.condition is Condition.REJECTED
    with pytest.raises(InputError, match="step 4 .* was rejected: go on with --from 4"):
        it.state(resume=True)
    again = it.run(it.state(begin_from=4))
    assert again.steps[3].generation == 1
    assert "step4.g0.think" in it.asked()
    assert "step4.g1.think" in it.asked()
    with pytest.raises(InputError, match="--from 6 needs step 4"):
        it.state(begin_from=6)
    again.settle(approve=True)
    with pytest.raises(InputError, match="no step of run .* waits"):
        again.settle(approve=True)


def test_far_from_sure_is_investigated_by_the_other_specialist(tmp_path: Path) -> None:
    doubts = '{ kind = "pipeline_judgement", answer = "REVIEW", p = 0.8 }'
    it = bench(tmp_path, two(math=[doubts]))
    state = it.run()
    found = it.file(1)
    assert found["agent_metadata"]["confidence"] == pytest.approx(0.1)
    assert state.steps[0].gate == "investigate"
    assert found["second_opinion"]["specialist"] == "orchestrator"
    assert found["second_opinion"]["p_proceed"] == 0.9
    assert found["agent_metadata"]["llm_metadata"]["llm_decision"] == "review_by_a_person"
    assert state.steps[0].standing is Standing.WAITING
    assert any("second opinion on low: PROCEED" in why for why in state.steps[0].why)


def test_where_one_lane_answers_for_both_another_tier_gives_the_second_opinion(
    tmp_path: Path,
) -> None:
    doubts = '{ kind = "pipeline_judgement", answer = "INVESTIGATE", p = 0.9 }'
    alone = two(doubts).replace('speciality = "math"', "")
    higher = """
[lanes.high]
tier = "high"
model = "better"
[models.better]
backend = "scripted"
[models.better.script]
lines = [{ answer = "PROCEED", p = 0.75 }]
"""
    it = bench(tmp_path, alone + higher)
    state = it.run()
    opinion = it.file(1)["second_opinion"]
    assert (opinion["lane"], opinion["said"], opinion["p_proceed"]) == ("high", "PROCEED", 0.75)
    assert state.steps[0].standing is Standing.WAITING


def test_a_private_second_opinion_does_not_leave_the_machine(tmp_path: Path) -> None:
    doubts = '{ kind = "pipeline_judgement", answer = "INVESTIGATE", p = 0.9 }'
    cloud = """
[lanes.high]
tier = "high"
model = "cloud"
[models.cloud]
backend = "scripted"
provider = "far"
[providers.far]
backend = "openai"
"""
    alone = two(doubts).replace('speciality = "math"', "") + cloud
    it = bench(tmp_path, alone, lambda data: data.update(privacy="high"))
    assert it.run().steps[0].why[-1] == "nobody else is here for a second opinion"


def test_nobody_else_is_said_to_be_nobody(tmp_path: Path) -> None:
    doubts = '{ kind = "pipeline_judgement", answer = "INVESTIGATE", p = 0.9 }'
    it = bench(tmp_path, two(doubts).replace('speciality = "math"', ""))
    state = it.run()
    assert it.file(1)["second_opinion"] is None
    assert state.steps[0].why[-1] == "nobody else is here for a second opinion"


def test_a_phrase_that_asks_for_a_person_stops_a_sure_step(tmp_path: Path) -> None:
    asks = '{ contains = "Reasoning:", answer = "The figures disagree. UNCERTAIN_RESULT" }'
    it = bench(tmp_path, two(math=[asks]))
    state = it.run()
    assert state.steps[0].gate == "person"
    assert state.steps[0].why == ("an answer says UNCERTAIN_RESULT",)
    metadata = it.file(1)["agent_metadata"]
    assert metadata["llm_metadata"]["human_override_requested"] is True
    assert metadata["confidence"] == 0.9


def test_specialists_who_disagree_ask_a_person(tmp_path: Path) -> None:
    doubts = '{ kind = "pipeline_judgement", contains = "2 of 2", answer = "REVIEW", p = 0.6 }'
    it = bench(tmp_path, two(math=[doubts]), lambda d: d["steps"][0].update(specialist="both"))
    it.run()
    metadata = it.file(1)["agent_metadata"]
    assert metadata["llm_metadata"]["llm_decision"] == "specialists_disagree"
    assert metadata["confidence"] == pytest.approx((0.9 + 0.2) / 2)


def test_a_missed_criterion_is_tried_again_with_what_the_plan_says(tmp_path: Path) -> None:
    mends = (
        '{ contains = "again, as it missed", answer = \'{"steps": ["a lower rate"], "parameters": '
        '{"match_rate": 0.8}, "expected_outputs": []}\' }'
    )

    def strict(data: Any) -> None:
        data["steps"][0]["parameters"]["match_rate"] = 1.0
        data["steps"][0]["bounds"] = {"match_rate": [0.6, 1]}

    it = bench(tmp_path, two(mends), strict)
    state = it.run()
    found = it.file(1)
    assert found["parameters"]["match_rate"] == 0.8
    assert found["agent_metadata"]["retry_count"] == 1
    assert found["agent_metadata"]["success_criteria_met"] is True
    assert state.steps[0].standing is Standing.DONE


def test_what_is_missed_after_all_retries_waits_for_a_person(tmp_path: Path) -> None:
    def hopeless(data: Any) -> None:
        data["steps"][0]["success"]["survivors"] = {"at_most": 3}
        data["steps"][0]["retries"] = 2

    it = bench(tmp_path, change=hopeless)
    state = it.run()
    metadata = it.file(1)["agent_metadata"]
    assert (metadata["retry_count"], metadata["success_criteria_met"]) == (2, False)
    assert state.steps[0].why[0] == "survivors 256 above 3"
    assert state.steps[0].standing is Standing.WAITING


def test_suggested_parameters_reach_the_next_step(tmp_path: Path) -> None:
    says = (
        '{ contains = "Task: score every survivor", answer = \'{"steps": ["score"], "parameters": '
        '{"threshold": 0.6}, "expected_outputs": ["scored_survivors.json"]}\' }'
    )
    it = bench(tmp_path, two(says))
    it.run()
    assert it.file(2)["agent_metadata"]["suggested_params"] == {"threshold": 0.6}
    assert it.file(3)["figures"]["threshold"] == 0.6
