"""The page about the slices that selections share: the matrix of overlaps, and the first slices that each keeps."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.reduced.overlap import Comparison, Mask, Overlap, write_overlaps
from lessismore_transforms.report.html import data_url, page, stylesheet
from lessismore_transforms.report.overlap_text import FIRST_STAYS, PAPER, READ, cells
from lessismore_transforms.report.slice_pictures import as_webp, bar_code, ends_of, read_thumbnails
from lessismore_transforms.wording import count, counted, percent, plural

_FIRST = 10  # kept slices in the figure
_DARK = 0.75  # above it white text is easier to read
_CSS = """
.heat th, .heat td { border: 1px solid #fff; padding: 7px 10px; }
.heat td, .heat thead th { text-align: center; min-width: 92px; }
.heat small { display: block; font-size: 12px; font-weight: 400; line-height: 1.35; }
.heat tbody th small, h4 small { color: var(--quiet); font-weight: 400; }
.heat .chance b { font-weight: 400; }
.heat .itself { outline: 1px dashed var(--quiet); outline-offset: -4px; }
.first { display: flex; flex-wrap: wrap; gap: 8px; padding: 3px; }
.first figure { margin: 0; }
.first figcaption { font-size: 12px; text-align: center; padding-top: 4px; }
"""


def write_comparison(comparison: Comparison, output_dir: str | Path) -> Path:
    """Write `compare.csv` and the page `compare.html`, which refers to nothing outside itself; returns the page's path.

    Args:
        comparison: what to write.
        output_dir: folder for both; made where it is missing.

    Raises:
        OutputError: the folder cannot be written.
    """
    output_dir = Path(output_dir)
    with writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    write_overlaps(comparison, output_dir / "compare.csv")
    path = output_dir / "compare.html"
    body = "\n".join((_head(comparison), _heat_map(comparison), _first_slices(comparison)))
    with atomic_write(path) as file:
        file.write(page("Slices that selections share", css=stylesheet() + _CSS, body=body))
    return path


def _head(comparison: Comparison) -> str:
    slices = len(comparison.choices[0].kept)
    tiles = (
        (len(comparison.volumes), plural(len(comparison.volumes), "volume")),
        (slices, plural(slices, "slice")),
        (len(comparison.choices), "selections"),
    )
    numbers = "".join(f"<div><dt>{label}</dt><dd>{count(value)}</dd></div>" for value, label in tiles)
    return f"""<header><h1>Slices that selections share</h1>
<dl class="numbers">{numbers}</dl></header>"""


def _heat_map(comparison: Comparison) -> str:
    """The matrix of shares (HTML), the darker the more is shared; the diagonal is a method against its reverse."""
    choices = comparison.choices
    head = "".join(f'<th scope="col">{escape(choice.label)}</th>' for choice in choices)
    rows = []
    for i, choice in enumerate(choices):
        kept = int(choice.kept.sum())
        name = f"{escape(choice.label)}<small>{escape(str(choice.target))}<br>{count(kept)} kept "
        name += f"({percent(kept / len(choice.kept) if kept else 0)})</small>"
        shares = "".join(_cell(comparison.overlap(i, j), itself=i == j) for j in range(len(choices)))
        rows.append(f'<tr><th scope="row">{name}</th>{shares}</tr>')
    body = "\n".join(rows)
    return f"""<section id="shared"><h2>1. How many slices they share</h2>
<p>{READ} (the dashed cells; measures
other than HASH need a run with <code>--keep_distances</code> for that). Bold numbers lie outside the range of
chance. {FIRST_STAYS}</p>
<p>{PAPER} (<a href="https://doi.org/10.1016/j.compbiomed.2024.109242">Wolf et al. 2024</a>, Section
3.2)</p>
<table class="heat"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>
<p class="caption">The numbers stand in compare.csv.</p></section>"""


def _cell(overlap: Overlap | None, *, itself: bool) -> str:
    share, _, usual = cells(overlap)
    if overlap is None or math.isnan(overlap.share):
        return f'<td class="{"itself" if itself else ""}">–</td>'
    kinds = ["itself"] * itself + ["chance"] * (overlap.low <= overlap.shared <= overlap.high)
    dark = 0.9 * overlap.share
    ink = ";color:#fff" if dark > _DARK else ""
    words = "with itself reversed" if itself else f"{counted(overlap.shared, 'slice')} in both"
    return (
        f'<td class="{" ".join(kinds)}" style="background:rgba(23,99,182,{dark:.3f}){ink}">'
        f"<b>{share}</b><small>{words}<br>chance {usual}</small></td>"
    )


def _first_slices(comparison: Comparison) -> str:
    """The first slices that each selection keeps of one volume (HTML), as the paper's Figure 6 shows them."""
    heading = '<section id="first"><h2>2. The first slices they keep</h2>'
    shown = _thumbnails(comparison)
    if shown is None:
        return f"{heading}<p>The output folders hold no thumbnails.</p></section>"
    place, thumbnails = shown
    record = comparison.volumes[place]
    start = sum(volume["slices"] for volume in comparison.volumes[:place])
    parts = np.stack([choice.kept[start : start + record["slices"]] for choice in comparison.choices])
    plane = "" if comparison.as_released else str(record["plane"])
    first, last = ends_of(plane)
    rows = "\n".join(
        f"<h4>{escape(choice.label)} <small>{count(int(kept.sum()))} kept</small></h4>{bar_code(kept, first, last)}\n"
        + _tiles(thumbnails, kept, parts.sum(axis=0) > 1)
        for choice, kept in zip(comparison.choices, parts, strict=True)
    )
    return f"""{heading}
<p>Volume <code>{escape(record["volume"])}</code>, {counted(record["slices"], "slice")}: where the kept slices lie from
{first} to {last}, and the first {_FIRST} of them; framed ones are kept by another selection too.</p>
{rows}</section>"""


def _thumbnails(comparison: Comparison) -> tuple[int, NDArray[np.uint8]] | None:
    """The longest volume that has thumbnails (n, rows, columns) in one of the outputs, with its place."""
    volumes = comparison.volumes
    for place in sorted(range(len(volumes)), key=lambda place: -volumes[place]["slices"]):
        for choice in comparison.choices:
            thumbnails = read_thumbnails(choice.output_dir, volumes[place]["volume"], volumes[place]["slices"])
            if thumbnails is not None:
                return place, thumbnails
    return None


def _tiles(thumbnails: NDArray[np.uint8], kept: Mask, shared: Mask) -> str:
    """The first kept slices (HTML), framed where they are shared."""
    figures = []
    for index in np.flatnonzero(kept)[:_FIRST]:
        url = data_url("image/webp", as_webp(thumbnails[index : index + 1], 1, 1))
        kind = "tile kept" if shared[index] else "tile"
        image = f'<img class="{kind}" src="{url}" alt="slice {index}">'
        figures.append(f"<figure>{image}<figcaption>{index}</figcaption></figure>")
    return f'<div class="first">{"".join(figures)}</div>'
