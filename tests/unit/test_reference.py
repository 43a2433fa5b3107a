"""The reference of settings and commands: as the code makes it, and nothing left untold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli import reference
from cli.main import COMMANDS
from cli.reference_settings import INTERNAL, settings_page, untold
from config.catalog import Catalog
from config.gateway import KeysFile
from config.settings import Settings

ROOT = Path(__file__).parents[2]
FLOORS = ("cli", "config", "ledger", "producers", "routing", "workers")


def test_the_pages_are_as_the_code_makes_them() -> None:
    assert reference.stale() == [], "run `make reference`"


def test_a_page_that_is_not_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "reference")
    assert reference.main(["--check"]) == 1
    assert "settings.md" in capsys.readouterr().out
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    path = tmp_path / "reference" / "commands.md"
    path.write_text(path.read_text() + "by hand\n")
    assert reference.stale() == ["commands.md"]
    assert reference.main(["--chek"]) == 2


@pytest.mark.parametrize("model", [Settings, Catalog, KeysFile])
def test_every_setting_says_what_it_is(model: type[Settings | Catalog | KeysFile]) -> None:
    assert set(untold(model)) == set()


def test_every_variable_that_the_code_reads_is_told_of() -> None:
    files = [path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")]
    text = "".join(path.read_text() for path in files)
    read = {name.rstrip("_") for name in re.findall(r'"(UPTIER_[A-Z_]+)', text)}
    page = settings_page()
    assert {name for name in read if f"`{name}`" not in page} <= INTERNAL


def test_every_command_and_every_key_has_its_place() -> None:
    commands = reference.pages()["commands.md"]
    assert all(f"## uptier {name}\n" in commands for name in COMMANDS)
    page = settings_page()
    for words in (
        "`[lanes.NAME]`",
        "`[models.NAME.weights]`",
        "`[presets.NAME.weights]`, `[routing.weights]`",
    ):
        assert words in page
    for link in re.findall(r"\]\(#(\w+)\)", page):
        assert re.search(rf"^### {link}$", page, re.MULTILINE | re.IGNORECASE)


def test_nothing_of_this_machine_is_on_the_pages() -> None:
    for page in reference.pages().values():
        assert str(Path.home()) not in page.replace("~", "")
        assert str(ROOT) not in page
