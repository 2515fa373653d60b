"""The first section: how many slices stay at each threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import charts
from lessismore_transforms.report.advice import advice
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

_FRACTIONS = (0.5, 0.2, 0.1)


def threshold_section(manifest: Manifest, volumes: Sequence[VolumeSummary], target: Target) -> str:
    """The section (HTML) by which to choose a threshold: curves, tables, and what to type for another one."""
    slices = sum(map(len, volumes))
    measure = manifest.settings["method"]
    options = advice(manifest, volumes, target)
    own = ""
    if measure != "hash":
        own = _similarity_part(volumes, measure, target, options)
        own += "<h3>The same volumes by HASH</h3>"
        options = ""
    totals = {rule: np.sum([volume.counts[rule] for volume in volumes], axis=0).tolist() for rule in RULES}
    caption = f"""Read off how many slices a threshold leaves, then look in section 2 whether you can spare those it
removes. A curve above the paper's points means slices that differ more than in its data sets, as thick or far
spaced ones do.{_thin_lines(volumes)} Both axes are stretched where thresholds and shares are
small.{_off_the_curve("hash", target)}
{options}"""
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


def _similarity_part(volumes: Sequence[VolumeSummary], measure: str, target: Target, options: str) -> str:
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
