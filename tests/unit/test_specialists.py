"""Specialists by the words of a prompt: the pipeline's examples, and queries held out."""

from __future__ import annotations

import pytest

from benchmarks.specialists.__main__ import accuracy, held_out, recall
from benchmarks.specialists.fit import fit, queries
from config.catalog import Catalog
from config.load import load_catalog, without_absent_lanes
from config.strategies import Speciality
from routing.policy import plan
from routing.specialists import LONGEST_READ, by_words, query_type, words_of
from tests.unit.catalogs import decision

# The two examples of the pipeline's proposal, in its own facts and other words.
SURVIVORS = """Look into these survivors of the forward and the reverse sieve:
- survivors in all: 742,846
- residues modulo 8: [12.3%, 12.8%, 12.1%, 12.6%, 12.4%, 12.5%, 12.2%, 13.1%]
- residues modulo 125: [more between 0 and 25]
- best match rate: 4.1%

Calculate
1. the chi-squared statistic of the residues modulo 8
2. the match rate expected at random
3. the confidence that a PRNG is behind it
"""
NEXT_STEP = """State of the run:
- step 2, scorer meta-optimization, is complete
- best trial: threshold=0.012, k_folds=5
- validation score: 0.847
- 278 survivors passed full scoring

Create the JSON plan of step 3, full scoring, with
1. input files
2. recommended parameters
3. expected output files
4. success criteria
5. runtime on the cluster of 26 GPUs
"""


@pytest.fixture(scope="module")
def zeus() -> Catalog:
    return without_absent_lanes(load_catalog("zeus"), lambda _: None)[0]


def test_the_analysis_of_survivors_goes_to_math(zeus: Catalog) -> None:
    found = plan(decision("general", prompt=SURVIVORS), zeus, ())
    assert found.lanes[0] == "tier2.math"
    assert "its words speak for math (" in found.hops[0].reason
    assert query_type(SURVIVORS, zeus) == "residue_analysis"


def test_the_plan_of_the_next_step_goes_to_the_orchestrator_although_it_names_a_threshold(
    zeus: Catalog,
) -> None:
    assert {"threshold", "survivors"} <= words_of(NEXT_STEP)
    assert plan(decision("general", prompt=NEXT_STEP), zeus, ()).lanes[0] == "tier2"
    assert query_type(NEXT_STEP, zeus) == "config_generation"


def test_a_forced_specialist_and_a_kind_win_over_words(zeus: Catalog) -> None:
    forced = decision("general", prompt=SURVIVORS, specialist="general")
    assert plan(forced, zeus, ()).lanes[0] == "tier2"
    forced = decision("general", prompt=NEXT_STEP, specialist="math")
    assert plan(forced, zeus, ()).lanes[0] == "tier2.math"
    kind = decision("orchestration", prompt=SURVIVORS)
    assert plan(kind, zeus, ()).lanes[0] == "tier2"


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("Compute the residue of 17 modulo 5.", "residue_analysis"),
        ("Compute the next prng output from seed 42 and increment 7.", "prng_state"),
        ("What is the probability of 3 heads in 5 throws?", "statistical"),
        ("Write the JSON config of the server.", "config_generation"),
        ("Plan what the agent should do next.", "orchestration"),
        ("Write a config for the team with a seed field.", "config_generation"),
        ("Tell the operator that the report is late.", "general"),
    ],
)
def test_a_prompt_without_a_kind_gets_the_first_type_that_fits(
    zeus: Catalog, prompt: str, kind: str
) -> None:
    assert query_type(prompt, zeus) == kind


def test_a_profile_without_types_knows_only_general() -> None:
    assert query_type("Plan the residue.", load_catalog("tiny")) == "general"


def test_queries_held_out_go_right() -> None:
    every = queries()
    assert len(every) >= 200
    assert sum(query.math for query in every) >= 100
    outcomes = held_out(every, seed=0)
    assert accuracy(outcomes) >= 0.95
    assert recall(outcomes, True) >= 0.95


def test_the_weights_of_the_catalog_are_those_that_the_queries_teach(zeus: Catalog) -> None:
    learned, kept = fit(queries()), zeus.specialities["math"]
    assert learned.words.keys() == kept.words.keys()
    for word, weight in learned.words.items():
        assert weight == pytest.approx(kept.words[word], abs=0.02)


def test_words_are_whole_and_weighed() -> None:
    residue = {"math": Speciality(bias=-1, words={"residue": 2, "plan": -2})}
    assert by_words("the RESIDUE?", residue).name == "math"
    assert by_words("residues and presidues", residue).name == "general"
    assert by_words("residue residue plan", residue).name == "general"
    assert by_words("", residue).name == "general"


def test_the_speciality_with_the_highest_score_wins() -> None:
    both = {
        "math": Speciality(bias=0, words={"sum": 1}),
        "code": Speciality(bias=0, words={"sum": 2}),
    }
    assert by_words("the sum", both).name == "code"


def test_of_a_long_prompt_both_ends_are_read() -> None:
    residue = {"math": Speciality(bias=-1, words={"residue": 2})}
    filler = "word " * LONGEST_READ
    assert by_words(f"residue {filler}", residue).name == "math"
    assert by_words(f"{filler} residue", residue).name == "math"
    assert by_words(f"{filler} residue {filler}", residue).name == "general"
