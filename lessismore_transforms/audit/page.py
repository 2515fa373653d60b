"""The page of an audit, made from its numbers and a few pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.audit import charts
from lessismore_transforms.audit.answer import FULL, REFUSED, answer, batches_of, find, near_bits, with_interval
from lessismore_transforms.audit.measure import ALIGNED_CROP, HASH, LOSS, SSIM, WHOLE
from lessismore_transforms.audit.neighbours import NEXT, OTHER, at_bits
from lessismore_transforms.audit.rates import ceiling
from lessismore_transforms.report.html import data_url, page, plot, stylesheet
from lessismore_transforms.report.html import table as html_table
from lessismore_transforms.wording import count, counted, percent, plural

PAGE = "audit.html"
_CSS = """
.views { display: grid; grid-template-columns: repeat(4, 128px); gap: 6px 14px; margin: 16px 0; }
.views img { width: 128px; height: 128px; image-rendering: pixelated; display: block; }
.views span { color: var(--quiet); font-size: 13px; }
.answer { background: var(--wash); border-radius: 8px; padding: 14px 18px; max-width: 900px; }
.numeric td { white-space: nowrap; }
"""
_SHOWN = ("a slice", "its first view", "its second view", "second view of the next slice")
_TITLES = {
    WHOLE: "As it is: the neighbour against the view",
    ALIGNED_CROP: "At one place: the neighbour's crop against the view",
    LOSS: "As the loss sees it: the neighbour's view against the second view",
}
_ASKED = {
    WHOLE: "d(x, n) ≤ d(x, t<sub>2</sub>(x))",
    ALIGNED_CROP: "d(g(x), g(n)) ≤ d(g(x), t<sub>2</sub>(x)), g the place of t<sub>2</sub>: its crop and flips alone",
    LOSS: "d(t<sub>1</sub>(x), t<sub>2</sub>(n)) &lt; d(t<sub>1</sub>(x), t<sub>2</sub>(x)); equal counts half",
}


def write_page(folder: Path, about: Mapping[str, Any], shown: Sequence[Sequence[NDArray[np.uint8]]] = ()) -> Path:
    """Write `audit.html`; returns its path.

    Args:
        folder: of the audit.
        about: what was found, as in audit.json.
        shown: examples, each a slice, its two views, and the second view of the next slice.

    Raises:
        OutputError: the page cannot be written.
    """
    body = [_head(about), _examples(shown), _negatives(about), _rates(about), _parts(about), _setup(about)]
    path = folder / PAGE
    with atomic_write(path) as file:
        file.write(page("Do these slices need reduction?", css=stylesheet() + _CSS, body="\n".join(body)))
    return path


def _head(about: Mapping[str, Any]) -> str:
    data = about["data"]
    tiles = [(data[name], plural(data[name], name[:-1])) for name in ("slices", "volumes", "patients")]
    tiles.append((about["negatives"][0]["batch_size"], "pictures in a batch"))
    numbers = "".join(f"<div><dt>{label}</dt><dd>{count(value)}</dd></div>" for value, label in tiles)
    drawn = ""
    if data["slices"] < data["of_slices"]:
        drawn = (
            f" These are {counted(data['volumes'], 'volume')}, drawn at random of {count(data['of_volumes'])}; near "
            "copies are counted in all."
        )
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in answer(about))
    return f"""<header><h1>Do these slices need reduction?</h1>
