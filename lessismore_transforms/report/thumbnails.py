"""The second section: what a distance looks like, and which slices stay and go in some volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report.html import amount, data_url, ranges
from lessismore_transforms.report.slice_pictures import as_webp, bar_code, ends_of, read_thumbnails
from lessismore_transforms.report.summary import (
    Group,
    VolumeSummary,
    groups,
    levels,
    marginal_pairs,
    nearest_pairs,
    spread,
)
from lessismore_transforms.wording import count, counted, percent

_DISTANCES = (1, 3, 6, 9, 12, 18, 24)  # bits of which examples are shown
_VOLUMES_OF_EXAMPLES = 4
MOST_GROUPS, _MOST_SLICES = 40, 400
_MOST_BYTES = 1.2e6  # of all pictures of thumbnails; a third more in the page
_COLUMNS = 16  # tiles in a row of a sheet


@dataclass(frozen=True, eq=False)
class Sheet:
    """A volume and one picture of the thumbnails that the page shows of it.

    Args:
        name: CSS class of the elements that show tiles of the picture.
        volume: the volume.
        groups: some of its kept slices, each with those it stands for.
        pairs: by distance, a kept slice and a removed one so far apart.
        slices: those shown one after the other.
        places: where the tile of a slice lies, across and down, in percent as CSS counts them.
        css: what makes an element show the picture.
    """

    name: str
    volume: VolumeSummary
    groups: list[Group]
    pairs: dict[float, tuple[int, int]]
    slices: list[int]
    places: dict[int, tuple[float, float]]
    css: str

    def tile(self, index: int, kind: str) -> str:
        """A slice (HTML): kept, removed, unreadable, bodiless or an example."""
        position = f"background-position:{self.place(index)}"
        return f'<span class="tile {kind}" role="img" aria-label="slice {index}, {kind}" style="{position}"></span>'

    def place(self, index: int) -> str:
        """Where the tile of a slice lies, as CSS says it; nothing where it has none."""
        if index not in self.places:
            return ""
        across, down = self.places[index]
        return f"{across:.5g}% {down:.5g}%"


def read_sheets(output_dir: Path, volumes: Sequence[VolumeSummary], target: Target) -> list[Sheet]:
    """A sheet for each of the volumes that have thumbnails in `output_dir`.

    Raises:
        ManifestError: thumbnails that do not fit their volume.
    """
    marks = example_marks(volumes, target)
    found = [(volume, read_thumbnails(output_dir, volume.name, len(volume))) for volume in volumes]
    shown = [(volume, thumbnails) for volume, thumbnails in found if thumbnails is not None]
    most = _MOST_BYTES / max(len(shown), 1)
    return [
        _sheet(f"volume{number}", volume, thumbnails, target, marks, most)
        for number, (volume, thumbnails) in enumerate(shown)
    ]


def example_marks(volumes: Sequence[VolumeSummary], target: Target) -> list[float]:
    """The distances or similarities of which examples are shown, from alike to different."""
    return list(_DISTANCES) if target.measure == "hash" else levels(volumes, target.measure)


def _sheet(
    name: str,
    volume: VolumeSummary,
    thumbnails: NDArray[np.uint8],
    target: Target,
    marks: Sequence[float],
    most: float,
) -> Sheet:
    some = groups(volume, MOST_GROUPS, target)
    hashed = target.measure == "hash"
    pairs = marginal_pairs(volume, marks) if hashed else nearest_pairs(volume, target.measure, marks)
    slices = spread(range(len(volume)), _MOST_SLICES)
    shown = {*slices, *(group.kept for group in some), *(group.farthest for group in some if group.members)}
    indices = sorted(shown.union(*pairs.values()))
    columns = min(_COLUMNS, len(indices))
    rows = -(-len(indices) // columns)
    places = {
        index: (100 * (tile % columns) / max(columns - 1, 1), 100 * (tile // columns) / max(rows - 1, 1))
        for tile, index in enumerate(indices)
    }
    url = data_url("image/webp", as_webp(thumbnails[indices], rows, columns, most))
    css = f"background-image:url({url});background-size:{100 * columns}% {100 * rows}%"
    return Sheet(name, volume, some, pairs, slices, places, css)


def slice_section(
    sheets: Sequence[Sheet], volumes: Sequence[VolumeSummary], target: Target, *, as_released: bool
) -> str:
    """The section (HTML) that shows slices."""
    heading = '<section id="slices"><h2>2. What the slices look like</h2>'
    if not sheets:
        return f"{heading}<p>The output folder holds no thumbnails.</p></section>"
    articles = "\n".join(_volume(sheet, target, as_released=as_released) for sheet in sheets)
    return f"""{heading}
{_examples(sheets[:_VOLUMES_OF_EXAMPLES], example_marks(volumes, target), target)}
<h3>What stays and what goes</h3>
<p id="legend" data-live>{legend(target)}</p>
{articles}</section>"""


def legend(target: Target) -> str:
    """How to read the slices of a volume (HTML)."""
    if target.method == "all":
        return "Every slice that can be read stays, <b>framed</b>."
    dimmed = "dimmed (point at it to see it undimmed)"
    if not target.compares:
        return f"""Nothing is compared. Each <b>kept slice</b> is followed by the most different of the slices
removed up to the next kept one, {dimmed}, and the bits by which the hashes of the two
differ. If a dimmed slice shows something that the framed one before it does not, too few slices are kept; if framed
slices one after the other look alike, too many."""
    if not MEASURES[target.measure].similarity:
        return f"""Each <b>kept slice</b> is followed by the most different slice it stands for, {dimmed}, and the
