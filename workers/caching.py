"""What a worker does with the cache: serve from it, put into it, and mistrust it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from config.catalog import Catalog, OutputType
from ledger import cache
from ledger.answers import Answered
from ledger.cache import BELOW, Cached
from ledger.cache_audits import Audit, agreement, close_audits, open_audits, trim_audits
from ledger.clock import SECOND, Clock
from ledger.patience import patiently
from ledger.records import Claimed, Hit, plan_of
from ledger.rulings import Settlement
from routing.consensus import panel_of, policy_fingerprint
from routing.decision import CacheScope, Decision, Settled, Status
from routing.fingerprint import Place, place_of, policy_of, privacy_domain
from routing.similar import Trust, trust
from workers.embedding import Embedder, nearest, open_embedder, packed

log = logging.getLogger(__name__)

ABOVE = "this question was answered before, further up its plan"
AUDIT_WINDOWS = 4
"""Audits of a kind that are kept, by the windows that are looked at: who raises the similarity
finds older ones at it still."""
RECOUNT_US = 60 * SECOND
"""How long a kind's trust stands before its audits are counted again."""


class Memory:
    """The cache as one process uses it. Safe to share between threads."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        engine: Engine,
        clock: Clock,
        fingerprint_of: Callable[[str], str | None] | None = None,
    ) -> None:
        """``fingerprint_of`` tells what serves a lane, or ``None`` where this process cannot
        know; without it only answers of the lane itself are served."""
        self._catalog = catalog
        self._fingerprint_of = fingerprint_of
        self._rules = catalog.cache
        self._engine = engine
        self._clock = clock
        self._embedder: Embedder | None = None
        if any(kind.semantic for kind in catalog.kinds.values()):
            self._embedder = open_embedder(catalog.cache.embedder)
        self._embedded_by = "" if self._embedder is None else self._embedder.name
        self._trusts: dict[str, tuple[Trust, int]] = {}
        # More than these stored by this process, and the bound is looked at: counting is not free.
        self._slack = self._rules.max_entries // 100
        self._stored = self._slack

    def serve(self, claimed: Sequence[Claimed], lane: str, fingerprint: str) -> list[Hit]:
        """Answers for those of ``claimed`` for which the cache has one of this lane's model."""
        asked = {
            c.id: _Asked(c.id, c.decision, self._place(c.decision, c.run_id, lane, fingerprint))
            for c in claimed
            if may_cache(self._catalog, c.decision)
        }
        if not asked:
            return []
        keys = [one.place.key for one in asked.values()]
        found = patiently(cache.look_up, self._engine, keys, self._clock())
        hits = [
            Hit(one.id, entry.answer, entry.lane, entry.p_answer)
            for one in asked.values()
            if (entry := found.get(one.place.key)) is not None
        ]
        served = {hit.id for hit in hits}
        hits += self._serve_from_above(
            [(c, asked[c.id].place.key) for c in claimed if c.id in asked and c.id not in served]
        )
        served = {hit.id for hit in hits}
        missed = [one for one in asked.values() if one.id not in served]
        return hits + self._serve_alike([one for one in missed if self._seeks(one.decision)])

    def _serve_from_above(self, missed: Sequence[tuple[Claimed, str]]) -> list[Hit]:
        """What a lane further up the plan has answered to the very question: this lane was passed
        over for it or has failed at it, and would only fail once more. Or, where the plan begins,
        what the whole of it came to below the bar. Each is given with its key on this lane."""
        if self._fingerprint_of is None:
            return []
        asked: dict[str, list[str]] = {}
        for one, own in missed:
            above_it = self._keys(one.decision, one.run_id, plan_of(one).lanes[one.hop + 1 :])
            ladder = [ladder_key([own, *above_it])] if one.hop == 0 else []
            asked[one.id] = above_it + ladder
        wanted = [key for some in asked.values() for key in some if key]
        found = patiently(cache.fetch, self._engine, wanted, self._clock())
        above, used = [], []
        for name, some in asked.items():
            key = next((key for key in some if key in found), None)
            if key is not None:
                above.append(_as_hit(name, found[key]))
                used.append(key)
        patiently(cache.count_hits, self._engine, used, self._clock())
        return above

    def _keys(self, decision: Decision, run_id: str, lanes: Sequence[str]) -> list[str]:
        """The question's key on each lane; empty where it is not known what serves it."""
        prints = [(lane, self._fingerprint_of(lane)) for lane in lanes if self._fingerprint_of]
        return [self._place(decision, run_id, lane, p).key if p else "" for lane, p in prints]

    def keep_degraded(self, ended: Sequence[tuple[Answered, Settled, Mapping[str, str]]]) -> None:
        """Keep what choices came to below the bar: asked again, all lanes would say the same.

        With each goes what served the lanes that were asked, by their names.
        """
        rows = []
        for answered, settled, heard in ended:
            decision = answered.decision
            if settled.status is not Status.DEGRADED or not self._would_repeat(answered, heard):
                continue
            key = ladder_key(self._keys(decision, answered.run_id, answered.plan.lanes))
            if key:
                ttl_us = int(self._rules.degraded_ttl_s * SECOND)
                rows.append(
                    Cached(key, settled.answer, settled.lane or answered.lane, settled.p_answer,
                           decision.kind, self._clock() + ttl_us, status=Status.DEGRADED)
                )  # fmt: skip
        patiently(cache.store, self._engine, rows, self._clock())
        self._stored += len(rows)

    def _would_repeat(self, answered: Answered, heard: Mapping[str, str]) -> bool:
        """Whether all lanes of the plan were asked, are served as they were, and nobody else had
        a part: a provider that was away, or a critic that was silent, may be back any minute."""
        decision, lanes = answered.decision, answered.plan.lanes
        alone = not self._catalog.kind(decision.kind).critique and not any(
            panel_of(self._catalog, lane, decision.kind) for lane in lanes
        )
        return (
            decision.output.type is OutputType.CHOICE
            and answered.parent_id is None
            and self._may_keep(answered)
            and alone
            and self._fingerprint_of is not None
            and all(heard.get(lane, "") == self._fingerprint_of(lane) for lane in lanes)
        )

    def keep(self, settled: Sequence[tuple[Answered, Settlement]]) -> None:
        """Keep accepted answers, and compare those that are audits."""
        audited = {a.id: s.answer for a, s in settled if self._is_semantic(a.decision)}
        patiently(close_audits, self._engine, audited)
        entries = [self._entry(a, s) for a, s in settled if self._may_keep(a)]
        patiently(cache.store, self._engine, entries, self._clock())
        self._stored += len(entries)
        if self._stored > self._slack:
            most = self._rules.max_entries - self._slack
            patiently(cache.trim, self._engine, most, self._clock())
            if self._embedder is not None:
                patiently(trim_audits, self._engine, AUDIT_WINDOWS * self._rules.audit_window)
            self._stored = 0

    def _may_keep(self, answered: Answered) -> bool:
        # A lane can be unknown here: its key may stand in the other workers' environment alone.
        return answered.lane in self._catalog.lanes and may_cache(self._catalog, answered.decision)

    def _place(self, decision: Decision, run_id: str, lane: str, fingerprint: str) -> Place:
        model = policy_fingerprint(fingerprint, self._catalog, lane, decision.kind)
        return place_of(
            decision, run_id, model, policy_of(decision, self._catalog, lane),
            embedder=self._embedded_by,
            any_numbers=self._catalog.kind(decision.kind).any_numbers,
            exact=self._catalog.kind(decision.kind).cache_exact,
        )  # fmt: skip

    def _is_semantic(self, decision: Decision) -> bool:
        """Whether its prompt may be compared. A vector can be turned back into much of its text,
        so private prompts have none."""
        return (
            self._embedder is not None
            and self._catalog.kind(decision.kind).semantic
            and privacy_domain(decision) == "open"
        )

    def _seeks(self, decision: Decision) -> bool:
        return self._is_semantic(decision) and self._trust(decision.kind) is not Trust.OFF

    def _serve_alike(self, asked: Sequence[_Asked]) -> list[Hit]:
        near = self._nearest(asked)
        keys = [key for _, key, _ in near]
        found = patiently(cache.fetch, self._engine, keys, self._clock())
        hits, audits, used = [], [], []
        for one, key, cosine in near:
            entry, kind = found.get(key), one.decision.kind
            if entry is None:  # it left in between
                continue
            if self._audits(kind, one.id):
                audits.append(Audit(one.id, kind, self._embedded_by, cosine, entry.answer))
                continue
            why = f"a question alike was answered before (similarity {cosine:.3f})"
            hits.append(Hit(one.id, entry.answer, entry.lane, entry.p_answer, why, alike=True))
            used.append(key)
        patiently(open_audits, self._engine, audits, self._clock())
        patiently(cache.count_hits, self._engine, used, self._clock())
        return hits

    def _nearest(self, asked: Sequence[_Asked]) -> list[tuple[_Asked, str, float]]:
        """Those that are alike enough to something kept, with its key and their cosine."""
        spaces = [one.place.space for one in asked if one.place.space is not None]
        if not spaces or self._embedder is None:
            return []
        kept = patiently(cache.vectors, self._engine, spaces, self._clock())
        seeking = [(one, kept[s]) for one in asked if (s := one.place.space) in kept]
        found = []
        rows = self._embedder.embed([one.place.prompt for one, _ in seeking])
        for (one, entries), vector in zip(seeking, rows, strict=True):
            index, cosine = nearest(vector, [packed for _, packed in entries])
            if cosine >= self._threshold(one.decision.kind):
                found.append((one, entries[index][0], cosine))
        return found

    def _audits(self, kind: str, decision_id: str) -> bool:
        """Whether a semantic hit is answered for real: all while on trial, then a random share,
        drawn from the decision's id."""
        if self._trust(kind) is not Trust.ON:
            return True
        drawn = hashlib.sha256(f"audit.{decision_id}".encode()).digest()[:8]
        return int.from_bytes(drawn, "big") < self._rules.audit_share * 2**64

    def _trust(self, kind: str) -> Trust:
        before, since = self._trusts.get(kind, (Trust.TRIAL, -RECOUNT_US))
        now = self._clock()
        if now - since < RECOUNT_US:
            return before
        rules = self._rules
        count = patiently(
            agreement, self._engine, kind, self._embedded_by, self._threshold(kind),
            rules.audit_window,
        )  # fmt: skip
        found = trust(count.agreed, count.audited, rules.agreement_floor, rules.confidence)
        self._trusts[kind] = (found, now)
        if found is not before:
            log.warning(
                "semantic cache of %s is %s: %d of %d audited answers agree", kind, found.value,
                count.agreed, count.audited,
            )  # fmt: skip
        return found

    def _threshold(self, kind: str) -> float:
        own = self._catalog.kind(kind).similarity
        return self._rules.similarity if own is None else own

    def _entry(self, answered: Answered, settlement: Settlement) -> Cached:
        decision = answered.decision
        place = self._place(decision, answered.run_id, answered.lane, answered.fingerprint)
        space = vector = None
        if self._embedder is not None and self._is_semantic(decision):
            space, vector = place.space, packed(self._embedder.embed([place.prompt])[0])
        own = self._catalog.kind(decision.kind).cache_ttl_s
        ttl_s = self._rules.ttl_s if own is None else own
        expires_at = None if ttl_s is None else self._clock() + int(ttl_s * SECOND)
        return Cached(
            place.key, settlement.answer, answered.lane, settlement.p_answer, decision.kind,
            expires_at, space, vector,
        )  # fmt: skip


def ladder_key(keys: Sequence[str]) -> str:
    """The key of what all lanes of a plan together came to; empty if one of them is not known."""
    if not all(keys):
        return ""
    return hashlib.sha256(json.dumps(["ladder", *keys]).encode()).hexdigest()


def _as_hit(decision_id: str, entry: Cached) -> Hit:
    if entry.status is Status.DEGRADED:
        return Hit(decision_id, entry.answer, entry.lane, entry.p_answer, BELOW, Status.DEGRADED)
    return Hit(decision_id, entry.answer, entry.lane, entry.p_answer, ABOVE)


@dataclass(frozen=True)
class _Asked:
    id: str
    decision: Decision
    place: Place


def may_cache(catalog: Catalog, decision: Decision) -> bool:
    """Whether an earlier answer may serve: the kind allows it, and the asker does."""
    wishes = decision.preferences
    allowed = wishes.cache is not CacheScope.OFF and not wishes.own_sample
    return allowed and catalog.kind(decision.kind).cache
