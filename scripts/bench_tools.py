"""Common parts of the benchmarks: sizes, rows of the table, data, timing, output."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from lessismore_transforms.wording import aligned

ROOT = Path(__file__).resolve().parents[1]
SIZE = 512  # rows and columns

Pictures = npt.NDArray[np.uint8]
Result = TypeVar("Result")
Clock: TypeAlias = Literal["wall", "cpu"]
CLOCKS: dict[Clock, str] = {"wall": "wall", "cpu": "CPU"}  # as the table writes them


@dataclass(frozen=True)
class Sizes:
    """The amount of data and the number of rounds.

    Args:
        slices: slices of P1 and P2.
        pngs: PNG files of P3.
        long: slices of the long volume of P11.
        rounds: rounds of whole processes.
        volumes: number of real volumes for P5 and P6, the smallest first.
        oracle: slices in a row, from the middle of a volume, of which all pairs are compared with the reference.
        loop_s: seconds for the reference loop of P7.
        tuples: slices of P8's volume where memory is traced, which makes a program slow.
        images: pictures of P9.
    """

    slices: int
    pngs: int
    long: int
    rounds: int
    volumes: int
    oracle: int
    loop_s: float
    tuples: int
    images: int


FULL = Sizes(
    slices=10_000, pngs=10_000, long=2_000, rounds=3, volumes=2, oracle=1000, loop_s=30, tuples=2000, images=64
)
QUICK = Sizes(slices=800, pngs=500, long=200, rounds=1, volumes=1, oracle=16, loop_s=3, tuples=1000, images=8)


@dataclass(frozen=True)
class Times:
    """Seconds that something took.

    Args:
        wall: by the clock on the wall, which other work on the machine makes longer.
        cpu: of processor time, user and system, child processes included, which other work hardly changes.
    """

    wall: float
    cpu: float

    def __truediv__(self, count: float) -> Times:
        """The times of one of `count` parts."""
        return Times(self.wall / count, self.cpu / count)


@dataclass(frozen=True)
class Row:
    """A line of the table; `met` and `equal` are None where there is no goal or nothing to compare.

    Args:
        goal: its number.
        step: what was measured.
        reference: the time of the other way, as text.
        ours: our time, as text.
        wall_ratio: how much more wall time the other way takes.
        cpu_ratio: how much more processor time it takes.
        wanted: the goal, as text.
        met: whether it is met.
        equal: whether both ways gave the same.
    """

    goal: str
    step: str
    reference: str
    ours: str
    wall_ratio: float | None = None
    cpu_ratio: float | None = None
    wanted: str = ""
    met: bool | None = None
    equal: bool | None = None

    def __str__(self) -> str:
        ratios = ((self.wall_ratio, CLOCKS["wall"]), (self.cpu_ratio, CLOCKS["cpu"]))
        shown = [f"{ratio:.1f}x {clock}" for ratio, clock in ratios if ratio is not None]
        return f"{self.goal} {self.step}: {', '.join((self.ours, *shown))}"


@dataclass(frozen=True)
class Bench:
    """Sizes, a folder to work in and volumes (.nii.gz files) for every measurement.

    The measurements add to `costs`, seconds of one core by name, for the plan.
    """

    sizes: Sizes
    work: Path
    volumes: list[Path]
    costs: dict[str, float] = field(default_factory=dict)

    def new(self, name: str) -> Path:
        """The path of a folder of this name that does not exist; an earlier one is removed."""
        shutil.rmtree(self.work / name, ignore_errors=True)
        return self.work / name


# Timing.


def timed(command: Sequence[str]) -> Times:
    """Times of a command that has to succeed; its output is shown only if it does not."""
    adopt_orphans()
    before, stop = set(descendants(os.getpid())), stopwatch()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = stop().wall
    while left := [pid for pid in descendants(os.getpid()) if pid not in before]:
        for pid in left:
            wait_for(pid)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed:\n{done.stdout}{done.stderr}")
    return Times(wall, stop().cpu)


def adopt_orphans() -> None:
    """Become the parent of processes that outlive a command.

    The server that forks the workers of a pool ends after the command itself. Only the times of children are counted,
    so that the workers' times would be lost.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def wait_for(pid: int) -> None:
    """Wait for the end of a child; a process below a child is left to its own parent."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def measured(call: Callable[[], Result]) -> tuple[Result, Times]:
    """What a call returns, and the time it took."""
    stop = stopwatch()
    result = call()
    return result, stop()


def stopwatch() -> Callable[[], Times]:
    """Start to measure; the function returned gives the times since then, as often as it is called."""
    children = children_s()  # first, and last below: looking through processes takes time of its own
    processor, wall = time.process_time(), time.perf_counter()

    def elapsed() -> Times:
        wall_s, processor_s = time.perf_counter() - wall, time.process_time() - processor
        return Times(wall_s, processor_s + children_s() - children)

    return elapsed


def children_s() -> float:
    """Processor seconds (user and system) of all child processes, those that ended and those that still run."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(map(process_s, descendants(os.getpid())[1:]))
    return ended.ru_utime + ended.ru_stime + running


