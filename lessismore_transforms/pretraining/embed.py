"""Pictures in, embeddings out: what the `inference.json` of each pre-training bundle is made of.

A picture goes in whole and grey: resized to a square, so that nothing of it is cropped away, and normalised by the
mean and standard deviation that the weights were trained with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn import functional as F

from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.backbones import build_backbone, three_channels, to_encoder
from lessismore_transforms.dataset import SliceSelectionDataset
from lessismore_transforms.manifest import Selection
from lessismore_transforms.pictures import SUFFIXES, read_picture
from lessismore_transforms.training.precision import pick_device

CSV, NPY = "embeddings.csv", "embeddings.npy"
FORMATS = ("csv", "npy")
_NUMBER = "%.9g"  # nine digits tell every float32 apart


def prepare(images: torch.Tensor, *, size: int, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return network input: pictures resized (bilinear, antialiased, in floats) and normalised, with three channels.

    Args:
        images: uint8 (B, C, H, W); C is 1 or 3.
        size: pixels per side of the result.
        mean: of grey values in 0..1, one number or one per channel.
        std: the same.

    Returns:
        float32 (B, 3, size, size), on the device of the pictures.

    Raises:
        ValueError: pictures, size, mean or std are none.
    """
    _check(size, mean, std)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape or images.dtype != torch.uint8:
        raise ValueError(
            f"expected pictures uint8 (B, C, H, W) of 1 or 3 channels, found {images.dtype} {tuple(images.shape)}; "
            "convert them first"
        )
    small = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)  # (B, C, size, size)
    return normalise(small, mean, std)


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return pixels 0..255, float32 (B, C, H, W), less the mean and over the deviation of 0..1, with three channels."""
    middle, width = (pixels.new_tensor(list(values)).view(-1, 1, 1) for values in (mean, std))
    return three_channels((pixels / 255 - middle) / width)


class Prepared:
    """`prepare` for the items of a data set: `image` uint8 (C, H, W) becomes network input float32 (3, size, size).

    Args:
        size: pixels per side.
        mean: of grey values in 0..1, one number or one per channel.
        std: the same.

    Raises:
        ValueError: size, mean or std are none.
    """

    def __init__(self, size: int, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.size = size
        self.mean, self.std = ([value] if isinstance(value, (int, float)) else value for value in (mean, std))
        _check(self.size, self.mean, self.std)

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item with its picture prepared."""
        return {**item, "image": prepare(item["image"][None], size=self.size, mean=self.mean, std=self.std)[0]}


