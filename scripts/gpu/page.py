"""The results of all steps as a summary, a table and a page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu.steps import STEPS
from lessismore_transforms.atomic import atomic_write, write_json

SUMMARY, TABLE = "summary.json", "table.md"
_WORDS = {True: "yes", False: "**no**", None: ""}


def read_result(path: Path) -> dict[str, Any]:
    """What a step has written down."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def write_summary(folder: Path, about: Mapping[str, str]) -> dict[str, Any]:
    """Put the results of all steps together, in their order, with their table."""
    paths = [folder / f"{name}.json" for name in STEPS]
    steps = [read_result(path) for path in paths if path.is_file()]
    summary = {"about": dict(about), "steps": steps}
    write_json(folder / SUMMARY, summary)
    _write(folder / TABLE, table(steps))
    return summary


def table(steps: Sequence[Mapping[str, Any]]) -> str:
    """A table for each step, with what failed and what was left out."""
    lines = []
    for step in steps:
        lines += [f"## {step['step']}", ""]
        if step["figures"]:
            lines += ["| what | value | goal | met | equal |", "|---|---|---|---|---|"]
        for figure in step["figures"]:
            cells = (figure["what"], figure["value"], figure["wanted"], _WORDS[figure["met"]], _WORDS[figure["equal"]])
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        lines += [""] * bool(step["figures"])
        for title in ("failed", "left_out"):
            lines += [f"- {title.replace('_', ' ')}: {sentence}" for sentence in step[title]]
            lines += [""] * bool(step[title])
    return "\n".join(lines)


def write_page(folder: Path, page: Path) -> None:
    """Write the page of measured speeds from the summary in a folder."""
    summary = read_result(folder / SUMMARY)
    about = ", ".join(f"{name} {value}" for name, value in summary["about"].items())
    head = [
        "# Measured speeds",
        "",
        "<!-- written by scripts/gpu_check.py --page -->",
        "",
        f"Measured on: {about}. How: [the check of a GPU](gpu_check.md). A ratio says how many times as long the other",
        "way takes. `equal` says whether a result is what the CPU gives; a goal that is not met is no failure.",
        "",
    ]
    _write(page, "\n".join(head) + "\n" + table(summary["steps"]))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.rstrip("\n") + "\n")
