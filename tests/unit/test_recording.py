"""Answers of one run, given to another: exactly those, or an error that names what is missing."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config.catalog import Catalog
from config.errors import InputError
from config.load import KINDS, read_toml
from ledger.recordings import all_recorded, find_recorded, put_replayed, question_digest
from ledger.runs import RunInfo, start_run
from producers.asking import Settling
from producers.recording import FileRecording, Replayer, RunRecording, write_recording
from routing.decision import ChoiceOutput, Decision, Settled, Status
from tests.unit.catalogs import catalog
from tests.unit.ledgers import fresh, rows

LABELS = ChoiceOutput(labels=("A", "B"))
CONFIG = {"agents": 3, "days": 1, "seed": 5, "teams": 1}


def question(number: int, prompt: str | None = None) -> Decision:
    return Decision(kind="next_action", prompt=prompt or f"What about {number}?", output=LABELS,
                    key=f"k{number}", system="Choose.", template="next_action@1")  # fmt: skip


@pytest.fixture(scope="module")
def known() -> Catalog:
    data = read_toml(KINDS / "eddt.toml")
    return catalog(kinds=data["kinds"], routing=data["routing"])


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return fresh(tmp_path)


@pytest.fixture
def recorded(engine: Engine, known: Catalog) -> RunInfo:
    """A run with three settled decisions."""
    run = start_run(engine, mode="simulate", profile="x", now=1, config=CONFIG)
    first = find_recorded(engine, run.id, [])
    assert first == {}
    from ledger.recordings import Recorded

    items = [
        (question(n), Recorded(f"k{n}", "", status, f"answer {n}", lane, p, n))
        for n, (status, lane, p) in enumerate(
            [(Status.ACCEPTED, "tier1", 0.25), (Status.DEGRADED, "tier2", None),
             (Status.FALLBACK, None, None)]
        )
    ]  # fmt: skip
    put_replayed(engine, run.id, items, source="a test", catalog=known, now=2)
    return run


class Live:
    """Somebody who can be asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def submit(self, decisions: Sequence[Decision]) -> list[str]:
        self.asked += [decision.key for decision in decisions]
        return [f"live-{decision.key}" for decision in decisions]

    def wait_some(self, ids: Sequence[str]) -> list[Settled]:
        return [
            Settled(id=i, key=i.removeprefix("live-"), kind="next_action",
                    status=Status.ACCEPTED, answer="B")
            for i in ids
        ]  # fmt: skip


def replayer(
    engine: Engine, known: Catalog, source: RunRecording | FileRecording, live: Settling | None
) -> tuple[Replayer, RunInfo]:
    run = start_run(engine, mode="simulate", profile="x", now=3)
    made = Replayer(source, engine=engine, run=run, catalog=known, clock=lambda: 9, live=live)
    return made, run


def test_recorded_answers_come_back_and_are_written_as_replayed(
    engine: Engine, known: Catalog, recorded: RunInfo
) -> None:
    replay, run = replayer(engine, known, RunRecording(engine, recorded), None)
    settled = replay.gather([question(n) for n in (2, 0, 1)])
    assert [(s.key, s.answer, s.lane, s.p_answer, s.climbs) for s in settled] == [
        ("k2", "answer 2", None, None, 2), ("k0", "answer 0", "tier1", 0.25, 0),
        ("k1", "answer 1", "tier2", None, 1),
    ]  # fmt: skip
    assert {s.status for s in settled} == {Status.REPLAYED}
    written = [row for row in rows(engine, "decision") if row["run_id"] == run.id]
    assert {(r["key"], r["status"], r["state"], r["settled_at"]) for r in written} == {
        (f"k{n}", "replayed", "settled", 9) for n in range(3)
    }
    assert [r["reason"] for r in written] == [f"replayed in run {recorded.id}"] * 3
    assert rows(engine, "outbox") == []


def test_a_repeated_submission_writes_nothing_twice(
    engine: Engine, known: Catalog, recorded: RunInfo
) -> None:
    replay, run = replayer(engine, known, RunRecording(engine, recorded), None)
    replay.gather([question(0)])
    replay.gather([question(0), question(1)])
    assert sum(row["run_id"] == run.id for row in rows(engine, "decision")) == 2


def test_a_question_that_is_asked_twice_at_once_comes_back_twice(
    engine: Engine, known: Catalog, recorded: RunInfo
) -> None:
    replay, _ = replayer(engine, known, RunRecording(engine, recorded), None)
    first, again = replay.gather([question(0), question(0)])
    assert first == again
    assert first.answer == "answer 0"


@pytest.mark.parametrize(
    ("asked", "message"),
    [(question(7), "has no answer to k7"), (question(1, "Another?"), "another question under k1")],
)
def test_a_miss_is_an_error_that_names_the_key(
    engine: Engine, known: Catalog, recorded: RunInfo, asked: Decision, message: str
) -> None:
    replay, run = replayer(engine, known, RunRecording(engine, recorded), None)
    with pytest.raises(InputError, match=message):
        replay.gather([question(0), asked])
    assert all(row["run_id"] != run.id for row in rows(engine, "decision"))