class Pictures(torch.utils.data.Dataset[Any]):
    """Pictures with their names, `{"image": uint8 (1, H, W), "image_id": str, "error": str}`; grey, as training's are.

    One that cannot be read comes as a black pixel, and `error` says why, so that the others go on.

    Args:
        data: a folder, for the PNG and JPEG files below it, by path; or an output of `reduce`, or several, for their
            slices, by slice_id.
        selection: of the outputs.
        transform: called with each item.

    Raises:
        ValueError: there are no pictures.
        ManifestError: an output is damaged, or has no such selection.
    """

    def __init__(
        self, data: str | Path | Sequence[str | Path], selection: str = "default", transform: Any = None
    ) -> None:
        self.transform = transform
        outputs = [Path(data)] if isinstance(data, (str, Path)) else [Path(output) for output in data]
        self._folder: Path | None = None
        if len(outputs) > 1 or (outputs[0] / "manifest.json").is_file():
            self._slices = SliceSelectionDataset(outputs, selection)
            self.names = [name for output in outputs for name in Selection.read(output, selection).kept_ids]
        else:
            self._folder = outputs[0]
            paths = sorted(path for path in self._folder.rglob("*") if path.suffix.lower() in SUFFIXES)
            self.names = [path.relative_to(self._folder).as_posix() for path in paths if path.is_file()]
        if not self.names:
            raise ValueError(
                f"expected PNG or JPEG files or an output of `reduce` in {', '.join(map(str, outputs))}, found none: "
                "name another folder with dataset_dir"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        picture, error = np.zeros((1, 1, 1), np.uint8), ""
        try:
            if self._folder is None:
                picture = self._slices[index]["image"]
            else:
                picture = read_picture(self._folder / self.names[index])[None]
        except Exception as found:  # one bad file must not lose the others; image decoders raise many kinds
            error = str(found) or type(found).__name__
        item = {"image": torch.from_numpy(picture.copy()), "image_id": self.names[index], "error": error}
        return item if self.transform is None else self.transform(item)


def load_pretrained(network: nn.Module, weights: Path | str, name: str, device: torch.device | str) -> nn.Module:
    """Return a copy of a network for inference on a device, filled strictly with pre-trained weights.

    Args:
        network: what `build_backbone` gives for the name; stays on its device, with the weights.
        weights: a file, or `imagenet`, or `random`.
        name: of the network.
        device: where to run.

    Raises:
        ValueError: the weights are not there or not of this network, or there is no such device.
    """
    place = pick_device(device)
    network.load_state_dict(build_backbone(name, weights=weights).state_dict())
    return to_encoder(network, str(place))


class EmbeddingSaver:
    """Write what an evaluator predicts for the items of `Pictures`, as it comes.

    embeddings.csv has a row for each picture, in their order: image_id and, in the format csv, e_0, e_1, ... with nine
    digits, which give back the float32. In the format npy the numbers are in embeddings.npy, float32 (N, F), one row
    for each row of the CSV file: smaller and faster, for large sets. Pictures that cannot be read have no row.

    Args:
        output_dir: folder of the files.
        form: csv or npy.

    Raises:
        ValueError: the format is unknown.
        OutputError: the folder cannot be written.
    """

    def __init__(self, output_dir: str | Path, form: str = "csv") -> None:
        if form not in FORMATS:
            raise ValueError(f"expected a format out of {', '.join(FORMATS)}, found {form!r}; csv is usual")
        self.output_dir, self.form = Path(output_dir), form
        self.rows, self.size, self.unread = 0, 0, dict[str, str]()
        with writing(self.output_dir):
            self.output_dir.mkdir(parents=True, exist_ok=True)

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._abandon)

    def check(self) -> None:
        """Tell of the pictures that have no embedding.

        Raises:
            ValueError: there are such.
        """
        for name, reason in self.unread.items():
            raise ValueError(
                f"{len(self.unread)} of {len(self.unread) + self.rows} pictures could not be read and have no "
                f"embedding, first {name} ({reason}): mend them or take them away"
            )

    def _open(self, _: Engine) -> None:
        self.rows, self.size, self.unread = 0, 0, {}
        self._files = ExitStack()
        self._csv: IO[str] = self._files.enter_context(atomic_write(self.output_dir / CSV))
        if self.form == "npy":
            self._npy: IO[bytes] = self._files.enter_context(atomic_write(self.output_dir / NPY, "wb"))

    def _write(self, engine: Any) -> None:
        names, errors = engine.state.batch["image_id"], engine.state.batch["error"]
        embeddings = engine.state.output["pred"].float().cpu().numpy()  # (B, F)
        if not self.size:
            self.size = embeddings.shape[1]
            self._begin()
        for name, error in zip(names, errors, strict=True):
            if error:
                self.unread[name] = error
                logging.getLogger("lessismore_transforms").warning("%s could not be read: %s", name, error)
        good = [index for index, error in enumerate(errors) if not error]
        self.rows += len(good)
        if self.form == "npy":
            self._npy.write(embeddings[good].astype("<f4").tobytes())
            self._csv.writelines(f"{_cell(names[index])}\n" for index in good)
        else:
            line = f"%s{f',{_NUMBER}' * self.size}\n"
            self._csv.writelines(line % (_cell(names[index]), *embeddings[index].tolist()) for index in good)

    def _begin(self) -> None:
        numbered = [f"e_{number}" for number in range(self.size)] if self.form == "csv" else []
        self._csv.write(f"{','.join(['image_id', *numbered])}\n")
        if self.form == "npy":
            self._shape()

    def _shape(self) -> None:
        """Say at the beginning of the array how many rows it has; numpy leaves room for more."""
        self._npy.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.size)}
        np.lib.format.write_array_header_1_0(self._npy, header)

    def _close(self, engine: Any) -> None:
        if self.form == "npy":
            self._shape()
        self._files.close()
        if self.form == "csv":
            (self.output_dir / NPY).unlink(missing_ok=True)  # of an earlier run; the rows are others now
        print(f"{self.rows} embeddings of {self.size} numbers in {self.output_dir}")

    def _abandon(self, _: Engine, error: BaseException) -> None:
        self._files.__exit__(type(error), error, error.__traceback__)
        raise error


def _check(size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"expected an image size of 1 or more pixels, found {size!r}; 224 is usual")
    numbers = all(isinstance(value, (int, float)) for value in (*mean, *std))
    if not numbers or len(mean) not in (1, 3) or len(std) not in (1, 3) or min(std) <= 0:
        raise ValueError(
            f"expected 1 or 3 means, and as many standard deviations above 0, found {mean!r} and {std!r}; "
            "take those that the weights were trained with"
        )


def _cell(text: str) -> str:
    """A text as CSV holds it; bytes of a file's name that are no UTF-8 are spelt out."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
