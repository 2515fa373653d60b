"""`export`: a selection for other trainers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.cli.command import Command
from lessismore_transforms.options import argument, option
from lessismore_transforms.wording import counted


@dataclass(frozen=True)
class Export:
    """The options of `export`."""

    out: Path = argument(metavar="OUT", help="output folder of reduce")
    form: str = option(
        name="format", help="what the other trainer reads", choices=("webdataset", "imagefolder", "parquet")
    )
    output_dir: Path = option(help="new folder for the files, or that of the same export", role="path", metavar="DIR")
    selection: str = option("default", help="the selection to export; the run's own is called default", role="label")
    slices_per_shard: int = option(1000, help="slices of a WebDataset shard or a Parquet file", metavar="N", least=1)
    dataset_dir: Path | None = option(
        None, help="where the volumes are now, for slices that the store lacks", role="path", metavar="DIR"
    )


def export(options: Export) -> int:
    """Write the files and say how many slices and bytes they hold."""
    from lessismore_transforms.reduced.export import export as write

    count, size = write(
        options.out,
        options.output_dir,
        options.form,
        options.selection,
        dataset_dir=options.dataset_dir,
        slices_per_shard=options.slices_per_shard,
    )
    print(f"{options.form}: {counted(count, 'slice')}, {size / 1e6:.1f} MB, in {options.output_dir}")
    return 0


COMMANDS = {
    "export": Command(
        Export,
        export,
        description="Write the slices of a selection as 8-bit PNG for other trainers: WebDataset shards with an index "
        "of their sizes, an ImageFolder with a folder for each volume, or Parquet. An interrupted export goes on with "
        "the same command.",
    ),
}
