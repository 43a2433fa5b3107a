"""What must hold in an engine's context between any two passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from workers.engine.scheduler import ROOT, Scheduler


def disorder(scheduler: Scheduler, last: Callable[[int], int]) -> list[str]:
    """What is wrong, in words; nothing if every sequence has one owner and holds what it says.

    ``last`` gives the last position of a sequence in the context, -1 if it holds nothing.
    """
    nodes = [n for tree in scheduler._trees.values() for n in tree.nodes() if n.holder != ROOT]
    owned = Counter(scheduler._free)
    owned.update(n.holder for n in nodes)
    owned.update(s for job in scheduler.running for s in job.sequences)
    found = [f"sequence {s} has {count} owners" for s, count in owned.items() if count > 1]
    found += [f"sequence {s} is lost" for s in range(1, scheduler.slots + 1) if s not in owned]
    for node in nodes:
        if node.ready and last(node.holder) != node.end - 1:
            found.append(f"sequence {node.holder} ends at {last(node.holder)}, not {node.end - 1}")
    found += [f"free sequence {s} holds tokens" for s in scheduler._free if last(s) >= 0]
    users = Counter(job.node for job in scheduler.running)
    found += [f"the prefix of {n.holder} has {n.users} users, not {users[n]}"
              for n in nodes if n.users != users[n]]  # fmt: skip
    return found
