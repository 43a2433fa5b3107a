"""Draws one look at a stack for a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.output import percent, plain, usd
from cli.report import budget_line
from ledger.clock import SECOND
from workers.glance_views import Glance, QueueView, WorkerView

STYLES = {
    "ready": "green", "serving": "green", "up": "green",
    "starting": "yellow", "waiting": "yellow", "stopping": "yellow",
    "absent": "dim", "down": "dim",
}  # fmt: skip
"""Colours of states; others are red."""
WIDE = 118
"""Columns of a terminal from which on there is room for everything."""
SPARED = frozenset({"tier", "tokens/s", "runs on", "up", "prefix hits"})
"""What a narrower one does without."""
OLD_S = 30.0
"""From this age on what waits is pointed out: the steward looks after it then, too."""
SILENT_S = 15.0
ABSENT = "absent"


def screen(found: Glance, width: int, keys: str = "") -> Group:
    """Everything of one look, most telling first, for a terminal of so many columns."""
    wide = width >= WIDE
    parts: list[RenderableType] = [_headline(found)]
    parts += [Text(f"! {plain(problem)}", style="bold red") for problem in found.problems]
    parts += [_rates(found), _queues(found), _lanes(found, wide), _workers(found, wide)]
    parts.append(_money(found))
    if keys:
        parts.append(Text(keys, style="dim"))
    return Group(*parts)


def _headline(found: Glance) -> Text:
    moment = datetime.fromtimestamp(found.at / SECOND, UTC).strftime("%H:%M:%S UTC")
    line = Text("uptier top", style="bold")
    line.append(f"   {moment}   stack ", style="not bold")
    line.append(found.stack, style=_style(found.stack))
    line.append(f"   profile {found.profile}   broker {found.broker or 'none'}", style="not bold")
    if found.flower:
        line.append(f"   flower {found.flower}", style="not bold")
    return line


def _rates(found: Glance) -> Table:
    rates, states = found.rates, found.decisions
    figures = [
        ("settled", "-" if rates.settled_per_s is None else f"{rates.settled_per_s:,.1f}/s"),
        ("accepted", percent(rates.accepted_share)),
        ("climbed", percent(rates.climbed_share)),
        ("open", f"{sum(n for state, n in states.items() if state != 'settled'):,}"),
        ("in all", f"{states.get('settled', 0):,}"),
        ("today", usd(found.money.today_usd)),
    ]
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    for _ in figures:
        grid.add_column(ratio=1)
    grid.add_row(*(Text(value, style="bold") for _, value in figures))
    grid.add_row(*(Text(name, style="dim") for name, _ in figures))
    return grid


def _queues(found: Glance) -> Panel:
    rows = Rows(True, "queue", "messages", "waiting", "running", "oldest")
    for queue in found.queues:
        more = "+" if queue.capped else ""
        rows.add(queue.name, _count(queue.messages), f"{queue.waiting:,}{more}",
                 f"{queue.running:,}", _oldest(queue))  # fmt: skip
    return _panel("queues", rows.table)


def _oldest(queue: QueueView) -> Text:
    if queue.oldest_s is None:
        return Text("-")
    return Text(_span(queue.oldest_s), style="bold red" if queue.oldest_s > OLD_S else "")


def _lanes(found: Glance, wide: bool) -> Panel:
    rows = Rows(wide, "lane", "tier", "model", "state", "workers", "answers/s", "accepted",
                "failed", "tokens/s", "$/h", left=4)  # fmt: skip
    absent = [lane for lane in found.lanes if lane.state == ABSENT]
    for lane in found.lanes:
        if lane.state != ABSENT:
            rows.add(
                lane.name, lane.tier, lane.model, _state(lane.state), str(lane.workers),
                f"{lane.answers_per_s:,.1f}", percent(lane.accepted_share), f"{lane.failed:,}",
                f"{lane.tokens_per_s:,.0f}", f"{lane.per_hour_usd:,.2f}",
            )  # fmt: skip
    lines = [Text(plain(f"{lane.name} is absent: {lane.reason}"), style="dim") for lane in absent]
    closed = [lane for lane in found.lanes if lane.reason and lane.state != ABSENT]
    lines += [Text(plain(lane.reason), style="bold red") for lane in closed]
    return _panel("lanes, over the last minute", Group(rows.table, *lines))


def _workers(found: Glance, wide: bool) -> Panel:
    rows = Rows(wide, "worker", "state", "runs on", "pid", "heard of", "up", "restarts",
                "tokens/s", "prefix hits", "died last", left=3)  # fmt: skip
    for worker in found.workers:
        heard = "-" if worker.heartbeat_s is None else f"{_span(worker.heartbeat_s)} ago"
        late = (worker.heartbeat_s or 0) > SILENT_S
        where = worker.placement if worker.placement != "-" else worker.host
        rows.add(
            worker.name, _state(worker.state), where, _count(worker.pid, plain=True),
            Text(heard, style="bold red" if late else ""), _span(worker.uptime_s),
            _restarts(worker), *_engine(worker), worker.message,
        )  # fmt: skip
    return _panel("workers", rows.table)


def _restarts(worker: WorkerView) -> Text:
    return Text(_count(worker.restarts), style="yellow" if worker.restarts else "")


def _engine(worker: WorkerView) -> tuple[str, str]:
    speed, hits = worker.figures.get("tokens_per_s"), worker.figures.get("prefix_hit_rate")
    return "-" if speed is None else f"{speed:,.0f}", percent(hits)


def _money(found: Glance) -> Panel:
    money = found.money
    spent = Text(f"{usd(money.today_usd)} today, {usd(money.per_hour_usd)} an hour at the pace of "
                 "the last quarter")  # fmt: skip
    if money.unknown_charges:
        spent.append(f"; {money.unknown_charges} unknown charges, at most "
                     f"{usd(money.unknown_usd)}", style="bold yellow")  # fmt: skip
    lines = [spent]
    for use in money.budgets:
        left = ""
        if use.limit_usd is not None:
            left = f", {usd(max(0.0, use.limit_usd - use.spent_usd - use.reserved_usd))} left"
        lines.append(Text(f"budget {budget_line(use)}{left}", style="yellow" if use.alert else ""))
    lines += [
        Text(plain(f"{one.name}: breaker {one.breaker}; {one.reason}"), style="bold red")
        for one in found.providers
        if one.breaker != "closed"
    ]
    return _panel("money", Group(*lines))


class Rows:
    """A table whose cells are never taken for markup; a narrow one lacks columns."""

    def __init__(self, wide: bool, *heads: str, left: int = 1) -> None:
        self.table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
        self._shown = [wide or head not in SPARED for head in heads]
        for place, head in enumerate(heads):
            if self._shown[place]:
                # Only what is said at the end may take several lines.
                words = head == "died last"
                self.table.add_column(
                    head, justify="left" if place < left or words else "right",
                    no_wrap=not words, overflow="fold" if words else "ellipsis",
                )  # fmt: skip

    def add(self, *cells: str | Text) -> None:
        """Add a row with a cell for each head."""
        texts = (Text(plain(cell)) if isinstance(cell, str) else cell for cell in cells)
        self.table.add_row(*(t for t, shown in zip(texts, self._shown, strict=True) if shown))


def _panel(title: str, inside: RenderableType) -> Panel:
    return Panel(inside, title=title, title_align="left", border_style="dim", padding=(0, 1))


def _state(state: str) -> Text:
    return Text(state, style=_style(state))


def _style(state: str) -> str:
    return STYLES.get(state, "bold red")


def _count(number: int | None, plain: bool = False) -> str:
    if number is None:
        return "-"
    return str(number) if plain else f"{number:,}"


def _span(seconds: float | None) -> str:
    """Seconds as a short span: 4.2 s, 3 min, 5 h, 2 d."""
    if seconds is None:
        return "-"
    for limit, unit, by in ((10, "s", 1.0), (120, "s", 1.0), (7200, "min", 60.0),
                            (172_800, "h", 3600.0)):  # fmt: skip
        if seconds < limit:
            return f"{seconds / by:.1f} {unit}" if limit == 10 else f"{seconds / by:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
