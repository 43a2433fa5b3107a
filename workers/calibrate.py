"""Asks a model what it leans to, and keeps the corrections that prove good."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Engine

from config.settings import Settings
from ledger.calibrations import Calibrated, Subject, labelled, store
from ledger.clock import now
from routing.confidence import contextual_bias
from routing.decision import ChoiceOutput
from workers.backends.base import Backend, Completion, Request
from workers.backends.factory import open_backend
from workers.corrections import Finding, Form, find
from workers.tasks import lane_fingerprint as served_fingerprint

Told = Callable[[int, int], None]
"""Hears how many of how many questions are answered."""


def calibrate(
    settings: Settings,
    engine: Engine,
    model: str,
    forms: Sequence[Form],
    *,
    run_id: str | None = None,
    told: Told = lambda done, total: None,
) -> list[Finding]:
    """Calibrate a model for these kinds, and store all corrections that prove good at once.

    Raises:
        WeightsError: the model's weights are missing or damaged.
    """
    lanes = [name for name, lane in settings.catalog.lanes.items() if lane.model == model]
    fingerprint = served_fingerprint(settings, model)
    biases = _contextual(settings, lanes[0], [f for f in forms if f.labels], told)
    found = []
    for form in forms:
        adapter = _adapter(settings, model, form.kind)
        subject = Subject(form.kind, model, fingerprint, form.template, adapter)
        history = labelled(engine, subject, run_id)
        found.append(find(subject, form, history, biases.get(form.kind, ())))
    good = [Calibrated(f.subject, f.correction, f.samples) for f in found if f.stored]
    store(engine, good, lanes, now())
    return found


def _contextual(
    settings: Settings, lane: str, forms: Sequence[Form], told: Told
) -> Mapping[str, tuple[float, ...]]:
    """The bias of each kind on inputs without content, where the model gives probabilities."""
    asked = {f"{form.kind}.{n}": form for form in forms for n in range(len(form.content_free))}
    if not asked:
        return {}
    backend = open_backend(settings, lane)
    try:
        requests = [_request(settings, lane, key, form) for key, form in asked.items()]
        rows = _rows(backend, requests, told)
    finally:
        backend.close()
    found: dict[str, tuple[float, ...]] = {}
    for form in forms:
        mine = [rows[key] for key, one in asked.items() if one is form and key in rows]
        if len(mine) == len(form.content_free):
            found[form.kind] = contextual_bias(mine)
    return found


def _rows(
    backend: Backend, requests: Sequence[Request], told: Told
) -> dict[str, tuple[float, ...]]:
    rows = {}
    told(0, len(requests))
    for done, completion in enumerate(backend.answer(requests), start=1):
        if _is_told(completion):
            rows[completion.id] = completion.probabilities or ()
        told(done, len(requests))
    return rows


def _is_told(completion: Completion) -> bool:
    return completion.error is None and completion.probabilities is not None


def _request(settings: Settings, lane: str, key: str, form: Form) -> Request:
    return Request(
        id=key,
        kind=form.kind,
        system=form.system,
        prompt=form.content_free[int(key.rpartition(".")[2])],
        output=ChoiceOutput(labels=form.labels),
        sampling=settings.catalog.sampling(lane),
        seed=0,
        adapter=_adapter(settings, settings.catalog.lanes[lane].model, form.kind),
    )


def _adapter(settings: Settings, model: str, kind: str) -> str:
    """The adapter that answers a kind unless its asker wants another; empty for none."""
    wanted = settings.catalog.kind(kind).adapter or ""
    return wanted if wanted in settings.catalog.models[model].adapters else ""
