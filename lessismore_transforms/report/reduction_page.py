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
from lessismore_transforms.reduced.manifest import Manifest, read_reduction
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import charts
from lessismore_transforms.report.anonymise import anonymiser
from lessismore_transforms.report.choices import scales
from lessismore_transforms.report.chooser import chooser, chooser_script
from lessismore_transforms.report.html import amount, page, plot, stylesheet, table
from lessismore_transforms.report.in_words import in_words
from lessismore_transforms.report.summary import (
    OUTLIER_Z,
    VOLUMES_FOR_OUTLIERS,
    VolumeSummary,
    removed_at,
    robust_z,
    shows_no_body,
    stopped_at,
    summarise,
)
from lessismore_transforms.report.threshold_section import threshold_section
from lessismore_transforms.report.thumbnails import read_sheets, slice_section
from lessismore_transforms.wording import count, counted, percent, plural

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
    manifest, chosen = read_reduction(output_dir, selection)
    volumes = list(summarise(manifest, chosen))
    sheets = read_sheets(output_dir, volumes, chosen.target)
    public = anonymiser(manifest)
    sections = [_head(manifest, chosen, volumes, selection)]
    script = ""
    if volumes:
        choices = scales(manifest, volumes, chosen.target)
        script = chooser_script()
        sections += [
            chooser(manifest, volumes, chosen.target, choices, sheets),
            threshold_section(manifest, volumes, chosen.target, choices),
            slice_section(sheets, volumes, chosen.target, as_released=bool(manifest.settings.get("as_released"))),
            _distance_section(volumes, chosen.target),
            _outlier_section(volumes, chosen.target, public),
        ]
    sections.append(_failure_section(manifest, public))
    css = stylesheet() + "\n".join(f".{sheet.name} .tile {{ {sheet.css} }}" for sheet in sheets)
    path = output_dir / "report.html"
    with atomic_write(path) as file:
        file.write(page("Slice reduction report", css=css, body="\n".join(sections), script=script))
    return path


def _head(manifest: Manifest, chosen: Selection, volumes: Sequence[VolumeSummary], name: str) -> str:
    slices, kept = len(chosen.slices), len(chosen.kept_ids)
    failures, skipped = len(manifest.info["failures"]), len(manifest.info["skipped"])
    bodiless = sum(map(shows_no_body, manifest.slices["reason"]))
    unreadable = sum(map(bool, manifest.slices["reason"])) - bodiless
    left_out = f", {count(unreadable)} unreadable" if unreadable else ""
    left_out += f", {count(bodiless)} without body" if bodiless else ""
    tiles = [
        (count(len(volumes)), plural(len(volumes), "volume"), ""),
        (count(slices), plural(slices, "slice") + left_out, ""),
        (count(kept), f"{plural(kept, 'slice')} kept", ' id="kept_count" data-live'),
        (percent(kept / slices) if slices else "–", "of the slices kept", ' id="kept_share" data-live'),
    ]
    if failures:
        tiles.append((count(failures), f'<a href="#failures">{plural(failures, "volume")} failed</a>', ""))
    pixels = str(manifest.settings.get("pixels", "unknown"))
    properties = [
        ("Selection", f'<span id="selection" data-live>{escape(name)}: {escape(str(chosen.target))}</span>'),
        ("In words", f'<span id="in_words" data-live>{in_words(chosen.target)}</span>'),
        ("Pixels", escape(_PIXELS.get(pixels, f"window {pixels}"))),
        ("Files skipped", f'<a href="#failures">{count(skipped)}</a>' if skipped else "none"),
        ("Version", f"lessismore_transforms {escape(str(manifest.info.get('version', 'unknown')))}"),
    ]
    if manifest.settings.get("as_released"):
        properties.insert(2, ("Order", "slices and orientation as stored, like the released scripts"))
    numbers = "".join(f"<div{live}><dt>{label}</dt><dd>{value}</dd></div>" for value, label, live in tiles)
    rows = "\n".join(f'<tr><th scope="row">{label}</th><td>{value}</td></tr>' for label, value in properties)
    return f"""<header><h1>Slice reduction report</h1>
<dl class="numbers">{numbers}</dl>
<table class="facts"><tbody>{rows}</tbody></table></header>"""


