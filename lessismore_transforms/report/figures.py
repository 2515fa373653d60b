"""The drawings of the report, as SVG that is the same for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report.facts import BITS, RULES, VolumeFacts, spread
from lessismore_transforms.report.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Remaining shares (Wolf et al. 2024, doi 10.1016/j.compbiomed.2024.109242, Section 3.3).
PAPER_THRESHOLDS = (3, 6, 12)
PAPER = {"LIDC-IDRI": (0.182, 0.093, 0.040), "PET-CT": (0.223, 0.090, 0.036)}
MOST_LINES, VOLUMES_FOR_BAND = 30, 5

_WIDTH = 10.6  # inches; the page shows it at 1080 px
_BLUE, _ORANGE, _GREY, _PALE, _INK = "#1763b6", "#c2560c", "#66737f", "#b9cbdc", "#1c2733"
_COLOURS = {"exemplars": _BLUE, "pairs": _ORANGE}
_DASHED: dict[str, Any] = {"linewidth": 1.2, "linestyle": (0, (4, 3))}
_LABEL: dict[str, Any] = {
    "textcoords": "offset points",
    "bbox": {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lessismore",  # makes ids, and so bytes, the same
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GREY,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6ebf0",
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


def curves(volumes: Sequence[VolumeFacts], target: Target) -> bytes:
    """Kept share against threshold: the data set by both rules, volumes by the chosen one, the paper, the cut."""
    slices = sum(map(len, volumes))
    kept = sum(volume.kept_count for volume in volumes) / slices
    totals = {rule: np.sum([volume.counts[rule] for volume in volumes], axis=0) / slices for rule in RULES}
    shares = np.stack([volume.counts[target.rule] / len(volume) for volume in volumes])  # (volumes, 65)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _draw_volumes(axes, shares, target.rule)
        for rule, share in totals.items():
            axes.plot(share, color=_COLOURS[rule], linewidth=2.4, label=f"this data set, rule {rule}")
        for (name, points), marker in zip(PAPER.items(), "Ds", strict=True):
            numbers = " / ".join(f"{100 * share:.1f}" for share in points)
            axes.plot(
                PAPER_THRESHOLDS, points, marker, color=_INK, markerfacecolor="white", markersize=7, zorder=4,
                label=f"{name} in the paper ({numbers} % at 3 / 6 / 12)",
            )  # fmt: skip
        _mark_cut(axes, target, kept)
        _stretch(axes, min(PAPER["PET-CT"][-1], *(float(share.min()) for share in totals.values())))
        axes.legend(loc="upper right")

    return _svg(draw, 5.0)


def _draw_volumes(axes: Axes, shares: NDArray[np.float64], rule: str) -> None:
    """Some volumes as thin lines and the spread of all as a band; nothing where the data set is one volume."""
    if len(shares) > 1:
        for i in spread(range(len(shares)), MOST_LINES):
            label = None if i else f"single volumes, rule {rule}"
            axes.plot(shares[i], color=_PALE, linewidth=0.8, label=label)
    if len(shares) >= VOLUMES_FOR_BAND:
        low, high = np.quantile(shares, (0.1, 0.9), axis=0)
        label = "middle 80 % of the volumes"
        axes.fill_between(np.arange(BITS + 1), low, high, color=_PALE, alpha=0.35, linewidth=0, label=label)


def _mark_cut(axes: Axes, target: Target, kept: float) -> None:
    style: dict[str, Any] = {**_LABEL, "color": _COLOURS[target.rule], "fontweight": "bold", "zorder": 6}
    if target.threshold is None:
        axes.axhline(kept, color=style["color"], **_DASHED)
        axes.annotate(f"chosen: {percent(kept)}", (0, kept), (10, 8), **style)
    else:
        axes.axvline(target.threshold, color=style["color"], **_DASHED)
        axes.plot(target.threshold, kept, "o", color=style["color"], markersize=9, zorder=5)
        side, shift = ("left", 10) if target.threshold <= BITS / 2 else ("right", -10)
        words = f"chosen: {target.threshold:g} bits, {percent(kept)}"
        axes.annotate(words, (target.threshold, kept), (shift, 10), ha=side, **style)


def _stretch(axes: Axes, lowest: float) -> None:
    """Give room to small thresholds and small shares: a square root across, a logarithm up."""
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    axes.set_yscale("log")
    axes.set_xlim(0, BITS)
    axes.set_ylim(max(0.7 * lowest, 5e-4), 1.18)
    axes.set_xticks([0, 1, 2, 3, 4, 6, 9, 12, 18, 24, 32, 48, 64])
    ticks = [share for share in (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3) if share >= axes.get_ylim()[0]]
    axes.set_yticks(ticks, [f"{100 * share:g} %" for share in ticks])
    axes.minorticks_off()
    axes.set_xlabel("threshold: slices that differ in at most so many of 64 bits count as alike")
    axes.set_ylabel("slices kept")


def histograms(distance: NDArray[np.int64], removed_at: NDArray[np.int64], target: Target) -> bytes:
    """Histograms in bits: removed slices by distance to their stand-in, all by where the pair rule removes them."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        left.set_title("removed slices: to the slice that stands for them")
        right.set_title("all slices: at which they fall by the pair rule")
        for axes, bits, colour in ((left, distance, _COLOURS[target.rule]), (right, removed_at, _ORANGE)):
            counts = np.bincount(bits, minlength=2)
            axes.bar(np.arange(len(counts)), counts, width=0.9, color=colour)
            axes.set_ylim(0, 1.05 * max(1, counts.max()))
            axes.grid(visible=False, axis="x")
            axes.locator_params(axis="both", integer=True)
            axes.set_xlabel("distance (bits of 64)")
            axes.set_ylabel("slices")
        if target.threshold is not None:
            cut = target.threshold + 0.5
            right.axvline(cut, color=_INK, **_DASHED)
            words = f"chosen: {target.threshold:g} bits"
            right.annotate(words, (cut, 1), (5, -12), xycoords=("data", "axes fraction"), **_LABEL)

    return _svg(draw, 3.4)


