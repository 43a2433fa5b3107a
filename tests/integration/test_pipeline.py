"""The pipeline's commands: six steps on real workers, killed and gone on with, served, refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from config.settings import load_settings
from ledger.database import open_ledger
from producers.pipeline.metadata import check_metadata
from tests.integration.stacks import wait_until
from tests.integration.test_bad_input import refused
from tests.integration.test_decisions import uptier
from tests.llama_client import LlamaClient
from tests.unit.ledgers import rows
from tests.unit.pipeline_draws import CONFIG, DRAWS, PROFILE

FILES = (
    "bidirectional_survivors.json", "optimal_scorer_config.json", "scored_survivors.json",
    "model_config.json", "trained_model.json", "predictions.json",
)  # fmt: skip
VARYING = (
    (r"step(\d)_\d{8}_\d{6}_[0-9a-f]{6}", r"step\1"),
    (r'"timestamp": "[^"]+"', ""),
    (r'"latency_ms": \d+', ""),
    (r'"decision": "[0-9a-f]{32}"', ""),
    (r"sha256:[0-9a-f]{64}", ""),
)
"""What differs from run to run: names, times, ids, and the hashes of files that hold these."""


def run(data: Path, *words: str, code: int = 0, profile: Path | str = PROFILE) -> Any:
    done = uptier("pipeline", "run", *words, "--profile", str(profile), "--json", data=data)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def plain(path: Path) -> str:
    text = path.read_text()
    for pattern, instead in VARYING:
        text = re.sub(pattern, instead, text)
    return text


def ledger(data: Path, table: str) -> list[dict[str, Any]]:
    engine = open_ledger(load_settings(data_dir=data))
    try:
        return rows(engine, table)
    finally:
        engine.dispose()


@contextmanager
def started(data: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A pipeline command in a process of its own."""
    env = {**os.environ, "UPTIER_DATA_DIR": str(data)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "pipeline", *words], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True, env=env,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def slow(folder: Path) -> Path:
    """The scripted profile, a little slower to judge."""
    path = folder / "scripted.toml"
    path.write_text(PROFILE.read_text().replace("p = 0.9", "delay_s = 0.5, p = 0.9"))
    return path


def test_six_steps_on_real_workers_with_their_report(tmp_path: Path) -> None:
    found = run(tmp_path, str(CONFIG))
    assert (found["condition"], found["unattended"]) == ("done", True)
    assert (found["calculations_right"], found["calculations"]) == (6, 6)
    assert [step["file"] for step in found["steps"]] == list(FILES)
    assert found["steps"][-1]["figures"]["hit_rate"] == 0.9
    assert found["report"]["decisions"]["total"] == len(ledger(tmp_path, "decision"))
    workdir = Path(found["workdir"])
    for name in FILES:
        check_metadata(json.loads((workdir / name).read_text())["agent_metadata"], name)
        done = uptier("pipeline", "validate", str(workdir / name), data=tmp_path)
        assert (done.returncode, "a valid step file of run step" in done.stdout) == (0, True)
    told = uptier("pipeline", "status", found["run"], "--json", data=tmp_path)
    assert json.loads(told.stdout)["steps"] == found["steps"]
    [one] = ledger(tmp_path, "run")
    assert (one["mode"], one["finished_at"] is not None) == ("pipeline", True)


def test_a_pipeline_killed_within_a_step_goes_on_to_the_same_files(tmp_path: Path) -> None:
    profile = slow(tmp_path)
    whole = run(tmp_path / "whole", str(CONFIG), profile=profile)
    data = tmp_path / "cut"
    workdir = data / "pipelines" / "six_steps"
    with started(data, "run", str(CONFIG), "--profile", str(profile)) as process:
        wait_until(lambda: (workdir / FILES[1]).exists(), 60)
        wait_until(lambda: any(r["key"] == "step3.g0.judge.math" and r["state"] != "settled"
                               for r in ledger(data, "decision")), 20)  # fmt: skip
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = {name: (workdir / name).read_bytes() for name in FILES[:2]}
    assert not (workdir / FILES[2]).exists()
    begun = json.loads((workdir / "pipeline.state.json").read_text())["steps"][2]["run_id"]
    refusal = uptier("pipeline", "run", str(CONFIG), "--profile", str(profile), data=data)
    assert refusal.returncode == 2
    assert "--resume" in refusal.stderr
    resumed = run(data, str(CONFIG), "--resume", profile=profile)
    assert resumed["condition"] == "done"
    assert resumed["steps"][2]["run_id"] == begun
    assert {name: (workdir / name).read_bytes() for name in kept} == kept
    for name in FILES:
        assert plain(workdir / name) == plain(Path(whole["workdir"]) / name)
    keys = [sorted(r["key"] for r in ledger(d, "decision")) for d in (data, tmp_path / "whole")]
    assert keys[0] == keys[1]


