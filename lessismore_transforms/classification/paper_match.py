"""The paper's number beside an evaluation: which one it is, and why there is none or why it does not compare."""

from __future__ import annotations

from lessismore_transforms.classification import paper as printed
from lessismore_transforms.classification.finished_runs import FROZEN, FinishedRuns


def not_in_paper(evaluation: FinishedRuns) -> str:
    """Why the paper has no number for an evaluation, or an empty string."""
    classes = printed.TASK_CLASSES.get(evaluation.task)
    if classes is None:
        return f"the paper has no task {evaluation.task}"
    if classes != len(evaluation.classes):
        return f"the paper's {evaluation.task} has {classes} classes, this one {len(evaluation.classes)}"
    if evaluation.mode in FROZEN:
        return "the paper fine-tunes the whole network and has no number for a frozen one"
    names = printed.Setting._fields
    if missing := [f"--{name}" for name, label in zip(names, evaluation.labels, strict=True) if label is None]:
        return f"the paper's number is not known without {', '.join(missing)}, given in training"
    setting, known = printed.Setting(*map(str, evaluation.labels)), printed.paper_settings()
    if setting not in known:
        near = [other.reduction for other in known if other[:2] == setting[:2]]
        whose = " ".join(setting[:2])
        return f"of {whose} the paper has only {', '.join(near)}" if near else f"the paper has no {whose}"
    return ""


def unlike_paper(evaluation: FinishedRuns) -> str:
    """Settings in which an evaluation differs from the paper, as a sentence, or an empty string."""
    others = [
        f"{name.replace('_', ' ')} {evaluation.settings[name]} instead of {value}"
        for name, value in printed.SETTINGS.items()
        if evaluation.settings.get(name, value) != value
    ]
    return f"unlike the paper in {', '.join(others)}" if others else ""


def value_in_paper(evaluation: FinishedRuns, metric: str) -> tuple[float, float] | None:
    """Mean and deviation that the paper prints for the same setting and metric; None where it has none."""
    if metric == "f1_micro" and len(evaluation.classes) > 2:
        metric = "f1"
    elif metric == "f1" and evaluation.positive != printed.POSITIVE:
        return None
    if not_in_paper(evaluation) or metric not in printed.PRINTED:
        return None
    return printed.paper_value(evaluation.task, metric, *map(str, evaluation.labels))
