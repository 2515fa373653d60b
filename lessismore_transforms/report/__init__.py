"""One HTML page by which to choose the threshold: curves, slices, distances, outliers and failures of a reduction.

It is made from an output folder alone, refers to nothing outside itself and holds neither paths nor patients nor
series: volumes appear under their ids. The same folder gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path

import numpy as np

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced.manifest import Manifest, Selection
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import charts
from lessismore_transforms.report.anonymise import anonymiser
from lessismore_transforms.report.html import amount, page, plot, table
from lessismore_transforms.report.summary import (
    OUTLIER_Z,
    RULES,
    VOLUMES_FOR_OUTLIERS,
    VolumeSummary,
    exemplar_counts,
    fraction_counts,
    levels,
    pair_counts,
    removed_at,
    robust_z,
    shows_no_body,
    similarity_counts,
    stopped_at,
    summarise,
)
from lessismore_transforms.report.thumbnails import read_sheets, slice_section
from lessismore_transforms.wording import count, counted, percent, plural

__all__ = ["exemplar_counts", "pair_counts", "write_report"]

_FRACTIONS = (0.5, 0.2, 0.1)
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
    volumes = list(summarise(manifest, chosen))
    sheets = read_sheets(output_dir / "store" / "thumbnails", volumes, chosen.target)
    public = anonymiser(manifest)
    sections = [_head(manifest, chosen, volumes, selection)]
    if volumes:
        sections += [
            _threshold_section(manifest, volumes, chosen.target),
            slice_section(sheets, volumes, chosen.target, as_released=bool(manifest.settings.get("as_released"))),
            _distance_section(volumes, chosen.target),
            _outlier_section(volumes, public),
        ]
    sections.append(_failure_section(manifest, public))
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    css = style + "\n".join(f".{sheet.name} .tile {{ {sheet.css} }}" for sheet in sheets)
    path = output_dir / "report.html"
    with atomic_write(path) as file:
        file.write(page("Slice reduction report", css=css, body="\n".join(sections)))
    return path


def _head(manifest: Manifest, chosen: Selection, volumes: Sequence[VolumeSummary], name: str) -> str:
    slices, kept = len(chosen.slices), len(chosen.kept_ids)
    failures, skipped = len(manifest.info["failures"]), len(manifest.info["skipped"])
    bodiless = sum(map(shows_no_body, manifest.slices["reason"]))
    unreadable = sum(map(bool, manifest.slices["reason"])) - bodiless
    left_out = f", {count(unreadable)} unreadable" if unreadable else ""
    left_out += f", {count(bodiless)} without body" if bodiless else ""
    tiles = [
        (count(len(volumes)), plural(len(volumes), "volume")),
        (count(slices), plural(slices, "slice") + left_out),
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
    if target.method == "all":
        return "Every slice that can be read stays; nothing is compared."
    if target.method == "every_n":
        return f"{_places(target)}; nothing is compared."
    if target.fraction is not None:
        left = f"until {percent(target.fraction)} of each volume's slices are left"
        return f"Pair by pair, the most similar first, the later slice goes, {left}."
    measure = MEASURES[target.measure]
    if measure.similarity:
        alike = f"are alike by at least {target.threshold:g} ({measure.unit})"
    elif target.threshold:
        alike = f"differ in at most {target.threshold:g} of the hash's 64 bits"
    else:
        alike = "have the same hash"
    if target.rule == "exemplars":
        where = {"volume": "its volume", "patient": "a volume of its patient", "all": "any volume"}[target.scope]
        return f"A slice goes when it and a slice that was kept before it in {where} {alike}."
    return f"Pair by pair, the most similar first, the later slice goes, as long as the two {alike}."


def _places(target: Target) -> str:
    """Which slices EveryN keeps."""
    if target.fraction is not None:
        return f"{percent(target.fraction)} of each volume's slices stay, evenly spread"
    if target.step is not None:
        return f"One of every {counted(target.step, 'slice')} stays, from slice {target.offset:g} on"
    return f"One slice every {target.step_mm:g} mm stays, from {target.offset:g} mm on"


def _threshold_section(manifest: Manifest, volumes: Sequence[VolumeSummary], target: Target) -> str:
    slices = sum(map(len, volumes))
    measure = manifest.settings["method"]
    advice = _advice(manifest, volumes, target)
    own = ""
    if measure != "hash":
        own = _similarity_part(volumes, measure, target, advice)
        own += "<h3>The same volumes by HASH</h3>"
        advice = ""
    totals = {rule: np.sum([volume.counts[rule] for volume in volumes], axis=0).tolist() for rule in RULES}
    caption = f"""Read off how many slices a threshold leaves, then look in section 2 whether you can spare those it
