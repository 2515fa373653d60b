"""How many kept slices selections of the same data set share, beside what chance and order alone would give.

Two selections that keep a tenth each share a tenth of their slices by chance, and which of two near copies a method
keeps hangs on the order it walks in. An overlap says something only beside both (Wolf et al. 2024, doi
10.1016/j.compbiomed.2024.109242, Section 3.2 and Figure 6).
"""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.errors import ManifestError, UserError
from lessismore_transforms.reduced.manifest import DISTANCES, Manifest, Selection, record_order
from lessismore_transforms.reduction.hashing import hamming_distances
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.selection import (
    exemplars,
    keep_at_threshold,
    keep_count,
    removal_order,
    target_count,
)
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report.html import data_url, page
from lessismore_transforms.report.thumbnails import _ENDS, _picture
from lessismore_transforms.wording import count, counted, percent, plural

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]

COLUMNS = (
    "selection", "other", "kept", "kept_other", "shared", "share", "random_share", "random_low", "random_high",
    "reversed", "reversed_other",
)  # fmt: skip
_READ = (
    "A number is the share of the smaller selection that the other one keeps too; it tells something where it lies "
    "outside the range of chance, into which 95 % of random selections of the same sizes fall, and beside what the "
    "method shares with itself when it walks through the slices in reversed order"
)
_FIRST_STAYS = (
    "The first slice of a volume stays by every rule (EveryN: without offset), so volumes of which few slices are kept "
    "share more."
)
_PAPER = (
    "In the paper, where each method keeps 10 % of a volume, two methods share 9 to 30 %: SSIM and MI most, EveryN "
    "with any other 9 to 11 %, which is chance."
)
_SURE = 0.95  # of the interval around chance
_NEGLIGIBLE = 1e-15  # probability
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


@dataclass(frozen=True)
class Overlap:
    """The slices that two selections share, and how many random ones of the same numbers per volume would.

    Args:
        kept: numbers of slices that the two keep.
        shared: number that both keep.
        expected: mean of the random number.
        low: 2.5 % quantile of the random number.
        high: 97.5 % quantile.
    """

    kept: tuple[int, int]
    shared: int
    expected: float
    low: int
    high: int

    @property
    def share(self) -> float:
        """Shared slices, as a share of the smaller selection; for equal numbers that of either."""
        return self.of_smaller(self.shared)

    def of_smaller(self, number: float) -> float:
        """A number of slices as a share of the smaller selection, nan where that is empty."""
        return number / min(self.kept) if min(self.kept) else math.nan


