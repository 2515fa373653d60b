"""An experiment: which pre-trainings are compared on which tasks, read from one JSON file and checked."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from lessismore_transforms import methods
from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "bundles"
TINY = ROOT / "scripts" / "experiments" / "tiny.json"

METHODS = {method.title: method for method in methods.METHODS.values() if method.bundle}
MEASURES = {"SSIM": "ssim", "MI": "mi", "DeepNet": "deepnet", "HASH": "hash"}
REMEDIES: dict[
    str, dict[str, str]
] = {  # settings of the pre-training that keep near copies and do something about them
    "rotate": {"sampling": "rotate"},
    "spread": {"sampling": "spread"},
    "mask": {"near_copies": "mask"},
}
STAGES = ("reduce", "pretrain", "evaluate")
ALL = "all"  # in settings: of every data set, method or task

_REDUCE_OPTIONS = (
    "bins", "body", "device", "encoder", "features", "include", "keep_patient_ids", "memory_mb", "no_report",
    "patient_key", "pattern", "pixels", "precision", "scheduler", "window", "workers",
)  # fmt: skip
_OWN = {  # what the driver itself gives each bundle
    "pretrain": (
        "dataset_dir", "selection", "output_dir", "resume", "seed", "max_epochs", "max_steps", "export_epochs",
    ),
    "evaluate": (
        "dataset_dir", "output_dir", "resume", "run_index", "fold", "folds", "mode", "pretrained", "method",
        "pretrain_dataset", "ssl_method", "reduction", "pretraining", "pretraining_selection",
    ),
}  # fmt: skip
_NOT_SETTINGS = ("imports", "initialize", "run", "finalize", "bundle_root")

Settings = Mapping[str, Mapping[str, Any]]  # by data set, method or task, or ALL: option and value


class Reduction(NamedTuple):
    """One way to reduce a data set.

    Args:
        label: as in the paper's tables.
        method: of `reduce` and `select`.
        option: of `select` that says how much, "" where there is none.
        value: of that option.
        remedy: what is done about near copies in the training, a key of REMEDIES; "" where they are discarded alone.
    """

    label: str
    method: str
    option: str
    value: str
    remedy: str = ""

    @classmethod
    def of(cls, label: str) -> Reduction:
        """Read a label: ALL, EveryN-10%, SSIM-10% (MI, DeepNet, HASH too), HASH-6; with +rotate, +spread or +mask.

        Raises:
            UserError: it is none of these.
        """
        base, plus, remedy = label.partition("+")
        if plus:
            if remedy not in REMEDIES:
                raise _unknown("a remedy", remedy, tuple(REMEDIES))
            if remedy == "rotate" and not (base.startswith("HASH-") and cls.of(base).option == "threshold"):
                raise UserError(f"expected a HASH threshold to rotate, such as HASH-6+rotate, found {label}")
            return cls.of(base)._replace(label=label, remedy=remedy)
        if label == "ALL":
            return cls(label, "all", "", "")
        if match := re.fullmatch(r"EveryN-(\d+)%", label):
            share = int(match[1])
            if share < 1 or 100 % share:
                raise UserError(f"expected EveryN-P% with P a divisor of 100, found {label}: 20, 10 and 5 are usual")
            return cls(label, "every_n", "step", str(100 // share))
        if match := re.fullmatch(r"(\w+)-(\d+)%", label):
            if match[1] in MEASURES and 0 < int(match[2]) <= 100:
                return cls(label, MEASURES[match[1]], "fraction", f"{int(match[2]) / 100:g}")
        elif (match := re.fullmatch(r"HASH-(\d+)", label)) and int(match[1]) <= 64:
            return cls(label, "hash", "threshold", match[1])
        tenths = [f"{name}-10%" for name in ("EveryN", *MEASURES)]
        raise _unknown("a reduction", label, ("ALL", "EveryN-20%", *tenths, "HASH-3", "HASH-6", "HASH-12"))

    @property
    def measure(self) -> str:
        """The measure of the `reduce` that it is selected from; what measures nothing takes HASH, which costs least."""
        return self.method if self.method in MEASURES.values() else "hash"

    @property
    def name(self) -> str:
        """The label where file names want no percent sign."""
        return self.label.replace("%", "pct")

    @property
    def selection(self) -> str:
        """Name of the selection, which is the same with and without a remedy."""
        return self.name.partition("+")[0]


class Pretraining(NamedTuple):
    """One training of an encoder."""

    dataset: str
    method: str
    reduction: Reduction
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.dataset}_{self.method}_{self.reduction.name}_seed{self.seed}"


@dataclass(frozen=True)
class Experiment:
    """Pre-training sets x methods x reductions x seeds x checkpoint epochs x tasks x runs.

    Args:
        name: of its file, and of what comes out of it; not in the file.
        title: what it is, for people.
        tasks: that encoders are fine-tuned on, names of `classification.tasks.TASKS`.
        pretrain_datasets: any names; --data says where each is.
        methods: titles of methods that have a bundle.
        reductions: labels as in the paper's tables.
        pretrain_seeds: trainings of each encoder; the paper has one.
        max_epochs: of pre-training, equal for all sets, as in the paper.
        max_steps: of pre-training, equal for all sets instead.
        checkpoint_epochs: whose encoders are fine-tuned; the best by validation is told. Empty: the last one.
        scratch: fine-tune random weights too.
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
    tasks: tuple[str, ...]
    pretrain_datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    reductions: tuple[str, ...] = ()
    pretrain_seeds: tuple[int, ...] = (0,)
    max_epochs: int = 800
    max_steps: int | None = None
    checkpoint_epochs: tuple[int, ...] = ()
    scratch: bool = False
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
            for label in self.reductions
            for seed in self.pretrain_seeds
        ]

    @property
    def epochs(self) -> tuple[int | None, ...]:
        """The checkpoints that are fine-tuned; None is the end of a training."""
        return self.checkpoint_epochs or ((self.max_epochs,) if self.max_steps is None else (None,))


