"""Curves of log.jsonl: every logged number of a training over its steps, several runs in one picture."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.errors import OutputError, UserError, reading
from lessismore_transforms.training.processes import process_rank
from lessismore_transforms.training.stopping import on_end

LOG, CURVES = "log.jsonl", "curves.png"
_FIRST = ("loss", "probe_balanced_accuracy", "probe_accuracy")  # what people look for; the rest follows as logged
_BESIDE = {"loss_constant": "loss", "probe_majority": "probe_accuracy"}  # a constant drawn into another panel
_NOT_DRAWN = ("step", "epoch")
_MOST_POINTS = 5000  # of a curve; more are no picture but time
_COLUMNS, _PANEL_INCHES = 3, (4.2, 2.6)
_MARGINS = {"left": 0.7, "right": 0.15, "bottom": 0.5, "top": 0.3}  # inches of each panel; fitting them takes a second


def read_log(run: Path | str) -> list[dict[str, Any]]:
    """The lines of a run's log.

    Raises:
        UserError: the folder holds no log, or a damaged one.
    """
    return [entry for _, entry in _lines(run)]


def length_until(run: Path | str, step: int) -> int:
    """Bytes of a run's log before its first line of a later step, and before a last one that a kill left unfinished.

    Raises:
        UserError: as of `read_log`.
    """
    length = 0
    for end, entry in _lines(run):
        if entry["step"] > step:
            break
        length = end
    return length


def _lines(run: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line of a log with the number of bytes to its end, where it has one."""
    path = Path(run) / LOG
    with reading(path):
        if not path.is_file():
            raise UserError(f"expected the folder of a training run with {LOG}, found {run}; fix the path")
        lines = path.read_bytes().splitlines(keepends=True)
    end = 0
    for number, line in enumerate(lines, start=1):
        end += len(line) if line.endswith(b"\n") else 0
        shown = line.decode(errors="replace").strip()[:40]
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number < len(lines):  # else a run was killed while it wrote
                raise UserError(f"expected JSON in line {number} of {path}, found {shown!r}; fix it") from error
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            raise UserError(f"expected an object with a step in line {number} of {path}, found {shown!r}; fix it")
        yield end, entry


def draw_curves(runs: Sequence[Path | str], path: Path, *, labels: Sequence[str] | None = None) -> Path:
    """Draw the logs of runs into one PNG picture; returns its path.

    Args:
        runs: their folders.
        path: of the picture.
        labels: what the legend calls the runs; None for the names of their folders.

    Raises:
        UserError: a run has no log, or no log holds a number yet.
        OutputError: the picture cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot: it keeps state and may look for a display

    if labels is None:
        alike = len({Path(run).resolve().name for run in runs}) < len(runs)
        labels = [str(run) if alike else Path(run).resolve().name for run in runs]
    logs = {label: read_log(run) for label, run in zip(labels, runs, strict=True)}
    names = _panels([line for log in logs.values() for line in log])
    if not names:
        raise UserError(f"expected figures in the logs of {', '.join(map(str, runs))}, found none; wait for a line")
    rows = math.ceil(len(names) / _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _PANEL_INCHES[0], rows * _PANEL_INCHES[1]), dpi=100)
    figure.subplots_adjust(**_places(rows))
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, _COLUMNS, place + 1)
        for number, (run, log) in enumerate(logs.items()):
            steps, values = _series(log, name)
            axes.plot(steps, values, f"C{number % 10}.-" if len(steps) < 10 else f"C{number % 10}", lw=1.2, label=run)
            for beside in (other for other, panel in _BESIDE.items() if panel == name and any(other in x for x in log)):
                axes.plot(
                    *_series(log, beside),
                    f"C{number % 10}:",
                    lw=1.0,
                    label=None if number else beside.replace("_", " "),
                )
        axes.set_title(name.replace("_", " "), loc="left", fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if place == 0:
            axes.legend(fontsize=8, frameon=False)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png")
    return path


class Curves:
    """Draw the curves of a run into its folder when it ends; attach it last.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        on_end(engine, self)

    def __call__(self, engine: Any) -> None:
        """Draw the curves; an error in drawing is only logged, because the training itself is saved."""
        if process_rank() != 0:
            return
        try:
            draw_curves([self.folder], self.folder / CURVES)
        except (ValueError, OutputError) as error:
            logging.getLogger("lessismore_transforms").warning("no curves: %s", error)


def _panels(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The names of all logged numbers, the most important ones first."""
    found = dict.fromkeys(
        name
        for line in lines
        if "event" not in line
        for name, value in line.items()
        if isinstance(value, (int, float)) and name not in (*_NOT_DRAWN, *_BESIDE)
    )
    return [name for name in _FIRST if name in found] + [name for name in found if name not in _FIRST]


def _places(rows: int) -> dict[str, float]:
    """Where the panels are, as matplotlib wants it: in shares of the figure, and gaps in shares of a panel."""
    (wide, high), space = _PANEL_INCHES, _MARGINS
    beside, above = space["left"] + space["right"], space["bottom"] + space["top"]
    return {
        "left": space["left"] / (_COLUMNS * wide),
        "right": 1 - space["right"] / (_COLUMNS * wide),
        "bottom": space["bottom"] / (rows * high),
        "top": 1 - space["top"] / (rows * high),
        "wspace": beside / (wide - beside),
        "hspace": above / (high - above),
    }


def _series(log: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    found = [(line["step"], line[name]) for line in log if isinstance(line.get(name), (int, float))]
    found = found[:: len(found) // _MOST_POINTS + 1]
    return [step for step, _ in found], [value for _, value in found]
