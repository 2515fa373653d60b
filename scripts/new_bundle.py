"""Start a bundle, or compare the shared files of all bundles with their template.

    python scripts/new_bundle.py ct_simsiam_pretraining      # like ct_swav_pretraining; says what remains to be done
    python scripts/new_bundle.py --check                     # which shared files differ; exit code 1 if any does
    python scripts/new_bundle.py --update                    # write them anew

What is shared, and how, stands in `shared_files.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_files import BUNDLES, FAMILIES, OWN, TEMPLATE, TO_WRITE, differing, family_of, filled, unwritten, update

from lessismore_transforms.cli.exit_code import exit_code
from lessismore_transforms.cli.parser import Parser
from lessismore_transforms.errors import UserError
from lessismore_transforms.methods import METHODS

LIKE = {"pretraining": "ct_swav_pretraining", "classification": "covid19_ct_classification"}
NOT_SETTINGS = ("imports", "bundle_root", "schedule", "initialize", "run", "finalize")  # an overlay may give a schedule
_NOT_COPIED = ("as_released.json", "metadata.json")  # the one is of what was released, the other is made


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a bundle, or check or update them all; returns the exit code."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if options.check or options.update:
        return _check(options.folder) if options.check else _update(options.folder)
    plan = Plan.of(options.name, options.like, options.title, options.folder)
    start(plan)
    print("\n".join(steps(plan)))
    return 0


@dataclass(frozen=True)
class Plan:
    """A bundle to start.

    Args:
        name: of the bundle.
        family: that its name ends with.
        like: the bundle whose configuration is copied.
        title: for people.
        folder: that holds the bundle's folder.
    """

    name: str
    family: str
    like: Path
    title: str
    folder: Path

    @classmethod
    def of(cls, name: str | None, like: str | None, title: str | None, folder: Path = BUNDLES) -> Plan:
        """Check what a user asks for.

        Raises:
            UserError: the name is none of a bundle, it is taken, or nothing tells the title or what it is like.
        """
        family = family_of(name or "")
        if not name or family is None or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            endings = " or ".join(f"_{family}" for family in FAMILIES)
            raise UserError(
                f"expected a name of small letters, digits and _ that ends with {endings}, found {name or 'nothing'}"
            )
        if family == "pretraining" and not re.fullmatch(r"ct_[a-z0-9]+_pretraining", name):
            raise UserError(
                f"expected ct_METHOD_pretraining, found {name!r}: METHOD is the method's name in methods.py"
            )
        if (folder / name).exists():
            raise UserError(f"expected a new folder, found {folder / name}: choose another name, or delete it")
        model = BUNDLES / (like or LIKE[family])
        if family_of(model.name) != family or not model.is_dir():
            known = ", ".join(sorted(path.name for path in BUNDLES.glob(f"*_{family}")))
            raise UserError(f"expected --like out of {known}, found {model.name!r}; name one of these")
        if title is None and family == "pretraining" and _method(name) in METHODS:
            title = METHODS[_method(name)].title
        if not title:
            row = "a row in lessismore_transforms/methods.py, or " if family == "pretraining" else ""
            raise UserError(f"expected {row}--title for {name}, found none: add one")
        return cls(name, family, model, title, folder)

    @property
    def values(self) -> dict[str, str]:
        """What stands for what in the files that a bundle starts with."""
        identifier = re.sub(r"\W", "", self.title)
        return {"bundle": self.name, "title": self.title, "class": identifier, "method": _method(self.name)}


def start(plan: Plan) -> None:
    """Make the bundle's folder."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / plan.name
        (folder / "configs").mkdir(parents=True)
        _copy(plan, folder)
        metadata = json.loads((plan.like / "configs" / "metadata.json").read_text(encoding="utf-8"))
        _write_json(folder / "configs" / "metadata.json", metadata | _metadata(plan, metadata["references"]))
        _write_docs(plan, folder)
        for template in sorted((TEMPLATE / "start" / plan.family / "scripts").iterdir()):
            name = template.name.removesuffix(".txt").replace("method.py", f"{_method(plan.name)}.py")
            _write(folder / "scripts" / name, filled(template.read_text(encoding="utf-8"), plan.values))
        _write_exports(plan, folder)
        update(folder)
        shutil.copytree(folder, plan.folder / plan.name)


