"""`uptier fleet plan`: the table before anything starts, and one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import run

TWO_CARDS = Path(__file__).parents[2] / "docs" / "examples" / "two-cards.toml"
PROFILE = """
[tiers.t]
rank = 1
[lanes.a]
tier = "t"
model = "m"
[lanes.b]
tier = "t"
model = "n"
[models.m]
backend = "llama_server"
provider = "one"
[models.n]
backend = "llama_server"
provider = "two"
[providers.one]
backend = "llama_server"
base_url = "http://127.0.0.1:8080"
local = true
[providers.two]
backend = "llama_server"
base_url = "http://127.0.0.1:8081"
local = true
[kinds]
[routing]
unknown_kind_tier = "t"
critic_tier = "t"
"""
BIG = """backend = "llama_cpp"
parameters_b = 70.6
context = 8192
shape = { layers = 80, kv_heads = 8, head_size = 128 }
weights = { file = "70B-Q4_K_M.gguf", source = { kind = "file", path = "/nowhere/70b.gguf" } }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("UPTIER_PROFILE", raising=False)
    return tmp_path


def test_the_plan_of_the_documents_cards_is_printed_and_nothing_started(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["fleet", "plan", "--profile", "zeus", "--hardware", str(TWO_CARDS)]
    assert run(asked) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    cards = [line for line in lines if line[:1] == ["GPU"]]
    assert [(line[5], line[7], line[8], line[9]) for line in cards] == [
        ("12.0", "11.5", "0.5", "tier2-1"), ("12.0", "7.5", "4.5", "tier2.math-1"),
    ]  # fmt: skip
    assert run([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [card["spare_mb"] for card in found["cards"]] == [512, 4608]
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("before", "after", "hardware", "named"),
    [
        ("", "", "[[gpus]]\nmemory_gb = -12\n", "gpus.0.memory_gb: Input should be greater than 0"),
        ('model = "m"\n', "", "", "lanes.a.model: Field required"),
        ('model = "m"\n', 'model = "none"\n', "", "lanes.a.model = 'none' is not defined"),
        (":8081", ":8080", "", "both served at 127.0.0.1:8080"),
        (
            'backend = "llama_server"\nprovider = "one"\n',
            BIG,
            "[[gpus]]\nmemory_gb = 12\n",
            "(40.2 weights + 3.8 cache + 0.3 context + 0.2 workspace) = 44.4 GB",
        ),
        ("", "", "[[gpus", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    before: str,
    after: str,
    hardware: str,
    named: str,
) -> None:
    (folder / "p.toml").write_text(PROFILE.replace(before, after, 1) if before else PROFILE)
    (folder / "h.toml").write_text(hardware)
    profile, described = str(folder / "p.toml"), str(folder / "h.toml")
    assert run(["fleet", "plan", "--profile", profile, "--hardware", described]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


def test_a_hardware_file_that_is_not_there_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fleet", "plan", "--hardware", str(folder / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err
