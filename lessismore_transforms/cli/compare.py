"""`duplicates` and `compare`: what two sets of pictures, or two selections, share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.cli.command import Command
from lessismore_transforms.options import argument, option
from lessismore_transforms.wording import counted


@dataclass(frozen=True)
class Duplicates:
    """The options of `duplicates`."""

    first: Path = argument(metavar="A", help="output folder or folder of images; the larger one")
    second: Path = argument(metavar="B", help="output folder or folder of images; held in memory")
    output: Path = option(help="table of pairs to write, CSV", role="path", metavar="FILE")
    correlation: float = option(0.6, help="how alike a pair has to be, up to 1")


def duplicates(options: Duplicates) -> int:
    """Find the pictures of one set in another and write the table of pairs."""
    from lessismore_transforms.atomic import atomic_write
    from lessismore_transforms.progress import progress_bar
    from lessismore_transforms.reduced.pictures import images_in
    from lessismore_transforms.reduction.near_duplicates import near_duplicates

    first = progress_bar(images_in(options.first), desc="compare", unit=" images")
    pairs = near_duplicates(first, images_in(options.second), correlation=options.correlation)
    with atomic_write(options.output) as file:
        pairs.to_csv(file, index=False, lineterminator="\n")
    images = counted(pairs["image_b"].nunique(), "image")
    found = f"{counted(len(pairs), 'pair')}: {images} of {options.second} found in {options.first}"
    print(f"{found}; table: {options.output}")
    return 0


@dataclass(frozen=True)
class Compare:
    """The options of `compare`."""

    outputs: tuple[str, ...] = argument(
        metavar="OUT", help="output folder of reduce, or one selection of it as OUT:NAME"
    )
    selections: tuple[str, ...] = option(
        ("default",),
        help="selections of every OUT given without a name; the run's own is called default",
        role="label",
        metavar="NAME",
    )
    output_dir: Path | None = option(
        None, help="folder for compare.csv and compare.html (default: first OUT)", role="path", metavar="DIR"
    )


def compare(options: Compare) -> int:
    """Print and write what selections share."""
    from lessismore_transforms.reduced.overlap import compare as overlaps
    from lessismore_transforms.reduced.overlap import named_outputs
    from lessismore_transforms.report.overlap_page import write_comparison
    from lessismore_transforms.report.overlap_text import as_text

    outputs = named_outputs(options.outputs, options.selections)
    comparison = overlaps(outputs)
    print(as_text(comparison))
    print(f"\ncomparison: {write_comparison(comparison, options.output_dir or outputs[0][0])}")
    return 0


COMMANDS = {
    "duplicates": Command(
        Duplicates,
        duplicates,
        description="Find the same pictures, also mirrored, turned, re-windowed, resized or compressed, in two sets: "
        "output folders of reduce (their stored slices) or folders of PNG and JPEG files.",
    ),
    "compare": Command(
        Compare,
        compare,
        description="Compare selections of the same data set: the slices they share, beside those that random "
        "selections share and those that a method shares with itself in reversed order. Writes compare.csv and "
        "compare.html.",
    ),
}
