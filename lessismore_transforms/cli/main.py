"""The command line: `python -m lessismore_transforms reduce | select | report | compare | curves | table | ...`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lessismore_transforms import __version__
from lessismore_transforms.errors import UserError

if TYPE_CHECKING:
    from lessismore_transforms.reduction.target import Target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 where volumes failed, 2 for a mistake that a sentence explains."""
    options = _parser().parse_args(arguments)
    # Imported here: --help and a misspelt flag should answer at once.
    from lessismore_transforms.errors import OutputError, RunError, VolumeError

    try:
        code: int = options.run(options)
    except BrokenPipeError:  # whoever read our output has enough of it, `| head` for instance
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RunError, OutputError, VolumeError, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
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
    reduce.add_argument("--scheduler", metavar="ADDRESS", help="dask scheduler to work on instead, tcp://host:8786")
    reduce.add_argument("--patient_key", metavar="FILE", type=Path, help="secret for the patients' keyed hash")
    reduce.add_argument("--keep_patient_ids", action="store_true", help="write patient ids as found, not hashed")
    reduce.add_argument(
        "--dry_run", action="store_true", help="only count volumes and slices and estimate time and disk"
    )
    reduce.add_argument("--no_report", action="store_true", help="leave OUT/report.html to `report`")
    reduce.add_argument("--strict", action="store_true", help="stop at the first volume that cannot be read")
    reduce.add_argument("--body", action="store_true", help="leave out slices without a body: empty, air, table only")
    measures = reduce.add_argument_group("measures other than HASH")
    measures.add_argument("--device", help="torch device for ssim, mi and deepnet, e.g. cuda (default: CPU)")
    measures.add_argument("--bins", type=int, default=64, help="mi: grey levels of the joint histogram (default: 64)")
    measures.add_argument("--encoder", default="resnet50", help="deepnet: torchvision network, or timm:NAME")
    measures.add_argument(
        "--weights", default="imagenet", metavar="FILE", help="deepnet: local weights (default: torchvision's ImageNet)"
    )
    measures.add_argument("--features", choices=("pooled", "logits"), default="pooled", help="deepnet: what to compare")
    measures.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="deepnet")
    measures.add_argument("--keep_distances", action="store_true", help="store all distances, for rule exemplars")
    measures.add_argument(
        "--memory_mb", type=_count, default=4096, metavar="MB", help="pictures of a volume per worker (default: 4096)"
    )
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
    select.add_argument(
        "--scope", choices=("volume", "patient", "all"), default="volume", help="HASH: what a slice is compared with"
    )
    select.add_argument(
        "--order",
        choices=("thinnest", "manifest"),
        default="thinnest",
        help="across volumes: whose slices stay, those of the thinnest spacing (default) or of the first volumes",
    )
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

    duplicates = commands.add_parser(
        "duplicates",
        help="find pictures of one data set in another: a pre-training set against a test set",
        description="Find the same pictures, also mirrored, turned, re-windowed, resized or compressed, in two sets: "
        "output folders of reduce (their stored slices) or folders of PNG and JPEG files.",
        allow_abbrev=False,
    )
    duplicates.add_argument("first", metavar="A", type=Path, help="output folder or folder of images; the larger one")
    duplicates.add_argument("second", metavar="B", type=Path, help="output folder or folder of images; held in memory")
    duplicates.add_argument("--output", metavar="FILE", type=Path, required=True, help="table of pairs to write, CSV")
    duplicates.add_argument("--correlation", type=float, help="how alike a pair has to be, up to 1 (default: 0.6)")
    duplicates.set_defaults(run=_duplicates)

    compare = commands.add_parser(
        "compare",
        help="how many slices selections share, beside chance and reversed order",
        description="Compare selections of the same data set: the slices they share, beside those that random "
        "selections share and those that a method shares with itself in reversed order. Writes compare.csv and "
        "compare.html.",
        allow_abbrev=False,
    )
    compare.add_argument(
        "outputs", metavar="OUT", nargs="+", help="output folder of reduce, or one selection of it as OUT:NAME"
    )
    compare.add_argument(
        "--selections",
        metavar="NAME",
        nargs="+",
        default=["default"],
        help="selections of every OUT given without a name (default: the run's own)",
    )
    compare.add_argument(
        "--output_dir", metavar="DIR", type=Path, help="folder for compare.csv and compare.html (default: first OUT)"
    )
    compare.set_defaults(run=_compare)

    curves = commands.add_parser(
        "curves",
        help="draw the figures of training runs over their steps",
        description="Draw loss, health and probe of training runs over their steps, several runs over each other.",
        allow_abbrev=False,
    )
    curves.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="output folder of a pre-training, or run_00 of an evaluation"
    )
    curves.add_argument("--output", metavar="PNG", type=Path, help="default: curves.png in the first RUN")
    curves.set_defaults(run=_curves)

    table = commands.add_parser(
        "table",
        help="compare evaluations of classification bundles with each other and with the paper",
        description="Compare evaluations: mean and standard deviation over runs, bootstrap intervals, tests against a "
        "baseline, the paper's values.",
        allow_abbrev=False,
    )
    table.add_argument(
        "evaluations", metavar="EVAL", type=Path, nargs="+", help="folder that holds run_00, run_01, ..."
    )
    table.add_argument("--paper", action="store_true", help="add what the paper prints for the same setting")
    table.add_argument(
        "--baseline", metavar="EVAL", type=Path, help="what its task is tested against (default: first EVAL of a task)"
    )
    table.add_argument(
        "--metrics",
        metavar="NAME",
        nargs="+",
        default=["auc", "f1", "accuracy"],
        help="auc, f1 (of the positive class; micro with more than two), f1_macro, f1_micro, accuracy (default: auc f1 "
        "accuracy)",
    )
    table.add_argument(
        "--samples", type=_count, default=1000, metavar="N", help="resamples of each interval and test (default: 1000)"
    )
    table.add_argument("--output", metavar="FILE", type=Path, help="write it too, as .csv (all digits), .md or .html")
    table.set_defaults(run=_table)

    demo = commands.add_parser(
        "demo-data",
        help="write a small synthetic data set of CT volumes",
        description="Write a few synthetic CT scans, half as NIfTI and half as DICOM, with labels.csv; or, with "
        "--task, labelled pictures as a classification bundle reads them.",
        allow_abbrev=False,
    )
    demo.add_argument("folder", metavar="DIR", type=Path, help="new folder")
    demo.add_argument("--task", choices=("covid19", "organsmnist", "brain"), help="write labelled pictures instead")
    demo.add_argument("--patients", type=_count, help="number of scans (default: 6; with --task 16)")
    demo.add_argument("--seed", type=int, default=0, help="the same seed gives the same scans (default: 0)")
    demo.set_defaults(run=_demo_data)
    return parser


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to keep (default: HASH at 6 bits; a tenth for the other methods)")
    group.add_argument(
        "--method",
        choices=("hash", "ssim", "mi", "deepnet", "every_n", "all"),
        default="hash",
        help="how redundancy is measured (default: hash); every_n and all measure nothing",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="remove slices as close as this: HASH 0 to 64 bits; SSIM and cosine up to 1, MI 1 to 2 (similarities)",
    )
    group.add_argument("--fraction", type=float, metavar="F", help="keep this share of every volume, e.g. 0.1")
    group.add_argument(
        "--rule",
        choices=("exemplars", "pairs"),
        help="exemplars, as the released scripts (default with a HASH threshold), or pairs, as the paper (default)",
    )
    group.add_argument("--step", type=int, metavar="N", help="every_n: keep every N-th slice")
    group.add_argument("--step_mm", type=float, metavar="MM", help="every_n: keep a slice every so many mm")
    group.add_argument("--offset", type=float, default=0, metavar="K", help="every_n: where to begin (slices or mm)")


