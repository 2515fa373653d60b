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

_BASE = "base"


def read_experiment(path: Path) -> Experiment:
    """Read and check an experiment.

    With `base`, the name of a file beside it, a file holds only what it changes: settings join those of the base,
    anything else takes the place of what the base has, and null drops it.

    Raises:
        UserError: a file cannot be read, or holds something unknown. The deepest one with that mistake is named.
    """
    levels = _read(path)
    try:
        return _checked(path.stem, levels[-1][1])
    except ValueError as error:
        where = next(file for file, content in levels if _mistake(path.stem, content) == str(error))
        raise UserError(f"{where.name}: {error}") from error


def _read(path: Path, *above: str) -> list[tuple[Path, dict[str, Any]]]:
    """A file, and before it those that it is based on, each with what it holds over what its base holds.

    Args:
        path: the file.
        above: names of files that are based on it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        known = sorted(file.name for file in TINY.parent.glob("*.json") if file != TINY)
        raise UserError(f"expected an experiment, such as {', '.join(known)}, found {path}: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"expected an experiment in {path}, found a {type(content).__name__}: write {{...}}")
    if _BASE not in content:
        return [(path, content)]
    base = content.pop(_BASE)
    if not isinstance(base, str) or base in ("", path.name, *above) or Path(base).name != base:
        raise UserError(
            f"{path.name}: expected {_BASE} to be the name of another experiment beside it, found {base!r}: name one"
        )
    levels = _read(path.with_name(base), path.name, *above)
    _, below = levels[-1]
    over = {
        name: _over(below.get(name), value) if name.endswith("_settings") else value for name, value in content.items()
    }
    merged = {name: value for name, value in {**below, **over}.items() if value is not None}
    return [*levels, (path, merged)]


def _over(below: Any, above: Any) -> Any:
    """A dictionary over another, name by name; anything else takes its place, and is refused later if it is wrong."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{name: _over(below.get(name), value) for name, value in above.items()}}


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


def _mistake(name: str, content: Mapping[str, Any]) -> str:
    """What is wrong with an experiment; empty where nothing is."""
    try:
        _checked(name, content)
    except ValueError as error:
        return str(error)
    return ""


def _as_tuple(value: Any) -> Any:
    """A list, and lists in it and in dictionaries, as tuples; anything else as it is."""
    if isinstance(value, dict):
        return {name: _as_tuple(each) for name, each in value.items()}
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
