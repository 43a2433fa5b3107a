"""What an operator sees of a real stack: its page of metrics, its logs, a trace a decision."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.session import Session, session
from config.errors import ConfigurationError
from config.queues import make_app
from config.settings import load_settings
from ledger import tracing
from ledger.spans import EXPORT_EVERY_MS
from routing.decision import ChoiceOutput, Decision, Settled, TextOutput
from tests.integration.collector import Collector, Span, collecting
from tests.integration.stacks import state_of, wait_until
from tests.unit.ledgers import rows
from workers.stack_state import logs_directory
from workers.valkey import free_port

ROOT = Path(__file__).parents[2]
SECRET = "the-words-of-a-prompt"
PROFILE = """
[tiers.low]
rank = 1
[tiers.high]
rank = 2
[lanes.tier1]
tier = "low"
model = "fast"
[lanes.tier2]
tier = "high"
model = "good"
[models.fast]
backend = "scripted"
[models.fast.script]
lines = [
  { kind = "self_critique", answer = "yes" },
  { contains = "hard", answer = "A", p = 0.51 },
  { contains = "breaks once", fail = "out of order: the-words-of-a-prompt", times = 1 },
  { answer = "A" },
]
[models.good]
backend = "scripted"
[kinds.question]
tier = "low"
output = "choice"
labels = ["A", "B"]
[kinds.routine]
tier = "low"
output = "choice"
labels = ["A", "B"]
cache = true
[kinds.note]
tier = "high"
output = "text"
critique = true
[kinds.self_critique]
tier = "low"
output = "choice"
labels = ["yes", "no"]
[routing]
unknown_kind_tier = "low"
critic_tier = "low"
"""
EVENTS = ("received", "started", "succeeded")
HOPS = ("attempt", "check")
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Watched:
    """A stack that tells."""

    live: Session
    port: int
    collector: Collector

    def page(self) -> Values:
        """Its page as Prometheus reads it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        return {
            (one.name, frozenset(one.labels.items())): one.value
            for family in text_string_to_metric_families(text)
            for one in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """One value; 0 where the page has none."""
        return self.page().get((name, frozenset(labels.items())), 0)

    def logs(self) -> Iterator[tuple[str, str]]:
        """Every line that workers have logged, with the log's name."""
        for path in sorted(logs_directory(self.live.settings).glob("*-1.log")):
            for line in path.read_text().splitlines():
                yield path.name, line


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "profile.toml").write_text(PROFILE)
    port = free_port()
    with pytest.MonkeyPatch.context() as patch, collecting() as (address, collector):
        for name in ("UPTIER_BROKER_URL", "UPTIER_BROKER_PORT", "UPTIER_PROFILE"):
            patch.delenv(name, raising=False)
        settings = load_settings(
            profile=str(folder / "profile.toml"), data_dir=folder / "data", metrics_port=port,
            traces_url=address, log_format="json", log_level="DEBUG", task_events=True,
        )  # fmt: skip
        with session(settings, mode="test") as live:
            yield Watched(live, port, collector)
        tracing.end()


@pytest.fixture(scope="module")
def settled(watched: Watched) -> dict[str, Settled]:
    """Decisions of every sort, each once."""
    labels = ChoiceOutput(labels=("A", "B"))
    asked = [
        *(Decision(kind="question", prompt=f"{SECRET} {n}", output=labels, key=f"plain-{n}")
          for n in range(20)),
        *(Decision(kind="question", prompt=f"hard {SECRET} {n}", output=labels, key=f"hard-{n}")
          for n in range(5)),
        Decision(kind="question", prompt=f"breaks once {SECRET}", output=labels, key="broken"),
        Decision(kind="note", prompt=f"{SECRET} note", output=TextOutput(max_tokens=20),
                 key="note"),
        Decision(kind="routine", prompt=f"{SECRET} again", output=labels, key="routine-1"),
    ]  # fmt: skip
    found = {one.key: one for one in watched.live.client.gather(asked, timeout_s=60)}
    again = asked[-1].model_copy(update={"key": "routine-2"})
    [found["routine-2"]] = watched.live.client.gather([again], timeout_s=60)
    return found


def whole_traces(watched: Watched, ids: list[str]) -> dict[str, list[Span]]:
    """The traces of decisions, once the root of each has come."""

    def complete() -> bool:
        traces = watched.collector.by_trace()
        return all(any(s.name == "decision" for s in traces.get(i, ())) for i in ids)

    wait_until(complete, 60)
    told = -1
    while told != len(watched.collector.spans):  # each process sends its own, every second
        told = len(watched.collector.spans)
        time.sleep(2 * EXPORT_EVERY_MS / 1000)
    return watched.collector.by_trace()


