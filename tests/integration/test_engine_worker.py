"""The engine in a real worker: adapters, figures, and a death that its supervisor mends."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import commands
from config.errors import InputError
from config.load import PROFILES
from config.settings import Settings, load_settings
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.runs import start_run
from ledger.trail import trail
from producers.client import Client
from routing.decision import ChoiceOutput, Decision, Preferences, Settled
from tests.integration.engine_worker import fault_of, worker_command
from tests.integration.stacks import wait_until
from tests.lora_file import write_lora
from workers.stack import Hooks, running_stack
from workers.stack_status import WorkerStatus, stack_status

LABELS = ("CONTINUE", "REST", "ASK", "BLOCKED")
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def settings(smollm2: None, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One lane of SmolLM2 with an adapter, so that a single worker loads a model."""
    folder = tmp_path_factory.mktemp("engine")
    path = write_lora(folder / "calm.gguf", 1)
    text = (PROFILES / "tiny.toml").read_text().replace("reproducible = true\n", "")
    text, found = re.subn(r"^\[lanes\.tier2\]\n(?:[^\[\n].*\n)*", "", text, flags=re.MULTILINE)
    assert found == 1
    text += '\n[models.smollm2-135m.adapters.calm]\nfile = "calm.gguf"\n'
    text += f'source = {{ kind = "file", path = "{path}" }}\n'
    text += '\n[kinds.calm_action]\ntier = "local_fast"\nadapter = "calm"\nmargin = 0\n'
    text += '\n[kinds.plain_action]\ntier = "local_fast"\nmargin = 0\n'
    profile = folder / "adapted.toml"
    profile.write_text(text)
    return load_settings(profile=str(profile), data_dir=folder / "data")


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPTIER_THREADS", "1")
        migrate(settings)
        with running_stack(settings, hooks=Hooks(command=worker_command)) as stack:
            run = start_run(open_ledger(settings), mode="test", profile="adapted", now=now())
            with Client(settings, stack.broker_url, run) as opened:
                yield opened


def question(kind: str, adapter: str | None = None) -> Decision:
    return Decision(
        kind=kind, key=f"k{next(NUMBERS)}", prompt="The task waits for a reply. What next?",
        output=ChoiceOutput(labels=LABELS), preferences=Preferences(adapter=adapter),
    )  # fmt: skip


def worker(settings: Settings) -> WorkerStatus:
    return next(w for w in stack_status(settings).workers if w.lane == "tier1")


def odds(settled: Settled) -> float:
    assert settled.p_answer is not None
    return round(settled.p_answer, 2)


def test_a_decision_is_answered_with_its_kinds_adapter_or_the_askers(
    client: Client, settings: Settings
) -> None:
    asked = [
        question("plain_action"), question("calm_action"),
        question("plain_action", "calm"), question("calm_action", ""),
    ]  # fmt: skip
    plain, kinds, own, none = (odds(s) for s in client.gather(asked, timeout_s=60))
    assert kinds == pytest.approx(own, abs=0.02)
    assert plain == pytest.approx(none, abs=0.02)
    assert abs(plain - kinds) > 0.03
    with pytest.raises(InputError, match="adapter 'nobody' is on none of the lanes"):
        client.gather([question("plain_action", "nobody")], timeout_s=60)


def test_status_shows_what_the_engine_does(client: Client, settings: Settings) -> None:
    client.gather([question("plain_action", "") for _ in range(3)], timeout_s=60)
    wait_until(lambda: worker(settings).figures.get("passes", 0) > 0)
    wait_until(lambda: worker(settings).figures.get("running") == 0)  # it tells every few seconds
    told = worker(settings).figures
    assert told["tokens_in"] >= told["tokens_cached"]
    assert told["slots"] > 1
    assert (told["contexts_lost"], told["running"], told["waiting"]) == (0, 0, 0)
    arguments = ["status", "--profile", settings.profile, "--data-dir", str(settings.data_dir)]
    shown = CliRunner().invoke(commands(), arguments, env={"COLUMNS": "200"}).output
    assert "tokens/s" in shown
    assert f"{told['tokens_per_s']:,.0f}" in shown
    as_json = CliRunner().invoke(commands(), [*arguments, "--json"]).output
    assert '"prefix_hit_rate"' in as_json


def test_a_worker_whose_engine_died_ends_and_is_started_anew(
    client: Client, settings: Settings
) -> None:
    before = worker(settings)
    fault_of(settings).touch()
    [settled] = client.gather([question("plain_action")], timeout_s=100)
    assert settled.answer in LABELS
    found = trail(open_ledger(settings), settled.id).attempts
    assert "the engine has ended: a fault that a test has put here" in found[0].error
    assert found[-1].outcome == "answered"
    wait_until(lambda: worker(settings).state == "ready", timeout_s=60)
    after = worker(settings)
    assert (after.restarts, before.restarts) == (1, 0)
    assert after.pid != before.pid
    assert not Path(fault_of(settings)).exists()
