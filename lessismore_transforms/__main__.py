"""The command line: `python -m lessismore_transforms reduce | select | report | demo-data`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lessismore_transforms import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 where volumes failed, 2 for a mistake that a sentence explains."""
    options = _parser().parse_args(arguments)
    # Imported here: --help and a misspelt flag should answer at once.
    from lessismore_transforms.atomic import OutputError
    from lessismore_transforms.runner import RunError
    from lessismore_transforms.volumes import VolumeError

    try:
        code: int = options.run(options)
    except (RunError, OutputError, VolumeError, ValueError, NotADirectoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output has enough of it, `| head` for instance
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 130
    return code


class _Parser(argparse.ArgumentParser):
    """A parser that answers a mistake in one sentence instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}: see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m lessismore_transforms",
        description="From folders of CT volumes to the slices worth learning from.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    reduce = commands.add_parser(
        "reduce",
        help="rank the slices of every volume and store those worth learning from",
        description="Rank the slices of every CT volume below DATASET_DIR by redundancy and store those worth learning "
        "from in OUT. An interrupted run goes on with the same command; the originals are only read.",
        allow_abbrev=False,
    )
    reduce.add_argument("dataset_dir", metavar="DATASET_DIR", type=Path, help="folder of CT volumes, any depth")
    reduce.add_argument("--output_dir", metavar="OUT", type=Path, required=True, help="folder for the results")
    _add_target(reduce)
    reduce.add_argument(
        "--window",
        metavar="NAME|L/W",
        help="store slices in this HU window (abdomen, angio, bone, brain, chest, lung, or level/width such as 40/400) "
        "instead of min-max; hashing is not affected",
    )
    reduce.add_argument(
        "--pixels",
        choices=("clipped", "released"),
        default="clipped",
        help="min-max pixels with padding below -1024 HU clipped (default), or exactly the released ones",
    )
    reduce.add_argument(
        "--as_released",
        action="store_true",
        help="orientation, slice order and scaling of the released scripts instead of the canonical ones",
    )
    reduce.add_argument("--png", metavar="DIR", type=Path, help="write the kept slices as PNG too, released names")
    reduce.add_argument(
        "--include",
        metavar="GLOB",
        action="append",
        default=[],
        help="only files that match, e.g. CT.nii.gz (repeatable)",
    )
    reduce.add_argument(
        "--pattern",
        metavar="NAME|REGEX",
        action="append",
        default=[],
        help="names of 2-D slices: lidc, petct, numbered, or a regular expression with (?P<index>..) (repeatable)",
    )
    reduce.add_argument("--workers", metavar="N", type=_count, help="processes (default: one per core; 0: this one)")
    reduce.add_argument("--patient_key", metavar="FILE", type=Path, help="secret for the patients' keyed hash")
    reduce.add_argument("--keep_patient_ids", action="store_true", help="write patient ids as found, not hashed")
    reduce.add_argument(
        "--dry_run", action="store_true", help="only count volumes and slices and estimate time and disk"
    )
    reduce.add_argument("--no_report", action="store_true", help="leave OUT/report.html to `report`")
    reduce.add_argument("--strict", action="store_true", help="stop at the first volume that cannot be read")
    reduce.set_defaults(run=_reduce)

    select = commands.add_parser(
        "select",
        help="draw another selection from a finished output; no image is read",
        description="Draw another selection from the ranking in OUT. No image is read unless --fill_store is given.",
        allow_abbrev=False,
    )
    select.add_argument("output_dir", metavar="OUT", type=Path, help="output folder of reduce")
    select.add_argument("--name", required=True, help="name of the selection")
    _add_target(select)
    select.add_argument("--fill_store", action="store_true", help="read the slices that the store lacks")
    select.add_argument("--dataset_dir", metavar="DIR", type=Path, help="where the volumes are now, for --fill_store")
    select.set_defaults(run=_select)

    report = commands.add_parser(
        "report",
        help="write OUT/report.html, to choose a threshold by",
        description="Write OUT/report.html: kept share against threshold, strips of slices, outliers, failures.",
        allow_abbrev=False,
    )
    report.add_argument("output_dir", metavar="OUT", type=Path, help="output folder of reduce")
    report.add_argument("--selection", default="default", help="the selection to show (default: the run's own)")
    report.set_defaults(run=_report)

    demo = commands.add_parser(
        "demo-data",
        help="write a small synthetic data set of CT volumes",
        description="Write a few synthetic CT scans, half as NIfTI and half as DICOM, with labels.csv.",
        allow_abbrev=False,
    )
    demo.add_argument("folder", metavar="DIR", type=Path, help="new folder")
    demo.add_argument("--patients", type=_count, default=6, help="number of scans (default: 6)")
    demo.add_argument("--seed", type=int, default=0, help="the same seed gives the same scans (default: 0)")
    demo.set_defaults(run=_demo_data)
    return parser


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to keep (default: HASH at 6 bits)")
    group.add_argument("--method", choices=("hash",), default="hash", help="measure of redundancy (default: hash)")
    group.add_argument("--threshold", type=float, metavar="T", help="remove slices within this distance: 0 to 64 bits")
    group.add_argument("--fraction", type=float, metavar="F", help="keep this share of every volume, e.g. 0.1")
    group.add_argument(
        "--rule",
        choices=("exemplars", "pairs"),
        help="exemplars, as the released scripts (default with --threshold), or pairs, as the paper (with --fraction)",
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, found {value}")
    return value


def _reduce(options: argparse.Namespace) -> int:
    from lessismore_transforms.reduction.target import Target
    from lessismore_transforms.runner import estimate, reduce_dataset
    from lessismore_transforms.task import Settings

    if options.window and options.pixels == "released":
        raise ValueError("--window and --pixels released exclude each other: drop one")
    settings = Settings(
        target=Target.of(
            method=options.method, rule=options.rule, threshold=options.threshold, fraction=options.fraction
        ),
        pixels=options.window or ("released" if options.as_released else options.pixels),
        as_released=options.as_released,
        include=tuple(options.include),
        patterns=tuple(options.pattern),
        keep_patient_ids=options.keep_patient_ids,
    )
    if options.dry_run:
        expected = estimate(options.dataset_dir, settings, workers=options.workers)
        print(
            f"{expected.volumes} volumes, {expected.slices} slices ({expected.skipped} other files)\n"
            f"about {expected.minutes:.1f} minutes, {expected.kept} slices to keep, "
            f"{expected.store_bytes / 1e6:.0f} MB of disk; nothing was written to {options.output_dir}"
        )
        return 0
    summary = reduce_dataset(
        options.dataset_dir,
        options.output_dir,
        settings,
        workers=options.workers,
        strict=options.strict,
        patient_key=options.patient_key,
        png_dir=options.png,
    )
    if summary.resumed:
        print(f"{summary.resumed} volumes were done before")
    share = 100 * summary.kept / summary.slices if summary.slices else 0
    print(f"{summary.volumes} volumes, {summary.slices} slices: kept {summary.kept} ({share:.1f} %), {settings.target}")
    if summary.skipped:
        print(f"{summary.skipped} files are no CT slices: listed with reasons in {options.output_dir}/manifest.json")
    for _, reason in summary.failures:
        print(f"failed: {reason}", file=sys.stderr)
    if summary.volumes and not options.no_report:
        from lessismore_transforms.report import write_report

        print(f"report: {write_report(options.output_dir)}")
    return 1 if summary.failures else 0


def _select(options: argparse.Namespace) -> int:
    from lessismore_transforms.reduction.target import Target
    from lessismore_transforms.runner import select
    from lessismore_transforms.store import fill_store

    target = Target.of(method=options.method, rule=options.rule, threshold=options.threshold, fraction=options.fraction)
    selection, lacking = select(options.output_dir, target, options.name)
    kept, count = int(selection.slices["kept"].sum()), len(selection.slices)
    print(f"selection {options.name}: kept {kept} of {count} slices ({100 * kept / count:.1f} %), {target}")
    if lacking and options.fill_store:
        print(f"{fill_store(options.output_dir, selection, options.dataset_dir)} slices were added to the store")
    elif lacking:
        print(f"the store lacks {lacking} of them: --fill_store reads those from the volumes")
    return 0


def _report(options: argparse.Namespace) -> int:
    from lessismore_transforms.report import write_report

    print(f"report: {write_report(options.output_dir, options.selection)}")
    return 0


def _demo_data(options: argparse.Namespace) -> int:
    from lessismore_transforms.phantom import write_demo_data

    paths = write_demo_data(options.folder, patients=options.patients, seed=options.seed)
    print(f"{len(paths)} scans in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
