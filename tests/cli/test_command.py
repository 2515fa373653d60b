"""Commands from dataclasses: the options of each, and how kinds become arguments."""

from __future__ import annotations

import argparse
import inspect
import shlex
import subprocess
import sys
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lessismore_transforms.cli.command import Command
from lessismore_transforms.cli.main import COMMANDS, command_of, parser_of
from lessismore_transforms.cli.parser import Parser
from lessismore_transforms.options import Option, argument, build, names, nested, option, options_of
from lessismore_transforms.pipeline.settings import Encoder, Settings, TargetOptions
from lessismore_transforms.reduced.across_volumes import ORDERS
from lessismore_transforms.reduction.measures import BINS
from lessismore_transforms.reduction.near_duplicates import CORRELATION
from lessismore_transforms.reduction.target import METHODS, RULES, SCOPES, Target
from lessismore_transforms.weights.backbones import OUTPUTS


@dataclass(frozen=True)
class Inner:
    """Options within others."""

    width: float | None = option(None, help="in 100 % of it", group="size")
    depth: int = option(3, name="deep", help="how deep", least=1, metavar="N", group="size")


@dataclass(frozen=True)
class Outer:
    """One option of each kind."""

    places: tuple[Path, ...] = argument(metavar="PLACE", help="where")
    label: str = option(help="what to call it", role="label")
    inner: Inner = nested(Inner)
    kind: str = option("a", help="which", choices=("a", "b"))
    strict: bool = option(False, help="stop early", role="speed")
    turns: bool | None = option(None, help="in turn")
    only: tuple[str, ...] = option((), help="repeatable")
    names: tuple[str, ...] = option(("x", "y"), help="in a row")
    hidden: int = 7


def parse(*line: str) -> Outer:
    parser, seen = Parser(prog="p"), []
    command = Command(Outer, lambda options: seen.append(options) or 0, "what it does")
    command.add_to(parser)
    assert command(parser.parse_args(line)) == 0
    return seen[0]


def test_defaults() -> None:
    assert parse("P", "--label", "l") == Outer(places=(Path("P"),), label="l")


def test_every_kind() -> None:
    line = "P Q --label=l --width 0.5 --deep 4 --kind b --strict --only 1 --only 2 --names u v w"
    assert parse(*line.split()) == Outer(
        (Path("P"), Path("Q")), "l", Inner(0.5, 4), "b", strict=True, only=("1", "2"), names=("u", "v", "w")
    )


@pytest.mark.parametrize(
    ("line", "turns"),
    [("", None), (" --turns", True), (" --turns True", True), (" --turns=false", False), (" --turns FALSE", False)],
)
def test_what_is_on_elsewhere_can_be_switched_off(line: str, turns: bool | None) -> None:
    assert parse(*f"P --label l{line}".split()).turns is turns


