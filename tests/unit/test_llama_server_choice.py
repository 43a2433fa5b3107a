"""The search for labels behind llama-server: the likeliest place next, none that cannot matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from workers.backends.llama_server_choice import score

PROMPT = [7, 8]
REST = 99


class Server:
    """Answers as llama-server does, from each place's probabilities."""

    def __init__(self, follow: Mapping[tuple[int, ...], Mapping[int, float]]) -> None:
        self.follow = follow
        self.asked: list[tuple[int, ...]] = []

    def post(self, path: str, body: Any) -> dict[str, Any]:
        assert path == "/completion"
        place = tuple(body["prompt"][len(PROMPT) :])
        self.asked.append(place)
        here = dict(self.follow[place])
        here[REST] = 1 - sum(here.values())
        lifted = {t: p * math.exp(dict(body["logit_bias"]).get(t, 0.0)) for t, p in here.items()}
        whole = sum(lifted.values())
        probs = [{"id": t, "prob": p / whole} for t, p in lifted.items()]
        return {"completion_probabilities": [{"top_probs": probs}]}


def test_a_likely_first_piece_of_an_unlikely_label_does_not_win() -> None:
    server = Server({(): {1: 0.6, 2: 0.01}, (1,): {3: 1e-6}, (2,): {4: 0.9}})
    scores, replies = score(server, PROMPT, [(1, 3), (2, 4)])  # type: ignore[arg-type]
    assert scores.mass == pytest.approx(0.6e-6 + 0.009)
    assert scores.probabilities == pytest.approx((0.6e-6 / scores.mass, 0.009 / scores.mass))
    assert server.asked == [(), (1,), (2,)]
    assert len(replies) == 3


def test_places_that_cannot_matter_are_not_asked_for() -> None:
    server = Server({(): {1: 0.5, 2: 1e-6, 5: 0.1}, (1,): {3: 0.8}, (2,): {4: 1.0}})
    scores, _ = score(server, PROMPT, [(1, 3), (2, 4), (5,)])  # type: ignore[arg-type]
    assert server.asked == [(), (1,)]
    assert scores.probabilities == pytest.approx((0.8, 0, 0.2))
