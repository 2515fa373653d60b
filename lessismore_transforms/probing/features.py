"""The features of frozen encoders, computed once for each picture and network and kept in files.

A file's name tells network and preparation, and each of its rows the pixels that it is of: pictures that are renamed,
moved or given other labels are not encoded again, and an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from lessismore_transforms.analysis.models import Model
from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.classification.examples import Picture, digest
from lessismore_transforms.classification.preprocessing import resized
from lessismore_transforms.errors import UserError, first_line
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.training.loader import leave_signals_to_the_trainer
from lessismore_transforms.volumes.pictures import with_channels
from lessismore_transforms.weights.backbones import weights_id
from lessismore_transforms.wording import counted

FEATURES = "features"  # folder of the files
_PREPARATION = ("image_size", "channels", "resize", "transpose", "mean", "std")
_SECONDS = 120  # between two states on the disk
_LOGGER = logging.getLogger("lessismore_transforms")

Floats = NDArray[np.float64]


def frozen_features(
    model: Model, images: Sequence[Picture], folder: Path, *, batch_size: int = 32, workers: int = 0
) -> Floats:
    """Features (N, F) of pictures; those that are in `folder` already are not computed again.

    Args:
        model: the network, in eval mode, and how it wants its pictures.
        images: uint8 (H, W) or (H, W, 3), of any size.
        folder: of the files.
        batch_size: pictures that go through the network at once.
        workers: processes that prepare pictures.

    Raises:
        UserError: a feature is not finite.
        OutputError: the folder cannot be written.
    """
    names = [digest(image) for image in images]
    path = folder / f"{cache_key(model)}.npz"
    known = _read(path)
    missing = list({name: place for place, name in enumerate(names) if name not in known}.values())
    if missing:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        loader = DataLoader(
            _Prepared(model, [images[place] for place in missing]),
            batch_size=batch_size,
            num_workers=workers,
            worker_init_fn=leave_signals_to_the_trainer,
        )
        saved, rest = time.monotonic(), iter(missing)
        with progress_bar(total=len(missing), desc=f"features of {model.name}", unit=" pictures") as bar:
            for batch in loader:
                found = _encoded(model, batch, batch_size)
                _refuse_infinite(model, found)
                known |= {names[next(rest)]: row for row in found}
                bar.update(len(batch))
                if time.monotonic() - saved > _SECONDS:
                    _write(path, known)
                    saved = time.monotonic()
        _write(path, known)
    return torch.stack([known[name] for name in names]).double().numpy()


def _encoded(model: Model, batch: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Features (B, F) of prepared pictures (B, C, S, S).

    Raises:
        UserError: the network does not take pictures of this size.
    """
    try:
        return model.features(batch, batch_size=batch_size)
    except (RuntimeError, AssertionError) as error:
        size = tuple(batch.shape[1:])
        raise UserError(
            f"expected {model.name} ({model.origin['backbone']}) to take pictures of {size}, found that it does not "
            f"({first_line(error)}): give another --image_size, --channels or --batch_size"
        ) from error


def cache_key(model: Model) -> str:
    """16 hex digits that tell what a network makes of a picture: its weights, and how it is shown the picture."""
    told = [
        model.origin["backbone"],
        bool(model.classes),
        weights_id(model.network),
        *(model.settings.get(name) for name in _PREPARATION),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


class _Prepared(Dataset[torch.Tensor]):
    """Pictures as float32 (C, size, size) in 0..1, as a network wants them."""

    def __init__(self, model: Model, images: Sequence[Picture]) -> None:
        self.images = images
        self.settings: Mapping[str, Any] = {name: model.settings.get(name) for name in _PREPARATION}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        wanted = self.settings
        picture = with_channels(self.images[index], wanted["channels"])
        image = torch.from_numpy(np.atleast_3d(picture).transpose(2, 0, 1).copy())  # (C, H, W)
        image = image.mT.contiguous() if wanted["transpose"] else image
        return resized(image, wanted["image_size"], wanted["resize"] or "bilinear")


def _refuse_infinite(model: Model, features: torch.Tensor) -> None:
    if bad := int((~features.isfinite()).any(dim=1).sum()):
        raise UserError(
            f"expected finite features, found others for {bad} of {counted(len(features), 'picture')} of a batch of "
            f"{model.name}: give other weights"
        )


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The features in a file by the digest of their picture; {} where there is none, or one that is damaged."""
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            pictures, features = file["pictures"], file["features"]
        names = [row.tobytes().hex() for row in pictures]
        return dict(zip(names, torch.from_numpy(features), strict=True))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        _LOGGER.warning("%s is damaged: its features are computed again", path)
        return {}


def _write(path: Path, known: Mapping[str, torch.Tensor]) -> None:
    """Write features with the digests of their pictures, in the order of these."""
    names = sorted(known)
    pictures = np.array([list(bytes.fromhex(name)) for name in names], np.uint8)  # (N, 32)
    with atomic_write(path, "wb") as file:
        np.savez(file, pictures=pictures, features=torch.stack([known[name] for name in names]).numpy())
