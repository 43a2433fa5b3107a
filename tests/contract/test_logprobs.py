"""Probabilities of labels from the tokens that a server tells of."""

from __future__ import annotations

import math

import pytest

from config.errors import BackendError
from workers.backends.http_logprobs import Position, choose, position, score_labels
from workers.label_paths import branches, whole_paths

ABC = ("CONTINUE", "COMPLETE", "IDLE")


def place(token: str, **likely: float) -> Position:
    return Position(token, tuple((text.replace("_", " "), p) for text, p in likely.items()))


def test_tokens_count_for_the_one_label_that_they_begin() -> None:
    scores = score_labels(("YES", "NO"), [place("YES", YES=0.5, Ye=0.1, _no=0.2, The=0.2)])
    assert scores is not None
    assert scores.probabilities == pytest.approx((0.75, 0.25))
    assert scores.mass == pytest.approx(0.8)
    assert scores.best == 0


def test_a_shared_beginning_is_divided_by_the_next_token() -> None:
    answer = [place("CO", CO=0.8, ID=0.2), place("NT", NT=0.75, MP=0.25), place("INUE", INUE=1.0)]
    scores = score_labels(ABC, answer)
    assert scores is not None
    assert scores.probabilities == pytest.approx((0.6, 0.2, 0.2))


def test_the_answers_own_label_is_followed_to_its_end() -> None:
    answer = [place("B", B=0.6, ID=0.3, The=0.1), place("LOCK", LOCK=0.75, ACK=0.25),
              place("ED", ED=0.4, ed=0.1, ING=0.5), place(".")]  # fmt: skip
    scores = score_labels(("BLOCKED", "IDLE"), answer)
    assert scores is not None
    told = 0.6 * 0.75 * (0.4 + 0.1)
    assert scores.probabilities == pytest.approx((told / (told + 0.3), 0.3 / (told + 0.3)))
    assert scores.mass == pytest.approx(told + 0.3)
    # What was likelier at first is not in the end: the text then speaks for itself.
    assert choose(("BLOCKED", "IDLE"), "BLOCKED.", answer) is None


def test_an_answer_that_ends_within_its_label_tells_nothing() -> None:
    assert score_labels(("BLOCKED", "IDLE"), [place("B", B=0.6, ID=0.3)]) is None


def test_an_answer_that_leaves_the_label_it_began_is_not_that_label() -> None:
    answer = [place("B", B=0.6, ID=0.3), place("UT", UT=0.99, LOCK=0.01)]
    scores = score_labels(("BLOCKED", "IDLE"), answer)
    assert scores is not None
    assert scores.probabilities == pytest.approx((0.006 / 0.306, 0.3 / 0.306))


def test_a_shared_beginning_that_was_not_taken_tells_nothing() -> None:
    assert score_labels(ABC, [place("ID", CO=0.4, ID=0.6)]) is None
    # Where hardly anything lies on it, it does not matter.
    assert score_labels(ABC, [place("IDLE", CO=0.005, IDLE=0.6, CON=0.1, COM=0.1)]) is not None


def test_an_answer_that_ends_within_a_shared_beginning_tells_nothing() -> None:
    assert score_labels(("GO", "GO HOME"), [place("GO", GO=0.9, X=0.1)]) is None


def test_a_label_that_could_hide_among_the_rest_leaves_it_to_the_text() -> None:
    assert score_labels(ABC, [place("ID", ID=0.5, CON=0.2, X=0.1)]) is None
    told = score_labels(ABC, [place("IDLE", IDLE=0.6, CON=0.395, X=0.005)])
    assert told is not None
    assert told.probabilities[1] == 0.0


def test_blanks_before_the_answer_are_passed_over() -> None:
    answer = [position("\n", -0.01, []), place("IDLE", IDLE=0.9, CON=0.05, COM=0.05)]
    scores = score_labels(ABC, answer)
    assert scores is not None
    assert scores.best == 2


def test_labels_that_differ_in_their_case_alone_are_left_to_the_text() -> None:
    assert score_labels(("yes", "YES"), [place("yes", yes=0.9, YES=0.1)]) is None


def test_longer_words_that_a_label_begins_do_not_count() -> None:
    scores = score_labels(("A", "B"), [place("A", A=0.4, And=0.3, B=0.1, A_=0.1)])
    assert scores is not None
    assert scores.probabilities == pytest.approx((5 / 6, 1 / 6))


def test_minus_infinity_is_nothing_and_what_was_drawn_is_told_of() -> None:
    drawn = position("YES", math.log(0.5), [("NO", -9999.0)])
    assert dict(drawn.likely) == pytest.approx({"YES": 0.5, "NO": 0.0})


def test_a_text_that_names_another_label_speaks_for_itself() -> None:
    answer = [place("YES", YES=0.4, NO=0.3, The=0.3)]
    assert choose(("YES", "NO"), "The answer is NO.", answer) is None
    assert choose(("YES", "NO"), "YES.", answer) is not None


def test_no_tokens_tell_nothing() -> None:
    assert score_labels(ABC, []) is None
    assert score_labels(ABC, [place("The", The=0.99, A=0.01)]) is None


def test_labels_go_to_their_last_tokens() -> None:
    paths = whole_paths([(1, 2), (1, 3, 4), (5, 6)], terminator=9)
    assert paths == ((1, 2), (1, 3, 4), (5, 6))
    assert branches(paths) == {(): {1, 5}, (1,): {2, 3}, (5,): {6}, (1, 3): {4}}


def test_a_label_that_begins_another_is_ended() -> None:
    assert whole_paths([(1,), (1, 2)], terminator=9) == ((1, 9), (1, 2))
    with pytest.raises(BackendError, match="begins another"):
        whole_paths([(1,), (1, 2)], terminator=None)
    assert whole_paths([(1, 2), (3,)], terminator=None) == ((1, 2), (3,))
    with pytest.raises(BackendError, match="same tokens"):
        whole_paths([(1,), (1,)], terminator=9)
