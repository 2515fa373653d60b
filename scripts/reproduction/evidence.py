"""What the kept probes of an experiment show: arms with intervals, the contrasts named before the runs, two figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.classification.contrast import Contrast, contrast
from lessismore_transforms.classification.crossed import arm_interval
from lessismore_transforms.classification.metrics import auc
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import holm, mean_of_runs
from lessismore_transforms.classification.units import counted_units, units
from lessismore_transforms.wording import aligned, counted
from reproduction.arms import Pretraining, Question, Reduction
from reproduction.experiment import Experiment
from reproduction.kept import Kept
from reproduction.places import RANDOM

_Runs: TypeAlias = list[Predictions]
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Evidence:
    """The networks of an experiment that were probed.

    Args:
        experiment: what was asked.
        kept: what was found.
    """

    experiment: Experiment
    kept: Kept

    @cached_property
    def runs(self) -> dict[tuple[str, str, int | None], _Runs]:
        """The test predictions by pictures, name of the network and seed; None for networks of others."""
        lines = [line for line in self.kept.lines if "pictures" in line]
        return {(line["pictures"], line["network"], line["seed"]): self.kept.runs(line) for line in lines}

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of which all arms were trained, and probed on all pictures."""
        arms = [*dict.fromkeys(each.arm for each in self.experiment.pretrainings), RANDOM]
        wanted = [(name, arm) for name in self.pictures for arm in arms]
        trained = self.kept.identities()
        lacking = {each.seed for each in self.experiment.pretrainings if f"pretrain/{each.name}" not in trained}
        seeds = [seed for seed in self.experiment.pretrain_seeds if seed not in lacking]
        return [seed for seed in seeds if all((*each, seed) in self.runs for each in wanted)]

    @property
    def code(self) -> list[str]:
        """The versions of the code that these networks come from."""
        names = {each.arm for each in self.experiment.pretrainings} | {RANDOM, *self.experiment.baselines}
        lines = [line for line in self.kept.lines if line.get("network") in names]
        return list(dict.fromkeys(line.get("commit", line["version"]) for line in lines))

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the sets of pictures."""
        return tuple(self.experiment.probes)

    def networks(self, pictures: str, name: str) -> list[_Runs]:
        """The networks of an arm, seed by seed, each as its runs."""
        return [self.runs[pictures, name, seed] for seed in self.seeds]

    def arm(self, method: str, label: str) -> str:
        """The name of an arm's networks."""
        return Pretraining(self.experiment.pretrain_datasets[0], method, Reduction.of(label), 0).arm

    def answer(self, question: Question, pictures: Sequence[str]) -> Contrast:
        """A question's contrast as the mean over sets of pictures."""
        arms = [self.arm(*each) for each in (*question.plus, *question.minus)]
        weights = [1.0] * len(question.plus) + [-1.0] * len(question.minus)
        tasks = [[self.networks(each, arm) for arm in arms] for each in pictures]
        return contrast(tasks, weights, auc, samples=self.experiment.table_samples)


def write_evidence(experiment: Experiment, kept: Kept) -> str:
    """Write the table and figures beside what was kept; returns the table and the places as text.

    Raises:
        OutputError: a file cannot be written.
    """
    evidence = Evidence(experiment, kept)
    if not evidence.seeds:
        return "no seed of pre-training is complete yet: there is nothing to compare"
    path = kept.path.with_name(experiment.name)  # several experiments may keep their results in one file
    text = "\n\n".join((_arms_text(evidence), *_questions_text(evidence)))
    with atomic_write(path.with_name(f"{path.name}.txt")) as file:
        file.write(f"{experiment.title}\n\n{text}\n")
    figures = [path.with_name(f"{path.name}_contrasts.png")] if experiment.questions else []
    for figure in figures:
        _draw_contrasts(evidence, figure)
    if experiment.followed:
        figures.append(path.with_name(f"{path.name}_steps.png"))
        _draw_steps(evidence, figures[-1])
    return "\n".join((text, "", f"table: {path}.txt", *(f"figure: {each}" for each in figures)))


