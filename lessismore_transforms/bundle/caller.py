"""Who calls the expressions of a configuration: its workflow or parser, the files that it was read from, its folder."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_META = "_meta_"  # where MONAI keeps metadata.json
_REFERENCE = re.compile(r"[@%]\w*(?:::\w+)+")
_SUFFIXES = (".json", ".yaml", ".yml")


def configuration() -> dict[str, Any]:
    """The configuration that calls this, as merged from files and overrides, without the folder it lies in."""
    text = json.dumps(calling_parser().get(), default=str, ensure_ascii=False)
    content: dict[str, Any] = json.loads(text)
    return {name: _as_written(value) for name, value in content.items() if name not in ("bundle_root", _META)}


def _as_written(content: Any) -> Any:
    """References as configurations write them, `@train#trainer`, where MONAI has made them `@train::trainer`."""
    if isinstance(content, dict):
        return {name: _as_written(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_as_written(value) for value in content]
    if isinstance(content, str) and content.startswith(("$", "@", "%")):
        return _REFERENCE.sub(lambda found: found[0].replace("::", "#"), content)
    return content


def calling_workflow() -> Any:
    """The `monai.bundle.ConfigWorkflow` whose configuration is being evaluated.

    An expression is given neither the workflow nor the names of all ids, so the callers are asked.
    """
    from monai.bundle import ConfigWorkflow

    found = _caller(ConfigWorkflow)
    if found is None:
        raise RuntimeError(
            "expressions of a configuration call this, and no `monai.bundle.ConfigWorkflow` is among the callers: run "
            "the configuration by one"
        )
    return found


def calling_parser() -> Any:
    """The `monai.bundle.ConfigParser` that evaluates a configuration, with or without a workflow."""
    from monai.bundle import ConfigParser

    found = _caller(ConfigParser)
    if found is None:
        raise RuntimeError(
            "expressions of a configuration call this, and no `monai.bundle.ConfigParser` is among the callers: let "
            "one evaluate the configuration"
        )
    return found


def calling_root() -> Path:
    """The folder of the bundle: of the workflow's files; of a parser alone, its `bundle_root`."""
    from monai.bundle import ConfigWorkflow

    workflow = _caller(ConfigWorkflow)
    if workflow is not None:
        return Path(workflow.config_root_path).parent
    return Path(calling_parser().get_parsed_content("bundle_root"))


def calling_files(workflow: Any) -> list[Path]:
    """The configuration files of a workflow's folder, and those that `monai.bundle` was told of beside them."""
    found = {path for path in workflow.config_root_path.iterdir() if path.suffix in _SUFFIXES}
    for frame in _frames():
        if frame.f_code.co_name == "create_workflow":  # MONAI's, for its command line, `run` and `load`
            told = frame.f_locals.get("config_file") or ()
            found |= {Path(path) for path in ([told] if isinstance(told, str | Path) else told)}
    return sorted(path for path in found if path.is_file())


def _caller(kind: type) -> Any:
    """The nearest caller of a kind."""
    return next((each for frame in _frames() if isinstance(each := frame.f_locals.get("self"), kind)), None)


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
