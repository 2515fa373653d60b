"""Evaluations compared with a baseline and with the paper: means, deviations, intervals, tests, and notes on them.

Every number is computed from predictions.csv. The same folders and options give the same table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lessismore_transforms.classification import paper as printed
from lessismore_transforms.classification.finished_runs import (
    METRICS_FILE,
    FinishedRuns,
    difference,
    read_finished_runs,
)
from lessismore_transforms.classification.metrics import METRICS, Metric, f1
from lessismore_transforms.classification.paper_match import not_in_paper, unlike_paper, value_in_paper
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import (
    bootstrap_interval,
    delong_test,
    holm,
    mean_std,
    permutation_test,
)
from lessismore_transforms.classification.units import keys_of, whose
from lessismore_transforms.errors import UserError
from lessismore_transforms.wording import counted

CHOSEN = ("auc", "f1", "accuracy")  # the paper's three
LEVEL = 0.95  # of the intervals
_ALPHA = 0.05
_NAN = math.nan
_DEVIATION = "±: standard deviation (divisor n - 1) over the runs of an evaluation{folds}."
_SHARED = (
    "Runs share the pre-trained weights: their deviation tells how much fine-tuning again changes, not how much "
    "pre-training again would."
)
_INTERVAL = (
    "{percent} % interval: of the mean over runs when the units of the test set are drawn {samples} times with "
    "replacement and the networks stay. A unit is a patient, else a source such as a paper, else an image: where "
    "images are drawn and patients have several, intervals are too narrow and p too small."
)
_TESTS = (
    "difference: from the baseline, of the means over the runs that both have. p: two-sided permutation test of it, in "
    "which the predictions (for AUC their ranks) for a unit change places between the two networks "
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
    """One metric of one evaluation; nan where a number does not apply. The fields are the columns of the CSV file.

    Args:
        task: as in the paper's tables.
        evaluation: name of its folder.
        pretrain_dataset: label; "" where it was not given.
        ssl_method: label; "" where it was not given.
        reduction: label; "" where it was not given.
        mode: finetune, linear or scratch.
        rescored: whether trained networks were scored again.
        runs: number of finished runs.
        metric: its name in `METRICS`.
        mean: over runs.
        std: over runs, divisor n - 1; nan for one run.
        low: lower end of the bootstrap interval of the mean.
        high: upper end of it.
        paper_mean: mean that the paper prints.
        paper_std: deviation that the paper prints.
        baseline: the evaluation that this one is tested against.
        common_runs: number of runs that both have, on which the tests are made.
        difference: between the means over the common runs.
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
        baseline: the evaluation that all others are tested against.
        folds: whether the runs are folds.
        rows: evaluations in the order given, each with a row per metric.
        notes: remarks on single evaluations.
    """

    title: str
    baseline: str
    folds: bool
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The comparisons of all tasks.

    Args:
        tasks: one comparison each.
        paper: whether the paper's numbers stand beside ours.
        footer: the meaning of the columns, line by line.
    """

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
    """Compare evaluations: within each task, every evaluation with the baseline.

    Args:
        folders: of the evaluations, in the order of the rows.
        baseline: folder of the evaluation that the others of its task are tested against; it has rows too. In other
            tasks the first evaluation is the baseline.
        metrics: names of `METRICS`; f1 is of the class `positive` where there are two classes, else micro F1.
        paper: add the numbers that the paper prints for the same setting.
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
    tasks = _by_task(paths, base)
    with tqdm(total=len(paths) * len(metrics), desc="intervals and tests", leave=False, disable=None) as bar:
        tables = tuple(
            _Comparison(_named(evaluations), base, metrics, paper=paper, samples=samples).table(bar)
            for evaluations in tasks.values()
        )
    return Table(tables, paper, _footer(tables, samples))


def _by_task(paths: Sequence[Path], baseline: Path | None) -> dict[str, list[FinishedRuns]]:
    """The finished runs of each folder, by task; each folder stands there once, and the baseline not alone."""
    if not paths:
        raise UserError("expected the folders of evaluations, found none; name one or more")
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise UserError(f"expected each evaluation once, found {twice[0]} twice; drop one of them")
    tasks: dict[str, list[FinishedRuns]] = {}
    for evaluation in map(read_finished_runs, paths):
        tasks.setdefault(evaluation.task, []).append(evaluation)
    for task, evaluations in tasks.items():
        if [evaluation.folder for evaluation in evaluations] == [baseline]:
            raise UserError(
                f"expected an evaluation to compare with the baseline {baseline}, found none of {task}; add one"
            )
    return tasks


class _Comparison:
    """The evaluations of one task beside each other; the notes for the reader are collected on the way."""

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
            for field in ("classes", "positive"):
                expected, found = getattr(self.base, field), getattr(each, field)
                if expected != found:
                    raise UserError(
                        f"expected the same {field} in all evaluations of {each.task}, found {expected} in "
                        f"{self.baseline} and {found} in {name}; make a table of each"
                    )
        several = len(self.base.classes) > 2
        self.metrics = tuple(dict.fromkeys("f1_micro" if several and name == "f1" else name for name in metrics))
        self._noted: dict[str, list[str]] = {}  # a note: the evaluations it is about, none where it is about the task

    def table(self, bar: Any) -> TaskTable:
        """The rows and notes of the task; moves the progress bar by one for each row."""
        rows = []
        for name, each in self.evaluations.items():
            if each.unfinished:
                unfinished = ", ".join(each.unfinished)
                self._note(f"{unfinished} not finished (no {METRICS_FILE}), left out.", name)
            if each.leaks is None:
                self._note("leaks between splits were not looked for.", name)
            for place, leaks in _leaks(each).items():
                self._note(f"{place}: {leaks}; see leakage.csv of the runs.", name)
            common = self._common_runs(name)
            for metric in self.metrics:
                rows.append(self._row(name, metric, common))
                bar.update()
        corrected = self._corrected(rows)
        if self.paper:
            self._explain_paper()
        return TaskTable(self._title(), self.baseline, bool(self.base.folds), corrected, tuple(self._notes()))

    def _note(self, note: str, name: str = "") -> None:
        names = self._noted.setdefault(note, [])
        names += [name] if name else []

    def _notes(self) -> Iterator[str]:
        """Each note once, with the names of all evaluations that it is about."""
        for note, names in self._noted.items():
            whose = "all" if len(names) == len(self.evaluations) > 1 else ", ".join(names)
            yield f"{whose}: {note}" if names else note

    def _row(self, name: str, metric: str, common: Sequence[int]) -> Row:
        each, function = self.evaluations[name], self._function(metric)
        runs = list(each.runs.values())
        mean, std = mean_std([_value(function, run) for run in runs])
        low, high = bootstrap_interval(runs, function, samples=self.samples, level=LEVEL)
        pretrain_dataset, ssl_method, reduction = (label or "" for label in each.labels)
        setting = (pretrain_dataset, ssl_method, reduction, each.mode, each.rescored)
        row = Row(each.task, name, *setting, len(runs), metric, mean, std, low, high)
        if self.paper and (value := value_in_paper(each, metric)):
            row = replace(row, paper_mean=value[0], paper_std=value[1])
        return self._tested(row, common) if common else row

    def _tested(self, row: Row, common: Sequence[int]) -> Row:
        """The row with its tests against the baseline added."""
        function = self._function(row.metric)
        ours, theirs = ([each.runs[n] for n in common] for each in (self.evaluations[row.evaluation], self.base))
        differences = [_value(function, a) - _value(function, b) for a, b in zip(ours, theirs, strict=True)]
        same_images = all(run.image_ids == ours[0].image_ids for run in ours)  # not so in folds
        independent = len(set(keys_of(ours[0]))) == len(ours[0].labels)  # else there are false alarms
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
        """Numbers of the runs that can be tested against the baseline's; a note tells which cannot, and why."""
        each, base = self.evaluations[name], self.base
        if each is base:
            return []
        common = sorted(each.runs.keys() & base.runs.keys())
        against = f"tested against {self.baseline}"
        for number in common:
            if differing := difference(each.runs[number], base.runs[number]):
                self._note(f"not {against}, which has other {differing}; their means are not comparable either.", name)
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
            if reason := not_in_paper(each) or unlike_paper(each):
                self._note(f"{reason}.", name)
        if "f1" in self.metrics and self.base.positive != printed.POSITIVE:
            self._note(f"the paper's F1 is of label {printed.POSITIVE}, this one of {self.base.positive}.")

    def _function(self, metric: str) -> Metric:
        return partial(f1, positive=self.base.positive) if metric == "f1" else METRICS[metric]

    def _title(self) -> str:
        base, runs = self.base, list(self.base.runs.values())
        images = len({image for run in runs for image in run.image_ids})
        units = f"of {found}" if (found := whose(runs)) else "(patients and sources not known)"
        folds = f" in {counted(len(set(base.folds.values())), 'fold')}" if base.folds else ""
        of_class = f"; F1 is of class {base.classes[base.positive]!r}" if "f1" in self.metrics else ""
        return f"{base.task}: {counted(images, 'test image')} {units}{folds}{of_class}"


