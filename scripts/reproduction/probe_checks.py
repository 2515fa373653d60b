"""What an experiment may ask of the probes of its encoders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, get_args

from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number, options_of
from lessismore_transforms.probing.settings import ProbeSettings
from reproduction.arms import check_data_name, unknown
from reproduction.experiment import Experiment
from reproduction.places import ALL, BUNDLES, RANDOM

# What the driver itself gives each probe.
_GIVEN = ("dataset_dir", "models", "output_dir", "features_dir", "pretraining", "labels", "task", "baseline")


def check_probes(experiment: Experiment) -> None:
    """Refuse probes, baselines, followed arms and questions that make no sense.

    Raises:
        UserError: one of them.
    """
    for name, options in experiment.probes.items():
        check_data_name(name, "probes", (*experiment.pretrain_datasets, *TASKS, ALL))
        if not isinstance(options, dict):
            raise UserError(f"expected probes of {name} to be a dictionary, found {options!r}: write {{...}}")
        _check_labels(name, options)
        _check_probe_options(name, {each: value for each, value in options.items() if each != "labels"})
    if experiment.probes and len(experiment.pretrain_datasets) > 1:
        raise UserError(
            f"expected one of pretrain_datasets with probes, found {len(experiment.pretrain_datasets)}: write a file "
            "for each"
        )
    if experiment.baselines and not experiment.probes:
        raise UserError("expected probes for the baselines, found none: add some, or drop baselines")
    for name, network in experiment.baselines.items():
        if not re.fullmatch(r"[A-Za-z][\w.-]*", name) or name == RANDOM or not (isinstance(network, str) and network):
            raise UserError(
                f"expected baselines as a name other than {RANDOM!r} and a network, found {name!r}: {network!r}: write "
                '"imagenet": "NETWORK:{NAME}"'
            )
    arms = {(method, label) for method in experiment.methods for label in experiment.reductions_of(method)}
    if wrong := [arm for arm in experiment.followed if arm not in arms]:
        raise UserError(f"expected arms of the experiment, as [METHOD, REDUCTION], in followed, found {wrong[0]!r}")
    if experiment.followed and not (experiment.checkpoint_steps and experiment.max_steps):
        raise UserError("expected max_steps and checkpoint_steps for the arms that are followed, found none: add them")
    for name, question in experiment.questions.items():
        _check_question(name, question, arms)
    if experiment.questions and not experiment.probes:
        raise UserError("expected probes that answer the questions, found none: add some, or drop questions")
    if not 0 < experiment.margin < 1:
        raise UserError(f"expected a margin above 0 and below 1, found {experiment.margin:g}: 0.02 is usual")


def _check_labels(name: str, options: Mapping[str, Any]) -> None:
    """Refuse labels by paths that no table can be made of."""
    labels = options.get("labels")
    if labels is None:
        return
    if not isinstance(labels, dict) or len(labels) < 2:
        raise UserError(
            f"expected labels of {name} to be two classes or more, each with a regular expression for its paths, found "
            f'{labels!r}: write {{"no": "...", "yes": "..."}}'
        )
    if "bundle" in options:
        raise UserError(f"expected labels or bundle for probes of {name}, found both: drop one")
    for label, pattern in labels.items():
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise UserError(
                f"expected a regular expression for the paths of {label!r} in probes of {name}, found {pattern!r}: "
                f"{error}"
            ) from error


def _check_probe_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse what `probe` would refuse after the first training."""
    known = {each.name: each for each in options_of(ProbeSettings) if each.name not in _GIVEN}
    for option, value in options.items():
        if option not in known:
            raise unknown("an option of probe", option, sorted((*known, "labels")))
        kinds = {int, *get_args(known[option].kind), known[option].kind}
        number, several = float in kinds or tuple[float, ...] in kinds, tuple[float, ...] in kinds
        text = not number and kinds & {str, Path}
        for each in value if several and isinstance(value, tuple) else [value]:
            right = isinstance(each, str) if text else is_number(each, int, *((float,) if number else ()))
            if not right or (known[option].choices and each not in known[option].choices):
                what = " or ".join(known[option].choices) or ("a text" if text else "a number")
                raise UserError(f"expected {option} of {name} in probes to be {what}, found {each!r}: change it")
    if "bundle" in options and not (BUNDLES / options["bundle"] / "configs").is_dir():
        raise unknown(f"a bundle for {name} in probes", options["bundle"], [task.bundle for task in TASKS.values()])
    values = {each: value for each, value in options.items() if each != "fractions"}
    fractions = options.get("fractions", 1)
    shares = fractions if isinstance(fractions, tuple) else (fractions,)
    try:
        ProbeSettings(dataset_dir=Path(), models=(), output_dir=Path(), fractions=shares, **values)
    except UserError as error:
        raise UserError(f"probes of {name}: {error}") from error


def _check_question(name: str, question: Any, arms: Set[tuple[str, str]]) -> None:
    sides = isinstance(question, dict) and set(question) == {"plus", "minus"}
    if not sides or not all(isinstance(side, tuple) and side for side in question.values()):
        raise UserError(
            f'expected the question {name!r} to be {{"plus": [[METHOD, REDUCTION], ...], "minus": [...]}}, found '
            f"{question!r}: write arms on both sides"
        )
    if {*question["plus"]} & {*question["minus"]} or len(question["plus"]) != len(question["minus"]):
        raise UserError(
            f"expected as many arms in plus as in minus of the question {name!r}, and none in both, found "
            f"{len(question['plus'])} and {len(question['minus'])}: a contrast of equal arms has to be 0"
        )
    for arm in (*question["plus"], *question["minus"]):
        if arm not in arms:
            raise UserError(
                f"expected arms of the experiment in the question {name!r}, as [METHOD, REDUCTION], found "
                f"{list(arm) if isinstance(arm, tuple) else arm!r}: add it to the reductions of its method"
            )
