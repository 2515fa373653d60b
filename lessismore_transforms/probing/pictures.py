"""The labelled pictures of a probe: listed, read, and grouped by what must not be divided."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.classification.examples import Example, Examples, Listing, Picture, read_pictures
from lessismore_transforms.classification.labels import labelled_pictures
from lessismore_transforms.classification.protocol import CORRELATION, grouped_by_near_duplicates, unit_of
from lessismore_transforms.errors import UserError
from lessismore_transforms.probing.draws import Draw, draw_folds, draw_official
from lessismore_transforms.probing.settings import NEAR_DUPLICATES, PATIENT, PICTURE, ProbeSettings
from lessismore_transforms.wording import counted


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled pictures in memory.

    Args:
        listing: their ids, labels, patients, sources and official splits.
        images: uint8 (H, W), or (H, W, 3) where they have colours.
        groups: N names of what stays together.
        draws: the folds.
        correlation: from which on pictures were made one source; None where none were.
    """

    listing: Listing
    images: list[Picture]
    groups: tuple[str, ...]
    draws: list[Draw]
    correlation: float | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each picture (N,)."""
        return np.array([example.label for example in self.listing.examples], np.int64)

    def described(self) -> str:
        """Pictures, classes and what stays together, in a line."""
        kinds = Counter(group.partition(" ")[0] for group in set(self.groups))
        units = " and ".join(counted(number, kind) for kind, number in sorted(kinds.items()))
        largest = max(Counter(self.groups).values())
        near = f" (near-duplicates from a correlation of {self.correlation:g} on)" if self.correlation else ""
        return (
            f"{self.listing.task}: {counted(len(self.images), 'picture')} of {len(self.listing.classes)} classes; "
            f"what stays together: {units}{near}, the largest with {counted(largest, 'picture')}"
        )

    def divided(self) -> Examples:
        """The pictures in the folds of the first repeat, each of which is judged; or in train and test."""
        names = ["train"] * len(self.images)
        for draw in self.draws[: len({draw.fold for draw in self.draws})]:
            for place in draw.test.tolist():
                names[place] = "test" if draw.fold is None else f"fold {draw.fold}"
        examples = tuple(
            replace(example, split=name) for example, name in zip(self.listing.examples, names, strict=True)
        )
        return Examples(self.listing.task, self.listing.classes, examples, self.images, 3)


def read_labelled_pictures(settings: ProbeSettings, *, window: str | None) -> Labelled:
    """List the pictures of a probe, deal them to folds, and read them.

    Args:
        settings: of the probe.
        window: of DICOM pictures.

    Raises:
        UserError: labels do not fit the pictures, groups are not known or too few, a class is missing where it is
            learned or judged, or a picture cannot be read.
    """
    listing, correlation = _grouped(_listing(settings, window), settings)
    groups = tuple(unit_of(example) for example in listing.examples)
    labels = np.array([example.label for example in listing.examples], np.int64)
    names = np.array(listing.classes)[labels]
    splits = [example.split for example in listing.examples]
    official = settings.protocol == "official" or (settings.protocol == "auto" and {"train", "test"} <= {*splits})
    if official:
        if "" in splits or not {"train", "test"} <= {*splits}:
            raise UserError(
                f"expected an official split of all pictures in {settings.dataset_dir}, found none of "
                f"{splits.count('') or len(splits)}: name train and test in a column split, or give --protocol folds"
            )
        draws = draw_official(splits, repeats=settings.repeats)
    else:
        draws = draw_folds(names, groups, folds=settings.folds, repeats=settings.repeats, seed=settings.seed)
    for draw in draws:
        _check_classes(listing, names, draw)
    images = read_pictures(listing, 3)  # grey ones become grey again, so that all networks share them
    return Labelled(listing, [_plain(image) for image in images], groups, draws, correlation)


def _listing(settings: ProbeSettings, window: str | None) -> Listing:
    task = settings.task or settings.dataset_dir.resolve().name
    if settings.bundle is not None:
        found = _listed_by(settings.bundle, settings, window)
        return replace(found, task=settings.task or found.task)
    columns = None if settings.group in (None, PATIENT, PICTURE, NEAR_DUPLICATES) else settings.group
    return labelled_pictures(
        settings.dataset_dir,
        labels=settings.labels,
        label_column=settings.label_column,
        group_column=columns,
        window=window,
        task=task,
    )


def _listed_by(bundle: Path, settings: ProbeSettings, window: str | None) -> Listing:
    """What the listing of a bundle tells; splits that it makes itself, as folds, are dropped."""
    listing = _listing_of(bundle)
    known = inspect.signature(listing).parameters
    own = (None, PATIENT, PICTURE, NEAR_DUPLICATES)
    given = {"labels": settings.labels, "label_column": settings.label_column, "window": settings.window}
    given |= {"group": None if settings.group in own else settings.group}
    for name, value in given.items():
        if value is not None and name not in known:
            raise UserError(
                f"expected no --{name} beside --bundle {bundle}, which does not take it, found {value}: leave out the "
                "one or the other"
            )
    options = {
        name: value for name, value in {**given, "window": window}.items() if value is not None and name in known
    }
    if "protocol" in known and settings.protocol != "folds":
        try:
            return listing(settings.dataset_dir, **options, protocol="official")
        except UserError:
            if settings.protocol == "official":
                raise
    found = listing(settings.dataset_dir, **options)
    if "fold" not in known:
        return found
    return replace(found, examples=tuple(replace(example, split="") for example in found.examples))


def _check_classes(listing: Listing, names: NDArray[np.str_], draw: Draw) -> None:
    for part, rows in (("to learn from", draw.train), ("to be judged", draw.test)):
        if lacking := [name for name in listing.classes if name not in names[rows]]:
            where = "the official split" if draw.fold is None else f"fold {draw.fold} of repeat {draw.repeat}"
            raise UserError(
                f"expected pictures of all classes {part} in {where}, found none of {', '.join(lacking)}: take fewer "
                "folds, another split, or more patients of it"
            )


def _grouped(listing: Listing, settings: ProbeSettings) -> tuple[Listing, float | None]:
    """The listing with the units that the probe is asked for, or that are known, and the bound of near-duplicates."""
    examples = listing.examples
    if settings.group == PATIENT and not all(example.patient for example in examples):
        unknown = sum(not example.patient for example in examples)
        raise UserError(
            f"expected the patient of each picture for --group patient, found none of {unknown} of {len(examples)}: "
            "name it in a column patient, or give --group near_duplicates"
        )
    if settings.group == PICTURE:
        return _renamed(listing, lambda _: ("", "")), None
    if settings.group == NEAR_DUPLICATES:
        listing = _renamed(listing, lambda _: ("", ""))
    elif settings.group not in (None, PATIENT):  # a column
        listing = _renamed(listing, lambda example: ("", example.source))
    if settings.group == PATIENT or all(example.patient or example.source for example in listing.examples):
        return listing, None
    correlation = CORRELATION if settings.correlation is None else settings.correlation
    return grouped_by_near_duplicates(listing, correlation=correlation, channels=3), correlation


def _renamed(listing: Listing, units: Callable[[Example], tuple[str, str]]) -> Listing:
    """The listing with other patients and sources; its pictures are read as before."""
    before = {example.image_id: example for example in listing.examples}
    renamed = (
        replace(example, patient=patient, source=source)
        for example in listing.examples
        for patient, source in [units(example)]
    )
    return replace(
        listing,
        examples=tuple(renamed),
        read=lambda example, channels: listing.read(before[example.image_id], channels),
    )


def _plain(image: Picture) -> Picture:
    """A picture whose channels are all equal as grey: a third of the memory, and one digest for both."""
    if image.ndim == 3 and (image[..., :1] == image).all():
        return np.ascontiguousarray(image[..., 0])
    return image


def _listing_of(bundle: Path) -> Callable[..., Listing]:
    """The function `listing` in the scripts of a bundle."""
    place = bundle / "scripts" / "__init__.py"
    found = _imported(f"_listing_of_{abs(hash(bundle.resolve()))}", place) if place.is_file() else None
    function: Callable[..., Listing] | None = getattr(found, "listing", None)
    if function is None:
        raise UserError(
            f"expected a bundle of a task in {bundle}, found no function listing in {place}: name a folder such as "
            "bundles/covid19_ct_classification"
        )
    return function


def _imported(name: str, place: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, place, submodule_search_locations=[str(place.parent)])
    if spec is None or spec.loader is None:
        raise UserError(f"expected Python in {place}, found none: name another bundle")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
