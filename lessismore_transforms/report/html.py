"""Amounts, tables and pages as HTML."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.wording import count

MOST_ROWS = 30  # longer tables are no longer read


def amount(measure: str, value: float) -> str:
    """A distance or similarity as people read it: `6 bits`, `SSIM 0.912`."""
    if measure == "hash":
        return f"{value:g} {'bit' if value == 1 else 'bits'}"
    return f"{MEASURES[measure].title} {value:.4g}"


def ranges(indices: Iterable[int]) -> str:
    """1, 2, 3, 7 as `1–3, 7`; from the third range on an ellipsis."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    texts = [f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return ", ".join([*texts[:2], "…"] if len(texts) > 2 else texts)


def table(
    identifier: str,
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    kind: str = "",
    whole: str = "manifest.json",
) -> str:
    """A table (HTML) of cells that are HTML already; a long one is cut, with a word about the file that has all."""
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        lines += f'<tr><td colspan="{len(head)}">and {count(len(rows) - MOST_ROWS)} more: see {whole}</td></tr>'
    return f"""<table id="{identifier}" class="{kind}"><caption>{caption}</caption>
<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table>"""


def plot(svg: bytes, alt: str, caption: str, marks: Mapping[str, Any] | None = None) -> str:
    """A drawing with a caption (both HTML) and a text (plain) for those who do not see it.

    `marks`, where a script finds them, tells where it can put a mark on the drawing.
    """
    data = "" if marks is None else f' class="chart" data-marks="{escape(json.dumps(marks, separators=(",", ":")))}"'
    return f"""<figure class="plot"><div{data}><img src="{data_url("image/svg+xml", svg)}" alt="{escape(alt)}"></div>
<figcaption>{caption}</figcaption></figure>"""


def data_url(kind: str, content: bytes) -> str:
    """Content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def stylesheet() -> str:
    """The style that all pages share."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def page(title: str, css: str, body: str, script: str = "") -> str:
    """A whole HTML page that needs nothing else; a browser runs its script and no other, and lets it fetch nothing."""
    allowed = f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    rules = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{rules}">
<title>{title}</title>
<style>
{css}
</style></head>
<body><main>
{body}
</main>{f"<script>{script}</script>" if script else ""}</body></html>
"""
