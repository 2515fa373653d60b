"""The page of an analysis, made from its numbers, maps and overlays alone; it refers to nothing outside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lessismore_transforms.analysis import charts
from lessismore_transforms.analysis.cka import load_cka
from lessismore_transforms.analysis.results import ANALYSIS, MAP, OVERLAYS, PAGE, overlay_file, read_analysis
from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.classification.statistics import mean_std
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.report.html import data_url, page, plot, stylesheet, table
from lessismore_transforms.wording import count, counted, percent, plural

_CSS = """
.overlay { display: block; margin: 10px 0; }
.overlay img { display: block; max-width: 100%; height: auto; }
.numeric td { white-space: nowrap; }
"""
_DOI = "https://doi.org/10.1016/j.compbiomed.2024.109242"
_PAPER = f'<a href="{_DOI}">Wolf et al. 2024</a>, Section 3.4'


def write_page(folder: Path) -> Path:
    """Write `analysis.html` anew from the files of an analysis; returns its path.

    Raises:
        UserError: the folder is none of an analysis, or a file in it is missing or damaged.
        OutputError: the page cannot be written.
    """
    found = read_analysis(folder)
    try:
        parts = [_head(found)]
        for name, section in _SECTIONS.items():
            if name in found:
                parts.append(section(folder, found))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"expected the numbers of an analysis in {folder / ANALYSIS}, found a damaged file ({error!r}): analyse "
            "again"
        ) from error
    path = folder / PAGE
    with atomic_write(path) as file:
        file.write(page("What networks see", css=stylesheet() + _CSS, body="\n".join(parts)))
    return path


def _head(found: Mapping[str, Any]) -> str:
    about = found["pictures"]
    unit = "pictures" if about["unit"] == "picture" else f"{plural(about['units'], about['unit'])}"
    tiles = [(len(found["models"]), plural(len(found["models"]), "network")), (about["count"], "pictures")]
    if about["unit"] != "picture":
        tiles.append((about["units"], unit))
    numbers = "".join(f"<div><dt>{escape(label)}</dt><dd>{count(value)}</dd></div>" for value, label in tiles)
    rows = [
        [
            f"<b>{escape(model['name'])}</b>",
            escape("classifier" if model["classes"] else "encoder"),
            escape(str(model["backbone"])),
            escape(" ".join(str(model[key]) for key in ("method", "mode") if model.get(key)) or "–"),
            escape(str(model.get("epoch") if model.get("epoch") is not None else "–")),
            f"<code>{escape(model['weights'])}</code>",
        ]
        for model in found["models"]
    ]
    classes = ", ".join(f"{escape(name)} {count(number)}" for name, number in about["classes"].items())
    drawn = f" of {count(about['of'])}, drawn at random" if about["of"] > about["count"] else ""
    unread = f" {counted(len(about['unread']), 'picture')} could not be read; the reasons stand in {ANALYSIS}."
    return f"""<header><h1>What networks see</h1>
<dl class="numbers">{numbers}</dl>
<p>{counted(about["count"], "picture")}{drawn}{f" ({classes})" if classes else ""}, each
{found["models"][0]["image_size"]} pixels wide.{unread if about["unread"] else ""} Intervals are of 95 %, about new
{unit} of this kind and these very networks (in simulations they held the true value in 88 % of cases for neighbours,
in 92 to 99 % for the rest); other trainings of the same kind may differ by more. {ANALYSIS} holds all of them.</p>
{table("networks", "The networks", ("name", "kind", "network", "trained by", "epoch", "weights"), rows)}</header>"""


def _similarity(folder: Path, found: Mapping[str, Any]) -> str:
    parts = [
        f"""<section id="cka"><h2>Similarity of layers</h2>