def _target(options: argparse.Namespace) -> Target:
    from lessismore_transforms.reduction.target import Target

    names = ("method", "rule", "threshold", "fraction", "step", "step_mm", "offset", "scope")
    return Target.of(**{name: getattr(options, name) for name in names if hasattr(options, name)})


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, found {value}")
    return value


def _reduce(options: argparse.Namespace) -> int:
    from lessismore_transforms.pipeline.executors import start_context

    if options.workers != 0:
        start_context()  # imports while this process does
    from lessismore_transforms.pipeline.run import estimate, reduce_dataset
    from lessismore_transforms.pipeline.task import Encoder, Settings

    if options.window and options.pixels == "released":
        raise UserError("--window and --pixels released exclude each other: drop one")
    settings = Settings(
        target=_target(options),
        pixels=options.window or ("released" if options.as_released else options.pixels),
        as_released=options.as_released,
        include=tuple(options.include),
        patterns=tuple(options.pattern),
        keep_patient_ids=options.keep_patient_ids,
        body=options.body,
        keep_distances=options.keep_distances,
        bins=options.bins,
        encoder=Encoder(options.encoder, options.weights, options.features, options.precision),
        device=options.device,
        memory_mb=options.memory_mb,
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
        scheduler=options.scheduler,
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
    from lessismore_transforms.pipeline.run import select
    from lessismore_transforms.reduced.store import fill_store

    target = _target(options)
    selection, lacking = select(options.output_dir, target, options.name, order=options.order)
    kept, count = int(selection.slices["kept"].sum()), len(selection.slices)
    print(f"selection {options.name}: kept {kept} of {count} slices ({100 * kept / max(count, 1):.1f} %), {target}")
    if lacking and options.fill_store:
        print(f"{fill_store(options.output_dir, selection, options.dataset_dir)} slices were added to the store")
    elif lacking:
        print(f"the store lacks {lacking} of them: --fill_store reads those from the volumes")
    return 0


def _report(options: argparse.Namespace) -> int:
    from lessismore_transforms.report import write_report

    print(f"report: {write_report(options.output_dir, options.selection)}")
    return 0


def _duplicates(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from lessismore_transforms.atomic import atomic_write
    from lessismore_transforms.reduced.duplicates import CORRELATION, images_in, near_duplicates

    correlation = CORRELATION if options.correlation is None else options.correlation
    first = tqdm(images_in(options.first), desc="compare", unit=" images", disable=None)
    pairs = near_duplicates(first, images_in(options.second), correlation=correlation)
    with atomic_write(options.output) as file:
        pairs.to_csv(file, index=False, lineterminator="\n")
    images = pairs["image_b"].nunique()
    print(f"{len(pairs)} pairs; {images} images of {options.second} are in {options.first}; table: {options.output}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from lessismore_transforms.report.overlap import as_text, compare, named_outputs, write_comparison

    outputs = named_outputs(options.outputs, options.selections)
    comparison = compare(outputs)
    print(as_text(comparison))
    print(f"\ncomparison: {write_comparison(comparison, options.output_dir or outputs[0][0])}")
    return 0


def _curves(options: argparse.Namespace) -> int:
    from lessismore_transforms.training.curves import CURVES, draw_curves

    print(f"curves: {draw_curves(options.runs, options.output or options.runs[0] / CURVES)}")
    return 0


def _table(options: argparse.Namespace) -> int:
    from lessismore_transforms.classification.comparison import make_table
    from lessismore_transforms.classification.tables import as_text, check_output, write_table

    if options.output is not None:
        check_output(options.output)
    table = make_table(
        options.evaluations,
        baseline=options.baseline,
        metrics=options.metrics,
        paper=options.paper,
        samples=options.samples,
    )
    print(as_text(table))
    if options.output is not None:
        write_table(table, options.output)
        print(f"\ntable: {options.output}")
    return 0


def _demo_data(options: argparse.Namespace) -> int:
    from lessismore_transforms.phantom import write_demo_data, write_demo_task

    patients = {} if options.patients is None else {"patients": options.patients}
    if options.task:
        write_demo_task(options.folder, options.task, seed=options.seed, **patients)
        print(f"pictures for {options.task} in {options.folder}")
        return 0
    paths = write_demo_data(options.folder, **patients, seed=options.seed)
    print(f"{len(paths)} scans in {options.folder}")
    return 0
