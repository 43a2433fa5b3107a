"""What policies save on recorded traces, beside what needs no policy; with confidence intervals.

``python -m benchmarks.cascade --traces DIR`` prints a table a trace. Intervals are of 95 %, by
resampling the test rows (bootstrap percentiles); the policy stays what it was.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from producers.traces import Trace, read_trace
from routing.attempts import Attempts
from routing.cascade import Outcome
from routing.evaluation import Evaluation, evaluate, resplits
from routing.guarantee import Goal, guarantee
from routing.naive import empirical_price, empirical_threshold

HERE = Path(__file__).resolve().parent
DEFAULT = HERE.parent.parent / "shared" / "traces"
BOOTSTRAPS = 1000
AIMS = {
    "frugalml-ferplus": "relative accuracy 1 at a cost ratio of .33 or less",
    "frugalml-rafdb": "relative accuracy 1 at a cost ratio of .50 or less",
    "frugalml-digit": "relative accuracy 1 at a cost ratio of .56 or less",
    "routellm-mmlu": "APGR .66 or more; published routers .603",
}


def main() -> None:
    """Read the arguments and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    folder = Path(os.environ.get("UPTIER_TRACES", DEFAULT))
    parser.add_argument("--traces", type=Path, default=folder, help="folder of *.jsonl.gz")
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--delta", type=float, default=0.1)
    parser.add_argument("--resplits", type=int, default=0, help="random halves, for violations")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    paths = sorted(given.traces.glob("*.jsonl.gz"))
    if not paths:
        parser.error(f"no *.jsonl.gz in {given.traces}: name their folder with --traces")
    goal = Goal(given.target, given.delta)
    for path in paths:
        show(read_trace(path), goal, given.resplits, given.seed)


def show(trace: Trace, goal: Goal, halves: int, seed: int) -> None:
    """Print one trace's tables."""
    learnt = trace.attempts.take(trace.calibration)
    rows = trace.attempts.take(~trace.calibration)
    found = evaluate(learnt, rows, goal, seed)
    print(f"\n{trace.name}: {len(learnt)} calibration rows, {found.rows} test rows, "
          f"top {found.top}, seed {seed}")  # fmt: skip
    print(f"  {'':30} {'accuracy':>9} {'relative (95 %)':>24} {'cost ratio (95 %)':>24}")
    for name, outcome in _outcomes(learnt, rows, goal, seed).items():
        low, high, cheap, dear, relative, cost = _interval(rows, outcome, learnt.top, seed)
        accuracy = float(rows.mean(outcome.correct))
        print(f"  {name:30} {accuracy:9.4f}  {relative:7.4f} [{low:.4f}, {high:.4f}]"
              f"  {cost:7.4f} [{cheap:.4f}, {dear:.4f}]")  # fmt: skip
    _sum_up(found, trace.name)
    if halves:
        again = resplits(trace.attempts, goal, halves, seed)
        print(f"  {halves} random halves: violated {again.violation_rate:.3f}, cost ratio "
              f"{again.cost_ratio:.4f}, certified {again.certified_share:.3f}")  # fmt: skip
        for name, one in (("naive threshold", again.naive), ("no bound", again.unbounded)):
            print(f"    {name}: violated {one.violation_rate:.3f}, cost ratio "
                  f"{one.cost_ratio:.4f}; ours by it {one.cost or 0:.3f}, where it met the target "
                  f"{one.cost_where_met or 0:.3f}")  # fmt: skip


def _sum_up(found: Evaluation, name: str) -> None:
    order = found.ordering
    full = [cost for cost, relative in found.frontier if relative >= 1]
    at = f"{min(full):.4f}" if full else "nowhere"
    print(f"  relative accuracy 1 at a cost ratio of {at}; aim: {AIMS.get(name, 'none')}")
    if order.apgr is not None:
        print(f"  APGR {order.apgr:.4f}, CPT(50 %) {order.cpt50:.4f}, CPT(80 %) {order.cpt80:.4f}")
    errors = (f"{m} {found.stated_error[m]:.3f} -> {e:.3f}"
              for m, e in found.calibration_error.items())  # fmt: skip
    print(f"  ECE: {', '.join(errors) or 'no confidences'}")


def _outcomes(learnt: Attempts, rows: Attempts, goal: Goal, seed: int) -> dict[str, Outcome]:
    found = guarantee(learnt, goal, seed)
    scored = found.path.scored(rows)
    cheapest = learnt.worthwhile[0]
    all_of = {m: _always(rows, m) for m in (cheapest, found.top)}

    def at(price: int | None) -> Outcome:
        if price is None:
            return all_of[found.top]
        return scored.at(found.path.prices[price], found.path.starts[price])

    policy = at(found.certified)
    threshold = empirical_threshold(learnt, goal.target)
    shown = {
        "always cheapest": all_of[cheapest],
        "always top": all_of[found.top],
        "policy, certified" if found.certified is not None else "not certifiable": policy,
        "random at the same rate": _random(rows, policy, seed),
        "policy without a bound": at(empirical_price(learnt, found.path, goal.target)),
        "oracle": _oracle(rows),
    }
    return shown | ({"naive threshold": threshold.outcome(rows)} if threshold else {})


def _always(rows: Attempts, model: int) -> Outcome:
    last = np.full(len(rows), model)
    return Outcome(rows.correct[:, model], rows.cost[:, model], last)


def _random(rows: Attempts, policy: Outcome, seed: int) -> Outcome:
    order = np.random.default_rng(seed).permutation(len(rows))
    last = policy.last[order]
    return Outcome(rows.correct[np.arange(len(rows)), last], policy.cost, last)


def _oracle(rows: Attempts) -> Outcome:
    price = np.where(rows.correct > 0, rows.cost, np.inf)
    last = np.where(np.isinf(price.min(axis=1)), rows.cost.argmin(axis=1), price.argmin(axis=1))
    every = np.arange(len(rows))
    return Outcome(rows.correct.max(axis=1), rows.cost[every, last], last)


def _interval(rows: Attempts, outcome: Outcome, top: int, seed: int) -> tuple[float, ...]:
    """Both ends of relative accuracy and of cost ratio, then the two on all test rows."""
    columns = np.stack(
        [outcome.correct, rows.correct[:, top], outcome.cost, rows.cost[:, top]], axis=1
    )
    rng = np.random.default_rng(seed)
    sums = np.stack(
        [columns[rng.integers(0, len(rows), len(rows))].sum(axis=0) for _ in range(BOOTSTRAPS)]
    )
    ends = [np.quantile(sums[:, k] / sums[:, k + 1], (0.025, 0.975)) for k in (0, 2)]
    whole = columns.sum(axis=0)
    return (*map(float, ends[0]), *map(float, ends[1]), float(whole[0] / whole[1]),
            float(whole[2] / whole[3]))  # fmt: skip


if __name__ == "__main__":
    main()
