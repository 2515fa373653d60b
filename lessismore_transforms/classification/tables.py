"""Evaluations beside each other and beside the paper: mean and deviation over runs, intervals, tests, what they mean.

Every number is computed from predictions.csv. The same folders and options give the same bytes.
"""

from __future__ import annotations

import csv
import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.classification import paper as printed
from lessismore_transforms.classification.finished_runs import (
    METRICS_FILE,
    FinishedRuns,
    difference,
    read_finished_runs,
)
from lessismore_transforms.classification.metrics import METRICS, Metric, f1
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import (
    bootstrap_interval,
    delong_test,
    holm,
    mean_std,
    permutation_test,
    unit_of,
)
from lessismore_transforms.errors import UserError

CHOSEN = ("auc", "f1", "accuracy")  # the paper's three
SUFFIXES = (".csv", ".md", ".html")
_TITLES = {"auc": "AUC", "f1": "F1", "f1_macro": "macro F1", "f1_micro": "micro F1", "accuracy": "accuracy"}
_LEVEL, _ALPHA = 0.95, 0.05
_WIDTH = 110  # of the lines below a table on the screen
_NAN = math.nan
_DEVIATION = "±: standard deviation (divisor n - 1) over the runs of an evaluation{folds}."
_SHARED = (
    "Runs share the pre-trained weights: their deviation tells how much fine-tuning again changes, not how much "
    "pre-training again would."
)
_INTERVAL = (
    "{percent} % interval: of the mean over runs when the test patients are drawn {samples} times with replacement and "
    "the networks stay. Where patients are not known, images are drawn: if patients have several, intervals are too "
    "narrow and p too small."
)
_TESTS = (
    "difference: from the baseline, of the means over the runs that both have. p: two-sided permutation test of it, in "
    "which the predictions (for AUC their ranks) for a patient or image change places between the two networks "
    "{samples} times. (Holm): corrected for all comparisons of the task. All this is about these networks: to say that "
    "one way of pre-training is better than another takes several pre-trainings of each."
)
_DELONG = (
    "DeLong p: for the AUC of the probabilities averaged over runs, not for the mean AUC; images count as independent, "
    "so that there is none where a patient has several."
)
_MICRO = (
    "micro F1: with several classes it equals accuracy, and both are one comparison; f1_macro is the mean over classes."
)
_PAPER = (
    "paper: Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242), Tables 3 to 7 and 12 to 16, mean and deviation "
    "(of which kind it does not say) of five runs or folds; no pre-training was repeated."
)


@dataclass(frozen=True)
class Row:
    """One metric of one evaluation; what does not apply is nan. Its fields are the columns of the CSV.

    Args:
        task: as in the paper's tables.
        evaluation: name of its folder.
        pretrain_dataset: label, "" where not given; so the next two.
        ssl_method: label.
        reduction: label.
        mode: finetune, linear or scratch.
        rescored: whether trained networks were scored again.
        runs: how many are finished.
        metric: its name in `METRICS`.
        mean: over runs.
        std: over runs, divisor n - 1; nan for one run.
        low: end of the bootstrap interval of the mean.
        high: end of it.
        paper_mean: what the paper prints.
        paper_std: what the paper prints.
        baseline: the evaluation that it is tested against.
        common_runs: how many runs of both the tests take.
        difference: between the means of the common runs.
        p: of the permutation test.
        p_holm: corrected for all comparisons of the task.
        p_delong: of DeLong's test.
        p_delong_holm: corrected for all comparisons of the task.
    """

    task: str
    evaluation: str
    pretrain_dataset: str
    ssl_method: str
    reduction: str
    mode: str
    rescored: bool
    runs: int
    metric: str
    mean: float
    std: float
    low: float
    high: float
    paper_mean: float = _NAN
    paper_std: float = _NAN
    baseline: str = ""
    common_runs: int = 0
    difference: float = _NAN
    p: float = _NAN
    p_holm: float = _NAN
    p_delong: float = _NAN
    p_delong_holm: float = _NAN


