"""What a memory is about, as the small model says, and how old one may be."""

from __future__ import annotations

import re

from config.catalog import Catalog
from config.errors import InputError
from producers.prompts import load_template
from routing.decision import ChoiceOutput, Decision, Preferences, Privacy, Settled

KIND = "classify_memory"
_AGE = re.compile(r"([1-9]\d{0,5})([hd])")
_UNIT_S = {"h": 3_600, "d": 86_400}


def question(
    catalog: Catalog, content: str, key: str, *, privacy: Privacy, seed: int = 0
) -> Decision:
    """The decision on a memory's topic; the last topic is what it falls back on."""
    topics, template = catalog.swarm.topics, load_template(KIND)
    return Decision(
        kind=KIND, key=key, system=template.system, template=template.id, seed=seed,
        prompt=template.fill({"topics": ", ".join(topics), "content": content}),
        output=ChoiceOutput(labels=topics), fallback=topics[-1],
        preferences=Preferences(privacy=privacy.at_least(Privacy(catalog.swarm.privacy))),
    )  # fmt: skip


def topic_of(catalog: Catalog, settled: Settled) -> str:
    """The topic that was answered, or the last one where none was."""
    topics = catalog.swarm.topics
    return settled.answer if settled.answer in topics else topics[-1]


def seconds(age: str) -> int:
    """Of an age such as ``1h``, ``24h`` or ``7d``.

    Raises:
        InputError: it is none.
    """
    found = _AGE.fullmatch(age.strip())
    if found is None:
        raise InputError(f"--recent {age!r} is no age: give hours or days, such as 24h or 7d")
    return int(found.group(1)) * _UNIT_S[found.group(2)]