@dataclass(frozen=True, eq=False)
class Choice:
    """One selection of the n slices of a data set.

    Args:
        label: what the tables call it.
        output_dir: the output folder it stands in.
        target: method, rule and amount.
        kept: (n,) bool.
        reversed: its overlap with what its method keeps in reversed order; None where the output does not tell: for
            EveryN and ALL, and for other measures than HASH unless the run kept the distances.
    """

    label: str
    output_dir: Path
    target: Target
    kept: Mask
    reversed: Overlap | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Selections of the same slices and what they share.

    Args:
        volumes: the volumes' records in manifest.json, in the order of the slices.
        choices: the selections.
        overlaps: by indices (i, j), i < j, of two selections.
        as_released: the slices run as they were stored, not in canonical order.
    """

    volumes: list[dict[str, Any]]
    choices: list[Choice]
    overlaps: dict[tuple[int, int], Overlap]
    as_released: bool

    def overlap(self, i: int, j: int) -> Overlap | None:
        """That of two selections, or of one with itself in reversed order."""
        return self.choices[i].reversed if i == j else self.overlaps[min(i, j), max(i, j)]


def named_outputs(texts: Sequence[str], selections: Sequence[str]) -> list[tuple[Path, str]]:
    """Output folders and selections as the command line names them: OUT:NAME, or OUT for each of `selections`."""
    outputs: list[tuple[Path, str]] = []
    for text in texts:
        folder, colon, name = text.rpartition(":")
        alone = not colon or Path(text).is_dir() or "/" in name or "\\" in name
        outputs += [(Path(text), selection) for selection in selections] if alone else [(Path(folder), name)]
    return outputs


def compare(outputs: Sequence[tuple[Path, str]]) -> Comparison:
    """The overlaps of selections of the same data set.

    Args:
        outputs: an output folder of `reduce` and the name of a selection in it, two or more.

    Raises:
        UserError: fewer than two selections, or one of them twice.
        ManifestError: a folder or a selection that is none, or outputs that describe different slices.
    """
    if len(outputs) < 2:
        raise UserError(
            f"expected two selections or more to compare, found {len(outputs)}: name others by --selections"
        )
    for i, (folder, name) in enumerate(outputs):
        if (folder, name) in outputs[:i]:
            raise UserError(f"the selection {name} of {folder} is named twice: drop one")
    choices: list[Choice] = []
    candidates: list[Mask] = []
    first: Manifest | None = None
    labels = iter(_labels(outputs))
    for folder, group in groupby(outputs, key=lambda output: output[0]):
        manifest = Manifest.read(folder)
        if first is None:
            first = manifest
        elif difference := _difference(first, manifest, outputs[0][0], folder):
            raise ManifestError(f"{difference}: compare outputs of the same data set")
        candidate = manifest.slices["reason"].to_numpy() == ""
        for _, name in group:
            selection = Selection.read(folder, name)
            if selection.slices["slice_id"].tolist() != manifest.slices["slice_id"].tolist():
                raise ManifestError(
                    f"the selection {name} in {folder} names other slices than manifest.csv: make it again"
                )
            kept = selection.slices["kept"].to_numpy(dtype=bool)
            backwards = _reversed(manifest, selection.target)
            own = None if backwards is None else _overlap(kept, backwards, candidate, manifest.volumes)
            choices.append(Choice(next(labels), folder, selection.target, kept, own))
            candidates.append(candidate)
    assert first is not None
    overlaps = {
        (i, j): _overlap(choices[i].kept, choices[j].kept, candidates[i] & candidates[j], first.volumes)
        for i, j in combinations(range(len(choices)), 2)
    }
    return Comparison(first.volumes, choices, overlaps, bool(first.settings.get("as_released")))


def as_text(comparison: Comparison) -> str:
    """The comparison as the screen shows it."""
    slices = len(comparison.choices[0].kept)
    singles = [("selection", "method", "kept", "", "itself reversed", "chance", "95 % of chance")]
    for choice in comparison.choices:
        kept = int(choice.kept.sum())
        share = percent(kept / slices if slices else 0)
        singles.append((choice.label, str(choice.target), count(kept), share, *_cells(choice.reversed)))
    pairs: list[tuple[str, ...]] = [("selection", "other", "kept", "kept", "both", "share", "chance", "95 % of chance")]
    for (i, j), overlap in comparison.overlaps.items():
        one, other = comparison.choices[i], comparison.choices[j]
        pairs.append((one.label, other.label, *map(count, (*overlap.kept, overlap.shared)), *_cells(overlap)))
    size = f"{counted(len(comparison.volumes), 'volume')}, {counted(slices, 'slice')}"
    words = (textwrap.fill(text, 100) for text in (f"{_READ}. {_FIRST_STAYS}", _PAPER))
    return "\n\n".join((size, _aligned(singles), _aligned(pairs), *words))


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
    with atomic_write(output_dir / "compare.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_rows(comparison))
    path = output_dir / "compare.html"
    style = files("lessismore_transforms.report").joinpath("page.css").read_text(encoding="utf-8")
    body = "\n".join((_head(comparison), _heat_map(comparison), _first_slices(comparison)))
    with atomic_write(path) as file:
        file.write(page("Slices that selections share", css=style + _CSS, body=body))
    return path


def _labels(outputs: Sequence[tuple[Path, str]]) -> list[str]:
    """As short as tells them apart: the selection's name, its folder's, or both, numbered where all that is equal."""
    folders, names = {folder for folder, _ in outputs}, {name for _, name in outputs}
    labels: list[str] = []
    for folder, name in outputs:
        place = folder.resolve().name
        label = name if len(folders) == 1 else place if len(names) == 1 else f"{place}:{name}"
        again = sum(before.partition(" (")[0] == label for before in labels)
        labels.append(f"{label} ({again + 1})" if again else label)
    return labels


def _difference(one: Manifest, other: Manifest, folder: Path, other_folder: Path) -> str:
    """The first thing by which two outputs describe different slices, or nothing."""
    order, other_order = (bool(manifest.settings.get("as_released")) for manifest in (one, other))
    if order != other_order:
        released, canonical = (folder, other_folder) if order else (other_folder, folder)
        return f"{released} holds slices as released, {canonical} in canonical order"
    records = {record["volume"]: record for record in one.volumes}
    others = {record["volume"]: record for record in other.volumes}
    for volume in records | others:
        for missing, present, where in ((records, other_folder, folder), (others, folder, other_folder)):
            if volume not in missing:
                return f"volume {volume} is in {present} but not in {where}"
        for key, words in (("slices", "slices"), ("crc32", "as CRC32")):
            if records[volume][key] != others[volume][key]:
                found, expected = others[volume][key], records[volume][key]
                return f"volume {volume} has {expected} {words} in {folder} and {found} in {other_folder}"
    if list(records) != list(others):
        return f"{folder} and {other_folder} hold the same volumes in another order"
    return ""


def _reversed(manifest: Manifest, target: Target) -> Mask | None:
    """The slices (n,) that the same method keeps in reversed order; None where the output does not tell."""
    if target.method not in MEASURES or target.scope != "volume":
        return None
    parts = []
    for record, rows in manifest.by_volume():
        candidate = rows["reason"].to_numpy() == ""
        if target.method == "hash":
            hashes = rows["hash"].to_numpy()[candidate]
            matrix = hamming_distances(hashes, hashes)
        elif (path := manifest.folder / DISTANCES / f"{record['volume']}.npy").is_file():
            matrix = np.load(path, allow_pickle=False)
        else:
            return None
        order = record_order(record) if target.rule == "exemplars" else None
        walk = np.arange(len(rows)) if order is None else order
        walk = walk[candidate[walk]][::-1]
        place = (np.cumsum(candidate) - 1)[walk]
        kept = np.zeros(len(rows), dtype=bool)
        kept[walk] = _keep(matrix[np.ix_(place, place)], target)
        parts.append(kept)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


def _keep(matrix: NDArray[Any], target: Target) -> Mask:
    """The slices (n,) of a volume that a target keeps, walking in the order of the matrix (n, n)."""
    similarity = MEASURES[target.method].similarity
    if target.rule == "exemplars":
        assert target.threshold is not None
        return exemplars(lambda i: matrix[i], len(matrix), target.threshold, similarity=similarity).kept
    ranking = removal_order(matrix, similarity=similarity)
    if target.fraction is not None:
        return keep_count(ranking, target_count(len(matrix), target.fraction))
    assert target.threshold is not None
    return keep_at_threshold(ranking, target.threshold, similarity=similarity)


def _overlap(kept: Mask, other: Mask, candidates: Mask, volumes: Sequence[dict[str, Any]]) -> Overlap:
    """What two selections (n,) share; chance draws from the candidates (n,), those that both could keep."""
    sizes = [record["slices"] for record in volumes]
    starts = np.cumsum([0, *sizes])[:-1]
    numbers = (np.add.reduceat(mask & candidates, starts, dtype=np.int64) for mask in (kept, other, candidates))
    return Overlap((int(kept.sum()), int(other.sum())), int((kept & other).sum()), *chance(*numbers))


def chance(kept: Counts, other: Counts, slices: Counts) -> tuple[float, int, int]:
    """How many slices two random selections share: the mean and the ends of the middle 95 %.

    The number shared in a volume is hypergeometric; that in all of them is distributed as the convolution of these.

    Args:
        kept: (V,) numbers that one keeps of each volume.
        other: (V,) numbers that the other keeps.
        slices: (V,) numbers of the volumes' slices.
    """
    log_factorials = np.append(0.0, np.cumsum(np.log(np.arange(1, 1 + slices.max(initial=0)))))
    mean, first, chances = 0.0, 0, np.ones(1)
    for a, b, n in zip(kept.tolist(), other.tolist(), slices.tolist(), strict=True):
        if a and b:
            mean += a * b / n
            shared = np.arange(max(0, a + b - n), min(a, b) + 1)
            ways = sum(
                log_factorials[whole] - log_factorials[part] - log_factorials[whole - part]
                for whole, part in ((a, shared), (n - a, b - shared))
            )
            chances = np.convolve(chances, np.exp(ways - ways.max()))
            likely = np.flatnonzero(chances > _NEGLIGIBLE * chances.max())
            first += int(shared[0] + likely[0])
            chances = chances[likely[0] : likely[-1] + 1] / chances.sum()
    low, high = np.searchsorted(np.cumsum(chances), ((1 - _SURE) / 2, (1 + _SURE) / 2)) + first
    return mean, int(low), int(high)


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    choices = comparison.choices
    for (i, j), overlap in comparison.overlaps.items():
        shares = [overlap.of_smaller(number) for number in (overlap.expected, overlap.low, overlap.high)]
        shares += [choice.reversed.share if choice.reversed else math.nan for choice in (choices[i], choices[j])]
        numbers = (*overlap.kept, overlap.shared, overlap.share, *shares)
        yield choices[i].label, choices[j].label, *("" if math.isnan(n) else f"{n:.6g}" for n in numbers)


def _cells(overlap: Overlap | None) -> tuple[str, str, str]:
    """Share, that of chance and the range of chance, for people."""
    if overlap is None or math.isnan(overlap.share):
        return "–", "–", "–"
    low, high = (f"{100 * overlap.of_smaller(number):.0f}" for number in (overlap.low, overlap.high))
    return percent(overlap.share), percent(overlap.of_smaller(overlap.expected)), f"{low}–{high}\u00a0%"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines: two columns of words to the left, the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"{{:{'<' if place < 2 else '>'}{width}}}" for place, width in enumerate(widths))
    return "\n".join(form.format(*row) for row in rows)


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
        cells = "".join(_cell(comparison.overlap(i, j), itself=i == j) for j in range(len(choices)))
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    body = "\n".join(rows)
    return f"""<section id="shared"><h2>1. How many slices they share</h2>
