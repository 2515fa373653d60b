"""An option of a command or a configuration, written once: a field of a dataclass with default, help and role.

The command line is generated from such dataclasses, configurations and documentation are tested against them, and what
identifies a run or where its files lie is asked of them instead of being listed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from lessismore_transforms.errors import UserError

Role = Literal["identity", "setting", "run", "path", "speed", "report", "label"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: of the field.
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
    """

    name: str
    kind: Any
    default: Any
    help: str
    role: Role
    choices: tuple[str, ...]
    metavar: str
    group: str
    phase: str


def option(
    default: Any = MISSING,
    *,
    help: str,  # noqa: A002 (the word of argparse)
    role: Role = "identity",
    choices: Sequence[str] = (),
    metavar: str = "",
    group: str = "",
    phase: str = "",
) -> Any:
    """Field of a dataclass that is an option, see `Option`."""
    metadata = {"help": help, "role": role, "choices": tuple(choices), "metavar": metavar, "group": group}
    return field(default=default, metadata={**metadata, "phase": phase})


def default_of(settings: type, name: str, default: Any) -> Any:
    """Field for a subclass of settings: the option of that name with another default."""
    (before,) = (each for each in _fields(settings) if each.name == name)
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
    """Options of a dataclass (or of an instance of one), in their order; fields without help text are left out."""
    kinds = get_type_hints(settings if isinstance(settings, type) else type(settings))
    return [Option(each.name, kinds[each.name], each.default, **each.metadata) for each in _fields(settings)]


def names(settings: Any, *roles: Role, phase: str | None = None) -> tuple[str, ...]:
    """Names of the options that have one of these roles (any where none is given) and belong to a phase, if one is."""
    return tuple(
        each.name
        for each in _fields(settings)
        if (not roles or each.metadata["role"] in roles) and phase in (None, each.metadata["phase"])
    )


def plain_values(settings: Any) -> dict[str, Any]:
    """Values of the options that JSON can hold, by name; paths as texts."""
    found = {each.name: getattr(settings, each.name) for each in _fields(settings)}
    return {name: _plain(value) for name, value in found.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, Path))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def parse_bool(value: object) -> bool:
    """Truth value of what was typed: a bool, or `true` or `false` in any case.

    Raises:
        UserError: the value is none of these.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise UserError(f"expected true or false, found {value!r}")


def _fields(settings: Any) -> list[Field[Any]]:
    return [each for each in fields(settings) if "help" in each.metadata]