distance between the two. If a dimmed slice shows something that the framed one before it does not, the threshold is too
high; if framed slices one after the other look alike, it can be higher."""
    return f"""Each <b>kept slice</b> is followed by that of the slices it stands for which fell at the least
similarity, {dimmed}, and that similarity to the slice that removed it (which may have
fallen itself later). If a dimmed slice shows something that the framed one before it does not, the threshold is too
low; if framed slices one after the other look alike, it can be lower."""


def _examples(sheets: Sequence[Sheet], marks: Sequence[float], target: Target) -> str:
    """Pairs of slices of growing distance: a column per distance, a row per volume; nothing where there are none."""
    sheets = [sheet for sheet in sheets if sheet.pairs]
    if not sheets:
        return ""
    measure = target.measure
    similarity = MEASURES[measure].similarity
    within = tinted(marks, target)
    classes = [' class="within"' if each else "" for each in within]
    head = "".join(
        f'<th scope="col"{kind}>{amount(measure, mark)}</th>' for mark, kind in zip(marks, classes, strict=True)
    )
    rows = "\n".join(
        f'<tr class="{sheet.name}">'
        + "".join(f"<td{kind}>{_pair(sheet, mark, measure)}</td>" for mark, kind in zip(marks, classes, strict=True))
        + "</tr>"
        for sheet in sheets
    )
    tint = " Tinted columns lie within the chosen threshold." if any(within) else ""
    about = "at the similarity below it," if similarity else "exactly so many bits\naway,"
    rule = "pairs, as far as it was ranked" if similarity else "exemplars"
    return f"""<h3>What a {"similarity" if similarity else "distance"} looks like</h3>
<table class="examples" data-live><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>
<p class="caption">What goes at the margin: in each column the left slice stays and the right one, {about} goes
because of it (rule {rule}; a volume per row; slice indices below). Your threshold is the last column in
which the left slice can stand for the right one.<span id="tint" data-live>{tint}</span></p>"""


def tinted(marks: Sequence[float], target: Target) -> list[bool]:
    """Which examples lie within the chosen threshold."""
    threshold = target.threshold
    if threshold is None:
        return [False] * len(marks)
    return [mark >= threshold if MEASURES[target.measure].similarity else mark <= threshold for mark in marks]


def _pair(sheet: Sheet, mark: float, measure: str) -> str:
    if mark not in sheet.pairs:
        return ""
    kept, removed = sheet.pairs[mark]
    value = "" if measure == "hash" else f", {sheet.volume.rankings[measure].removed_at[removed]:.4g}"
    tiles = sheet.tile(kept, "example") + sheet.tile(removed, "example")
    return f'<span class="pair">{tiles}</span>{removed} → {kept}{value}'


def _volume(sheet: Sheet, target: Target, *, as_released: bool) -> str:
    volume, record = sheet.volume, sheet.volume.record
    first, last = ends_of("" if as_released else str(record["plane"]))
    some = f"; {len(sheet.groups)} of them are shown" if len(sheet.groups) < volume.kept_count else ""
    which = "All slices" if len(sheet.slices) == len(volume) else f"{len(sheet.slices)} of the slices, evenly spread,"
    cards = "".join(_card(sheet, group, target) for group in sheet.groups)
    tiles = "".join(_slice(sheet, index, target) for index in sheet.slices)
    kept = f"{count(volume.kept_count)} kept ({percent(volume.share)}){some}"
    return f"""<article class="{sheet.name}"><h4>Volume <code>{escape(volume.name)}</code></h4>
<p>{counted(len(volume), "slice")} of {record["height"]} x {record["width"]}, {volume.spacing_mm:.3g} mm apart,
{escape(str(record["plane"]))}; <span class="kept_of" data-live>{kept}</span>.</p>
{bar_code(volume.kept, first, last)}
<div class="groups" data-live>{cards}</div>
<details><summary>{which} in order, {first} to {last}</summary>
<div class="slices" data-live>{tiles}</div></details></article>"""


def _card(sheet: Sheet, group: Group, target: Target) -> str:
    kept = sheet.tile(group.kept, "kept")
    alone = "" if target.method == "all" else "<br>alone"
    verb = "stands for" if target.compares else "precedes"
    if not group.members:
        return f"<figure>{kept}<figcaption><b>{group.kept}</b>{alone}</figcaption></figure>"
    return f"""<figure class="two">{kept}{sheet.tile(group.farthest, "removed")}
<figcaption><b>{group.kept}</b> {verb} {len(group.members)}: {ranges(group.members)}<br>
{group.farthest} → {group.remover}, {amount(target.measure, group.distance)}</figcaption></figure>"""


def _slice(sheet: Sheet, index: int, target: Target) -> str:
    if sheet.volume.bodiless[index]:
        kind, words = "bodiless", f"{index} no body"
    elif sheet.volume.reasons[index]:
        kind, words = "unreadable", f"{index} unreadable"
    elif sheet.volume.kept[index]:
        kind, words = "kept", f"<b>{index}</b>"
    elif not target.compares:
        kind, words = "removed", f"{index}"
    else:
        by = int(sheet.volume.kept_by[index])
        kind, words = "removed", f"{index} → {by}" if by >= 0 else f"{index} → another volume"
    return f"<figure>{sheet.tile(index, kind)}<figcaption>{words}</figcaption></figure>"
