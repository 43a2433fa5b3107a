"""A pipeline's life over a real ledger: gates, retries, second opinions, resumption, refusals."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError, StackError
from ledger import lifecycle, outbox
from ledger.clock import now
from ledger.records import Planned
from ledger.workers import Life, announce
from producers.pipeline.beginning import alone_in, check_inputs, config_hash, found_state
from producers.pipeline.plan import Loaded, load_config
from producers.pipeline.runner import Runner
from producers.pipeline.state import Condition, PipelineState, Standing, StepState, new_state
from producers.pipeline.work import StepError
from routing.decision import Decision, Settled, Status
from routing.policy import plan
from tests.unit.house import House
from tests.unit.ledgers import rows
from tests.unit.pipeline_draws import CONFIG, DRAWS

SECOND = 1_000_000
THOUGHT = '{ contains = "Reasoning:", answer = "They agree, so the next step can rely on them." }'
PLAN = (
    '{ contains = "Plan:", answer = \'{"steps": ["go on"], "parameters": {}, '
    '"expected_outputs": []}\' }'
)
SUMS = """
  { contains = "degrees of freedom does", answer = '{"value": 7}' },
  { contains = "expected in each class", answer = '{"value": 40.1}' },
  { contains = "How many trials", answer = '{"value": 8}' },
  { contains = "survivors passed", answer = '{"value": 0.125}' },
  { contains = "rows are trained on", answer = '{"value": 179}' },
  { contains = "predictions were right", answer = '{"value": 0.9}' },
"""
SURE = '{ kind = "pipeline_judgement", answer = "PROCEED", p = 0.9 }'


def two(*lines: str, math: Sequence[str] = ()) -> str:
    """Both specialists with a script each, its own lines first; both judges are sure."""
    common = f"{SURE},\n{THOUGHT},\n{PLAN},\n{SUMS}"
    return f"""
[kinds.pipeline_judgement]
tier = "low"
[lanes.low]
tier = "low"
model = "general"
[lanes."low.math"]
tier = "low"
model = "math"
speciality = "math"
[models.general]
backend = "scripted"
[models.general.script]
lines = [
  {"".join(line + "," for line in lines)}
  {common}
]
[models.math]
backend = "scripted"
[models.math.script]
lines = [
  {"".join(line + "," for line in (math or lines))}
  {common}
]
"""


class Asker:
    """A client's ``gather`` over a house, without a broker; ``dies_at`` raises at one question."""

    def __init__(self, house: House, dies_at: str = "") -> None:
        self.house, self.dies_at = house, dies_at

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        house = self.house
        planned = [Planned(d, plan(d, house.settings.catalog, ())) for d in decisions]
        submission = lifecycle.submit(house.engine, house.run, planned, now())
        outbox.publish(house.engine, submission.messages, house.waiting.append)
        house.work()
        if any(self.dies_at and self.dies_at in d.key for d in decisions):
            raise StackError("the power went")
        found = {s.id: s for s in lifecycle.find_settled(house.engine, submission.ids)}
        return [found[id] for id in submission.ids]


class Bench:
    """A pipeline on a house, with its clock, config and work directory."""

    def __init__(self, folder: Path, profile: str, change: Callable[[Any], None]) -> None:
        folder.mkdir(exist_ok=True)
        self.house = House(folder, profile)
        self.workdir = folder / "work"
        self.workdir.mkdir()
        data = tomllib.loads(CONFIG.read_text())
        change(data)
        self.config = folder / "pipeline.json"
        self.config.write_text(json.dumps(data))
        (folder / "draws.json").write_bytes(DRAWS.read_bytes())
        self.asker = Asker(self.house)
        self.told: list[tuple[int, str]] = []
        self.lanes("low", "low.math")

    def lanes(self, *lanes: str) -> None:
        """Workers that serve these lanes now."""
        for lane in lanes:
            announce(self.house.engine, Life(lane, lane, lane), "ready")

    @property
    def loaded(self) -> Loaded:
        return load_config(self.config)

    def state(self, begin_from: int | None = None, resume: bool = False) -> PipelineState:
        found = found_state(
            self.loaded, self.workdir, "house", begin_from=begin_from, resume=resume
        )
        if found is None:
            found = new_state(self.loaded, self.house.run, "house", config_hash(self.loaded))
        check_inputs(self.loaded, self.workdir, found)
        return found

    def run(self, state: PipelineState | None = None) -> PipelineState:
        def tell(step: StepState, word: str) -> None:
            self.told.append((step.number, word))

        catalog = self.house.settings.catalog
        return Runner(
            self.loaded, self.workdir, state or self.state(), asker=self.asker,
            engine=self.house.engine, catalog=catalog, absent=(),
            clock=lambda: 1_764_599_422 * SECOND if state is None else now(), tell=tell,
        ).run()  # fmt: skip

    def file(self, number: int) -> Any:
        return json.loads((self.workdir / self.loaded.config.steps[number - 1].file).read_text())

    def asked(self) -> list[str]:
        return [row["key"] for row in rows(self.house.engine, "decision")]


def bench(
    folder: Path, profile: str = "", change: Callable[[Any], None] = lambda data: None
) -> Bench:
    return Bench(folder, profile or two(), change)


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
