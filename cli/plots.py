"""Draws frontiers and calibration as PNG; Matplotlib comes with the extra ``plot``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from config.errors import InputError
from config.files import written_whole
from routing.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, HIGH = 6.0, 4.5  # inches, a panel
DPI = 120


def check_plots(path: Path) -> None:
    """Refuse before any work is done what could not be drawn after it.

    Raises:
        InputError: Matplotlib is missing, or the path is no .png in a folder that is there.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"--plot {path} is no .png: give a name that ends in .png")
    if not path.absolute().parent.is_dir():
        raise InputError(
            f"--plot {path}: there is no folder {path.absolute().parent}: make it first"
        )
    if path.is_dir():
        raise InputError(f"--plot {path} is a folder: give a name that ends in .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plot needs Matplotlib: pip install 'uptier[plot]'")


def plot(path: Path, found: Sequence[tuple[str, Evaluation]]) -> None:
    """One row of panels a trace: the frontier with its points of comparison, and calibration.

    Raises:
        InputError: the file cannot be written.
    """
    figure = canvas(2 * WIDE, HIGH * len(found))
    panels = figure.subplots(len(found), 2, squeeze=False)
    for (name, one), (left, right) in zip(found, panels, strict=True):
        _frontier(left, name, one)
        _calibration(right, one)
    save(figure, path)


def canvas(wide: float, high: float) -> Figure:
    """An empty figure of so many inches, drawn without a display."""
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rcParams["text.parse_math"] = False  # a name with dollars in it is no formula
    figure = Figure(figsize=(wide, high), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with written_whole(path, "--plot") as unfinished:
        figure.savefig(unfinished, dpi=DPI, format="png")


def _frontier(axes: Axes, name: str, one: Evaluation) -> None:
    costs, shares = zip(*one.frontier, strict=True)
    axes.plot(costs, shares, ".-", linewidth=1, markersize=3, label="policies by price")
    marks = [("policy", one.policy, "*"), ("naive", one.naive, "v"), ("oracle", one.oracle, "D"),
             ("random at the same rate", one.random_at_same_rate, "x")]  # fmt: skip
    marks += [(f"always {model}", score, "o") for model, score in one.singles.items()]
    for label, score, mark in marks:
        axes.plot(score.cost_ratio, score.relative_accuracy, mark, label=label)
    axes.axhline(one.goal.target, color="grey", linestyle=":", linewidth=1)
    axes.set(title=name, xlabel="cost by the top's", ylabel="accuracy by the top's")
    axes.legend(fontsize="x-small")


def _calibration(axes: Axes, one: Evaluation) -> None:
    names = list(one.calibration_error)
    places = range(len(names))
    axes.bar([x - 0.2 for x in places], [one.stated_error[n] for n in names], 0.4, label="stated")
    axes.bar([x + 0.2 for x in places], [one.calibration_error[n] for n in names], 0.4,
             label="calibrated")  # fmt: skip
    axes.set_xticks(list(places), names)
    axes.set(ylabel="expected calibration error", title="" if names else "no confidences")
    if names:
        axes.legend(fontsize="small")
