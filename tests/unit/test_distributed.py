"""What `python -m tests.distributed` exits with."""

from __future__ import annotations

import signal

import pytest

from tests.distributed import __main__ as distributed


@pytest.mark.parametrize(
    ("suite", "cut", "status"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (-9, 0, -9), (0, -11, -11)]
)
def test_a_suite_that_a_signal_ended_has_not_passed(
    monkeypatch: pytest.MonkeyPatch, suite: int, cut: int, status: int
) -> None:
    monkeypatch.setattr(distributed, "across", lambda arguments: suite)
    monkeypatch.setattr(distributed, "_wait", lambda words, env: cut)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert distributed.main([]) == status