@pytest.mark.parametrize(
    ("line", "places", "turns"),
    [
        ("--turns P --label l", "P", True),
        ("--label l --turns P Q", "P Q", True),
        ("--label l --turns False P", "P", False),
        ("--label l --turns -- P", "P", True),
        ("--label l -- P --turns Q", "P --turns Q", None),
    ],
)
def test_what_is_no_truth_value_is_a_place(line: str, places: str, turns: bool | None) -> None:
    found = parse(*line.split())
    assert (found.places, found.turns) == (tuple(map(Path, places.split())), turns)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--balance no OUT", "argument --balance: expected true or false, found 'no'"),
        ("OUT --balance ''", "argument --balance: expected true or false, found ''"),
        ("--balance OUT -o x", "unrecognized arguments: -o x"),
    ],
)
def test_a_word_too_many_behind_what_may_stand_alone(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = parser_of("audit")
    usual = ["--views", "V", "--output_dir", "D"]
    given = parser.parse_args(["audit", "--balance", "OUT", *usual])
    assert (given.dataset_dir, given.balance) == (Path("OUT"), True)
    with pytest.raises(SystemExit):
        parser.parse_args(["audit", *shlex.split(line), *usual])
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--label l", "error: the following arguments are required: PLACE: see `p --help`"),
        ("P", "error: the following arguments are required: --label: see `p --help`"),
        ("P --label l --deep x", "error: argument --deep: expected a whole number, found 'x': see `p --help`"),
        ("P --label l --deep 0", "error: argument --deep: expected 1 or more, found 0: see `p --help`"),
        ("P --label l --width x", "error: argument --width: expected a number, found 'x': see `p --help`"),
        ("P --label l --turns no", "error: argument --turns: expected true or false, found 'no': see `p --help`"),
        ("P --label l --stric", "error: unrecognized arguments: --stric: see `p --help`"),
    ],
)
def test_mistakes(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(*line.split())
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"{sentence}\n"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    for phrase in (
        "what it does", "--label LABEL what to call it", "--kind {a,b} which (default: a)", "--strict stop early --",
        "--turns [True|False] in turn --",
        "size: --width WIDTH in 100 % of it --deep N how deep (default: 3)", "in a row (default: x y)",
    ):  # fmt: skip
        assert phrase in text
    assert "hidden" not in text


def test_options() -> None:
    assert names(Outer) == ("places", "label", "width", "deep", "kind", "strict", "turns", "only", "names")
    assert names(Outer, "label", "speed") == ("label", "strict")
    assert options_of(Inner)[1] == Option("deep", int, 3, "how deep", "identity", metavar="N", group="size", least=1)
    assert [each.default for each in options_of(Outer)[:2]] == [MISSING, MISSING]
    assert build(Inner, {"width": 1.0, "deep": 2, "more": 3}) == Inner(1.0, 2)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_exactly_the_options_of_its_dataclass(name: str) -> None:
    subparsers = parser_of(name)._subparsers
    assert subparsers is not None
    (choice,) = (action for action in subparsers._actions if isinstance(action, argparse._SubParsersAction))
    actions = [action for action in choice.choices[name]._actions if action.dest != "help"]
    options = options_of(command_of(name).options)
    assert [action.dest for action in actions] == [each.name for each in options]
    for action, each in zip(actions, options, strict=True):
        assert action.option_strings == ([] if each.positional else [f"--{each.name}"])
        assert action.required == (each.default is MISSING)
        nothing = () if each.positional and each.default == () else None  # argparse appends to other lists
        assert action.default == (nothing if each.default in (MISSING, ()) else each.default)
        assert tuple(action.choices or ()) == each.choices
        assert each.help in (action.help or "").replace("%%", "%")


def test_choices_and_defaults_are_those_of_what_is_called() -> None:
    options = {each.name: each for name in ("select", "reduce") for each in options_of(command_of(name).options)}
    assert options["method"].choices == METHODS
    assert options["rule"].choices == RULES
    assert options["scope"].choices == SCOPES
    assert options["order"].choices == ORDERS
    assert options["features"].choices == OUTPUTS
    assert options["bins"].default in BINS
    (correlation,) = (each for each in options_of(command_of("duplicates").options) if each.name == "correlation")
    assert correlation.default == CORRELATION
    target = inspect.signature(Target.of).parameters
    assert set(target) == {*names(TargetOptions), "scope", "like", "near"}
    assert all(target[each.name].default == each.default for each in options_of(TargetOptions))
    assert all(target[name].default == options[name].default for name in ("scope", "like", "near"))
    assert TargetOptions().target() == Target.of() == Settings().target


@pytest.mark.parametrize(
    "changed",
    [
        {"pixels": "released"},
        {"as_released": True},
        {"include": ("*.nii",)},
        {"patterns": ("lidc",)},
        {"keep_patient_ids": True},
        {"body": True},
        {"keep_distances": True},
        {"bins": 32},
    ],
)
def test_what_identifies_a_reduction_stands_in_its_manifest(changed: dict[str, Any]) -> None:
    usual = Settings(target=Target.of(method="mi"))
    assert usual.as_dict(b"key") != replace(usual, **changed).as_dict(b"key")


def test_the_roles_of_the_settings() -> None:
    identity = {"as_released", "include", "pattern", "keep_patient_ids", "body", "keep_distances", "bins"}
    assert set(names(Settings, "identity")) == identity | set(names(Encoder))
    assert names(Settings, "speed") == ("device", "memory_mb")
    assert names(Settings, "path", "label") == ()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_that_computes(name: str) -> None:
    script = (
        "import sys; from lessismore_transforms.cli.main import parser_of;"
        f"parser_of({name!r}).format_help();"
        "print([name for name in ('numpy', 'torch', 'monai', 'pandas', 'numba') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"[]\n"
