"""``make faults``: inject every fault many times, and count what is lost or doubled."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.faults.ground import Grounds
from tests.faults.outcome import Outcome, table
from tests.faults.performance import in_order, leftovers, play
from tests.faults.scene import SCENES


def main(arguments: Sequence[str]) -> int:
    """Play scenes; 0 if every promise was kept, else 1."""
    options = _options(arguments)
    begun = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {line}", flush=True)

    outcomes: list[Outcome] = []
    with Grounds(options.seed) as grounds:
        for scene in in_order(options.only, short=options.short):
            outcome = play(scene, grounds, short=options.short, rounds=options.rounds, tell=tell)
            outcomes.append(outcome)
            tell(outcome.story())
            _write(options.json, outcomes, options.seed)
        tell("waiting until the brokers are empty")
        left = list(leftovers(grounds))
    Console(width=None if sys.stdout.isatty() else 140).print(table(outcomes))
    for one in sorted(outcomes, key=lambda o: o.number):
        if not one.held:
            print(one.story())
    for line in left:
        print(f"the broker is not empty: {line}")
    return 0 if all(o.held for o in outcomes) and not left else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", type=_numbers, default=(), help="numbers of faults, 1,5")
    parser.add_argument("--short", action="store_true", help="the form that `make test` plays")
    parser.add_argument("--rounds", type=int, help="instead of each scene's own number")
    parser.add_argument("--seed", type=int, default=7, help="all chance comes from it")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    return parser.parse_args(arguments)


def _numbers(given: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in given.split(",") if part.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is no list of numbers") from None
    unknown = [n for n in numbers if n not in SCENES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no fault {unknown}: there are {sorted(SCENES)}")
    return numbers


def _write(path: Path | None, outcomes: Sequence[Outcome], seed: int) -> None:
    if path is not None:
        figures = {"seed": seed, "faults": [o.figures() for o in outcomes]}
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
