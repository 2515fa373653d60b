"""Mean and standard deviation of the grey values of stored slices, exact whatever the order in which they are added."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WHITE = 255
_DIGITS = 6
STORED = "stored"  # in a volume's record: pixels, sum and sum of squares of its stored slices


class GreySums:
    """Number, sum and sum of squares of 8-bit pixels, as whole numbers."""

    def __init__(self) -> None:
        self.pixels = self.sum = self.squares = 0

    def watch(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Hand pictures on and add their pixels."""
        for picture in pictures:
            self.pixels += picture.size
            self.sum += int(picture.sum(dtype=np.int64))
            self.squares += int(np.square(picture, dtype=np.uint16).sum(dtype=np.int64))
            yield picture

    def record(self) -> dict[str, int]:
        """The three, as a volume's record holds them."""
        return {"pixels": self.pixels, "sum": self.sum, "squares": self.squares}


def store_statistics(records: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Pixels, mean and standard deviation (grey values in 0..1) of the stored slices of all volumes' records.

    Returns:
        None where a volume's record does not tell, or nothing is stored.
    """
    sums = [record.get(STORED) for record in records]
    known = [each for each in sums if each is not None]
    n = sum(each["pixels"] for each in known)
    if len(known) < len(sums) or not n:
        return None
    total, squares = (sum(each[name] for each in known) for name in ("sum", "squares"))
    deviation = math.sqrt((n * squares - total * total) / (n * n))  # whole numbers up to the division: exact
    return {"pixels": n, "mean": round(total / (n * _WHITE), _DIGITS), "std": round(deviation / _WHITE, _DIGITS)}


def pooled(statistics: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """Mean and standard deviation of several stores together, each counted by its pixels."""
    each = list(statistics)
    n = sum(item["pixels"] for item in each)
    mean = sum(item["pixels"] * item["mean"] for item in each) / n
    square = sum(item["pixels"] * (item["std"] ** 2 + item["mean"] ** 2) for item in each) / n
    return round(mean, _DIGITS), round(math.sqrt(max(square - mean**2, 0.0)), _DIGITS)
