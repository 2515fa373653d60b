"""The figures of an analysis, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lessismore_transforms.analysis.cka import CKA, Floats
from lessismore_transforms.report.figure import BLUE, COLOURS, GREY, INK, as_svg, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_TICKS = 17  # names of layers along an axis
_MOST_POINTS = 2000


def similarity(first: str, second: str, found: CKA) -> bytes:
    """The map of a pair, and its diagonal with intervals where both have the same layers."""

    def draw(figure: Figure) -> None:
        square = found.rows == found.columns
        left, right = figure.subplots(1, 2, width_ratios=(5, 4)) if square else (figure.add_subplot(), None)
        _heat(figure, left, found.cka, found.rows, found.columns, "viridis", (0, 1), "CKA")
        left.set_title(plain(f"{first} and {second}"))
        left.set_ylabel(plain(f"layers of {first}, early to late"))
        left.set_xlabel(plain(f"layers of {second}, early to late"))
        if right is not None:
            places = np.arange(len(found.rows))
            right.fill_between(
                places, np.diagonal(found.low), np.diagonal(found.high), color=BLUE, alpha=0.25, linewidth=0,
                label=f"{100 * found.level:.0f} % interval",
            )  # fmt: skip
            right.plot(places, np.diagonal(found.cka), color=BLUE, label="CKA of the same layer")
            right.set_ylim(min(0.0, float(np.nanmin(found.cka))), 1.02)
            right.set_xlabel("layer, early to late")
            right.legend(loc="lower left")

    return as_svg(draw, 5.2)


def change(title: str, values: Floats, low: Floats, high: Floats, rows: Sequence[str], columns: Sequence[str]) -> bytes:
    """The difference of two maps; cells whose interval holds 0 are pale."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        most = max(0.05, float(np.nanmax(np.abs(values))))
        _heat(figure, left, values, rows, columns, "RdBu", (-most, most), "difference")
        sure = np.where((low > 0) | (high < 0), values, np.nan)
        _heat(figure, right, sure, rows, columns, "RdBu", (-most, most), "difference")
        left.set_title(plain(title))
        right.set_title("without the cells whose interval holds 0")
        for axes in (left, right):
            axes.set_xlabel("layers, early to late")

    return as_svg(draw, 4.8)


def maps(table: pd.DataFrame, networks: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> bytes:
    """The first t-SNE map of each network, coloured by class."""
    colours = dict(zip(classes or [""], COLOURS * (1 + len(classes) // len(COLOURS)), strict=False))
    columns = min(3, len(networks))
    rows = -(-len(networks) // columns)

    def draw(figure: Figure) -> None:
        grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for axes, network in zip(grid, networks, strict=False):
            chosen = table["model"].eq(network["model"]) & table["of"].eq(network["of"]) & table["map"].eq("tsne_0")
            points = table[chosen][:_MOST_POINTS]
            for name, colour in colours.items():
                own = points[points["label"].eq(name)]
                axes.scatter(own["x"], own["y"], s=10, color=colour, alpha=0.7, linewidths=0, label=plain(name) or None)
            axes.set_title(plain(f"{network['model']}, {network['of']}"))
            axes.set_xticks([])
            axes.set_yticks([])
        for axes in grid[len(networks) :]:
            axes.set_axis_off()
        if classes:
            grid[0].legend(loc="best", markerscale=2)

    return as_svg(draw, 3.5 * rows)


def agreement(pairs: Sequence[Mapping[str, Any]]) -> bytes:
    """IoU of each pair's maps against the share of the maximum at which they are cut."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for pair, colour in zip(pairs, COLOURS * len(pairs), strict=False):
            curve = pair["curve"]
            shares = [point["share"] for point in curve]
            low, high, value = (_numbers(point[name] for point in curve) for name in ("low", "high", "value"))
            axes.fill_between(shares, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(shares, value, "o-", color=colour, label=plain(f"{pair['first']} and {pair['second']}"))
            axes.plot(pair["share"], _number(pair["chance"]["value"]), "x", color=colour, markersize=9)
        axes.plot([], [], "x", color=INK, label="maps of different pictures")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("share of a map's range from which on a place counts as attended")
        axes.set_ylabel("IoU")
        axes.legend(loc="upper right")

    return as_svg(draw, 3.8)


def checkpoints(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The measures without labels of each encoder over its checkpoints."""
    names = {"rank_me": "RankMe", "alignment": "alignment", "uniformity": "uniformity", "near_copies": "near copies"}

    def draw(figure: Figure) -> None:
        for place, (key, title) in enumerate(names.items(), start=1):
            axes = figure.add_subplot(1, 4, place)
            for model, colour in zip(dict.fromkeys(row["model"] for row in rows), COLOURS * len(rows), strict=False):
                own = [row for row in rows if row["model"] == model]
                axes.plot(_moments(own), _numbers(row[key] for row in own), "o-", color=colour, label=plain(model))
            axes.set_title(title)
            axes.set_xlabel("iteration")
            axes.locator_params(axis="x", integer=True)
        figure.axes[0].legend(loc="best")

    return as_svg(draw, 3.0)


def _heat(
    figure: Figure,
    axes: Axes,
    values: Floats,
    rows: Sequence[str],
    columns: Sequence[str],
    colours: str,
    ends: tuple[float, float],
    label: str,
) -> None:
    from matplotlib import colormaps

    shades = colormaps[colours].with_extremes(bad="#e6ebf0")
    shown = axes.imshow(np.ma.masked_invalid(values), cmap=shades, vmin=ends[0], vmax=ends[1], origin="lower")
    figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    axes.grid(visible=False)
    for axis, layers in ((axes.yaxis, rows), (axes.xaxis, columns)):
        places = np.unique(np.linspace(0, len(layers) - 1, min(_MOST_TICKS, len(layers))).round().astype(int))
        axis.set_ticks(places, [layers[place] for place in places], fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(colors=GREY)


def _moments(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """When each checkpoint was written, in iterations; 0, 1, ... where one does not tell."""
    told = [row["iteration"] for row in rows]
    return list(range(len(rows))) if None in told else told


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _numbers(values: Any) -> list[float]:
    return [_number(value) for value in values]
