"""A Mesa 3 model whose agents let Uptier decide: clerks who hand cases on or work them off.

Run it with `python docs/examples/mesa_clerks.py --profile tiny --clerks 8 --steps 5`; it needs the
extra `simulation`.
"""

from __future__ import annotations

import argparse

import mesa

from cli.session import session
from config.settings import load_settings
from producers.mesa import MesaSteps
from producers.stepping import run_in_step
from routing.decision import CacheScope, ChoiceOutput, Decision, Settled

CHOICES = ("CONTINUE", "SWITCH")
RULES = """
You choose what a clerk does next. Reply with one of: CONTINUE, SWITCH.
Now: own cases 1, a colleague has 0. Answer: CONTINUE
Now: own cases 6, a colleague has 1. Answer: SWITCH
"""


class Clerk(mesa.Agent):
    """Has some cases; works one off, or hands half of them to a colleague."""

    def __init__(self, model: Office) -> None:
        super().__init__(model)
        self.cases = self.random.randint(0, 6)

    def decision(self, key: str) -> Decision | None:
        """Asked only with cases at hand."""
        if not self.cases:
            return None
        self.colleague = self.random.choice([c for c in self.model.agents if c is not self])
        return Decision(
            kind="next_action",
            system=RULES,
            prompt=f"Now: own cases {self.cases}, a colleague has {self.colleague.cases}.",
            output=ChoiceOutput(labels=CHOICES),
            key=key,
            agent_id=f"clerk-{self.unique_id}",
            fallback="CONTINUE",
        )

    def decided(self, settled: Settled) -> None:
        """Do as was decided."""
        if settled.answer == "SWITCH":
            half = self.cases // 2
            self.cases -= half
            self.colleague.cases += half
        elif self.cases:
            self.cases -= 1
            self.model.closed += 1


class Office(mesa.Model):
    """New cases come in at every step."""

    def __init__(self, clerks: int, seed: int) -> None:
        super().__init__(seed=seed)
        self.closed = 0
        Clerk.create_agents(self, clerks)

    def step(self) -> None:
        """Time brings a case."""
        self.random.choice(list(self.agents)).cases += 1


def run(profile: str | None, clerks: int, steps: int, seed: int) -> str:
    """Live through all steps; what came of it in one line."""
    settings = load_settings(profile=profile)
    office = Office(clerks, seed)
    config = {"clerks": clerks, "steps": steps}
    with session(settings, mode="mesa", seed=seed, config=config, cache=CacheScope.RUN) as live:
        run_in_step(MesaSteps(office, steps), live.client)
    return f"{office.steps} steps, {office.closed} cases closed"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile")
    parser.add_argument("--clerks", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    if options.clerks < 2 or options.steps < 1:
        parser.error("it takes two --clerks to hand a case on, and a step to do it in")
    print(run(options.profile, options.clerks, options.steps, options.seed))
