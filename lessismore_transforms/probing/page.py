"""The page of a probe: each network under each protocol with its interval, few labels, and the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.classification.comparison import Row, Table
from lessismore_transforms.classification.tables import CSS, as_html
from lessismore_transforms.classification.units import counted_units
from lessismore_transforms.probing.protocols import KNN, LOGISTIC
from lessismore_transforms.report.figure import COLOURS, GREY, as_svg, plain
from lessismore_transforms.report.html import page, plot, stylesheet
from lessismore_transforms.report.html import table as html_table
from lessismore_transforms.wording import count, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "probe.html"
_MARKS = "osD^vPX<>"


def write_page(folder: Path, table: Table, shares: Mapping[str, float], about: Mapping[str, Any]) -> Path:
    """Write `probe.html`; returns its path.

    Args:
        folder: of the probe.
        table: a task for each protocol, in the order of `shares` and then the neighbours.
        shares: the share of known labels of each protocol of regressions.
        about: what was done, as in probe.json.

    Raises:
        OutputError: the page cannot be written.
    """
    rows = dict(zip([*shares, KNN], [task.rows for task in table.tasks], strict=True))
    parts = [_head(table, about), plot(_dots(rows), "AUC of each network", _DOTS)]
    if len(shares) > 1:
        parts.append(plot(_curves(rows, shares), "AUC over the share of known labels", _CURVES))
    parts.append(as_html(table))
    path = folder / PAGE
    with atomic_write(path) as file:
        file.write(page("What frozen features know", css=stylesheet() + CSS, body="\n".join(parts)))
    return path


_DOTS = (
    "AUC of each network, mean over folds and repeats; bars are 95 % intervals, about other patients (or groups) and "
    "these very networks. Intervals of two networks may overlap although their difference is clear: the table compares "
    "them on the same pictures."
)
_CURVES = "The same for logistic regressions where only a share of the training patients (or groups) has known labels."


def _head(table: Table, about: Mapping[str, Any]) -> str:
    row = table.tasks[0].rows[0]
    classes = ", ".join(f"{escape(name)}: {count(number)}" for name, number in about["counts"].items())
    settings = about["identity"]
    how = f"{settings['repeats']} x {counted(settings['folds'], 'fold')}" if about["folds"] else "the official split"
    rows = [
        [
            f"<b>{escape(model['name'])}</b>",
            escape(str(model["backbone"])),
            escape(str(model.get("method") or ("random weights" if model.get("untrained") else "–"))),
            escape(" ".join(f"{name} {model[name]}" for name in ("epoch", "iteration") if model.get(name)) or "–"),
            escape(f"{model['preparation']['image_size']} px"),
            f"<code>{escape(model['id'])}</code>",
        ]
        for model in about["models"]
    ]
    return f"""<header><h1>What frozen features know</h1>
<p>{escape(settings["task"])}: {counted(sum(about["counts"].values()), "picture")} ({classes}), {how};
{counted_units(row.units, row.unit)} are judged. All networks are frozen, see the same pictures and are judged on the
same folds; the penalty of a regression is chosen inside its training part.</p>
{html_table("networks", "The networks", ("name", "network", "trained by", "for", "sees", "id"), rows)}</header>"""


def _dots(rows: Mapping[str, Sequence[Row]]) -> bytes:
    names = list(dict.fromkeys(row.evaluation for row in rows[LOGISTIC]))

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (protocol, title) in zip(
            (left, right), {LOGISTIC: "logistic regression", KNN: "nearest neighbours"}.items(), strict=True
        ):
            for place, row in enumerate(_of_auc(rows[protocol])):
                _bar(axes, row, place, COLOURS[place % len(COLOURS)])
            axes.axvline(0.5, color=GREY, linewidth=1)
            axes.set_title(title)
            axes.set_xlabel("AUC")
        left.set_yticks(range(len(names)), [plain(name) for name in names])
        left.invert_yaxis()

    return as_svg(draw, 1.6 + 0.38 * len(names))


def _curves(rows: Mapping[str, Sequence[Row]], shares: Mapping[str, float]) -> bytes:
    protocols = sorted(shares, key=lambda protocol: shares[protocol])
    series = list(zip(*(_of_auc(rows[protocol]) for protocol in protocols), strict=True))  # of each network

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, points in enumerate(series):
            colour, mark = COLOURS[place % len(COLOURS)], _MARKS[place % len(_MARKS)]
            beside = 1 + 0.03 * (place - (len(series) - 1) / 2)  # so that bars do not hide each other
            places = [100 * shares[protocol] * beside for protocol in protocols]
            axes.plot(
                places, [row.mean for row in points], color=colour, marker=mark, label=plain(points[0].evaluation)
            )
            for at, row in zip(places, points, strict=True):
                axes.plot([at, at], [row.low, row.high], color=colour, linewidth=1, alpha=0.6)
        ticks = [100 * shares[protocol] for protocol in protocols]
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g} %" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("training patients (or groups) whose labels are known")
        axes.set_ylabel("AUC")
        axes.legend(loc="best")

    return as_svg(draw, 4.6)


def _bar(axes: Any, row: Row, place: int, colour: str) -> None:
    if not math.isnan(row.low):
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2, alpha=0.6)
    axes.plot([row.mean], [place], color=colour, marker="o")


def _of_auc(rows: Sequence[Row]) -> list[Row]:
    """The row of each network, in order; one that is compared with several has more."""
    return list({row.evaluation: row for row in rows if row.metric == "auc"}.values())
