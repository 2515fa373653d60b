"""COVID-CT (Yang et al. 2020, arXiv 2003.13865): 746 slices cut out of papers, with official lists of the splits.

The lists hold bare file names: `Data-split/COVID/trainCT_COVID.txt`, `Data-split/NonCOVID/valCT_NonCOVID.txt` and so
on. The pictures are in the folders CT_COVID and CT_NonCOVID, or all in one folder as the released notebook has them.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from lessismore_transforms.classification.examples import SPLITS, Example, Listing
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.volumes.pictures import list_pictures, read_picture
from lessismore_transforms.wording import bounded, counted, plural

CLASSES = ("COVID", "NonCOVID")  # labels 0 and 1, as in the released code

_LOGGER = logging.getLogger("lessismore_transforms")


def listing(dataset_dir: str | Path) -> Listing:
    """The pictures that the official lists name, in the order of the lists.

    Args:
        dataset_dir: the folder that holds pictures and lists, at any depth.

    Raises:
        UserError: a list or a picture is missing or there twice, or a picture is listed twice.
    """
    root = Path(dataset_dir)
    pictures: dict[str, list[str]] = defaultdict(list)
    for path in list_pictures(root):
        pictures[PurePosixPath(path).name].append(path)
    listed: dict[str, Example] = {}
    for label, class_name in enumerate(CLASSES):
        for split in SPLITS:
            for name in _read_list(root, class_name, split):
                if (first := listed.get(name)) is not None:
                    raise UserError(
                        f"{name} is listed in {split}CT_{class_name}.txt and already in "
                        f"{first.split}CT_{CLASSES[first.label]}.txt: take it off one list"
                    )
                listed[name] = Example(name, label, split, source=source_of(name))
    places = {name: _choose(pictures.get(name, ()), f"CT_{CLASSES[listed[name].label]}") for name in listed}
    _refuse_missing(root, listed, places)
    examples = tuple(
        Example(places[name], example.label, example.split, source=example.source) for name, example in listed.items()
    )
    _warn_unlisted(examples, [path for paths in pictures.values() for path in paths])
    return Listing(
        "COVID-19", CLASSES, examples, lambda example, channels: read_picture(root / example.image_id, channels)
    )


def source_of(name: str) -> str:
    """Where a picture was cut out: the paper, or the figure of which it is a panel.

    The paper is the text before the page in `2020.02.10.20021584-p6-52%0.png`. Names without a page (article numbers of
    one publisher, the numbers of NonCOVID) tell the figure, `15.jpg` for `15%0.jpg` and `15%1.jpg`.
    """
    match = re.match(r"(.+?)-p\d+-\d", name)
    return match[1] if match else re.sub(r"%\d+(?=\.\w+$)", "", name)


def _read_list(root: Path, class_name: str, split: str) -> list[str]:
    """The names on one list; blank lines are left out, and line ends of all systems are accepted."""
    name = f"{split}CT_{class_name}.txt"
    found = [path for path in sorted(root.rglob(name)) if "__MACOSX" not in path.parts]
    if len(found) != 1:
        seen = ", ".join(path.relative_to(root).as_posix() for path in found) or "none"
        raise UserError(
            f"expected one list Data-split/{class_name}/{name} below {root}, found {seen}: put it there once"
        )
    with reading(found[0]):
        lines = found[0].read_text(encoding="utf-8-sig").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if doubled := next((entry for number, entry in enumerate(names) if entry in names[:number]), None):
        raise UserError(f"{doubled} is twice in {name}: take it off once")
    return names


def _choose(paths: Sequence[str], folder: str) -> str:
    """The path of a name: that in the folder of its class, or the only one; empty if there is none."""
    own = [path for path in paths if PurePosixPath(path).parent.name == folder] or list(paths)
    if len(own) > 1:
        raise UserError(f"expected one picture of each name, found {own[0]} and {own[1]}: keep one of them")
    return own[0] if own else ""


def _refuse_missing(root: Path, listed: Mapping[str, Example], places: Mapping[str, str]) -> None:
    for label, class_name in enumerate(CLASSES):
        names = [name for name in listed if listed[name].label == label]
        missing = [name for name in names if not places[name]]
        if names and len(missing) == len(names):
            raise UserError(
                f"expected the pictures of {class_name} in a folder CT_{class_name} below {root}, found none of "
                f"{len(names)}: unpack CT_{class_name}.zip there"
            )
        if missing:
            share = f"{len(missing)} of {counted(len(names), 'listed picture')} of {class_name}"
            raise UserError(
                f"{share} {plural(len(missing), 'is', 'are')} not below {root}, first "
                f"{bounded(missing[0], 100)}: copy them there or take them off the lists"
            )


def _warn_unlisted(examples: Sequence[Example], paths: Sequence[str]) -> None:
    """Warn of pictures in the folders of the listed ones that are on no list; other folders may hold any pictures."""
    used = {example.image_id for example in examples}
    folders = {str(PurePosixPath(path).parent) for path in used}
    left = sorted(path for path in paths if path not in used and str(PurePosixPath(path).parent) in folders)
    if left:
        pictures, verb = counted(len(left), "picture"), plural(len(left), "is", "are")
        _LOGGER.warning("%s %s on no list and %s left out, first %s", pictures, verb, verb, left[0])
