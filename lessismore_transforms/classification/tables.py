"""A comparison of evaluations as text for the screen, CSV, Markdown or HTML; the same table gives the same bytes."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.classification.comparison import LEVEL, Row, Table, TaskTable
from lessismore_transforms.classification.finished_runs import FROZEN
from lessismore_transforms.classification.units import plural_unit
from lessismore_transforms.errors import UserError
from lessismore_transforms.wording import aligned

SUFFIXES = (".csv", ".md", ".html")
CSS = ".scores td:nth-child(n+3), .scores th:nth-child(n+3) { text-align: right; }\n"
_TITLES = {"auc": "AUC", "f1": "F1", "f1_macro": "macro F1", "f1_micro": "micro F1", "accuracy": "accuracy"}
_WIDTH = 110  # of the lines below a table on the screen
_Grid: TypeAlias = list[list[str]]  # a header and lines of equally many cells


def as_text(table: Table) -> str:
    """The table as text for the screen."""
    parts = [f"{title}\n\n{aligned(grid, left=2)}" for title, grid in _grids(table)]
    return "\n\n".join((*parts, "\n".join(textwrap.fill(line, _WIDTH) for line in _lines_below(table))))


def write_table(table: Table, path: Path) -> None:
    """Write the table by its suffix: .csv (a line per arm, metric and comparison, all digits), .md or .html.

    Raises:
        UserError: the suffix is another one, or the folder of the file is missing.
        OutputError: the file cannot be written.
    """
    check_output(path)
    write = {".csv": _write_csv, ".md": _write_markdown, ".html": _write_html}[path.suffix]
    with atomic_write(path) as file:
        write(table, file)


def check_output(path: Path) -> None:
    """Refuse now a file that `write_table` would refuse later, after minutes of resampling.

    Raises:
        UserError: the suffix is another one, or the folder of the file is missing.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"expected a file that ends in {', '.join(SUFFIXES)}, found {path}; choose one of them")
    if not path.parent.is_dir():
        raise UserError(f"expected a folder for {path.name}, found none at {path.parent}; make it first")


def _grids(table: Table) -> Iterator[tuple[str, _Grid]]:
    """Titles and cells of the two tables of each task: scores, then intervals and differences."""
    for task in table.tasks:
        yield task.title, _scores(task, paper=table.paper)
        differences = " and differences" if any(row.baseline for row in task.rows) else ""
        yield f"{task.rows[0].task}: intervals{differences}", _intervals(task)


def _scores(task: TaskTable, *, paper: bool) -> _Grid:
    """A line per arm with mean and deviation of its metrics: the table that goes into a paper."""
    lines: dict[str, list[str]] = {}
    header = ["evaluation", "pre-training", "mean of"]
    seen: set[tuple[str, str]] = set()
    for row in task.rows:
        if (row.evaluation, row.metric) in seen:  # it is compared with several others
            continue
        seen.add((row.evaluation, row.metric))
        line = lines.setdefault(row.evaluation, [row.evaluation, _pretraining(row), row.mean_of])
        line += [_plus_minus(row.mean, row.std), *([_plus_minus(row.paper_mean, row.paper_std)] if paper else [])]
        if len(lines) == 1:
            header += [_TITLES[row.metric], *(["paper"] if paper else [])]
    return [header, *lines.values()]


def _intervals(task: TaskTable) -> _Grid:
    """A line per arm, metric and comparison with its intervals and p-values."""
    compared = any(row.baseline for row in task.rows)
    tests = any(not math.isnan(row.p) for row in task.rows)
    interval = f"{100 * LEVEL:.0f} % interval"
    header = ["evaluation", "metric", "mean", "mean of", interval, "by", "about"]
    header += ["compared with", "difference", interval, "about", "detectable"] if compared else []
    header += ["p", "p (Holm)"] if tests else []
    grid = [header]
    for row in task.rows:
        line = [row.evaluation, _TITLES[row.metric], _number(row.mean), row.mean_of, _interval(row.low, row.high)]
        line += [f"{row.units} {plural_unit(row.unit)}", row.about]
        if compared:
            ends = _interval(row.difference_low, row.difference_high, "+.3f")
            line += [row.baseline or "–", _number(row.difference, "+.3f"), ends, row.difference_about or "–"]
            line.append(_number(row.detectable) + (" †" if row.too_small else ""))
        line += [_p(row.p), _p(row.p_holm)] if tests else []
        grid.append(line)
    return grid


def _pretraining(row: Row) -> str:
    """The labels of the pre-training in one cell."""
    labels = " ".join(label for label in (row.pretrain_dataset, row.ssl_method, row.reduction) if label) or "–"
    remarks = [*([row.mode] if row.mode in FROZEN else []), *(["scored again"] if row.rescored else [])]
    return ("from scratch" if row.mode == "scratch" else labels) + (f" ({', '.join(remarks)})" if remarks else "")


def _number(value: float, form: str = ".3f") -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"


def _plus_minus(mean: float, std: float) -> str:
    return _number(mean) if math.isnan(std) else f"{mean:.3f} ± {std:.3f}"


def _interval(low: float, high: float, form: str = ".3f") -> str:
    return "–" if math.isnan(low) else f"{low:{form}} to {high:{form}}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.0005 else _number(value)


def _lines_below(table: Table) -> Iterator[str]:
    """Notes on evaluations, then the meaning of columns."""
    for task in table.tasks:
        yield from (f"{task.rows[0].task}, {note}" for note in task.notes)
    yield from table.footer


def _write_csv(table: Table, file: Any) -> None:
    writer = csv.writer(file, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    for row in (row for task in table.tasks for row in task.rows):
        values = (getattr(row, name) for name in names)
        writer.writerow("" if isinstance(value, float) and math.isnan(value) else value for value in values)


def as_markdown(table: Table) -> str:
    """The table as Markdown."""
    parts = []
    for title, (header, *lines) in _grids(table):
        rule = ["---" if place < 2 else "---:" for place in range(len(header))]
        parts.append(f"**{title}**\n\n")
        parts += [
            f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in (header, rule, *lines)
        ]
        parts.append("\n")
    return "".join([*parts, *(f"- {line}\n" for line in _lines_below(table))])


def _write_markdown(table: Table, file: Any) -> None:
    file.write(as_markdown(table))


def as_html(table: Table) -> str:
    """The table as parts of a page, in the style of `CSS`."""
    parts = []
    for title, (header, *lines) in _grids(table):
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
        body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
        parts.append(
            f'<table class="scores"><caption>{escape(title)}</caption>\n<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )
    parts += [f'<p class="caption">{escape(line)}</p>' for line in _lines_below(table)]
    return "\n".join(parts)


def _write_html(table: Table, file: Any) -> None:
    from lessismore_transforms.report.html import page, stylesheet

    file.write(page("Evaluations", css=stylesheet() + CSS, body=as_html(table)))