<dl class="numbers">{numbers}</dl>
<div class="answer">{said}</div>
<p>Contrastive learning pulls two views of a slice together and pushes views of other slices away. Where another slice
is a near copy, it pushes away what the slice itself shows. Whether that happens here depends on how many near copies
are among the negatives, and on whether they are as close to a slice as its own second view.{drawn} Intervals are of
95 %, by patient.</p></header>"""


def _examples(shown: Sequence[Sequence[NDArray[np.uint8]]]) -> str:
    if not shown:
        return ""
    head = "".join(f"<span>{name}</span>" for name in _SHOWN)
    named = [pair for row in shown for pair in zip(_SHOWN, row, strict=True)]
    images = "".join(f'<img src="{_png(one)}" alt="{name}">' for name, one in named)
    return f'<section id="examples"><h2>What is compared</h2><div class="views">{head}{images}</div></section>'


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return data_url("image/png", buffer.getvalue())


def _negatives(about: Mapping[str, Any]) -> str:
    bits = near_bits(about)
    names = [model["name"] for model in about["models"]]
    head = ["selection", "", "slices", "of the negatives", "per picture", "at least one", "of the same volume"]
    rows = []
    for row in about["negatives"]:
        near = row["near"][bits]
        told = [row["as_exact_copies"][name] for name in names]
        rows.append(
            [
                f"<b>{escape(row['selection'])}</b>" + (REFUSED if row["refused"] else ""),
                escape(row["target"]),
                count(row["slices"]),
                percent(near["share"]),
                f"{near['per_picture']:.2f}",
                percent(near["at_least_one"]),
                f"{row['same_volume']['per_picture']:.2f}",
                *(with_interval(each, "–") for each in told),
            ]
        )
    head += [f"as exact copies, {escape(name)}" for name in names]
    caption = "Near copies among the negatives of a picture"
    drawn = charts.negatives(about["negatives"])
    return f"""<section id="negatives"><h2>How many negatives are near copies?</h2>
<p>Of different pictures in {batches_of(about)}, counted exactly. Near copies are slices of the same volume within
{at_bits(bits)} of the difference hash.</p>
{html_table("selections", caption, head, rows, kind="numeric", whole="audit.json")}
<p class="caption">As exact copies: what an encoder makes of all slices of the volume among the negatives, each pair
weighed by where it lies between another patient's slice (0) and an exact copy (1), whatever its hash. 2 means that they
are as bad as 2 exact copies of the picture. Intervals by patient.</p>
{plot(drawn, "Near copies per picture over bits", "The same for each number of bits.")}
</section>"""


def _rates(about: Mapping[str, Any]) -> str:
    encoders = [model["name"] for model in about["models"]]
    parts = [
        """<section id="rates"><h2>Are near copies closer than the second view?</h2>
<p>x is a slice, n its neighbour in the volume, t<sub>1</sub>(x) and t<sub>2</sub>(x) its two views, d a distance: bits
of the difference hash, 1 − SSIM, or 1 − cosine of an encoder's features. The rate tells how often n is closer to x than
the view. An exact copy has the rate 1, or 1/2 as the loss sees it, where its view is one draw more of the same. The
rate of another patient's slices tells what the measure can see at all; where it is high, the measure says little. The
likeness lies between: 0 as another patient's slice, 1 as an exact copy. Of slices that are close to all others it can
be above 1.</p>"""
    ]
    for comparison, measures in ((LOSS, [*encoders, HASH]), (ALIGNED_CROP, [SSIM, HASH]), (WHOLE, [*encoders, HASH])):
        series = {name: [rate for rate in about["rates"][FULL] if _is(rate, comparison, name)] for name in measures}
        others = {name: rate["rate"] for name, rows in series.items() for rate in rows if rate["neighbour"] == OTHER}
        figure = charts.collisions(series, others, ceiling(comparison))
        parts.append(f"<h3>{_TITLES[comparison]}</h3>")
        parts.append(
            plot(figure, _TITLES[comparison], f"How often {_ASKED[comparison]}. Bars are intervals by patient.")
        )
        parts.append(_table_of(about, comparison, series))
    return "\n".join([*parts, "</section>"])


def _is(rate: Mapping[str, Any], comparison: str, measure: str) -> bool:
    return bool(rate["comparison"] == comparison and rate["measure"] == measure)


def _table_of(about: Mapping[str, Any], comparison: str, series: Mapping[str, Any]) -> str:
    wanted = [NEXT, *(f"{mm:g} mm" for mm in about["settings"]["distances_mm"])]
    wanted += [at_bits(bits) for bits in (0, 3, 6, 12) if bits <= about["settings"]["bits"]]
    rows = []
    for name, rates in series.items():
        found = {rate["neighbour"]: rate for rate in rates}
        near = found.get(NEXT)
        rows.append([escape(name), *(_cell(found.get(kind)) for kind in [*wanted, OTHER]), _interval(near, "likeness")])
    return html_table(
        f"rates-{comparison}", "", ["measure", *wanted, OTHER, "likeness, next slice"], rows, kind="numeric"
    )


def _cell(rate: Mapping[str, Any] | None) -> str:
    return "–" if rate is None else f"{100 * rate['rate']:.0f}&nbsp;%"


def _interval(rate: Mapping[str, Any] | None, name: str) -> str:
    if rate is None or rate[name] is None:
        return "–"
    if rate[f"{name}_low"] is None:
        return f"{rate[name]:.2f}"
    return f"{rate[name]:.2f} ({rate[f'{name}_low']:.2f} to {rate[f'{name}_high']:.2f})"


def _parts(about: Mapping[str, Any]) -> str:
    encoders = [model["name"] for model in about["models"]]
    of_loss = {name: _by_variant(about, LOSS, name) for name in encoders}
    of_crops = {f"{name}, at one place": _by_variant(about, ALIGNED_CROP, name) for name in (SSIM, HASH)}
    rows = []
    for variant in about["rates"]:
        cells = [escape(variant)]
        for name in encoders:
            near, other = (find(about, LOSS, name, kind, variant) for kind in (NEXT, OTHER))
            cells += [_cell(near), _cell(other), _interval(near, "likeness").split(" (")[0]]
        cells.append(_cell(find(about, ALIGNED_CROP, SSIM, NEXT, variant)))
        rows.append(cells)
    head = ["views"]
    for name in encoders:
        head += [f"{escape(name)}: next slice", "another patient", "likeness"]
    head.append("SSIM at one place: next slice")
    in_loss = plot(
        charts.parts(about["parts"], of_loss, ceiling(LOSS)),
        "Rates by part, as the loss sees it",
        "As the loss sees it, by encoder; the dashed line is an exact copy.",
    )
    at_one_place = plot(
        charts.parts(about["parts"], of_crops, 1.0),
        "Rates by part, at one place",
        "At one place, by SSIM and hash. The place is that of the view, so crop and flips alone change nothing there, "
        "and only equal pictures collide.",
    )
    return f"""<section id="parts"><h2>Which part of the views decides?</h2>