@dataclass(frozen=True)
class TaskTable:
    """The comparison of one task.

    Args:
        title: task, test set, class of F1.
        baseline: what all others are tested against.
        folds: whether the runs are folds.
        rows: evaluations as they were given, and of each its metrics.
        notes: what a reader has to know of single evaluations.
    """

    title: str
    baseline: str
    folds: bool
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The comparisons of all tasks, whether they stand beside the paper's, and what the columns mean."""

    tasks: tuple[TaskTable, ...]
    paper: bool
    footer: tuple[str, ...]


def make_table(
    folders: Sequence[Path | str],
    *,
    baseline: Path | str | None = None,
    metrics: Sequence[str] = CHOSEN,
    paper: bool = False,
    samples: int = 1000,
) -> Table:
    """Compare evaluations, those of each task with their baseline.

    Args:
        folders: of the evaluations, in the order of the lines.
        baseline: of its task, and a line too; else the first evaluation of a task is its baseline.
        metrics: names of `METRICS`; f1 is of the class `positive` where there are two classes, else micro F1.
        paper: add what the paper prints for the same setting.
        samples: resamples of each interval and exchanges of each permutation test.

    Raises:
        UserError: a folder is no evaluation, mixes settings or stands there twice, or an option makes no sense.
    """
    if unknown := [name for name in metrics if name not in METRICS]:
        raise UserError(f"expected metrics of {', '.join(METRICS)}, found {', '.join(unknown)}; fix --metrics")
    if not metrics or samples < 1:
        raise UserError(f"expected a metric and a sample or more, found {len(metrics)} and {samples}; 1000 is usual")
    paths = [Path(folder).resolve() for folder in folders]
    base = None if baseline is None else Path(baseline).resolve()
    if base is not None and base not in paths:
        paths.insert(0, base)
    if not paths:
        raise UserError("expected the folders of evaluations, found none; name one or more")
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise UserError(f"expected each evaluation once, found {twice[0]} twice; drop one of them")
    tasks: dict[str, list[FinishedRuns]] = {}
    for evaluation in map(read_finished_runs, paths):
        tasks.setdefault(evaluation.task, []).append(evaluation)
    for task, evaluations in tasks.items():
        if [each.folder for each in evaluations] == [base]:
            raise UserError(
                f"expected an evaluation to compare with the baseline {base}, found none of {task}; add one"
            )
    with tqdm(total=len(paths) * len(metrics), desc="intervals and tests", leave=False, disable=None) as bar:
        tables = tuple(
            _Comparison(_named(evaluations), base, metrics, paper=paper, samples=samples).table(bar)
            for evaluations in tasks.values()
        )
    return Table(tables, paper, _footer(tables, samples))


def as_text(table: Table) -> str:
    """The table as the screen shows it."""
    parts = [f"{title}\n\n{_aligned(grid)}" for title, grid in _grids(table)]
    return "\n\n".join((*parts, "\n".join(textwrap.fill(line, _WIDTH) for line in _lines_below(table))))


def write_table(table: Table, path: Path) -> None:
    """Write the table as its suffix says: .csv (a line per evaluation and metric, all digits), .md or .html.

    Raises:
        UserError: another suffix, or no folder for it.
        OutputError: the file cannot be written.
    """
    check_output(path)
    write = {".csv": _write_csv, ".md": _write_markdown, ".html": _write_html}[path.suffix]
    with atomic_write(path) as file:
        write(table, file)


