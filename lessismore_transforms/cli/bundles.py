"""`bundles`: where the MONAI bundles are that came with the package, and copies of them."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.atomic import TEMPORARY, writing
from lessismore_transforms.bundle_folders import bundle_folder, copy_bundle, shipped_bundles
from lessismore_transforms.cli.command import Command
from lessismore_transforms.errors import OutputError
from lessismore_transforms.options import argument, option
from lessismore_transforms.wording import aligned


@dataclass(frozen=True)
class Bundles:
    """The options of `bundles`."""

    bundles: tuple[str, ...] = argument(
        (), metavar="NAME", help="bundles; all of them unless some are named", role="run"
    )
    output_dir: Path | None = option(
        None, metavar="DIR", help="copy them to DIR/NAME, to be changed or to travel", role="path"
    )


def bundles(options: Bundles) -> int:
    """Print where the bundles are, or copy them."""
    chosen = {name: bundle_folder(name) for name in options.bundles or shipped_bundles()}
    if options.output_dir is not None:
        copy_bundles(chosen, options.output_dir)
        chosen = {name: options.output_dir / name for name in chosen}
    print(aligned([(_title(folder), str(folder)) for folder in chosen.values()], left=2))
    return 0


def copy_bundles(chosen: dict[str, Path], folder: Path) -> None:
    """Copy bundles into a folder, each whole or not at all.

    Args:
        chosen: folders of bundles by name.
        folder: made if absent.

    Raises:
        OutputError: the folder has something of such a name already, or cannot be written.
    """
    for name in chosen:
        if (folder / name).exists():
            raise OutputError(f"expected no {name} in {folder} yet, found one: take it away or name another folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in chosen.items():
            with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder) as place:
                copied = Path(place) / name
                copy_bundle(source, copied)
                copied.rename(folder / name)


def _title(folder: Path) -> str:
    """The bundle's name for people."""
    title: str = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))["name"]
    return title


COMMANDS = {
    "bundles": Command(
        Bundles,
        bundles,
        description="Print where the MONAI bundles are that came with this package, for `python -m monai.bundle run "
        "--config_file FOLDER/configs/train.json`; or copy them to a folder of your own.",
    ),
}
