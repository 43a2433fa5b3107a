"""Scores the labels of a choice with llama-server: a request for each place on their way."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any

from workers.backends.http_client import JsonClient
from workers.backends.http_logprobs import Scores
from workers.label_paths import Path, branches

LIFT = 25.0
"""Nats by which the labels' tokens are lifted, so that all are among those that are told."""
OTHERS = 500
"""Tokens beside the labels' that are told, of which the rest's probability is reckoned."""
IGNORED = 1e-4
"""Labels below a place that is less likely than this share of the labels that were scored already
are not looked at: they get nothing."""


def score(
    client: JsonClient, prompt: Sequence[int], paths: Sequence[Path]
) -> tuple[Scores, list[dict[str, Any]]]:
    """One probability for each label's path, and the server's replies, the first one's first.

    A label's probability is the product along its path, to its last token. The likeliest place
    comes next: what leads to a label is never less likely than the label. The server keeps the
    prompt, so that each request after the first computes only the path to its place.
    """
    places = branches(paths)
    reached: dict[Path, float] = {(): 1.0}
    found = 0.0
    replies: list[dict[str, Any]] = []
    waiting: list[tuple[float, Path]] = [(-1.0, ())]
    while waiting and -waiting[0][0] > IGNORED * found:
        minus, place = heapq.heappop(waiting)
        reply = client.post("/completion", _call([*prompt, *place], places[place]))
        replies.append(reply)
        for token, probability in _probabilities(reply, places[place]).items():
            after = (*place, token)
            reached[after] = -minus * probability
            if after in places:
                heapq.heappush(waiting, (-reached[after], after))
            else:
                found += reached[after]
    whole = [reached.get(path, 0.0) for path in paths]
    mass = sum(whole)
    if not mass > 0:
        raise ValueError("no probability of any label")
    return Scores(tuple(p / mass for p in whole), min(1.0, mass)), replies


def _call(prompt: Sequence[int], tokens: set[int]) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "n_predict": 1,
        "n_probs": len(tokens) + OTHERS,
        "post_sampling_probs": True,
        "logit_bias": [[token, LIFT] for token in sorted(tokens)],
        # Nothing but the lift comes between the model's logits and what is told.
        "samplers": ["temperature"],
        "temperature": 1.0,
        "cache_prompt": True,
    }


def _probabilities(reply: Mapping[str, Any], tokens: set[int]) -> dict[int, float]:
    """The model's own probability of each token, the lift taken back.

    With the lift ``B`` a token of probability ``p`` is told as ``p * exp(B) / Z`` and any other as
    ``p / Z``; all of them sum to 1 before the lift, which gives ``Z``. What is beyond the tokens
    that are told is too little to count.
    """
    told = {
        int(one["id"]): float(one["prob"])
        for one in reply["completion_probabilities"][0]["top_probs"]
    }
    own = {token: told.get(token, 0.0) * math.exp(-LIFT) for token in tokens}
    rest = sum(probability for token, probability in told.items() if token not in tokens)
    whole = sum(own.values()) + rest
    if not whole > 0:
        raise ValueError("no probabilities")
    return {token: probability / whole for token, probability in own.items()}
