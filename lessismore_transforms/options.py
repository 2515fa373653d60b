"""An option of a command or a configuration, written once: a field of a dataclass with default, help and role.

The command line is generated from such dataclasses, configurations and documentation are tested against them, and what
identifies a run or where its files lie is asked of them instead of being listed again.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from lessismore_transforms.errors import UserError

Role = Literal["identity", "setting", "run", "path", "speed", "report", "label"]
ROLES: tuple[str, ...] = get_args(Role)
TRUTHS = {"true": True, "false": False}  # what is typed for a truth value, in small letters
_T = TypeVar("_T")


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: as users write it; that of the field, unless the option says otherwise.
        kind: its annotation, such as int, `str | None` or `tuple[str, ...]`.
        default: `dataclasses.MISSING` where it has to be given.
        help: a phrase for `--help` and the documentation.
        role: `identity` for what decides the result, so that a run goes on only with the same value; `setting` for what
            decides it and may change when a run goes on, such as its length; `run` for which of several equal runs it
            is; `path` for where files lie; `speed` for how fast it is computed and what is kept meanwhile; `report` for
            what is checked and reported beside the result; `label` for what the result is called.
        choices: the only values, empty for any.
        metavar: what stands for the value in `--help`.
        group: title under which `--help` lists it, empty for the main one.
        phase: part of the work that alone uses it, such as `training`; empty for all of them.
        least: the lowest value of a number, None for any.
        positional: whether a command takes it by its place instead of its name.
    """

    name: str
    kind: Any
    default: Any
    help: str
    role: Role
    choices: tuple[str, ...] = ()
    metavar: str = ""
    group: str = ""
    phase: str = ""
    least: int | None = None
    positional: bool = False


def option(
    default: Any = MISSING,
    *,
    help: str,  # noqa: A002 (the word of argparse)
    role: Role = "identity",
    name: str = "",
    choices: Sequence[str] = (),
    metavar: str = "",
    group: str = "",
    least: int | None = None,
    phase: str = "",
) -> Any:
    """Field of a dataclass that is an option, see `Option`."""
    metadata = {"help": help, "role": role, "name": name, "choices": tuple(choices), "metavar": metavar, "group": group}
    return field(default=default, metadata={**metadata, "least": least, "phase": phase})


def argument(default: Any = MISSING, *, help: str, metavar: str, role: Role = "path") -> Any:  # noqa: A002
    """Field of a dataclass that a command takes by its place and not by its name."""
    return field(default=default, metadata={"help": help, "role": role, "metavar": metavar, "positional": True})


def nested(kind: type[_T]) -> _T:
    """Field that holds a dataclass whose options stand in this place."""
    made: _T = field(default_factory=kind, metadata={"nested": kind})
    return made


def default_of(settings: type, name: str, default: Any) -> Any:
    """Field for a subclass of settings: the option of that name with another default."""
    (before,) = (each for each in fields(settings) if each.name == name)
    return field(default=default, metadata=before.metadata)


def parse_bools(settings: Any) -> None:
    """Turn texts in the boolean options of an instance into truth values: MONAI hands `--resume true` over as a text.

    Raises:
        UserError: a text is neither true nor false.
    """
    for each in options_of(settings):
        if each.kind is bool:
            object.__setattr__(settings, each.name, parse_bool(getattr(settings, each.name)))


def options_of(settings: Any) -> list[Option]:
    """Options of a dataclass (or of an instance of one) and of those nested in it, in their order.

    Fields without help text are no options.
    """
    kind = settings if isinstance(settings, type) else type(settings)
    kinds = _kinds(kind)
    options: list[Option] = []
    for each in fields(kind):
        if "nested" in each.metadata:
            options += options_of(each.metadata["nested"])
        elif "help" in each.metadata:
            said = {**each.metadata, "name": _name(each)}
            options.append(Option(kind=kinds[each.name], default=each.default, **said))
    return options


def names(settings: Any, *roles: Role, phase: str | None = None) -> tuple[str, ...]:
    """Names of the options that have one of these roles (any where none is given) and belong to a phase, if one is."""
    return tuple(
        each.name for each in options_of(settings) if (not roles or each.role in roles) and phase in (None, each.phase)
    )


def plain_values(settings: Any) -> dict[str, Any]:
    """Values of the options that JSON can hold, by name; paths as texts."""
    found = {name: getattr(settings, name) for name in names(settings)}
    return {name: _plain(value) for name, value in found.items() if is_plain(value)}


def is_plain(value: Any) -> bool:
    """Whether a value is one that JSON can hold, or a path, or a list or tuple of such."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, Path))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def is_number(value: object, *kinds: type) -> bool:
    """Whether a value is a number of these kinds, and no truth value."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def parse_bool(value: object) -> bool:
    """Truth value of what was typed: a bool, or `true` or `false` in any case.

    Raises:
        UserError: the value is none of these.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUTHS:
        return TRUTHS[value.lower()]
    raise UserError(f"expected true or false, found {value!r}")


def build(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """A dataclass, and those nested in it, from the values of all its options by name."""
    given = {each.name: values[_name(each)] for each in fields(kind) if "help" in each.metadata}  # type: ignore[arg-type]
    return kind(**given, **{name: build(inner, values) for name, inner in _nested(kind)})


def _nested(kind: Any) -> Iterator[tuple[str, type]]:
    return ((each.name, each.metadata["nested"]) for each in fields(kind) if "nested" in each.metadata)


def _name(each: Field[Any]) -> str:
    return each.metadata.get("name") or each.name


def _kinds(kind: type) -> dict[str, Any]:
    """The kinds of the fields that are options; others may name what is imported for type checkers alone."""
    wanted = {each.name for each in fields(kind) if "help" in each.metadata}
    kinds: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        own = {name: text for name, text in inspect.get_annotations(base).items() if name in wanted}
        kinds |= get_type_hints(SimpleNamespace(__annotations__=own), vars(sys.modules[base.__module__]))
    return kinds
