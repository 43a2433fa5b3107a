"""Runs a pipeline's steps one after another, as far as they may go by themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import InputError, UptierError
from config.load import AbsentLane
from ledger.clock import Clock
from producers.asking import Asker
from producers.pipeline.caller import Caller
from producers.pipeline.confidence import Gate
from producers.pipeline.content import content_of
from producers.pipeline.files import write_json
from producers.pipeline.inputs import Inputs, gather_inputs
from producers.pipeline.metadata import check_metadata, run_id
from producers.pipeline.performing import Performer
from producers.pipeline.plan import Loaded, StepConfig
from producers.pipeline.state import Condition, PipelineState, Standing, StepState

Tell = Callable[[StepState, str], None]


class Runner:
    """One run of a pipeline in its work directory.

    ``tell`` hears of each step as it begins and ends. Every change is written to the state's file
    before anything that follows from it is done, so that a run that was killed goes on where it
    was: decisions that were settled are not asked again.
    """

    def __init__(
        self,
        loaded: Loaded,
        workdir: Path,
        state: PipelineState,
        *,
        asker: Asker,
        engine: Engine,
        catalog: Catalog,
        absent: tuple[AbsentLane, ...],
        clock: Clock,
        tell: Tell,
    ) -> None:
        self._loaded, self._workdir, self.state = loaded, workdir, state
        self._asker, self._engine = asker, engine
        self._catalog, self._absent = catalog, absent
        self._clock, self._tell = clock, tell

    def run(self) -> PipelineState:
        """Perform steps until one waits for a person or all are done.

        Raises:
            InputError: an input is missing or not what it was; the state stays as it is.
            StepError: a step's code cannot go on; the run is marked as failed.
        """
        while (step := self.state.next) is not None and step.standing is Standing.OPEN:
            self._set(Condition.RUNNING)
            one = self._loaded.config.steps[step.number - 1]
            inputs = gather_inputs(self._loaded, one, self._workdir, self.state)
            try:
                self._perform(step, one, inputs)
            except InputError:
                raise
            except UptierError as error:
                self._set(Condition.FAILED, str(error))
                raise
        waits = step is not None and step.standing is Standing.WAITING
        self._set(Condition.DONE if step is None else
                  Condition.WAITING if waits else self.state.condition)  # fmt: skip
        return self.state

    def _perform(self, step: StepState, one: StepConfig, inputs: Inputs) -> None:
        self._begin(step)
        self._tell(step, "begins")
        caller = Caller(
            self._asker, self._engine, self._catalog, absent=self._absent,
            prefix=f"step{step.number}.g{step.generation}.", seed=self._loaded.config.seed,
            timeout_s=self._loaded.config.timeout_s, privacy=self._loaded.config.privacy,
            clock=self._clock,
        )  # fmt: skip
        performed = Performer(self._loaded.config, one, self._catalog, caller).perform(inputs)
        parent = self.state.steps[step.number - 2].run_id if step.number > 1 else None
        content = content_of(one, inputs, performed, caller, step.run_id, parent)
        place = self._workdir / step.file
        check_metadata(content["agent_metadata"], str(place))
        step.hash = write_json(place, content)
        step.confidence, step.gate = performed.confidence, performed.gate.value
        step.why = performed.why
        proceeds = performed.gate is Gate.PROCEED
        step.standing = Standing.DONE if proceeds else Standing.WAITING
        self.state.write(self._workdir)
        self._tell(step, "ends")

    def _begin(self, step: StepState) -> None:
        """Name the step's run, unless that was done before it was interrupted."""
        if not step.run_id:
            seed = f"{self._loaded.config.seed}.{self.state.run}.{step.number}.{step.generation}"
            step.run_id = run_id(step.number, self._clock(), seed)
            self.state.write(self._workdir)

    def _set(self, condition: Condition, failure: str = "") -> None:
        if (condition, failure) != (self.state.condition, self.state.failure):
            self.state.condition, self.state.failure = condition, failure
            self.state.write(self._workdir)