def test_what_was_not_recorded_is_asked_where_it_may_be(
    engine: Engine, known: Catalog, recorded: RunInfo
) -> None:
    live = Live()
    replay, _ = replayer(engine, known, RunRecording(engine, recorded), live)
    settled = replay.gather([question(0), question(1, "Another?"), question(7), question(2)])
    assert [s.answer for s in settled] == ["answer 0", "B", "B", "answer 2"]
    assert live.asked == ["k1", "k7"]
    assert (replay.hits, replay.misses) == (2, 2)


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "tool_selection"}, {"system": "Else."}, {"prompt": "Else?"},
        {"template": "next_action@2"}, {"output": ChoiceOutput(labels=("B", "A"))},
    ],
)  # fmt: skip
def test_the_digest_covers_all_that_a_model_is_asked(other: dict[str, object]) -> None:
    one = question(1)
    assert question_digest(one.model_copy(update=other)) != question_digest(one)
    assert question_digest(one.model_copy(update={"seed": 4, "key": "z"})) == question_digest(one)


def test_a_file_holds_the_same_and_equal_runs_give_equal_bytes(
    engine: Engine, known: Catalog, recorded: RunInfo, tmp_path: Path
) -> None:
    paths = [tmp_path / "a.gz", tmp_path / "b.gz"]
    assert [write_recording(engine, recorded, CONFIG, path) for path in paths] == [3, 3]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    source = FileRecording(paths[0])
    assert source.config == CONFIG
    assert dict(source.find(["k0", "k1", "k2", "k9"])) == {
        one.key: one for one in all_recorded(engine, recorded.id)
    }
    replay, _ = replayer(engine, known, source, None)
    assert [s.answer for s in replay.gather([question(0)])] == ["answer 0"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_children_and_cancelled_decisions_are_no_part_of_a_recording(
    engine: Engine, known: Catalog, recorded: RunInfo
) -> None:
    from sqlalchemy import update

    from ledger.database import writing
    from ledger.transitions import DECISIONS

    with writing(engine) as connection:
        found = update(DECISIONS).where(DECISIONS.c.run_id == recorded.id)
        connection.execute(found.where(DECISIONS.c.key == "k0").values(status="cancelled"))
        connection.execute(found.where(DECISIONS.c.key == "k1").values(parent_id="x"))
    assert [one.key for one in all_recorded(engine, recorded.id)] == ["k2"]
    assert set(find_recorded(engine, recorded.id, ["k0", "k1", "k2"])) == {"k2"}


def broken(lines: list[str], path: Path) -> Path:
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


GOOD = {"key": "k", "question": "q", "status": "accepted", "answer": "A", "lane": "tier1",
        "p_answer": None, "climbs": 0}  # fmt: skip
HEADER = {"format": "uptier recording 1", "config": CONFIG, "decisions": 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1, is no JSON object"),
        (["[]"], "line 1, is no JSON object"),
        ([json.dumps({"format": "else"})], "is no recording"),
        ([json.dumps(HEADER)], "holds 0 of 1 decisions: it was cut off"),
        ([json.dumps(HEADER), "{"], "line 2, is no JSON object"),
        ([json.dumps(HEADER), json.dumps(GOOD | {"status": "fine"})], "line 2, is no recorded"),
        ([json.dumps(HEADER), json.dumps({"key": "k"})], "line 2, is no recorded"),
        ([json.dumps(HEADER), json.dumps(GOOD | {"answer": 5})], "line 2, is no recorded"),
        ([json.dumps(HEADER), json.dumps(GOOD | {"answer": None})], "line 2, is no recorded"),
        ([json.dumps(HEADER), json.dumps(GOOD | {"climbs": "many"})], "line 2, is no recorded"),
        ([json.dumps(HEADER), "[" * 100_000], "line 2, is no JSON object"),
        (["[" * 100_000], "line 1, is no JSON object"),
    ],
)
def test_a_faulty_file_is_refused_by_its_line(
    lines: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        FileRecording(broken(lines, tmp_path / "x.gz"))


def test_what_is_no_gzip_or_cut_in_the_middle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("hello")
    whole = gzip.compress(json.dumps(HEADER).encode() * 50)
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    # One bit of the header's first block: it says that a block of another sort follows.
    (tmp_path / "damaged").write_bytes(whole[:10] + bytes([whole[10] | 6]) + whole[11:])
    for name in ("plain", "cut", "missing", "damaged"):
        with pytest.raises(InputError, match="cannot be read"):
            FileRecording(tmp_path / name)


def test_a_recorded_answer_survives_the_way_through_a_file(tmp_path: Path) -> None:
    from ledger.recordings import Recorded

    one = replace(
        Recorded("k", "q", Status.BUDGET, "", None, None, 1), answer='ü\n\u2028 \\ "quoted"'
    )
    lines = [json.dumps(HEADER), json.dumps(one.__dict__)]
    assert FileRecording(broken(lines, tmp_path / "x.gz")).find(["k"]) == {"k": one}
