"""Time and cost for larger data and more machines: the costs measured in this run times the sizes of the data sets.

The assumptions are constants below. Volumes are independent tasks of one core each, so n cores take one n-th of the
time if the storage is fast enough. All volumes of a set have its mean number of slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_pipeline import as_scan
from bench_tools import Bench, measured, median_s, nifti_slices, pictures_of, say

CORE_HOUR = 0.04  # dollars
H200_HOUR = 4.00  # dollars
# Estimates, nothing of it measured, reading not included: eager torch for SSIM, products of one-hot codes for MI.
H200_PAIR_S = {"SSIM, all pairs": 3600 / 1.65e8, "MI, 64 bins": 360 / 1.65e8}
H200_SLICE_S = {"DeepNet, float32": 1 / 8000}
CORES = {"2 cores": 2, "64 cores, or 32 workers of 2": 64}
FORMATS = ("DICOM", "NIfTI.gz", "PNG")


@dataclass(frozen=True)
class DataSet:
    """A data set of the projection, and the hours that the paper took for it (RTX 3090; HASH on a CPU)."""

    name: str
    slices: int
    volumes: int
    format: str
    paper_h: dict[str, str]

    @property
    def pairs(self) -> float:
        """Pairs of slices of the same volume, as if all volumes were of the same length."""
        return self.slices**2 / self.volumes / 2


DATA = (
    DataSet(
        "LIDC",
        243_958,
        1_018,
        "DICOM",
        {"HASH": "< 0.5 h", "SSIM, all pairs": "53 h", "MI, 64 bins": "48 h", "DeepNet, float32": "2 h"},
    ),
    DataSet(
        "PET-CT",
        541_439,
        1_014,
        "NIfTI.gz",
        {"HASH": "< 0.5 h", "SSIM, all pairs": "421 h", "MI, 64 bins": "312 h", "DeepNet, float32": "6 h"},
    ),
    DataSet("100 million slices", 100_000_000, 333_333, "DICOM", {}),
)


@dataclass(frozen=True)
class Costs:
    """Seconds of one core, and bytes, as measured in this run."""

    slice_s: dict[str, float]  # by format: find, read, hash, store
    slice_bytes: dict[str, float]
    pair_s: dict[str, float]  # by measure, "cosine" included
    embed_s: float  # a slice


def plan(bench: Bench) -> str:
    """The projection as Markdown; `bench.costs` has to hold the costs of P5 and P6."""
    costs = measure(bench)
    prices = f"A core hour is taken as ${CORE_HOUR:.2f}, an H200 hour as ${H200_HOUR:.2f}."
    return "\n\n".join((measured_table(costs), data_table(costs), projection(costs), prices))


def measure(bench: Bench) -> Costs:
    """The costs that the goals do not measure: reading by format, embedding on one thread, cosines."""
    slice_s, slice_bytes = {}, {}
    for kind in FORMATS:
        say(f"plan: reading {kind}")
        slice_s[kind], slice_bytes[kind] = reading_cost(bench, kind)
    pair_s = {
        "SSIM, all pairs": bench.costs["ssim"],
        "SSIM, lazily to 10 %": bench.costs["ssim lazily"],
        "MI, 64 bins": bench.costs["nmi 64"],
        "MI, 256 bins": bench.costs["nmi 256"],
        "cosine": cosine_cost(),
    }
    costs = Costs(slice_s, slice_bytes, pair_s, embedding_cost(bench))
    bench.costs.update({f"read {kind}": seconds for kind, seconds in slice_s.items()})
    bench.costs.update({"cosine": pair_s["cosine"], "embed": costs.embed_s})
    return costs


def reading_cost(bench: Bench, kind: str) -> tuple[float, float]:
    """Seconds and bytes of a slice of a format."""
    dataset = bench.new("plan")
    slices = write_dataset(bench, kind, dataset)
    size = sum(path.stat().st_size for path in dataset.rglob("*") if path.is_file())
    times = [measured(lambda: read_and_hash(bench, dataset))[1] for _ in range(4)][1:]  # the first warms up
    return median_s(times) / slices, size / slices


def write_dataset(bench: Bench, kind: str, dataset: Path) -> int:
    """The benchmark's volumes in a format, a folder for each; returns the number of slices."""
    from PIL import Image

    from lessismore_transforms.phantom import write_dicom

    slices = 0
    for number, path in enumerate(bench.volumes):
        study = dataset / f"LIDC-IDRI-{number:04d}" / "study"
        study.mkdir(parents=True)
        pictures = pictures_of(path)
        slices += len(pictures)
        if kind == "DICOM":
            write_dicom(as_scan(study.parent.name, nifti_slices(path)), study / "series")
        elif kind == "NIfTI.gz":
            (study / "CT.nii.gz").write_bytes(path.read_bytes())
        else:
            for index, picture in enumerate(pictures):
                Image.fromarray(picture).save(study / f"{study.parent.name}_{index}.png", compress_level=1)
    return slices


