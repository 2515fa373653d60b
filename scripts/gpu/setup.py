"""What every step gets: device, sizes, folders; and what it gives back: figures, or that it was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Sizes:
    """The amount of data and of work.

    Args:
        volumes: phantom volumes; the six of a full run have a million pairs of slices.
        slices: slices of each.
        size: rows and columns.
        steps: of a training whose speed is measured.
        few_steps: of a training that is compared with another one.
        warm_up: steps at the beginning of a training that are not measured.
        first_batch: pictures of the first step that is compared with the CPU's.
        compared: slices of a volume whose measures are compared with the CPU's.
        images: pictures of a round of reading and views.
        rounds: rounds of reading and views.
        tiny: take small networks and small pictures.
    """

    volumes: int
    slices: int
    size: int
    steps: int
    few_steps: int
    warm_up: int
    first_batch: int
    compared: int
    images: int
    rounds: int
    tiny: bool = False


FULL = Sizes(
    volumes=6,
    slices=600,
    size=512,
    steps=200,
    few_steps=60,
    warm_up=40,
    first_batch=32,
    compared=200,
    images=256,
    rounds=3,
)
QUICK = Sizes(
    volumes=2,
    slices=12,
    size=48,
    steps=4,
    few_steps=4,
    warm_up=1,
    first_batch=8,
    compared=8,
    images=8,
    rounds=1,
    tiny=True,
)


@dataclass(frozen=True)
class Setup:
    """What every step needs.

    Args:
        device: cuda or cpu.
        sizes: the amount of work.
        output_dir: where each step's results lie, `<step>.json`.
        slices: output folder of `reduce` with real slices; None for phantoms.
        covid: folder of the data set COVID-CT; None where it was not given.
    """

    device: str
    sizes: Sizes
    output_dir: Path
    slices: Path | None = None
    covid: Path | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != "cpu"

    @property
    def work(self) -> Path:
        """Folder of what the steps make for themselves, which is no result."""
        return self.output_dir / "work"


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Args:
        what: was measured.
        value: of it.
        wanted: the goal, as text.
        met: whether the goal is met, None where there is none; a goal that is missed is no failure.
        equal: whether a result is as it has to be, None where there is nothing to compare; False is a failure.
    """

    what: str
    value: str
    wanted: str = ""
    met: bool | None = None
    equal: bool | None = None


class LeftOut(Exception):  # noqa: N818  it is no error
    """A part cannot run here; the message says why."""


Part = Callable[[Setup], Iterator[Figure]]
