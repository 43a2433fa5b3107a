"""What only Hugging Face's classes have: one source of chance for the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.cases import TEXT, request
from tests.contract.local import transformers
from workers.backends.base import Backend, Request

SIDE_BY_SIDE = 4


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """SmolLM2 in Hugging Face's classes."""
    with transformers(tmp_path) as opened:
        yield opened
        opened.close()


def test_what_a_seed_draws_does_not_depend_on_what_is_drawn_beside_it(backend: Backend) -> None:
    asked = [
        replace(request(TEXT, prompt="Tell of the sea.", temperature=1.0, max_tokens=12), seed=seed)
        for seed in range(2 * SIDE_BY_SIDE)
    ]

    def said(one: Request) -> str:
        (completion,) = backend.answer([one])
        assert completion.error is None
        return completion.raw

    alone = [said(one) for one in asked]
    assert len(set(alone)) > 1
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        together = list(pool.map(said, asked))
    assert together == alone
