"""Commands that only look do not make a ledger where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config.errors import LedgerError
from config.settings import Settings
from ledger.workers import states_here
from workers.fleet_control import fleet_status

LOOKS: list[Callable[[Settings], object]] = [fleet_status, lambda s: states_here(s, "tier1")]


@pytest.mark.parametrize("look", LOOKS)
def test_looking_makes_no_ledger(tmp_path: Path, look: Callable[[Settings], object]) -> None:
    settings = Settings(profile="tiny", data_dir=tmp_path)
    with pytest.raises(LedgerError, match="there is no ledger at .* yet"):
        look(settings)
    assert list(tmp_path.iterdir()) == []
