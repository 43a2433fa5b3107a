"""The choices of benchmarks.engine: prompts that share their beginning, with answers of all kinds.

The labels are of several tokens and share beginnings. SmolLM2 answers with each of them, since
each prompt ends with what its agent would like.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDS = {
    "write code": ("has to build the export", "must finish the parser", "adds a new module"),
    "write tests": ("sees gaps in the suite", "must check for faults", "has untested functions"),
    "review": ("has a request to read", "should look at a change", "owes comments on a draft"),
    "ask the manager": ("needs more budget", "does not know the client", "needs a permission"),
    "ask a colleague": ("does not see why it fails", "needs help with a bug", "wants advice"),
    "rest": ("is very tired", "worked all night", "has nothing due today"),
}
LABELS = tuple(NEEDS)
RULES = (
    "keep what is started in order before anything new is begun",
    "a colleague who waits for you comes before your own comfort",
    "whoever is blocked says so at once and names what is missing",
    "work of high priority is not left for work of low priority",
    "nobody works on more than two things at the same time",
    "a deadline of less than two days outweighs all other wishes",
    "ask the manager only after the team has been asked",
    "rest when nothing is due and the day is nearly over",
)


@dataclass(frozen=True)
class Setup:
    """What all contestants share. Those that keep nothing are measured on ``few`` prompts."""

    path: Path
    threads: int
    repeats: int
    prompts: int
    few: int
    gpu_layers: int


@dataclass(frozen=True)
class Tick:
    """Prompts that share their beginning; ``cold`` if it is new."""

    prompts: tuple[str, ...]
    shared: str
    cold: bool


def ticks(setup: Setup) -> Iterator[Tick]:
    """A cold and a warm tick for each repeat; every repeat has a beginning of its own."""
    for repeat in range(setup.repeats):
        rng = random.Random(repeat)
        shared = template(repeat, rng)
        for cold in (True, False):
            yield Tick(tuple(shared + own(rng) for _ in range(setup.prompts)), shared, cold)


def template(number: int, rng: random.Random) -> str:
    """About 440 tokens."""
    rules = [f"{i}. In house {number}, {rng.choice(RULES)}." for i in range(1, 20)]
    return (
        f"<|im_start|>system\nHouse {number}. You decide for one employee what to do next.\n"
        + "\n".join(rules)
        + f"\nAnswer with one of: {', '.join(LABELS)}.<|im_end|>\n<|im_start|>user\n"
    )


def own(rng: random.Random) -> str:
    """About 40 tokens."""
    wish = rng.choice(LABELS)
    return (
        f"Agent {rng.randint(100, 999)} has {rng.randint(0, 9)} open tasks, "
        f'{rng.choice(NEEDS[wish])} and says: "I will {wish}. I should {wish} now." What is next?'
        "<|im_end|>\n<|im_start|>assistant\nAnswer:"
    )
