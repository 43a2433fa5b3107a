"""Which specialist a decision is for: the asker's wish, its kind, its domain, its words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import fsum
from typing import NamedTuple

from config.catalog import Catalog
from config.errors import InputError
from config.strategies import Speciality
from routing.decision import Decision
from routing.digest import GENERAL, Digest, digest_of

LONGEST_READ = 500
"""Characters that are looked at from either end of a prompt; what is asked stands there."""
NAMED_WORDS = 3
"""Words that a reason names."""

_ORDINARY = b"abcdefghijklmnopqrstuvwxyz0123456789_"
_TABLE = bytes(c if c in _ORDINARY or c > 127 else ord(" ") for c in range(256))
"""By bytes, which is several times as fast as by characters; beyond ASCII nothing is split."""


class Specialist(NamedTuple):
    """A speciality and who says so; ``reason`` is empty where nobody had to."""

    name: str
    reason: str = ""
    forced: bool = False


def words_of(text: str) -> frozenset[str]:
    """The distinct words of a prompt, in lower case: runs of letters, digits and ``_``."""
    if len(text) > 2 * LONGEST_READ:
        text = f"{text[:LONGEST_READ]} {text[-LONGEST_READ:]}"
    plain = text.lower().encode("utf-8", "replace").translate(_TABLE)
    return frozenset(plain.decode("utf-8").split())


def numbers_in(words: Iterable[str]) -> int:
    """How many of the words begin with a digit: ``17``, ``0xff``, ``3rd``."""
    return sum(word[0] <= "9" for word in words)


def specialist_of(decision: Decision, catalog: Catalog) -> Specialist:
    """The specialist of a decision: the first of wish, kind, domain and words that names one.

    Raises:
        InputError: the asker wants one that the profile does not know.
    """
    digest = digest_of(catalog)
    wanted = decision.preferences.specialist
    if wanted is not None:
        _refuse_if_unknown(wanted, digest, catalog)
        return Specialist(wanted, f"the asker wants the specialist for {wanted}", forced=True)
    kind = digest.kind(decision.kind)
    if kind.speciality is not None:
        return Specialist(kind.speciality)
    domain = decision.signals.domain.strip().lower()
    if domain in digest.served and domain != GENERAL:
        return Specialist(domain, f"it is about {domain}")
    if not digest.served.isdisjoint(catalog.specialities):
        return by_words(decision.prompt, catalog.specialities)
    return Specialist(GENERAL)


def by_words(prompt: str, specialities: Mapping[str, Speciality]) -> Specialist:
    """The speciality for which the words of a prompt speak most, if for any."""
    words = words_of(prompt)
    best, most = GENERAL, 0.0
    for name, speciality in specialities.items():
        score = _score(words, speciality)
        if score > most:
            best, most = name, score
    if best == GENERAL:
        return Specialist(GENERAL)
    weights = specialities[best].words
    said = sorted((w for w in words & weights.keys() if weights[w] > 0), key=lambda w: -weights[w])
    named = ", ".join(sorted(said[:NAMED_WORDS]))
    return Specialist(best, f"its words speak for {best} ({named})" if named else "")


def query_type(prompt: str, catalog: Catalog, otherwise: str = GENERAL) -> str:
    """The kind of a prompt whose asker names none: the first query type that fits.

    A type fits if the prompt has one of its words, and its kind has no other speciality than
    that for which the prompt's words speak.
    """
    words = words_of(prompt)
    speciality = by_words(prompt, catalog.specialities).name
    for one in catalog.routing.query_types:
        if catalog.kinds[one.kind].speciality in (None, speciality) and words.intersection(
            one.words
        ):
            return one.kind
    return otherwise


def _score(words: frozenset[str], speciality: Speciality) -> float:
    weights = speciality.words
    # Exactly rounded, as the order of a set differs from process to process.
    score = speciality.bias + fsum(weights[word] for word in words & weights.keys())
    if not speciality.number:
        return score
    return score + speciality.number * min(numbers_in(words), speciality.most_numbers)


def _refuse_if_unknown(wanted: str, digest: Digest, catalog: Catalog) -> None:
    if wanted not in digest.known:
        raise InputError(
            f"specialist {wanted!r} is not in profile {catalog.profile!r}: choose one of "
            f"{', '.join(digest.known)}"
        )
