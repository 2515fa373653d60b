"""Kernels compiled by numba, and kept in a cache where there is a place for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: `numba.njit` without the interpreter's lock, cached beside the package or in the user's folder.

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
