"""What two answers and two prompts have in common, and what so many audits prove."""

from __future__ import annotations

import pytest

from config.caching import CacheRules, EmbedderName
from config.catalog import Kind
from config.errors import ConfigurationError
from config.load import validated
from routing.similar import Trust, lower_bound, same_answer, trust
from workers.embedding import NgramEmbedder, nearest, open_embedder, packed


@pytest.mark.parametrize(
    ("hits", "trials", "confidence", "bound"),
    # One-sided Clopper-Pearson: for hits == trials it is (1 - confidence) ** (1 / trials).
    [(0, 10, 0.95, 0.0), (10, 10, 0.95, 0.05 ** (1 / 10)), (29, 29, 0.95, 0.05 ** (1 / 29)),
     (8, 10, 0.975, 0.44390), (0, 0, 0.95, 0.0)],
)  # fmt: skip
def test_lower_bounds_are_those_of_clopper_and_pearson(
    hits: int, trials: int, confidence: float, bound: float
) -> None:
    assert lower_bound(hits, trials, confidence) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(
    ("agreed", "audited", "expected"),
    [(0, 0, Trust.TRIAL), (28, 28, Trust.TRIAL), (29, 29, Trust.ON), (29, 30, Trust.TRIAL),
     (0, 1, Trust.TRIAL), (0, 2, Trust.OFF), (7, 10, Trust.TRIAL), (6, 10, Trust.OFF),
     (490, 500, Trust.ON), (450, 500, Trust.TRIAL), (430, 500, Trust.OFF)],
)  # fmt: skip
def test_trust_is_earned_and_lost(agreed: int, audited: int, expected: Trust) -> None:
    assert trust(agreed, audited, 0.9, 0.95) is expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("A", "A", True), ("A", "B", False), ('{"a": 1, "b": 2}', '{"b":2,"a":1}', True),
     ("[1, 2]", "[2, 1]", False), ("true", "1", False), ("Pumps.", " pumps", True),
     ("a pump", "a  pump", True), ("a pump", "one pump", False)],
)  # fmt: skip
def test_answers_are_the_same_but_for_their_form(one: str, other: str, same: bool) -> None:
    assert same_answer(one, other) is same


def test_ngrams_see_wording() -> None:
    embed = NgramEmbedder().embed
    rows = embed(["the pump is broken again", "the pumps are broken again", "lunch is at noon", ""])
    assert rows.shape == (4, 512)
    assert rows[0] @ rows[0] == pytest.approx(1, abs=1e-5)
    assert rows[0] @ rows[1] > 0.6 > 0.3 > rows[0] @ rows[2]
    assert not rows[3].any()
    assert (embed(["the pump is broken again"])[0] == rows[0]).all()


def test_the_nearest_survives_packing() -> None:
    rows = NgramEmbedder().embed(["open the valve", "close the door", "open the valves"])
    index, cosine = nearest(rows[0], [packed(rows[1]), packed(rows[2]), packed(rows[0])])
    assert (index, cosine) == (2, pytest.approx(1, abs=1e-3))
    assert len(packed(rows[0])) == 1024


def test_wordllama_works_without_a_network() -> None:
    pytest.importorskip("wordllama")
    rows = open_embedder(EmbedderName.WORDLLAMA).embed(
        ["remove the file", "delete the file", "lunch is at noon", ""]
    )
    assert rows.shape == (4, 256)
    assert rows[0] @ rows[1] > 0.1 + rows[0] @ rows[2]


@pytest.mark.parametrize(
    ("model", "data", "mend"),
    [(Kind, {"tier": "t", "semantic": True}, "semantic = true needs cache = true"),
     (Kind, {"tier": "t", "cache": True, "cache_ttl_s": 0}, "greater than 0"),
     (Kind, {"tier": "t", "similarity": 1.5}, "less than or equal to 1")],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(
    model: type[Kind], data: dict[str, object], mend: str
) -> None:
    with pytest.raises(ConfigurationError, match=mend) as caught:
        validated(model, data, "profile.toml")
    assert "\n" not in str(caught.value)


def test_an_embedder_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.caching.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'uptier\[semantic\]'"):
        validated(CacheRules, {"embedder": "wordllama"}, "profile.toml")
