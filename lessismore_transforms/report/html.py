"""Amounts, tables and pages as HTML."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

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


def plot(svg: bytes, alt: str, caption: str) -> str:
    """A drawing with a caption (both HTML) and a text (plain) for those who do not see it."""
    return f"""<figure class="plot"><img src="{data_url("image/svg+xml", svg)}" alt="{escape(alt)}">
<figcaption>{caption}</figcaption></figure>"""


def data_url(kind: str, content: bytes) -> str:
    """Content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def stylesheet() -> str:
    """The style that all pages share."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def page(title: str, css: str, body: str) -> str:
    """A whole HTML page that needs nothing else."""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
{css}
</style></head>
<body><main>
{body}
</main></body></html>
"""
