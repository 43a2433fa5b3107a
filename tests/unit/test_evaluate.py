"""``uptier evaluate`` on traces and on a run: its figures, its shape, and what it refuses."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert

from cli import main
from ledger.database import writing
from ledger.records import StoredVerdict
from ledger.tables import TABLES, Attempt, Decision, Run
from routing.attempts import Question, Tried, tabulate
from routing.cascade import learn
from routing.decision import ChoiceOutput
from routing.evaluation import ESCALATING, evaluate
from routing.guarantee import Goal, guarantee
from routing.learnt import learnt_of
from routing.offpolicy import Seen, logged
from routing.ordering import measure
from tests.unit.ledgers import fresh

KEYS = {
    "trace", "rows", "singles", "top", "policy", "guarantee", "ordering", "calibration_error",
    "random_at_same_rate", "oracle", "frontier",
}  # fmt: skip


def questions(seed: int, n: int, *, confident: bool = True, top: float = 0.85) -> list[Question]:
    """A cheap model that knows when it is right, a good one, and a dear one that is worse."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        truth, sure = "ab"[i % 2], float(rng.uniform(0.3, 1))
        rights = (rng.random() < sure, rng.random() < top, rng.random() < 0.5)
        tried = tuple(
            Tried(truth if right else "ba"[i % 2], sure if confident else None, cost, bool(right))
            for right, cost in zip(rights, (0.001, 0.1, 0.3), strict=True)
        )
        found.append(Question("easy" if i % 3 else "hard", tried))
    return found


MODELS = ("small", "good", "dear")


