"""`download`: a data set from its publisher."""

from __future__ import annotations

from lessismore_transforms.cli.ask import ask
from lessismore_transforms.cli.command import Command
from lessismore_transforms.downloads.settings import DownloadSettings


def download(settings: DownloadSettings) -> int:
    """Get the data set."""
    from lessismore_transforms.downloads import download as downloads

    downloads.download(settings, lambda question: (ask(question) or "").lower() in ("y", "yes"))
    return 0


COMMANDS = {
    "download": Command(
        DownloadSettings,
        download,
        description="Get a data set from its publisher: LIDC-IDRI and FDG-PET-CT-Lesions from the Imaging Data Commons "
        "(CT series alone), MedMNIST sets, and others. Size and licence come first; a transfer that broke off goes on "
        "with the same command; sums are checked. What needs a login is not got: a sentence says where to go.",
    ),
}
