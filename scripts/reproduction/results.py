"""What came out of an experiment: which checkpoint counts, the table beside the paper's, and its Figure 7."""

from __future__ import annotations

import json
import math
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.classification.arms import Arm
from lessismore_transforms.classification.comparison import compare
from lessismore_transforms.classification.finished_runs import (
    METRICS_FILE,
    FinishedRuns,
    read_chosen_runs,
    read_finished_runs,
)
from lessismore_transforms.classification.paper import paper_value
from lessismore_transforms.classification.statistics import mean_std
from lessismore_transforms.classification.tables import as_text, write_table
from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.errors import UserError
from lessismore_transforms.training.curves import read_log
from lessismore_transforms.weights.layouts import MODEL
from reproduction.arms import Pretraining
from reproduction.experiment import Experiment
from reproduction.steps import SCRATCH, evaluation_folder, pretraining_folder, run_names

# Hours of pre-training by SwAV on one RTX 3090, Section 3.4 and Figure 7.
PAPER_HOURS = {("PET-CT", "ALL"): 538, ("PET-CT", "HASH-6"): 62, ("LIDC", "ALL"): 280, ("LIDC", "HASH-6"): 27}
_TICKS = {
    factor * hours: f"{factor} {unit}"
    for hours, unit, factors in (
        (1 / 3600, "s", (1, 3, 10, 30)),
        (1 / 60, "min", (1, 3, 10, 30)),
        (1, "h", (1, 3, 10, 30, 100, 300, 1000, 3000)),
    )
    for factor in factors
}
_PAPER_METHOD = "SwAV"
_BY_MEAN = "the one with the highest mean validation AUC over the runs"
_BY_FOLD = (
    "for each fold the one with the highest AUC of the fold's own validation pictures, since those of one fold are "
    "test pictures of others"
)
_MARKERS = "os^"
_Place: TypeAlias = tuple[float, float, str]  # of a name: right of and above its point, in points, and aligned so
_LABELS: tuple[_Place, ...] = ((6, 5, "left"), (-6, 5, "right"), (6, -12, "left"), (-6, -12, "right"))


@dataclass(frozen=True)
class Outcome:
    """A fine-tuning that counts.

    Args:
        task: name of the task.
        pretraining: None from scratch.
        epochs: of the pre-training, by number of the run, whose encoder was taken; None for the end.
        runs: folders of the finished runs.
        auc: on the test split, of each finished run.
        complete: whether all runs are finished.
    """

    task: str
    pretraining: Pretraining | None
    epochs: tuple[int | None, ...]
    runs: tuple[Path, ...]
    auc: tuple[float, ...]
    complete: bool

    @property
    def name(self) -> str:
        """Of its folder; where folds have taken several checkpoints, of the pre-training."""
        folders = {run.parent.name for run in self.runs}
        return folders.pop() if len(folders) == 1 or self.pretraining is None else self.pretraining.name


@dataclass(frozen=True)
class _Run:
    """A finished run, with its AUC on both splits, nan where a split lacks a class."""

    place: Path
    val: float
    test: float


_Finished: TypeAlias = Mapping[int | None, Mapping[str, _Run]]  # by epoch of the pre-training and name


def outcomes(experiment: Experiment, folder: Path) -> list[Outcome]:
    """The fine-tunings that count: of each pre-training and task the checkpoint that is best on the validation split.

    Where all runs have one validation split, that is the checkpoint with the highest mean AUC over the runs, the
    earliest of equals, out of those whose runs are all finished or, where there is none yet, out of those with a
    finished run. Where runs are folds, each chooses for itself by its own validation pictures: a mean over folds would
    choose by pictures that are other folds' test pictures.
    """
    found = []
    for task in experiment.tasks:
        for pretraining in ([None] if experiment.scratch else []) + experiment.pretrainings:
            epochs = experiment.epochs if pretraining else (None,)
            finished = {epoch: _finished(experiment, folder, task, pretraining, epoch) for epoch in epochs}
            choose = _choose_by_fold if TASKS[task].folds else _choose_for_all
            names = run_names(experiment, task)
            chosen = choose(finished, names)
            if chosen:
                taken = tuple(epoch for epoch, _ in chosen.values())
                runs = [run for _, run in chosen.values()]
                places, auc = tuple(run.place for run in runs), tuple(run.test for run in runs)
                found.append(Outcome(task, pretraining, taken, places, auc, len(runs) == len(names)))
    return found


