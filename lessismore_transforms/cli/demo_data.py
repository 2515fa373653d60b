"""`demo-data`: synthetic scans and labelled pictures to try everything on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.cli.command import Command
from lessismore_transforms.options import argument, option
from lessismore_transforms.wording import counted


@dataclass(frozen=True)
class DemoData:
    """The options of `demo-data`."""

    folder: Path = argument(metavar="DIR", help="new folder")
    task: str | None = option(
        None,
        help="write labelled pictures instead",
        choices=("covid19", "organsmnist", "brain", "breakhis", "colorectal", "pneumonia"),
    )
    patients: int | None = option(None, help="number of scans (default: 6; with --task 16)", least=1)
    seed: int = option(0, help="the same seed gives the same scans")


def demo_data(options: DemoData) -> int:
    """Write the data set."""
    from lessismore_transforms.phantom import write_demo_data, write_demo_task

    patients = {} if options.patients is None else {"patients": options.patients}
    if options.task:
        write_demo_task(options.folder, options.task, seed=options.seed, **patients)
        print(f"pictures for {options.task} in {options.folder}")
        return 0
    paths = write_demo_data(options.folder, **patients, seed=options.seed)
    print(f"{counted(len(paths), 'scan')} in {options.folder}")
    return 0


COMMANDS = {
    "demo-data": Command(
        DemoData,
        demo_data,
        description="Write a few synthetic CT scans, half as NIfTI and half as DICOM, with labels.csv; or, with "
        "--task, labelled pictures as a classification bundle reads them.",
    ),
}
