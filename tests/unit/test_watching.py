"""What deploy/ asks Prometheus for is there: every metric and label, in dashboard and alerts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from ledger.metrics import catalog
from ledger.metrics.catalog import MetricKind

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$__interval": "15s"}
FROM_PROMETHEUS = {"instance", "job"}
FETCH_S = 60

EXPORTED = {
    f"{metric.exposed}{suffix}": {*metric.labels, *extra}
    for metric in catalog.ALL
    for suffix, extra in (
        (("_bucket", ("le",)), ("_sum", ()), ("_count", ()))
        if metric.kind is MetricKind.HISTOGRAM
        else (("", ()),)
    )
} | {"up": set(), "ALERTS": {"alertname", "alertstate"}}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]
        for one in board["annotations"]["list"]:
            yield f"{path.name}: {one['name']}", one["expr"]


def queries() -> list[tuple[str, str]]:
    return [*((rule["alert"], rule["expr"]) for rule in rules()), *dashboard_queries()]


def parsed(query: str) -> promql_parser.Expr:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return promql_parser.parse(query)


def faults_of(query: str) -> list[str]:
    """Metrics that are not exported, and labels that the metrics beneath do not have."""
    found: list[str] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            known = EXPORTED.get(node.name or "")
            if known is None:
                found.append(f"metric {node.name}")
            else:
                used = {matcher.name for matcher in node.matchers.matchers}
                found.extend(f"label {n} of {node.name}" for n in used - known - FROM_PROMETHEUS)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            beneath = labels_beneath(node.expr) | FROM_PROMETHEUS
            found.extend(f"label {n} in by" for n in set(node.modifier.labels) - beneath)
        return True

    promql_parser.walk(parsed(query), visit)
    return found


def labels_beneath(expr: promql_parser.Expr) -> set[str]:
    found: set[str] = set()

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.update(EXPORTED.get(node.name or "", set()))
        return True

    promql_parser.walk(expr, visit)
    return found


@pytest.mark.parametrize(("place", "query"), queries())
def test_what_is_asked_for_is_exported(place: str, query: str) -> None:
    assert faults_of(query) == [], place


def test_the_check_itself_finds_what_is_wrong() -> None:
    assert faults_of("rate(uptier_attempt_total[5m])") == ["metric uptier_attempt_total"]
    assert faults_of('uptier_attempts_total{tier="x"}') == ["label tier of uptier_attempts_total"]
    assert faults_of("sum by (kind) (uptier_ledger_up)") == ["label kind in by"]
    with pytest.raises(ValueError):
        faults_of("sum(uptier_ledger_up")


def test_counters_are_only_looked_at_through_rates() -> None:
    """The value of a counter by itself means nothing: it began whenever the ledger did."""
    counters = {m.exposed for m in catalog.ALL if m.kind is MetricKind.COUNTER}
    for place, query in queries():
        bare: list[str] = []

        def visit(node: Any, bare: list[str] = bare) -> bool:
            if isinstance(node, promql_parser.VectorSelector) and node.name in counters:
                bare.append(str(node.name))
            if isinstance(node, promql_parser.MatrixSelector):
                bare.append("-")
            return True

        promql_parser.walk(parsed(query), visit)
        # The parser visits a range and then the selector within it.
        assert all(bare[i - 1] == "-" for i, name in enumerate(bare) if name in counters), place


def test_every_metric_that_the_issue_names_is_on_the_dashboard() -> None:
    shown = " ".join(query for _, query in dashboard_queries())
    for metric in catalog.ALL:
        rest = {"uptier_collect_seconds", "uptier_build_info", "uptier_cache_entries",
                "uptier_budget_limit_dollars", "uptier_budget_spent_dollars", "uptier_worker_up",
                "uptier_budget_reserved_dollars", "uptier_engine_requests", "uptier_engine_passes",
                "uptier_engine_contexts_lost", "uptier_engine_adapter_switches",
                "uptier_engine_adapters_loaded"}  # fmt: skip
        assert metric.name in rest or metric.name in shown, metric.name


def test_panels_are_told_apart_and_lie_beside_one_another() -> None:
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                     for y in range(at["y"], at["y"] + at["h"])}  # fmt: skip
            assert at["x"] + at["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells


def test_every_alert_says_what_it_is_and_how_urgent() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Prometheus's own check: of this machine, or out of Debian's package, which is not installed
    for it."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    folder = tmp_path_factory.mktemp("prometheus")
    try:
        for command in (["apt-get", "download", "prometheus"],):
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=FETCH_S)
        [package] = folder.glob("prometheus_*.deb")
        subprocess.run(["dpkg", "-x", package, folder], check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        pytest.skip(f"promtool is not here, and Debian's prometheus cannot be fetched: {error}")
    return str(folder / "usr" / "bin" / "promtool")


@pytest.mark.parametrize(
    "command",
    [["check", "config", "prometheus.yml"], ["check", "rules", "--lint=all", "--lint-fatal",
     "alerts.yml"], ["test", "rules", "alerts.test.yml"]],
    ids=lambda command: " ".join(command[:2]),
)  # fmt: skip
def test_prometheus_takes_it(promtool: str, command: list[str]) -> None:
    done = subprocess.run([promtool, *command], cwd=RULES, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_page(promtool: str, tmp_path: Path) -> None:
    from ledger.database import migrate
    from ledger.metrics.page import Page
    from tests.unit.test_metrics import settings_of

    settings = settings_of(tmp_path)
    migrate(settings)
    page = Page(settings)
    done = subprocess.run([promtool, "check", "metrics"], input=page.text(), capture_output=True)
    page.close()
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_documentation_has_every_metric_as_it_is() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    for metric in catalog.ALL:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        line = (
            f"| `{metric.exposed}` | {metric.kind.value} | {labels} | {metric.help.rstrip('.')} |"
        )
        assert line in page, metric.name
    rows = [line for line in page.splitlines() if line.startswith("| `uptier_")]
    assert len(rows) == len(catalog.ALL)


def test_the_documentation_says_what_to_do_about_every_alert() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `Uptier")}
    assert rows == {rule["alert"] for rule in rules()}


def test_queries_of_the_documentation_can_be_asked() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    begin, end = page.index("| question | query |"), page.index("To scale a lane")
    cells = [line.split(" | ", 1)[1] for line in page[begin:end].splitlines()[2:] if "|" in line]
    asked = [query for cell in cells for query in re.findall("`([^`]+)`", cell)]
    assert len(asked) >= 8
    for query in asked:
        assert faults_of(query) == [], query
