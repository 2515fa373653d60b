"""The results of a classifier in one picture: ROC, precision over recall, confusion, calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.classification import metrics
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.errors import UserError
from lessismore_transforms.report.figure import plain
from lessismore_transforms.wording import counted

_SIZE_INCHES, _DPI = (11.5, 10.0), 110
_LONGEST_NAME = 22  # characters of a class
_GREY = "0.6"


def draw_evaluation(predictions: Predictions, classes: Sequence[str], positive: int, path: Path, *, title: str) -> Path:
    """Draw the predictions for one split as PNG of four panels; returns its path.

    Args:
        predictions: of one split.
        classes: names in the order of the labels.
        positive: the class whose curves are drawn where there are two; of more classes, each against the rest.
        path: file of the picture.
        title: text above the panels.

    Raises:
        UserError: there are not as many names as classes.
        OutputError: the picture cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot: it keeps state and may look for a display
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if len(classes) != predictions.probabilities.shape[1]:
        raise UserError(
            f"expected {predictions.probabilities.shape[1]} names of classes for {path}, found {', '.join(classes)}"
        )
    names = [_plain(name) for name in classes]
    drawn = [positive] if len(names) == 2 else list(range(len(names)))
    figure = Figure(figsize=_SIZE_INCHES, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12), dpi=_DPI)
    figure.suptitle(f"{title}: {counted(len(predictions.labels), 'picture')}".replace("$", r"\$"), fontsize=12)
    grid = figure.add_gridspec(2, 2)
    _roc(figure.add_subplot(grid[0, 0]), predictions, names, drawn)
    _precision_recall(figure.add_subplot(grid[0, 1]), predictions, names, drawn)
    _confusion(figure.add_subplot(grid[1, 0]), predictions, names)
    lower = grid[1, 1].subgridspec(2, 1, height_ratios=(4, 1), hspace=0.0)
    above = figure.add_subplot(lower[0])
    _calibration(above, figure.add_subplot(lower[1], sharex=above), predictions)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png")
    return path


def _roc(axes: Any, predictions: Predictions, names: Sequence[str], drawn: Sequence[int]) -> None:
    from sklearn.metrics import roc_curve

    axes.plot([0, 1], [0, 1], ":", color=_GREY, lw=1)
    _curves(axes, predictions, names, drawn, metrics.binary_auc, lambda true, scores: roc_curve(true, scores)[:2])
    if len(drawn) == 1:
        hit, spared = (
            metrics.sensitivity(predictions.labels, predictions.probabilities, positive=number)
            for number in (drawn[0], 1 - drawn[0])
        )
        label = f"as predicted: sensitivity {_number(hit)}, specificity {_number(spared)}"
        axes.plot(1 - spared, hit, "C0o", label=label)
    value = _number(metrics.auc(predictions.labels, predictions.probabilities))
    _style(axes, f"ROC, {'macro ' * (len(names) > 2)}AUC {value}", "1 - specificity", "sensitivity")
    axes.legend(loc="lower right", **_legend(len(drawn)))


def _precision_recall(axes: Any, predictions: Predictions, names: Sequence[str], drawn: Sequence[int]) -> None:
    from sklearn.metrics import precision_recall_curve

    def points(true: Any, scores: Any) -> tuple[Any, Any]:
        precision, recall, _ = precision_recall_curve(true, scores)
        return recall[::-1], precision[::-1]

    if len(drawn) == 1:
        share = np.mean(predictions.labels == drawn[0])
        axes.axhline(share, ls=":", color=_GREY, lw=1)
        axes.text(0.01, share, "chance", color=_GREY, fontsize=8, va="bottom")
    _curves(axes, predictions, names, drawn, metrics.binary_average_precision, points, drawstyle="steps-pre")
    value = _number(metrics.average_precision(predictions.labels, predictions.probabilities, positive=drawn[0]))
    title = f"Precision and recall, {'macro ' * (len(names) > 2)}average precision {value}"
    _style(axes, title, "recall", "precision")
    axes.legend(loc="lower left", **_legend(len(drawn)))