def test_a_person_says_their_word_by_command(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    shutil.copy(DRAWS, folder)
    config = folder / "six.toml"
    config.write_text(CONFIG.read_text().replace("proceed = 0.8", "proceed = 0.92"))
    data, work = tmp_path / "data", ("--workdir", str(tmp_path / "work"))
    found = run(data, str(config), *work, code=1)
    assert (found["condition"], found["steps"][0]["standing"]) == ("waiting", "waiting")
    assert ledger(data, "run")[0]["finished_at"] is None
    assert run(data, str(config), *work, "--resume", code=1)["steps"] == found["steps"]
    said = uptier("pipeline", "approve", found["run"], data=data)
    assert said.returncode == 0, said.stderr
    assert "approved" in said.stdout
    found = run(data, str(config), *work, "--resume", code=1)
    assert (found["steps"][0]["approved"], found["steps"][1]["standing"]) == (True, "waiting")
    found = run(data, str(config), *work, "--reject", code=1)
    assert found["condition"] == "rejected"
    refused("pipeline", "approve", found["run"], data=data, says=("no step", "rejected"))
    config.write_text(CONFIG.read_text())
    found = run(data, str(config), *work, "--from", "2")
    assert found["condition"] == "done"
    assert found["steps"][1]["generation"] == 1
    valid = uptier("pipeline", "validate", str(config), data=data)
    assert "config of pipeline six_steps" in valid.stdout, valid.stderr


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "six.toml"
    shutil.copy(DRAWS, tmp_path)
    here = ("--profile", str(PROFILE))
    text = CONFIG.read_text()
    config.write_text(text.replace('name = "prediction"', 'name = "prophecy"'))
    refused("pipeline", "run", str(config), *here, data=data, says=("'prophecy'", "prediction"))
    config.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, text))
    refused("pipeline", "run", str(config), *here, data=data, says=("0" * 64, "draws.json"))
    refused("pipeline", "run", str(tmp_path / "no.toml"), *here, data=data, says=("no.toml",))
    config.write_text(text)
    refused("pipeline", "run", str(config), *here, "--from", "3", data=data, says=("--from",))
    refused("pipeline", "run", str(config), *here, "--from", "9", data=data, says=("1 to 6",))
    refused("pipeline", "run", str(config), *here, "--resume", data=data, says=("--resume",))
    refused("pipeline", "status", "x", data=data, says=("'x'",))
    step = tmp_path / "step.json"
    step.write_text('{"run_id": "x", "result": {}, "agent_metadata": {"confidence": 1.5}}')
    refused("pipeline", "validate", str(step), data=data, says=("confidence", "1.5"))
    read = json.dumps({"inputs": [{"file": "draws.json", "hash": "sha256:" + "1" * 64}]})
    step.write_text(f'{{"run_id": "x", "result": {{}}, "agent_metadata": {read}}}')
    refused("pipeline", "validate", str(step), data=data, says=("draws.json", "1" * 64))
    step.write_text("{")
    refused("pipeline", "validate", str(step), data=data, says=("not valid JSON",))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused("pipeline", "serve", *here, "--port-math", port, "--port-orchestrator", "0",
                data=data, says=(port, "in use"))  # fmt: skip
    refused("pipeline", "serve", *here, "--port-math", "9", "--port-orchestrator", "9", data=data,
            says=("both 9",))  # fmt: skip


def served_ports(process: subprocess.Popen[str]) -> tuple[int, int]:
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert [line.split()[0] for line in lines] == ["orchestrator", "math"], lines
    first, second = (int(re.findall(r":(\d+)/", line)[0]) for line in lines)
    return first, second


def test_a_client_of_two_llama_servers_works_as_it_is(tmp_path: Path) -> None:
    words = ("serve", "--profile", str(PROFILE), "--port-orchestrator", "0", "--port-math", "0")
    with started(tmp_path, *words) as process:
        client = LlamaClient(*served_ports(process))
        assert client.health() == {"orchestrator": True, "math": True}
        assert "signal is real" in client.complete("math", "Reasoning: of the residues")
        assert "agree with one another" in client.complete("orchestrator", "Reasoning: of all")
        lanes = {r["answer_lane"] for r in ledger(tmp_path, "decision")}
        assert lanes == {"tier2", "tier2.math"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
    assert not (tmp_path / "stack" / "stack.json").exists()


@pytest.mark.usefixtures("smollm2")
@pytest.mark.timeout(900)
def test_a_real_small_model_reasons_judges_and_serves(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    shutil.copy(DRAWS, folder)
    config = folder / "six.toml"
    # It is not sure of itself; here a person would have to be asked at every step.
    config.write_text(
        CONFIG.read_text().replace("proceed = 0.8", "proceed = 0").replace("gate = 0.5", "gate = 0")
    )
    found = run(tmp_path / "data", str(config), profile="tiny")
    assert found["condition"] == "done"
    workdir = Path(found["workdir"])
    for name in FILES:
        file = json.loads((workdir / name).read_text())
        llm = file["agent_metadata"]["llm_metadata"]
        assert llm["math_model"].startswith("SmolLM2-135M")
        assert llm["total_tokens_generated"] > 0
        assert sum(one["latency_ms"] for one in llm["llm_reasoning_trace"]) > 0
        assert all(0 < judge["p_proceed"] < 1 for judge in file["judgements"])
        assert 0 <= file["agent_metadata"]["confidence"] < 1
    words = ("serve", "--profile", "tiny", "--port-orchestrator", "0", "--port-math", "0")
    with started(tmp_path / "data", *words) as process:
        client = LlamaClient(*served_ports(process))
        assert client.complete("math", "Compute 3 plus 4.", n_predict=12)
        assert 0 < client.tokens <= 12
        assert "".join(e["content"] for e in client.stream("math", "Say hello."))
