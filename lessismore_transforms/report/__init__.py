"""One HTML page by which to choose the threshold: curves, slices, distances, outliers and failures of a reduction.

It is made from an output folder alone, refers to nothing outside itself and holds neither paths nor patients nor
series: volumes appear under their ids. The same folder gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.manifest import Manifest, Selection
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import figures
from lessismore_transforms.report.facts import (
    OUTLIER_Z,
    RULES,
    VOLUMES_FOR_OUTLIERS,
    VolumeFacts,
    exemplar_counts,
    gather,
    pair_counts,
    robust_z,
)
from lessismore_transforms.report.privacy import anonymiser
from lessismore_transforms.report.thumbnails import read_sheets, slice_section
from lessismore_transforms.report.words import count, counted, percent, plot, plural, table

__all__ = ["exemplar_counts", "pair_counts", "write_report"]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Slice reduction report</title>
<style>
{css}
</style></head>
<body><main>
{body}
</main></body></html>
"""
_PIXELS = {
    "clipped": "clipped: each slice from its smallest to its largest value, padding below -1024 HU clipped",
    "released": "released: each slice from its smallest to its largest value, as the released scripts",
}


def write_report(output_dir: str | Path, selection: str = "default") -> Path:
    """Write `report.html` about a selection into the output folder of a reduction and return its path.

    Args:
        output_dir: the output folder of a finished `reduce`.
        selection: name of the selection whose cut is marked and shown.

    Raises:
        ManifestError: there is no manifest or no such selection, or they do not fit each other.
    """
    output_dir = Path(output_dir)
    manifest, chosen = Manifest.read(output_dir), Selection.read(output_dir, selection)
    volumes = list(gather(manifest, chosen))
    sheets = read_sheets(output_dir / "store" / "thumbnails", volumes)
    public = anonymiser(manifest)
    sections = [_head(manifest, chosen, volumes, selection)]
    if volumes:
        sections += [
            _threshold_section(volumes, chosen.target),
            slice_section(sheets, chosen.target, as_released=bool(manifest.settings.get("as_released"))),
            _distance_section(volumes, chosen.target),
            _outlier_section(volumes, public),
        ]
    sections.append(_failure_section(manifest, public))
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    css = style + "\n".join(f".{sheet.name} .tile {{ {sheet.css} }}" for sheet in sheets)
    path = output_dir / "report.html"
    with atomic_write(path) as file:
        file.write(_PAGE.format(css=css, body="\n".join(sections)))
    return path


def _head(manifest: Manifest, chosen: Selection, volumes: Sequence[VolumeFacts], name: str) -> str:
    slices, kept = len(chosen.slices), len(chosen.kept_ids)
    failures, skipped = len(manifest.info["failures"]), len(manifest.info["skipped"])
    unreadable = sum(map(bool, manifest.slices["reason"]))
    tiles = [
        (count(len(volumes)), plural(len(volumes), "volume")),
        (count(slices), plural(slices, "slice") + (f", {count(unreadable)} unreadable" if unreadable else "")),
        (count(kept), f"{plural(kept, 'slice')} kept"),
        (percent(kept / slices) if slices else "–", "of the slices kept"),
    ]
    if failures:
        tiles.append((count(failures), f'<a href="#failures">{plural(failures, "volume")} failed</a>'))
    pixels = str(manifest.settings.get("pixels", "unknown"))
    facts = [
        ("Selection", f"{escape(name)}: {escape(str(chosen.target))}"),
        ("In words", _in_words(chosen.target)),
        ("Pixels", escape(_PIXELS.get(pixels, f"window {pixels}"))),
        ("Files skipped", f'<a href="#failures">{count(skipped)}</a>' if skipped else "none"),
        ("Version", f"lessismore_transforms {escape(str(manifest.info.get('version', 'unknown')))}"),
    ]
    if manifest.settings.get("as_released"):
        facts.insert(2, ("Order", "slices and orientation as stored, like the released scripts"))
    numbers = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in tiles)
    rows = "\n".join(f'<tr><th scope="row">{label}</th><td>{value}</td></tr>' for label, value in facts)
    return f"""<header><h1>Slice reduction report</h1>
<dl class="numbers">{numbers}</dl>
<table class="facts"><tbody>{rows}</tbody></table></header>"""


def _in_words(target: Target) -> str:
    if target.fraction is not None:
        left = f"until {percent(target.fraction)} of each volume's slices are left"
        return f"Pair by pair, the most similar first, the later slice goes, {left}."
    alike = (
        f"differ in at most {target.threshold:g} of the hash's 64 bits" if target.threshold else "have the same hash"
    )
    if target.rule == "exemplars":
        return f"A slice goes when it and a slice that was kept before it in its volume {alike}."
    return f"Pair by pair, the most similar first, the later slice goes, as long as the two {alike}."


