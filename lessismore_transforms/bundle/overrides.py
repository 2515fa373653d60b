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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lessismore_transforms.bundle.caller import calling_files, calling_workflow
from lessismore_transforms.bundle.mistakes import one_sentence, say_mistakes
from lessismore_transforms.bundle.scripts_folder import use_scripts
from lessismore_transforms.errors import UserError
from lessismore_transforms.methods import METHODS
from lessismore_transforms.options import is_plain, parse_bool
from lessismore_transforms.wording import listed

# MONAI's own: the usual name of the bundle's folder, and what `--tracking` reads or adds.
_MONAI_IDS = ("bundle_root", "experiment_name", "is_not_rank0", "run_name", "save_execute_config", "tracking_uri")
_OF_NEGATIVES = ("near_copies", "mask_bits")  # settings of methods whose loss has negatives
_SECTIONS = ("imports", "initialize", "run", "finalize")
_META = "_meta_"  # where MONAI keeps metadata.json
_REFERENCE = re.compile(r"@(\w+(?:#\w+)*)")


def check_overrides() -> None:
    """Refuse a misspelt override of the bundle whose configuration calls this, best in `initialize`.

    Works for `python -m monai.bundle run`, `monai.bundle.run(...)` and `ConfigWorkflow(...)`. An id is right if it
    stands in a configuration file of the bundle, or if something in the configuration refers to it, to a part of it
    or to a whole that it is part of. Arguments of a component (`_target_`) are left to the component, which refuses
    unknown ones by itself; a section that does not exist is refused by MONAI.

    Raises:
        SystemExit: an override is misspelt; a sentence on stderr names the closest id.
    """
    say_mistakes()
    workflow = calling_workflow()
    use_scripts(workflow.config_root_path.parent)
    with one_sentence():
        config = workflow.parser.get()
        files = calling_files(workflow)
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
    contents = [_content(path) for path in calling_files(workflow)]
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
    contents = [_content(path) for path in config_files]
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


def _content(path: Path) -> dict[str, Any]:
    """What stands in a configuration file, JSON or YAML; nothing where it holds something else than entries."""
    from monai.bundle import ConfigParser

    found = ConfigParser.load_config_file(path)
    return found if isinstance(found, dict) else {}


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
        if path.stem != "metadata":
            content = _content(path)
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


def _text(content: Any) -> str:
    return json.dumps(content, default=str, ensure_ascii=False).replace("::", "#")


def _ids(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in section.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict) and "_target_" not in value:
            yield from _ids(value, f"{prefix}{name}#")
