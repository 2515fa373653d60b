"""An option of a command or a configuration, written once: a field of a dataclass with default, help and role.

The command line is generated from such dataclasses, configurations and documentation are tested against them, and what
identifies a run or where its files lie is asked of them instead of being listed again.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from types import SimpleNamespace
from typing import Any, Literal, TypeVar, get_args, get_type_hints

Role = Literal["identity", "path", "speed", "label"]
ROLES: tuple[str, ...] = get_args(Role)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: as users write it; that of the field, unless the option says otherwise.
        kind: its annotation, such as int, `str | None` or `tuple[str, ...]`.
        default: `dataclasses.MISSING` where it has to be given.
        help: a phrase for `--help` and the documentation.
        role: `identity` for what decides the result, `path` for where files lie, `speed` for how and how fast it is
            computed and what is shown meanwhile, `label` for what the result is called.
        choices: the only values, empty for any.
        metavar: what stands for the value in `--help`.
        group: title under which `--help` lists it, empty for the main one.
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
) -> Any:
    """Field of a dataclass that is an option, see `Option`."""
    metadata = {"help": help, "role": role, "name": name, "choices": tuple(choices), "metavar": metavar, "group": group}
    return field(default=default, metadata={**metadata, "least": least})


def argument(*, help: str, metavar: str, role: Role = "path") -> Any:  # noqa: A002 (the word of argparse)
    """Field of a dataclass that a command takes by its place and not by its name."""
    return field(metadata={"help": help, "role": role, "metavar": metavar, "positional": True})


def nested(kind: type[_T]) -> _T:
    """Field that holds a dataclass whose options stand in this place."""
    made: _T = field(default_factory=kind, metadata={"nested": kind})
    return made


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


def names(settings: Any, *roles: Role) -> tuple[str, ...]:
    """Names of the options that have one of these roles; of all where none is given."""
    return tuple(each.name for each in options_of(settings) if not roles or each.role in roles)


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
