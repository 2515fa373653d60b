"""The figures of an audit, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lessismore_transforms.report.figure import COLOURS, DASHED, GREY, INK, as_svg, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]


def collisions(series: Mapping[str, Rows], others: Mapping[str, float], exact: float) -> bytes:
    """How often neighbours are closer than the view: over their distance in mm, and over their bits.

    Args:
        series: of each measure the rates of neighbours, as in audit.json.
        others: of each measure the rate of another patient's slices.
        exact: the rate of an exact copy.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2, sharey=True, width_ratios=(4, 6))
        for panel, unit in zip(axes, ("mm", "bit"), strict=True):
            for place, (name, rows) in enumerate(series.items()):
                _curve(panel, rows, unit, COLOURS[place % len(COLOURS)], plain(name), place - (len(series) - 1) / 2)
                if name in others:
                    panel.axhline(others[name], color=COLOURS[place % len(COLOURS)], **DASHED)
            panel.axhline(exact, color=INK, **DASHED)
            panel.set_ylim(-0.02, 1.02 if exact > 0.5 else 0.62)
        axes[0].set_xlabel("distance of the neighbour in mm")
        axes[1].set_xlabel("bits between the hashes of slice and neighbour")
        axes[0].set_ylabel("closer than the second view")
        axes[1].plot([], [], color=INK, label="exact copy", **DASHED)
        axes[1].plot([], [], color=GREY, label="another patient, in the colour of the measure", **DASHED)
        axes[1].legend(loc="best")

    return as_svg(draw, 4.2)


def _curve(axes: Axes, rows: Rows, unit: str, colour: str, label: str, shift: float) -> None:
    """The rates of neighbours at distances in a unit, with intervals; series lie a little beside each other."""
    points = [row for row in rows if row["neighbour"].rstrip("s").endswith(f" {unit}")]
    if not points:
        return
    places = np.array([float(row["neighbour"].split()[0]) for row in points])
    places = places * (1 + 0.03 * shift) if unit == "mm" else places + 0.1 * shift
    axes.plot(places, _numbers(points, "rate"), "o-", color=colour, markersize=4, label=label)
    axes.vlines(
        places, _numbers(points, "rate_low"), _numbers(points, "rate_high"), color=colour, linewidth=1, alpha=0.5
    )


def parts(names: Sequence[str], series: Mapping[str, Mapping[str, Mapping[str, Any]]], exact: float) -> bytes:
    """The rate of the next slice with each part of the views left out, and with it alone, by measure.

    Args:
        names: of the parts.
        series: of each measure, by variant of the views, `next` and `other`: the rates of the next slice and of another
            patient's, as in audit.json.
        exact: the rate of an exact copy.
    """
    rows = ["all parts", *(f"without {name}" for name in names), *(f"{name} alone" for name in names)]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(series), sharey=True, squeeze=False)[0]
        for number, (axes, (title, variants)) in enumerate(zip(panels, series.items(), strict=True)):
            for place, row in enumerate(rows):
                if row not in variants:
                    continue
                near, other = variants[row].get("next"), variants[row].get("other")
                if near is not None:
                    ends = _numbers([near], "rate_low") + _numbers([near], "rate_high")
                    axes.plot(ends, [place, place], color=COLOURS[0], linewidth=2, alpha=0.5)
                    axes.plot(_numbers([near], "rate"), [place], "o", color=COLOURS[0])
                if other is not None:
                    axes.plot(_numbers([other], "rate"), [place], "x", color=COLOURS[1])
            axes.axvline(exact, color=INK, **DASHED)
            axes.axhline(0.5, color=GREY, linewidth=0.8)
            axes.axhline(len(names) + 0.5, color=GREY, linewidth=0.8)
            axes.set_xlim(-0.02, 0.62 if exact <= 0.5 else 1.02)
            axes.set_title(plain(title))
            if number == 0:
                axes.set_yticks(range(len(rows)), rows)
                axes.invert_yaxis()
        panels[0].plot([], [], "o", color=COLOURS[0], label="next slice")
        panels[0].plot([], [], "x", color=COLOURS[1], label="another patient")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.supxlabel("closer than the second view", fontsize=11)

    return as_svg(draw, 1.6 + 0.3 * len(rows))


def negatives(rows: Rows) -> bytes:
    """Near copies among the negatives of a picture over the bits at which slices are near copies."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            bits = [near["bits"] for near in row["near"]]
            values = [near["per_picture"] for near in row["near"]]
            axes.plot(
                bits, values, "o-", color=COLOURS[place % len(COLOURS)], markersize=4, label=plain(row["selection"])
            )
        axes.set_xlabel("slices of a volume within so many bits are near copies")
        axes.set_ylabel("near copies among the\nnegatives of a picture")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left")

    return as_svg(draw, 3.6)


def _numbers(rows: Rows, name: str) -> list[float]:
    return [float("nan") if row[name] is None else float(row[name]) for row in rows]
