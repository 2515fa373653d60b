"""What a pre-training read, as rows of a card: counts, how it was reduced, checksums; no name, no path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.training_set import open_dataset
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.store import changed_stores
from lessismore_transforms.sharing.facts import Row, sha256
from lessismore_transforms.wording import count, counted

_GONE = "not known: they were not there when this card was written"


def data_rows(
    config: Mapping[str, Any], run: Path, given: Sequence[Path], identity: str | None
) -> tuple[list[Row], list[Path]]:
    """Rows on the data of a pre-training, and their folders where they were found.

    Args:
        config: of the run, as in config.json.
        run: its folder; relative paths in the record may be relative to it or to where it was started.
        given: folders that the user names instead.
        identity: of the data, as the run's checkpoint keeps it; None where there is none.

    Raises:
        UserError: the data are others than those that were trained on, or what the user names is not there.
        ManifestError: an output of the reduction is damaged.
    """
    settings = config["settings"]
    folders = list(given) or _recorded(settings["dataset_dir"], run)
    told = config.get("trainer", {}).get("pictures")
    if folders:
        dataset = open_dataset(
            folders, settings["selection"], settings.get("split"), settings.get("channels"), settings["sampling"]
        )
        if identity is not None and dataset.identity() != identity:
            raise UserError(
                f"expected the data that {run} was trained on, found others in {', '.join(map(str, folders))}: they "
                "were changed since, or are meant for another run; name those of this one with --dataset_dir"
            )
        if isinstance(dataset, SliceSelectionDataset):
            rows = [row for folder in folders for row in _of_output(folder, settings["selection"])]
            compared = "not compared: there is no checkpoint"
            if identity is not None:
                compared = "equal to those that the checkpoint tells"
            if dataset.unstored:
                compared += f"; the pixels of {count(dataset.unstored)} were not looked at: no store holds them"
            return [*rows, ("slices trained on", f"{count(len(dataset))}, {compared}")], folders
    if told is not None:
        rows = [("pictures", f"{count(told['pictures'])}, {'grey' if told['channels'] == 1 else 'colour'}")]
        return [*rows, ("SHA-256 of their list and checksums", f"`{told['identity']}`")], folders
    return [("volumes and slices", _GONE)], folders


def _recorded(dataset_dir: Any, run: Path) -> list[Path]:
    """The folders that a run's record names, if all of them are there."""
    names = [dataset_dir] if isinstance(dataset_dir, str) else list(dataset_dir)
    for base in (Path(), run.parent):
        folders = [base / name for name in names]
        if all(folder.is_dir() for folder in folders):
            return folders
    return []


def _of_output(folder: Path, name: str) -> list[Row]:
    """Rows on one output of the reduction."""
    manifest = Manifest.read(folder)
    if changed := changed_stores(manifest):
        raise UserError(
            f"expected the pictures that were trained on in {folder}, found {counted(len(changed), 'file')} changed "
            f"since they were written, first {changed[0]}: put them back, or run the same `reduce` again, which makes "
            "them again"
        )
    selection = manifest.read_selection(name)
    volumes = manifest.volumes
    planes = sorted({str(volume["plane"]) for volume in volumes})
    thickness = [float(volume["spacing_mm"][0]) for volume in volumes if volume.get("spacing_mm")]
    patients = len({volume["patient"] for volume in volumes})
    kept, slices = len(selection.kept_ids), len(manifest.slices)
    return [
        ("volumes", f"{count(len(volumes))} of {counted(patients, 'patient')}, {', '.join(planes)}"),
        ("distance between slices", _span(thickness, "mm")),
        (
            "selection",
            f"{selection.target}: kept {count(kept)} of {counted(slices, 'slice')} ({100 * kept / slices:.1f} %)",
        ),
        ("failed or skipped", f"{len(manifest.info['failures'])} and {len(manifest.info['skipped'])}"),
        ("SHA-256 of manifest.csv", f"`{sha256(folder / 'manifest.csv')}`"),
        ("SHA-256 of the selection", f"`{sha256(folder / 'selections' / f'{name}.csv')}`"),
    ]


def _span(values: Sequence[float], unit: str) -> str:
    if not values:
        return "not known"
    low, high = min(values), max(values)
    return f"{low:g} {unit}" if low == high else f"{low:g} to {high:g} {unit}"