def process_s(pid: int) -> float:
    """Processor seconds (user and system) of a process and of its children that ended, from /proc."""
    try:
        numbers = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:  # ended meanwhile
        return 0.0
    return sum(map(int, numbers[11:15])) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """A process and all below it that run."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # ended meanwhile
                continue
    return found


# Ratios.


def comparison(
    goal: str,
    step: str,
    reference: Sequence[Times],
    ours: Sequence[Times],
    *,
    wanted: float | None = None,
    equal: bool | None = None,
    judged_by: Clock = "cpu",
    show: Callable[[float], str] | None = None,
) -> Row:
    """A row of two lists of times, round by round: the ratios of wall time and of processor time.

    Args:
        goal: number of the goal.
        step: what was timed.
        reference: times of the other way.
        ours: times of our way, of as many rounds.
        wanted: the ratio that is the goal, None where there is none.
        equal: whether both gave the same, None where there is nothing to compare.
        judged_by: the clock whose times are shown, and whose ratio is compared with the goal.
        show: turns the median of the seconds into text; `duration` by default.
    """
    ratios = {
        clock: statistics.median(getattr(a, clock) / getattr(b, clock) for a, b in zip(reference, ours, strict=True))
        for clock in ("wall", "cpu")
    }
    met = None if wanted is None else ratios[judged_by] >= wanted
    goal_text = "" if wanted is None else f">= {wanted:g}x {CLOCKS[judged_by]}"
    texts = ((show or duration)(median_s(times, judged_by)) for times in (reference, ours))
    return Row(goal, step, *texts, ratios["wall"], ratios["cpu"], goal_text, met, equal)


def median_s(times: Sequence[Times], clock: Clock = "cpu") -> float:
    """The median of one clock's seconds."""
    return statistics.median(getattr(each, clock) for each in times)


def for_slices(count: int) -> Callable[[float], str]:
    """Text of the seconds that `count` slices took together."""
    return lambda seconds: f"{seconds:.2f} s, {1000 * seconds / count:.3f} ms each"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    unit, name = next((unit, name) for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "us")) if seconds >= unit)
    return f"{seconds / unit:.3g} {name}"


# Data.


def find_volumes(work: Path) -> list[Path]:
    """The real volumes whose slices have 512 x 512 pixels, or two phantoms of that size."""
    data = Path(os.environ.get("LESSISMORE_TEST_DATA", ROOT.parent / "shared" / "data"))
    paths = [
        path.resolve() for path in sorted((data / "ct").rglob("*.nii.gz")) if nifti_shape(path)[:2] == (SIZE, SIZE)
    ]
    if not paths:
        from lessismore_transforms.phantom import phantom_scan, write_nifti

        say(f"no real volumes below {data}: phantoms take their place")
        paths = [
            write_nifti(phantom_scan(seed, slices=80, size=SIZE), work / f"phantom_{seed}.nii.gz") for seed in (0, 1)
        ]
    say(f"volumes: {', '.join(path.name for path in paths)}")
    return paths


def nifti_shape(path: Path) -> tuple[int, ...]:
    import nibabel

    shape: tuple[int, ...] = nibabel.load(path).shape
    return shape


def nifti_slices(path: Path) -> npt.NDArray[np.int16]:
    """A volume as stored, (slices, rows, columns)."""
    import nibabel

    return np.ascontiguousarray(np.asarray(nibabel.load(path).dataobj).astype(np.int16).transpose(2, 1, 0))


def pictures_of(path: Path) -> Pictures:
    """A volume as the input of the measures: 8 bit, slice by slice, uint8 (S, H, W)."""
    from lessismore_transforms.reduction.intensity import min_max_uint8

    return min_max_uint8(nifti_slices(path))


# Output.

_BEGIN = time.perf_counter()


def say(message: str) -> None:
    """Print a line of progress on the error stream."""
    print(f"[{time.perf_counter() - _BEGIN:6.1f} s] {message}", file=sys.stderr, flush=True)


def describe(sizes: Sizes) -> dict[str, Any]:
    """The machine, the packages and the sizes of this run."""
    packages = ("numpy", "numba", "isal", "nibabel", "pydicom", "pillow", "opencv-python-headless", "torch")
    return {
        "slices": sizes.slices,
        "rounds": sizes.rounds,
        "load before": f"{os.getloadavg()[0]:.1f}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def table(rows: Iterable[Row]) -> str:
    """The rows as text in columns."""
    words = {True: "yes", False: "NO", None: ""}
    lines = [("", "step", "reference", "ours", "wall", "CPU", "goal", "met", "equal")]
    for row in rows:
        ratios = ("" if ratio is None else f"{ratio:.1f}x" for ratio in (row.wall_ratio, row.cpu_ratio))
        answers = (words[row.met], words[row.equal])
        lines.append((row.goal, row.step, row.reference, row.ours, *ratios, row.wanted, *answers))
    return aligned(lines, left=len(lines[0]))


def reported(rows: Iterable[Row]) -> list[Row]:
    """The rows, each said when it is there."""
    found = []
    for row in rows:
        say(str(row))
        found.append(row)
    return found


def conclude(rows: Sequence[Row], about: dict[str, Any], file: Path | None, *, below: str = "", **more: Any) -> int:
    """Print the table and what it was measured on, and write both as JSON; the exit code, 1 where results differ."""
    about["load after"] = f"{os.getloadavg()[0]:.1f}"
    print("\n" + ", ".join(f"{name} {value}" for name, value in about.items()) + "\n")
    print(table(rows))
    if below:
        print(f"\n{below}")
    if file:
        file.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows], **more}, indent=1) + "\n")
    return 1 if any(row.equal is False for row in rows) else 0
