"""Put a bundle into a checkout of the MONAI model zoo, with a unit test in the zoo's form.

    python scripts/to_zoo.py ct_swav_pretraining MODEL_ZOO    # then says which of the zoo's lists its name belongs on

It goes to MODEL_ZOO/models, the test to MODEL_ZOO/ci/unit_tests. What is there already is not touched.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared_files import BUNDLES, ROOT, TEMPLATE, family_of, filled

from lessismore_transforms.cli.exit_code import exit_code
from lessismore_transforms.cli.parser import Parser
from lessismore_transforms.errors import UserError
from lessismore_transforms.methods import METHODS

TASKS = {  # the synthetic pictures that a classification is tested on, and settings beside the tiny ones
    "brain_hemorrhage_ct_classification": ("brain", {}),
    "breakhis_classification": ("breakhis", {}),
    "colorectal_classification": ("colorectal", {}),
    "covid19_ct_classification": ("covid19", {}),
    "organsmnist_ct_classification": ("organsmnist", {"classes": ["pelvis", "abdomen", "chest"], "md5": "any"}),
    "pneumonia_xray_classification": ("pneumonia", {}),
    "slice_classification": ("colorectal", {"channels": 3}),
}
_LINE = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Put a bundle into the zoo; returns the exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", help="name of the bundle")
    parser.add_argument("zoo", type=Path, help="a checkout of the model zoo")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    known = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json"))
    if options.bundle not in known:
        raise UserError(f"expected a bundle out of {', '.join(known)}, found {options.bundle!r}: name one of these")
    if not (options.zoo / "ci" / "bundle_custom_data.py").is_file():
        raise UserError(f"expected a checkout of the model zoo, found no ci/bundle_custom_data.py in {options.zoo}")
    target = options.zoo / "models" / options.bundle
    test = options.zoo / "ci" / "unit_tests" / f"test_{options.bundle}.py"
    for path in (target, test):
        if path.exists():
            raise UserError(f"expected nothing there yet, found {path}: take it away first")
    shutil.copytree(BUNDLES / options.bundle, target, ignore=shutil.ignore_patterns("__pycache__", "eval", "run"))
    test.parent.mkdir(parents=True, exist_ok=True)
    test.write_text(unit_test(options.bundle), encoding="utf-8")
    print(f"written: {target} and {test}; in {options.zoo / 'ci' / 'bundle_custom_data.py'} add {options.bundle!r} to")
    print("\n".join(f"- {name}" for name in lists_of(target)) or "no list")
    return 0


def unit_test(bundle: str) -> str:
    """The text of the bundle's unit test."""
    tiny = json.loads((ROOT / "scripts" / "experiments" / "tiny.json").read_text(encoding="utf-8"))
    family, task, settings = family_of(bundle), "", dict[str, Any]()
    if family == "pretraining":
        title = next(method.title for method in METHODS.values() if method.bundle == bundle)
        settings = {"max_epochs": 2, **tiny["pretrain_settings"]["all"], **tiny["pretrain_settings"][title]}
    elif family == "classification":
        task, own = TASKS[bundle]
        settings = {**tiny["evaluate_settings"]["all"], "frozen_epochs": 0, **own}
    template = TEMPLATE / "zoo" / f"{family or bundle}.py.txt"
    metadata = json.loads((BUNDLES / bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    values = {"bundle": bundle, "title": metadata["name"], "task": task, "settings": _literal(settings)}
    return filled(template.read_text(encoding="utf-8"), values)


def lists_of(folder: Path) -> list[str]:
    """The lists of the zoo's ci/bundle_custom_data.py that a bundle belongs on."""
    if (folder / "models" / "model.pt").is_file() or (folder / "large_files.yml").is_file():
        return []
    names = ["exclude_verify_preferred_files_list", "exclude_verify_torchscript_list"]
    return names if family_of(folder.name) else [*names, "exclude_verify_shape_list"]


def _literal(settings: dict[str, Any]) -> str:
    """A dictionary as black writes it behind `SETTINGS = `."""
    items = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in settings.items()]
    lines = [f"{{{', '.join(items)}}}", f"{{\n    {', '.join(items)}\n}}"]
    fitting = [text for text in lines if all(len(line) + len("SETTINGS = ") <= _LINE for line in text.split("\n"))]
    return fitting[0] if fitting else "{\n" + "".join(f"    {item},\n" for item in items) + "}"


if __name__ == "__main__":
    sys.exit(main())
