"""The drawings of the report, as SVG that is the same for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report.choices import Scale
from lessismore_transforms.report.figure import (
    BLUE,
    DASHED,
    GREY,
    INK,
    LABEL,
    ORANGE,
    PALE,
    Drawing,
    as_drawing,
    as_svg,
)
from lessismore_transforms.report.html import amount
from lessismore_transforms.report.summary import BITS, RULES, VolumeSummary, removed_at, similarity_counts, spread
from lessismore_transforms.wording import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Remaining shares (Wolf et al. 2024, doi 10.1016/j.compbiomed.2024.109242, Section 3.3).
PAPER_THRESHOLDS = (3, 6, 12)
PAPER = {"LIDC-IDRI": (0.182, 0.093, 0.040), "PET-CT": (0.223, 0.090, 0.036)}
MOST_LINES, VOLUMES_FOR_BAND = 30, 5
_BINS = 40
_LEAST = 1e-5  # share that stands for none where the axis is logarithmic
CUT = "cut"  # what the ids of the chosen mark's parts begin with, which the page's script takes away

COLOURS = {"exemplars": BLUE, "pairs": ORANGE}


def curves(volumes: Sequence[VolumeSummary], target: Target) -> Drawing:
    """Kept share against HASH threshold: the data set by both rules, volumes by one, the paper, the cut."""
    by = target.rule if target.method == "hash" else "exemplars"
    slices = sum(map(len, volumes))
    kept = sum(volume.kept_count for volume in volumes) / slices
    totals = {rule: np.sum([volume.counts[rule] for volume in volumes], axis=0) / slices for rule in RULES}
    shares = np.stack([volume.counts[by] / len(volume) for volume in volumes])  # (volumes, 65)

    def draw(axes: Axes) -> None:
        _draw_volumes(axes, np.arange(BITS + 1), shares, by)
        for rule, share in totals.items():
            axes.plot(
                np.maximum(share, _LEAST), color=COLOURS[rule], linewidth=2.4, label=f"this data set, rule {rule}"
            )
        for (name, points), marker in zip(PAPER.items(), "Ds", strict=True):
            numbers = " / ".join(f"{100 * share:.1f}" for share in points)
            axes.plot(
                PAPER_THRESHOLDS, points, marker, color=INK, markerfacecolor="white", markersize=7, zorder=4,
                label=f"{name} in the paper ({numbers} % at 3 / 6 / 12)",
            )  # fmt: skip
        _mark_cut(axes, target, kept, "hash")
        axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        axes.set_xlim(0, BITS)
        axes.set_xticks([0, 1, 2, 3, 4, 6, 9, 12, 18, 24, 32, 48, 64])
        axes.set_xlabel("threshold: slices that differ in at most so many of 64 bits count as alike")
        _stretch(axes, min(PAPER["PET-CT"][-1], *(float(share.min()) for share in totals.values())))
        axes.legend(loc="upper right")

    return as_drawing(draw, 5.0)


def similarity_curves(volumes: Sequence[VolumeSummary], measure: str, target: Target) -> Drawing:
    """Kept share against the threshold of a similarity, as far as it was ranked: the data set, volumes, the cut."""
    slices = sum(map(len, volumes))
    kept = sum(volume.kept_count for volume in volumes) / slices
    chosen = target.threshold if target.measure == measure else None
    low, high = _range(removed_at(volumes, measure), measure, chosen, most=0.95)
    grid = high - (high - low) * np.linspace(0, 1, 201) ** 2
    counts = np.stack([similarity_counts(volume, measure, grid) for volume in volumes])
    shares, total = counts / np.array([[len(volume)] for volume in volumes]), counts.sum(axis=0) / slices

    def draw(axes: Axes) -> None:
        _draw_volumes(axes, grid, shares, "pairs")
        axes.plot(
            grid, np.maximum(total, _LEAST), color=COLOURS["pairs"], linewidth=2.4, label="this data set, rule pairs"
        )
        _mark_cut(axes, target, kept, measure)
        axes.set_xscale("function", functions=(lambda x: -np.sqrt(np.maximum(high - x, 0)), lambda y: high - y * y))
        axes.set_xlim(high, low)  # from alike to different, as for HASH
        axes.locator_params(axis="x", nbins=10)
        axes.set_xlabel(f"threshold ({MEASURES[measure].unit}): slices at least this similar count as alike and go")
        _stretch(axes, min(kept, float(np.nanmin(total, initial=1))))
        axes.legend(loc="upper right")

    return as_drawing(draw, 5.0)


def mark_places(drawing: Drawing, scale: Scale, measure: str, slices: int) -> list[tuple[float | None, float]]:
    """Where the mark of each choice lies on the measure's curves: across, None where it is no threshold of it; down."""
    places: list[tuple[float | None, float]] = []
    for target, kept in zip(scale.targets, scale.kept, strict=True):
        on_axis = target.method == measure and target.threshold is not None
        across, down = drawing.place(target.threshold if on_axis else 0, max(kept / slices, _LEAST))  # type: ignore[arg-type]
        places.append((across if on_axis else None, down))
    return places


def _range(fallen: NDArray[np.float64], measure: str, chosen: float | None, *, most: float = 1) -> tuple[float, float]:
    """Where a similarity's values lie, least and most alike, the chosen one included.

    `most`: share of the values that must be in; a few slices that are the same squeeze all others.
    """
    ends = [float(fallen.min()), float(np.quantile(fallen, most))] if len(fallen) else []
    ends += [] if chosen is None else [chosen]
    low, high = min(ends, default=MEASURES[measure].low), max(ends, default=MEASURES[measure].high)
    return (low, high) if high - low > 1e-6 else (low - 0.05, high + 0.05)