def _distance_section(volumes: Sequence[VolumeSummary], target: Target) -> str:
    measure = MEASURES[target.measure]
    distance = np.concatenate([volume.distance for volume in volumes])
    distance = distance[~np.isnan(distance)]
    fallen = removed_at(volumes, target.measure)
    median = f", median {amount(target.measure, float(np.median(distance)))}" if len(distance) else ""
    removed = f"{count(len(distance))} removed{median}"
    identical = "the two are the same" if measure.similarity else "the two have the same hash"
    how, best = ("stood for", 0.0) if not measure.similarity else ("covered by those that removed them", measure.high)
    step, words = (
        ("one bit more", "each further bit of threshold") if measure.whole else ("a bit less", "a lower threshold")
    )
    ends = ", as far as it was ranked" if measure.similarity and any(map(stopped_at, volumes)) else ""
    cut = (
        f"""; where the bars right of the chosen cut are low the cut is stable, where they are high {step} changes
much"""
        if target.threshold is not None
        else ""
    )
    before = (
        "" if target.compares or target.method == "all" else " Nothing is compared: counted is the kept slice before."
    )
    caption = f"""Left: how well the removed slices are {how} ({removed}); at {best:g} {identical}.{before} Right: what
{words} removes by the pair rule{ends}{cut}."""
    alt = (
        f"Two histograms: removed slices by distance to the slice that stands for them ({removed}); all by removed_at."
    )
    return f"""<section id="distances"><h2>3. How different the removed slices are</h2>
{_still(target)}
{plot(charts.histograms(distance, fallen, target), alt, caption)}</section>"""


def _still(target: Target) -> str:
    """What a section says that shows the page's own selection while the others show another choice."""
    return (
        f'<p class="moved">This section is about the selection that the page was made for: {escape(str(target))}.</p>'
    )


def _outlier_section(volumes: Sequence[VolumeSummary], target: Target, public: Callable[[str], str]) -> str:
    z = robust_z(volumes).tolist()
    outliers = sorted((i for i in range(len(volumes)) if abs(z[i]) > OUTLIER_Z), key=lambda i: (-abs(z[i]), i))
    caption = """A point is a volume. Slices far apart differ more, so the kept share rises with the spacing; a volume
far off the others of its spacing may be noisy, damaged, padded outside the field of view, badly ordered or of another
kind."""
    whose = f"{counted(len(volumes), 'volume')} against the distance between {plural(len(volumes), 'its', 'their')}"
    alt = f"Kept share of {whose} slices in mm."
    return f"""<section id="outliers"><h2>4. Volumes to look at</h2>
{_still(target)}
{plot(charts.shares_by_spacing(volumes, outliers), alt, caption)}
{_outlier_table(volumes, outliers, z)}
{_note_table(volumes, public)}</section>"""


def _outlier_table(volumes: Sequence[VolumeSummary], outliers: Sequence[int], z: Sequence[float]) -> str:
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


def _note_table(volumes: Sequence[VolumeSummary], public: Callable[[str], str]) -> str:
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
    reasons = [reason for reason in manifest.slices["reason"] if reason]
    bodiless = sum(map(shows_no_body, reasons))
    for name, found, title, unit, none in (
        ("failed", [item["reason"] for item in manifest.info["failures"]], "Volumes that failed", "volumes",
         "No volume failed."),
        ("unreadable", [reason for reason in reasons if not shows_no_body(reason)],
         "Slices that cannot be read", "slices",
         "No slice is unreadable."),
        ("skipped", [item["reason"] for item in manifest.info["skipped"]], "Files skipped", "files",
         "No file was skipped."),
    ):  # fmt: skip
        ranked = sorted(Counter(map(public, found)).items(), key=lambda item: (-item[1], item[0]))
        rows = [(escape(reason), count(number)) for reason, number in ranked]
        caption = f"{title}: {count(len(found))}"
        parts.append(table(name, caption, ("reason", unit), rows) if rows else f"<p>{none}</p>")
    if bodiless:
        parts.insert(
            2, f"<p>{counted(bodiless, 'slice')} without a body {'was' if bodiless == 1 else 'were'} left out.</p>"
        )
    body = "\n".join(parts)
    return f"""<section id="failures"><h2>5. Failures and skipped files</h2>
{body}
<p class="caption">The paths stand in manifest.json and, for slices, in manifest.csv; this page holds none.</p>
</section>"""