def write(path: Path, rows: list[Question]) -> Path:
    lines = [
        {
            "id": f"q{i}", "task_type": q.kind, "split": ("calibration", "test")[i // 2 % 2],
            "attempts": [
                {"tier": t, "model": m, "answer": a.answer, "cost_usd": a.cost_usd,
                 "correct": a.correct, "latency_ms": 3.5}
                | ({} if a.confidence is None else {"confidence": a.confidence})
                for t, (m, a) in enumerate(zip(MODELS, q.tried, strict=True), start=1)
            ],
        }
        for i, q in enumerate(rows)
    ]  # fmt: skip
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main.run(["evaluate", *arguments])
    got = capsys.readouterr()
    return status, got.out, got.err


def test_a_trace_gives_the_object_that_was_promised(tmp_path, capsys):
    path = write(tmp_path / "some.jsonl.gz", questions(1, 1600))
    status, out, _ = run(capsys, str(path), "--json", "--resplits", "3")
    found = json.loads(out)
    assert status == 0
    assert found.keys() >= KEYS
    assert found["trace"] == "some"
    assert found["top"] == "good"
    assert found["rows"] == 800
    assert found["guarantee"]["certified"] is True
    assert found["guarantee"]["violation_rate"] == 0.0
    assert found["policy"]["cost_ratio"] < 0.9
    assert sum(found["policy"]["lane_share"].values()) == pytest.approx(1)
    assert found["policy"]["accuracy"] > found["random_at_same_rate"]["accuracy"]
    assert found["oracle"]["accuracy"] >= found["policy"]["accuracy"]
    assert set(found["calibration_error"]) == set(MODELS)
    assert found["frontier"] == sorted(found["frontier"])


def test_the_same_seed_gives_the_same_figures(tmp_path, capsys):
    path = write(tmp_path / "t.jsonl.gz", questions(1, 400))
    first = run(capsys, str(path), "--json", "--resplits", "2", "--seed", "4")[1]
    assert first == run(capsys, str(path), "--json", "--resplits", "2", "--seed", "4")[1]


def test_several_traces_are_a_list_and_tables_name_each(tmp_path, capsys):
    one = write(tmp_path / "one.jsonl.gz", questions(1, 400))
    two = write(tmp_path / "two.jsonl.gz", questions(2, 400))
    assert [x["trace"] for x in json.loads(run(capsys, str(one), str(two), "--json")[1])] == [
        "one",
        "two",
    ]
    status, out, _ = run(capsys, str(one), "--resplits", "2")
    assert status == 0
    assert "one: 200 test rows, top good" in out
    assert "2 random halves" in out


def test_without_confidences_only_the_kind_decides():
    rows = tabulate(MODELS, questions(3, 2000, confident=False))
    path = learn(rows)
    assert not path.steps
    found = evaluate(rows, rows, Goal(0.9))
    assert found.calibration_error == {}
    assert found.ordering.apgr is not None


def test_a_target_that_nothing_meets_escalates_everything(tmp_path, capsys):
    rows = questions(5, 120, top=1.0)
    path = write(tmp_path / "t.jsonl.gz", rows)
    status, out, _ = run(capsys, str(path), "--target", "1", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["guarantee"]["certified"] is False
    assert found["guarantee"]["note"] == ESCALATING
    assert found["policy"]["lane_share"] == {"small": 0.0, "good": 1.0, "dear": 0.0}
    assert found["policy"]["relative_accuracy"] == 1.0
    assert ESCALATING in run(capsys, str(path), "--target", "1")[1]


def test_a_certified_policy_keeps_its_goal_on_rows_to_come():
    goal, broken = Goal(0.95, 0.1), 0
    for seed in range(30):
        rows = tabulate(MODELS, questions(100 + seed, 800))
        broken += evaluate(rows.take(np.arange(400)), rows.take(np.arange(400, 800)), goal).violated
    assert broken <= 5


def test_a_dearer_model_that_is_worse_is_never_asked():
    found = guarantee(tabulate(MODELS, questions(1, 1000)), Goal())
    assert found.path.models[found.top] == "good"
    assert 2 not in found.path.starts
    assert all(step.above != 2 for step in found.path.steps)


def test_one_decision_at_a_time_goes_as_all_together_did():
    rows = tabulate(MODELS, questions(1, 600))
    path = learn(rows)
    price = path.prices.size // 2
    together = path.scored(rows).at(path.prices[price], path.starts[price])
    single = learnt_of(rows, path, price)
    for i in range(100):
        kind = rows.kinds[rows.kind[i]]
        model = single.starts[kind]
        place = MODELS.index(model)
        answer = rows.answers[rows.answer[i, place]]
        after = single.next(model, kind, answer, float(rows.confidence[i, place]))
        assert (after or model) == MODELS[together.last[i]]


def test_measures_of_an_ordering_by_hand():
    gain = np.array([1.0, 1.0, 0.0, 0.0])
    best = measure(gain, np.array([4.0, 3.0, 2.0, 1.0]), np.ones(4))
    assert (best.apgr, best.cpt50, best.cpt80) == pytest.approx((0.75, 0.25, 0.4))
    none = measure(gain, np.zeros(4), np.ones(4))
    assert (none.apgr, none.cpt50, none.cpt80) == pytest.approx((0.5, 0.5, 0.8))
    assert measure(-gain, gain, np.ones(4)).apgr is None


def test_audited_rows_stand_for_those_that_chance_left_out():
    easy, hard = Tried("a", 0.9, 1, True), Tried("b", 0.4, 1, False)
    above = Tried("a", None, 10, True)
    seen = [Seen("k", {"tier1": easy}) for _ in range(450)]
    seen += [Seen("k", {"tier1": easy, "tier2": above}, 0.1) for _ in range(50)]
    seen += [Seen("k", {"tier1": hard, "tier2": above}) for _ in range(100)]
    found = logged(seen, ["tier1", "tier2", "tier3"])
    assert found.attempts is not None
    assert (found.complete, found.unseen, found.covered) == (150, 450, 1.0)
    assert found.attempts.accuracy[0] == pytest.approx(500 / 600)
    assert logged(seen[:50], ["tier1", "tier2"]).attempts is None


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--target", "1.5"], "target 1.5"),
        (["--target", "0"], "target 0"),
        (["--delta", "1"], "delta 1"),
        (["--plot", "x.jpg"], "x.jpg"),
        (["--plot", "no/such/folder/x.png"], "make it first"),
        (["--run", "none"], "either traces"),
    ],
)
def test_wrong_options_are_one_line(arguments, names, tmp_path, capsys):
    path = write(tmp_path / "t.jsonl.gz", questions(1, 100))
    status, out, err = run(capsys, str(path), *arguments)
    assert (status, out) == (2, "")
    assert names in err
    assert err.count("\n") == 1


def test_a_run_that_is_not_there_and_nothing_at_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    status, _, err = run(capsys, "--run", "none", "--profile", "tiny")
    assert (status, "'none' is not in the ledger" in err) == (2, True)
    status, _, err = run(capsys)
    assert (status, "name what to evaluate" in err) == (2, True)


