"""When a worker that is there counts as ill: by what it has done, not by its being there."""

from __future__ import annotations

from pathlib import Path

from ledger.workers import Sign
from workers.health import Patience, Ward, has_worked
from workers.logs import cut, rotate

PATIENCE = Patience(silence_s=20, standstill_s=60)


def sign(beat: int, **figures: float) -> Sign:
    return Sign(beat, figures)


def looks(ward: Ward, until: int, waiting: int = 0, **figures: float) -> dict[str, str]:
    """A worker that beats every 5 s with the same figures; what is said of it last."""
    ill: dict[str, str] = {}
    for now in range(0, until + 1, 5):
        ill = ward.look({"a": sign(now, **figures)}, waiting, PATIENCE, now)
    return ill


def test_an_idle_worker_is_well() -> None:
    assert looks(Ward(), 1000, waiting=0, begun=3, held=0) == {}


def test_a_worker_that_holds_work_and_gets_nowhere_is_ill() -> None:
    assert looks(Ward(), 55, held=1, begun=1) == {}
    assert looks(Ward(), 60, held=1, begun=1) == {"a": "got nowhere for 60 s with 1 messages"}


def test_a_worker_whose_passes_go_on_is_well_however_long_one_answer_takes() -> None:
    ward = Ward()
    for now in range(0, 1000, 5):
        signs = {"a": sign(now, held=1, begun=1, passes=now)}
        assert ward.look(signs, 9, PATIENCE, now) == {}


def test_a_queue_that_waits_while_nobody_takes_anything_is_an_illness() -> None:
    assert looks(Ward(), 60, waiting=7, held=0, begun=2) == {
        "a": "took nothing for 60 s while 7 decisions waited"
    }


def test_an_idle_worker_beside_a_busy_one_is_not_to_blame() -> None:
    ward = Ward()
    for now in range(0, 300, 5):
        signs = {"idle": sign(now, held=0, begun=0), "busy": sign(now, held=1, recorded=now)}
        assert ward.look(signs, 9, PATIENCE, now) == {}


def test_the_hung_one_of_two_is_ill_and_not_its_neighbour() -> None:
    ward = Ward()
    ill: dict[str, str] = {}
    for now in range(0, 65, 5):
        signs = {"hung": sign(now, held=2, begun=2), "well": sign(now, held=1, recorded=now)}
        ill = ward.look(signs, 9, PATIENCE, now)
    assert set(ill) == {"hung"}


def test_a_worker_that_is_not_heard_of_is_ill() -> None:
    ward = Ward()
    assert ward.look({"a": sign(1)}, 0, PATIENCE, 0) == {}
    assert ward.look({"a": sign(1)}, 0, PATIENCE, 19) == {}
    assert ward.look({"a": sign(1)}, 0, PATIENCE, 20) == {"a": "was not heard of for 20 s"}


def test_work_that_comes_after_a_long_rest_gives_the_whole_patience() -> None:
    ward = Ward()
    assert looks(ward, 500, waiting=0, held=0) == {}
    assert ward.look({"a": sign(505, held=1, begun=1)}, 1, PATIENCE, 505) == {}
    assert ward.look({"a": sign(560, held=1, begun=1)}, 1, PATIENCE, 560) == {}
    assert ward.look({"a": sign(565, held=1, begun=1)}, 1, PATIENCE, 565)


def test_nobody_is_judged_by_a_time_in_which_nobody_looked() -> None:
    ward = Ward()
    ward.look({"a": sign(1, held=1)}, 1, PATIENCE, 0)
    ward.forget()
    assert ward.look({"a": sign(1, held=1)}, 1, PATIENCE, 500) == {}


def test_a_new_instance_begins_anew() -> None:
    ward = Ward()
    looks(ward, 55, held=1)
    assert ward.look({"b": sign(56, held=1)}, 1, PATIENCE, 70) == {}


def test_work_done_proves_an_instance() -> None:
    assert not has_worked(sign(1, begun=1, held=1, finished=0))
    assert has_worked(sign(1, finished=1))
    assert has_worked(sign(1, recorded=4))


def test_logs_are_cut_where_they_lie_and_three_pieces_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab") as writer:
        for piece in range(5):
            writer.write(b"%d" % piece * 100)
            writer.flush()
            cut([log], most_bytes=50)
            assert log.stat().st_size == 0
        writer.write(b"end")
    assert log.read_bytes() == b"end"
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert (tmp_path / "a.log.1").read_bytes() == b"4" * 100
    rotate(log)
    assert (tmp_path / "a.log.1").read_bytes() == b"end"
    assert not log.exists()
