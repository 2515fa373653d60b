"""An option of a command or a configuration, written once: a field of a dataclass with default, help and role.

The command line is generated from such dataclasses, configurations and documentation are tested against them, and what
identifies a run or where its files lie is asked of them instead of being listed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

Role = Literal["identity", "path", "speed", "label"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: of the field.
        kind: its annotation, such as int, `str | None` or `tuple[str, ...]`.
        default: `dataclasses.MISSING` where it has to be given.
        help: a phrase for `--help` and the documentation.
        role: `identity` for what decides the result, `path` for where files lie, `speed` for how and how fast it is
            computed and what is shown meanwhile, `label` for what the result is called.
        choices: the only values, empty for any.
        metavar: what stands for the value in `--help`.
        group: title under which `--help` lists it, empty for the main one.
    """

    name: str
    kind: Any
    default: Any
    help: str
    role: Role
    choices: tuple[str, ...]
    metavar: str
    group: str


def option(
    default: Any = MISSING,
    *,
    help: str,  # noqa: A002 (the word of argparse)
    role: Role = "identity",
    choices: Sequence[str] = (),
    metavar: str = "",
    group: str = "",
) -> Any:
    """Field of a dataclass that is an option, see `Option`."""
    metadata = {"help": help, "role": role, "choices": tuple(choices), "metavar": metavar, "group": group}
    return field(default=default, metadata=metadata)


def options_of(settings: Any) -> list[Option]:
    """Options of a dataclass (or of an instance of one), in their order; fields without help text are left out."""
    kinds = get_type_hints(settings if isinstance(settings, type) else type(settings))
    return [Option(each.name, kinds[each.name], each.default, **each.metadata) for each in _fields(settings)]


def names(settings: Any, *roles: Role) -> tuple[str, ...]:
    """Names of the options that have one of these roles; of all where none is given."""
    return tuple(each.name for each in _fields(settings) if not roles or each.metadata["role"] in roles)


def _fields(settings: Any) -> list[Field[Any]]:
    return [each for each in fields(settings) if "help" in each.metadata]
