"""The first section: how many slices stay at each threshold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import charts
from lessismore_transforms.report.advice import advice
from lessismore_transforms.report.choices import FRACTIONS, Scale
from lessismore_transforms.report.figure import Drawing
from lessismore_transforms.report.html import amount, plot
from lessismore_transforms.report.summary import (
    RULES,
    VolumeSummary,
    fraction_counts,
    levels,
    removed_at,
    similarity_counts,
    stopped_at,
)
from lessismore_transforms.wording import count, counted, percent


@dataclass(frozen=True)
class TableRow:
    """A row of a table of choices; rows stand in the order of their numbers."""

    order: int
    words: str
    cells: list[str]


def threshold_section(
    manifest: Manifest, volumes: Sequence[VolumeSummary], target: Target, choices: Sequence[Scale]
) -> str:
    """The section (HTML) by which to choose a threshold: curves, tables, and what to type for another one."""
    slices = sum(map(len, volumes))
    measure = manifest.settings["method"]
    options = f'<span class="own">{advice(manifest, volumes, target)}</span>'
    own = ""
    if measure != "hash":
        own = _similarity_part(volumes, measure, target, options, choices)
        own += "<h3>The same volumes by HASH</h3>"
        options = ""
    caption = f"""Read off how many slices a threshold leaves, then look in section 2 whether you can spare those it
removes. A curve above the paper's points means slices that differ more than in its data sets, as thick or far
spaced ones do.{_thin_lines(volumes)} Both axes are stretched where thresholds and shares are
small.{_off_the_curve("hash", target)}
{options}"""
    alt = "Kept share of slices against HASH threshold, falling from 0 to 64 bits; the table below holds the numbers."
    return f"""<section id="threshold"><h2>1. How many slices stay at each threshold</h2>
{own}
{_marked(charts.curves(volumes, target), alt, caption, "hash", choices, slices)}
{_threshold_table(volumes, choices, slices, target)}</section>"""


def _marked(drawing: Drawing, alt: str, caption: str, measure: str, choices: Sequence[Scale], slices: int) -> str:
    places = {scale.name: charts.mark_places(drawing, scale, measure, slices) for scale in choices}
    return plot(drawing.svg, alt, caption, {"frame": drawing.frame(), "places": places})


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


def _similarity_part(
    volumes: Sequence[VolumeSummary], measure: str, target: Target, options: str, choices: Sequence[Scale]
) -> str:
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
{options}"""
    alt = f"Kept share of slices against {title} threshold, falling to the right; the table below holds the numbers."
    slices = sum(map(len, volumes))
    drawing = charts.similarity_curves(volumes, measure, target)
    return f"""{_marked(drawing, alt, caption, measure, choices, slices)}
{_similarity_table(volumes, measure, target, choices)}"""


def table_rows(volumes: Sequence[VolumeSummary], choices: Sequence[Scale], scale: Scale) -> tuple[str, list[TableRow]]:
    """The table that tells of a scale's choices (its id), and its row for each of them; none of fractions by HASH."""
    if scale.measure != "hash":
        table = f"kept_by_{scale.measure}"
        return table, _similarity_rows(
            volumes, scale, sum(len(other.targets) for other in choices[: choices.index(scale)])
        )
    if scale.targets[0].threshold is None:
        return "", []
    slices = sum(map(len, volumes))
    beside = [other for other in choices if other.name in RULES]
    rows = []
    for bits in range(len(scale.targets)):
        cells = [cell for other in beside for cell in (count(other.kept[bits]), percent(other.kept[bits] / slices))]
        paper = charts.PAPER_THRESHOLDS
        cells += [percent(shares[paper.index(bits)]) if bits in paper else "" for shares in charts.PAPER.values()]
        rows.append(TableRow(bits, words_of(scale.targets[bits]), cells))
    return "kept", rows