<p>How to read it: each cell tells how alike the two networks' layers arrange the same pictures (linear CKA): 1 the
same up to rotation and scale, 0 nothing in common. The lower left corner are the first layers, the upper right the
last.</p>
<p>What it cannot tell: which of two networks is better, and what the pictures are arranged by.</p>
<p>In the paper ({_PAPER}) networks pre-trained on ALL and on HASH-6 agree in early layers and not in late ones, and
fine-tuning changes fewer layers of the latter; no numbers are given.</p>"""
    ]
    rows = []
    for pair in found["cka"]["pairs"]:
        compared = load_cka(folder / pair["file"])
        notes = " ".join(escape(f"{note}.") for note in compared.notes)
        if compared.rows != compared.columns:
            notes += (
                f" The networks have {len(compared.rows)} and {len(compared.columns)} layers: the map is no square."
            )
        names = f"{escape(pair['first'])} and {escape(pair['second'])}"
        caption = (
            f"{names}, {counted(compared.pictures, 'picture')} in batches of {compared.batch_size}. Left: each layer "
            f"with each; right: the diagonal, each layer with the one of its name. {notes}"
        )
        drawn = charts.similarity(pair["first"], pair["second"], compared)
        parts.append(plot(drawn, f"CKA of {pair['first']} and {pair['second']}", caption))
        rows.append([names, *_cells(pair["diagonal"])])
    for change in found["cka"]["differences"]:
        title = f"{' and '.join(change['pair'])}, less {' and '.join(change['less'])}"
        if "file" not in change:
            parts.append(f"<p>{escape(title)}: not drawn, as these networks have other layers.</p>")
            continue
        values, low, high = _read_array(folder / change["file"])
        layers = load_cka(folder / found["cka"]["pairs"][0]["file"])
        drawn = charts.change(title, values, low, high, layers.rows, layers.columns)
        caption = (
            f"{escape(title)}: blue where the first two are more alike, red where they are less. Of "
            f"{count(low.size)} cells without any difference, one in twenty would be left on the right by chance."
        )
        parts.append(plot(drawn, title, caption))
        rows.append([escape(title), *_cells(change["diagonal"])])
    parts.append(_table("diagonals", "Mean CKA of the same layers", ("pair", "mean", "95 %"), rows))
    return "\n".join([*parts, "</section>"])


def _map(folder: Path, found: Mapping[str, Any]) -> str:
    told = found["map"]
    points = _read_map(folder / MAP)
    drawn = charts.maps(points, told["networks"], told["classes"])
    parts = [
        f"""<section id="map"><h2>Map of the pictures</h2>
<p>How to read it: pictures that a network finds alike lie side by side (t-SNE, perplexity {told["perplexity"]:.3g},
begun with noise; the first of {found["settings"]["seeds"]} seeds is shown). R tells how much of the classes both
axes together explain; it does not change when a map is turned.</p>
<p>What it cannot tell: distances between groups and their size mean nothing in t-SNE; trust the measures of the
features themselves.</p>""",
        plot(drawn, "t-SNE maps of the pictures", "One point for each picture, coloured by its class."),
    ]
    if told["classes"]:
        parts.append(_map_tables(told, escape(found["pictures"]["unit"])))
    else:
        parts.append("<p>No labels were given, so that nothing is correlated with them.</p>")
    return "\n".join([*parts, "</section>"])


def _read_array(path: Path) -> Any:
    with reading(path):
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UserError(f"expected an array in {path}, found a damaged file: analyse again") from error
    if values.ndim != 3 or len(values) != 3:
        raise UserError(f"expected an array (3, L1, L2) in {path}, found {values.shape}: analyse again")
    return values


def _read_map(path: Path) -> pd.DataFrame:
    with reading(path):
        try:
            points = pd.read_csv(path, keep_default_na=False, dtype={"label": str, "image_id": str, "model": str})
            return points.astype({"x": float, "y": float})[["model", "of", "map", "image_id", "label", "x", "y"]]
        except (ValueError, KeyError) as error:
            raise UserError(
                f"expected the places of pictures in {path}, found a damaged file: analyse again"
            ) from error


def _map_tables(told: Mapping[str, Any], unit: str) -> str:
    rows, apart = [], []
    for network in told["networks"]:
        name = f"{escape(network['model'])}, {escape(network['of'])}"
        axes = np.asarray(network["tsne"]["axes"], np.float64)  # (S, 2)
        cells = [_spread(np.abs(axes[:, number])) for number in (0, 1)]
        rows.append([name, *cells, _spread(network["tsne"]["classes"]), f"{network['pca']['classes'][0]:.3f}"])
        apart.append([name, *(text for key in ("silhouette", "neighbours", "linear") for text in _cells(network[key]))])
    head = ("network", "|r| of axis 1", "|r| of axis 2", "R of both axes", "R of two principal components")
    first = _table("correlation", "Correlation with the classes, mean ± deviation over seeds", head, rows)
    columns = ("network", "silhouette", "95 %", "accuracy of neighbours", "95 %", "AUC of a linear classifier", "95 %")
    second = _table("apart", "What needs no map", columns, apart)
    return f"""{first}
<p class="caption">r is Pearson's correlation of one axis with the number of the class, as the paper seems to use it:
it turns with the map. The paper ({_PAPER}) finds it 2 to 16 % higher for HASH-6 than for ALL, after fine-tuning.</p>
{second}
<p class="caption">Of the features, each scaled to length 1 for the silhouette. Neighbours and held-out pictures are
never of the same {unit}.</p>"""


def _attention(folder: Path, found: Mapping[str, Any]) -> str:
    told = found["attention"]
    share = found["settings"]["share"]
    parts = [
        f"""<section id="attention"><h2>Attention</h2>