def _threshold_section(volumes: Sequence[VolumeFacts], target: Target) -> str:
    slices = sum(map(len, volumes))
    totals = {rule: np.sum([volume.counts[rule] for volume in volumes], axis=0).tolist() for rule in RULES}
    shown = f" ({figures.MOST_LINES} of {count(len(volumes))})" if len(volumes) > figures.MOST_LINES else ""
    band = "; the band holds the middle 80 % of them" if len(volumes) >= figures.VOLUMES_FOR_BAND else ""
    lines = f" Thin lines are single volumes{shown}{band}." if len(volumes) > 1 else ""
    caption = f"""Read off how many slices a threshold leaves, then look in section 2 whether you can spare those it
removes. A curve above the paper's points means slices that differ more than in its data sets, as thick or far
spaced ones do.{lines} Both axes are stretched where thresholds and shares are small.
{_advice(target)}"""
    alt = "Kept share of slices against HASH threshold, falling from 0 to 64 bits; the table below holds the numbers."
    return f"""<section id="threshold"><h2>1. How many slices stay at each threshold</h2>
{plot(figures.curves(volumes, target), alt, caption)}
{_threshold_table(totals, slices, target)}</section>"""


def _advice(target: Target) -> str:
    """What to type for fewer and for more slices (HTML)."""
    options: list[tuple[str, str, str]] = []
    if target.fraction is not None:
        for words, fraction in (("fewer", target.fraction / 2), ("more", min(1.0, target.fraction * 2))):
            options.append((words, f"--fraction {fraction:g}", f"share{100 * fraction:g}"))
    elif target.threshold is not None:
        steps = (0, 1, 3, 6, 12, 18, 24, 32, 48, 64)
        rule, stem = (" --rule pairs", "pairs") if target.rule == "pairs" else ("", "hash")
        fewer = [bits for bits in steps if bits > target.threshold][:1]
        more = [bits for bits in steps if bits < target.threshold][-1:]
        for words, choice in (("fewer", fewer), ("more", more)):
            options += [(words, f"--threshold {bits}{rule}", f"{stem}{bits}") for bits in choice]
    lines = [
        f"<br>To keep {words} slices: <code>python -m lessismore_transforms select OUT {what} --name {name}</code>"
        for words, what, name in options
    ]
    show = f"<br>To look at it: <code>python -m lessismore_transforms report OUT --selection {options[0][2]}</code>"
    return f"{''.join(lines)}{show}<br>(OUT is the folder of this page; no image is read again.)"


def _threshold_table(totals: dict[str, list[int]], slices: int, target: Target) -> str:
    papers = figures.PAPER_THRESHOLDS
    chosen = None if target.threshold is None else int(target.threshold)
    rows = []
    for bits in sorted({*papers, *([] if chosen is None else [chosen])}):
        cells = [cell for rule in RULES for cell in (count(totals[rule][bits]), percent(totals[rule][bits] / slices))]
        cells += [percent(shares[papers.index(bits)]) if bits in papers else "" for shares in figures.PAPER.values()]
        mark, note = (' class="chosen"', " (chosen)") if bits == chosen else ("", "")
        rows.append(f'<tr{mark}><th scope="row">{bits} bits{note}</th><td>{"</td><td>".join(cells)}</td></tr>')
    groups = "".join(
        f'<th colspan="2" scope="colgroup">{name}</th>' for name in (*map("rule {}".format, RULES), "paper")
    )
    names = "".join(f'<th scope="col">{name}</th>' for name in (*("slices", "share") * len(RULES), *figures.PAPER))
    body = "\n".join(rows)
    return f"""<table class="numeric" id="kept"><caption>Kept of {counted(slices, "slice")}</caption>
<thead><tr><th rowspan="2" scope="col">threshold</th>{groups}</tr><tr>{names}</tr></thead>
<tbody>{body}</tbody></table>"""


def _distance_section(volumes: Sequence[VolumeFacts], target: Target) -> str:
    distance = np.concatenate([volume.distance[volume.kept_by >= 0] for volume in volumes]).astype(np.int64)
    removed_at = np.concatenate([volume.removed_at for volume in volumes])
    removed_at = removed_at[~np.isnan(removed_at)].astype(np.int64)
    removed = f"{count(len(distance))} removed" + (f", median {np.median(distance):g} bits" if len(distance) else "")
    caption = f"""Left: how well the removed slices are stood for ({removed}); at 0 the two have the same hash. Right:
what each further bit of threshold removes by the pair rule; where the bars right of the chosen cut are low the cut is
stable, where they are high one bit more changes much."""
    alt = (
        f"Two histograms: removed slices by distance to the slice that stands for them ({removed}); all by removed_at."
    )
    return f"""<section id="distances"><h2>3. How different the removed slices are</h2>
{plot(figures.histograms(distance, removed_at, target), alt, caption)}</section>"""


