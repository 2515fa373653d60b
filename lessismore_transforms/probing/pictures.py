"""The labelled pictures of a probe: listed, read, and grouped by what must not be divided."""

from __future__ import annotations

import importlib.util
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

    def split(self, draw: Draw) -> Examples:
        """The pictures of a fold, those of its training part as train."""
        test = set(draw.test.tolist())
        examples = tuple(
            replace(example, split="test" if place in test else "train")
            for place, example in enumerate(self.listing.examples)
        )
        return Examples(self.listing.task, self.listing.classes, examples, self.images, 3)


def read_labelled_pictures(settings: ProbeSettings, *, channels: int, window: str | None) -> Labelled:
    """List the pictures of a probe, deal them to folds, and read them.

    Args:
        settings: of the probe.
        channels: the most that a network wants.
        window: of DICOM pictures.

    Raises:
        UserError: labels do not fit the pictures, groups are not known or too few, or a picture cannot be read.
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
    images = read_pictures(listing, channels)
    return Labelled(listing, [_plain(image) for image in images], groups, draws, correlation)


def _listing(settings: ProbeSettings, window: str | None) -> Listing:
    task = settings.task or settings.dataset_dir.resolve().name
    if settings.bundle is not None:
        found: Listing = _listing_of(settings.bundle)(settings.dataset_dir)
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
    return grouped_by_near_duplicates(listing, correlation=correlation), correlation


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


def _listing_of(bundle: Path) -> Callable[[Path], Listing]:
    """The function `listing` in the scripts of a bundle."""
    place = bundle / "scripts" / "__init__.py"
    found = _imported(f"_listing_of_{abs(hash(bundle.resolve()))}", place) if place.is_file() else None
    function: Callable[[Path], Listing] | None = getattr(found, "listing", None)
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
