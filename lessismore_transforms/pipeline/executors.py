"""Run tasks in this process, in a pool of processes or on a cluster, behind the interface of `concurrent.futures`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from typing import Any

from lessismore_transforms.cores import available_cores
from lessismore_transforms.errors import RunError, first_line

_CONNECT_SECONDS = 10
_RETRIES = 2  # of a task that dask lost for other reasons than its worker's death


class SerialExecutor(Executor):
    """Runs each task at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` now; the future holds its result or its exception."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class ClusterExecutor(Executor):
    """Runs tasks on the workers of a dask scheduler, which has to see the same folders under the same names.

    A task whose worker is lost is tried again elsewhere; one that kills worker after worker ends with dask's
    `KilledWorker`.

    Args:
        address: of the scheduler, such as tcp://host:8786.

    Raises:
        RunError: no scheduler answers there, it has no workers, or dask is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ModuleNotFoundError as error:
            raise RunError(
                "--scheduler needs dask: install it with `pip install lessismore-transforms[cluster]`"
            ) from error
        try:
            self._client: Any = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:  # a TimeoutError is an OSError, a misspelt address a ValueError
            raise RunError(
                f"no dask scheduler answers at {address}: start `dask scheduler` and `dask worker`, or drop --scheduler"
            ) from error
        self.slots = sum(self._client.nthreads().values())
        self.dashboard: str = self._client.dashboard_link
        if not self.slots:
            self._client.close()
            raise RunError(f"the dask scheduler at {address} has no workers: start `dask worker {address}`")
        self._executor = self._client.get_executor(pure=False, retries=_RETRIES)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` on a worker."""
        future: Future[Any] = self._executor.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the scheduler."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()


def processes_for(device: str) -> int:
    """How many processes may share a torch device: one, unless it is the CPU.

    Raises:
        RunError: there is no such device.
    """
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # AssertionError: torch was built without CUDA
        foreign = isinstance(error, (NotImplementedError, ImportError))  # whose words are a page, or name no device
        reason = "this PyTorch cannot compute on it" if foreign else first_line(error)
        raise RunError(
            f"the device {device!r} cannot be used ({reason}): name another or leave --device out"
        ) from error
    return available_cores() if torch.device(device).type == "cpu" else 1


def make_executor(workers: int, scheduler: str | None = None) -> Executor:
    """A pool of `workers` processes, none of which outlives this one; 0 runs everything in this process.

    Args:
        workers: number of processes.
        scheduler: address of a dask scheduler whose workers are used instead.
    """
    if scheduler is not None:
        return ClusterExecutor(scheduler)
    if workers == 0:
        return SerialExecutor()
    return ProcessPoolExecutor(workers, mp_context=start_context(), initializer=_start_worker)


def map_all(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, scheduler: str | None = None
) -> Iterator[Any]:
    """The results of `function` in the order of `items`; what a dying pool leaves undone is done in this process."""
    done = 0
    try:
        with make_executor(workers, scheduler) as executor:
            for result in executor.map(function, items):
                yield result
                done += 1
    except BrokenProcessPool:
        yield from map(function, items[done:])


def start_context() -> BaseContext:
    """How workers are started; where that is a fork server, it begins to import at once, beside what follows here."""
    # Never fork: threads of libraries that are loaded here would be copied half alive.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lessismore_transforms.pipeline.preload"])
    forkserver.ensure_running()
    return context


def _start_worker() -> None:
    # Work is spread over processes: threads of torch, which is imported later if at all, would only get in their way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends the pool
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
