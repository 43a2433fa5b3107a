"""Traces and logs without a stack: what is off costs nothing, and who is traced is one question."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config import logs, secrets
from config.errors import ConfigurationError
from config.settings import load_settings
from ledger import spans, tracing
from ledger.outbox import new_id
from ledger.records import Ended

URL = "http://127.0.0.1:9/v1/traces"


@pytest.fixture(autouse=True)
def _off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tracing, "_settings", None)
    monkeypatch.setattr(tracing, "_spans", None)
    return


class Exporter:
    """Keeps spans in memory, in place of the one that sends them."""

    def __init__(self, endpoint: str, timeout: float) -> None:
        self.kept: list[Any] = []

    def export(self, batch: Any) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        self.kept += batch
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def opened(monkeypatch: pytest.MonkeyPatch, share: float) -> tuple[spans.Spans, list[Any]]:
    exporter = Exporter("", 0)
    monkeypatch.setattr(spans, "OTLPSpanExporter", lambda **_: exporter)
    return spans.Spans(URL, share), exporter.kept


def test_after_the_end_nobody_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "OTLPSpanExporter", lambda **_: Exporter("", 0))
    tracing.use(load_settings(profile="tiny", traces_url=URL))
    assert tracing.spans() is not None
    tracing.end()
    assert tracing.spans() is None


def ended(one: str, parent: str | None = None) -> Ended:
    return Ended(one, "run", "question", "accepted", "tier1", 0, 5, 1_000, 9_000, parent)


def test_nothing_of_opentelemetry_is_imported_while_nothing_is_traced() -> None:
    code = (
        "import sys, workers.tasks, producers.client, ledger.tracing as t\n"
        "from config.settings import Settings\n"
        "t.use(Settings()); assert t.spans() is None; t.settled([]); t.flush(); t.end()\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry.sdk')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_without_the_extra_the_mend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ledger.spans", None)
    monkeypatch.delattr("ledger.spans", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'uptier\[tracing\]'"):
        tracing.use(load_settings(profile="tiny", traces_url=URL))


@pytest.mark.parametrize("wrong", ["127.0.0.1:4318", "grpc://collector:4317"])
def test_an_address_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="traces_url"):
        load_settings(traces_url=wrong)


def test_a_root_has_the_ids_that_its_parts_know(monkeypatch: pytest.MonkeyPatch) -> None:
    here, first = opened(monkeypatch, 1)
    there, second = opened(monkeypatch, 1)
    one, parent = new_id(), new_id()
    here.hop("attempt", one, 2_000, 3_000, {"lane": "tier1", "model": None})
    there.settled([ended(one, parent)])
    here.close()
    there.close()
    [part], [root] = first, second
    assert f"{root.context.trace_id:032x}" == f"{part.context.trace_id:032x}" == one
    assert root.parent is None
    assert part.parent.span_id == root.context.span_id
    assert part.context.span_id != root.context.span_id
    assert (root.start_time, root.end_time) == (1_000_000, 9_000_000)
    assert f"{root.links[0].context.trace_id:032x}" == parent
    assert dict(part.attributes) == {"uptier.lane": "tier1"}


def test_every_process_traces_the_same_share(monkeypatch: pytest.MonkeyPatch) -> None:
    here, first = opened(monkeypatch, 0.25)
    there, second = opened(monkeypatch, 0.25)
    ids = [new_id() for _ in range(2_000)]
    here.settled([ended(one) for one in ids])
    for one in reversed(ids):
        there.hop("attempt", one, 1, 2, {})
    here.close()
    there.close()
    traced = {span.context.trace_id for span in first}
    assert traced == {span.context.trace_id for span in second}
    assert 400 < len(traced) < 600


def record(text: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("test").makeRecord(
        "test", logging.WARNING, "file", 1, text, args, None, extra=extra
    )


def test_a_line_of_json_has_its_fields_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPTIER_WORKER_NAME", "tier1-1")
    line = logs.Json().format(record("it %s\nends", "so", run="r", decision="d", prompt="secret"))
    told = json.loads(line)
    assert "\n" not in line
    assert told["message"] == "it so\nends"
    assert (told["level"], told["worker"], told["run"], told["decision"]) == (
        "warning", "tier1-1", "r", "d"
    )  # fmt: skip
    assert "prompt" not in told
    assert told["time"].endswith("Z")


def test_a_line_for_people_ends_with_its_fields() -> None:
    line = logs.Console().format(record("it ends", run="r", lane=None, prompt="secret"))
    assert line.endswith("WARNING it ends run=r")


def test_a_kind_of_an_askers_makes_no_second_line() -> None:
    line = logs.Console().format(record("a decision settled", kind="a\n2026 ERROR \x1b[2Jb é"))
    assert line.endswith(r"a decision settled kind=a\n2026 ERROR \x1b[2Jb é")


def test_keys_are_taken_out_of_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", frozenset())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    before = logging.getLogRecordFactory()
    try:
        secrets.install()
        try:
            raise ValueError("no entry with sk-ant-abcdefghijklmnopqrstuvwxyz")
        except ValueError:
            made = logging.getLogger("test").makeRecord(
                "test", logging.ERROR, "f", 1, "key sk-ant-abcdefghijklmnopqrstuvwxyz", (),
                sys.exc_info(),
            )  # fmt: skip
        line = logs.Json().format(made)
    finally:
        logging.setLogRecordFactory(before)
    assert "abcdefghij" not in line
    assert "ValueError" in json.loads(line)["exception"]
