"""The options of `share`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import argument, names, option


@dataclass(frozen=True)
class ShareSettings:
    """Options of `share`, in the order in which `--help` tells them."""

    run: Path = argument(metavar="RUN", help="folder of a finished pre-training, or run_00 of an evaluation")
    output_dir: Path = option(help="new folder, named as the bundle is to be called", role="path", metavar="DIR")
    license: str | None = option(
        None, help="licence of the weights, such as cc-by-4.0; asked for where it is missing", role="label"
    )
    author: tuple[str, ...] = option((), help="who shares them; may be repeated; asked for where missing", role="label")
    data: str | None = option(None, help="name or address of the data that they were trained on", role="label")
    data_license: str | None = option(None, help="licence of those data, as their publisher states it", role="label")
    cite: str | None = option(None, help="what is to be cited for the weights", role="label", metavar="TEXT")
    title: str | None = option(None, help="for people (default: method, network and what it is for)", role="label")
    version: str = option("0.1.0", help="of the shared weights", role="label", metavar="X.Y.Z")
    changes: str = option("first version", help="what is new in this version", role="label", metavar="TEXT")
    dataset_dir: tuple[Path, ...] = option(
        (),
        help="output of reduce, or pictures, that a pre-training read (default: as its record says)",
        role="path",
        metavar="OUT",
    )
    evaluation: tuple[Path, ...] = option(
        (),
        help="evaluation or probe of this encoder, or of a baseline beside it, for the card; may be repeated",
        role="path",
        metavar="EVAL",
    )
    torchscript: bool = option(False, help="write models/model.ts too")
    url: str | None = option(
        None,
        help="address of the folder from which files above 25 MB will be downloaded, for large_files.yml",
        role="label",
    )
    hub: bool = option(False, help="write a folder for timm, torchvision and a model hub instead of a bundle")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", self.output_dir.resolve().name):
            raise UserError(
                f"expected an output_dir whose name can be that of a bundle, letters, digits and _, found "
                f"{self.output_dir.resolve().name!r}: choose another"
            )
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise UserError(f"expected a version such as 0.1.0, found {self.version!r}: give three numbers")
        if self.url is not None and not _is_address(self.url):
            raise UserError(
                f"expected the address of a folder, https://HOST/PATH without a user, a query or blanks, found "
                f"{self.url!r}: fix --url"
            )
        for name in names(self, "label"):
            value = getattr(self, name)
            for text in value if isinstance(value, tuple) else [value]:
                if text is not None and not text.isprintable():
                    raise UserError(f"expected one line of plain text for --{name}, found {text!r}: fix it")
        if self.hub and (self.torchscript or self.url):
            unwanted = "torchscript" if self.torchscript else "url"
            raise UserError(f"expected --{unwanted} for a bundle, found it with --hub: leave one of them out")

    @property
    def name(self) -> str:
        """Of the bundle."""
        return self.output_dir.resolve().name


def _is_address(text: str) -> bool:
    """Whether a text is the address of a folder to which names of files can be added."""
    if not re.fullmatch(r"https://[A-Za-z0-9._~:/%+,;=!&()*'\[\]-]+", text):
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
