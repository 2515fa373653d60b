"""`reduce`, `select` and `report`: from a folder of CT volumes to the slices worth learning from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lessismore_transforms.cli.command import Command
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import argument, nested, option
from lessismore_transforms.pipeline.settings import Settings, TargetOptions, refuse_unused
from lessismore_transforms.wording import counted


@dataclass(frozen=True)
class Reduce:
    """The options of `reduce`."""

    dataset_dir: Path = argument(metavar="DATASET_DIR", help="folder of CT volumes, any depth")
    output_dir: Path = option(metavar="OUT", help="folder for the results", role="path")
    target: TargetOptions = nested(TargetOptions)
    window: str | None = option(
        None,
        help="store slices in this HU window (abdomen, angio, bone, brain, chest, lung, or level/width such as 40/400) "
        "instead of min-max; hashing is not affected",
        metavar="NAME|L/W",
    )
    pixels: str | None = option(
        None,
        help="store min-max pixels with padding below -1024 HU clipped (default), or exactly the released ones "
        "(default with --as_released)",
        choices=("clipped", "released"),
    )
    settings: Settings = nested(Settings)
    png_dir: Path | None = option(
        None, name="png", help="write the kept slices as PNG too, released names", role="path", metavar="DIR"
    )
    workers: int | None = option(
        None, help="processes (default: one per core; 0: this one)", role="speed", metavar="N", least=0
    )
    scheduler: str | None = option(
        None, help="dask scheduler to work on instead, tcp://host:8786", role="speed", metavar="ADDRESS"
    )
    patient_key: Path | None = option(None, help="secret for the patients' keyed hash", role="path", metavar="FILE")
    dry_run: bool = option(False, help="only count volumes and slices and estimate time and disk", role="speed")
    no_report: bool = option(False, help="leave OUT/report.html to `report`", role="speed")
    strict: bool = option(False, help="stop at the first volume that cannot be read", role="speed")

    def all_settings(self) -> Settings:
        """The settings with target and window.

        Raises:
            UserError: options exclude each other, or the method does not use them.
        """
        released = self.settings.as_released
        if self.window and self.pixels == "released":
            raise UserError("--window and --pixels released exclude each other: drop one")
        if released and self.pixels == "clipped":
            raise UserError("--as_released and --pixels clipped exclude each other: drop one")
        pixels = self.window or self.pixels or ("released" if released else "clipped")
        settings = replace(self.settings, target=self.target.target(), pixels=pixels)
        refuse_unused(settings)
        return settings


def start_processes(given: Mapping[str, Any]) -> None:
    """Let the workers begin to import while this process does."""
    from lessismore_transforms.pipeline.executors import start_context

    if given["workers"] != 0:
        start_context()


def reduce(options: Reduce) -> int:
    """Reduce a data set and say what came of it; returns 1 where volumes failed."""
    from lessismore_transforms.pipeline.run import reduce_dataset

    settings = options.all_settings()
    if options.dry_run:
        return _estimate(options, settings)
    summary = reduce_dataset(
        options.dataset_dir,
        options.output_dir,
        settings,
        workers=options.workers,
        strict=options.strict,
        patient_key=options.patient_key,
        png_dir=options.png_dir,
        scheduler=options.scheduler,
    )
    if summary.resumed:
        print(f"done before: {counted(summary.resumed, 'volume')}")
    share = 100 * summary.kept / summary.slices if summary.slices else 0
    size = f"{counted(summary.volumes, 'volume')}, {counted(summary.slices, 'slice')}"
    print(f"{size}: kept {summary.kept:,} ({share:.1f} %), {settings.target}")
    if summary.skipped:
        files = counted(summary.skipped, "file")
        print(f"skipped {files} without CT slices: listed with reasons in {options.output_dir}/manifest.json")
    if summary.volumes and not options.no_report:
        from lessismore_transforms.report import write_report

        print(f"report: {write_report(options.output_dir)}")
    return 1 if summary.failures else 0


def _estimate(options: Reduce, settings: Settings) -> int:
    from lessismore_transforms.pipeline.estimate import estimate

    expected = estimate(options.dataset_dir, settings, workers=options.workers)
    print(
        f"{counted(expected.volumes, 'volume')}, {counted(expected.slices, 'slice')} "
        f"({counted(expected.skipped, 'other file')})\n"
        f"about {expected.minutes:.1f} minutes, {counted(expected.kept, 'slice')} to keep, "
        f"{expected.store_bytes / 1e6:.0f} MB of disk; nothing was written to {options.output_dir}"
    )
    return 0


@dataclass(frozen=True)
class Select:
    """The options of `select`."""

    output_dir: Path = argument(metavar="OUT", help="output folder of reduce")
    name: str = option(help="name of the selection", role="label")
    target: TargetOptions = nested(TargetOptions)
    scope: str = option("volume", help="HASH: what a slice is compared with", choices=("volume", "patient", "all"))
    like: str | None = option(
        None,
        help="every_n, random: keep as many slices of each volume as this other selection does",
        role="label",
        metavar="NAME",
    )
    near: int = option(
        0,
        help="HASH: keep so many of the slices that each kept one stands for too, the nearest first",
        metavar="N",
        least=0,
    )
    order: str = option(
        "thinnest",
        help="across volumes: whose slices stay, those of the thinnest spacing or of the first volumes",
        choices=("thinnest", "manifest"),
    )
    fill_store: bool = option(False, help="read the slices that the store lacks", role="speed")
    dataset_dir: Path | None = option(
        None, help="where the volumes are now, for --fill_store", role="path", metavar="DIR"
    )


def select(options: Select) -> int:
    """Draw another selection and say how many of its slices are in the store."""
    from lessismore_transforms.reduced.select import select as draw
    from lessismore_transforms.reduced.store import fill_store

    target = options.target.target(scope=options.scope, like=options.like, near=options.near)
    selection, lacking = draw(options.output_dir, target, options.name, order=options.order)
    kept, count = int(selection.slices["kept"].sum()), len(selection.slices)
    share = 100 * kept / max(count, 1)
    print(f"selection {options.name}: kept {kept:,} of {counted(count, 'slice')} ({share:.1f} %), {target}")
    if options.fill_store:  # lost files too, which the index does not tell
        added = fill_store(options.output_dir, selection, options.dataset_dir)
        if added or lacking:
            print(f"added to the store: {counted(added, 'slice')}")
    elif lacking:
        print(f"the store lacks {lacking:,} of them: --fill_store reads those from the volumes")
    return 0


@dataclass(frozen=True)
class Report:
    """The options of `report`."""

    output_dir: Path = argument(metavar="OUT", help="output folder of reduce")
    selection: str = option("default", help="the selection to show; the run's own is called default", role="label")


def report(options: Report) -> int:
    """Write the report."""
    from lessismore_transforms.report import write_report

    print(f"report: {write_report(options.output_dir, options.selection)}")
    return 0


COMMANDS = {
    "reduce": Command(
        Reduce,
        reduce,
        description="Rank the slices of every CT volume below DATASET_DIR by redundancy and store those worth learning "
        "from in OUT. An interrupted run goes on with the same command; the originals are only read.",
        before=start_processes,
    ),
    "select": Command(
        Select,
        select,
        description="Draw another selection from the ranking in OUT. No image is read unless --fill_store is given.",
    ),
    "report": Command(
        Report,
        report,
        description="Write OUT/report.html: kept share against threshold, strips of slices, outliers, failures.",
    ),
}