def test_the_page_says_what_the_ledger_says(watched: Watched, settled: dict[str, Settled]) -> None:
    decisions = rows(watched.live.engine, "decision")
    tried = rows(watched.live.engine, "attempt")
    page = watched.page()
    told = {
        tuple(dict(labels)[n] for n in ("kind", "lane", "status")): value
        for (name, labels), value in page.items()
        if name == "uptier_decisions_settled_total" and value
    }
    assert told == Counter((d["kind"], d["answer_lane"] or "none", d["status"]) for d in decisions)
    outcomes = {
        tuple(dict(labels)[n] for n in ("lane", "outcome")): value
        for (name, labels), value in page.items()
        if name == "uptier_attempts_total" and value
    }
    assert outcomes == Counter((a["lane"], a["outcome"]) for a in tried)
    assert watched.value("uptier_escalations_total", lane="tier1", to_lane="tier2") == 5
    assert watched.value("uptier_cache_hits_total", kind="routine", layer="exact") == 1
    assert watched.value("uptier_steward_up") == 1
    assert watched.value("uptier_worker_starts_total", lane="quality") == 1
    for lane in ("tier1", "tier2", "quality"):
        assert watched.value("uptier_workers_ready", lane=lane) == 1


def test_a_decision_has_one_trace_across_its_hops(
    watched: Watched, settled: dict[str, Settled]
) -> None:
    hard = settled["hard-0"].id
    spans = whole_traces(watched, [s.id for s in settled.values()])[hard]
    [root] = [s for s in spans if s.name == "decision"]
    assert root.parent == ""
    assert {s.parent for s in spans if s is not root} == {root.id}
    way = [(s.name, s.attributes["uptier.lane"]) for s in spans if s.name in HOPS]
    assert way == [("attempt", "tier1"), ("check", "tier1"), ("attempt", "tier2"),
                   ("check", "tier2")]  # fmt: skip
    assert Counter(s.name for s in spans) == {
        "decision": 1, "submit": 1, "wait": 2, "attempt": 2, "check": 2
    }  # fmt: skip
    assert root.attributes["uptier.status"] == "accepted"
    assert root.attributes["uptier.run"] == watched.live.run.id
    producer, *_ = [s.pid for s in spans if s.name == "submit"]
    assert producer == os.getpid()
    assert len({s.pid for s in spans}) == 4  # producer, two lanes, quality
    for span in spans:
        # A submission begins before what it writes.
        assert root.start - 1_000_000_000 <= span.start <= span.end
        # The root ends with the transaction; who did that tells of it a moment later.
        assert span.end <= root.end + 2_000_000_000


def test_a_failed_attempt_is_marked_and_its_words_are_left_out(
    watched: Watched, settled: dict[str, Settled]
) -> None:
    spans = whole_traces(watched, [settled["broken"].id])[settled["broken"].id]
    attempts = [s for s in spans if s.name == "attempt"]
    assert [(s.failed, s.attributes["uptier.attempt"]) for s in attempts] == [(True, 1), (False, 2)]


def test_a_critic_links_to_what_it_judges(watched: Watched, settled: dict[str, Settled]) -> None:
    [critic] = [d for d in rows(watched.live.engine, "decision") if d["kind"] == "self_critique"]
    spans = whole_traces(watched, [critic["id"]])[critic["id"]]
    [root] = [s for s in spans if s.name == "decision"]
    assert root.links == (settled["note"].id,)


def test_no_prompt_is_in_traces_logs_or_metrics(
    watched: Watched, settled: dict[str, Settled]
) -> None:
    whole_traces(watched, [s.id for s in settled.values()])
    assert SECRET.encode() not in watched.collector.bytes
    assert not [line for line in watched.logs() if SECRET in line[1]]
    with urllib.request.urlopen(f"http://127.0.0.1:{watched.port}/metrics", timeout=10) as reply:
        assert SECRET.encode() not in reply.read()