def steps(plan: Plan) -> list[str]:
    """What its author has still to do, a line each."""
    folder, values = plan.folder / plan.name, plan.values
    train = (folder / "configs" / "train.json").read_text(encoding="utf-8")
    lines = [f"started {folder}; what remains:"]
    if plan.family == "pretraining":
        own = {values["class"], f"{values['class']}Loss", "Settings"}
        foreign = sorted(set(re.findall(r'"scripts\.(\w+)"', train)) - own)
        rest = f", above all {', '.join(f'scripts.{name}' for name in foreign)}" if foreign else ""
        if getattr(METHODS.get(values["method"]), "bundle", None) != plan.name:
            lines.append(f"- lessismore_transforms/methods.py: a row for {values['method']}, with bundle={plan.name!r}")
        lines += [
            "- python scripts/new_bundle.py --update, after the row: other bundles list the methods",
            f"- scripts/{values['method']}.py: the network and its loss",
            f"- configs/train.json, scripts/settings.py: what is still that of {plan.like.name}{rest}",
            f"- scripts/experiments/tiny.json: settings by which {plan.title} trains in seconds, for tests and --tiny",
            f"- tests/bundles/test_{values['method']}_method.py: tests of values for the network and its loss",
        ]
    else:
        lines += [
            f"- lessismore_transforms/classification/tasks.py: a row for {plan.title}, with bundle={plan.name!r}",
            "- scripts/examples.py: pictures, labels, splits and patients",
            f"- configs/*.json, scripts/settings.py: classes and settings that are still those of {plan.like.name}",
            "- tests/bundles/test_listings.py: tests of what it lists",
        ]
    names = [name for name in unwritten(folder) if not name.startswith("scripts/")]
    lines.append(f"- {', '.join(names)}: what begins with {TO_WRITE!r}")
    lines.append("- configs/as_released.json and its command in docs/README.md, if there is released code that differs")
    lines.append("- python scripts/new_bundle.py --check, and the tests of all bundles: they find it by its folder")
    return lines


