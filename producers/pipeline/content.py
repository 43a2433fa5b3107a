"""A step's file: what it computed, what was said to it, and its metadata."""

from __future__ import annotations

from typing import Any

from producers.pipeline.caller import Caller, Heard
from producers.pipeline.confidence import Gate, p_proceed
from producers.pipeline.inputs import Inputs
from producers.pipeline.metadata import VERSION
from producers.pipeline.performing import Performed
from producers.pipeline.plan import StepConfig


def content_of(
    one: StepConfig,
    inputs: Inputs,
    performed: Performed,
    caller: Caller,
    run_id: str,
    parent: str | None,
) -> dict[str, Any]:
    """The file of a step as JSON holds it."""
    computed, considered = performed.computed, performed.considered
    opinion = performed.opinion
    return {
        "schema_version": VERSION,
        "run_id": run_id,
        "parameters": computed.parameters.model_dump(mode="json"),
        "figures": computed.done.figures,
        "missed": list(computed.missed),
        "calculations": list(considered.calculations),
        "plan": considered.plan,
        "judgements": [_judgement(judge) for judge in performed.judges],
        "second_opinion": None if opinion is None else _judgement(opinion),
        "marks": {mark.name: mark.value for mark in considered.marks},
        "notes": list(caller.notes),
        "result": computed.done.result,
        "agent_metadata": _metadata(one, inputs, performed, caller, parent),
    }


def _metadata(
    one: StepConfig, inputs: Inputs, performed: Performed, caller: Caller, parent: str | None
) -> dict[str, Any]:
    roster = caller.roster
    return {
        "inputs": list(inputs.entries),
        "outputs": [one.file],
        "parent_run_id": parent,
        "pipeline_step": one.step.number,
        "pipeline_step_name": one.name,
        "follow_up_agent": one.step.follow_up_agent,
        "confidence": performed.confidence,
        "suggested_params": dict(performed.considered.suggested),
        "reasoning": performed.considered.thought.answer,
        "success_criteria_met": not performed.computed.missed,
        "retry_count": performed.computed.retries,
        "cluster_resources": {"nodes": roster.nodes(), "total_gpus": roster.gpus},
        "llm_metadata": caller.metadata(
            performed.decision, person_wanted=performed.gate is not Gate.PROCEED
        ),
    }


def _judgement(heard: Heard) -> dict[str, Any]:
    call = heard.call
    return {
        "specialist": heard.role.value,
        "lane": heard.settled.lane,
        "model": None if call is None else call.model,
        "said": heard.answer,
        "status": heard.settled.status.value,
        "p_proceed": round(p_proceed(heard), 4),
        "decision": heard.settled.id,
    }
