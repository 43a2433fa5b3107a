"""Does what was decided, says what came of it, and finds out what did where a daemon ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ledger import approvals, memories, swarm
from ledger.approvals import Proposal, Standing
from ledger.patience import patiently
from ledger.runs import RunInfo
from ledger.swarm import Outcome, State, Step
from producers.asking import Asker
from producers.swarm.actions import ACTIONS
from producers.swarm.house import House
from producers.swarm.memory import topic_of
from producers.swarm.questions import OBJECTIVE_CHARS, Order, Questions
from producers.swarm.sandbox import Directory, Refused
from producers.swarm.state import NOTE_CHARS, Effect, Known, headline, shortened
from producers.swarm.tools import Result, Tools, bounded, edit_outcome
from routing.decision import Decision, Settled, Status

CHECKED = (Status.ACCEPTED, Status.CACHED, Status.REPLAYED)
"""Settlements whose answer passed the quality check."""
CUT_SHORT = "the daemon ended in the midst of it; whether it took effect is not known"

Child = Callable[[str], str]


@dataclass(frozen=True)
class Doing:
    """The hands of one daemon. ``child`` has another one work on an objective."""

    order: Order
    run: RunInfo
    asker: Asker
    house: House
    questions: Questions
    directory: Directory
    child: Child

    @classmethod
    def of(cls, order: Order, run: RunInfo, asker: Asker, house: House, child: Child) -> Doing:
        """Raises: InputError: the directory cannot be used."""
        rules = house.catalog.swarm
        directory = Directory(Path(order.workdir), file_bytes=rules.file_bytes, files=rules.files)
        return cls(order, run, asker, house, Questions(house.catalog, order), directory, child)

    def ask(self, decision: Decision) -> Settled:
        """Have one decision settled."""
        return self.asker.gather([decision])[0]

    def known(self) -> Known:
        """What the ledger holds of this run, and the memories of all."""
        engine = self.house.engine
        waiting = patiently(
            approvals.approvals, engine, run_id=self.run.id, states=(Standing.PENDING,)
        )
        return Known(
            patiently(swarm.steps, engine, self.run.id),
            patiently(memories.topics, engine, leaving=not self.questions.private),
            {one.id: one.action for one in waiting},
        )  # fmt: skip

    def carry_out(self, step: Step) -> Step:
        """Do what an intent says, and write what came of it."""
        known = self.known()
        tools = self.tools(known, step.iteration)
        try:
            result = ACTIONS[step.action].carry_out(tools, step.arguments, step.evidence)
        except (Refused, OSError) as error:
            result = Result(str(error), State.FAILED)
        result = bounded(result, tools.rules.output_chars)
        note = shortened(result.text, NOTE_CHARS)
        outcome = Outcome(result.state, result.text, note, result.memory)
        # Before it is put into words: a crash meanwhile must not have it done again.
        patiently(swarm.finish, self.house.engine, step.id, outcome, self.house.clock())
        done = replace(step, state=result.state, output=result.text, note=note)
        if len(result.text) >= tools.rules.note_from_chars:
            done = self._noted(done, known)
        self.house.watch.on_step(done)
        return done

    def settle_intents(self, denied: Callable[[Step], str | None]) -> None:
        """Find out what became of actions in whose midst the daemon ended.

        What leaves nothing behind but its outcome in the ledger is done again, and so is an edit
        whose file is as it was before, unless it is ``denied`` by now. Of anything else nobody
        knows, and it is not repeated.
        """
        for step in self.known().steps:
            if step.state is not State.INTENT:
                continue
            made: bool | None = None if step.effect == Effect.CHANGES else False
            if step.action == "edit_file":
                made = edit_outcome(self.directory, step.arguments, step.evidence)
            why = denied(step) if made is False else None
            if why is not None:
                self._deny(step, why)
                continue
            if made is False:
                self.carry_out(step)
                continue
            state = State.DONE if made else State.UNKNOWN
            note = "done, as the file shows" if made else CUT_SHORT
            outcome = Outcome(state, note, note)
            patiently(swarm.finish, self.house.engine, step.id, outcome, self.house.clock())
            self.house.watch.on_step(replace(step, state=state, output=note, note=note))

    def _deny(self, step: Step, why: str) -> None:
        proposal = Proposal(self.run.id, step.iteration, step.action, step.arguments,
                            step.complexity, step.effect, step.evidence)  # fmt: skip
        note = f"denied: {why}"
        patiently(swarm.deny_begun, self.house.engine, step.id, proposal, why, self.house.clock())
        self.house.watch.on_step(replace(step, state=State.DENIED, note=note))

    def tools(self, known: Known, iteration: int) -> Tools:
        """What the actions of an iteration work with."""
        return Tools(
            directory=self.directory, catalog=self.house.catalog, engine=self.house.engine,
            run_id=self.run.id, think=partial(self._think, known, iteration),
            classify=partial(self._classify, iteration), child=self.child,
            status=partial(self.status, known), private=self.questions.private,
            last_output=known.last_output,
        )  # fmt: skip

    def status(self, known: Known) -> str:
        """How far it has come, in words."""
        counts = known.counts()["actions"]
        done = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        lines = [f"objective: {shortened(self.order.objective, OBJECTIVE_CHARS)}"]
        lines += [f"iteration {len(known.steps)} of {self.order.max_iterations}; actions: {done}"]
        lines += [headline(step) for step in known.steps[-self.house.catalog.swarm.history :]]
        lines += [f"waits for a person: {action}" for action in known.pending.values()]
        return "\n".join(lines)

    def _noted(self, step: Step, known: Known) -> Step:
        """The step with a sentence on its output, if one that passed its check can be had."""
        given = " ".join(str(value) for value in step.arguments.values())
        settled = self.ask(
            self.questions.note(known, step.iteration, step.action, given, step.output)
        )
        note = shortened(settled.answer, NOTE_CHARS)
        if settled.status not in CHECKED or not note:
            return step
        patiently(swarm.annotate, self.house.engine, step.id, note)
        return replace(step, note=note)

    def _think(self, known: Known, iteration: int, kind: str, task: str, material: str) -> str:
        settled = self.ask(self.questions.work(known, iteration, kind, task, material))
        if not settled.answer:
            raise Refused(f"no answer: {settled.reason or settled.status.value}")
        return settled.answer

    def _classify(self, iteration: int, content: str) -> str:
        settled = self.ask(self.questions.topic(iteration, content))
        return topic_of(self.house.catalog, settled)
