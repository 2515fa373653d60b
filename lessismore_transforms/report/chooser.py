"""The slider of the report: a form that chooses another threshold, and the tables that its script looks things up in.

Without a script the form is hidden and the page shows the selection it was made for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import charts
from lessismore_transforms.report.advice import command
from lessismore_transforms.report.choices import Scale, kept_by_choice, scale_with
from lessismore_transforms.report.html import amount
from lessismore_transforms.report.in_words import in_words
from lessismore_transforms.report.summary import VolumeSummary
from lessismore_transforms.report.threshold_section import table_rows, words_of
from lessismore_transforms.report.thumbnails import MOST_GROUPS, Sheet, example_marks, legend, tinted
from lessismore_transforms.wording import percent


def chooser_script() -> str:
    """The script of the page."""
    return Path(__file__).with_name("chooser.js").read_text(encoding="utf-8")


def chooser(
    manifest: Manifest,
    volumes: Sequence[VolumeSummary],
    target: Target,
    choices: Sequence[Scale],
    sheets: Sequence[Sheet],
) -> str:
    """The form (HTML) and its tables (JSON)."""
    own = scale_with(choices, target)
    if own is None:  # EveryN or across volumes: begin where about as many slices stay
        own = choices[0]
    kept = sum(volume.kept_count for volume in volumes)
    near = min(range(len(own.kept)), key=lambda at: (own.targets[at] != target, abs(own.kept[at] - kept)))
    content = {
        "own": {"scale": own.name, "at": near, "exact": own.targets[near] == target},
        "slices": sum(map(len, volumes)),
        "groups": MOST_GROUPS,
        "cut": charts.CUT,
        "scales": [_scale(scale, volumes, choices, target) for scale in choices],
        "volumes": [_volume(sheet, choices) for sheet in sheets],
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    rules = "\n".join(
        f'<label><input type="radio" name="rule" value="{scale.name}"> {escape(scale.words)}</label>'
        for scale in choices
    )
    return f"""<form id="chooser" aria-label="Try another threshold" hidden>
<fieldset><legend>Try</legend>{rules}</fieldset>
<label class="slide"><span>more slices</span>
<input type="range" id="amount" min="0" step="1" aria-label="threshold or fraction, further right keeps fewer slices">
<span>fewer</span></label>
<p><output id="outcome" aria-live="polite"></output></p>
<p class="moved"><code id="command"></code> <button type="button" id="copy">Copy</button>
<button type="button" id="back">Back to the page's selection</button></p>
</form>
<script type="application/json" id="choices">{text}</script>"""


def _scale(scale: Scale, volumes: Sequence[VolumeSummary], choices: Sequence[Scale], target: Target) -> dict[str, Any]:
    """A scale as the script reads it: what is the same for all its choices, and a row for each of them."""
    slices = sum(map(len, volumes))
    table, rows = table_rows(volumes, choices, scale)
    marks = example_marks(volumes, target)
    found = []
    for at, (each, kept) in enumerate(zip(scale.targets, scale.kept, strict=True)):
        options, name = command(each)
        found.append(
            {
                "value": each.fraction if each.threshold is None else each.threshold,
                "words": words_of(each),
                "kept": kept,
                "share": percent(kept / slices) if slices else "–",
                "title": str(each),
                "means": in_words(each),
                "options": options,
                "name": name,
                "tinted": sum(tinted(marks, each)) if each.measure == target.measure else 0,
                **({"order": rows[at].order, "cells": rows[at].cells} if rows else {}),
            }
        )
    return {
        "name": scale.name,
        "measure": scale.measure,
        "nested": scale.nested,
        "colour": charts.COLOURS[scale.targets[0].rule],
        "legend": legend(scale.targets[0]),
        "table": table,
        "rows": found,
    }


def _volume(sheet: Sheet, choices: Sequence[Scale]) -> dict[str, Any]:
    """A shown volume as the script reads it."""
    volume = sheet.volume
    by = {measure: ranking.removed_by.tolist() for measure, ranking in volume.rankings.items()}
    similar = {
        measure: {
            "at": [None if value != value else value for value in ranking.removed_at.tolist()],
            "words": ["" if value != value else amount(measure, value) for value in ranking.removed_at.tolist()],
        }
        for measure, ranking in volume.rankings.items()
        if MEASURES[measure].similarity
    }
    left_out = {
        str(index): "bodiless" if volume.bodiless[index] else "unreadable"
        for index, reason in enumerate(volume.reasons)
        if reason
    }
    kept = {scale.name: kept_by_choice(volume, scale) for scale in choices}
    counts = {
        scale.name: [sum(stays > at for stays in kept[scale.name]) for at in range(len(scale.targets))]
        if scale.nested
        else [len(each) for each in kept[scale.name]]
        for scale in choices
    }
    return {
        "name": sheet.name,
        "places": [sheet.place(index) for index in range(len(volume))],
        "listed": sheet.slices,
        "left_out": left_out,
        "walk": volume.walk.tolist(),
        "hashes": [f"{int(value):016x}" for value in volume.hashes],
        "by": by,
        "similar": similar,
        "kept": kept,
        "shares": {name: [percent(number / len(volume)) for number in found] for name, found in counts.items()},
    }
