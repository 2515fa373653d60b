"""The examples of a classification: labelled pictures in three splits, listed by a bundle, in memory at native size."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lessismore_transforms.errors import UserError
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.wording import counted

SPLITS = ("train", "val", "test")
DIGITS = 64  # of a digest: all of a SHA-256

_LOGGER = logging.getLogger("lessismore_transforms")

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """One labelled picture.

    Args:
        image_id: unique in the data set: the path below its folder (with /), or for an array `train/17`.
        label: position in `Listing.classes`.
        split: one of `SPLITS`; empty where none is told, before a protocol makes one.
        patient: patient in the picture; empty where that is not known.
        source: common origin of several pictures whose patient is not known, such as a paper; empty where unknown.
    """

    image_id: str
    label: int
    split: str
    patient: str = ""
    source: str = ""


@dataclass(frozen=True, eq=False)
class Listing:
    """The examples of a data set and the function that reads their pictures; no picture is read yet.

    Args:
        task: its name in tables: COVID-19, OrgMNIST, Brain.
        classes: their names; an example's label is a position in them.
        examples: in a fixed order.
        read: function of an example and the number of channels, 1 or 3, that returns the picture, uint8 (H, W) or
            (H, W, 3); it may run in threads.
        official: whether a protocol took the split that the data tell, so that there are no folds.
    """

    task: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    read: Callable[[Example, int], Picture]
    official: bool = False


@dataclass(frozen=True, eq=False)
class Examples:
    """All pictures of a data set in memory, of native size.

    Args:
        task: as in `Listing`.
        classes: as in `Listing`.
        examples: as in `Listing`.
        images: the picture of each example, uint8 (H, W) for one channel, (H, W, 3) for three.
        channels: 1 or 3.
        official: as in `Listing`.
    """

    task: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    images: list[Picture]
    channels: int
    official: bool = False

    @classmethod
    def of(cls, listing: Listing, *, channels: int = 1) -> Examples:
        """Check a listing and read its pictures, several at a time.

        Raises:
            UserError: an example is listed twice or has no such label or split, a split is empty or has one class
                only, or a picture cannot be read.
        """
        if channels not in (1, 3):
            raise UserError(f"expected pictures of 1 or 3 channels, found channels {channels}: give one of these")
        _check(listing)
        pictures = read_pictures(listing, channels)
        return cls(listing.task, listing.classes, listing.examples, pictures, channels, listing.official)

    def splits(self) -> str:
        """A digest, 64 hex digits, of which picture is in which split."""
        placed = sorted((example.image_id, example.split) for example in self.examples)
        return hashlib.sha256(repr(placed).encode()).hexdigest()

    def pixels(self, split: str) -> list[str]:
        """The digest of each picture of a split, see `digest`."""
        chosen = (image for example, image in zip(self.examples, self.images, strict=True) if example.split == split)
        return [digest(image) for image in chosen]

    def identity(self) -> str:
        """A digest, 64 hex digits, of ids, labels, splits and pixels in their order: equal for the same data only."""
        digest = hashlib.sha256()
        for example, image in zip(self.examples, self.images, strict=True):
            digest.update(repr((example.image_id, example.label, example.split, image.shape)).encode())
            digest.update(image.tobytes())
        return digest.hexdigest()


def digest(picture: Picture) -> str:
    """A digest, DIGITS hex digits, equal for pictures of equal shape and pixels.

    It is whole: 32 bits would be alike for some two of the 13,940 training and 11,279 other pictures of OrganSMNIST
    with a probability of 3.6 %, and a picture that was never seen would count as trained on.
    """
    return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()


class Split(Dataset[dict[str, Any]]):
    """One split as a data set of items with image, label, image_id, patient and index (in the split).

    It holds the pictures of its split only, so that a spawned worker copies no others; forked workers share them.

    Args:
        examples: all pictures.
        name: one of `SPLITS`.
        transform: of an item, whose image is a copy, uint8 (C, H, W).

    Raises:
        UserError: there is no such split.
    """

    def __init__(
        self, examples: Examples, name: str, transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> None:
        if name not in SPLITS:
            raise UserError(f"expected one of {', '.join(SPLITS)}, found {name}: name one of these splits")
        chosen = [number for number, example in enumerate(examples.examples) if example.split == name]
        self.name = name
        self.classes = examples.classes
        self.examples = tuple(examples.examples[number] for number in chosen)
        self.images = [examples.images[number] for number in chosen]
        self.transform = transform
        self.labels = np.array([example.label for example in self.examples], np.int64)  # (N,)
        self.image_ids = [example.image_id for example in self.examples]
        self.patients = [example.patient for example in self.examples]
        self.sources = [example.source for example in self.examples]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example, image = self.examples[index], torch.tensor(self.images[index])
        item = {
            "image": image[None] if image.ndim == 2 else image.permute(2, 0, 1).contiguous(),  # (C, H, W)
            "label": example.label,
            "image_id": example.image_id,
            "patient": example.patient,
            "index": index,
        }
        return item if self.transform is None else self.transform(item)


def _check(listing: Listing) -> None:
    seen: dict[str, Example] = {}
    classes = len(listing.classes)
    for example in listing.examples:
        if (first := seen.get(example.image_id)) is not None:
            places = (
                f"twice in {first.split}" if first.split == example.split else f"in {first.split} and {example.split}"
            )
            raise UserError(f"{listing.task}: {example.image_id} is {places}: each picture belongs to one place")
        seen[example.image_id] = example
        if example.split not in SPLITS:
            raise UserError(
                f"{listing.task}: expected one of {', '.join(SPLITS)}, found {example.split!r} for "
                f"{example.image_id}: name one of these splits"
            )
        if not 0 <= example.label < classes:
            raise UserError(
                f"{listing.task}: expected labels from 0 to {classes - 1} for {classes} classes, found "
                f"{example.label} for {example.image_id}: fix the label or name all classes"
            )
    for split in SPLITS:
        _check_split(listing, split)


def _check_split(listing: Listing, split: str) -> None:
    counts = Counter(example.label for example in listing.examples if example.split == split)
    if not counts:
        raise UserError(f"{listing.task}: the {split} split is empty: give each split pictures of all classes")
    if len(counts) == 1:
        only = listing.classes[next(iter(counts))]
        pictures = "the only picture of the {} split is" if counts.total() == 1 else "all pictures of the {} split are"
        raise UserError(
            f"{listing.task}: {pictures.format(split)} {only}: nothing can be learnt or measured on a split of one "
            "class, give it pictures of all classes"
        )
    if lacking := [name for label, name in enumerate(listing.classes) if label not in counts]:
        if split == "train":
            raise UserError(
                f"{listing.task}: expected training pictures of {len(listing.classes)} classes, found none of "
                f"{', '.join(lacking)}: name the classes that there are, or add pictures"
            )
        _LOGGER.warning("%s: the %s split has no picture of %s", listing.task, split, ", ".join(lacking))


def read_pictures(listing: Listing, channels: int = 1) -> list[Picture]:
    """The pictures in the order of the examples; threads are enough, as decoders release Python's lock.

    Raises:
        UserError: a picture cannot be read.
    """

    def read(example: Example) -> Picture | Exception:
        try:
            picture = listing.read(example, channels)
        except Exception as error:  # decoders raise many kinds; all pictures are tried before one error
            return error
        expected = 2 if channels == 1 else 3
        if picture.dtype != np.uint8 or picture.ndim != expected or 0 in picture.shape:
            return UserError(f"{example.image_id}: expected uint8 pixels, found {picture.dtype} {picture.shape}")
        return picture

    threads = min(16, (os.cpu_count() or 1) + 2)
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:  # DICOM threads get into each other's filters
        results = pool.map(read, listing.examples)
        progress = progress_bar(results, total=len(listing.examples), desc="read", unit=" images")
        pictures = list(progress)
    _refuse_unreadable(listing.examples, pictures)
    return [picture for picture in pictures if not isinstance(picture, Exception)]


def _refuse_unreadable(examples: Sequence[Example], pictures: Sequence[Picture | Exception]) -> None:
    pairs = zip(examples, pictures, strict=True)
    failed = [(example.image_id, picture) for example, picture in pairs if isinstance(picture, Exception)]
    if failed:
        name, reason = failed[0]
        raise UserError(
            f"{len(failed)} of {counted(len(examples), 'picture')} cannot be read, first {name} "
            f"({reason.__cause__ or reason}): fix them or take them off the lists"
        ) from reason