def check_output(path: Path) -> None:
    """Refuse at once a file that `write_table` would refuse after minutes of resampling.

    Raises:
        UserError: another suffix, or no folder for it.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"expected a file that ends in {', '.join(SUFFIXES)}, found {path}; choose one of them")
    if not path.parent.is_dir():
        raise UserError(f"expected a folder for {path.name}, found none at {path.parent}; make it first")


class _Comparison:
    """The evaluations of one task beside each other; what a reader has to be told gathers on the way."""

    def __init__(
        self,
        evaluations: dict[str, FinishedRuns],
        baseline: Path | None,
        metrics: Sequence[str],
        *,
        paper: bool,
        samples: int,
    ) -> None:
        self.evaluations, self.paper, self.samples = evaluations, paper, samples
        names = [name for name, each in evaluations.items() if each.folder == baseline]
        self.baseline = names[0] if names else next(iter(evaluations))
        self.base = evaluations[self.baseline]
        for name, each in evaluations.items():
            for what in ("classes", "positive"):
                expected, found = getattr(self.base, what), getattr(each, what)
                if expected != found:
                    raise UserError(
                        f"expected the same {what} in all evaluations of {each.task}, found {expected} in "
                        f"{self.baseline} and {found} in {name}; make a table of each"
                    )
        several = len(self.base.classes) > 2
        self.metrics = tuple(dict.fromkeys("f1_micro" if several and name == "f1" else name for name in metrics))
        self._noted: dict[str, list[str]] = {}  # what: the evaluations of which it is true, none where of the task

    def table(self, bar: Any) -> TaskTable:
        """Compute all of it."""
        rows = []
        for name, each in self.evaluations.items():
            if each.unfinished:
                unfinished = ", ".join(each.unfinished)
                self._note(f"{unfinished} not finished (no {METRICS_FILE}), left out.", name)
            if each.leaks is None:
                self._note("leaks between splits were not looked for.", name)
            for what, leaks in _leaks(each).items():
                self._note(f"{what}: {leaks}; see leakage.csv of the runs.", name)
            common = self._common_runs(name)
            for metric in self.metrics:
                rows.append(self._row(name, metric, common))
                bar.update()
        corrected = self._corrected(rows)
        if self.paper:
            self._explain_paper()
        return TaskTable(self._title(), self.baseline, bool(self.base.folds), corrected, tuple(self._notes()))

    def _note(self, what: str, name: str = "") -> None:
        names = self._noted.setdefault(what, [])
        names += [name] if name else []

    def _notes(self) -> Iterator[str]:
        """Each note once, with the names of all evaluations that it is about."""
        for what, names in self._noted.items():
            whose = "all" if len(names) == len(self.evaluations) > 1 else ", ".join(names)
            yield f"{whose}: {what}" if names else what

    def _row(self, name: str, metric: str, common: Sequence[int]) -> Row:
        each, function = self.evaluations[name], self._function(metric)
        runs = list(each.runs.values())
        mean, std = mean_std([_value(function, run) for run in runs])
        low, high = bootstrap_interval(runs, function, samples=self.samples, level=_LEVEL)
        pretrain_dataset, ssl_method, reduction = (label or "" for label in each.labels)
        setting = (pretrain_dataset, ssl_method, reduction, each.mode, each.rescored)
        row = Row(each.task, name, *setting, len(runs), metric, mean, std, low, high)
        if self.paper and (value := _paper_value(each, metric)):
            row = replace(row, paper_mean=value[0], paper_std=value[1])
        return self._tested(row, common) if common else row

    def _tested(self, row: Row, common: Sequence[int]) -> Row:
        """A row with its tests against the baseline."""
        function = self._function(row.metric)
        ours, theirs = ([each.runs[n] for n in common] for each in (self.evaluations[row.evaluation], self.base))
        differences = [_value(function, a) - _value(function, b) for a, b in zip(ours, theirs, strict=True)]
        same_images = all(run.image_ids == ours[0].image_ids for run in ours)  # not so in folds
        known = [patient for patient in ours[0].patients if patient]
        independent = len(set(known)) == len(known)  # else DeLong's test gives three times as many false alarms
        p_delong = _NAN
        if row.metric == "auc" and len(self.base.classes) == 2 and same_images and independent:
            a, b = (np.mean([run.probabilities[:, 1] for run in runs], axis=0) for runs in (ours, theirs))  # (N,)
            p_delong = delong_test(ours[0].labels, a, b).p
        return replace(
            row,
            baseline=self.baseline,
            common_runs=len(common),
            difference=float(np.mean(differences)),
            p=permutation_test(ours, theirs, function, samples=self.samples),
            p_delong=p_delong,
        )

    def _common_runs(self, name: str) -> list[int]:
        """The runs of an evaluation that can be tested against the baseline's; a note says of those that cannot."""
        each, base = self.evaluations[name], self.base
        if each is base:
            return []
        common = sorted(each.runs.keys() & base.runs.keys())
        against = f"tested against {self.baseline}"
        for number in common:
            if what := difference(each.runs[number], base.runs[number]):
                self._note(f"not {against}, which has other {what}; their means are not comparable either.", name)
                return []
        if not common:
            self._note(f"not {against}, with which it has no number of a run in common.", name)
        elif set(common) != each.runs.keys() | base.runs.keys():
            self._note(f"{against} on the runs that both have, {', '.join(map(str, common))}.", name)
        return common

    def _corrected(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The rows with p-values corrected for the number of comparisons; micro F1 and accuracy count as one."""
        p = {(row.evaluation, _value_name(row.metric)): row.p for row in rows if not math.isnan(row.p)}
        corrected = dict(zip(p, holm(list(p.values())).tolist(), strict=True))
        delong = holm([row.p_delong for row in rows]).tolist()
        if len(p) / (self.samples + 1) > _ALPHA:  # the smallest p there is, times their number
            self._note(
                f"with {len(p)} comparisons and {self.samples} exchanges no p (Holm) can fall below {_ALPHA}; give "
                "more --samples or fewer --metrics."
            )
        return tuple(
            replace(row, p_holm=corrected.get((row.evaluation, _value_name(row.metric)), _NAN), p_delong_holm=value)
            for row, value in zip(rows, delong, strict=True)
        )

    def _explain_paper(self) -> None:
        """Note why a number of the paper is missing or does not compare."""
        if self.base.task == "Brain":
            self._note(f"{printed.BRAIN_DATA}.")
        for name, each in self.evaluations.items():
            if reason := _not_in_paper(each) or _unlike_paper(each):
                self._note(f"{reason}.", name)
        if "f1" in self.metrics and self.base.positive != printed.POSITIVE:
            self._note(f"the paper's F1 is of label {printed.POSITIVE}, this one of {self.base.positive}.")

    def _function(self, metric: str) -> Metric:
        return partial(f1, positive=self.base.positive) if metric == "f1" else METRICS[metric]

    def _title(self) -> str:
        base, runs = self.base, list(self.base.runs.values())
        patients = {i: patient for run in runs for i, patient in zip(run.image_ids, run.patients, strict=True)}
        known = all(unit_of(run) == "patient" for run in runs)
        whose = f"of {len(set(patients.values()))} patients" if known else "(patients not known)"
        folds = f" in {len(set(base.folds.values()))} folds" if base.folds else ""
        of_class = f"; F1 is of class {base.classes[base.positive]!r}" if "f1" in self.metrics else ""
        return f"{base.task}: {len(patients)} test images {whose}{folds}{of_class}"


def _named(evaluations: Sequence[FinishedRuns]) -> dict[str, FinishedRuns]:
    """Evaluations by the last parts of their paths, as many as tell them apart."""
    depth = 1
    while len({each.folder.parts[-depth:] for each in evaluations}) < len(evaluations):
        depth += 1
    return {"/".join(each.folder.parts[-depth:]): each for each in evaluations}


def _leaks(each: FinishedRuns) -> dict[str, str]:
    """What the leakage gate found: between splits, and between them and the pre-training set."""
    found: dict[str, list[str]] = {}
    for kind, count in (each.leaks or {}).items():
        what = kind.removeprefix("pretraining_")
        where = "leaks found before training" if what == kind else "shared with the pre-training set"
        found.setdefault(where, []).append(f"{what.replace('_', ' ')} {count}")
    return {where: ", ".join(counts) for where, counts in found.items()}


def _value(metric: Metric, run: Predictions) -> float:
    return float(metric(run.labels, run.probabilities))


def _value_name(metric: str) -> str:
    return "accuracy" if metric == "f1_micro" else metric  # the same number where an image has one label


def _not_in_paper(each: FinishedRuns) -> str:
    """Why the paper has no number for an evaluation, or nothing."""
    classes = printed.TASK_CLASSES.get(each.task)
    if classes is None:
        return f"the paper has no task {each.task}"
    if classes != len(each.classes):
        return f"the paper's {each.task} has {classes} classes, this one {len(each.classes)}"
    if each.mode == "linear":
        return "the paper fine-tunes the whole network and has no number for a frozen one"
    names = printed.Setting._fields
    if missing := [f"--{name}" for name, label in zip(names, each.labels, strict=True) if label is None]:
        return f"the paper's number is not known without {', '.join(missing)}, given in training"
    setting, known = printed.Setting(*map(str, each.labels)), printed.paper_settings()
    if setting not in known:
        near = [other.reduction for other in known if other[:2] == setting[:2]]
        whose = " ".join(setting[:2])
        return f"of {whose} the paper has only {', '.join(near)}" if near else f"the paper has no {whose}"
    return ""


def _unlike_paper(each: FinishedRuns) -> str:
    """In which settings an evaluation is not the paper's, or nothing."""
    others = [
        f"{name.replace('_', ' ')} {each.settings[name]} instead of {value}"
        for name, value in printed.SETTINGS.items()
        if each.settings.get(name, value) != value
    ]
    return f"unlike the paper in {', '.join(others)}" if others else ""


def _paper_value(each: FinishedRuns, metric: str) -> tuple[float, float] | None:
    """What the paper prints where our metric is the one that it means."""
    if metric == "f1_micro" and len(each.classes) > 2:
        metric = "f1"
    elif metric == "f1" and each.positive != printed.POSITIVE:
        return None
    if _not_in_paper(each) or metric not in printed.PRINTED:
        return None
    return printed.paper_value(each.task, metric, *map(str, each.labels))


def _footer(tasks: Sequence[TaskTable], samples: int) -> tuple[str, ...]:
    """What the columns mean, and by what a reader could be misled."""
    rows = [row for task in tasks for row in task.rows]
    shown = [row for row in rows if not math.isnan(row.paper_mean)]
    folds = "; folds are scored on other pictures each" if any(task.folds for task in tasks) else ""
    lines = {
        _DEVIATION.format(folds=folds): any(not math.isnan(row.std) for row in rows),
        _SHARED: any(not math.isnan(row.std) and row.mode != "scratch" for row in rows),
        _INTERVAL.format(percent=round(100 * _LEVEL), samples=samples): True,
        _TESTS.format(samples=samples): any(row.baseline for row in rows),
        _DELONG: any(not math.isnan(row.p_delong) for row in rows),
        _MICRO: any(row.metric == "f1_micro" for row in rows),
        _PAPER: bool(shown),
        f"paper: {printed.F1_OF_ORGMNIST}": any((row.task, row.metric) == ("OrgMNIST", "f1_micro") for row in shown),
    }
    return tuple(line for line, needed in lines.items() if needed)


_Grid: TypeAlias = list[list[str]]  # a header and lines, all as long


def _grids(table: Table) -> Iterator[tuple[str, _Grid]]:
    """Titles and cells of the two tables of each task: scores, then intervals and tests."""
    for task in table.tasks:
        yield task.title, _scores(task, paper=table.paper)
        tests = f" and tests against {task.baseline}" if any(row.baseline for row in task.rows) else ""
        yield f"{task.rows[0].task}: intervals{tests}", _intervals(task, tests=bool(tests))


def _scores(task: TaskTable, *, paper: bool) -> _Grid:
    """A line per evaluation with mean and deviation of its metrics: what one pastes into a paper."""
    lines: dict[str, list[str]] = {}
    header = ["evaluation", "pre-training", "folds" if task.folds else "runs"]
    for row in task.rows:
        line = lines.setdefault(row.evaluation, [row.evaluation, _pretraining(row), str(row.runs)])
        line += [_plus_minus(row.mean, row.std), *([_plus_minus(row.paper_mean, row.paper_std)] if paper else [])]
        if len(lines) == 1:
            header += [_TITLES[row.metric], *(["paper"] if paper else [])]
    return [header, *lines.values()]


def _intervals(task: TaskTable, *, tests: bool) -> _Grid:
    """A line per evaluation and metric with its interval and tests."""
    delong = any(not math.isnan(row.p_delong) for row in task.rows)
    header = ["evaluation", "metric", "mean", f"{100 * _LEVEL:.0f} % interval"]
    header += ["difference", "p", "p (Holm)"] if tests else []
    header += ["DeLong p", "DeLong p (Holm)"] if delong else []
    grid = [header]
    for row in task.rows:
        line = [row.evaluation, _TITLES[row.metric], _number(row.mean), _interval(row.low, row.high)]
        line += [_number(row.difference, "+.3f"), _p(row.p), _p(row.p_holm)] if tests else []
        line += [_p(row.p_delong), _p(row.p_delong_holm)] if delong else []
        grid.append(line)
    return grid


def _pretraining(row: Row) -> str:
    words = " ".join(part for part in (row.pretrain_dataset, row.ssl_method, row.reduction) if part) or "–"
    how = [*(["linear"] if row.mode == "linear" else []), *(["scored again"] if row.rescored else [])]
    return ("from scratch" if row.mode == "scratch" else words) + (f" ({', '.join(how)})" if how else "")


def _number(value: float, form: str = ".3f") -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"


def _plus_minus(mean: float, std: float) -> str:
    return _number(mean) if math.isnan(std) else f"{mean:.3f} ± {std:.3f}"


def _interval(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.0005 else _number(value)


def _lines_below(table: Table) -> Iterator[str]:
    """Notes on evaluations, then the meaning of columns."""
    for task in table.tasks:
        yield from (f"{task.rows[0].task}, {note}" for note in task.notes)
    yield from table.footer


def _aligned(grid: _Grid) -> str:
    """A grid as text, words to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    form = "  ".join(f"{{:{'<' if place < 2 else '>'}{width}}}" for place, width in enumerate(widths))
    return "\n".join(form.format(*line).rstrip() for line in grid)


def _write_csv(table: Table, file: Any) -> None:
    writer = csv.writer(file, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    for row in (row for task in table.tasks for row in task.rows):
        values = (getattr(row, name) for name in names)
        writer.writerow("" if isinstance(value, float) and math.isnan(value) else value for value in values)


def _write_markdown(table: Table, file: Any) -> None:
    for title, (header, *lines) in _grids(table):
        rule = ["---" if place < 2 else "---:" for place in range(len(header))]
        file.write(f"**{title}**\n\n")
        file.writelines(
            f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in (header, rule, *lines)
        )
        file.write("\n")
    file.writelines(f"- {line}\n" for line in _lines_below(table))


def _write_html(table: Table, file: Any) -> None:
    from importlib.resources import files

    from lessismore_transforms.report.html import page

    parts = []
    for title, (header, *lines) in _grids(table):
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
        body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
        parts.append(
            f"<table><caption>{escape(title)}</caption>\n<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    parts += [f'<p class="caption">{escape(line)}</p>' for line in _lines_below(table)]
    css = files("lessismore_transforms.report").joinpath("page.css").read_text(encoding="utf-8")
    css += "td:nth-child(n+3), th:nth-child(n+3) { text-align: right; }\n"
    file.write(page("Evaluations", css=css, body="\n".join(parts)))
