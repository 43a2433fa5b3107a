"""A daemon on a real ledger and a real directory, with answers that a test writes down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from config.catalog import Catalog
from config.load import load_catalog
from config.settings import Settings
from ledger.approvals import Approval, Standing, approvals
from ledger.approvals import decide as decide_approval
from ledger.clock import SECOND
from ledger.database import migrate, open_ledger
from ledger.runs import RunInfo, start_run
from ledger.swarm import MODE, Step, steps
from producers.swarm.daemon import Daemon, Ending
from producers.swarm.house import House, Watch
from producers.swarm.pace import Pace
from producers.swarm.questions import Order
from routing.decision import ChoiceOutput, Decision, JsonOutput, Settled, Status

Answer = Callable[[Decision], str | None]
START = 4_000_000_000 * SECOND
"""Later than any file of a test was changed."""


class Clock:
    """Time that passes only when somebody sleeps, and a microsecond with every look at it."""

    def __init__(self) -> None:
        self.now = START
        self.slept: list[float] = []

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += int(seconds * SECOND)


class Answers:
    """Settles decisions by their key, once, as the ledger does."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[Decision] = []
        self.settled: dict[str, Settled] = {}
        self.status = Status.ACCEPTED

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        return [self._settle(decision) for decision in decisions]

    def _settle(self, decision: Decision) -> Settled:
        if decision.key not in self.settled:
            self.asked.append(decision)
            said = self._answer(decision)
            status = self.status if said is not None else Status.FALLBACK
            self.settled[decision.key] = Settled(
                id=decision.key, key=decision.key, kind=decision.kind, status=status,
                answer=said if said is not None else decision.fallback or "",
            )  # fmt: skip
        return self.settled[decision.key]


class Ground:
    """A ledger, a directory and a run, in which daemons of one order come and go."""

    def __init__(self, folder: Path, answer: Answer, **more: Any) -> None:
        settings = Settings(data_dir=folder / "data")
        migrate(settings)
        self.engine = open_ledger(settings)
        self.root = folder / "work"
        self.root.mkdir()
        (self.root / "notes.md").write_text("first line\n")
        self.catalog: Catalog = more.pop("catalog", None) or swarm_catalog()
        self.order = Order("test", str(self.root), **{"max_iterations": 1} | more)
        self.run = self._run(self.order)
        self.answers = Answers(answer)
        self.clock = Clock()
        self.kill_file = folder / "kill"
        self.told: list[Step] = []

    def daemon(self, *, per_hour: int | None = None, waits: bool = False) -> Daemon:
        """A daemon of the run, as the next process would have it."""
        pace = Pace(per_hour, self.kill_file, self.clock, self.clock.sleep)
        watch = Watch(on_step=self.told.append)
        house = House(self.catalog, self.engine, self.clock, pace, self.hire, watch, waits)
        return Daemon(self.order, self.run, self.answers, house)

    def work(self, **how: Any) -> Ending:
        return self.daemon(**how).work()

    @contextmanager
    def hire(self, order: Order) -> Iterator[tuple[RunInfo, Answers]]:
        yield self._run(order, "daemon-child"), Answers(self.answers._answer)

    @property
    def steps(self) -> list[Step]:
        return steps(self.engine, self.run.id)

    def approvals(self, *states: Standing) -> list[Approval]:
        return approvals(self.engine, run_id=self.run.id, states=states or None)

    def _run(self, order: Order, mode: str = MODE) -> RunInfo:
        return start_run(self.engine, mode=mode, profile="test", now=START, config=order.config())


def swarm_catalog(**swarm: Any) -> Catalog:
    """The swarm's kinds and rules on made-up lanes; ``swarm`` replaces settings of the daemon."""
    own = load_catalog(str(Path(__file__).parents[1] / "daemon.toml"))
    return own.model_copy(update={"swarm": own.swarm.model_copy(update=swarm)})


def does(action: str, **given: Any) -> Answer:
    """Answers that choose one action, with these arguments, and a word for everything else."""

    def answer(decision: Decision) -> str | None:
        if decision.kind == "daemon_action":
            assert isinstance(decision.output, ChoiceOutput)
            return action if action in decision.output.labels else decision.output.labels[0]
        if isinstance(decision.output, JsonOutput):
            return json.dumps(given) if decision.kind == action else None
        if isinstance(decision.output, ChoiceOutput):
            return decision.output.labels[0]
        return "It says what it says."

    return answer


# What the tests of daemons share: a daemon that reads first, one that asks a person, and its end.

EDIT = {"path": "notes.md", "find": "first", "replace": "second"}
GROUNDS: list[Ground] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while GROUNDS:
        GROUNDS.pop().engine.dispose()


def ground(folder: Path, answer: Answer, **more: Any) -> Ground:
    GROUNDS.append(Ground(folder, answer, **more))
    return GROUNDS[-1]


def after_reading(then: Answer) -> Answer:
    """Reads the file first, since nothing is edited unseen."""

    def answer(decision: Decision) -> str | None:
        if decision.key.startswith("i00001"):
            return does("read_file", path="notes.md")(decision)
        return then(decision)

    return answer


def exec_ground(folder: Path, **more: Any) -> Ground:
    return ground(folder, does("exec", argv=["touch", "touched"]), **more)


def decide(here: Ground, *, approve: bool) -> str:
    [request] = here.approvals(Standing.PENDING)
    decide_approval(here.engine, request.id, approve=approve, note="so", now=here.clock())
    return request.id


class Killed(BaseException):
    """The process ends here; nothing after it happens."""


def killed() -> Any:
    raise Killed


def cut(monkeypatch: pytest.MonkeyPatch, here: Ground, module: Any, name: str) -> None:
    """Let a daemon work until that function is called."""

    def dies(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dies)
        with pytest.raises(Killed):
            here.work()
