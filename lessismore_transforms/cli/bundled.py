"""A command of the command line run by a bundle, with the settings that stand at the top of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lessismore_transforms.bundle.caller import calling_workflow
from lessismore_transforms.cli import main as command_line
from lessismore_transforms.options import names, options_of, parse_bool


def run_command(name: str, **given: Any) -> None:
    """Run a command from an expression of a configuration: each option takes the setting of its name.

        "imports": ["$from lessismore_transforms.cli.bundled import run_command"],
        "run": ["$run_command('reduce', png=@png_dir)"]

    Args:
        name: of the command, such as `reduce`.
        given: values of options whose settings have other names.

    Raises:
        SystemExit: the command did not end well; its sentences are on stderr.
    """
    config = calling_workflow().parser
    options = names(command_line.command_of(name).options)
    values = {each: given[each] if each in given else config.get_parsed_content(each) for each in options}
    if code := command_line.main(command_line_of(name, values)):
        raise SystemExit(code)


def command_line_of(name: str, values: Mapping[str, Any]) -> list[str]:
    """The command line for values as they stand in a configuration.

    Args:
        name: of the command.
        values: by the names of its options; None leaves one out, true and false (text too) stand for a flag, and a
            list repeats the option.
    """
    line = [name]
    for each in options_of(command_line.command_of(name).options):
        value = values[each.name]
        if each.positional:
            line.append(str(value))
        elif each.kind is bool:
            line += [f"--{each.name}"] if value is not None and parse_bool(value) else []
        elif value is not None:
            several = value if isinstance(value, (list, tuple)) else [value]
            line += [f"--{each.name}={item}" for item in several]
    return line
