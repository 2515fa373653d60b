"""The pictures of a volume, laid aside until it is known which of them stay."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import TEMPORARY, writing

_MEMORY = 64 << 20  # bytes of a volume's pictures beyond which they go to disk


class Spool:
    """Room for pictures, each at its index: the first ones in memory, the others in a temporary file.

    Args:
        folder: where the file is made, once it is needed.
        shape: number of pictures, rows and columns.
        memory: bytes that the pictures in memory may take.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], memory: int = _MEMORY) -> None:
        count, rows, columns = shape
        self._folder, self._shape = folder, (rows, columns)
        self._first = np.empty((min(count, memory // (rows * columns)), rows, columns), np.uint8)
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, index: int, picture: NDArray[np.uint8]) -> None:
        """Lay a picture (rows, columns) aside.

        Raises:
            OutputError: the file cannot be written.
        """
        assert picture.shape == self._shape, f"expected a picture {self._shape}, found {picture.shape}"
        if index < len(self._first):
            self._first[index] = picture
            return
        with writing(self._folder):
            self._at(index).write(np.ascontiguousarray(picture).data)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """The picture that was put at an index."""
        if index < len(self._first):
            held: NDArray[np.uint8] = self._first[index]
            return held
        rows, columns = self._shape
        return np.frombuffer(self._at(index).read(rows * columns), np.uint8).reshape(rows, columns)

    def _at(self, index: int) -> IO[bytes]:
        """The file, at the place of a picture."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix=TEMPORARY)  # noqa: SIM115 (see __exit__)
        rows, columns = self._shape
        self._file.seek((index - len(self._first)) * rows * columns)
        return self._file