def shares_by_spacing(volumes: Sequence[VolumeFacts], outliers: Sequence[int]) -> bytes:
    """Kept share of each volume against the distance between its slices; outliers (indices) stand out."""
    spacing = np.array([volume.spacing_mm for volume in volumes])
    share = np.array([volume.share for volume in volumes])
    median = float(np.median(share))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        odd = set(outliers)
        colours = [_ORANGE if i in odd else _BLUE for i in range(len(volumes))]
        axes.scatter(spacing, share, s=36 if len(volumes) < 100 else 14, c=colours, alpha=0.75, linewidths=0)
        axes.axhline(median, color=_GREY, **_DASHED)
        axes.annotate(
            f"median {percent(median)}", (1, median), (0, 5), xycoords=("axes fraction", "data"), ha="right",
            color=_GREY, fontsize=10, **_LABEL,
        )  # fmt: skip
        for i in outliers[:8] if len(volumes) > 12 else range(len(volumes)):
            axes.annotate(volumes[i].name[:8], (spacing[i], share[i]), (7, -4), fontsize=9, **_LABEL)
        axes.set_xlim(0, 1.12 * float(spacing.max()))
        axes.set_ylim(0, min(1.02, 1.2 * float(share.max())))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("distance between slices (mm)")
        axes.set_ylabel("slices kept")

    return _svg(draw, 3.4)


def _svg(draw: Callable[[Figure], None], height: float) -> bytes:
    """What `draw` puts on a figure of so many inches."""
    from matplotlib import style
    from matplotlib.figure import Figure  # not pyplot: it keeps state and may look for a display

    with style.context(["default", _STYLE]):  # from the defaults, so that nobody's matplotlibrc changes the page
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
