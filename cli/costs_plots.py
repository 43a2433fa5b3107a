"""Draws costs as PNG; see cli/plots.py for what that needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.plots import HIGH, WIDE, canvas, save
from producers.costs_projection import Projection
from producers.costs_report import CostLine, CostReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 4  # groups whose names stand beside one another
MOST = 40  # groups that have room
BAR = 0.8  # of the room for a group of bars


def plot_report(path: Path, found: CostReport) -> None:
    """Two panels: what each group cost beside the API alone, and its calls.

    Raises:
        InputError: the file cannot be written.
    """
    dearest = sorted(found.groups, key=lambda name: -_size(found.groups[name]))[:MOST]
    names = [name for name in found.groups if name in dearest]
    lines = [found.groups[name] for name in names]
    figure = canvas(2 * WIDE, HIGH)
    left, right = figure.subplots(1, 2)
    series = {"spent": [line.cost_usd for line in lines]}
    if found.reference_model is not None:
        alone = [line.api_only_usd or 0.0 for line in lines]
        series[f"all on {found.reference_model}"] = alone
    _bars(left, names, series)
    of = "" if len(names) == len(found.groups) else f": the dearest {MOST} of {len(found.groups)}"
    left.set(title=f"costs of {found.source} by {found.by}{of}", ylabel="dollars")
    _bars(right, names, {"local": [float(line.calls - line.api_calls) for line in lines],
                         "API": [float(line.api_calls) for line in lines]})  # fmt: skip
    right.set(title="where calls were made", ylabel="calls")
    save(figure, path)


def plot_projections(path: Path, found: Sequence[Projection]) -> None:
    """Two panels: what a month costs on the tiers and on reference models, and where calls begin.

    Raises:
        InputError: the file cannot be written.
    """
    figure = canvas(2 * WIDE, HIGH)
    left, right = figure.subplots(1, 2)
    names = [one.workload for one in found]
    models = list(dict.fromkeys(ref.model for one in found for ref in one.references))
    series = {f"all on {model}": [_monthly(one, model) for one in found] for model in models} | {
        "on the tiers": [float(one.cost.monthly) for one in found]
    }
    _bars(left, names, series)
    left.set(title="a month of 30 days", ylabel="dollars")
    _shares(right, found)
    save(figure, path)


def _size(line: CostLine) -> float:
    return max(line.cost_usd, line.api_only_usd or 0.0)


def _monthly(one: Projection, model: str) -> float:
    return next((float(ref.cost.monthly) for ref in one.references if ref.model == model), 0.0)


def _bars(axes: Axes, names: Sequence[str], series: dict[str, list[float]]) -> None:
    width = BAR / len(series)
    for index, (label, values) in enumerate(series.items()):
        places = [at + (index - (len(series) - 1) / 2) * width for at in range(len(names))]
        axes.bar(places, values, width, label=label)
    slanted = len(names) > FEW
    axes.set_xticks(range(len(names)), names, rotation=30 if slanted else 0,
                    ha="right" if slanted else "center")  # fmt: skip
    axes.legend(fontsize="small")


def _shares(axes: Axes, found: Sequence[Projection]) -> None:
    """Stacked shares of the tiers; where others are expected, a second bar has them."""
    bars = [(one.workload, one.tiers) for one in found]
    bars += [(f"{one.workload}, expected", one.expected) for one in found if one.expected]
    tiers = list(dict.fromkeys(tier for _, uses in bars for tier in uses))
    ends = [0.0] * len(bars)
    for tier in tiers:
        shares = [float(uses[tier].share) if tier in uses else 0.0 for _, uses in bars]
        axes.barh([name for name, _ in bars], shares, left=ends, label=tier)
        ends = [end + share for end, share in zip(ends, shares, strict=True)]
    axes.invert_yaxis()
    axes.set(title="where calls begin", xlabel="share of calls")
    axes.legend(fontsize="small")