removes. A curve above the paper's points means slices that differ more than in its data sets, as thick or far
spaced ones do.{_thin_lines(volumes)} Both axes are stretched where thresholds and shares are
small.{_off_the_curve("hash", target)}
{advice}"""
    alt = "Kept share of slices against HASH threshold, falling from 0 to 64 bits; the table below holds the numbers."
    return f"""<section id="threshold"><h2>1. How many slices stay at each threshold</h2>
{own}
{plot(charts.curves(volumes, target), alt, caption)}
{_threshold_table(totals, slices, target)}</section>"""


def _thin_lines(volumes: Sequence[VolumeSummary]) -> str:
    shown = f" ({charts.MOST_LINES} of {count(len(volumes))})" if len(volumes) > charts.MOST_LINES else ""
    band = "; the band holds the middle 80 % of them" if len(volumes) >= charts.VOLUMES_FOR_BAND else ""
    return f" Thin lines are single volumes{shown}{band}." if len(volumes) > 1 else ""


def _off_the_curve(measure: str, target: Target) -> str:
    """Why the selection is no point of the measure's curves; nothing where it is one."""
    if target.method != measure:
        title = MEASURES[measure].title
        return f" The dashed line is the share that the selection keeps, which was not made by {title}."
    if target.scope != "volume":
        return " The curves compare slices within their volume only; the selection does across volumes."
    if MEASURES[measure].similarity and target.rule == "exemplars":
        return " The curves are the pair rule's; the selection was made by exemplars."
    return ""


def _similarity_part(volumes: Sequence[VolumeSummary], measure: str, target: Target, advice: str) -> str:
    """Curve and table of a measure by which larger is more alike."""
    title = MEASURES[measure].title
    stopped = ""
    if early := [volume for volume in volumes if stopped_at(volume) > 1]:
        reached = max(float(removed_at([volume], measure).min()) for volume in early)
        stopped = f""" The slices were ranked only until the run's target was reached: a volume's line stops there, and
the data set's where the first volume's does, at {amount(measure, reached)}."""
    caption = f"""Slices at least as similar as the threshold go, so a lower threshold, further right, leaves fewer.
Read off how many slices it leaves, then look in section 2 whether you can spare those it removes.{stopped}
{_thin_lines(volumes)} Both axes are stretched: towards high similarity and towards small
shares.{_off_the_curve(measure, target)}
{advice}"""
    alt = f"Kept share of slices against {title} threshold, falling to the right; the table below holds the numbers."
    return f"""{plot(charts.similarity_curves(volumes, measure, target), alt, caption)}
{_similarity_table(volumes, measure, target)}"""


