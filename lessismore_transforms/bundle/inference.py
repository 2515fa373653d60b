"""Pictures without labels in, a table with a row for each out: what every `inference.json` shares."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.errors import IncompleteError, UserError
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.picture_set import is_reduction
from lessismore_transforms.transforms.picture import LoadPictured
from lessismore_transforms.volumes.pictures import list_pictures
from lessismore_transforms.wording import counted

NUMBER = "%.9g"  # nine digits tell every float32 apart


class Pictures(torch.utils.data.Dataset[Any]):
    """Pictures with their names, `{"image": uint8 (C, H, W), "image_id": str, "error": str}`; grey by default.

    One that cannot be read comes as a black pixel, and `error` says why, so that the others go on.

    Args:
        data: a folder, for the PNG, JPEG and TIFF files below it, by path; or an output of `reduce`, or several, for
            their slices, by slice_id.
        selection: of the outputs.
        transform: called with each item.
        channels: 1 for grey, or 3.
        dicom: whether the folder's DICOM files count too.
        window: in which those with HU are seen, see `pictures.read_image`.

    Raises:
        UserError: there are no pictures.
        ManifestError: an output is damaged, or has no such selection.
    """

    def __init__(
        self,
        data: str | Path | Sequence[str | Path],
        selection: str = "default",
        transform: Any = None,
        *,
        channels: int = 1,
        dicom: bool = False,
        window: str | None = None,
    ) -> None:
        self.transform, self._load = transform, LoadPictured("image", channels, window)
        outputs = [Path(data)] if isinstance(data, (str, Path)) else [Path(output) for output in data]
        self._folder: Path | None = None
        if len(outputs) > 1 or is_reduction(outputs[0]):
            self._slices = SliceSelectionDataset(outputs, selection)
            self.names = self._slices.slice_ids
        else:
            self._folder = outputs[0]
            self.names = list_pictures(self._folder, with_dicom=dicom, with_tiff=True) if self._folder.is_dir() else []
        if not self.names:
            kinds = "PNG, JPEG, TIFF or DICOM" if dicom else "PNG, JPEG or TIFF"
            raise UserError(
                f"expected {kinds} files or an output of `reduce` in {', '.join(map(str, outputs))}, found none: "
                "name another folder with dataset_dir"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        item: dict[str, Any] = {"image_id": self.names[index], "error": ""}
        try:
            source = self._slices.picture(index) if self._folder is None else self._folder / self.names[index]
            item |= self._load({"image": source})
        except Exception as found:  # one bad file must not lose the others; image decoders raise many kinds
            item |= self._load({"image": np.zeros((1, 1), np.uint8)}) | {"error": str(found) or type(found).__name__}
        return item if self.transform is None else self.transform(item)


class TableSaver(ABC):
    """Write a CSV file with a row for each item of `Pictures` that an evaluator predicts, in their order, as it comes.

    A row begins with image_id; a subclass says what follows. Pictures that cannot be read have no row.

    Args:
        output_dir: folder of the file.
        file: its name.
        what: a row gives of a picture, as "embedding".

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, output_dir: str | Path, file: str, what: str) -> None:
        self.output_dir, self.file, self.what = Path(output_dir), file, what
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
        """Tell of the pictures that have no row.

        Raises:
            IncompleteError: there are such.
        """
        for name, reason in self.unread.items():
            raise IncompleteError(
                f"{len(self.unread)} of {counted(len(self.unread) + self.rows, 'picture')} could not be read and have "
                f"no {self.what}, first {name} ({reason}): fix them or take them away"
            )

    @abstractmethod
    def columns(self) -> list[str]:
        """Name what follows image_id; `size` numbers were predicted for each picture."""

    @abstractmethod
    def cells(self, predicted: torch.Tensor) -> Iterator[str]:
        """Give, for each row of what the network predicts, float32 (N, size) on the CPU, what follows image_id."""

    def _open(self, _: Engine) -> None:
        self.rows, self.size, self.unread = 0, 0, {}
        self._files = ExitStack()
        self._csv: IO[str] = self._files.enter_context(atomic_write(self.output_dir / self.file))

    def _write(self, engine: Any) -> None:
        names, errors = engine.state.batch["image_id"], engine.state.batch["error"]
        predicted = engine.state.output["pred"].float().cpu()  # (B, F)
        if not self.size:
            self.size = predicted.shape[1]
            self._csv.write(f"{','.join(['image_id', *self.columns()])}\n")
        for name, error in zip(names, errors, strict=True):
            if error:
                self.unread[name] = error
                logging.getLogger("lessismore_transforms").warning("%s could not be read: %s", name, error)
        good = [index for index, error in enumerate(errors) if not error]
        self.rows += len(good)
        cells = self.cells(predicted[good])
        self._csv.writelines(f"{csv_cell(names[index])}{cell}\n" for index, cell in zip(good, cells, strict=True))

    def _close(self, _: Engine) -> None:
        self._files.close()

    def _abandon(self, _: Engine, error: BaseException) -> None:
        self._files.__exit__(type(error), error, error.__traceback__)
        raise error


def csv_cell(text: str) -> str:
    """A text as CSV holds it; bytes of a file's name that are no UTF-8 are spelt out."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
