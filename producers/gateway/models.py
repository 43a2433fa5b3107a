"""``/v1/models``: every name that a request may have as its model; and what no model gives."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from config.catalog import Catalog
from producers.gateway.answering import gate_of
from producers.gateway.errors import Fault
from producers.openai_chat import AUTO, model_names

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """``auto``, tiers, lanes and models."""
    gate = gate_of(request)
    gate.keys.caller(request)
    created = gate.client.run.created_at // 1_000_000
    names = model_names(gate.catalog)
    return {"object": "list", "data": [_model(n, gate.catalog, created) for n in names]}


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """One of them."""
    gate = gate_of(request)
    gate.keys.caller(request)
    if name not in model_names(gate.catalog):
        raise Fault(404, f"model {name!r} is not known here: `GET /v1/models` lists what is",
                    code="model_not_found", param="model")  # fmt: skip
    return _model(name, gate.catalog, gate.client.run.created_at // 1_000_000)


@router.post("/v1/embeddings")
async def embeddings(request: Request) -> None:
    """Nothing gives embeddings."""
    gate = gate_of(request)
    gate.keys.caller(request)
    raise Fault(404, f"no lane of profile {gate.catalog.profile!r} gives embeddings",
                code="model_not_found", param="model")  # fmt: skip


def _model(name: str, catalog: Catalog, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "uptier",
            "uptier": _what(name, catalog)}  # fmt: skip


def _what(name: str, catalog: Catalog) -> dict[str, Any]:
    """What a name stands for, in the order in which a request's is looked up."""
    if name == AUTO:
        return {"is": "auto", "lanes": list(catalog.lanes)}
    if name in catalog.tiers:
        lanes = [n for n, lane in catalog.lanes.items() if lane.tier == name]
        return {"is": "tier", "lanes": lanes, "rank": catalog.tiers[name].rank}
    if name in catalog.lanes:
        return {"is": "lane", "lanes": [name], "local": _local(name, catalog)}
    lanes = [n for n, lane in catalog.lanes.items() if lane.model == name]
    return {"is": "model", "lanes": lanes, "local": catalog.is_local(name)}


def _local(lane: str, catalog: Catalog) -> bool:
    return catalog.is_local(catalog.lanes[lane].model)