def read_experiment(path: Path) -> Experiment:
    """Read and check an experiment.

    Raises:
        UserError: the file cannot be read, or holds something unknown.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        known = sorted(file.name for file in TINY.parent.glob("*.json") if file != TINY)
        raise UserError(f"expected an experiment, such as {', '.join(known)}, found {path}: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"expected an experiment in {path}, found a {type(content).__name__}: write {{...}}")
    try:
        return _checked(path.stem, content)
    except ValueError as error:
        raise UserError(f"{path.name}: {error}") from error


def tiny(experiment: Experiment) -> Experiment:
    """The smallest experiment that goes the whole way: one data set and method, two reductions, small networks.

    Reductions that need no further package or weights (ALL, EveryN, HASH) come first.
    """
    overlay = json.loads(TINY.read_text(encoding="utf-8"))
    kept = [label for label in experiment.reductions if Reduction.of(label).measure == "hash"]
    both = [label for label in experiment.reductions if label not in kept]
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


def _unknown(what: str, found: object, known: Iterable[str]) -> ValueError:
    names = list(known)
    (closest,) = difflib.get_close_matches(str(found), names, n=1, cutoff=0)
    return UserError(f"expected {what} out of {', '.join(names)}, found {found!r}: the closest one is {closest!r}")


def _checked(name: str, content: Mapping[str, Any]) -> Experiment:
    known = {item.name for item in fields(Experiment)} - {"name", "synthetic"}
    for option in content:
        if option not in known:
            (closest,) = difflib.get_close_matches(option, known, n=1, cutoff=0)
            raise UserError(f"an experiment has no {option!r}: the closest one is {closest!r}")
    if missing := [option for option in ("title", "tasks") if option not in content]:
        raise UserError(f"an experiment needs {' and '.join(missing)}: write them")
    if "max_epochs" in content and content.get("max_steps") is not None:
        raise UserError("expected max_epochs or max_steps, found both: drop one")
    values: dict[str, Any] = {option: _as_tuple(value) for option, value in content.items()}
    experiment = Experiment(name, **values)
    _check_kinds(experiment)
    _check_names(experiment)
    _check_length(experiment)
    _check_settings(experiment)
    return experiment


def _as_tuple(value: Any) -> Any:
    """A list, and lists in it, as tuples; anything else as it is."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _check_kinds(experiment: Experiment) -> None:
    kinds: dict[str, tuple[tuple[str, ...], type, str]] = {
        "a text": (("title", "deepnet_weights"), str, '"..."'),
        "true or false": (("scratch",), bool, "true"),
        "a list": (
            (
                "tasks", "pretrain_datasets", "methods", "reductions", "pretrain_seeds", "checkpoint_epochs",
                "as_released", "contrasts",
            ),
            tuple,
            "[...]",
        ),
        "a dictionary": (tuple(f"{stage}_settings" for stage in STAGES), dict, '{"all": {...}}'),
    }  # fmt: skip
    for words, (names, kind, example) in kinds.items():
        for name in names:
            if not isinstance(getattr(experiment, name), kind):
                raise UserError(f"expected {name} to be {words}, found {getattr(experiment, name)!r}: write {example}")
    numbers: list[tuple[str, Any, int]] = [
        ("runs", experiment.runs, 1),
        ("folds", experiment.folds, 2),
        ("max_epochs", experiment.max_epochs, 1),
        ("table_samples", experiment.table_samples, 1),
        *((("max_steps", experiment.max_steps, 1),) if experiment.max_steps is not None else ()),
        *(("pretrain_seeds", seed, 0) for seed in experiment.pretrain_seeds),
        *(("checkpoint_epochs", epoch, 1) for epoch in experiment.checkpoint_epochs),
    ]
    for name, value, least in numbers:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"expected {name} of whole numbers from {least}, found {value!r}")


