"""Mean and standard deviation of the grey values of stored slices, exact whatever the order in which they are added."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

_WHITE = 255
_DIGITS = 6


def store_statistics(records: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Pixels, mean and standard deviation (grey values in 0..1) of the default selections' slices in volumes' records.

    Returns:
        None where nothing is stored.
    """
    each = [(record["store"], record["height"] * record["width"]) for record in records]
    n = sum(store["slices"] * size for store, size in each)
    if not n:
        return None
    total, squares = (sum(store[name] for store, _ in each) for name in ("sum", "squares"))
    deviation = math.sqrt((n * squares - total * total) / (n * n))  # whole numbers up to the division: exact
    return {"pixels": n, "mean": round(total / (n * _WHITE), _DIGITS), "std": round(deviation / _WHITE, _DIGITS)}


def pooled(statistics: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """Mean and standard deviation of several stores together, each counted by its pixels."""
    each = list(statistics)
    n = sum(item["pixels"] for item in each)
    mean = sum(item["pixels"] * item["mean"] for item in each) / n
    square = sum(item["pixels"] * (item["std"] ** 2 + item["mean"] ** 2) for item in each) / n
    return round(mean, _DIGITS), round(math.sqrt(max(square - mean**2, 0.0)), _DIGITS)
