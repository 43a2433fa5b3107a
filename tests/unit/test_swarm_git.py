"""Git is asked about the directory alone, and nothing that lies in it makes git run a program."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from config.swarm import Verdict
from ledger.swarm import State
from producers.swarm.actions import ACTIONS
from producers.swarm.sample import make_sample
from producers.swarm.sandbox import Refused
from producers.swarm.tools import Result
from tests.unit.test_swarm_tools import do, tools

ASKING = ("git_status", "git_log", "git_diff")


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    make_sample(tmp_path / "sample")
    return tmp_path / "sample"


def set_up(repository: Path, **settings: str) -> None:
    for name, value in settings.items():
        name = name.replace("__", ".")
        subprocess.run(["git", "-C", str(repository), "config", name, value], check=True)


def trap(folder: Path) -> Path:
    """A program that leaves a trace."""
    script = folder / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {folder}/pwned\ncat\n")
    script.chmod(0o755)
    return script


def ask_all(root: Path) -> list[Result]:
    return [do(root, action) for action in ASKING]


@pytest.mark.parametrize("sort", ["clean", "process"])
def test_filters_of_a_repository_do_not_run(tmp_path: Path, sample: Path, sort: str) -> None:
    set_up(sample, **{f"filter__evil__{sort}": str(trap(tmp_path)), "filter__evil__required": "1"})
    (sample / ".gitattributes").write_text("* filter=evil\n")
    assert [one.state for one in ask_all(sample)] == [State.DONE] * 3
    assert not (tmp_path / "pwned").exists()


def test_a_filter_whose_name_cannot_be_switched_off_is_a_refusal(
    tmp_path: Path, sample: Path
) -> None:
    with (sample / ".git" / "config").open("a") as config:
        config.write(f'[filter "a=b"]\n\tclean = {trap(tmp_path)}\n')
    (sample / ".gitattributes").write_text("* filter=a=b\n")
    for action in ASKING:
        with pytest.raises(Refused, match="filter"):
            do(sample, action)
    assert not (tmp_path / "pwned").exists()


def test_what_checks_signatures_does_not_run(tmp_path: Path, sample: Path) -> None:
    set_up(sample, log__showSignature="true", gpg__program=str(trap(tmp_path)))
    tree = subprocess.run(
        ["git", "-C", str(sample), "rev-parse", "HEAD^{tree}"], capture_output=True, text=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    signed = (
        f"tree {tree}\nauthor A <a@b> 1700000000 +0000\ncommitter A <a@b> 1700000000 +0000\n"
        "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\nsigned\n"
    )
    made = subprocess.run(
        ["git", "-C", str(sample), "hash-object", "-t", "commit", "-w", "--stdin"], input=signed,
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    subprocess.run(["git", "-C", str(sample), "update-ref", "HEAD", made], check=True)
    assert "signed" in do(sample, "git_log").text
    assert not (tmp_path / "pwned").exists()


def test_files_that_a_model_may_write_are_no_repository(tmp_path: Path) -> None:
    # HEAD, objects and refs make a repository of any directory, with a configuration beside them.
    root = tmp_path / "work"
    root.mkdir()
    place = tools(root).directory
    place.write("HEAD", "ref: refs/heads/main\n")
    place.write("objects/x", "")
    place.write("refs/x", "")
    place.write(".gitattributes", "* filter=evil\n")
    place.write("a.txt", "text\n")
    place.write(
        "config",
        f'[core]\n\tbare = false\n\tworktree = .\n[filter "evil"]\n\tclean = {trap(tmp_path)}\n',
    )
    for one in ask_all(root):
        assert (one.state, "not a git repository" in one.text) == (State.FAILED, True)
    assert not (tmp_path / "pwned").exists()


def test_a_repository_cannot_show_another_directory(tmp_path: Path, sample: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "diary.txt").write_text("outside")
    set_up(sample, core__worktree=str(tmp_path / "private"))
    assert do(sample, "git_status").text == "## main\n M tally/counting.py"
    assert all("diary" not in one.text for one in ask_all(sample))


def test_modules_of_a_repository_are_not_entered(tmp_path: Path, sample: Path) -> None:
    make_sample(tmp_path / "inner")
    subprocess.run(
        ["git", "-C", str(sample), "-c", "protocol.file.allow=always", "submodule", "--quiet",
         "add", str(tmp_path / "inner"), "inner"], check=True,
    )  # fmt: skip
    set_up(sample / "inner", filter__evil__clean=str(trap(tmp_path)))
    (sample / "inner" / ".gitattributes").write_text("* filter=evil\n")
    (sample / "inner" / "TODO.md").write_text("changed\n")
    assert [one.state for one in ask_all(sample)] == [State.DONE] * 3
    assert not (tmp_path / "pwned").exists()


def test_what_may_not_be_read_is_in_no_diff(sample: Path) -> None:
    for name, text in ((".env", "TOKEN=one\n"), ("deploy/a=b.pem", "one\n")):
        (sample / name).parent.mkdir(exist_ok=True)
        (sample / name).write_text(text)
    subprocess.run(["git", "-C", str(sample), "add", "."], check=True)
    found = do(sample, "git_diff").text
    assert "def count_words" in found
    assert "TOKEN" not in found
    assert "a=b" not in found


def test_what_may_not_be_read_is_not_found_by_searching(tmp_path: Path) -> None:
    for name in (".env", "server.key", "notes.md"):
        (tmp_path / name).write_text("TOKEN=one\n")
    assert do(tmp_path, "search_text", query="token").text == "notes.md:1: TOKEN=one"


def test_a_search_is_what_it_was_where_no_file_is_read_unasked(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("TOKEN=one\n")
    own: Any = tools(tmp_path)
    rulings = {**own.rules.governor.rulings, "read_file": Verdict.ESCALATE}
    strict = own.rules.governor.model_copy(update={"rulings": rulings})
    used = tools(tmp_path, governor=strict)
    assert ACTIONS["search_text"].carry_out(used, {"query": "token"}, {}).text.startswith("notes")
