"""A pipeline on a real ledger, with specialists whose answers a test writes down."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from config.errors import StackError
from ledger import lifecycle, outbox
from ledger.clock import now
from ledger.records import Planned
from ledger.workers import Life, announce
from producers.pipeline.beginning import check_inputs, config_hash, found_state
from producers.pipeline.plan import Loaded, load_config
from producers.pipeline.runner import Runner
from producers.pipeline.state import PipelineState, StepState, new_state
from routing.decision import Decision, Settled
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
