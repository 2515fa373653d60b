"""Time the reading and the views of a pre-training, and a SwAV step, beside the released style and other libraries.

    python scripts/bench_pretraining.py --quick                       # a ResNet18, about two minutes on two idle cores
    python scripts/bench_pretraining.py --device cuda --profile       # a ResNet50 at batch 128, and its bottleneck

Released style: PNG files, decoded to RGB, eight crops by Pillow and torchvision in worker processes, float32. Ours:
slices from the store, views made in batch on the device, bfloat16 and channels_last in the step. On a CPU all is
timed on one core, without workers, all sides in turn (A B A B ...); on a GPU the step takes all cores. A ratio is the
median of its rounds, a rate the median of its runs. Beside the ratio of wall time stands that of CPU time (user and
system, loader workers included), by which the goals on a CPU are judged. Slices are the real ones of
LESSISMORE_TEST_DATA/ct of 512 x 512, or phantoms where that folder is absent. Exit code 1 where results differ; times
never fail.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_tools import (
    FULL,
    QUICK,
    ROOT,
    Row,
    Times,
    comparison,
    conclude,
    describe,
    find_volumes,
    measured,
    say,
    stopwatch,
)
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as tv
from torchvision.transforms import v2

from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.pretraining.loader import SliceBatches
from lessismore_transforms.pretraining.views import View, Views
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.training.loader import StepLoader, StepSampler
from lessismore_transforms.weights.backbones import build_backbone, feature_size

MEAN, STD = 0.1806, 0.1907
KINDS = (View(224, 2, scale=(0.9, 1.0), hue=0.2, grayscale=0.2), View(96, 6, scale=(0.1, 0.33), hue=0.2, grayscale=0.2))


@dataclass(frozen=True)
class Run:
    """What every measurement needs.

    Args:
        dataset: slices from the store.
        pngs: the same slices as files.
        images: number of slices of a round.
        rounds: number of rounds of reading and of views.
        steps: number of steps in a round of training; three rounds are timed.
        options: the command line.
    """

    dataset: SliceSelectionDataset
    pngs: list[Path]
    images: int
    rounds: int
    steps: int
    options: argparse.Namespace


# The released style.


class Blur:
    """Pillow's Gaussian blur of a random radius."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Blur a picture."""
        return picture.filter(ImageFilter.GaussianBlur(float(np.random.uniform(0.1, 2.0))))


def released_crop(view: View) -> Callable[[Image.Image], Tensor]:
    """One crop by Pillow and torchvision, in colour."""
    return tv.Compose(
        [
            tv.RandomResizedCrop(view.size, scale=view.scale),
            tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.2, 0.2)], p=0.8),
            tv.RandomGrayscale(p=0.2),
            tv.RandomApply([Blur()], p=0.5),
            tv.ToTensor(),
            tv.Normalize([MEAN] * 3, [STD] * 3),
        ]
    )


