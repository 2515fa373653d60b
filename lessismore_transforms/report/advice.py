"""What to type for fewer and for more slices than a selection keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report.summary import VolumeSummary, levels, stopped_at


def advice(manifest: Manifest, volumes: Sequence[VolumeSummary], target: Target) -> str:
    """What to type for fewer and for more slices (HTML)."""
    options = []
    for words, other in (
        ("fewer", _other(target, volumes, fewer=True)),
        ("more", _other(target, volumes, fewer=False)),
    ):
        if other is not None and _is_ranked(manifest, volumes, other):
            options.append((words, *command(other)))
        elif other is not None:
            options.append((words, "", ""))
    lines = [
        f"<br>To keep {words} slices: <code>python -m lessismore_transforms select OUT {what} --name {name}</code>"
        if what
        else f"<br>To keep {words} slices, reduce again: the ranking stopped before."
        for words, what, name in options
    ]
    names = [name for _, what, name in options if what]
    if not names:
        return "".join(lines)
    show = f"<br>To look at it: <code>python -m lessismore_transforms report OUT --selection {names[0]}</code>"
    return f"{''.join(lines)}{show}<br>(OUT is the folder of this page; no image is read again.)"


def _other(target: Target, volumes: Sequence[VolumeSummary], *, fewer: bool) -> Target | None:
    """A target of the same kind that keeps fewer or more slices; nothing where there is none."""
    factor = 0.5 if fewer else 2
    method, measure = target.method, MEASURES[target.measure]
    if method == "all":
        return Target.of() if fewer else None
    if target.like is not None:  # another selection says how many
        return None
    if target.fraction is not None:
        fraction = min(1.0, target.fraction * factor)
        return None if fraction == target.fraction else replace(target, fraction=fraction)
    if target.step is not None:
        step = max(1, round(target.step / factor))
        return None if step == target.step else Target.of(method=method, step=step)
    if target.step_mm is not None:
        return Target.of(method=method, step_mm=target.step_mm / factor)
    assert target.threshold is not None
    steps = levels(volumes, method) if measure.similarity else [0, 1, 3, 6, 12, 18, 24, 32, 48, 64]
    if measure.similarity == fewer:  # a lower threshold
        threshold = max((step for step in steps if step < target.threshold), default=None)
    else:
        threshold = min((step for step in steps if step > target.threshold), default=None)
    if threshold is None:
        return None
    return replace(target, threshold=float(threshold))


def _is_ranked(manifest: Manifest, volumes: Sequence[VolumeSummary], target: Target) -> bool:
    """Whether the ranking goes so far; asked where one stopped early."""
    if not any(map(stopped_at, volumes)) or target.measure != manifest.settings["method"]:
        return True
    try:
        manifest.select(target)
    except ManifestError:
        return False
    return True


def command(target: Target) -> tuple[str, str]:
    """The options of `select` that mean a target, and a name for it."""
    amounts = ("threshold", "fraction", "step", "step_mm")
    kind, value = next((name, getattr(target, name)) for name in amounts if getattr(target, name) is not None)
    unusual = target.rule != Target.of(method=target.method, **{kind: value}).rule
    options = [f"--method {target.method}"] if target.method != "hash" else []
    options += [f"--{kind} {value:g}"]
    options += [f"--rule {target.rule}"] if unusual else []
    options += [f"--{name} {getattr(target, name)}" for name in ("near", "seed") if getattr(target, name)]
    options += [f"--scope {target.scope}"] if target.scope != "volume" else []
    parts = [target.method.removesuffix("_n")] if target.method != "hash" else []
    parts += [target.rule] if unusual else []
    parts += ["share"] if kind == "fraction" else []
    number = f"{100 * value if kind == 'fraction' else value:g}{'mm' if kind == 'step_mm' else ''}"
    scope = f"_{target.scope}" if target.scope != "volume" else ""
    scope += "".join(f"_{name}{getattr(target, name)}" for name in ("near", "seed") if getattr(target, name))
    return " ".join(options), "_".join(parts or ["hash"]) + number + scope
