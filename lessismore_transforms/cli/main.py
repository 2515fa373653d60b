"""The command line: `lessismore COMMAND`, the same as `python -m lessismore_transforms COMMAND`.

A command's options and what it does stand in the file of its group, which is imported when the command is called for:
--help and a misspelt option answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from lessismore_transforms import __version__
from lessismore_transforms.cli.exit_code import exit_code
from lessismore_transforms.cli.parser import Parser
from lessismore_transforms.options import names

if TYPE_CHECKING:
    from lessismore_transforms.cli.command import Command

COMMANDS = {  # name: file of its group, and what it does
    "download": ("download", "get a data set from its publisher"),
    "reduce": ("reduce", "rank the slices of every volume and store those worth learning from"),
    "select": ("reduce", "draw another selection from a finished output; no image is read"),
    "report": ("reduce", "write OUT/report.html, to choose a threshold by"),
    "export": ("export", "write a selection for other trainers: WebDataset, ImageFolder, Parquet"),
    "duplicates": ("compare", "find pictures of one data set in another: a pre-training set against a test set"),
    "compare": ("compare", "how many slices selections share, beside chance and reversed order"),
    "curves": ("train", "draw the figures of training runs over their steps"),
    "table": ("train", "compare evaluations of classification bundles with each other and with the paper"),
    "audit": ("audit", "tell whether near copies are closer to a slice than its own second view"),
    "probe": ("probe", "compare frozen networks by regressions and neighbours on labelled pictures"),
    "explain": ("explain", "write the page of an analysis of networks again from its numbers"),
    "bundles": ("bundles", "say where the MONAI bundles are, or copy them to a folder"),
    "share": ("share", "make a bundle with weights and a card of a finished training"),
    "demo-data": ("demo_data", "write a small synthetic data set of CT volumes"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 where volumes failed, 2 for a mistake that a sentence explains."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = parser_of(arguments[0] if arguments else "")
    command = arguments[0] if arguments else ""
    if command in COMMANDS and (misspelt := _misspelt(arguments[1:], command)):  # before argparse asks for others
        parser.exit(2, f"error: {misspelt}: see `{parser.prog} {command} --help`\n")
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.exit(2, f"error: {_unrecognized(unknown, given.command)}: see `{parser.prog} {given.command} --help`\n")
    return exit_code(lambda: command_of(given.command)(given))


def _misspelt(arguments: Sequence[str], command: str) -> str:
    """What says that an option of a command does not exist and which one was meant; empty where all exist."""
    options = {f"--{name}" for name in names(command_of(command).options)} | {"--help", "--"}
    named = [each for each in arguments if each.startswith("--") and each.partition("=")[0] not in options]
    return _unrecognized(named, command) if named else ""


def _unrecognized(arguments: Sequence[str], command: str) -> str:
    """What no option of a command takes, and the option that was meant, if one is like it."""
    options = [f"--{name}" for name in names(command_of(command).options)]
    close = get_close_matches(arguments[0].partition("=")[0], options, n=1)
    return f"unrecognized arguments: {' '.join(arguments)}" + (f" (did you mean {close[0]}?)" if close else "")


def command_of(name: str) -> Command:
    """The command of this name."""
    group = import_module(f"lessismore_transforms.cli.{COMMANDS[name][0]}")
    command: Command = group.COMMANDS[name]
    return command


def parser_of(chosen: str) -> Parser:
    """The parser of the command line, with the options of one command; the others have but a name."""
    parser = Parser(
        prog="python -m lessismore_transforms",
        description="From folders of CT volumes to the slices worth learning from.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, does) in COMMANDS.items():
        one = commands.add_parser(name, help=does)
        if name == chosen:
            command_of(name).add_to(one)
    return parser
