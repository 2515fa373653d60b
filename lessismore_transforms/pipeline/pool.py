"""Tasks spread over processes; one that kills its process costs the others nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.pipeline.executors import make_executor
from lessismore_transforms.pipeline.task import Task
from lessismore_transforms.pipeline.volume_task import reduce_volume

_DEATHS = 2  # how often the process of a volume may die, alone, before the volume counts as broken


def run_tasks(
    tasks: Sequence[Task], workers: int, scheduler: str | None = None
) -> Iterator[tuple[Task, BaseException | None]]:
    """Run the tasks in any order and yield each with its error.

    When a worker process dies, the tasks that were under way are set aside and run one by one at the end, so that
    the one that kills its process is found and costs the others nothing.
    """
    waiting = deque(tasks)
    suspects: list[Task] = []
    while waiting:
        flying: dict[Future[int], Task] = {}
        executor = make_executor(workers, scheduler)
        try:
            while waiting or flying:
                while waiting and len(flying) <= workers:
                    flying[executor.submit(reduce_volume, waiting[0])] = waiting[0]
                    waiting.popleft()
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    task = flying.pop(future)
                    if type(error).__name__ == "KilledWorker":  # of dask, which need not be installed
                        error = VolumeError(f"{task.volume.path}: it killed one worker of the cluster after another")
                    yield task, error
        except BrokenProcessPool:
            suspects += flying.values()
        finally:
            executor.shutdown(cancel_futures=True)
    for task in suspects:
        yield task, _run_alone(task)


def _run_alone(task: Task) -> BaseException | None:
    """The error of a task that has a process of its own."""
    for _ in range(_DEATHS):
        with make_executor(1) as executor:
            error = executor.submit(reduce_volume, task).exception()
        if not isinstance(error, BrokenProcessPool):
            return error
    return VolumeError(
        f"{task.volume.path}: its process died {_DEATHS + 1} times: killed, out of memory, or started from a script "
        'without `if __name__ == "__main__":`'
    )