class ReleasedStyle(Dataset[list[Tensor]]):
    """PNG files to lists of crops; `transform` makes them of an RGB picture."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], list[Tensor]] | None = None) -> None:
        self.paths, self.transform = paths, transform
        self.crops = [released_crop(view) for view in KINDS for _ in range(view.count)]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> list[Tensor]:
        picture = Image.open(self.paths[index]).convert("RGB")
        return self.transform(picture) if self.transform else [crop(picture) for crop in self.crops]


# Reading and views, on one core.


def ours(run: Run, number: int) -> list[Tensor]:
    """Read a batch from the store and make its views."""
    batch = read_batch(run, number)
    return Views(KINDS, [MEAN], [STD])(batch["image"], batch["size"], step=number)


def read_batch(run: Run, number: int) -> dict[str, Any]:
    count = run.options.batch_size
    indices = [i % len(run.dataset) for i in range(number * count, (number + 1) * count)]
    return SliceBatches(run.dataset).__getitems__((number, indices))


def one_by_one(run: Run, number: int, make: Callable[[int], object]) -> None:
    """Make the item of each slice of a batch, one by one."""
    count = run.options.batch_size
    for i in range(number * count, (number + 1) * count):
        make(i % len(run.dataset))


def others(run: Run) -> dict[str, Callable[[int], object]]:
    """Ways to read a batch and make its eight views, by name: the released style and the packages installed."""
    ways: dict[str, Callable[[int], object]] = {}
    released = ReleasedStyle(run.pngs)
    ways["released style"] = lambda number: one_by_one(run, number, released.__getitem__)
    if installed("lightly"):
        lightly = ReleasedStyle(run.pngs, lightly_transform())
        ways["lightly, PNG"] = lambda number: one_by_one(run, number, lightly.__getitem__)
    grey = [grey_crop(view) for view in KINDS for _ in range(view.count)]

    def from_store(index: int) -> list[Tensor]:
        image = torch.from_numpy(run.dataset[index]["image"])
        return [crop(image) for crop in grey]

    ways["torchvision v2, one channel, store"] = lambda number: one_by_one(run, number, from_store)
    if installed("kornia"):
        crops = kornia_crops()
        ways["kornia, one channel, store"] = lambda number: kornia_views(crops, read_batch(run, number)["image"])
    return ways


def grey_crop(view: View) -> Callable[[Tensor], Tensor]:
    return v2.Compose(
        [
            v2.RandomResizedCrop(view.size, scale=view.scale, antialias=True),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4)], p=0.8),
            v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], p=0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([MEAN], [STD]),
        ]
    )


def lightly_transform() -> Callable[[Image.Image], list[Tensor]]:
    from lightly.transforms import SwaVTransform

    return SwaVTransform(
        crop_min_scales=(KINDS[0].scale[0], KINDS[1].scale[0]),
        crop_max_scales=(KINDS[0].scale[1], KINDS[1].scale[1]),
        hf_prob=0.0,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.2,
        cj_hue=0.2,
        normalize={"mean": [MEAN] * 3, "std": [STD] * 3},
    )


def kornia_crops() -> list[nn.Module]:
    """Eight crops by kornia: without antialiasing; brightness and contrast apart, as its jitter needs colour."""
    from kornia import augmentation as kornia

    return [
        nn.Sequential(
            kornia.RandomResizedCrop((view.size, view.size), scale=view.scale),
            kornia.RandomBrightness((0.6, 1.4), p=0.8),
            kornia.RandomContrast((0.6, 1.4), p=0.8),
            kornia.RandomGaussianBlur((13, 13), (0.1, 2.0), p=0.5),
            kornia.Normalize([MEAN], [STD]),
        )
        for view in KINDS
        for _ in range(view.count)
    ]


def kornia_views(crops: list[nn.Module], images: Tensor) -> list[Tensor]:
    pictures = images.float() / 255
    return [crop(pictures) for crop in crops]


def installed(name: str) -> bool:
    """Whether an optional package is installed; prints a line if it is not."""
    there = importlib.util.find_spec(name) is not None
    if not there:
        say(f"{name} is not installed: left out")
    return there


def reading(run: Run) -> Iterator[Row]:
    """Slices from the store, one by one and as finished batches, beside decoding PNG files."""
    decoded = sorted(np.asarray(Image.open(path)).tobytes() for path in run.pngs)
    equal = decoded == sorted(run.dataset[i]["image"].tobytes() for i in range(len(run.dataset)))
    pngs = Alternative(run, lambda number: one_by_one(run, number, lambda i: np.asarray(Image.open(run.pngs[i]))))
    slices = Alternative(run, lambda number: one_by_one(run, number, run.dataset.__getitem__))
    batches = Alternative(run, lambda number: read_batch(run, number))
    take_turns(pngs, slices, batches)
    for step, way in (("slices of the store", slices), ("batches of the store", batches)):
        yield comparison("P10", f"{step} : PNG decode", pngs.times, way.times, wanted=20, equal=equal, show=rate)


def viewing(run: Run) -> Iterator[Row]:
    """Reading and eight views on one core, beside others."""
    equal = views_equal_pillow(run)
    mine = Alternative(run, lambda number: ours(run, number))
    ways = {name: Alternative(run, way) for name, way in others(run).items()}
    take_turns(mine, *ways.values())
    for name, way in ways.items():
        wanted, same = (5, equal) if name == "released style" else (None, None)
        step = f"store + 8 views : {name}"
        yield comparison("P10", step, way.times, mine.times, wanted=wanted, equal=same, show=rate)
    if run.options.device == "cuda" and installed("kornia"):
        yield views_on_gpu(run)


def views_on_gpu(run: Run) -> Row:
    """Eight views of slices that lie on the GPU, beside kornia."""
    batch, views, crops = read_batch(run, 0), Views(KINDS, [MEAN], [STD]), kornia_crops()
    images = batch["image"].cuda()
    calls = (lambda step: kornia_views(crops, images), lambda step: views(images, batch["size"], step=step))
    times: tuple[list[Times], list[Times]] = ([], [])
    for number in range(-1, run.rounds):  # the first round warms up
        for call, taken in zip(calls, times, strict=True):
            torch.cuda.synchronize()
            stop = stopwatch()
            call(number + 2)
            torch.cuda.synchronize()
            taken.append(stop() / len(images))
    reference, ours = (taken[1:] for taken in times)
    return comparison("G3", "8 views on the GPU : kornia", reference, ours, judged_by="wall", show=rate)


def views_equal_pillow(run: Run) -> bool:
    """Whether the crops are Pillow's for the same boxes, up to its rounding to grey levels."""
    batch = read_batch(run, 0)
    views = Views([replace(kind, jitter=0.0, blur=0.0) for kind in KINDS], [0.0], [1 / 255])
    drawn = views.draw(batch["size"], step=1)
    made = iter(views.apply(batch["image"], drawn))
    worst = 0.0
    for kind, parameters in zip(KINDS, drawn, strict=True):
        for number in range(kind.count):
            for i, view in enumerate(next(made)):
                top, left, height, width = parameters.box[i * kind.count + number].tolist()
                cut = Image.fromarray(batch["image"][i, 0, top : top + height, left : left + width].numpy())
                resized = np.asarray(cut.resize((kind.size, kind.size), Image.Resampling.BILINEAR))
                worst = max(worst, float(np.abs(resized - view[0].numpy()).max()))
    return worst < 1.01


