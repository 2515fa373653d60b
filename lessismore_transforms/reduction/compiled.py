"""Kernels compiled by numba, and kept in a cache where there is a place for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: `numba.njit` without the interpreter's lock, cached beside the package or in the user's folder.

    A kernel with `fastmath` that other kernels call needs `inline="always"`. Otherwise there are two copies of it,
    optimised apart, and which of them runs depends on what was compiled before: the first run on a machine and the next
    one, which takes the kernels from the cache, would differ in the last bits of their sums.

    In a container whose folders cannot be written there is no cache: each process compiles anew, which takes seconds.

    Args:
        options: of `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            kernel: Callable[..., Any] = njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # numba finds no place for a cache
            kernel = njit(nogil=True, **options)(function)
        return kernel

    return decorate
