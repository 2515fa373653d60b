"""Evaluations compared with each other and with the paper: means, deviations, intervals, tests, and notes on them.

Every number is computed from predictions.csv. The same folders and options give the same table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lessismore_transforms.classification import paper as printed
from lessismore_transforms.classification.arms import Arm, ambiguous_contrasts, arms_of, contrasts_of, unlike
from lessismore_transforms.classification.crossed import LEAST_NETWORKS, POWER, arm_difference, arm_interval
from lessismore_transforms.classification.finished_runs import (
    METRICS_FILE,
    FinishedRuns,
    Fold,
    difference,
    evaluations_in,
    read_finished_runs,
)
from lessismore_transforms.classification.metrics import METRICS, Metric, f1
from lessismore_transforms.classification.paper_match import not_in_paper, unlike_paper, value_in_paper
from lessismore_transforms.classification.statistics import holm, mean_of_runs, mean_std
from lessismore_transforms.classification.units import unit_of, units, whose
from lessismore_transforms.errors import UserError
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.wording import counted

CHOSEN = ("auc", "f1", "accuracy")  # the paper's three
LEVEL = 0.95  # of the intervals
ANY_NETWORKS, THESE_NETWORKS = "any networks", "these networks only"  # what an interval is about
_NAN = math.nan
_NO_FOLD = Fold(-1, -1)  # stands for the only test set of a task without folds
_DEVIATION = "±: standard deviation (divisor n - 1) over the runs of an evaluation{folds}{repeats}{pretrainings}."
_SHARED = (
    "Runs share the pre-trained weights: their deviation tells how much fine-tuning again changes, not how much "
    "pre-training again would."
)
_INTERVAL = (
    "{percent} % interval: the units of the test set, patients, else sources such as papers, else images, are drawn "
    "{samples} times with replacement, each with all its images; where images are drawn and patients have several, "
    "intervals are too narrow. Where next to nothing is wrong, so that draws reach 1, the exact interval of as many "
    "units as the smallest class has (of all for accuracy) is joined, which is rather too wide. Where an arm has "
    "several networks (pre-trainings, or runs from scratch) their spread is added, crossed with units: the interval "
    "is about any networks of this kind. Else it is about these networks only, and another pre-training may well be "
    "outside.{repeats}"
)
_DIFFERENCE = "difference: of the means of the two arms on the same test images{tests}. Nothing else is compared."
_REPEATED = (
    " Of repeated folds a unit is drawn once, with all that the repeats make of it: more repeats are no more units."
)
_DETECTABLE = (
    "detectable: the smallest true difference that intervals by so many units show, that is leave 0 out, with a power "
    "of {power} %: (1.96 + 0.84) standard errors of the difference, paired by unit; more where networks are few; not "
    "corrected for several comparisons. †: it is larger than the difference found, and test sets of this size show a "
    "true difference of that size less often than with this power: it takes a larger one (with several networks: or "
    "more of them). What cannot be told apart is not shown to be equal."
)
_TESTS = "; p: two-sided, by the variance of its interval; (Holm): corrected for all comparisons of the task"
_NO_P = (
    "There is no p where an arm has fewer than {least} networks: a test of the predictions of two takes the networks "
    "for granted, and calls two pre-trainings of one and the same arm different, at p < 0.05, in 12 to 38 % of "
    "simulated cases. To say that one way of pre-training is better than another takes several pre-trainings of each."
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
    """One metric of one arm, or of its comparison with another; nan where a number does not apply.

    The fields are the columns of the CSV file. An arm that is compared with several others has a row for each.

    Args:
        task: as in the paper's tables.
        evaluation: name of its folder; of several pre-trainings that of the first.
        pretrain_dataset: label; "" where it was not given.
        ssl_method: label; "" where it was not given.
        reduction: label; "" where it was not given.
        mode: finetune, linear or scratch.
        rescored: whether trained networks were scored again.
        pretrainings: number of pre-trainings, that is of evaluations; 0 from scratch.
        runs: number of finished runs of all of them.
        unit: what is drawn: patient, source, image, or several of them.
        units: their number in the test sets; of repeated folds each is one.
        mean_of: what the mean is over: `5 runs`, `5 folds`, `5 x 5 folds` of five repeats, `3 pre-trainings of 5 runs`.
        metric: its name in `METRICS`.
        mean: over pre-trainings of the means over runs.
        std: over pre-trainings, or over runs where there is one or none; divisor n - 1; nan for one run.
        low: lower end of the interval of the mean.
        high: upper end of it.
        about: whether that interval is about any networks of this kind, or about these networks only.
        paper_mean: mean that the paper prints.
        paper_std: deviation that the paper prints.
        baseline: the evaluation that this one is compared with.
        difference: between the means.
        difference_low: lower end of its interval.
        difference_high: upper end of it.
        difference_about: as `about`.
        p: of the difference.
        p_holm: corrected for all comparisons of the task.
        detectable: the smallest true difference that such a comparison shows, see `crossed.detectable_difference`.
        too_small: whether that is larger than the difference found, so that it takes a larger test set to show it.
    """

    task: str
    evaluation: str
    pretrain_dataset: str
    ssl_method: str
    reduction: str
    mode: str
    rescored: bool
    pretrainings: int
    runs: int
    unit: str
    units: int
    mean_of: str
    metric: str
    mean: float
    std: float
    low: float
    high: float
    about: str
    paper_mean: float = _NAN
    paper_std: float = _NAN
    baseline: str = ""
    difference: float = _NAN
    difference_low: float = _NAN
    difference_high: float = _NAN
    difference_about: str = ""
    p: float = _NAN
    p_holm: float = _NAN
    detectable: float = _NAN
    too_small: bool = False


@dataclass(frozen=True)
class TaskTable:
    """The comparisons of one task.

    Args:
        title: task, test set, class of F1.
        folds: whether the runs are folds.
        repeats: how often all pictures are dealt into folds; 0 without folds.
        rows: arms in the order given, each with a row per metric and comparison.
        notes: remarks on single evaluations.
    """

    title: str
    folds: bool
    repeats: int
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
    advice: bool = True,
) -> Table:
    """Compare evaluations: each with ALL of the same data set, method and mode, or with a baseline.

    Args:
        folders: of the evaluations, in the order of the rows, or folders that hold them, see
            `finished_runs.evaluations_in`; pre-trainings of one arm become one, see `arms.arms_of`.
        baseline: folder of the evaluation that the others of its task are compared with; it has rows too.
        metrics: names of `METRICS`; f1 is of the class `positive` where there are two classes, else micro F1.
        paper: add the numbers that the paper prints for the same setting.
        samples: resamples of each interval.
        advice: whether notes tell options and files that only those have who hold the folders.

    Raises:
        UserError: a folder is no evaluation, mixes settings or stands there twice, or an option makes no sense.
    """
    _check_options(metrics, samples)
    paths = [path for folder in folders for path in evaluations_in(Path(folder).resolve())]
    base = None if baseline is None else Path(baseline).resolve()
    if base is not None and base not in paths:
        paths.insert(0, base)
    arms = [arm for evaluations in _by_task(paths, base).values() for arm in arms_of(named(evaluations))]
    return compare(arms, baseline=base, metrics=metrics, paper=paper, samples=samples, advice=advice)


def compare(
    arms: Sequence[Arm],
    *,
    baseline: Path | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    metrics: Sequence[str] = CHOSEN,
    paper: bool = False,
    samples: int = 1000,
    advice: bool = True,
) -> Table:
    """Compare arms that are told apart already.

    Args:
        arms: of one task or several.
        baseline: folder of an evaluation, as for `make_table`.
        pairs: of reductions that are compared, as for `arms.contrasts_of`.
        metrics: as for `make_table`.
        paper: as for `make_table`.
        samples: as for `make_table`.
        advice: as for `make_table`.

    Raises:
        UserError: the arms of a task have other classes, or an option makes no sense.
    """
    _check_options(metrics, samples)
    tasks: dict[str, list[Arm]] = {}
    for arm in arms:
        tasks.setdefault(arm.first.task, []).append(arm)
    with progress_bar(total=len(arms) * len(metrics), desc="intervals and tests", unit=" metrics", leave=False) as bar:
        tables = tuple(
            _Comparison(of_task, baseline, pairs, metrics, paper=paper, samples=samples, advice=advice).table(bar)
            for of_task in tasks.values()
        )
    return Table(tables, paper, _footer(tables, samples))


def _check_options(metrics: Sequence[str], samples: int) -> None:
    if unknown := [name for name in metrics if name not in METRICS]:
        raise UserError(f"expected metrics of {', '.join(METRICS)}, found {', '.join(unknown)}; fix --metrics")
    if not metrics or samples < 1:
        raise UserError(f"expected a metric and a sample or more, found {len(metrics)} and {samples}; 1000 is usual")


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
    """The arms of one task beside each other; the notes for the reader are collected on the way."""

    def __init__(
        self,
        arms: Sequence[Arm],
        baseline: Path | None,
        pairs: Sequence[tuple[str, str]] | None,
        metrics: Sequence[str],
        *,
        paper: bool,
        samples: int,
        advice: bool,
    ) -> None:
        self.arms, self.paper, self.samples, self.advice = arms, paper, samples, advice
        self.base = arms[0]
        for arm in arms:
            for field in ("classes", "positive"):
                expected, found = getattr(self.base.first, field), getattr(arm.first, field)
                if expected != found:
                    raise UserError(
                        f"expected the same {field} in all evaluations of {arm.first.task}, found {expected} in "
                        f"{self.base.name} and {found} in {arm.name}; make a table of each"
                    )
        several = len(self.base.first.classes) > 2
        self.metrics = tuple(dict.fromkeys("f1_micro" if several and name == "f1" else name for name in metrics))
        self._noted: dict[str, list[str]] = {}  # a note: the arms it is about, none where it is about the task
        chosen = next((arm for arm in arms if baseline in [each.folder for each in arm.evaluations]), None)
        self.contrasts = contrasts_of(arms, baseline=chosen, pairs=pairs)
        self.ambiguous = [] if chosen else ambiguous_contrasts(arms, pairs=pairs)

    def table(self, bar: Any) -> TaskTable:
        """The rows and notes of the task; moves the progress bar by one for each arm and metric."""
        rows = []
        for arm in self.arms:
            for each in arm.evaluations:
                self._note_state(arm.name, each)
            if len(arm.evaluations) > 1:
                names = ", ".join(sorted(each.folder.name for each in arm.evaluations))
                self._note(f"one arm of {counted(len(arm.evaluations), 'pre-training')} ({names}).", arm.name)
            others = [(other, folds) for other in self._others(arm) if (folds := self._common(arm, other)) is not None]
            for metric in self.metrics:
                rows += self._rows(arm, metric, others)
                bar.update()
        for arm, reduction, several in self.ambiguous:
            names = ", ".join(other.name for other in several)
            self._note(
                f"not compared with {reduction}, of which there are {len(several)} arms of the same data set, method "
                f"and mode ({names})"
                + (": name one by --baseline EVAL, or leave the others out." if self.advice else "."),
                arm.name,
            )
        if not self.contrasts and not self.ambiguous and len(self.arms) > 1:
            self._note(
                "nothing is compared: there is no evaluation with the reduction ALL of the same data set, method and "
                "mode" + ("; name what to compare with by --baseline EVAL." if self.advice else ".")
            )
        corrected = self._corrected(rows)
        if self.paper:
            self._explain_paper()
        every = {fold for arm in self.arms for each in arm.evaluations for fold in each.folds.values()}
        repeats = len({fold.repeat for fold in every})
        return TaskTable(self._title(), bool(self.base.first.folds), repeats, corrected, tuple(self._notes()))

    def _note(self, note: str, name: str = "") -> None:
        names = self._noted.setdefault(note, [])
        names += [name] if name and name not in names else []

    def _notes(self) -> Iterator[str]:
        """Each note once, with the names of all arms that it is about."""
        for note, names in self._noted.items():
            whose_note = "all" if len(names) == len(self.arms) > 1 else ", ".join(names)
            yield f"{whose_note}: {note}" if names else note

    def _note_state(self, name: str, each: FinishedRuns) -> None:
        if each.unfinished:
            self._note(f"{', '.join(each.unfinished)} not finished (no {METRICS_FILE}), left out.", name)
        if each.leaks is None:
            self._note("leaks between splits were not looked for.", name)
        for place, leaks in _leaks(each).items():
            self._note(f"{place}: {leaks}{'; see leakage.csv of the runs' if self.advice else ''}.", name)

    def _rows(self, arm: Arm, metric: str, others: Sequence[tuple[Arm, set[Fold]]]) -> list[Row]:
        """The row of an arm, or one for each of its comparisons."""
        first, function, networks = arm.first, self._function(metric), arm.networks()
        repeated = networks if arm.pretrainings > 1 else [[run] for run in arm.runs]
        _, std = mean_std([mean_of_runs(runs, function) for runs in repeated])
        mean, _ = mean_std([mean_of_runs(runs, function) for runs in networks])
        low, high = arm_interval(networks, function, samples=self.samples, level=LEVEL)
        row = Row(
            first.task,
            arm.name,
            first.labels[0] or "",
            first.labels[1] or "",
            first.labels[2] or "",
            mode=first.mode,
            rescored=first.rescored,
            pretrainings=arm.pretrainings,
            runs=len(arm.runs),
            unit=unit_of(arm.runs),
            units=units(arm.runs)[1],
            mean_of=_mean_of(arm),
            metric=metric,
            mean=mean,
            std=std,
            low=low,
            high=high,
            about=ANY_NETWORKS if len(networks) > 1 else THESE_NETWORKS,
        )
        if self.paper and (value := value_in_paper(first, metric)):
            row = replace(row, paper_mean=value[0], paper_std=value[1])
        return [self._compared(row, arm, other, folds) for other, folds in others] or [row]

    def _compared(self, row: Row, arm: Arm, other: Arm, folds: set[Fold]) -> Row:
        """The row with its comparison with another arm added."""
        ours, theirs = (each.networks(folds or None) for each in (arm, other))
        found = arm_difference(ours, theirs, self._function(row.metric), samples=self.samples, level=LEVEL)
        return replace(
            row,
            baseline=other.name,
            difference=found.value,
            difference_low=found.low,
            difference_high=found.high,
            difference_about=ANY_NETWORKS if found.networks else THESE_NETWORKS,
            p=found.p,
            detectable=found.detectable,
            too_small=found.detectable > abs(found.value),
        )

    def _others(self, arm: Arm) -> list[Arm]:
        return [other for one, other in self.contrasts if one is arm]

    def _common(self, arm: Arm, other: Arm) -> set[Fold] | None:
        """The folds on which two arms are compared, none for a task without folds; None where they cannot be."""
        folds = arm.folds & other.folds
        test_sets = [
            {each.folds.get(number, _NO_FOLD): run for each in one.evaluations for number, run in each.runs.items()}
            for one in (arm, other)
        ]
        with_what = f"compared with {other.name}"
        shared = folds or test_sets[0].keys() & test_sets[1].keys()
        if not shared or bool(arm.folds) != bool(other.folds):
            self._note(f"not {with_what}, with which it has no fold in common.", arm.name)
            return None
        for fold in sorted(shared):
            if differing := difference(test_sets[0][fold], test_sets[1][fold]):
                self._note(
                    f"not {with_what}, which has other {differing}; their means are not comparable either.", arm.name
                )
                return None
        if folds and folds != test_sets[0].keys() | test_sets[1].keys():
            self._note(f"{with_what} on the folds that both have, {_said(folds)}.", arm.name)
        if unequal := unlike(arm, other):
            self._note(f"{with_what}, which differs in more: {'; '.join(unequal)}.", arm.name)
        if arm.pretrainings and other.pretrainings and arm.pretrainings != other.pretrainings:
            counts = f"{counted(arm.pretrainings, 'pre-training')}, {other.name} {other.pretrainings}"
            self._note(f"it has {counts}.", arm.name)
        return folds

    def _corrected(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The rows with p-values corrected for the number of comparisons; micro F1 and accuracy count as one."""
        p = {_comparison(row): row.p for row in rows if not math.isnan(row.p)}
        corrected = dict(zip(p, holm(list(p.values())).tolist(), strict=True))
        return tuple(replace(row, p_holm=corrected.get(_comparison(row), _NAN)) for row in rows)

    def _explain_paper(self) -> None:
        """Note why a number of the paper is missing or does not compare."""
        base = self.base.first
        if base.task == "Brain":
            self._note(f"{printed.BRAIN_DATA}.")
        for arm in self.arms:
            if reason := not_in_paper(arm.first) or unlike_paper(arm.first):
                self._note(f"{reason}.", arm.name)
        if "f1" in self.metrics and base.positive != printed.POSITIVE:
            self._note(f"the paper's F1 is of label {printed.POSITIVE}, this one of {base.positive}.")

    def _function(self, metric: str) -> Metric:
        return partial(f1, positive=self.base.first.positive) if metric == "f1" else METRICS[metric]

    def _title(self) -> str:
        base, runs = self.base.first, self.base.runs
        images = len({image for run in runs for image in run.image_ids})
        of_units = f"of {found}" if (found := whose(runs)) else "(patients and sources not known)"
        folds, repeats = ({fold[place] for fold in base.folds.values()} for place in (1, 0))
        repeated = f", repeated {len(repeats)} times" if len(repeats) > 1 else ""
        in_folds = f" in {counted(len(folds), 'fold')}{repeated}" if base.folds else ""
        of_class = f"; F1 is of class {base.classes[base.positive]!r}" if "f1" in self.metrics else ""
        return f"{base.task}: {counted(images, 'test image')} {of_units}{in_folds}{of_class}"


