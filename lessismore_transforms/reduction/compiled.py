"""Kernels compiled by numba, and kept in a cache where there is a place for one."""

from __future__ import annotations

import contextlib
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

    def __reduce__(self) -> str:
        return self.__qualname__  # type: ignore[no-any-return, attr-defined]

    @functools.cached_property
    def _dispatcher(self) -> Any:
        from numba import njit

        kernel = njit(nogil=True, **self.targetoptions)(self.py_func)
        with contextlib.suppress(RuntimeError, AttributeError):  # no place for a cache; nothing is compiled at all
            kernel._cache = _cache_of(self.py_func)
        return kernel


def _cache_of(function: Callable[..., Any]) -> Any:
    """Numba's cache of a function, but that its damage is no error: the function is compiled anew.

    A full disk, a quota or a power cut may leave files that are cut short. Numba raises then, in whatever called the
    kernel, where it would look like damage of the file that is being read.
    """
    from numba.core.caching import FunctionCache

    class Cache(FunctionCache):  # type: ignore[misc]
        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # what a cut pickle raises is anything
                with contextlib.suppress(OSError):
                    self.flush()
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            with contextlib.suppress(OSError):
                super().save_overload(sig, data)

    return Cache(function)


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
