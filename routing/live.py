"""A learnt policy as plans and checks go by it: where it applies, and where a decision begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from config.catalog import Catalog
from routing.adapters import adapter_of
from routing.certify import Scope
from routing.decision import Decision, Hop
from routing.learnt import Learnt


@dataclass(frozen=True)
class Live:
    """A policy that was learnt from ``run``, and all that served when it was.

    It says nothing of a kind on a lane where a model, fingerprint, adapter or template with its
    version serves that is not among ``served``.
    """

    learnt: Learnt
    served: frozenset[Scope]
    run: str

    @cached_property
    def _known(self) -> frozenset[tuple[str, ...]]:
        return frozenset((s.kind, s.lane, s.model, s.template, s.adapter) for s in self.served)

    def covers(self, scope: Scope, catalog: Catalog) -> bool:
        """Whether it has a word on what a lane says to a kind; kinds that demand a certificate
        keep to that."""
        return (
            scope in self.served
            and scope.kind in self.learnt.starts
            and scope.lane in self.learnt.models
            and not catalog.kind(scope.kind).certified
        )

    def start(self, decision: Decision, catalog: Catalog) -> str | None:
        """The lane that a decision had best begin with; ``None`` where it has no word on that.

        Which weights a lane serves is not known before it is asked, so fingerprints are not
        compared here; the check does, and the steward.
        """
        lane = self.learnt.starts.get(decision.kind)
        if lane is None or lane not in catalog.lanes or catalog.kind(decision.kind).certified:
            return None
        model, adapter = catalog.lanes[lane].model, adapter_of(decision, catalog, lane)
        known = (decision.kind, lane, model, decision.template, adapter)
        return lane if known in self._known else None


def scope_of(decision: Decision, lane: str, fingerprint: str, catalog: Catalog) -> Scope:
    """What answers a decision on a lane of the catalog whose weights have this fingerprint."""
    adapter = adapter_of(decision, catalog, lane)
    model = catalog.lanes[lane].model
    return Scope(decision.kind, lane, model, fingerprint, decision.template, adapter)


def begin(
    hops: Sequence[Hop], decision: Decision, catalog: Catalog, live: Live
) -> tuple[list[Hop], list[str]] | None:
    """The hops from the policy's lane on, and a note; ``None`` where it has no word.

    Nothing is added, so that no filter before it is undone: where the lane is not among the hops,
    they stay as they are.
    """
    lane = live.start(decision, catalog)
    if lane is None:
        return None
    lanes = [hop.lane for hop in hops]
    word = f"the policy learnt from run {live.run} begins {decision.kind} on {lane}"
    if lane not in lanes:
        return list(hops), [f"{word}, which this decision may not be asked on"]
    left = list(hops[lanes.index(lane) :])
    if len(left) < len(hops):
        left[0] = Hop(lane=lane, reason=f"starts here: {word}")
    return left, [word]
