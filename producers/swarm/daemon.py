"""The daemon's loop: an iteration chooses an action, has it ruled on, does it and notes it.

What an iteration has decided comes back from the ledger under its keys, and what it does is written
before and after; so a daemon that was stopped anywhere goes on without doing anything twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from config.swarm import Verdict
from ledger import approvals, swarm
from ledger.approvals import Approval, Proposal, Standing
from ledger.patience import patiently
from ledger.runs import RunInfo
from ledger.swarm import State, Step
from producers.asking import Asker
from producers.swarm.actions import ACTIONS, Action, Sight, allowed_actions
from producers.swarm.doing import CHECKED, Doing
from producers.swarm.governor import Ruling, rule
from producers.swarm.house import House
from producers.swarm.questions import Order, read_arguments
from producers.swarm.sandbox import Refused
from producers.swarm.state import Effect, Known, shortened
from producers.swarm.tools import Prepared
from routing.structured import check_json

AGAIN = "it was begun before, and nobody knows whether it took effect"
NOBODY = "a daemon that a daemon started asks nobody"


class Ending(StrEnum):
    """Why a daemon stopped."""

    DONE = "all iterations are done"
    NOTHING_LEFT = "nothing is left that the daemon may do and has not done"
    KILLED = "the kill file is there"


@dataclass(frozen=True)
class _Chosen:
    """An action with its class, and whether the answers behind it passed their check."""

    action: Action
    complexity: str
    checked: bool


class Daemon:
    """One run of one daemon.

    Raises:
        InputError: the directory or one of the actions cannot be used.
        ConfigurationError: the governor's rules name what there is not.
    """

    def __init__(
        self,
        order: Order,
        run: RunInfo,
        asker: Asker,
        house: House,
        *,
        is_child: bool = False,
        beside: Sequence[int] = (),
    ) -> None:
        """``beside`` are the starts of others' iterations, which count in the rate."""
        self._order = order
        self._run = run
        self._house = house
        self._is_child = is_child
        self._beside = list(beside)
        self._actions = allowed_actions(house.catalog, order.actions)
        self._doing = Doing.of(order, run, asker, house, self._child)
        self._questions = self._doing.questions

    def work(self) -> Ending:
        """Go on until the iterations are done, nothing is left to do, or the kill file comes."""
        pace = self._house.pace
        if pace.killed():
            return Ending.KILLED
        self._doing.settle_intents(self._denied)
        while True:
            known, approval = self._doing.known(), self._next_approved()
            if approval is None and known.iteration > self._order.max_iterations:
                return Ending.DONE
            if not pace.wait([*self._beside, *(step.created_at for step in known.steps)]):
                return Ending.KILLED
            step = self._approved(approval, known) if approval else self._iterate(known)
            if step is None and approval is None:
                return Ending.NOTHING_LEFT
            self._house.watch.after_step()
            if self._house.waits and step is not None and step.state is State.WAITING:
                self._wait_for_a_person(step)

    def starts(self) -> list[int]:
        """When its iterations started, in microseconds since 1970."""
        return [step.created_at for step in self._doing.known().steps]

    def report(self) -> str:
        """How far it has come, in words."""
        return self._doing.status(self._doing.known())

    def _iterate(self, known: Known) -> Step | None:
        """One iteration; ``None`` if nothing can be done any more."""
        sight = self._sight(known)
        offered = [action for action in self._actions if action.is_offered(sight)]
        if not offered:
            return None
        chosen = self._choose(sight, offered)
        try:
            given, sure = self._arguments(sight, chosen.action)
            tools = self._doing.tools(known, known.iteration)
            prepared = chosen.action.prepare(tools, given)
        except Refused as error:
            proposal = self._proposal(known, chosen, Prepared({}))
            step = patiently(
                swarm.pass_over, self._house.engine, proposal, str(error), self._house.clock()
            )
            self._house.watch.on_step(step)
            return step
        chosen = replace(chosen, checked=chosen.checked and sure)
        return self._begin(known, chosen, prepared)

    def _begin(self, known: Known, chosen: _Chosen, prepared: Prepared) -> Step:
        """Have it ruled on, write that down, and do it if that is allowed."""
        ruling = self._ruling(known, chosen.action, prepared.arguments, chosen.checked)
        if ruling.verdict is Verdict.ALLOW and known.is_unknown(
            chosen.action.name, prepared.arguments
        ):
            ruling = Ruling(Verdict.ESCALATE, AGAIN)
        proposal = self._proposal(known, chosen, prepared)
        if ruling.verdict is Verdict.ESCALATE:
            ruling = self._put_to_a_person(proposal, ruling)
        step = patiently(
            swarm.begin, self._house.engine, proposal, ruling.verdict, ruling.reason,
            self._house.catalog.swarm.governor.approval_ttl_s, self._house.clock(),
        )  # fmt: skip
        if step.state is State.INTENT:
            return self._doing.carry_out(step)
        self._house.watch.on_step(step)
        return step

    def _put_to_a_person(self, proposal: Proposal, ruling: Ruling) -> Ruling:
        """The ruling, unless there is nobody to ask, or somebody has said no already."""
        if self._is_child:
            return Ruling(Verdict.DENY, f"{NOBODY}: {ruling.reason}")
        rejected = patiently(approvals.rejection, self._house.engine, proposal)
        if rejected is not None:
            return Ruling(Verdict.DENY, f"a person rejected it before {rejected}".rstrip())
        return ruling

    def _approved(self, approval: Approval, known: Known) -> Step | None:
        """Do what a person has approved, once, and just as it was approved."""
        action, now = ACTIONS[approval.action], self._house.clock()
        ruling = self._ruling(known, action, approval.arguments, checked=True)
        if ruling.verdict is Verdict.DENY:
            patiently(swarm.deny_approved, self._house.engine, approval, ruling.reason, now)
            return None
        chosen = _Chosen(action, self._questions.complexity(known, action.name), True)
        proposal = self._proposal(known, chosen, Prepared(approval.arguments, approval.evidence))
        step = patiently(swarm.begin_approved, self._house.engine, approval, proposal, now)
        return None if step is None else self._doing.carry_out(step)

    def _choose(self, sight: Sight, offered: list[Action]) -> _Chosen:
        """The next action."""
        action, checked = offered[0], True
        if len(offered) > 1:
            settled = self._doing.ask(self._questions.action(sight, offered))
            # No answer, or one from before the offer changed: the first, as not checked.
            named = [one for one in offered if one.name == settled.answer]
            action = named[0] if named else offered[0]
            checked = bool(named) and settled.status in CHECKED
        return _Chosen(action, self._questions.complexity(sight.known, action.name), checked)

    def _arguments(self, sight: Sight, action: Action) -> tuple[dict[str, Any], bool]:
        """The action's arguments, and whether the answer that gave them passed its check.

        Raises:
            Refused: no usable arguments were given.
        """
        schema = None if action.schema is None else action.schema(sight)
        if schema is None:
            return {}, True
        only = the_only_choice(schema)
        if only is not None:
            return only, True
        settled = self._doing.ask(self._questions.arguments(sight, action, schema))
        found = check_json(settled.answer, truncated=False, schema=schema)
        if found.vetoes or not found.format:
            why = "; ".join((*found.vetoes, *found.issues)) or settled.reason
            raise Refused(f"no usable arguments were given: {shortened(why, 200)}")
        try:
            return read_arguments(found.answer), settled.status in CHECKED
        except ValueError as error:
            raise Refused(f"no usable arguments were given: {error}") from None

    def _ruling(
        self, known: Known, action: Action, given: Mapping[str, Any], checked: bool
    ) -> Ruling:
        tools = self._doing.tools(known, known.iteration)
        return rule(
            self._house.catalog.swarm.governor, action.name, given,
            command=action.words(tools, given),
            checked=checked or action.effect is not Effect.CHANGES,
        )  # fmt: skip

    def _denied(self, step: Step) -> str | None:
        """Why something that was begun may not be done any more; ``None`` if it may."""
        known, action = self._doing.known(), ACTIONS[step.action]
        ruling = self._ruling(known, action, step.arguments, checked=True)
        return ruling.reason if ruling.verdict is Verdict.DENY else None

    def _proposal(self, known: Known, chosen: _Chosen, prepared: Prepared) -> Proposal:
        action = chosen.action
        return Proposal(
            run_id=self._run.id, iteration=known.iteration, action=action.name,
            arguments=prepared.arguments, complexity=chosen.complexity,
            effect=action.effect.value, evidence=prepared.evidence,
        )  # fmt: skip

    def _sight(self, known: Known) -> Sight:
        files, most = self._doing.directory.files(), self._house.catalog.swarm.context_chars
        return Sight(
            self._house.catalog, known, {one.path: one.changed_at for one in files},
            self._doing.directory.folders(files),
            frozenset(one.path for one in files if one.size > most), self._is_child,
        )  # fmt: skip

    def _next_approved(self) -> Approval | None:
        engine = self._house.engine
        patiently(approvals.expire, engine, self._house.clock())
        found = patiently(
            approvals.approvals, engine, run_id=self._run.id, states=(Standing.APPROVED,)
        )
        return found[0] if found else None

    def _wait_for_a_person(self, step: Step) -> None:
        """Sleep until somebody has seen to it, its time is over, or the kill file comes."""
        id, engine = str(step.approval_id), self._house.engine
        self._house.watch.say(f"waiting: `uptier approvals approve {id}`, or `reject {id}`")

        def seen_to() -> bool:
            patiently(approvals.expire, engine, self._house.clock())
            return patiently(approvals.find_approval, engine, id).state is not Standing.PENDING

        self._house.pace.wait_until(seen_to)

    def _child(self, objective: str) -> str:
        """Have a daemon of its own work on an objective; its report."""
        most = self._house.catalog.swarm.child_iterations
        order = replace(self._order, objective=objective, max_iterations=most)
        with self._house.hire(order) as (run, asker):
            beside = [*self._beside, *self.starts()]
            child = Daemon(order, run, asker, self._house, is_child=True, beside=beside)
            ending = child.work()
            self._beside += child.starts()
            return f"{ending.value}; {child.report()}"


def the_only_choice(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments, where their schema leaves no choice."""
    options = {name: part.get("enum", ()) for name, part in schema["properties"].items()}
    if all(len(values) == 1 for values in options.values()):
        return {name: values[0] for name, values in options.items()}
    return None
