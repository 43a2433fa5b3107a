"""What sort of query a prompt is, and which specialist its words speak for.

Both follow the profile of the two specialists, also on machines that have neither: what a step
asks is the same everywhere.
"""

from __future__ import annotations

from functools import lru_cache

from config.catalog import Catalog
from config.load import load_catalog
from producers.pipeline.steps import Role
from routing.digest import GENERAL
from routing.specialists import by_words, words_of

HOME = "zeus"
"""The profile that has both specialists, the words that speak for them, and the query types."""


@lru_cache
def _home() -> Catalog:
    return load_catalog(HOME)


def query_type(prompt: str) -> str:
    """The first type of which the prompt has a word: residue_analysis, prng_state, statistical,
    config_generation, orchestration; else general."""
    words = words_of(prompt)
    for one in _home().routing.query_types:
        if words.intersection(one.words):
            return one.kind
    return GENERAL


def role_of(prompt: str) -> Role:
    """The specialist for whom a prompt's words speak."""
    speciality = by_words(prompt, _home().specialities).name
    return Role.MATH if speciality == Role.MATH.value else Role.ORCHESTRATOR
