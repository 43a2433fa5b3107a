"""The whole state of a simulation as text: equal states give equal bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from producers.simulation.dice import Dice
from producers.simulation.world import World


def state_json(worlds: Sequence[World]) -> str:
    """Agents, tasks, tallies and the places of the dice of these worlds, as canonical JSON."""
    found = [_world(world) for world in worlds]
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def state_digest(worlds: Sequence[World]) -> str:
    """SHA-256 of :func:`state_json`, 64 hexadecimal digits."""
    return hashlib.sha256(state_json(worlds).encode()).hexdigest()


def _world(world: World) -> dict[str, Any]:
    return {
        "tick": world.tick,
        "agents": [asdict(agent) for agent in world.agents],
        "tally": asdict(world.tally),
        "gates": world.gates,
        "dice": [_dice(world.work), _dice(world.fate)],
    }


def _dice(dice: Dice) -> str:
    return hashlib.sha256(repr(dice.random.getstate()).encode()).hexdigest()
