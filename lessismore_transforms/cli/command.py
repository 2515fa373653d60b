"""A command from a dataclass: each field that is an option becomes an argument of argparse."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import Option, build, options_of, parse_bool


@dataclass(frozen=True)
class Command:
    """A command of the command line; `main.COMMANDS` names it.

    Args:
        options: dataclass of its options.
        run: does the work; returns the exit code.
        description: what its `--help` says first.
        before: called with the values of the options by name, before `options` is made and checks them.
    """

    options: type
    run: Callable[[Any], int]
    description: str
    before: Callable[[Mapping[str, Any]], None] | None = None

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Give a parser the options and the description.

        A bool is a flag; one that may be None takes true or false, or stands alone for true. A tuple is what stands in
        several places, or in a row behind one name where it has a default, which is then replaced.
        """
        parser.description = self.description
        groups: dict[str, argparse._ActionsContainer] = {"": parser}
        for each in options_of(self.options):
            if each.group not in groups:
                groups[each.group] = parser.add_argument_group(each.group)
            name = each.name if each.positional else f"--{each.name}"
            groups[each.group].add_argument(name, **_keywords(each))

    def __call__(self, given: argparse.Namespace) -> int:
        """Run it with what was parsed; returns the exit code."""
        values = {each.name: _value(each, getattr(given, each.name)) for each in options_of(self.options)}
        if self.before is not None:
            self.before(values)
        return self.run(build(self.options, values))


def _keywords(each: Option) -> dict[str, Any]:
    """What `add_argument` is told of an option."""
    said: dict[str, Any] = {"help": _help(each)}
    if each.kind is bool:
        return {**said, "action": "store_true"}
    kind, several = _kind(each.kind)
    if kind is bool:
        return {**said, "type": _truth, "nargs": "?", "const": True, "metavar": "True|False", "default": each.default}
    said["type"] = _parse(kind, each.least)
    if each.metavar:
        said["metavar"] = each.metavar
    if each.choices:
        said["choices"] = each.choices
    if several and each.positional and each.default is not MISSING:
        said["nargs"] = "*"
    elif several and (each.positional or each.default):
        said["nargs"] = "+"
    elif several:
        return {**said, "action": "append", "default": None}  # argparse appends to a default
    if each.default is not MISSING:
        said["default"] = each.default
    elif not each.positional:
        said["required"] = True
    return said


def _help(each: Option) -> str:
    """The help text with the default, unless that is nothing or depends on what else is given."""
    text = each.help.replace("%", "%%")
    if any(each.default is nothing for nothing in (MISSING, None, False)) or each.default == ():
        return text
    shown = " ".join(f"{value}" for value in each.default) if isinstance(each.default, tuple) else each.default
    return f"{text} (default: {shown})"


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The kind of a single value, without None, and whether there may be several."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (kind for kind in get_args(annotation) if kind is not NoneType)
    return (get_args(annotation)[0], True) if get_origin(annotation) is tuple else (annotation, False)


def _parse(kind: Any, least: int | None) -> Callable[[str], Any]:
    """What makes a value of the text that a user gives, and refuses it in words."""
    if kind is Path:
        return _path
    expected = {int: "a whole number", float: "a number"}.get(kind)
    if expected is None:
        return kind  # type: ignore[no-any-return]

    def number(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}") from None
        if least is not None and value < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, found {value}")
        return value

    return number


def _truth(text: str) -> bool:
    try:
        return parse_bool(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _path(text: str) -> Path:
    """A path; an empty text, such as a variable that was not set, would silently be this folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, found an empty text: is a variable not set?")
    return Path(text)


def _value(each: Option, parsed: Any) -> Any:
    """What the dataclass holds of what argparse gives."""
    if parsed is None and each.default is not MISSING:
        return each.default
    return tuple(parsed) if isinstance(parsed, list) else parsed