def _choose_for_all(finished: _Finished, names: Sequence[str]) -> dict[str, tuple[int | None, _Run]]:
    """By name the runs of one checkpoint, with its epoch."""
    started = {epoch: runs for epoch, runs in finished.items() if runs}
    candidates = {epoch: runs for epoch, runs in started.items() if len(runs) == len(names)} or started
    if not candidates:
        return {}
    if len(candidates) > 1:
        _refuse_unknown(run for runs in candidates.values() for run in runs.values())
    best = max(candidates, key=lambda epoch: statistics.fmean(run.val for run in candidates[epoch].values()))
    return {name: (best, run) for name, run in candidates[best].items()}  # the first of equals


def _choose_by_fold(finished: _Finished, names: Sequence[str]) -> dict[str, tuple[int | None, _Run]]:
    """By name the run of each fold's own checkpoint, with its epoch."""
    chosen = {}
    for name in names:
        candidates = [(epoch, runs[name]) for epoch, runs in finished.items() if name in runs]
        if len(candidates) > 1:
            _refuse_unknown(run for _, run in candidates)
        if candidates:
            chosen[name] = max(candidates, key=lambda item: item[1].val)
    return chosen


def _refuse_unknown(runs: Iterable[_Run]) -> None:
    """Nothing can be chosen by an AUC that has no value."""
    for run in runs:
        if math.isnan(run.val):
            raise UserError(
                f"expected an AUC of the validation split in {run.place / METRICS_FILE}, by which the checkpoint is "
                "chosen, found none: the split lacks a class; give one that has all, or name one checkpoint only"
            )


def write_results(experiment: Experiment, folder: Path) -> str:
    """Write the tables and the figure of an experiment to EXP/tables; returns the table and the places as text.

    Raises:
        UserError: no fine-tuning has a finished run, or what is there does not belong together.
        OutputError: a file cannot be written.
    """
    counted = outcomes(experiment, folder)
    if not counted:
        raise UserError(
            f"expected a finished run below {folder / 'evaluate'}, found none: there is nothing to tell yet"
        )
    table = compare(
        _arms(counted),
        pairs=experiment.contrasts or None,
        paper=not experiment.synthetic,
        samples=experiment.table_samples,
    )
    table = replace(table, footer=(*table.footer, *_footer(experiment, counted)))
    path = folder / "tables" / experiment.name
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("csv", "md"):
        write_table(table, path.with_name(f"{path.name}.{suffix}"))
    text = f"{experiment.title}\n\n{as_text(table)}\n"
    with atomic_write(path.with_name(f"{path.name}.txt")) as file:
        file.write(text)
    places = [f"table: {path}.csv, .md and .txt"]
    figure = path.with_name(f"{path.name}.png")
    if any(outcome.pretraining for outcome in counted):
        draw_figure(experiment, folder, counted, figure)
        places.append(f"figure: {figure}")
    else:
        figure.unlink(missing_ok=True)  # of earlier results
    return "\n".join((text, *places))


def drop_losers(experiment: Experiment, folder: Path) -> int:
    """Delete the networks fine-tuned from checkpoints that do not count, which would fill a disk; returns how many.

    Their metrics and predictions stay. Nothing is deleted while a checkpoint has runs to come.
    """
    counted = {run for outcome in outcomes(experiment, folder) for run in outcome.runs}
    dropped = 0
    for task in experiment.tasks:
        names = run_names(experiment, task)
        for pretraining in experiment.pretrainings:
            every = [_finished(experiment, folder, task, pretraining, epoch) for epoch in experiment.epochs]
            if any(len(runs) < len(names) for runs in every):
                continue
            losers = [run.place for runs in every for run in runs.values() if run.place not in counted]
            models = [place / MODEL for place in losers if (place / MODEL).is_file()]
            for model in models:
                model.unlink()
            dropped += len(models)
    return dropped


def training_hours(run: Path) -> float:
    """How long a pre-training took, over all its sessions, in hours.

    A session that was killed did not say when it ended; it lasted as long as its steps did.
    """
    sessions: list[list[dict[str, Any]]] = []
    for line in read_log(run):
        if line.get("event") in ("begin", "resume"):
            sessions.append([])
        if sessions:
            sessions[-1].append(line)
    return sum(_session_seconds(session) for session in sessions) / 3600


