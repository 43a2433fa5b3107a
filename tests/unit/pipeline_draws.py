"""The draws of the example pipeline, as they were made.

``python -m tests.unit.pipeline_draws`` writes them anew; the hash in the config must follow.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "pipeline"
CONFIG, PROFILE, DRAWS = (EXAMPLES / name for name in ("six_steps.toml", "scripted.toml",
                                                       "draws.json"))  # fmt: skip
SEED, COUNT, NOISE = 12345, 400, 0.08
GENERATOR = {
    "multiplier": 1664525, "increment": 1013904223, "bits": 32, "shift": 3, "range": 1024,
    "seeds": 16384,
}  # fmt: skip


def made() -> str:
    """The file's text."""
    chance, state, draws = random.Random(20), SEED, []
    for _ in range(COUNT):
        state = (GENERATOR["multiplier"] * state + GENERATOR["increment"]) % 2**32
        true = (state >> GENERATOR["shift"]) % GENERATOR["range"]
        draws.append(chance.randrange(GENERATOR["range"]) if chance.random() < NOISE else true)
    head = {
        "description": f"{COUNT} draws of the generator below from seed {SEED}; one in twelve was "
        "replaced by chance. Made by tests/unit/pipeline_draws.py.",
        "generator": GENERATOR,
    }
    lines = [draws[start : start + 20] for start in range(0, COUNT, 20)]
    rows = ",\n".join("    " + ", ".join(str(draw) for draw in line) for line in lines)
    return f'{json.dumps(head, indent=2)[:-2]},\n  "draws": [\n{rows}\n  ]\n}}\n'


if __name__ == "__main__":
    DRAWS.write_text(made())