<p>{_READ} (the dashed cells; measures
other than HASH need a run with <code>--keep_distances</code> for that). Bold numbers lie outside the range of
chance. {_FIRST_STAYS}</p>
<p>{_PAPER} (<a href="https://doi.org/10.1016/j.compbiomed.2024.109242">Wolf et al. 2024</a>, Section
3.2)</p>
<table class="heat"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>
<p class="caption">The numbers stand in compare.csv.</p></section>"""


def _cell(overlap: Overlap | None, *, itself: bool) -> str:
    share, _, usual = _cells(overlap)
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
    first, last = _ENDS.get(plane, ("first", "last"))
    rows = "\n".join(
        f"<h4>{escape(choice.label)} <small>{count(int(kept.sum()))} kept</small></h4>{_bar(kept, first, last)}\n"
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
            path = choice.output_dir / "store" / "thumbnails" / f"{volumes[place]['volume']}.npy"
            if path.is_file():
                thumbnails: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
                if thumbnails.ndim != 3 or len(thumbnails) != volumes[place]["slices"]:
                    raise ManifestError(f"{path}: the thumbnails do not fit their volume: delete it or reduce again")
                return place, thumbnails
    return None


def _tiles(thumbnails: NDArray[np.uint8], kept: Mask, shared: Mask) -> str:
    """The first kept slices (HTML), framed where they are shared."""
    figures = []
    for index in np.flatnonzero(kept)[:_FIRST]:
        url = data_url("image/webp", _picture(thumbnails[index : index + 1], 1, 1))
        kind = "tile kept" if shared[index] else "tile"
        image = f'<img class="{kind}" src="{url}" alt="slice {index}">'
        figures.append(f"<figure>{image}<figcaption>{index}</figcaption></figure>")
    return f'<div class="first">{"".join(figures)}</div>'


def _bar(kept: Mask, first: str, last: str) -> str:
    """Where the kept slices (n,) lie in a volume, as a bar code."""
    marks = "".join(f'<rect x="{index}.1" width=".8" height="1"/>' for index in np.flatnonzero(kept))
    label = f"{kept.sum()} kept slices marked among {len(kept)}, from {first} to {last}"
    return f"""<div class="bar"><span>{first}</span><svg role="img" aria-label="{label}"
viewBox="0 0 {len(kept)} 1" preserveAspectRatio="none">{marks}</svg><span>{last}</span></div>"""