def _check_names(experiment: Experiment) -> None:
    lists: list[tuple[str, str, Sequence[str]]] = [
        ("tasks", "a task", tuple(TASKS)),
        ("methods", "a method", tuple(METHODS)),
        ("as_released", "a stage", STAGES),
    ]
    for name, what, known in lists:
        for value in getattr(experiment, name):
            if value not in known:
                raise _unknown(what, value, known)
    for label in experiment.reductions:
        if Reduction.of(str(label)).remedy == "mask":
            for title in experiment.methods:
                if not METHODS[title].negatives:
                    having = ", ".join(name for name, method in METHODS.items() if method.negatives)
                    raise UserError(f"expected methods with negatives for {label} ({having}), found {title}: drop one")
    _check_contrasts(experiment)
    for name in experiment.pretrain_datasets:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9.-]*", name) or name in (*TASKS, ALL):
            raise UserError(
                f"expected names of letters, digits, '.' and '-' for pretrain_datasets, other than those of tasks, "
                f"found {name!r}: rename it"
            )
    for item in fields(experiment):
        value = getattr(experiment, item.name)
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise UserError(f"expected each of {item.name} once, found {', '.join(map(str, value))}: drop one")
    if not experiment.tasks:
        raise UserError(f"expected one task or more, found none: name some of {', '.join(TASKS)}")
    axes = ("pretrain_datasets", "methods", "reductions", "pretrain_seeds")
    given = [name for name in axes[:3] if getattr(experiment, name)]
    empty = [name for name in axes if not getattr(experiment, name)]
    if given and empty:
        raise UserError(f"expected {empty[0]} beside {given[0]}, found none: name one or more, or drop {given[0]}")
    if not given and not experiment.scratch:
        raise UserError("expected pretrain_datasets, methods and reductions, or scratch: true; found none: add one")


def _check_contrasts(experiment: Experiment) -> None:
    for pair in experiment.contrasts:
        if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] == pair[1]:
            found = list(pair) if isinstance(pair, tuple) else pair
            raise UserError(
                f'expected contrasts to be pairs of two reductions, such as ["HASH-10%", "EveryN-10%"], found {found!r}'
            )
        for label in pair:
            if label not in experiment.reductions:
                raise _unknown("a reduction of the experiment in contrasts", label, experiment.reductions)


def _check_length(experiment: Experiment) -> None:
    epochs = experiment.checkpoint_epochs
    if epochs and experiment.max_steps is not None:
        raise UserError("expected checkpoint_epochs beside max_epochs, found max_steps: drop one of the two")
    if too_late := [epoch for epoch in epochs if epoch > experiment.max_epochs]:
        raise UserError(
            f"expected checkpoint_epochs up to max_epochs {experiment.max_epochs}, found {too_late[0]}: drop it"
        )


def _check_settings(experiment: Experiment) -> None:
    """Refuse a misspelt option now rather than after a day of reduction."""
    _check_groups(experiment.reduce_settings, "reduce_settings", experiment.pretrain_datasets)
    for options in experiment.reduce_settings.values():
        for option in options:
            if option not in _REDUCE_OPTIONS:
                raise _unknown("an option of reduce", option, _REDUCE_OPTIONS)
    pretraining_bundles = {title: method.bundle for title, method in METHODS.items()}
    task_bundles = {name: task.bundle for name, task in TASKS.items()}
    for stage, used, bundles in (
        ("pretrain", experiment.methods, pretraining_bundles),
        ("evaluate", experiment.tasks, task_bundles),
    ):
        settings: Settings = getattr(experiment, f"{stage}_settings")
        _check_groups(settings, f"{stage}_settings", tuple(bundles))
        for group, options in settings.items():
            for name in used if group == ALL else (group,):
                _check_options(stage, bundles[name], options)


def _check_groups(settings: Settings, what: str, names: Sequence[str]) -> None:
    for group, options in settings.items():
        if group not in (ALL, *names):
            raise _unknown(f"a name in {what}", group, (ALL, *names))
        if not isinstance(options, dict):
            raise UserError(f"expected {what} of {group} to be a dictionary, found {options!r}: write {{...}}")


def _check_options(stage: str, bundle: str, options: Mapping[str, Any]) -> None:
    content = json.loads((BUNDLES / bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    known = [name for name, value in content.items() if not isinstance(value, dict) and name not in _NOT_SETTINGS]
    for option in options:
        if option in _OWN[stage]:
            raise UserError(f"expected {stage}_settings without {option}, which the experiment itself gives: drop it")
        if option not in known:
            (closest,) = difflib.get_close_matches(option, known, n=1, cutoff=0)
            raise UserError(f"{bundle} has no setting {option!r}: the closest one is {closest!r}")