def _arms_text(evidence: Evidence) -> str:
    """The AUC of each arm, and of networks that were not pre-trained here."""
    experiment = evidence.experiment
    names = {
        evidence.arm(method, label): f"{method} {label}"
        for method in experiment.methods
        for label in experiment.reductions_of(method)
    } | {RANDOM: "random weights"}
    rows = [["AUC of a linear probe", *evidence.pictures, "mean", "over seeds"]]
    for name, title in names.items():
        cells, means = [], []
        for pictures in evidence.pictures:
            networks = evidence.networks(pictures, name)
            low, high = arm_interval(networks, auc, samples=experiment.table_samples, level=_LEVEL)
            each = [mean_of_runs(runs, auc) for runs in networks]
            means.append(each)
            cells.append(f"{statistics.fmean(each):.3f} ({low:.3f} to {high:.3f})")
        by_seed = [statistics.fmean(each) for each in zip(*means, strict=True)]
        spread = f"+- {statistics.stdev(by_seed):.3f}" if len(by_seed) > 1 else ""
        rows.append([title, *cells, f"{statistics.fmean(by_seed):.3f}", spread])
    for name in experiment.baselines:
        found = [evidence.runs.get((pictures, name, None)) for pictures in evidence.pictures]
        values = [math.nan if runs is None else mean_of_runs(runs, auc) for runs in found]
        rows.append([name, *(f"{value:.3f}" for value in values), f"{statistics.fmean(values):.3f}", ""])
    sets = [f"{name}: {_size(evidence, name)}" for name in evidence.pictures]
    seeds = f"{counted(len(evidence.seeds), 'seed')} of each arm: {', '.join(map(str, evidence.seeds))}"
    if len(evidence.seeds) < len(experiment.pretrain_seeds):
        seeds = f"Interim, {seeds} (of {len(experiment.pretrain_seeds)})"
    return "\n".join(
        (
            aligned(rows, left=1),
            "",
            f"{seeds}. {'; '.join(sets)}. Code: {', '.join(evidence.code)}.",
            f"In brackets: {100 * _LEVEL:.0f} % interval over seeds and units. +-: standard deviation of the mean over "
            "sets, between seeds.",
        )
    )


def _size(evidence: Evidence, pictures: str) -> str:
    runs = next(runs for (name, *_), runs in evidence.runs.items() if name == pictures)
    table = evidence.kept.pictures[pictures]
    return f"{counted(len(table['labels']), 'picture')} of {counted_units(units(runs)[1], table['unit'])}"


def _questions_text(evidence: Evidence) -> list[str]:
    """The answers to the questions, tested over all pictures; of each set of pictures an interval only."""
    experiment = evidence.experiment
    if not experiment.questions:
        return []
    answers = {question.name: evidence.answer(question, evidence.pictures) for question in experiment.all_questions}
    different = _corrected({name: each.p for name, each in answers.items()})
    equal = _corrected({name: each.p_equivalent(experiment.margin) for name, each in answers.items()})
    margin = f"{experiment.margin:g}"
    rows = [["question", *evidence.pictures, "mean", "p", f"p (within {margin})", "detectable", "seeds for it"]]
    for question in experiment.all_questions:
        answer = answers[question.name]
        alone = [evidence.answer(question, [pictures]) for pictures in evidence.pictures]
        needed = answer.networks_for(experiment.margin) if answer.networks > 1 else None
        rows.append(
            [
                question.name,
                *(_interval(each) for each in (*alone, answer)),
                _p(different[question.name]),
                _p(equal[question.name]),
                f"{answer.detectable:.3f}",
                "" if answer.networks == 1 else "none is enough" if needed is None else f"{needed}",
            ]
        )
    return [
        aligned(rows, left=1),
        f"Differences of AUC, arms paired by seed, with {100 * _LEVEL:.0f} % intervals over seeds and units. Tested is "
        "the mean over the sets only, by the contrasts that the experiment's file named; each kind of p has Holm's "
        f"correction for them. p (within {margin}): of two one-sided tests that the difference is {margin} or more "
        "either way; below 0.05 the arms are equal in that sense. detectable: with a power of 80 %. seeds for it: as "
        f"many make {margin} detectable with these pictures. There is no p for fewer than three seeds.",
    ]


