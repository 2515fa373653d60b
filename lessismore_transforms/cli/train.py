"""`curves` and `table`: what trainings and evaluations have come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.cli.command import Command
from lessismore_transforms.options import argument, option


@dataclass(frozen=True)
class Curves:
    """The options of `curves`."""

    runs: tuple[Path, ...] = argument(metavar="RUN", help="output folder of a pre-training, or run_00 of an evaluation")
    output: Path | None = option(
        None, help="picture to write (default: curves.png in the first RUN)", role="path", metavar="PNG"
    )


def curves(options: Curves) -> int:
    """Draw the logs of trainings over each other."""
    from lessismore_transforms.training.curves import CURVES, draw_curves

    print(f"curves: {draw_curves(options.runs, options.output or options.runs[0] / CURVES)}")
    return 0


@dataclass(frozen=True)
class Table:
    """The options of `table`."""

    evaluations: tuple[Path, ...] = argument(
        metavar="EVAL", help="folder that holds run_00, run_01, ..., or one that holds such folders"
    )
    paper: bool = option(False, help="add what the paper prints for the same setting", role="label")
    baseline: Path | None = option(
        None,
        help="what the others of its task are compared with (default: ALL of the same data set and method)",
        role="path",
        metavar="EVAL",
    )
    metrics: tuple[str, ...] = option(
        ("auc", "f1", "accuracy"),
        help="auc, f1 (of the positive class; micro with more than two), f1_macro, f1_micro, accuracy",
        metavar="NAME",
    )
    samples: int = option(1000, help="resamples of each interval", metavar="N", least=0)
    output: Path | None = option(
        None, help="write it too, as .csv (all digits), .md or .html", role="path", metavar="FILE"
    )


def table(options: Table) -> int:
    """Print, and write where asked for, evaluations beside each other."""
    from lessismore_transforms.classification.comparison import make_table
    from lessismore_transforms.classification.tables import as_text, check_output, write_table

    if options.output is not None:
        check_output(options.output)
    made = make_table(
        options.evaluations,
        baseline=options.baseline,
        metrics=options.metrics,
        paper=options.paper,
        samples=options.samples,
    )
    print(as_text(made))
    if options.output is not None:
        write_table(made, options.output)
        print(f"\ntable: {options.output}")
    return 0


COMMANDS = {
    "curves": Command(
        Curves,
        curves,
        description="Draw loss, health and probe of training runs over their steps, several runs over each other.",
    ),
    "table": Command(
        Table,
        table,
        description="Compare evaluations: mean and standard deviation over runs, bootstrap intervals, differences "
        "from ALL or a baseline, whether the test set is large enough to show them, the paper's values.",
    ),
}