def _similarity_table(volumes: Sequence[VolumeSummary], measure: str, target: Target) -> str:
    """What thresholds and fractions leave, as far as the ranking reaches."""
    slices = sum(map(len, volumes))
    chosen = target if target.method == measure else None
    thresholds = {*levels(volumes, measure), *([chosen.threshold] if chosen and chosen.threshold is not None else [])}
    fractions = {*_FRACTIONS, *([chosen.fraction] if chosen and chosen.fraction is not None else [])}
    rows = []
    for threshold in sorted(thresholds, reverse=True):
        kept = np.array([similarity_counts(volume, measure, np.array([threshold]))[0] for volume in volumes])
        shares = kept / [len(volume) for volume in volumes]
        if not np.isnan(kept).any():
            cells = [count(int(kept.sum())), percent(kept.sum() / slices), _between(percent, shares.tolist())]
            rows.append((amount(measure, threshold), cells, bool(chosen) and threshold == target.threshold))
    for fraction in sorted(fractions, reverse=True):
        result = fraction_counts(volumes, measure, fraction)
        if result is not None:
            cells = [count(result[0]), percent(result[0] / slices), _between(partial(amount, measure), result[1])]
            rows.append((f"fraction {fraction:.4g}", cells, bool(chosen) and fraction == target.fraction))
    body = "\n".join(
        f'<tr{kind}><th scope="row">{name}{note}</th><td>{"</td><td>".join(cells)}</td></tr>'
        for name, cells, mark in rows
        for kind, note in [(' class="chosen"', " (chosen)") if mark else ("", "")]
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("cut", "slices", "share", "in single volumes"))
    title = f"Kept of {counted(slices, 'slice')} by {MEASURES[measure].title}, rule pairs"
    return f"""<table class="numeric" id="kept_by_{measure}"><caption>{title}</caption>
<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>
<p class="caption">In single volumes: of a threshold the kept share, of a fraction the least similarity at which a slice
goes.</p>"""


def _between(words: Callable[[float], str], values: Sequence[float]) -> str:
    """`3 to 7`, the least and the largest value."""
    ends = [words(end) for end in (min(values), max(values))] if values else ["–"]
    return " to ".join(dict.fromkeys(ends))


def _advice(manifest: Manifest, volumes: Sequence[VolumeSummary], target: Target) -> str:
    """What to type for fewer and for more slices (HTML)."""
    options = []
    for words, other in (
        ("fewer", _other(target, volumes, fewer=True)),
        ("more", _other(target, volumes, fewer=False)),
    ):
        if other is not None and _is_ranked(manifest, volumes, other):
            options.append((words, *_command(other)))
        elif other is not None:
            options.append((words, "", ""))
    lines = [
        f"<br>To keep {words} slices: <code>python -m lessismore_transforms select OUT {what} --name {name}</code>"
        if what
        else f"<br>To keep {words} slices, reduce again: the ranking stopped before."
        for words, what, name in options
    ]
    names = [name for _, what, name in options if what]
    if not names:
        return "".join(lines)
    show = f"<br>To look at it: <code>python -m lessismore_transforms report OUT --selection {names[0]}</code>"
    return f"{''.join(lines)}{show}<br>(OUT is the folder of this page; no image is read again.)"


def _other(target: Target, volumes: Sequence[VolumeSummary], *, fewer: bool) -> Target | None:
    """A target of the same kind that keeps fewer or more slices; nothing where there is none."""
    factor = 0.5 if fewer else 2
    method, measure = target.method, MEASURES[target.measure]
    if method == "all":
        return Target.of() if fewer else None
    if target.fraction is not None:
        fraction = min(1.0, target.fraction * factor)
        return None if fraction == target.fraction else Target.of(method=method, fraction=fraction)
    if target.step is not None:
        step = max(1, round(target.step / factor))
        return None if step == target.step else Target.of(method=method, step=step)
    if target.step_mm is not None:
        return Target.of(method=method, step_mm=target.step_mm / factor)
    assert target.threshold is not None
    steps = levels(volumes, method) if measure.similarity else [0, 1, 3, 6, 12, 18, 24, 32, 48, 64]
    if measure.similarity == fewer:  # a lower threshold
        threshold = max((step for step in steps if step < target.threshold), default=None)
    else:
        threshold = min((step for step in steps if step > target.threshold), default=None)
    if threshold is None:
        return None
    return replace(target, threshold=float(threshold))


