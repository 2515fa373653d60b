"""What a user adds to `python -m monai.bundle run`, checked before the work starts.

MONAI takes a misspelt override for a new entry of the configuration that nobody reads, hands booleans over as they
were typed (`--resume false` is the text "false") and buries a user's mistake in a page of tracebacks. So each of our
bundles begins with the lines below, after which a mistake that our code found anywhere in the run ends it with one
sentence; LESSISMORE_TRACEBACK=1 in the environment shows the traceback too.

    "imports": ["$from lessismore_transforms.bundle.overrides import check_overrides"],
    "initialize": ["$check_overrides()"],
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from lessismore_transforms.errors import UserError, first_line
from lessismore_transforms.methods import METHODS
from lessismore_transforms.options import is_plain, parse_bool
from lessismore_transforms.wording import listed

# MONAI's own: the usual name of the bundle's folder, and what `--tracking` reads or adds.
_MONAI_IDS = ("bundle_root", "experiment_name", "is_not_rank0", "run_name", "save_execute_config", "tracking_uri")
_OF_NEGATIVES = ("near_copies", "mask_bits")  # settings of methods whose loss has negatives
_SHOW = "LESSISMORE_TRACEBACK"  # in the environment
_COMPONENT = re.compile(r"Failed to instantiate component '([\w.]+)'")  # MONAI's words
_SECTIONS = ("imports", "initialize", "run", "finalize")
_META = "_meta_"  # where MONAI keeps metadata.json
_LAST_ERROR = re.compile(r"^[\w.]+Error: ", re.MULTILINE)  # the head of the sentence below a traceback
_REFERENCE = re.compile(r"@(\w+(?:#\w+)*)")


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a user's mistake inside into its sentence on stderr and exit code 2.

    SystemExit is the one exception that MONAI does not wrap when the expressions of a configuration raise it.
    """
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def check_overrides() -> None:
    """Refuse a misspelt override of the bundle whose configuration calls this, best in `initialize`.

    Works for `python -m monai.bundle run`, `monai.bundle.run(...)` and `ConfigWorkflow(...)`. An id is right if it
    stands in a configuration file of the bundle, or if something in the configuration refers to it, to a part of it
    or to a whole that it is part of. Arguments of a component (`_target_`) are left to the component, which refuses
    unknown ones by itself; a section that does not exist is refused by MONAI.

    Raises:
        SystemExit: an override is misspelt; a sentence on stderr names the closest id.
    """
    sys.excepthook = _say_mistake
    workflow = calling_workflow()
    with one_sentence():
        config = workflow.parser.get()
        files = sorted(workflow.config_root_path.glob("*.json"))
        known = known_ids(files, config)
        for unknown in unknown_ids(config, known):
            (closest,) = difflib.get_close_matches(unknown, known, n=1, cutoff=0)
            if unknown in _OF_NEGATIVES:
                having = listed([method.title for method in METHODS.values() if method.negatives])
                raise UserError(
                    f"the bundle has no setting {unknown!r}, as its loss has no negatives: {having} have it"
                )
            raise UserError(f"the bundle has no setting {unknown!r}: the closest one is {closest!r}")
        for name, default in _defaults(files, config).items():
            if name in config:
                check_kind(name, config[name], default)


def check_settled(names: Iterable[str]) -> None:
    """Refuse overrides of what is no choice any more, as the training of what is evaluated has made it.

    Args:
        names: ids at the top of the configuration that calls this.

    Raises:
        SystemExit: one of them is overridden; a sentence on stderr names it.
    """
    workflow = calling_workflow()
    config = workflow.parser.get()
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in workflow.config_root_path.glob("*.json")]
    own = [content for content in contents if content.get("run") == config.get("run")]
    with one_sentence():
        for name in names:
            files = [content for content in own if name in content] or contents
            said = [content.get(name) for content in files if _in_use(content, config)]
            if config.get(name) not in said:
                raise UserError(f"{name} is that of the training of these weights: leave out --{name}")


def check_kind(name: str, value: Any, default: Any) -> None:
    """Refuse a setting of another kind than its default; expressions, and settings without a default, may be anything.

    Raises:
        UserError: the kinds differ.
    """
    if default is None or any(isinstance(item, str) and item[:1] in ("$", "@", "%") for item in (value, default)):
        return
    kinds: list[tuple[type | tuple[type, ...], type | tuple[type, ...], str]] = [
        (bool, bool, "true or false"),
        (int, int, "a whole number"),
        (float, (int, float), "a number"),
        (str, (str, os.PathLike, list, tuple), "text"),
        (list, (list, tuple), "a list"),
    ]
    for kind, allowed, words in kinds:
        if isinstance(default, kind):
            if kind is bool and isinstance(value, str):
                parse_bool(value)
            elif not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
                raise UserError(f"expected {name} to be {words} such as {json.dumps(default)}, found {value!r}")
            return


