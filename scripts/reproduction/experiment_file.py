"""The file of an experiment, read and checked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import UserError
from reproduction.checks import check
from reproduction.experiment import TINY, Experiment


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


def _checked(name: str, content: Mapping[str, Any]) -> Experiment:
    known = {item.name for item in fields(Experiment)} - {"name", "synthetic"}
    for option in content:
        if option not in known:
            (closest,) = difflib.get_close_matches(option, known, n=1, cutoff=0)
            raise UserError(f"an experiment has no {option!r}: the closest one is {closest!r}")
    if "title" not in content or not content.keys() & {"tasks", "probes"}:
        raise UserError("an experiment needs a title, and tasks or probes: write them")
    if "max_epochs" in content and content.get("max_steps") is not None:
        raise UserError("expected max_epochs or max_steps, found both: drop one")
    values = {name: value if name.endswith("_settings") else _as_tuple(value) for name, value in content.items()}
    experiment = Experiment(name, **values)
    check(experiment)
    return experiment


def _as_tuple(value: Any) -> Any:
    """A list, and lists in it and in dictionaries, as tuples; anything else as it is."""
    if isinstance(value, dict):
        return {name: _as_tuple(each) for name, each in value.items()}
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