def _curves(
    axes: Any,
    predictions: Predictions,
    names: Sequence[str],
    drawn: Sequence[int],
    area: Callable[..., Any],
    points: Callable[[Any, Any], tuple[Any, Any]],
    **style: Any,
) -> None:
    """Draw a curve per class against the rest, with its area; a class of no or of all examples has no curve."""
    from matplotlib import colormaps

    colours = colormaps["tab10" if len(drawn) <= 10 else "tab20"]
    for place, number in enumerate(drawn):
        true, scores = predictions.labels == number, predictions.probabilities[:, number]
        x, y = points(true, scores) if 0 < true.sum() < len(true) else ([], [])
        label = f"{_number(area(true, scores))} {names[number]}"
        axes.plot(x, y, color=colours(place % colours.N), lw=1.8 if len(drawn) == 1 else 1.0, label=label, **style)


def _confusion(axes: Any, predictions: Predictions, names: Sequence[str]) -> None:
    """Draw the counts with their share of the row; the colour is the root of the share, so that few errors are seen."""
    from matplotlib.colors import PowerNorm

    matrix = metrics.confusion(predictions.labels, predictions.probabilities)  # (C, C)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="auto")
    size = {2: 14, 3: 12, 4: 11}.get(len(names), 7.5 if len(names) <= 12 else 5)
    for true, row in enumerate(matrix):
        for predicted, count in enumerate(row):
            share = shares[true, predicted]
            text = f"{count:.0f}\n{100 * share:.0f} %" if count else "0"
            colour = "white" if share > 0.3 else "black" if count else _GREY
            axes.text(predicted, true, text, ha="center", va="center", fontsize=size, color=colour)
    small = 9 if len(names) <= 12 else 6
    tilted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(names) > 4 else {}
    axes.set_xticks(range(len(names)), names, fontsize=small, **tilted)
    counts = matrix.sum(axis=1)
    axes.set_yticks(range(len(names)), [f"{n} ({c:.0f})" for n, c in zip(names, counts, strict=True)], fontsize=small)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9, labelpad=8)
    accuracy = metrics.accuracy(predictions.labels, predictions.probabilities)
    macro = metrics.f1_macro(predictions.labels, predictions.probabilities)
    axes.set_title(f"Confusion, accuracy {accuracy:.3f}, macro F1 {macro:.3f}", loc="left", fontsize=10)


def _calibration(axes: Any, below: Any, predictions: Predictions) -> None:
    """Draw accuracy over confidence, bin by bin, and below it the number of pictures in each bin."""
    count, confidence, hits = metrics.reliability(predictions.labels, predictions.probabilities)
    held = count > 0
    n, x, y = count[held], confidence[held] / count[held], hits[held] / count[held]
    axes.plot([0, 1], [0, 1], ":", color=_GREY, lw=1, label="perfect")
    axes.errorbar(
        x, y, np.sqrt(y * (1 - y) / n), fmt="C0o-", ms=4, lw=1.2, elinewidth=0.8, label="found, with standard errors"
    )
    error = _number(metrics.ece(predictions.labels, predictions.probabilities))
    _style(axes, f"Calibration, expected error (ECE) {error}", "", "accuracy")
    axes.tick_params(labelbottom=False)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    edges = np.linspace(0, 1, metrics.BINS + 1)
    below.bar(edges[:-1], count, width=np.diff(edges), align="edge", color="C0", alpha=0.5, edgecolor="white")
    below.set_xlabel("confidence: probability of the predicted class", fontsize=9)
    below.set_ylabel("pictures", fontsize=9)
    below.tick_params(labelsize=8)
    below.spines[["top", "right"]].set_visible(False)


def _style(axes: Any, title: str, x: str, y: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(curves: int) -> dict[str, Any]:
    return {"fontsize": 9 if curves <= 6 else 7.5, "framealpha": 0.8, "edgecolor": "none", "labelspacing": 0.25}


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.3f}"


def _plain(name: str) -> str:
    """A class name that is short enough to draw, with dollars escaped so that none begins a formula."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    return plain(short)