class Alternative:
    """A way to treat batches, with its times per image, round by round."""

    def __init__(self, run: Run, call: Callable[[int], object]) -> None:
        self.run, self.call, self.times = run, call, list[Times]()
        call(0)

    def round(self, number: int) -> None:
        """Time the batches of a round."""
        batches = max(1, self.run.images // self.run.options.batch_size)
        _, times = measured(lambda: [self.call(number * batches + i) for i in range(batches)])
        self.times.append(times / batches / self.run.options.batch_size)


def take_turns(*ways: Alternative) -> None:
    for number in range(ways[0].run.rounds):
        for way in ways:
            way.round(number)


def rate(seconds: float) -> str:
    """Images per second of a time per image."""
    return f"{1 / seconds:.0f} images/s, {1000 * seconds:.3g} ms"


# The step.


class Ours:
    """Store, views on the device, SwAV in bfloat16 and channels_last."""

    def __init__(self, run: Run) -> None:
        options, self.device = run.options, torch.device(run.options.device)
        count, batch = len(run.dataset), options.batch_size
        sampler = StepSampler(count, batch, 10**6, batches_per_epoch=count // batch)
        on_gpu = self.device.type == "cuda"
        self.batches = iter(StepLoader(SliceBatches(run.dataset), sampler, workers=options.workers, pin_memory=on_gpu))
        self.views = Views(KINDS, [MEAN], [STD])
        self.network, self.loss = swav(options.backbone)
        self.network.to(device=self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-3)
        self.view_seconds: list[Callable[[], float]] = []

    def step(self) -> None:
        """Read, make views, train."""
        batch = next(self.batches)
        images = batch["image"].to(self.device, non_blocking=True)
        stop = device_stopwatch(self.device)
        views = self.views(images, batch["size"], step=batch["step"])
        self.view_seconds.append(stop())
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.loss(self.network(views))
        update(loss, self.optimizer)


class Released:
    """PNG decode, Pillow and torchvision in workers, the same network in float32."""

    def __init__(self, run: Run, transform: Callable[[Image.Image], list[Tensor]] | None = None) -> None:
        self.device = torch.device(run.options.device)
        self.batches = self.stream(run, ReleasedStyle(run.pngs, transform))
        self.network, self.loss = self.method(run.options.backbone)
        self.network.to(self.device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-3)

    def stream(self, run: Run, dataset: ReleasedStyle) -> Iterator[list[Tensor]]:
        """Batches without end; the epochs are as long as the run, so that workers start once."""
        batch = run.options.batch_size
        dataset.paths = dataset.paths * (1 + (run.steps + 10) * batch // len(dataset.paths))
        return iter(
            DataLoader(
                dataset,
                batch_size=batch,
                shuffle=True,
                num_workers=run.options.workers,
                drop_last=True,
                pin_memory=self.device.type == "cuda",
            )
        )

    def method(self, backbone: str) -> tuple[nn.Module, nn.Module]:
        """Network and loss."""
        return swav(backbone)

    def step(self) -> None:
        """Read views, train."""
        views = [view.to(self.device, non_blocking=True) for view in next(self.batches)]
        update(self.loss(self.network(views)), self.optimizer)


class Lightly(Released):
    """The same data flow with lightly's transform, and its SwAV as its example puts it together."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, lightly_transform())

    def method(self, backbone: str) -> tuple[nn.Module, nn.Module]:
        """Network and loss."""
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

        encoder = build_backbone(backbone, weights="random").train()
        head = SwaVProjectionHead(feature_size(encoder), 2048, 128)
        return nn.ModuleDict({"encoder": encoder, "head": head, "prototypes": SwaVPrototypes(128, 500)}), SwaVLoss()

    def step(self) -> None:
        """Read views, train."""
        views = [view.to(self.device, non_blocking=True) for view in next(self.batches)]
        encoder, head, prototypes = self.network["encoder"], self.network["head"], self.network["prototypes"]
        prototypes.normalize()
        scores = [prototypes(nn.functional.normalize(head(encoder(view)))) for view in views]
        update(self.loss(scores[:2], scores[2:]), self.optimizer)


def swav(backbone: str) -> tuple[nn.Module, nn.Module]:
    """Network and loss of the bundle, loaded from its folder, because it is not an installed package."""
    folder = ROOT / "bundles" / "ct_swav_pretraining" / "scripts"
    spec = importlib.util.spec_from_file_location(
        "swav_scripts", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    scripts = sys.modules["swav_scripts"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scripts)
    encoder = build_backbone(backbone, weights="random")
    return scripts.SwAV(encoder, feature_size(encoder), prototypes=500).train(), scripts.SwAVLoss()


def update(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def device_stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Start to measure a device; a call of the result stops, and a call of what that returns gives the seconds.

    The last call has to come after the device was waited for. On a CPU the seconds are those of the processor.
    """
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()

        def stop() -> Callable[[], float]:
            end.record()
            return lambda: begin.elapsed_time(end) / 1000

        return stop
    started = time.process_time()

    def stop_clock() -> Callable[[], float]:
        seconds = time.process_time() - started
        return lambda: seconds

    return stop_clock


def train(trainer: Ours | Released, run: Run, steps: int) -> Times:
    """Times per image of some steps."""
    stop = stopwatch()
    for _ in range(steps):
        trainer.step()
    if run.options.device == "cuda":
        torch.cuda.synchronize()
    return stop() / steps / run.options.batch_size


def stepping(run: Run) -> Iterator[Row]:
    """The whole step beside others, and the share of it that views take."""
    on_gpu, batch = run.options.device == "cuda", run.options.batch_size
    makers: dict[str, Callable[[Run], Ours | Released]] = {"ours": Ours, "released style": Released}
    if installed("lightly"):
        makers["lightly"] = Lightly
    times: dict[str, list[Times]] = {name: [] for name in makers}
    # On a GPU one after the other, because loader workers read ahead while others are timed.
    for names in [[name] for name in makers] if on_gpu else [list(makers)]:
        trainers = {name: makers[name](run) for name in names}
        for trainer in trainers.values():
            train(trainer, run, 3 if on_gpu else 1)
        for _ in range(3):
            for name, trainer in trainers.items():
                times[name].append(train(trainer, run, run.steps))
        if "ours" in trainers:
            views = [elapsed() for elapsed in trainers["ours"].view_seconds[-3 * run.steps :]]
            whole = statistics.mean(each.wall if on_gpu else each.cpu for each in times["ours"])
            share = statistics.mean(views) / batch / whole
            yield Row("G3", "views in the step", "", f"{100 * share:.1f} % of it", wanted="< 15 %", met=share < 0.15)
    if run.options.profile:
        print(profile(Ours(run), on_gpu))
    step = f"SwAV step, {run.options.backbone}, batch {batch}"
    for name, wanted in (("released style", 3), ("lightly", 1.5)):
        if name in times:
            yield comparison(
                "G3",
                f"{step} : {name}",
                times[name],
                times["ours"],
                wanted=wanted if on_gpu else None,
                judged_by="wall" if on_gpu else "cpu",
                show=rate,
            )


def profile(trainer: Ours, on_gpu: bool) -> str:
    """The operators that take most of three steps, the bottleneck first."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profiler(activities=activities) as result:
        for _ in range(3):
            trainer.step()
        if on_gpu:
            torch.cuda.synchronize()
    key = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    operators: str = result.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60)
    return operators


# What the command line asks for.

MEASUREMENTS = {"reading": reading, "views": viewing, "step": stepping}


def prepare(work: Path, options: argparse.Namespace) -> Run:
    """Store all slices of the volumes, and write them as PNG files."""
    volumes = work / "volumes"
    volumes.mkdir()
    for path in find_volumes(work):
        (volumes / path.name).symlink_to(path)
    out, pngs = work / "out", work / "png"
    reduce_dataset(volumes, out, Settings(Target.of(method="all")), workers=0, png_dir=pngs)
    images, rounds = (32, 3) if options.quick else (256, 7)
    steps = (1 if options.quick else 3) if options.device == "cpu" else (5 if options.quick else 20)
    return Run(SliceSelectionDataset(out), sorted(pngs.rglob("*.png")), images, rounds, steps, options)


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="few slices, rounds and steps: noisy")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backbone", help="of the step (default: resnet18 on a CPU, resnet50 on a GPU)")
    parser.add_argument("--batch_size", type=int, help="(default: 8 on a CPU, 128 on a GPU)")
    parser.add_argument("--workers", type=int, help="of the loaders (default: 0 on a CPU, one per core beside a GPU)")
    parser.add_argument("--profile", action="store_true", help="name the operators that take most of the step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON too")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.backbone = options.backbone or ("resnet50" if on_gpu else "resnet18")
    options.batch_size = options.batch_size or (128 if on_gpu else 8)
    options.workers = options.workers if options.workers is not None else ((os.cpu_count() or 1) if on_gpu else 0)
    about = describe(QUICK if options.quick else FULL)
    about["device"] = torch.cuda.get_device_name() if on_gpu else "cpu"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        torch.set_num_threads(1)
        os.environ["XDG_CONFIG_HOME"] = folder  # the user's patient key stays untouched
        run = prepare(Path(folder), options)
        for name in options.only:
            for row in MEASUREMENTS[name](run):
                say(str(row))
                rows.append(row)
    about.update({"slices": len(run.dataset), "rounds": run.rounds})
    return conclude(rows, about, options.json)


if __name__ == "__main__":
    sys.exit(main())
