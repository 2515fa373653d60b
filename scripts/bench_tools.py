"""What the parts of the benchmark share: sizes, rows of the table, data, timing, what the reader sees."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
SIZE = 512  # rows and columns

Pictures = npt.NDArray[np.uint8]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sizes:
    """How much is timed.

    Args:
        slices: of P1 and P2.
        pngs: PNG files of P3.
        long: slices of P11's long volume.
        rounds: of whole processes.
        volumes: real volumes for P5 and P6, the smallest first.
        oracle: slices in a row, from the middle of a volume, of which all pairs are compared with the reference.
        loop_s: seconds that the reference loop of P7 gets.
        tuples: slices of P8's volume where memory is traced, which slows a program down.
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
class Row:
    """A line of the table; `met` and `equal` are None where there is no goal or nothing to compare."""

    goal: str
    step: str
    reference: str
    ours: str
    ratio: float | None = None
    wanted: str = ""
    met: bool | None = None
    equal: bool | None = None


@dataclass(frozen=True)
class Bench:
    """What every measurement needs: sizes, a folder to work in, volumes as .nii.gz files; and where costs go.

    `costs` are seconds of one core by name, for the plan.
    """

    sizes: Sizes
    work: Path
    volumes: list[Path]
    costs: dict[str, float] = field(default_factory=dict)

    def new(self, name: str) -> Path:
        """A folder of this name that does not exist, what was there before is gone."""
        shutil.rmtree(self.work / name, ignore_errors=True)
        return self.work / name


# Timing.


def timed(command: Sequence[str]) -> float:
    """Wall time in seconds of a command that has to succeed; its output is shown only if it does not."""
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed:\n{done.stdout}{done.stderr}")
    return seconds


def cpu_timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """What a call on one thread returns, and its seconds of processor time, which other programs hardly change."""
    begin = time.process_time()
    result = call()
    return result, time.process_time() - begin


def comparison(
    goal: str,
    step: str,
    reference: Sequence[float],
    ours: Sequence[float],
    count: int,
    wanted: int | None,
    equal: bool | None,
) -> Row:
    """A row of two lists of times in seconds, pair by pair, for `count` slices."""
    ratio = statistics.median(a / b for a, b in zip(reference, ours, strict=True))

    def show(seconds: Sequence[float]) -> str:
        middle = statistics.median(seconds)
        return f"{middle:.2f} s, {1000 * middle / count:.3f} ms each"

    met = None if wanted is None else ratio >= wanted
    return Row(goal, step, show(reference), show(ours), ratio, "" if wanted is None else f">= {wanted}x", met, equal)


def comparison_each(
    goal: str,
    step: str,
    reference: Sequence[float],
    ours: Sequence[float],
    wanted: float | None,
    equal: bool | None,
) -> Row:
    """A row of two lists of seconds for one slice or pair, round by round."""
    ratio = statistics.median(a / b for a, b in zip(reference, ours, strict=True))
    met = None if wanted is None else ratio >= wanted
    goal_text = "" if wanted is None else f">= {wanted:g}x"
    return Row(goal, step, duration(reference), duration(ours), ratio, goal_text, met, equal)


def duration(seconds: Sequence[float]) -> str:
    """The median, in the unit that suits it."""
    middle = statistics.median(seconds)
    unit, name = next((unit, name) for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "us")) if middle >= unit)
    return f"{middle / unit:.3g} {name}"


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
    """A volume as the measures see it: 8 bit, slice by slice, uint8 (S, H, W)."""
    from lessismore_transforms.reduction.intensity import min_max_uint8

    return min_max_uint8(nifti_slices(path))


# What the reader sees.

_BEGIN = time.perf_counter()


def say(message: str) -> None:
    """Progress, on the error stream."""
    print(f"[{time.perf_counter() - _BEGIN:6.1f} s] {message}", file=sys.stderr, flush=True)


def describe(sizes: Sizes) -> dict[str, Any]:
    """Where and with what the figures were made."""
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
    lines = [("", "step", "reference", "ours", "ratio", "goal", "met", "equal")]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}x"
        lines.append((row.goal, row.step, row.reference, row.ours, ratio, row.wanted, words[row.met], words[row.equal]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