<p>The same draws of the views with one part left out, and with it alone. A part whose removal moves the next slice from
the exact copy's line towards another patient's is what makes near copies collide.</p>
{in_loss}
{at_one_place}
{html_table("parts-table", "", head, rows, kind="numeric", whole="rates.csv")}</section>"""


def _by_variant(about: Mapping[str, Any], comparison: str, measure: str) -> dict[str, dict[str, Any]]:
    return {
        variant: {
            "next": find(about, comparison, measure, NEXT, variant),
            "other": find(about, comparison, measure, OTHER, variant),
        }
        for variant in about["rates"]
    }


def _setup(about: Mapping[str, Any]) -> str:
    kinds = [
        [
            escape(kind["neighbour"]),
            count(kind["slices"]),
            "–" if kind["mm"] is None else f"{kind['mm']:.1f}",
            "–" if kind["bits"] is None else f"{kind['bits']:g}",
        ]
        for kind in about["kinds"]
    ]
    models = [
        [
            escape(model["name"]),
            escape(model["backbone"]),
            escape(_trained(model)),
            f"<code>{escape(model['weights'])}</code>",
        ]
        for model in about["models"]
    ]
    views = [
        [escape(name), *(escape(_value(view[name])) for view in about["views"])]
        for name in about["views"][0]
        if name != "count"
    ]
    head = ("neighbour", "slices that have one", "mm, median", "bits, median")
    return f"""<section id="setup"><h2>What was looked at</h2>
{html_table("kinds", "The neighbours", head, kinds, kind="numeric")}
{html_table("models", "The encoders", ("name", "network", "trained by", "weights"), models)}
{html_table("views", "The views", ("setting", "first", "second"), views)}</section>"""


def _trained(model: Mapping[str, Any]) -> str:
    told = model.get("method") or ("random weights" if model.get("untrained") else "–")
    return f"{told}, iteration {model['iteration']}" if model.get("iteration") else str(told)


def _value(value: Any) -> str:
    return " to ".join(f"{each:g}" for each in value) if isinstance(value, list | tuple) else str(value)