def settings_of(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The settings at the top of a configuration with their defaults, without those that are computed."""
    top = itertools.takewhile(lambda item: not isinstance(item[1], dict), configuration.items())
    return {name: value for name, value in top if name not in NOT_SETTINGS and not str(value).startswith(("$", "@"))}


def as_documented(default: Any) -> str:
    """A default as tables of settings write it."""
    if default is None:
        return "none"
    text = default if isinstance(default, str) else json.dumps(default)
    return f"`{text}`" if isinstance(default, (str, bool)) else text


def _check(folder: Path) -> int:
    wrong = []
    for bundle in _bundles(folder):
        wrong += [
            f"{bundle.name}/{name} is not as the template has it: edit the template, or run --update"
            for name in differing(bundle)
        ]
        wrong += [f"{bundle.name}/{name} has {TO_WRITE!r} in it: write it" for name in unwritten(bundle)]
    print("\n".join(wrong) or "all shared files are as the template has them")
    return 1 if wrong else 0


def _update(folder: Path) -> int:
    written = [f"{bundle.name}/{name}" for bundle in _bundles(folder) for name in update(bundle)]
    print("\n".join(f"written: {name}" for name in written) or "all shared files were as the template has them")
    return 0


def _bundles(folder: Path) -> list[Path]:
    return sorted(path.parents[1] for path in folder.glob("*/configs/metadata.json"))


def _parser() -> Parser:
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="?", help="of the new bundle: ct_METHOD_pretraining or DATASET_classification")
    parser.add_argument(
        "--like", metavar="BUNDLE", help="whose configurations are copied, by default SwAV's or COVID-19's"
    )
    parser.add_argument("--title", help="for people; by default the method's title in methods.py")
    parser.add_argument("--folder", metavar="DIR", type=Path, default=BUNDLES, help="that holds the bundles")
    todo = parser.add_mutually_exclusive_group()
    todo.add_argument("--check", action="store_true", help="name the shared files that differ from the template")
    todo.add_argument("--update", action="store_true", help="write those files anew")
    return parser


def _method(name: str) -> str:
    return name.removeprefix("ct_").removesuffix("_pretraining")


def _copy(plan: Plan, folder: Path) -> None:
    """Copy configurations and settings of another bundle, with the names replaced."""
    names = {plan.like.name: plan.name}
    if plan.family == "pretraining":
        model = next(row for row in METHODS.values() if row.bundle == plan.like.name)
        names |= {model.name: plan.values["method"], model.title: plan.values["class"]}
        names |= {f"{model.title}Loss": f"{plan.values['class']}Loss"}
    paths = (path for path in sorted((plan.like / "configs").glob("*.json")) if path.name not in _NOT_COPIED)
    for path in (*paths, *(plan.like / "scripts").glob("settings.py")):
        text = path.read_text(encoding="utf-8")
        _write(folder / path.relative_to(plan.like), re.sub(r"\w+", lambda word: names.get(word[0], word[0]), text))


def _write_exports(plan: Plan, folder: Path) -> None:
    """Write scripts/__init__.py, which offers what the configurations name."""
    exports, what = {"listing": ["listing"]}, "its pictures and splits"
    if plan.family == "pretraining":
        exports, what = (
            {plan.values["method"]: [plan.values["class"], f"{plan.values['class']}Loss"]},
            "its network and loss",
        )
    if (folder / "scripts" / "settings.py").is_file():
        exports["settings"] = ["Settings"]
    imports = "".join(f"from .{module} import {', '.join(names)}\n" for module, names in sorted(exports.items()))
    names = sorted(itertools.chain(*exports.values()), key=lambda name: (not name.isupper(), name))
    head = f'"""{plan.title}: {what}."""\n\nfrom __future__ import annotations\n\n{imports}\n'
    quoted = ", ".join(f'"{name}"' for name in names)
    _write(folder / "scripts" / "__init__.py", f"{head}__all__ = [{quoted}]\n")


def _metadata(plan: Plan, references: Sequence[str]) -> dict[str, Any]:
    """What differs from the metadata of the other bundle."""
    first = {"version": "0.1.0", "changelog": {"0.1.0": "first version"}, "references": references[:1]}
    described = {"description": f"{TO_WRITE} what {plan.title} does. No weights are shipped."}
    if plan.family == "pretraining":
        return first | described | {"name": f"CT {plan.title} pre-training"}
    own = {name: f"{TO_WRITE} {name}" for name in ("task", "data_source", "data_type", "pred_classes")}
    return first | described | own | {"name": f"{plan.title} classification"}


def _write_docs(plan: Plan, folder: Path) -> None:
    """Write README and data licence with places for what is the bundle's own; `update` fills in the shared parts."""
    train = json.loads((folder / "configs" / "train.json").read_text(encoding="utf-8"))
    for path in sorted((TEMPLATE / plan.family / "docs").iterdir()):
        text = path.read_text(encoding="utf-8").replace(OWN, TO_WRITE)
        text = re.sub(r"(\| setting .*\n\|---.*\n)((?:\|.*\n)*)", lambda table: table[1] + _rows(train, table[2]), text)
        pieces = re.split(r"(<!-- shared.*?<!-- /shared -->\n)", text, flags=re.DOTALL)
        own = [piece if piece.startswith("<!--") else filled(piece, plan.values) for piece in pieces]
        _write(folder / "docs" / path.name, "".join(own))


def _rows(train: Mapping[str, Any], template: str) -> str:
    """A row of the table of settings for each at the top of a configuration, and for what the template has."""
    told = {name: as_documented(value) for name, value in settings_of(train).items()}
    names = [name for name in train if name in told or f"| `{name}` |" in template]
    return "".join(f"| `{name}` | {told.get(name, TO_WRITE)} | {TO_WRITE} what it is |\n" for name in names)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, json.dumps(content, indent=4, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
