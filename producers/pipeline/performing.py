"""One step: computed by code, reasoned about and judged by the specialists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.catalog import Catalog
from producers.pipeline import confidence
from producers.pipeline.caller import Ask, Caller, Heard
from producers.pipeline.confidence import Gate, Mark, p_proceed, score_of
from producers.pipeline.inputs import Inputs
from producers.pipeline.plan import PipelineConfig, StepConfig, strict_json
from producers.pipeline.questions import Questions, is_right, missed_in_words
from producers.pipeline.steps import Role
from producers.pipeline.work import Done, Parameters, Work
from routing.policy import may_see
from routing.review import review_phrases


@dataclass(frozen=True)
class Computed:
    """What the code found, with which parameters, after how many retries; ``missed`` criteria."""

    done: Done
    parameters: Parameters
    retries: int
    missed: tuple[str, ...]


@dataclass(frozen=True)
class Considered:
    """What the specialists said to it; ``plan`` is for the next step, after the last there is
    none."""

    thought: Heard
    calculations: tuple[dict[str, Any], ...]
    plan: Mapping[str, Any] | None
    suggested: Mapping[str, float]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Performed:
    """A step that was performed, and what follows from it; ``why`` is for the person."""

    computed: Computed
    considered: Considered
    judges: tuple[Heard, ...]
    opinion: Heard | None
    confidence: float
    gate: Gate
    why: tuple[str, ...]
    decision: str


class Performer:
    """Performs one step of a pipeline; everything that is asked is in the caller's books."""

    def __init__(
        self, config: PipelineConfig, one: StepConfig, catalog: Catalog, caller: Caller
    ) -> None:
        self._config, self._one, self._catalog, self._caller = config, one, catalog, caller
        self._asks = Questions(one, config.seed)

    def perform(self, inputs: Inputs) -> Performed:
        """Compute, again where criteria are missed; have it thought about, planned on and judged.

        Raises:
            StepError: its code cannot go on with what it was given.
        """
        computed = self._compute(inputs)
        considered = self._consider(computed)
        figures = computed.done.figures
        judges = tuple(self._caller.gather(self._judges(figures)))
        sure = confidence.confidence(judges, considered.marks)
        phrases = self._phrases()
        after = confidence.gate(
            sure, self._config.thresholds, met=not computed.missed, person_wanted=bool(phrases)
        )
        opinion = self._second_opinion(figures) if after is Gate.INVESTIGATE else None
        why = (
            *computed.missed,
            *(f"an answer says {phrase}" for phrase in phrases),
            *self._doubts(sure, after, considered.marks, judges, opinion),
        )
        decision = confidence.decision_of(judges, after)
        return Performed(computed, considered, judges, opinion, sure, after, why, decision)

    def _compute(self, inputs: Inputs) -> Computed:
        one, retries = self._one, 0
        most = self._config.retries if one.retries is None else one.retries
        changed = one.takes(inputs.suggested)
        while True:
            parameters = one.read(changed)
            work = Work(
                inputs.data, self._config.holdout, self._config.seed + retries, inputs.earlier,
                one.name,
            )  # fmt: skip
            done = one.step.code(work, parameters)
            missed = tuple(missed_in_words(one.success, done.figures))
            if not missed or retries == most:
                return Computed(done, parameters, retries, missed)
            retries += 1
            changed = {**changed, **self._mend(retries, done, missed)}

    def _mend(self, retry: int, done: Done, missed: tuple[str, ...]) -> dict[str, float]:
        """Parameters for another try, as the orchestrator plans it."""
        if not self._one.bounds:
            return {}
        task = f"try {self._one.name} again, as it missed {', '.join(missed)}"
        ask = self._asks.plan(f"mend{retry}", self._one, done.figures, task)
        plan = _plan_of(self._caller.gather([ask])[0])
        return self._one.takes(plan.get("parameters"))

    def _consider(self, computed: Computed) -> Considered:
        """Ask what the figures mean, the calculations, and the next step's plan, together."""
        done, following = computed.done, self._config.after(self._one)
        asks = [self._asks.think(done.figures)]
        asks += [self._asks.calculate(n, c) for n, c in enumerate(done.calculations, 1)]
        if following is not None:
            asks.append(self._asks.plan("plan", following, done.figures, following.step.purpose))
        thought, *rest = self._caller.gather(asks)
        sums = [
            _compared(heard, calculation.question, calculation.exact)
            for heard, calculation in zip(rest, done.calculations, strict=False)
        ]
        marks = [Mark("reasoning", score_of(thought))]
        marks += [Mark(f"calculation {n}", float(one["right"])) for n, one in enumerate(sums, 1)]
        plan, suggested = None, dict[str, float]()
        if following is not None:
            plan = _plan_of(rest[-1])
            suggested = following.takes(plan.get("parameters"))
            marks.append(Mark("plan", score_of(rest[-1])))
        marks += [
            Mark(f"criterion {name}", float(criterion.met(done.figures[name])))
            for name, criterion in self._one.success.items()
        ]
        return Considered(thought, tuple(sums), plan, suggested, tuple(marks))

    def _judges(self, figures: Mapping[str, float]) -> list[Ask]:
        """One question for each specialist of the step; one in all where they are the same."""
        roles = self._one.assigned.roles
        if self._caller.roster.alone:
            roles = roles[:1]
        return [self._asks.judge(f"judge.{role.value}", role, figures) for role in roles]

    def _second_opinion(self, figures: Mapping[str, float]) -> Heard | None:
        """What somebody says to it who has not judged it: the other specialist, else the best
        other tier; ``None`` where there is neither."""
        judged = self._one.assigned.roles
        roster = self._caller.roster
        others = [role for role in Role if role not in judged and not roster.alone]
        tier = None if others else self._other_tier()
        if not others and tier is None:
            return None
        role = others[0] if others else judged[0]
        return self._caller.gather(
            [self._asks.judge("second opinion", role, figures, force_tier=tier)]
        )[0]

    def _other_tier(self) -> str | None:
        """The highest tier with a lane that may see the figures and is not the step's own."""
        catalog, privacy = self._catalog, self._config.privacy
        own = catalog.lanes[self._caller.roster.desks[self._one.assigned.roles[0]].lane].tier
        able = {lane.tier for name, lane in catalog.lanes.items()
                if may_see(name, catalog, privacy)}  # fmt: skip
        return max(able - {own}, key=lambda tier: catalog.tiers[tier].rank, default=None)

    def _phrases(self) -> list[str]:
        texts = (call.raw for _, _, call in self._caller.calls())
        return sorted({phrase for text in texts for phrase in review_phrases(text)})

    def _doubts(
        self,
        sure: float,
        after: Gate,
        marks: tuple[Mark, ...],
        judges: tuple[Heard, ...],
        opinion: Heard | None,
    ) -> list[str]:
        """Why the confidence is not higher, for the person who is asked."""
        if after is Gate.PROCEED:
            return []
        doubts = []
        if sure < self._config.thresholds.proceed:
            doubts.append(f"confidence {sure:.2f} is below {self._config.thresholds.proceed:g}")
            doubts += [f"{mark.name} has {mark.value:.2f}" for mark in marks if mark.value < 1]
            doubts += [_opinion("judge", one) for one in judges]
        if opinion is not None:
            doubts.append(_opinion("second opinion", opinion))
        elif after is Gate.INVESTIGATE:
            doubts.append("nobody else is here for a second opinion")
        return doubts


def _opinion(name: str, heard: Heard) -> str:
    said = heard.answer or "nothing"
    return f"{name} on {heard.settled.lane}: {said}, {p_proceed(heard):.2f} for PROCEED"


def _plan_of(heard: Heard) -> dict[str, Any]:
    """A plan as JSON; empty where there is none, or none that a file could hold: the best answer
    that was had need not be one that passed."""
    try:
        found = strict_json(heard.answer)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _compared(heard: Heard, question: str, exact: float) -> dict[str, Any]:
    said = _plan_of(heard).get("value")
    return {"question": question, "exact": exact, "said": said, "right": is_right(said, exact)}