def read_and_hash(bench: Bench, dataset: Path) -> None:
    """Find, read, hash, rank and store on one core, in this process; no report."""
    from lessismore_transforms.pipeline.output_folder import PARTS
    from lessismore_transforms.pipeline.settings import Settings
    from lessismore_transforms.pipeline.task import Task
    from lessismore_transforms.pipeline.volume_task import reduce_volume
    from lessismore_transforms.reduced.store import THUMBNAILS
    from lessismore_transforms.volumes import find_volumes

    out = bench.new("plan_out")
    for folder in (PARTS, THUMBNAILS):
        (out / folder).mkdir(parents=True)
    for volume in find_volumes(dataset).volumes:
        reduce_volume(Task(volume, dataset, out, Settings(), "patient", False, None, "", 0))


def cosine_cost() -> float:
    """Seconds for a pair of features of a ResNet50, in a volume of PET-CT's mean length."""
    import torch

    from lessismore_transforms.reduction.embedding import cosine_matrix

    torch.set_num_threads(1)
    count = 534
    features: npt.NDArray[np.float32] = np.random.default_rng(0).normal(size=(count, 2048)).astype(np.float32)
    return min(measured(lambda: cosine_matrix(features))[1].cpu for _ in range(3)) / (count * (count - 1) / 2)


def embedding_cost(bench: Bench) -> float:
    """Seconds for a slice on one thread."""
    import torch

    from lessismore_transforms.reduction.embedding import embed
    from lessismore_transforms.weights.backbones import build_backbone, to_encoder

    say("plan: embedding")
    torch.set_num_threads(1)
    encoder = to_encoder(build_backbone(weights="random"))
    pictures = pictures_of(bench.volumes[0])[:16]
    embed(pictures[:4], encoder)
    return median_s([measured(lambda: embed(pictures, encoder))[1] for _ in range(3)]) / len(pictures)


def measured_table(costs: Costs) -> str:
    """The costs measured, for one core."""
    reading = [
        (f"find, read, hash and store a slice, {kind}", f"{1000 * costs.slice_s[kind]:.2f} ms") for kind in FORMATS
    ]
    pairs = [(f"{name}, a pair", f"{1e6 * seconds:.3g} us") for name, seconds in costs.pair_s.items()]
    embedding = ("DeepNet, float32, a slice", f"{1000 * costs.embed_s:.0f} ms")
    return markdown(("step", "one core"), [*reading, *pairs, embedding])


def data_table(costs: Costs) -> str:
    """The sizes of the data sets."""
    rows = []
    for data in DATA:
        size = data.slices * costs.slice_bytes[data.format]
        rate = size / (work(costs, data)["HASH"] / max(CORES.values()))
        rows.append(
            (
                f"{data.name} ({data.format})",
                f"{data.slices:,}",
                f"{data.volumes:,}",
                f"{data.pairs:.3g}",
                f"{size / 1e12:.2g} TB",
                hours(size / 1e9 / 3600),
                f"{rate / 1e9:.1f} GB/s",
            )
        )
    title = ("data set", "slices", "volumes", "pairs", "to read", "at 1 GB/s", f"to feed {max(CORES.values())} cores")
    return markdown(title, rows)


def work(costs: Costs, data: DataSet) -> dict[str, float]:
    """Seconds of one core by measure; every measure reads, hashes and stores."""
    read = data.slices * costs.slice_s[data.format]
    by_pair = {name: read + data.pairs * seconds for name, seconds in costs.pair_s.items() if name != "cosine"}
    deepnet = read + data.slices * costs.embed_s + data.pairs * costs.pair_s["cosine"]
    return {"HASH": read, **by_pair, "DeepNet, float32": deepnet}


def projection(costs: Costs) -> str:
    """Hours and dollars for each data set, measure and number of machines."""
    rows = []
    for data in DATA:
        for name, seconds in work(costs, data).items():
            core_hours = seconds / 3600
            spans = [math.ceil(data.volumes / cores) / data.volumes * core_hours for cores in CORES.values()]
            card = data.pairs * H200_PAIR_S.get(name, 0) + data.slices * H200_SLICE_S.get(name, 0)
            rows.append(
                (
                    data.name,
                    name,
                    data.paper_h.get(name, ""),
                    *map(hours, spans),
                    dollars(core_hours * CORE_HOUR),
                    hours(card / 3600) if card else "",
                    dollars(card / 3600 * H200_HOUR) if card else "",
                )
            )
    title = ("data set", "measure", "paper", *CORES, "cost", "one H200, not measured", "its cost")
    return markdown(title, rows)


def hours(value: float) -> str:
    """A time in the unit that suits it."""
    if value < 1:
        return f"{60 * value:.0f} min" if value > 2 / 60 else f"{3600 * value:.0f} s"
    return f"{value:.1f} h" if value < 100 else f"{value / 24:,.0f} days"


def dollars(value: float) -> str:
    return "< $0.01" if value < 0.01 else f"${value:,.2f}" if value < 100 else f"${value:,.0f}"


def markdown(title: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table as Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (title, ("---",) * len(title), *rows))