def draw_figure(experiment: Experiment, folder: Path, counted: Sequence[Outcome], path: Path) -> None:
    """Draw AUC against the duration of pre-training as a PNG, as Figure 7, the paper's as hollow markers."""
    from matplotlib.figure import Figure  # not pyplot: it keeps state and may look for a display

    figure = Figure(figsize=(4.4 * len(experiment.tasks), 4.8), layout="constrained", dpi=110)
    panels = figure.subplots(1, len(experiment.tasks), sharex=True, squeeze=False)[0]
    for axes, task in zip(panels, experiment.tasks, strict=True):
        _draw_task(axes, experiment, folder, [outcome for outcome in counted if outcome.task == task])
        axes.set_title(task, loc="left", fontsize=11)
    _finish(panels)
    found = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = 2 * len(panels)
    figure.legend(found.values(), found, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    figure.suptitle(textwrap.fill(experiment.title, 46 * len(panels)), fontsize=11)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png")


def _draw_task(axes: Any, experiment: Experiment, folder: Path, counted: Sequence[Outcome]) -> None:
    """The fine-tunings on one task: a colour for each data set and method, a marker for each method."""
    if not counted:
        axes.text(0.5, 0.5, "no run is finished", transform=axes.transAxes, ha="center", color="0.5")
        axes.set_yticks([])
        return
    series = [(dataset, method) for dataset in experiment.pretrain_datasets for method in experiment.methods]
    for number, (dataset, method) in enumerate(series):
        style = {"color": f"C{number}", "marker": _MARKERS[experiment.methods.index(method) % len(_MARKERS)]}
        label, place = f"{dataset}, {method}", _LABELS[number % len(_LABELS)]
        if method == _PAPER_METHOD and not experiment.synthetic:
            _draw_paper(axes, counted[0].task, dataset, f"{label}, paper", style, place)
        points = [
            (training_hours(pretraining_folder(folder, each.pretraining)), each)
            for each in counted
            if each.pretraining and each.pretraining[:2] == (dataset, method)
        ]
        _draw_points(axes, points, label, style, place)
    for outcome in counted:
        if outcome.pretraining is None:
            axes.axhline(statistics.fmean(outcome.auc), color="0.6", lw=1, ls=":", label="from scratch")


def _finished(
    experiment: Experiment, folder: Path, task: str, pretraining: Pretraining | None, epoch: int | None
) -> dict[str, _Run]:
    """The finished runs of a fine-tuning by name."""
    found = {}
    for name in run_names(experiment, task):
        place = evaluation_folder(folder, task, pretraining, epoch) / name
        if (place / METRICS_FILE).is_file():
            record = json.loads((place / METRICS_FILE).read_text(encoding="utf-8"))
            auc = {split: record[split]["auc"] for split in ("val", "test")}
            found[name] = _Run(place, *(math.nan if value is None else value for value in auc.values()))
    return found


def _arms(counted: Sequence[Outcome]) -> list[Arm]:
    """The arms of the table: pre-trainings that differ in their seeds only are one."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in counted:
        trained = outcome.pretraining
        groups.setdefault((outcome.task, *(trained[:3] if trained else ())), []).append(outcome)
    return [Arm(_arm_name(group), tuple(_evaluation(outcome) for outcome in group)) for group in groups.values()]


def _arm_name(group: Sequence[Outcome]) -> str:
    name, trained = group[0].name, group[0].pretraining
    return name if len(group) == 1 or trained is None else trained.name.removesuffix(f"_seed{trained.seed}")


def _evaluation(outcome: Outcome) -> FinishedRuns:
    folders = {run.parent for run in outcome.runs}
    return read_finished_runs(folders.pop()) if len(folders) == 1 else read_chosen_runs(outcome.runs)


def _footer(experiment: Experiment, counted: Sequence[Outcome]) -> list[str]:
    lines = [f"{experiment.title}."]
    trained = any(outcome.pretraining for outcome in counted)
    if trained and len(experiment.checkpoint_epochs) > 1:
        epochs = ", ".join(map(str, experiment.checkpoint_epochs))
        chosen = {_BY_FOLD if TASKS[task].folds else _BY_MEAN: None for task in experiment.tasks}
        lines.append(
            f"Of the checkpoints after epochs {epochs} the table shows, for each pre-training and task, "
            f"{'; '.join(chosen)}; the paper does not say by which split it chose."
        )
    elif trained and experiment.max_steps is None:
        lines.append(f"All encoders are those after epoch {experiment.epochs[0]} of pre-training.")
    elif trained:
        lines.append(f"All encoders are those after {experiment.max_steps} steps of pre-training, whatever the epochs.")
    open_ones = [f"{outcome.task} {outcome.name}" for outcome in counted if not outcome.complete]
    found = {(outcome.task, outcome.pretraining) for outcome in counted}
    pretrainings = [*([None] if experiment.scratch else []), *experiment.pretrainings]
    open_ones += [
        f"{task} {pretraining.name if pretraining else SCRATCH}"
        for task in experiment.tasks
        for pretraining in pretrainings
        if (task, pretraining) not in found
    ]
    if open_ones:
        lines.append(f"The table is preliminary: not all runs are finished of {', '.join(open_ones)}.")
    return lines


def _session_seconds(lines: Sequence[dict[str, Any]]) -> float:
    first, last = lines[0], lines[-1]
    if last.get("event") in ("end", "stop"):
        return (datetime.fromisoformat(last["time"]) - datetime.fromisoformat(first["time"])).total_seconds()
    seconds, step = 0.0, first["step"]
    images = first["settings"]["batch_size"] * first["settings"].get("accumulation", 1)
    for line in lines:
        if speed := line.get("images_per_second"):
            seconds += images * (line["step"] - step) / speed
            step = line["step"]
    return seconds


def _draw_paper(axes: Any, task: str, dataset: str, label: str, style: Mapping[str, str], place: _Place) -> None:
    points = [
        (hours, value[0], reduction)
        for (name, reduction), hours in PAPER_HOURS.items()
        if name == dataset and (value := paper_value(task, "auc", dataset, _PAPER_METHOD, reduction))
    ]
    if points:
        hours, auc, names = zip(*sorted(points), strict=True)
        axes.plot(hours, auc, label=label, mfc="none", ls="--", lw=0.8, **style)
        _name_points(axes, hours, auc, names, style, place)


def _draw_points(
    axes: Any, points: Sequence[tuple[float, Outcome]], label: str, style: Mapping[str, str], place: _Place
) -> None:
    """A point for each reduction: of several pre-trainings their mean, with the deviation between them."""
    arms: dict[str, list[tuple[float, Outcome]]] = {}
    for hours, outcome in points:
        assert outcome.pretraining is not None
        arms.setdefault(outcome.pretraining.reduction.label, []).append((hours, outcome))
    if not arms:
        return
    rows = []
    for name, arm in arms.items():
        of_each = [statistics.fmean(outcome.auc) for _, outcome in arm]
        spread = of_each if len(arm) > 1 else list(arm[0][1].auc)
        hours = max(statistics.fmean(hours for hours, _ in arm), 1 / 3600)  # the log counts seconds
        rows.append((hours, statistics.fmean(of_each), mean_std(spread)[1] if len(spread) > 1 else 0.0, name))
    x, auc, deviation, names = zip(*sorted(rows), strict=True)
    axes.errorbar(x, auc, deviation, lw=0.8, elinewidth=0.8, capsize=3, label=label, **style)
    _name_points(axes, x, auc, names, style, place)


def _name_points(
    axes: Any,
    hours: Sequence[float],
    auc: Sequence[float],
    names: Sequence[str],
    style: Mapping[str, str],
    place: _Place,
) -> None:
    right, up, side = place
    for x, y, name in zip(hours, auc, names, strict=True):
        words = {"textcoords": "offset points", "ha": side, "fontsize": 8, "color": style["color"]}
        axes.annotate(name, (x, y), (right, up), **words)


def _finish(panels: Sequence[Any]) -> None:
    panels[0].set_xscale("log")
    low, high = panels[0].get_xlim()
    low, high = low / 2.5, high * 2.5  # room for the names of points
    panels[0].set_xlim(low, high)
    shown = [tick for tick in _TICKS.items() if low <= tick[0] <= high]
    panels[0].set_xticks(*zip(*shown[:: 1 + len(shown) // 7], strict=True))
    panels[0].set_xticks([], minor=True)
    for axes in panels:
        axes.set_xlabel("duration of pre-training")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 1.02))  # a deviation may reach beyond what an AUC can be
    panels[0].set_ylabel("AUC, test split")