def test_logs_are_objects_with_run_and_decision(
    watched: Watched, settled: dict[str, Settled]
) -> None:
    ids = {one.id for one in settled.values()}
    wait_until(lambda: all(any(i in line for _, line in watched.logs()) for i in ids), 60)
    lines = [(name, json.loads(line)) for name, line in watched.logs()]
    assert {told["worker"] for _, told in lines} == {"tier1-1", "tier2-1", "quality-1"}
    [failed] = [told for _, told in lines if told["message"].startswith("an attempt failed")]
    assert failed["level"] == "warning"
    assert (failed["decision"], failed["attempt"]) == (settled["broken"].id, 1)
    ended = {told["decision"]: told for _, told in lines
             if told["message"] == "a decision settled"}  # fmt: skip
    assert settled.keys() <= {s.key for s in settled.values() if s.id in ended}
    assert ended[settled["hard-0"].id]["run"] == watched.live.run.id
    assert ended[settled["hard-0"].id]["status"] == "accepted"


def test_a_port_that_is_taken_stops_the_start_in_one_line(watched: Watched, tmp_path: Path) -> None:
    settings = load_settings(
        profile=watched.live.settings.profile, data_dir=tmp_path, metrics_port=watched.port
    )
    with (
        pytest.raises(ConfigurationError, match=rf"UPTIER_METRICS_PORT: port {watched.port} is"),
        session(settings, mode="test"),
    ):
        pass


def command(watched: Watched, *options: str) -> list[str]:
    profile = watched.live.settings.profile
    return [sys.executable, "-m", "cli.main", "metrics", "--profile", profile, *options]


def environment(watched: Watched) -> dict[str, str]:
    return {**os.environ, "UPTIER_DATA_DIR": str(watched.live.settings.data_dir)}


def test_the_command_prints_the_same_page(watched: Watched, settled: dict[str, Settled]) -> None:
    done = subprocess.run(
        command(watched, "--once"), env=environment(watched), cwd=ROOT, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    wanted = watched.value("uptier_escalations_total", lane="tier1", to_lane="tier2")
    assert f'uptier_escalations_total{{lane="tier1",to_lane="tier2"}} {wanted}' in done.stdout


def test_the_command_serves_until_it_is_told_to_stop(watched: Watched) -> None:
    process = subprocess.Popen(
        command(watched, "--port", "0"), env=environment(watched), cwd=ROOT, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        [address] = re.findall(r"http://\S+/metrics", process.stderr.readline())
        with urllib.request.urlopen(address, timeout=10) as reply:
            assert b"uptier_ledger_up 1.0" in reply.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address.replace("/metrics", "/secrets"), timeout=10)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=90)
    assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--port", "{taken}"], "port {taken} is taken"),
     (["--host", "no.such.host.invalid"], "--host"), (["--profile", "nosuch"], "nosuch")],
)  # fmt: skip
def test_a_wrong_option_of_the_command_is_one_line(
    watched: Watched, options: list[str], says: str
) -> None:
    given = [one.format(taken=watched.port) for one in options]
    done = subprocess.run(
        command(watched, *given), env=environment(watched), cwd=ROOT, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert says.format(taken=watched.port) in line


def test_events_come_in_bundles_and_none_is_missing(watched: Watched) -> None:
    state = state_of(watched.live.settings)
    app = make_app(watched.live.settings, state.broker_url)
    seen: Counter[str] = Counter()
    asked = [
        Decision(kind="question", prompt=f"an event {n}", key=f"event-{n}",
                 output=ChoiceOutput(labels=("A", "B")))
        for n in range(30)
    ]  # fmt: skip
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(
            connection, handlers={"*": lambda e: seen.update([e["type"]])}
        )
        with receiver.consumer_context() as (opened, _, _):
            wanted = 2 * len(asked)  # one to decide and one to check

            def listen() -> None:
                with suppress(TimeoutError):
                    opened.drain_events(timeout=1)

            def hears() -> bool:
                listen()
                return seen["worker-heartbeat"] > 0

            def complete() -> bool:
                listen()
                return min(seen[f"task-{name}"] for name in EVENTS) >= wanted

            wait_until(hears, 20)  # events of before are kept for nobody
            for one in asked:
                watched.live.client.submit([one])
            with suppress(AssertionError):
                wait_until(complete, 20)
    assert {name: seen[f"task-{name}"] for name in EVENTS} == dict.fromkeys(EVENTS, wanted)
    assert seen["task-sent"] == 0
    app.close()


def test_a_killed_worker_is_told_and_comes_back(watched: Watched) -> None:
    """Last: it takes a worker away from the others."""
    state = state_of(watched.live.settings)
    [record] = [w.process for w in state.workers if w.name == "tier1-1"]
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: watched.value("uptier_worker_deaths_total", lane="tier1") == 1, 30)
    wait_until(lambda: watched.value("uptier_workers_ready", lane="tier1") == 1, 30)
    assert watched.value("uptier_worker_starts_total", lane="tier1") == 2