def _defaults(config_files: Iterable[Path], config: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values at the top of the files that a configuration was read from and that run something."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in config_files]
    return {
        name: value
        for content in contents
        if "run" in content and _in_use(content, config)
        for name, value in content.items()
        if is_plain(value) and name not in _SECTIONS
    }


def _in_use(content: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a file may belong to a configuration: it runs nothing by itself, or all at its top stands there, too.

    An evaluation is read over a training; the settings of the one file are none of the other alone.
    """
    return "run" not in content or {_plain_id(name).partition("#")[0] for name in content} <= config.keys()


def _plain_id(name: str) -> str:
    return name.removeprefix("+").replace("::", "#")


def known_ids(config_files: Iterable[Path], config: Mapping[str, Any] | None = None) -> list[str]:
    """The ids (`train#lr`) of everything that stands in the files, components counting as one, and MONAI's own.

    Args:
        config_files: of a bundle.
        config: the configuration in use; files that it was not read from and that run something are left out.
    """
    known = set(_MONAI_IDS)
    for path in config_files:
        if path.name != "metadata.json":
            content = json.loads(path.read_text(encoding="utf-8"))
            if config is not None and not _in_use(content, config):
                continue
            for name in _ids({_plain_id(name): value for name, value in content.items()}):
                known.update(name.rsplit("#", depth)[0] for depth in range(name.count("#") + 1))
    return sorted(known)


def unknown_ids(config: dict[str, Any], known: Iterable[str]) -> list[str]:
    """The ids of a configuration, as merged from files and overrides, that are not known and not referred to."""
    known = set(known)
    referred = {f"{found}#" for found in _REFERENCE.findall(_text(config))}
    given = _ids({name: value for name, value in config.items() if name != _META})
    return [
        name
        for name in given
        if name not in known
        and not any(other.startswith(f"{name}#") or f"{name}#".startswith(other) for other in referred)
    ]


def _say_mistake(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print an uncaught exception: one sentence where a mistake that our code found is at its root.

    Raises:
        SystemExit: it is such a mistake, with whose exit code Python then ends.
    """
    mistake = _mistake_behind(error)
    if mistake is None or os.environ.get(_SHOW):
        sys.__excepthook__(kind, error, traceback)
    if mistake is not None:
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(mistake.exit_code)


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """The first user's mistake among an exception and its causes."""
    component = ""
    while error is not None:
        if isinstance(error, UserError):
            return UserError(_LAST_ERROR.split(str(error))[-1].strip()) if _of_a_loader(error) else error
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
            return UserError(
                f"{first_line(error)}: perhaps it lacked memory; --resume True goes on, with fewer --workers"
            )
        if found := _COMPONENT.match(str(error)):
            component = found[1]
        elif component and _refuses(component, error):
            return UserError(f"{component} cannot take what it was given: {first_line(error)} ({_SHOW}=1 shows where)")
        else:
            component = ""
        error = error.__cause__ or error.__context__
    return None


def _of_a_loader(error: UserError) -> bool:
    """Whether torch brought a mistake from a worker of a DataLoader: with its traceback, the sentence last."""
    return "in DataLoader worker process" in first_line(error)


def _refuses(component: str, error: BaseException) -> bool:
    """Whether a component of a library refused what it was given, or one of ours an argument that it does not have.

    Ours say what else they refuse by themselves: any other exception in them is a defect.
    """
    if component.partition(".")[0] not in ("lessismore_transforms", "scripts"):
        return isinstance(error, (ValueError, TypeError, RuntimeError, AssertionError))
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    called_from = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    return isinstance(error, TypeError) and called_from.startswith("monai.")


def _text(content: Any) -> str:
    return json.dumps(content, default=str, ensure_ascii=False).replace("::", "#")


def _ids(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in section.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict) and "_target_" not in value:
            yield from _ids(value, f"{prefix}{name}#")


def configuration() -> dict[str, Any]:
    """The configuration that calls this, as merged from files and overrides, without the folder it lies in."""
    config = calling_workflow().parser.get()
    content: dict[str, Any] = json.loads(_text(config))
    return {name: value for name, value in content.items() if name not in ("bundle_root", _META)}


def calling_workflow() -> Any:
    """The `monai.bundle.ConfigWorkflow` whose configuration is being evaluated.

    An expression is given neither the workflow nor the names of all ids, so the callers are asked.
    """
    from monai.bundle import ConfigWorkflow

    frame: FrameType | None = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return caller
        frame = frame.f_back
    raise RuntimeError(
        "expressions of a configuration call this, and no `monai.bundle.ConfigWorkflow` is among the callers: run the "
        "configuration by one"
    )