def _line(**changed: object) -> str:
    attempt = {"tier": 1, "model": "m", "answer": "a", "cost_usd": 0.1, "correct": True}
    row = {"id": "1", "task_type": "k", "split": "test", "attempts": [attempt]}
    return json.dumps(row | changed) + "\n"


OTHER = [{"tier": 1, "model": "n", "answer": "a", "cost_usd": 0.1, "correct": True}]
UNSURE = [{"tier": 1, "model": "m", "confidence": 1.5, "cost_usd": 0.1, "correct": True}]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"plain text", "is not gzip"),
        (gzip.compress(b"{broken\n", mtime=0), "line 1"),
        (gzip.compress(b"\xff\xfe\n", mtime=0), "not UTF-8"),
        (gzip.compress(b"", mtime=0), "no rows"),
        (gzip.compress(_line().encode(), mtime=0)[:-9], "cut off"),
        (gzip.compress(_line(split="train").encode(), mtime=0), "split"),
        (gzip.compress(_line(attempts=[]).encode(), mtime=0), "attempts"),
        (gzip.compress(_line(attempts=UNSURE).encode(), mtime=0), "confidence"),
        (gzip.compress((_line() + _line(id="2", attempts=OTHER)).encode(), mtime=0), "line 2"),
        (gzip.compress((_line() + _line()).encode(), mtime=0), "twice"),
        (gzip.compress(_line().encode(), mtime=0), "takes 20 on each"),
    ],
)
def test_bad_traces_are_one_line(content, names, tmp_path, capsys):
    path = tmp_path / "bad.jsonl.gz"
    path.write_bytes(content)
    plot = tmp_path / "plot.png"
    status, out, err = run(capsys, str(path), "--plot", str(plot))
    assert (status, out) == (2, "")
    assert names in err
    assert err.count("\n") == 1
    assert not plot.exists()


def test_a_plot_is_a_png(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = write(tmp_path / "t.jsonl.gz", questions(1, 200))
    assert run(capsys, str(path), "--plot", str(tmp_path / "p.png"))[0] == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*part"))


def _ledger(folder: Path, decisions: int, *, climbing: int) -> None:
    """A run ``r`` in which the first ``climbing`` decisions climbed to the second lane."""
    verdict = StoredVerdict(format=1, completeness=1, coherence=1, score=1, passed=True,
                            usable=True, answer="a", p_answer=0.7)  # fmt: skip
    output = ChoiceOutput(labels=("a", "b")).model_dump_json()
    plan = {"kind": "k", "prompt": "?", "output": output, "plan": "{}", "lane": "tier1",
            "state": "settled", "created_at": 1, "queued_at": 1, "run_id": "r"}  # fmt: skip
    rows = [
        Decision(id=f"{i:05}", key=str(i), expected="ab"[i % 2], **plan) for i in range(decisions)
    ]
    tries = [
        Attempt(id=f"{lane}{row.id}", decision_id=row.id, lane=lane, number=1, model="m",
                outcome="answered", created_at=1, inference_us=2_000_000,
                verdict=verdict.model_copy(update={"answer": answer}).model_dump_json())
        for row in rows
        for lane, answer in (("tier1", "a"), ("tier2", row.expected))
        if lane == "tier1" or int(row.id) < climbing
    ]  # fmt: skip
    engine = fresh(folder)
    with writing(engine) as connection:
        run = Run(id="r", mode="batch", profile="tiny", created_at=1)
        for table, values in (("run", [run]), ("decision", rows), ("attempt", tries)):
            connection.execute(insert(TABLES.tables[table]), [v.model_dump() for v in values])
    engine.dispose()


def test_a_run_is_scored_on_what_was_tried_on_every_lane(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    _ledger(tmp_path, 400, climbing=300)
    status, out, err = run(capsys, "--run", "r", "--profile", "tiny", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["rows"] == 150
    assert found["top"] == "tier2"
    assert found["singles"]["tier2"] == {"accuracy": 1.0, "cost_usd": 2.0}
    assert found["singles"]["tier1"]["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert found["cost_unit"] == "seconds"
    assert "100 decisions were not tried on every lane" in err


def test_a_run_with_too_few_rows_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    _ledger(tmp_path, 120, climbing=40)
    status, out, err = run(capsys, "--run", "r", "--profile", "tiny")
    assert (status, out) == (2, "")
    assert "tier1 120, tier2 40" in err
    assert "it takes 100" in err