def _is_ranked(manifest: Manifest, volumes: Sequence[VolumeSummary], target: Target) -> bool:
    """Whether the ranking goes so far; asked where one stopped early."""
    if not any(map(stopped_at, volumes)) or target.measure != manifest.settings["method"]:
        return True
    try:
        manifest.select(target)
    except ManifestError:
        return False
    return True


def _command(target: Target) -> tuple[str, str]:
    """The options of `select` that mean a target, and a name for it."""
    amounts = ("threshold", "fraction", "step", "step_mm")
    kind, value = next((name, getattr(target, name)) for name in amounts if getattr(target, name) is not None)
    unusual = target.rule != Target.of(method=target.method, **{kind: value}).rule
    options = [f"--method {target.method}"] if target.method != "hash" else []
    options += [f"--{kind} {value:g}"]
    options += [f"--rule {target.rule}"] if unusual else []
    options += [f"--scope {target.scope}"] if target.scope != "volume" else []
    parts = [target.method.removesuffix("_n")] if target.method != "hash" else []
    parts += [target.rule] if unusual else []
    parts += ["share"] if kind == "fraction" else []
    number = f"{100 * value if kind == 'fraction' else value:g}{'mm' if kind == 'step_mm' else ''}"
    scope = f"_{target.scope}" if target.scope != "volume" else ""
    return " ".join(options), "_".join(parts or ["hash"]) + number + scope


def _threshold_table(totals: dict[str, list[int]], slices: int, target: Target) -> str:
    papers = charts.PAPER_THRESHOLDS
    chosen = None if target.threshold is None or _off_the_curve("hash", target) else int(target.threshold)
    rows = []
    for bits in sorted({*papers, *([] if chosen is None else [chosen])}):
        cells = [cell for rule in RULES for cell in (count(totals[rule][bits]), percent(totals[rule][bits] / slices))]
        cells += [percent(shares[papers.index(bits)]) if bits in papers else "" for shares in charts.PAPER.values()]
        mark, note = (' class="chosen"', " (chosen)") if bits == chosen else ("", "")
        rows.append(
            f'<tr{mark}><th scope="row">{amount("hash", bits)}{note}</th><td>{"</td><td>".join(cells)}</td></tr>'
        )
    groups = "".join(
        f'<th colspan="2" scope="colgroup">{name}</th>' for name in (*map("rule {}".format, RULES), "paper")
    )
    names = "".join(f'<th scope="col">{name}</th>' for name in (*("slices", "share") * len(RULES), *charts.PAPER))
    body = "\n".join(rows)
    return f"""<table class="numeric" id="kept"><caption>Kept of {counted(slices, "slice")}</caption>
<thead><tr><th rowspan="2" scope="col">threshold</th>{groups}</tr><tr>{names}</tr></thead>
<tbody>{body}</tbody></table>"""


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
    before = " EveryN compares nothing: counted is the kept slice before each." if target.method == "every_n" else ""
    caption = f"""Left: how well the removed slices are {how} ({removed}); at {best:g} {identical}.{before} Right: what
{words} removes by the pair rule{ends}{cut}."""
    alt = (
        f"Two histograms: removed slices by distance to the slice that stands for them ({removed}); all by removed_at."
    )
    return f"""<section id="distances"><h2>3. How different the removed slices are</h2>
{plot(charts.histograms(distance, fallen, target), alt, caption)}</section>"""


def _outlier_section(volumes: Sequence[VolumeSummary], public: Callable[[str], str]) -> str:
    z = robust_z(volumes).tolist()
    outliers = sorted((i for i in range(len(volumes)) if abs(z[i]) > OUTLIER_Z), key=lambda i: (-abs(z[i]), i))
    caption = """A point is a volume. Slices far apart differ more, so the kept share rises with the spacing; a volume
far off the others of its spacing may be noisy, damaged, padded outside the field of view, badly ordered or of another
kind."""
    alt = f"Kept share of {count(len(volumes))} volumes against the distance between their slices in mm."
    return f"""<section id="outliers"><h2>4. Volumes to look at</h2>
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