<p>How to read it: bright places are where a network's output (Grad-CAM, of a classifier) or the length of its
features (of an encoder, whose classes do not exist yet) comes from. IoU is the share of places that both of two
networks attend to among those that one of them does, where each map goes from 0 to 1; crosses show it for maps of
different pictures, which agree because organs lie in the middle.</p>
<p>What it cannot tell: whether a place is the right one, nor what is seen there. Lengths of features and Grad-CAM
are two kinds of maps; where one is compared with the other, both networks' lengths are given too, and pairs are set
against each other by these. A picture whose map is the same everywhere has none, and is left out.</p>
<p>In the paper ({_PAPER}) the IoU of maps before and after fine-tuning is 7 to 9 % higher for HASH-6 than for ALL;
layer, class and threshold are not stated.</p>"""
    ]
    kinds = [
        [escape(each["model"]), escape(each["kind"]), f"<code>{escape(each['layer'])}</code>", count(each["constant"])]
        for each in told["networks"]
    ]
    parts.append(table("kinds", "The maps", ("network", "map", "layer", "constant maps, left out"), kinds))
    rows, total = [], found["pictures"]["count"]
    for pair in told["pairs"]:
        name = f"{escape(pair['first'])} and {escape(pair['second'])}"
        rows.append([name, *_agreement_cells(pair, total)])
        if "lengths" in pair:
            rows.append([f"{name}, lengths of features of both", *_agreement_cells(pair["lengths"], total)])
    if rows:
        head = ("pair", "pictures", f"IoU at {share:g}", "95 %", "of strangers", "intersection", "rank correlation")
        parts.append(_table("overlap", "How far the maps of two networks agree", head, rows))
        caption = (
            "IoU of each pair, with its interval, against where the maps are cut: high on the left, where nearly all "
            "places count, whatever the networks do."
        )
        parts.append(plot(charts.agreement(told["pairs"]), "IoU against the share of a map's range", caption))
    changes = [
        [
            f"{escape(' and '.join(each['pair']))}, less {escape(' and '.join(each['less']))}",
            escape(each["of"]),
            count(total - each["iou"]["undefined"]),
            *_cells(each["iou"]),
        ]
        for each in told["differences"]
    ]
    if changes:
        columns = ("pairs", "by", "pictures", f"difference of IoU at {share:g}", "95 %")
        parts.append(_table("overlap_differences", "Pairs beside the first pair", columns, changes))
    for number, shown in enumerate(told["overlays"]):
        path = folder / OVERLAYS / overlay_file(number)
        with reading(path):
            url = data_url("image/png", path.read_bytes())
        words = escape(" · ".join(filter(None, (shown["image_id"], shown["label"]))))  # for caption and alt alike
        parts.append(
            f'<figure class="overlay"><img src="{url}" alt="{words}"><figcaption>{words}</figcaption></figure>'
        )
    return "\n".join([*parts, "</section>"])


def _encoder(folder: Path, found: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{escape(row['model'])}, {escape(row['checkpoint'])}",
            *(f"{row[name]:.3f}" for name in ("rank_me", "alignment", "uniformity")),
            *("–" if row[name] is None else percent(row[name]) for name in ("near_copies", "possible")),
        ]
        for row in found["encoder"]
    ]
    head = ("network", "RankMe", "alignment", "uniformity", "nearest is a near copy", "has a near copy")
    unknown = all(row["near_copies"] is None for row in found["encoder"])
    lacking = " Near copies need patients or volumes: name them in the labels." if unknown else ""
    drawn = charts.checkpoints(found["encoder"])
    return f"""<section id="encoder"><h2>Encoders without labels</h2>
<p>How to read it: RankMe is the number of dimensions in use, at most that of the pictures (more is better);
alignment how far two views of a picture lie apart (less is better); uniformity how evenly pictures fill the space
(more negative is better); a near copy is another picture of the volume or patient within 6 bits of the hash. They
are a way to choose a checkpoint without looking at a downstream score, which the paper did not have.</p>
<p>What it cannot tell: how well a task will be solved. A better value on one measure at the cost of another is no
gain.{lacking}</p>
{_table("measures", "Measures without labels", head, rows)}
{plot(drawn, "Measures over checkpoints", "One line for each network, from its first checkpoint to its end.")}
</section>"""


_SECTIONS = {"cka": _similarity, "map": _map, "attention": _attention, "encoder": _encoder}


def _table(identifier: str, caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(identifier, caption, head, rows, kind="numeric", whole=ANALYSIS)


def _agreement_cells(pair: Mapping[str, Any], pictures: int) -> list[str]:
    chance, intersection, spearman = (_value(pair[name]["value"]) for name in ("chance", "intersection", "spearman"))
    return [count(pictures - pair["iou"]["undefined"]), *_cells(pair["iou"]), chance, intersection, spearman]


def _cells(estimate: Mapping[str, Any] | None) -> list[str]:
    """A value and its interval."""
    if estimate is None:
        return ["–", "–"]
    low, high = estimate["low"], estimate["high"]
    return [_value(estimate["value"]), "–" if low is None or high is None else f"{_value(low)} to {_value(high)}"]


def _value(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"  # no -0.000


def _spread(values: Sequence[float] | np.ndarray[Any, Any]) -> str:
    mean, deviation = mean_std(list(values))
    return f"{mean:.3f}" if np.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"