def named(evaluations: Sequence[FinishedRuns]) -> Mapping[str, FinishedRuns]:
    """Evaluations of a task as tables name them: by as many last parts of their paths as tell them apart."""
    depth = 1
    while len({each.folder.parts[-depth:] for each in evaluations}) < len(evaluations):
        depth += 1
    return {"/".join(each.folder.parts[-depth:]): each for each in evaluations}


def _mean_of(arm: Arm) -> str:
    """What the mean of an arm is over: `5 runs`, `5 folds`, `5 x 5 folds`, `3 pre-trainings of 5 runs`."""
    counts = {_count_of_runs(each) for each in arm.evaluations}
    runs = counts.pop() if len(counts) == 1 else f"{counted(len(arm.runs), 'run')} in all"
    return runs if arm.pretrainings < 2 else f"{counted(arm.pretrainings, 'pre-training')} of {runs}"


def _count_of_runs(each: FinishedRuns) -> str:
    """The runs of an evaluation: `5 runs`, `5 folds`, `3 x 5 folds` of three repeats, `14 folds of 3 repeats`."""
    found, repeats = set(each.folds.values()), {fold.repeat for fold in each.folds.values()}
    if not found or len(found) < len(each.runs):  # folds that ran several times are runs
        return counted(len(each.runs), "run")
    if len(repeats) < 2:
        return counted(len(found), "fold")
    sizes = {sum(fold.repeat == repeat for fold in found) for repeat in repeats}
    if len(sizes) > 1:
        return f"{counted(len(found), 'fold')} of {len(repeats)} repeats"
    return f"{len(repeats)} x {counted(sizes.pop(), 'fold')}"


