"""``uptier session`` from the command line: scripts, pipes, reports, going on, wrong input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROFILE = """
[tiers.low]
rank = 1
[tiers.high]
rank = 2
[lanes.tier1]
tier = "low"
model = "one"
[lanes.tier2]
tier = "high"
model = "two"
[models.one]
backend = "scripted"
[models.one.script]
lines = [
  { contains = "hard", answer = "I cannot help with that request." },
  { contains = "nobody", fail = "out of order", retryable = false },
  { contains = "largest", answer = "The heron is the largest of them." },
  { contains = "birds", answer = "Heron, wren and swift are three birds.", word_s = 0.02 },
]
[models.two]
backend = "scripted"
[models.two.script]
lines = [
  { contains = "nobody", fail = "out of order too", retryable = false },
  { answer = "It was hard, but here it is." },
]
[kinds.conversation]
tier = "low"
output = "text"
[routing]
unknown_kind_tier = "low"
critic_tier = "low"
[presets.home]
privacy = "maximum"
[agents.guide]
preset = "home"
max_cost_usd = "0.02"
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "birds.toml"
    path.write_text(PROFILE)
    return path


def uptier(data: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("UPTIER_")}
    models = os.environ.get("UPTIER_MODELS_DIR")
    environment["UPTIER_DATA_DIR"] = str(data)
    if models is not None:
        environment["UPTIER_MODELS_DIR"] = models
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "session", *arguments],
        capture_output=True, text=True, env=environment, timeout=400, check=False, input=typed,
    )  # fmt: skip


def test_a_script_is_answered_and_ends_with_a_report(tmp_path: Path, profile: Path) -> None:
    script = tmp_path / "script"
    script.write_text("# birds\nName three birds.\n/privacy high\nA hard one\n/cost\n/history\n")
    done = uptier(tmp_path / "data", "--script", str(script), "--profile", str(profile))
    assert done.returncode == 0, done.stderr
    for words in (
        "Agent guide, profile", "preset home, privacy maximum", "> Name three birds.\n",
        "Heron, wren and swift are three birds.\n  [low, one, privacy maximum, accepted, $0.0000",
        "privacy high; privacy maximum holds", "did not pass; tier2 writes anew",
        "It was hard, but here it is.\n  [high, two,", "bound for one: $0.02",
        "Requests        2, answered 2", "On this machine 100.0 % of answers; 2 private",
    ):  # fmt: skip
        assert words in done.stdout, words
    again = uptier(
        tmp_path / "data", "--resume", "--script", str(script), "--profile", str(profile)
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("from the ledger") >= 2
    other = tmp_path / "other"
    other.write_text("Something else.\n")
    refused = uptier(
        tmp_path / "data", "--resume", "--script", str(other), "--profile", str(profile)
    )
    assert refused.returncode == 2
    assert "another script" in refused.stderr


def test_a_pipe_is_answered_as_json_and_gone_on_with(tmp_path: Path, profile: Path) -> None:
    given = ("--profile", str(profile), "--json")
    done = uptier(tmp_path / "data", *given, typed="Name three birds.\n/max-cost 0.5\n")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert [turn["answer"] for turn in found["turns"]] == ["Heron, wren and swift are three birds."]
    assert found["session"]["by_tier"] == {"low": 1}
    assert found["report"]["decisions"]["total"] == 1
    typed = "Which is the largest?\n/quit\nNot this\n"
    done = uptier(tmp_path / "data", *given, "--resume", typed=typed)
    assert done.returncode == 0, done.stderr
    more: dict[str, Any] = json.loads(done.stdout)
    assert more["run"] == found["run"]
    assert [turn["number"] for turn in more["turns"]] == [1, 2]
    assert [turn["recorded"] for turn in more["turns"]] == [True, False]
    assert more["turns"][1]["answer"] == "The heron is the largest of them."


def test_a_request_that_nobody_can_answer_fails_with_its_reason(
    tmp_path: Path, profile: Path
) -> None:
    done = uptier(tmp_path / "data", "--profile", str(profile), typed="nobody knows\n")
    assert done.returncode == 1, done.stderr
    assert "no answer: tier2 failed: out of order too" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--agent", "nobody"), "agent 'nobody' is not in profile"),
        (("--preset", "nobody"), "preset 'nobody' is not in profile"),
        (("--adapter", "nobody"), "adapter 'nobody'"),
        (("--max-cost", "-1"), "-1"),
        (("--max-cost", "much"), "much"),
        (("--privacy", "some"), "some"),
        (("--script", "/none/such"), "/none/such"),
        (("--resume",), "no session to resume"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_started(
    tmp_path: Path, profile: Path, arguments: tuple[str, ...], says: str
) -> None:
    data = tmp_path / "data"
    done = uptier(data, *arguments, "--profile", str(profile), typed="Hello\n")
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("uptier: ")
    assert says in line
    assert not (data / "stack" / "stack.json").exists()
    assert done.stdout == ""


@pytest.mark.usefixtures("smollm2")
def test_the_real_small_model_answers_a_session(tmp_path: Path) -> None:
    typed = "Name three birds.\n/privacy high\nWhich of them is the largest?\n"
    done = uptier(tmp_path / "data", "--profile", "tiny", "--json", typed=typed)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert len(found["turns"]) == 2
    assert all(turn["answer"] and turn["local"] for turn in found["turns"])
    assert found["session"]["streamed"] == 2
    assert found["session"]["private"] == 1
