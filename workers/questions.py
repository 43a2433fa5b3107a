"""Turns claimed decisions into requests of a backend, and completions into attempts."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Container, Iterable, Sequence

from config.catalog import Catalog, Sampling
from config.errors import BackendError
from ledger.calibrations import Calibrations
from ledger.calls import LOST
from ledger.clock import SECOND, Clock
from ledger.records import Claimed, Tried, plan_of
from routing.adapters import adapter_of
from routing.consensus import PANEL_KEY
from routing.decision import ChoiceOutput, Decision, Plan, TextOutput
from routing.policy import lower_plan, next_hop
from routing.retries import after_failure
from routing.wishes import privacy_of
from workers.backends.base import Backend, Completion, Request, log_bug
from workers.cancellation import CancellationToken
from workers.narrating import tell_attempt
from workers.telling import Draft, Teller

BYTES_PER_TOKEN = 3
"""Fewer than English has, so that what is reckoned to be left is there."""
MARKUP_TOKENS = 64
"""What the chat markup around a prompt takes at most."""
LEAST_TOKENS = 16
"""Tokens of an answer below which it is not worth to be asked for."""


class Questions:
    """What one lane asks of its backend."""

    def __init__(
        self,
        catalog: Catalog,
        lane: str,
        *,
        backend: Backend,
        fingerprint: str,
        clock: Clock,
        calibrations: Calibrations | None = None,
        closed: Callable[[], Container[str]] = frozenset,
        teller: Teller | None = None,
    ) -> None:
        self._catalog = catalog
        self._lane = lane
        self._backend = backend
        self._clock = clock
        self._calibrations = calibrations
        self._closed = closed
        self._teller = teller
        self.fingerprint = fingerprint
        self.model = catalog.lanes[lane].model
        self._context = catalog.models[self.model].context

    def request(self, claimed: Claimed, cancellation: CancellationToken | None = None) -> Request:
        """The call that answers a decision; ``cancellation`` is set if it is to be given up."""
        decision = claimed.decision
        return Request(
            id=claimed.id,
            kind=decision.kind,
            system=decision.system,
            prompt=decision.prompt,
            output=decision.output,
            sampling=self.sampling(decision),
            seed=draw_seed(decision, self._lane, claimed.tries),
            adapter=adapter_of(decision, self._catalog, self._lane),
            own_sample=decision.preferences.own_sample,
            deadline=self._deadline(claimed),
            on_text=self._draft(claimed),
            cancellation=cancellation,
        )

    def _draft(self, claimed: Claimed) -> Draft | None:
        """What hears its text as it is written, where its asker wants to and the backend can."""
        decision = claimed.decision
        wanted = decision.preferences.stream and isinstance(decision.output, TextOutput)
        if self._teller is None or not wanted or not self._backend.capabilities.streaming:
            return None
        return self._teller.draft(claimed, self._lane)

    def most_micros(self, request: Request) -> int:
        """The most that a call can cost."""
        return self._backend.most_micros(request)

    def completions(self, requests: Sequence[Request]) -> Iterable[Completion]:
        """A completion for every request, whatever the backend does."""
        missing = {r.id for r in requests}
        drafts = {r.id: r.on_text for r in requests if isinstance(r.on_text, Draft)}
        try:
            for completion in self._backend.answer(requests):
                missing.discard(completion.id)
                if completion.id in drafts:
                    drafts[completion.id].end()
                yield completion
        except Exception as error:  # a fault of ours must not hold decisions until leases end
            known = isinstance(error, BackendError)
            fault = error if isinstance(error, BackendError) else log_bug(self._lane, error)
        else:
            known, fault = False, BackendError("the backend gave no answer")
        for request in (r for r in requests if r.id in missing):
            yield Completion(id=request.id, error=fault if known else self._charged(request, fault))

    def _charged(self, request: Request, fault: BackendError) -> BackendError:
        """A fault of which nobody knows whether the call was made: on a paid lane it may have
        been."""
        most = self._backend.most_micros(request) if self._catalog.is_paid(self._lane) else 0
        return BackendError(str(fault), unknown_charge_micros=most or None, ours=True)

    def tried(
        self, claimed: Claimed, completion: Completion, begun: int, attempt_id: str | None = None
    ) -> Tried:
        """A completion as the ledger keeps it."""
        error = completion.error
        again_at = None if error is None else self._again_at(claimed, error)
        ends = error is not None and again_at is None
        climb_to = self.next_lane(claimed) if ends else None
        label, calibrated = self._calibrated(claimed.decision, completion)
        tried = Tried(
            id=claimed.id,
            model=self.model,
            fingerprint=self.fingerprint,
            raw=completion.raw,
            label=label,
            probabilities=completion.probabilities,
            calibrated=calibrated,
            mass=completion.mass,
            truncated=completion.truncated,
            tokens_in=completion.tokens_in,
            tokens_out=completion.tokens_out,
            tokens_cached=completion.tokens_cached,
            cost_micros=completion.cost_micros,
            waiting_us=max(0, begun - claimed.queued_at),
            inference_us=int(completion.inference_s * SECOND),
            error="" if error is None else str(error) or type(error).__name__,
            again_at=again_at,
            unknown_charge_micros=None if error is None else error.unknown_charge_micros,
            attempt_id=attempt_id,
            climb_to=climb_to,
            lower=self.lower(claimed) if ends and climb_to is None else None,
        )
        tell_attempt(self._lane, claimed, tried, begun, self._clock())
        return tried

    def lost_call(self, claimed: Claimed) -> Tried:
        """A call whose worker was lost, as a failure that is not repeated on this lane."""
        climb_to = self._next_lane(claimed)  # within a transaction, which asks nothing else
        return Tried(
            claimed.id, self.model, self.fingerprint, error=LOST, climb_to=climb_to,
            lower=self.lower(claimed) if climb_to is None else None,
        )  # fmt: skip

    def next_lane(self, claimed: Claimed) -> tuple[int, str] | None:
        """The next hop of a decision's plan that may still be taken, with its lane.

        A lane whose provider is not called now is waited for only where there is no other.
        """
        found = self._next_lane(claimed)
        if found is None or not self._catalog.is_paid(found[1]):
            return found
        return self._next_lane(claimed, self._closed()) or found

    def _next_lane(
        self, claimed: Claimed, closed: Container[str] = frozenset()
    ) -> tuple[int, str] | None:
        lanes = plan_of(claimed).lanes
        privacy = privacy_of(claimed.decision, self._catalog)
        hop = next_hop(lanes, claimed.hop, self._catalog, privacy, closed)
        return None if hop is None else (hop, lanes[hop])

    def lower(self, claimed: Claimed) -> Plan | None:
        """A decision's plan with a free lane that it has not tried, for when it has no other.

        None stands in for a lane that audits or votes: its word is what it is asked for.
        """
        if claimed.audits:
            return None
        if claimed.parent_id is not None and claimed.decision.key.startswith(PANEL_KEY):
            return None
        return lower_plan(claimed.decision, plan_of(claimed), claimed.hop, self._catalog)

    def _deadline(self, claimed: Claimed) -> float | None:
        """A deadline of the ledger's clock on the clock of backends."""
        if claimed.deadline_at is None:
            return None
        return time.monotonic() + (claimed.deadline_at - self._clock()) / SECOND

    def sampling(self, decision: Decision) -> Sampling:
        """How an answer is drawn: the lane's way, with what the decision wants otherwise.

        A bound of tokens is the most that an answer may have, not what it needs: where prompt and
        bound would not fit the model together, the bound is what is left.
        """
        sampling, output = self._catalog.sampling(self._lane), decision.output
        if isinstance(output, ChoiceOutput):
            return sampling
        wishes = {
            "max_tokens": self._bound(decision, output.max_tokens),
            "stops": getattr(output, "stops", None),
            "temperature": output.temperature,
            "top_p": output.top_p,
        }
        changes = {name: wish for name, wish in wishes.items() if wish is not None}
        return sampling.model_copy(update=changes) if changes else sampling

    def _bound(self, decision: Decision, asked: int | None) -> int | None:
        if asked is None:
            return None
        letters = len(decision.system.encode()) + len(decision.prompt.encode())
        left = self._context - letters // BYTES_PER_TOKEN - MARKUP_TOKENS
        # A prompt that leaves no room is the backend's to refuse, which counts its tokens.
        return min(asked, left) if left >= LEAST_TOKENS else asked

    def _calibrated(
        self, decision: Decision, completion: Completion
    ) -> tuple[str | None, tuple[float, ...] | None]:
        """The best label after correction and the corrected probabilities, where one applies."""
        output, own = decision.output, completion.probabilities
        if self._calibrations is None or own is None or not isinstance(output, ChoiceOutput):
            return completion.label, None
        adapter = adapter_of(decision, self._catalog, self._lane)
        correction = self._calibrations.find(decision.kind, decision.template, adapter)
        labels = output.labels
        if correction is None or not correction.fits(labels) or len(own) != len(labels):
            return completion.label, None
        found = correction.apply(labels, own)
        return labels[found.index(max(found))], found

    def _again_at(self, claimed: Claimed, error: BackendError) -> int | None:
        lane = self._catalog.lanes[self._lane]
        charged = error.unknown_charge_micros is not None
        retry = after_failure(
            tries=claimed.tries + 1,
            max_tries=lane.max_attempts,
            retryable=error.retryable and (lane.repeat_unknown_charges or not charged),
            retry_after_s=error.retry_after_s,
            rng=random.Random(f"{claimed.id}.{claimed.tries}"),
        )
        return self._clock() + int(retry.delay_s * SECOND) if retry.again else None


def draw_seed(decision: Decision, lane: str, tries: int) -> int:
    """The seed of one call's sampling: the decision's own, moved on for each lane and try, and
    with each decision that wants a sample of its own."""
    text = f"{decision.seed}.{lane}.{tries}"
    if decision.preferences.own_sample:
        text += f".{decision.key}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
