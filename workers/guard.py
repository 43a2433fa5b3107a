"""The last guard of privacy: a lane in the cloud is asked nothing that must stay on the machine."""

from __future__ import annotations

from collections.abc import Sequence

from config.catalog import Catalog
from ledger.records import Claimed
from ledger.rulings import Refusal
from routing.decision import Status
from routing.policy import may_see
from routing.wishes import privacy_of
from workers.questions import Questions


class Guard:
    """Stands before the model of one lane.

    Plans heed privacy when they are made and at every hop. This looks again at the moment of the
    call, so that a plan from an older catalog, or one that somebody wrote by hand, leaks nothing.
    """

    def __init__(self, catalog: Catalog, lane: str, questions: Questions) -> None:
        self._catalog = catalog
        self._lane = lane
        self._questions = questions
        self._local = catalog.is_local(catalog.lanes[lane].model)

    def refusals(self, claimed: Sequence[Claimed]) -> list[Refusal]:
        """Those of ``claimed`` that this lane may not see, each with where it goes instead."""
        if self._local:
            return []
        return [self._refusal(one) for one in claimed if not self._may_see(one)]

    def _may_see(self, claimed: Claimed) -> bool:
        privacy = privacy_of(claimed.decision, self._catalog)
        return may_see(self._lane, self._catalog, privacy)

    def _refusal(self, claimed: Claimed) -> Refusal:
        privacy = privacy_of(claimed.decision, self._catalog)
        return Refusal(
            id=claimed.id,
            status=Status.DEGRADED,
            reason=f"privacy {privacy.value} keeps it on the machine, which {self._lane} is not",
            climb_to=self._questions.next_lane(claimed),
            lower=self._questions.lower(claimed),
        )
