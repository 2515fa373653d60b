"""What an experiment's file may hold: a mistake is refused before a day of reduction, not after it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.errors import UserError
from reproduction.arms import METHODS, REMEDIES, Reduction, check_data_name, unknown
from reproduction.experiment import Experiment, Settings, settings_of
from reproduction.places import ALL, BUNDLES, STAGES
from reproduction.probe_checks import check_probes

_REDUCE_OPTIONS = (
    "bins", "body", "device", "encoder", "features", "include", "keep_patient_ids", "memory_mb", "no_report",
    "patient_key", "pattern", "pixels", "precision", "scheduler", "window", "workers",
)  # fmt: skip
_OWN = {  # what the driver itself gives each bundle
    "pretrain": (
        "dataset_dir", "selection", "output_dir", "resume", "seed", "max_epochs", "max_steps", "export_epochs",
        *(setting for remedy in REMEDIES.values() for setting in remedy),
    ),
    "evaluate": (
        "dataset_dir", "output_dir", "resume", "run_index", "fold", "folds", "mode", "pretrained", "method",
        "pretrain_dataset", "ssl_method", "reduction", "pretraining", "pretraining_selection",
    ),
}  # fmt: skip
_NOT_SETTINGS = ("imports", "initialize", "run", "finalize", "bundle_root")


def check(experiment: Experiment) -> None:
    """Refuse what makes no sense.

    Raises:
        UserError: a value is of the wrong kind, names something unknown or contradicts another.
    """
    _check_kinds(experiment)
    _check_reductions(experiment)
    _check_names(experiment)
    check_probes(experiment)
    _check_length(experiment)
    _check_settings(experiment)


def _check_kinds(experiment: Experiment) -> None:
    kinds: dict[str, tuple[tuple[str, ...], type, str]] = {
        "a text": (("title", "deepnet_weights"), str, '"..."'),
        "true or false": (("scratch",), bool, "true"),
        "a list": (
            (
                "tasks", "pretrain_datasets", "methods", "checkpoint_steps", "followed", "pretrain_seeds",
                "checkpoint_epochs", "as_released", "contrasts",
            ),
            tuple,
            "[...]",
        ),
        "a dictionary": (tuple(f"{stage}_settings" for stage in STAGES), dict, '{"all": {...}}'),
        "a dictionary of dictionaries": (("probes", "questions"), dict, '{"NAME": {...}}'),
        "a dictionary of networks": (("baselines",), dict, '{"imagenet": "NETWORK:FILE"}'),
        "a number": (("margin",), float, "0.02"),
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
        *(("checkpoint_steps", step, 1) for step in experiment.checkpoint_steps),
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
                raise unknown(what, value, known)
    for title in experiment.methods:
        for label in experiment.reductions_of(title):
            if Reduction.of(str(label)).remedy == "mask" and not METHODS[title].negatives:
                having = ", ".join(name for name, method in METHODS.items() if method.negatives)
                raise UserError(f"expected methods with negatives for {label} ({having}), found {title}: drop one")
    _check_contrasts(experiment)
    for name in experiment.pretrain_datasets:
        check_data_name(name, "pretrain_datasets", (*TASKS, ALL))
    for item in fields(experiment):
        value = getattr(experiment, item.name)
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise UserError(f"expected each of {item.name} once, found {', '.join(map(str, value))}: drop one")
    if not experiment.tasks and not experiment.probes:
        raise UserError(f"expected one task or more, found none: name some of {', '.join(TASKS)}")
    axes = ("pretrain_datasets", "methods", "reductions", "pretrain_seeds")
    given = [name for name in axes[:3] if getattr(experiment, name)]
    empty = [name for name in axes if not getattr(experiment, name)]
    if given and empty:
        raise UserError(f"expected {empty[0]} beside {given[0]}, found none: name one or more, or drop {given[0]}")
    if not given and not experiment.scratch:
        raise UserError("expected pretrain_datasets, methods and reductions, or scratch: true; found none: add one")


def _check_reductions(experiment: Experiment) -> None:
    given = experiment.reductions
    lists = given.values() if isinstance(given, dict) else [given]
    if not all(isinstance(each, tuple) for each in lists):
        raise UserError(f"expected reductions to be a list, or a list for each method, found {given!r}: write [...]")
    if isinstance(given, dict) and (different := {*given} ^ {*experiment.methods}):
        raise UserError(
            f"expected reductions of each of the methods {', '.join(experiment.methods)}, found "
            f"{', '.join(sorted(different))} in one of the two only: name the same"
        )
    for label in experiment.all_reductions:
        Reduction.of(str(label))


def _check_contrasts(experiment: Experiment) -> None:
    for pair in experiment.contrasts:
        if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] == pair[1]:
            found = list(pair) if isinstance(pair, tuple) else pair
            raise UserError(
                f'expected contrasts to be pairs of two reductions, such as ["HASH-10%", "EveryN-10%"], found {found!r}'
            )
        for label in pair:
            if label not in experiment.all_reductions:
                raise unknown("a reduction of the experiment in contrasts", label, experiment.all_reductions)


def _check_length(experiment: Experiment) -> None:
    epochs, steps = experiment.checkpoint_epochs, experiment.checkpoint_steps
    if steps and experiment.max_steps is None:
        raise UserError("expected checkpoint_steps beside max_steps, found none: add max_steps, or drop them")
    if experiment.max_steps is not None and (late := [step for step in steps if step >= experiment.max_steps]):
        raise UserError(
            f"expected checkpoint_steps below max_steps {experiment.max_steps}, the end, found {late[0]}: drop it"
        )
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
                raise unknown("an option of reduce", option, _REDUCE_OPTIONS)
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
    for method in experiment.methods:
        spread = [label for label in experiment.reductions_of(method) if Reduction.of(label).remedy == "spread"]
        if spread and settings_of(experiment.pretrain_settings, method).get("balance"):
            raise UserError(
                f"expected {spread[0]} of {method} without balance, which chooses what shares a batch too: drop one"
            )


def _check_groups(settings: Settings, what: str, names: Sequence[str]) -> None:
    for group, options in settings.items():
        if group not in (ALL, *names):
            raise unknown(f"a name in {what}", group, (ALL, *names))
        if not isinstance(options, dict):
            raise UserError(f"expected {what} of {group} to be a dictionary, found {options!r}: write {{...}}")


def _check_options(stage: str, bundle: str, options: Mapping[str, Any]) -> None:
    content = json.loads((BUNDLES / bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    known = [name for name, value in content.items() if not isinstance(value, dict) and name not in _NOT_SETTINGS]
    remedies = {setting: name for name, remedy in REMEDIES.items() for setting in remedy}
    for option in options:
        if option in _OWN[stage]:
            hint = f", and name it in a reduction, such as HASH-6+{remedies[option]}" if option in remedies else ""
            raise UserError(
                f"expected {stage}_settings without {option}, which the experiment itself gives: drop it{hint}"
            )
        if option not in known:
            (closest,) = difflib.get_close_matches(option, known, n=1, cutoff=0)
            raise UserError(f"{bundle} has no setting {option!r}: the closest one is {closest!r}")