def _similarity_rows(volumes: Sequence[VolumeSummary], scale: Scale, first: int) -> list[TableRow]:
    sizes, measure = np.array([len(volume) for volume in volumes]), scale.measure
    if scale.targets[0].threshold is not None:
        grid = np.array([target.threshold for target in scale.targets], dtype=float)
        shares = np.stack([similarity_counts(volume, measure, grid) for volume in volumes], axis=1) / sizes
        between = [_between(percent, row) for row in shares.tolist()]
    else:
        counts = [fraction_counts(volumes, measure, target.fraction or 0) for target in scale.targets]
        between = [_between(partial(amount, measure), found[1] if found else []) for found in counts]
    return [
        TableRow(first + at, words_of(target), [count(kept), percent(kept / sizes.sum()), words])
        for at, (target, kept, words) in enumerate(zip(scale.targets, scale.kept, between, strict=True))
    ]


def words_of(target: Target) -> str:
    """A threshold or fraction as people read it."""
    if target.threshold is not None:
        return amount(target.measure, target.threshold)
    return f"fraction {target.fraction:.4g}"


def _body(rows: Iterable[tuple[TableRow, bool]], always: Collection[int]) -> str:
    """Rows of a table, each with whether it is the chosen one; those not in `always` stand there while chosen only."""
    lines = []
    for row, chosen in rows:
        kind, note = (' class="chosen"', " (chosen)") if chosen else ("", "")
        extra = "" if row.order in always else " data-extra"
        cells = "</td><td>".join(row.cells)
        lines.append(
            f'<tr{kind} data-order="{row.order}"{extra}><th scope="row">{row.words}{note}</th><td>{cells}</td></tr>'
        )
    return "<tbody data-live>" + "\n".join(lines) + "</tbody>"


def _similarity_table(volumes: Sequence[VolumeSummary], measure: str, target: Target, choices: Sequence[Scale]) -> str:
    """What thresholds and fractions leave, as far as the ranking reaches."""
    slices = sum(map(len, volumes))
    thresholds = levels(volumes, measure)
    shown, always = [], set()
    for scale in choices:
        if scale.measure != measure:
            continue
        _, rows = table_rows(volumes, choices, scale)
        for row, each in zip(rows, scale.targets, strict=True):
            if each.threshold in thresholds or each.fraction in FRACTIONS:
                always.add(row.order)
            chosen = target.method == measure and (each.threshold, each.fraction) == (target.threshold, target.fraction)
            if row.order in always or chosen:
                shown.append((row, chosen))
    body = _body(shown, always)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("cut", "slices", "share", "in single volumes"))
    title = f"Kept of {counted(slices, 'slice')} by {MEASURES[measure].title}, rule pairs"
    return f"""<table class="numeric" id="kept_by_{measure}"><caption>{title}</caption>
<thead><tr>{head}</tr></thead>{body}</table>
<p class="caption">In single volumes: of a threshold the kept share, of a fraction the least similarity at which a slice
goes.</p>"""


def _between(words: Callable[[float], str], values: Sequence[float]) -> str:
    """`3 to 7`, the least and the largest value."""
    ends = [words(end) for end in (min(values), max(values))] if values else ["–"]
    return " to ".join(dict.fromkeys(ends))


def _threshold_table(volumes: Sequence[VolumeSummary], choices: Sequence[Scale], slices: int, target: Target) -> str:
    papers = charts.PAPER_THRESHOLDS
    chosen = None if target.threshold is None or _off_the_curve("hash", target) else int(target.threshold)
    _, rows = table_rows(volumes, choices, next(scale for scale in choices if scale.name in RULES))
    body = _body([(row, row.order == chosen) for row in rows if row.order in (*papers, chosen)], papers)
    groups = "".join(
        f'<th colspan="2" scope="colgroup">{name}</th>' for name in (*map("rule {}".format, RULES), "paper")
    )
    names = "".join(f'<th scope="col">{name}</th>' for name in (*("slices", "share") * len(RULES), *charts.PAPER))
    return f"""<table class="numeric" id="kept"><caption>Kept of {counted(slices, "slice")}</caption>
<thead><tr><th rowspan="2" scope="col">threshold</th>{groups}</tr><tr>{names}</tr></thead>
{body}</table>"""
