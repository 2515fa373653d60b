"""An experiment: which pre-trainings are compared on which tasks, read from one JSON file and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reproduction.arms import Pretraining, Question, Reduction
from reproduction.places import ALL, EXPERIMENTS, STAGES

TINY = EXPERIMENTS / "tiny.json"

Settings = Mapping[str, Mapping[str, Any]]  # by data set, method or task, or ALL: option and value


@dataclass(frozen=True)
class Experiment:
    """Pre-training sets x methods x reductions x seeds x checkpoint epochs x tasks x runs.

    Args:
        name: of its file, and of what comes out of it; not in the file.
        title: what it is, for people.
        tasks: that encoders are fine-tuned on, names of `classification.tasks.TASKS`.
        pretrain_datasets: any names; --data says where each is.
        methods: titles of methods that have a bundle.
        reductions: labels, see `Reduction.of`; in a dictionary, those of each method.
        pretrain_seeds: trainings of each encoder; the paper has one.
        max_epochs: of pre-training, equal for all sets, as in the paper.
        max_steps: of pre-training, equal for all sets instead.
        checkpoint_epochs: whose encoders are fine-tuned; the best by validation is told. Empty: the last one.
        checkpoint_steps: whose encoders are probed too, of the `followed` arms.
        followed: arms, each a method and a reduction, that are probed during the training as well.
        scratch: fine-tune random weights too.
        probes: labelled pictures that frozen encoders are probed on: options of `probe` by name of the set, or
            `labels`, a regular expression for the path of each class's pictures.
        baselines: networks that are probed beside, as `probe` takes them; {NAME} is the folder of --data NAME.
        questions: contrasts between arms of the probes, by name, and nothing else is tested: `plus` and `minus` are
            lists of arms, each a method and a reduction. All arms of a seed begin alike, and are compared in pairs.
        margin: difference of AUC below which two arms count as equal.
        contrasts: pairs of reductions that are compared, the first with the second, in each data set and method.
            Empty: each with ALL.
        runs: of each fine-tuning; a task with folds takes each fold once.
        folds: of such a task.
        as_released: stages that take the released settings (as_released.json, `reduce --as_released`).
        deepnet_weights: file with the ImageNet ResNet50 that DeepNet compares features of, or imagenet.
        reduce_settings: further options of `reduce`, by data set or `all`.
        pretrain_settings: further settings of the bundle, by method or `all`.
        evaluate_settings: further settings of the bundle, by task or `all`; frozen_epochs is for pre-trained encoders.
        table_samples: resamples of each interval and test in the table.
        synthetic: whether data and networks are those of `tiny`; not of a file.
    """

    name: str
    title: str
    tasks: tuple[str, ...] = ()
    pretrain_datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    reductions: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    pretrain_seeds: tuple[int, ...] = (0,)
    max_epochs: int = 800
    max_steps: int | None = None
    checkpoint_epochs: tuple[int, ...] = ()
    checkpoint_steps: tuple[int, ...] = ()
    followed: tuple[tuple[str, str], ...] = ()
    scratch: bool = False
    probes: Settings = field(default_factory=dict)
    baselines: Mapping[str, str] = field(default_factory=dict)
    questions: Mapping[str, Any] = field(default_factory=dict)
    margin: float = 0.02
    contrasts: tuple[tuple[str, str], ...] = ()
    runs: int = 5
    folds: int = 5
    as_released: tuple[str, ...] = ()
    deepnet_weights: str = "imagenet"
    reduce_settings: Settings = field(default_factory=dict)
    pretrain_settings: Settings = field(default_factory=dict)
    evaluate_settings: Settings = field(default_factory=dict)
    table_samples: int = 1000
    synthetic: bool = False

    @property
    def pretrainings(self) -> list[Pretraining]:
        """All trainings of encoders, in the order of the table."""
        return [
            Pretraining(dataset, method, Reduction.of(label), seed)
            for dataset in self.pretrain_datasets
            for method in self.methods
            for label in self.reductions_of(method)
            for seed in self.pretrain_seeds
        ]

    def reductions_of(self, method: str) -> tuple[str, ...]:
        """The labels of a method's reductions."""
        return self.reductions if isinstance(self.reductions, tuple) else self.reductions[method]

    @property
    def all_reductions(self) -> tuple[str, ...]:
        """The labels of all methods, each once."""
        return tuple(dict.fromkeys(label for method in self.methods for label in self.reductions_of(method)))

    @property
    def all_questions(self) -> list[Question]:
        """The contrasts that were named before the runs."""
        return [Question(name, each["plus"], each["minus"]) for name, each in self.questions.items()]

    @property
    def data_names(self) -> tuple[str, ...]:
        """All that --data can name: data sets, sets of pictures, and what baselines name in braces."""
        braces = (name for network in self.baselines.values() for name in re.findall(r"\{(\w+)\}", network))
        return tuple(dict.fromkeys((*self.pretrain_datasets, *self.tasks, *self.probes, *braces)))

    @property
    def epochs(self) -> tuple[int | None, ...]:
        """The checkpoints that are fine-tuned; None is the end of a training."""
        return self.checkpoint_epochs or ((self.max_epochs,) if self.max_steps is None else (None,))


def tiny(experiment: Experiment) -> Experiment:
    """The smallest experiment that goes the whole way: one data set and method, two reductions, small networks.

    Reductions that need no further package or weights (ALL, EveryN, HASH) come first.
    """
    overlay = json.loads(TINY.read_text(encoding="utf-8"))
    labels = experiment.reductions_of(experiment.methods[0]) if experiment.methods else ()
    kept = [label for label in labels if Reduction.of(label).measure == "hash"]
    both = [label for label in labels if label not in kept]
    length: dict[str, Any] = {"max_epochs": overlay["max_epochs"], "checkpoint_epochs": ()}
    if experiment.max_steps is not None:
        length = {"max_steps": overlay["max_steps"]}
    elif experiment.checkpoint_epochs:
        length["checkpoint_epochs"] = tuple(overlay["checkpoint_epochs"])
    return replace(
        experiment,
        title=f"{experiment.title} (tiny: synthetic data and small networks, not to be compared with the paper)",
        synthetic=True,
        pretrain_datasets=experiment.pretrain_datasets[:1],
        methods=experiment.methods[:1],
        reductions=tuple((kept + both)[:2]),
        contrasts=tuple(pair for pair in experiment.contrasts if {*pair} <= {*(kept + both)[:2]}),
        pretrain_seeds=experiment.pretrain_seeds[:1],
        scratch=True,
        runs=min(experiment.runs, overlay["runs"]),
        folds=overlay["folds"],
        table_samples=overlay["table_samples"],
        **length,
        **{f"{stage}_settings": overlay[f"{stage}_settings"] for stage in STAGES},
    )


def settings_of(settings: Settings, name: str) -> dict[str, Any]:
    """What is set for all, and over it for `name`."""
    return {**settings.get(ALL, {}), **settings.get(name, {})}