def _corrected(tests: Mapping[str, float]) -> dict[str, float]:
    """The p-values of several tests with Holm's correction; those that have none stay without."""
    known = {name: p for name, p in tests.items() if not math.isnan(p)}
    return {**tests, **dict(zip(known, holm(list(known.values())), strict=True))} if known else dict(tests)


def _interval(found: Contrast) -> str:
    low, high = found.interval(_LEVEL)
    return f"{found.value:+.3f} ({low:+.3f} to {high:+.3f})"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _draw_contrasts(evidence: Evidence, path: Path) -> None:
    """Each question's contrast with its interval, over all pictures and for each set."""
    from matplotlib.figure import Figure  # not pyplot: it keeps state and may look for a display

    questions, margin = evidence.experiment.all_questions, evidence.experiment.margin
    groups: list[tuple[str, Sequence[str]]] = [("all sets", evidence.pictures)]
    groups += [(name, [name]) for name in evidence.pictures] if len(evidence.pictures) > 1 else []
    figure = Figure(figsize=(7.5, 0.9 + 0.9 * len(questions)), layout="constrained", dpi=130)
    axes = figure.subplots()
    axes.axvspan(-margin, margin, color="0.92", zorder=0, label=f"counts as equal, {margin:g}")
    axes.axvline(0, color="0.5", lw=0.8)
    for number, (title, pictures) in enumerate(groups):
        found = [evidence.answer(question, pictures) for question in questions]
        places = [row + 0.14 * (number - (len(groups) - 1) / 2) for row in range(len(questions))]
        values = [each.value for each in found]
        low, high = zip(*(each.interval(_LEVEL) for each in found), strict=True)
        reach = [[v - a for v, a in zip(values, low, strict=True)], [b - v for v, b in zip(values, high, strict=True)]]
        style: dict[str, Any] = {"color": "k", "ms": 5} if number == 0 else {"color": f"C{number - 1}", "ms": 3.5}
        axes.errorbar(values, places, xerr=reach, fmt="o", capsize=2, lw=1, label=title, **style)
    axes.set_yticks(range(len(questions)), [question.name for question in questions])
    axes.invert_yaxis()
    axes.set_xlabel(f"difference of AUC, {100 * _LEVEL:.0f} % interval over seeds and units")
    axes.set_title(f"{evidence.experiment.title}, {counted(len(evidence.seeds), 'seed')}", loc="left", fontsize=9)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def _draw_steps(evidence: Evidence, path: Path) -> None:
    """AUC against the steps of pre-training for the arms that are followed: the mean over pictures, seeds as lines."""
    from matplotlib.figure import Figure  # not pyplot: it keeps state and may look for a display

    experiment = evidence.experiment
    assert experiment.max_steps is not None
    figure = Figure(figsize=(6, 4), layout="constrained", dpi=130)
    axes = figure.subplots()
    start = _by_seed(evidence, RANDOM)
    for number, (method, label) in enumerate(experiment.followed):
        arm = evidence.arm(method, label)
        points = {0: start}
        points |= {step: _by_seed(evidence, f"{arm}.{step}") for step in experiment.checkpoint_steps}
        points[experiment.max_steps] = _by_seed(evidence, arm)
        for values in zip(*points.values(), strict=True):
            axes.plot([*points], values, color=f"C{number}", lw=0.5, alpha=0.5)
        means = [statistics.fmean(values) for values in points.values()]
        axes.plot([*points], means, color=f"C{number}", lw=2, marker="o", ms=4, label=f"{method} {label}")
    axes.set_xlabel("steps of pre-training")
    axes.set_ylabel(f"AUC, mean over {counted(len(evidence.pictures), 'set')}")
    axes.legend(fontsize=8, frameon=False)
    axes.set_title("thick: mean over seeds", loc="left", fontsize=9)
    _save(figure, path)


def _by_seed(evidence: Evidence, name: str) -> list[float]:
    """The mean AUC over the sets of pictures of each seed."""
    each = [[mean_of_runs(runs, auc) for runs in evidence.networks(name_, name)] for name_ in evidence.pictures]
    return [statistics.fmean(values) for values in zip(*each, strict=True)]


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png")
