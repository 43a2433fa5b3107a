"""A Mesa model is driven tick by tick: its agents ask, take their answers, and then it steps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from config.errors import InputError
from producers.mesa import MesaSteps
from producers.stepping import run_freely, run_in_step
from routing.decision import ChoiceOutput, Decision, Settled, Status

mesa = pytest.importorskip("mesa")
LABELS = ChoiceOutput(labels=("STAY", "GO"))


def build(seed: int = 1, *, until: int = 99) -> object:
    class Walker(mesa.Agent):  # type: ignore[misc,name-defined]
        def __init__(self, model: object) -> None:
            super().__init__(model)
            self.place = self.random.randint(0, 3)
            self.seen: list[int] = []

        def decision(self, key: str) -> Decision | None:
            if self.place == 0:
                return None
            return Decision(kind="next_action", prompt=f"At {self.place}. What next?",
                            output=LABELS, key=key)  # fmt: skip

        def decided(self, settled: Settled) -> None:
            self.place -= settled.answer == "GO"
            self.seen.append(self.model.steps)

    class Tree(mesa.Agent):  # type: ignore[misc,name-defined]
        pass

    class Wood(mesa.Model):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__(seed=seed)
            Walker.create_agents(self, 4)
            Tree.create_agents(self, 2)

        def step(self) -> None:
            self.running = self.steps < until

    return Wood()


class Goes:
    """Answers GO, always."""

    def submit(self, decisions: Sequence[Decision]) -> list[str]:
        self.keys = [decision.key for decision in decisions]
        return self.keys

    def wait_some(self, ids: Sequence[str]) -> list[Settled]:
        return [Settled(id=i, key=i, kind="next_action", status=Status.ACCEPTED, answer="GO")
                for i in ids]  # fmt: skip

    def gather(self, decisions: Sequence[Decision]) -> list[Settled]:
        return self.wait_some(self.submit(decisions))


def places(model: object) -> list[int]:
    return [a.place for a in model.agents if hasattr(a, "place")]  # type: ignore[attr-defined]


def test_agents_decide_on_the_model_as_it_stands_and_then_it_steps() -> None:
    model = build()
    steps = MesaSteps(model, 2)
    before = places(model)
    assert any(before)
    asked = steps.observe(0)
    assert [d.key for d in asked] == [
        f"t00000.{a.unique_id}"
        for a in model.agents
        if getattr(a, "place", 0)  # type: ignore[attr-defined]
    ]
    steps.apply(0, Goes().gather(asked))
    assert places(model) == [max(0, place - 1) for place in before]
    assert model.steps == 1  # type: ignore[attr-defined]
    assert steps.tick == 1


def test_it_ends_after_its_ticks_or_when_the_model_says_so() -> None:
    long, short = build(), build(until=2)
    run_in_step(MesaSteps(long, 5), Goes())
    run_in_step(MesaSteps(short, 5), Goes())
    assert (long.steps, short.steps) == (5, 2)  # type: ignore[attr-defined]


def test_models_that_never_meet_run_freely_also_with_ticks_without_questions() -> None:
    models = [build(seed) for seed in (1, 2)]
    parts = [MesaSteps(model, 6, name=f"m{n}.") for n, model in enumerate(models)]
    run_freely(parts, Goes(), lead=1)
    assert [model.steps for model in models] == [6, 6]  # type: ignore[attr-defined]
    assert all(not any(places(model)) for model in models)


def test_out_of_turn_is_refused() -> None:
    steps = MesaSteps(build(), 2)
    with pytest.raises(InputError, match="out of turn"):
        steps.apply(0, [])
    steps.observe(0)
    with pytest.raises(InputError, match="out of turn"):
        steps.observe(0)
    with pytest.raises(InputError, match="at least 1"):
        MesaSteps(build(), 0)
