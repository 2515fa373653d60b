"""Embeddings of pictures by pre-trained weights: the parts of the `inference.json` of each pre-training bundle.

The input is the whole grey picture: resized to a square, so that nothing is cropped away, and normalised by the mean
and standard deviation of the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.bundle.inference import NUMBER, TableSaver
from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.network_input import check_mean_std, normalise, resize
from lessismore_transforms.training.precision import pick_device
from lessismore_transforms.weights.backbones import build_backbone, three_channels, to_encoder
from lessismore_transforms.wording import plural

CSV, NPY = "embeddings.csv", "embeddings.npy"
FORMATS = ("csv", "npy")


def prepare(images: torch.Tensor, *, size: int, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Network input: pictures resized (bilinear, antialiased, in floats) and normalised, with three channels.

    Args:
        images: uint8 (B, C, H, W); C is 1 or 3.
        size: pixels per side of the result.
        mean: mean of grey values in 0..1, one number or one per channel.
        std: standard deviation, one number or one per channel.

    Returns:
        float32 (B, 3, size, size), on the device of the pictures.

    Raises:
        UserError: pictures, size, mean or std are not as above.
    """
    _check(size, mean, std)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape or images.dtype != torch.uint8:
        raise UserError(
            f"expected pictures uint8 (B, C, H, W) of 1 or 3 channels, found {images.dtype} {tuple(images.shape)}; "
            "convert them first"
        )
    small = resize(images.float(), size)  # (B, C, size, size)
    return three_channels(normalise(small / 255, mean, std))


class Prepared:
    """`prepare` for the items of a data set: `image` uint8 (C, H, W) becomes network input float32 (3, size, size).

    Args:
        size: pixels per side.
        mean: mean of grey values in 0..1, one number or one per channel.
        std: standard deviation, one number or one per channel.

    Raises:
        UserError: size, mean or std are not as above.
    """

    def __init__(self, size: int, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.size = size
        self.mean, self.std = ([value] if isinstance(value, (int, float)) else value for value in (mean, std))
        _check(self.size, self.mean, self.std)

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The item with its picture prepared."""
        return {**item, "image": prepare(item["image"][None], size=self.size, mean=self.mean, std=self.std)[0]}


def load_pretrained(network: nn.Module, weights: Path | str, name: str, device: torch.device | str) -> nn.Module:
    """A copy of a network for inference on a device, filled strictly with pre-trained weights.

    Args:
        network: the network that `build_backbone` makes for the name; it gets the weights and stays on its device.
        weights: a file, or `imagenet`, or `random`.
        name: name of the network.
        device: device of the copy.

    Raises:
        UserError: the weights are missing or not of this network, or there is no such device.
    """
    place = pick_device(device)
    network.load_state_dict(build_backbone(name, weights=weights).state_dict())
    return to_encoder(network, str(place))


class EmbeddingSaver(TableSaver):
    """Write the embeddings of pictures.

    embeddings.csv has a row for each picture: image_id and, in the format csv, e_0, e_1, ... with nine digits, from
    which the same float32 can be read back. In the format npy the numbers are in embeddings.npy, float32 (N, F), a row
    for each row of the CSV file: smaller and faster, for large sets.

    Args:
        output_dir: folder of the files.
        form: csv or npy.
        postprocessing: of items that hold embeddings under `pred`; None leaves them as they are.

    Raises:
        UserError: the format is unknown.
        OutputError: the folder cannot be written.
    """

    def __init__(self, output_dir: str | Path, form: str = "csv", postprocessing: Any = None) -> None:
        if form not in FORMATS:
            raise UserError(f"expected a format out of {', '.join(FORMATS)}, found {form!r}; csv is usual")
        super().__init__(output_dir, CSV, "embedding")
        self.form, self.postprocessing = form, postprocessing

    def columns(self) -> list[str]:
        """The names of the columns with numbers in the CSV file."""
        return [f"e_{number}" for number in range(self.size)] if self.form == "csv" else []

    def cells(self, predicted: torch.Tensor) -> Iterator[str]:
        """The numbers as cells of the CSV file, or no cells where the numbers are written into the array."""
        if self.postprocessing is not None:
            predicted = self.postprocessing({"pred": predicted})["pred"]
        if self.form == "npy":
            if not self._npy.tell():
                self._shape()
            self._npy.write(predicted.numpy().astype("<f4").tobytes())
            return iter([""] * len(predicted))
        line = f",{NUMBER}" * self.size
        return (line % tuple(row) for row in predicted.tolist())

    def _open(self, engine: Engine) -> None:
        super()._open(engine)
        if self.form == "npy":
            self._npy: IO[bytes] = self._files.enter_context(atomic_write(self.output_dir / NPY, "wb"))

    def _shape(self) -> None:
        """Write the number of rows into the header of the array, where numpy leaves room for it."""
        self._npy.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.size)}
        np.lib.format.write_array_header_1_0(self._npy, header)

    def _close(self, engine: Engine) -> None:
        if self.form == "npy":
            self._shape()
        super()._close(engine)
        if self.form == "csv":
            (self.output_dir / NPY).unlink(missing_ok=True)  # of an earlier run; the rows are others now
        rows, numbers = plural(self.rows, "embedding"), plural(self.size, "number")
        print(f"{self.rows} {rows} of {self.size} {numbers} in {self.output_dir}")


def _check(size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if not isinstance(size, int) or size < 1:
        raise UserError(f"expected an image size of 1 or more pixels, found {size!r}; 224 is usual")
    check_mean_std(mean, std, "take that which the weights were trained with")
