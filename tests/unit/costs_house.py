"""A house with a paid lane on top, and a run in which everything happens that costs are made of."""

from __future__ import annotations

from pathlib import Path

from config.catalog import Catalog
from config.load import load_catalog
from ledger.clock import now
from ledger.runs import RunInfo, find_run, start_run
from routing.classification import CLASSIFICATION_KIND
from routing.decision import ChoiceOutput, TextOutput
from tests.unit.house import House

AB = ChoiceOutput(labels=("A", "B"))
PROFILE = """
[lanes.tier1]
tier = "low"
model = "fast"
consensus = { members = ["tier1.two"], agree = 1.0, kinds = ["voted"] }
[lanes."tier1.two"]
tier = "low"
model = "second"
speciality = "other"
[lanes.tier3]
tier = "high"
model = "cloud"
[models.fast]
backend = "scripted"
[[models.fast.script.lines]]
contains = "hard"
answer = "A"
p = 0.51
[[models.fast.script.lines]]
contains = "broken"
fail = "out of order"
retryable = false
[[models.fast.script.lines]]
kind = "self_critique"
contains = "doubtful"
answer = "no"
[[models.fast.script.lines]]
kind = "self_critique"
answer = "yes"
[models.second]
backend = "scripted"
[models.cloud]
backend = "scripted"
price = { input = "0.25", output = "1.25" }
[[models.cloud.script.lines]]
contains = "cloud is out"
fail = "out of order"
retryable = false
[kinds.easy]
tier = "low"
output = "choice"
labels = ["A", "B"]
cache = true
[kinds.audited]
tier = "low"
output = "choice"
labels = ["A", "B"]
audit_share = 1
[kinds.routed]
tier = "high"
output = "choice"
labels = ["A", "B"]
[kinds.note]
tier = "low"
output = "text"
critique = true
[kinds.voted]
tier = "low"
output = "choice"
labels = ["A", "B"]
[kinds.self_critique]
tier = "low"
output = "choice"
labels = ["yes", "no"]
[cloud_budget]
per_run_usd = "10"
"""


class CostsHouse(House):
    """Its run is of its own profile, so that its lanes are known."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, PROFILE)
        path = Path(self.settings.profile)
        path.write_text(f'reference_model = "cloud"\n{path.read_text()}')
        self.run = self.start()

    def start(self) -> str:
        """Begin another run; what is asked from now on belongs to it."""
        made = start_run(self.engine, mode="test", profile=self.settings.profile, now=now())
        self.run = made.id
        return made.id

    @property
    def catalog(self) -> Catalog:
        """The profile as it lies on the disk."""
        return load_catalog(self.settings.profile)

    @property
    def info(self) -> RunInfo:
        """The run as reports want it."""
        found = find_run(self.engine, self.run)
        assert found is not None
        return found

    def live(self) -> None:
        """A little of everything: accepted, cached, climbed, routed, failed, and all roles."""
        for number in range(4):
            self.ask("easy", f"easy {number}", AB)
        self.ask("easy", "easy 0", AB, key="again")
        for number in range(3):
            self.ask("easy", f"hard {number}", AB)
        self.ask("easy", "hard and the cloud is out", AB)
        self.ask("easy", "broken", AB)
        for number in range(2):
            self.ask("routed", f"routed {number}", AB)
        self.ask("note", "note it", TextOutput())
        self.ask("note", "note something doubtful", TextOutput())
        self.ask("voted", "vote", AB)
        self.ask("audited", "audit me", AB)
        self.ask(CLASSIFICATION_KIND, "what is this", TextOutput())