def _outlier_section(volumes: Sequence[VolumeFacts], public: Callable[[str], str]) -> str:
    z = robust_z(volumes).tolist()
    outliers = sorted((i for i in range(len(volumes)) if abs(z[i]) > OUTLIER_Z), key=lambda i: (-abs(z[i]), i))
    caption = """A point is a volume. Slices far apart differ more, so the kept share rises with the spacing; a volume
far off the others of its spacing may be noisy, damaged, padded outside the field of view, badly ordered or of another
kind."""
    alt = f"Kept share of {count(len(volumes))} volumes against the distance between their slices in mm."
    return f"""<section id="outliers"><h2>4. Volumes to look at</h2>
{plot(figures.shares_by_spacing(volumes, outliers), alt, caption)}
{_outlier_table(volumes, outliers, z)}
{_note_table(volumes, public)}</section>"""


def _outlier_table(volumes: Sequence[VolumeFacts], outliers: Sequence[int], z: Sequence[float]) -> str:
    if len(volumes) < VOLUMES_FOR_OUTLIERS:
        return f"<p>Outliers are sought among {VOLUMES_FOR_OUTLIERS} volumes or more.</p>"
    rule = f"""Far means: a robust z-score (median and MAD) beyond {OUTLIER_Z} of the kept share on a logarithmic scale
less its trend with the spacing; volumes of one slice are left out."""
    if not outliers:
        return f"<p>No volume's kept share is far from the others. {rule}</p>"
    rows = [
        (
            f"<code>{escape(volumes[i].name)}</code>",
            count(len(volumes[i])),
            f"{volumes[i].spacing_mm:.3g} mm",
            count(volumes[i].kept_count),
            percent(volumes[i].share),
            f"{z[i]:+.1f}".replace("-", "−"),
        )
        for i in outliers
    ]
    head = ("volume", "slices", "spacing", "kept", "share", "z")
    return table("outlying", "Kept share far from the others", head, rows, kind="numeric") + f"<p>{rule}</p>"


def _note_table(volumes: Sequence[VolumeFacts], public: Callable[[str], str]) -> str:
    """The remarks on volumes, each once, with the volumes it is about."""
    named: dict[str, list[str]] = {}
    for volume in volumes:
        notes = [public(note) for note in volume.record["notes"]]
        for note in dict.fromkeys(notes + ["one slice only"] * (len(volume) == 1)):
            named.setdefault(note, []).append(volume.name)
    if not named:
        return (
            "<p>No volume has a note (gaps, tilt, odd spacing, replaced voxels, unreadable slices, one slice only).</p>"
        )
    rows = []
    for note, names in sorted(named.items(), key=lambda item: (-len(item[1]), item[0])):
        codes = ", ".join(f"<code>{escape(name)}</code>" for name in names[:3])
        more = f" and {count(len(names) - 3)} more" if len(names) > 3 else ""
        rows.append((escape(note), count(len(names)), codes + more))
    return table("noted", "Notes on volumes", ("note", "volumes", "which"), rows)


def _failure_section(manifest: Manifest, public: Callable[[str], str]) -> str:
    parts = []
    for name, reasons, title, unit, none in (
        ("failed", [item["reason"] for item in manifest.info["failures"]], "Volumes that failed", "volumes",
         "No volume failed."),
        ("unreadable", list(filter(None, manifest.slices["reason"])), "Slices that cannot be read", "slices",
         "No slice is unreadable."),
        ("skipped", [item["reason"] for item in manifest.info["skipped"]], "Files skipped", "files",
         "No file was skipped."),
    ):  # fmt: skip
        ranked = sorted(Counter(map(public, reasons)).items(), key=lambda item: (-item[1], item[0]))
        rows = [(escape(reason), count(number)) for reason, number in ranked]
        caption = f"{title}: {count(len(reasons))}"
        parts.append(table(name, caption, ("reason", unit), rows) if rows else f"<p>{none}</p>")
    body = "\n".join(parts)
    return f"""<section id="failures"><h2>5. Failures and skipped files</h2>
{body}
<p class="caption">The paths stand in manifest.json and, for slices, in manifest.csv; this page holds none.</p>
</section>"""