def _said(folds: Collection[Fold]) -> str:
    """Folds by their numbers: `0, 1, 2`, or `0, 1 of repeat 0; 0, 2 of repeat 1`."""
    of: dict[int, list[str]] = {}
    for fold in sorted(folds):
        of.setdefault(fold.repeat, []).append(str(fold.fold))
    if list(of) == [0]:
        return ", ".join(of[0])
    return "; ".join(f"{', '.join(numbers)} of repeat {repeat}" for repeat, numbers in of.items())


def _leaks(each: FinishedRuns) -> dict[str, str]:
    """Counts of leaks by place: between the splits, and between them and the pre-training set."""
    found: dict[str, list[str]] = {}
    for leak, count in (each.leaks or {}).items():
        name = leak.removeprefix("pretraining_")
        place = "leaks found before training" if name == leak else "shared with the pre-training set"
        found.setdefault(place, []).append(f"{name.replace('_', ' ')} {count}")
    return {place: ", ".join(counts) for place, counts in found.items()}


def _comparison(row: Row) -> tuple[str, str, str]:
    """What is compared; micro F1 is accuracy where an image has one label."""
    return row.evaluation, row.baseline, "accuracy" if row.metric == "f1_micro" else row.metric


def _footer(tasks: Sequence[TaskTable], samples: int) -> tuple[str, ...]:
    """Lines below the tables: the meaning of the columns, and what could mislead a reader."""
    rows = [row for task in tasks for row in task.rows]
    shown = [row for row in rows if not math.isnan(row.paper_mean)]
    compared = [row for row in rows if row.baseline]
    tests = _TESTS if any(not math.isnan(row.p) for row in rows) else ""
    repeated = any(task.repeats > 1 for task in tasks)
    words = {
        "folds": "; folds are scored on other pictures each" if any(task.folds for task in tasks) else "",
        "repeats": ", and in each repeat on the same pictures, so that it is no standard error" if repeated else "",
        "pretrainings": "; of several pre-trainings, over their means" if any(r.pretrainings > 1 for r in rows) else "",
    }
    lines = {
        _DEVIATION.format(**words): any(not math.isnan(row.std) for row in rows),
        _SHARED: any(not math.isnan(row.std) and row.pretrainings == 1 for row in rows),
        _INTERVAL.format(percent=round(100 * LEVEL), samples=samples, repeats=_REPEATED if repeated else ""): True,
        _DIFFERENCE.format(tests=tests): bool(compared),
        _DETECTABLE.format(power=round(100 * POWER)): any(not math.isnan(row.detectable) for row in compared),
        _NO_P.format(least=LEAST_NETWORKS): any(math.isnan(row.p) for row in compared),
        _MICRO: any(row.metric == "f1_micro" for row in rows),
        _PAPER: bool(shown),
        f"paper: {printed.F1_OF_ORGMNIST}": any((row.task, row.metric) == ("OrgMNIST", "f1_micro") for row in shown),
    }
    return tuple(line for line, needed in lines.items() if needed)