def _draw_volumes(axes: Axes, thresholds: NDArray[Any], shares: NDArray[np.float64], rule: str) -> None:
    """Some volumes as thin lines and the spread of all as a band; nothing where the data set is one volume."""
    shares = np.maximum(shares, _LEAST)
    if len(shares) > 1:
        for i in spread(range(len(shares)), MOST_LINES):
            label = None if i else f"single volumes, rule {rule}"
            axes.plot(thresholds, shares[i], color=PALE, linewidth=0.8, label=label)
    if len(shares) >= VOLUMES_FOR_BAND:
        low, high = np.quantile(shares, (0.1, 0.9), axis=0)
        label = "middle 80 % of the volumes"
        axes.fill_between(thresholds, low, high, color=PALE, alpha=0.35, linewidth=0, label=label)


def _mark_cut(axes: Axes, target: Target, kept: float, measure: str) -> None:
    """The chosen point or, where the choice is no threshold on this axis, the kept share."""
    height = max(kept, _LEAST)
    colour = COLOURS[target.rule] if target.method == measure else INK
    style: dict[str, Any] = {**LABEL, "color": colour, "fontweight": "bold", "zorder": 6, "gid": f"{CUT}_label"}
    if target.threshold is None or target.method != measure:
        axes.axhline(height, color=colour, gid=f"{CUT}_line", **DASHED)
        place = (10, 8 if kept < 0.5 else -16)
        axes.annotate(f"chosen: {percent(kept)}", (0, height), place, xycoords=("axes fraction", "data"), **style)
    else:
        axes.axvline(target.threshold, color=colour, gid=f"{CUT}_line", **DASHED)
        axes.plot(target.threshold, height, "o", color=colour, markersize=9, zorder=5, gid=f"{CUT}_point")
        right = measure == "hash" and target.threshold > BITS / 2
        side, shift = ("right", -10) if right else ("left", 10)
        words = f"chosen: {amount(measure, target.threshold)}, {percent(kept)}"
        axes.annotate(words, (target.threshold, height), (shift, 10), ha=side, **style)


def _stretch(axes: Axes, lowest: float) -> None:
    """Give room to small shares."""
    axes.set_ylim(max(0.7 * lowest, 5e-4), 1.18)
    axes.set_yscale("log")
    ticks = [share for share in (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3) if share >= axes.get_ylim()[0]]
    axes.set_yticks(ticks, [f"{100 * share:g} %" for share in ticks])
    axes.minorticks_off()
    axes.set_ylabel("slices kept")


def histograms(distance: NDArray[np.float64], fallen: NDArray[np.float64], target: Target) -> bytes:
    """Histograms: removed slices by distance to their stand-in, all by where the pair rule removes them."""
    measure = target.measure
    whole = measure == "hash"
    low, high = _range(np.concatenate([distance, fallen]), measure, target.threshold)

    def bars(values: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any], float]:
        if whole:
            counts = np.bincount(values.astype(np.int64), minlength=2)
            return np.arange(len(counts)), counts, 0.9
        counts, edges = np.histogram(values, _BINS, (low, high))
        return (edges[1:] + edges[:-1]) / 2, counts, 0.9 * (high - low) / _BINS

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        left.set_title("removed slices: to the slice that " + ("stands for them" if whole else "removed them"))
        right.set_title("all slices: at which they fall by the pair rule")
        for axes, values, colour in ((left, distance, COLOURS.get(target.rule, INK)), (right, fallen, ORANGE)):
            places, counts, width = bars(values)
            axes.bar(places, counts, width=width, color=colour)
            axes.set_ylim(0, 1.05 * max(1, counts.max()))
            axes.grid(visible=False, axis="x")
            axes.locator_params(axis="both" if whole else "y", integer=True)
            axes.set_xlabel("distance (bits of 64)" if whole else f"{MEASURES[measure].unit}, alike to different")
            if not whole:
                axes.set_xlim(high, low)
            axes.set_ylabel("slices")
        if target.threshold is not None:
            cut = target.threshold + 0.5 * whole
            right.axvline(cut, color=INK, **DASHED)
            words = f"chosen: {amount(measure, target.threshold)}"
            right.annotate(words, (cut, 1), (5, -12), xycoords=("data", "axes fraction"), **LABEL)

    return as_svg(draw, 3.4)


def shares_by_spacing(volumes: Sequence[VolumeSummary], outliers: Sequence[int]) -> bytes:
    """Kept share of each volume against the distance between its slices; outliers (indices) stand out."""
    spacing = np.array([volume.spacing_mm for volume in volumes])
    share = np.array([volume.share for volume in volumes])
    median = float(np.median(share))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        odd = set(outliers)
        colours = [ORANGE if i in odd else BLUE for i in range(len(volumes))]
        axes.scatter(spacing, share, s=36 if len(volumes) < 100 else 14, c=colours, alpha=0.75, linewidths=0)
        axes.axhline(median, color=GREY, **DASHED)
        axes.annotate(
            f"median {percent(median)}", (1, median), (0, 5), xycoords=("axes fraction", "data"), ha="right",
            color=GREY, fontsize=10, **LABEL,
        )  # fmt: skip
        for i in outliers[:8] if len(volumes) > 12 else range(len(volumes)):
            axes.annotate(volumes[i].name[:8], (spacing[i], share[i]), (7, -4), fontsize=9, **LABEL)
        axes.set_xlim(0, 1.12 * float(spacing.max()))
        axes.set_ylim(0, min(1.02, 1.2 * float(share.max()) or 1))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.set_xlabel("distance between slices (mm)")
        axes.set_ylabel("slices kept")

    return as_svg(draw, 3.4)
