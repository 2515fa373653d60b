"""Kernels compiled by numba, and kept in a cache where there is a place for one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Kernel:
    """A function that numba compiles when it is first called, by Python or by another kernel.

    So numba, which takes longer to import than many commands run, is imported where something is computed. Where a
    kernel calls another one, numba asks that one for its type, and for the options of `inline`.

    Args:
        function: what to compile.
        options: of `numba.njit`.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.py_func, self.targetoptions = function, options

    def __call__(self, *args: Any) -> Any:
        """Run the compiled function."""
        return self._dispatcher(*args)

    @property
    def _numba_type_(self) -> Any:
        return self._dispatcher._numba_type_

    @functools.cached_property
    def _dispatcher(self) -> Any:
        from numba import njit

        try:
            return njit(cache=True, nogil=True, **self.targetoptions)(self.py_func)
        except RuntimeError:  # numba finds no place for a cache
            return njit(nogil=True, **self.targetoptions)(self.py_func)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: `numba.njit` without the interpreter's lock, cached beside the package or in the user's folder.

    A kernel with `fastmath` that other kernels call needs `inline="always"`. Otherwise there are two copies of it,
    optimised apart, and which of them runs depends on what was compiled before: the first run on a machine and the next
    one, which takes the kernels from the cache, would differ in the last bits of their sums.

    In a container whose folders cannot be written there is no cache: each process compiles anew, which takes seconds.

    Args:
        options: of `numba.njit`.
    """
    return lambda function: Kernel(function, options)