def _named(evaluations: Sequence[FinishedRuns]) -> dict[str, FinishedRuns]:
    """Evaluations by name: the last parts of their paths, as many as are needed to tell them apart."""
    depth = 1
    while len({each.folder.parts[-depth:] for each in evaluations}) < len(evaluations):
        depth += 1
    return {"/".join(each.folder.parts[-depth:]): each for each in evaluations}


def _leaks(each: FinishedRuns) -> dict[str, str]:
    """Counts of leaks by place: between the splits, and between them and the pre-training set."""
    found: dict[str, list[str]] = {}
    for leak, count in (each.leaks or {}).items():
        name = leak.removeprefix("pretraining_")
        place = "leaks found before training" if name == leak else "shared with the pre-training set"
        found.setdefault(place, []).append(f"{name.replace('_', ' ')} {count}")
    return {place: ", ".join(counts) for place, counts in found.items()}


def _value(metric: Metric, run: Predictions) -> float:
    return float(metric(run.labels, run.probabilities))


def _value_name(metric: str) -> str:
    return "accuracy" if metric == "f1_micro" else metric  # the same number where an image has one label


def _footer(tasks: Sequence[TaskTable], samples: int) -> tuple[str, ...]:
    """Lines below the tables: the meaning of the columns, and what could mislead a reader."""
    rows = [row for task in tasks for row in task.rows]
    shown = [row for row in rows if not math.isnan(row.paper_mean)]
    folds = "; folds are scored on other pictures each" if any(task.folds for task in tasks) else ""
    lines = {
        _DEVIATION.format(folds=folds): any(not math.isnan(row.std) for row in rows),
        _SHARED: any(not math.isnan(row.std) and row.mode != "scratch" for row in rows),
        _INTERVAL.format(percent=round(100 * LEVEL), samples=samples): True,
        _TESTS.format(samples=samples): any(row.baseline for row in rows),
        _DELONG: any(not math.isnan(row.p_delong) for row in rows),
        _MICRO: any(row.metric == "f1_micro" for row in rows),
        _PAPER: bool(shown),
        f"paper: {printed.F1_OF_ORGMNIST}": any((row.task, row.metric) == ("OrgMNIST", "f1_micro") for row in shown),
    }
    return tuple(line for line, needed in lines.items() if needed)
