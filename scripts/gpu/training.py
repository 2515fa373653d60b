"""Trainings by a bundle's own train.json, and what is measured and compared of them."""

from __future__ import annotations

import json
import math
import resource
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from torch import Tensor

from gpu.commands import run_command
from gpu.pictures import dataset_dir
from gpu.setup import ROOT, Figure, LeftOut, Setup
from gpu.shares import Shares
from lessismore_transforms.bundle_folders import bundle_folder
from lessismore_transforms.methods import METHODS
from lessismore_transforms.training.curves import read_log
from lessismore_transforms.training.precision import float32_only
from lessismore_transforms.weights.layouts import BACKBONE

RESUMED_AT, RESUMED_STEPS = 3, 6
FIXED = {"spark": {"drop_path": 0.0}}  # it is drawn on the device, so that a GPU draws others


def start(setup: Setup, method: str, run: str, **overrides: Any) -> ConfigWorkflow:
    """A workflow of a method's bundle, initialised; an earlier run in its folder is deleted, but one to resume."""
    if not overrides.get("resume"):
        shutil.rmtree(folder(setup, method, run), ignore_errors=True)
    flow = ConfigWorkflow(
        workflow_type="train",
        config_file=files(method),
        meta_file=str(configs(method) / "metadata.json"),
        logging_file=str(configs(method) / "logging.conf"),
        **given(setup, method, run) | {"device": setup.device} | overrides,
    )
    flow.initialize()
    return flow


def configs(method: str) -> Path:
    """The folder of a method's configurations."""
    return bundle_folder(METHODS[method].bundle) / "configs"


def files(method: str, *further: str) -> list[str]:
    """The configurations that train by a method, and further ones of its bundle."""
    return [str(configs(method) / name) for name in ("train.json", METHODS[method].overlay, *further) if name]


def given(setup: Setup, method: str, run: str) -> dict[str, Any]:
    """What a run is told: in a full check nothing but what it needs."""
    needed = {"dataset_dir": str(dataset_dir(setup)), "output_dir": folder(setup, method, run)}
    # 50 of 800 epochs are a dozen steps here: files that a training writes once an hour are left out.
    needed |= {"export_epochs": 0, "log_interval": 1 if setup.sizes.tiny else 10}
    return needed | (tiny_settings(method) if setup.sizes.tiny else {})


def folder(setup: Setup, method: str, run: str) -> str:
    """Output folder of a run."""
    return str(setup.work / "runs" / method / run)


def trainer_of(flow: ConfigWorkflow) -> Any:
    """The trainer of a workflow."""
    return flow.parser.get_parsed_content("train#trainer")


def tiny_settings(method: str) -> dict[str, Any]:
    """What makes a training small, as the driver of experiments does with --tiny, and a still smaller network."""
    settings = json.loads((ROOT / "scripts" / "experiments" / "tiny.json").read_text())["pretrain_settings"]
    small = settings["all"] | settings[METHODS[method].title]
    small |= {} if method == "spark" else {"backbone": "timm:test_resnet"}  # SparK takes torchvision's only
    # Where a map is one pixel, PyTorch's gradient of a convolution in bf16 on a CPU is now and then not a number.
    return small | ({"small_size": 32} if method == "swav" else {})


def finish(flow: ConfigWorkflow) -> None:
    """Run a workflow to its end."""
    flow.run()
    flow.finalize()


def rate(setup: Setup, method: str, run: str) -> float:
    """The median of the pictures per second that a run has logged, without its beginning."""
    lines = read_log(Path(folder(setup, method, run)))
    rates = [line["images_per_second"] for line in lines if "loss" in line and line["step"] > setup.sizes.warm_up]
    return statistics.median(rates)


def losses(setup: Setup, method: str, run: str) -> dict[int, float]:
    """The losses that a run has logged, by step."""
    return {line["step"]: line["loss"] for line in read_log(Path(folder(setup, method, run))) if "loss" in line}


# The parts of a method's step.


def speed(setup: Setup, method: str) -> Iterator[Figure]:
    """Pictures per second, memory, shares of the step's time, and the step beside that of the network alone."""
    if setup.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    flow = start(setup, method, "speed", max_steps=setup.sizes.steps)
    trainer, settings = trainer_of(flow), flow.parser.get_parsed_content("settings")
    shares = Shares(setup.device, setup.sizes.warm_up)
    shares.attach(trainer)
    finish(flow)
    seconds = shares.seconds()
    step = sum(seconds.values())
    about = f"{settings.backbone}, batch {settings.batch_size}, {trainer.inferer.precision}"
    yield Figure(f"pictures per second ({about})", f"{rate(setup, method, 'speed'):.0f}")
    yield Figure("peak memory", f"{_memory_gib(setup):.1f} GiB")
    yield Figure("a step", f"{1000 * step:.1f} ms")
    for part, taken in seconds.items():
        goal = {"wanted": "< 15 %", "met": taken < 0.15 * step} if part == "views" and setup.on_gpu else {}
        yield Figure(f"share of {part}", f"{100 * taken / step:.1f} %", **goal)
    alone = _network_alone(setup, trainer)
    goal = {"wanted": "<= 1.15", "met": step <= 1.15 * alone} if setup.on_gpu else {}
    yield Figure("the network alone, on a fixed batch", f"{1000 * alone:.1f} ms")
    yield Figure("a step : the network alone", f"{step / alone:.2f}", **goal)


def _memory_gib(setup: Setup) -> float:
    if setup.on_gpu:
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _network_alone(setup: Setup, trainer: Any) -> float:
    """Seconds of a step of the trainer's network on one fixed batch: forward, loss, backward and update."""
    inputs, target, _, named = trainer.prepare_batch(next(iter(trainer.data_loader)), torch.device(setup.device))
    count, began = setup.sizes.few_steps, 0.0
    trainer.network.train()
    for number in range(count + setup.sizes.warm_up):
        if number == setup.sizes.warm_up:
            _wait(setup)
            began = time.perf_counter()
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.loss_function(trainer.inferer(inputs, trainer.network, **named), target).backward()
        trainer.optimizer.step()
    _wait(setup)
    return (time.perf_counter() - began) / count


def _wait(setup: Setup) -> None:
    if setup.on_gpu:
        torch.cuda.synchronize()


def first_step(setup: Setup, method: str) -> Iterator[Figure]:
    """Loss and gradient of the first step beside the CPU's in float32; bf16 may err twice as much as the CPU's does."""
    loss, gradient = _first(setup, method, "cpu", "fp32")
    yield Figure("loss of the first step, CPU, fp32", f"{loss:.6f}")
    cpu_error, cpu_angle = 0.0, 0.0
    for device, precision in (("cpu", "bf16"), (setup.device, "fp32"), (setup.device, "bf16")):
        found, direction = _first(setup, method, device, precision)
        error, angle = abs(found - loss) / abs(loss), 1 - _cosine(gradient, direction)
        if precision == "fp32":
            most, widest = 1e-3, 1e-3
        elif device == "cpu" and not cpu_angle:
            cpu_error, cpu_angle = error, angle
            most, widest = math.inf, math.inf
        else:
            most, widest = 2 * cpu_error + 0.005, 2 * cpu_angle + 0.01
        told = math.isinf(most)  # it is what the others are measured by
        yield Figure(
            f"loss of the first step, {device}, {precision}: relative difference",
            f"{error:.2e}",
            "" if told else f"<= {most:.1e}",
            equal=None if told else error <= most,
        )
        yield Figure(
            f"gradient of the first step, {device}, {precision}: 1 - cosine",
            f"{angle:.2e}",
            "" if told else f"<= {widest:.1e}",
            equal=None if told else angle <= widest,
        )


def _first(setup: Setup, method: str, device: str, precision: str) -> tuple[float, Tensor]:
    """Loss and gradient of the first step; the views are always the CPU's, as they have tests of their own."""
    exact = {"device": device, "precision": precision, "batch_size": setup.sizes.first_batch, "workers": 0}
    flow = start(setup, method, f"first_{device}_{precision}", max_steps=2, **exact, **FIXED.get(method, {}))
    trainer = trainer_of(flow)
    cpu, where = torch.device("cpu"), torch.device(device)
    inputs, target, _, named = trainer.prepare_batch(next(iter(trainer.data_loader)), cpu)
    views = [view.to(where) for view in inputs]
    named = {name: value.to(where) for name, value in named.items()}
    trainer.network.train()
    torch.manual_seed(0)
    with float32_only(device):  # autocast is switched on inside, where it is asked for
        loss = trainer.loss_function(trainer.inferer(views, trainer.network, **named), target)
        loss.backward()
    gradients = [weight.grad for weight in trainer.network.parameters() if weight.grad is not None]
    return float(loss.detach()), torch.cat([gradient.detach().cpu().double().flatten() for gradient in gradients])


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def resume(setup: Setup, method: str) -> Iterator[Figure]:
    """A training that is stopped and resumed follows one that is not: to the bit on a CPU, closely on a GPU."""
    short = {"max_steps": RESUMED_STEPS, "log_interval": 1}
    finish(start(setup, method, "whole", **short))
    flow = start(setup, method, "parts", **short)
    trainer_of(flow).add_event_handler(Events.ITERATION_STARTED(once=RESUMED_AT), _ask_to_end)
    with suppress(SystemExit):
        finish(flow)
    stopped_at = max(losses(setup, method, "parts"))
    yield Figure("stopped after step", str(stopped_at), str(RESUMED_AT), equal=stopped_at == RESUMED_AT)
    finish(start(setup, method, "parts", resume=True, **short))
    whole, parts = losses(setup, method, "whole"), losses(setup, method, "parts")
    difference = max(abs(whole[step] - parts[step]) / abs(whole[step]) for step in whole)
    most = 0.01 if setup.on_gpu else 0.0
    yield Figure(
        f"resumed : not stopped, largest relative difference of {len(whole)} losses",
        f"{difference:.2e}",
        f"<= {most:g}",
        equal=whole.keys() == parts.keys() and difference <= most,
    )


def _ask_to_end() -> None:
    signal.raise_signal(signal.SIGTERM)


def compiled(setup: Setup, method: str) -> Iterator[Figure]:
    """The training with torch.compile beside the same without."""
    # A dry run makes no kernels, which takes minutes on a CPU.
    with torch.compiler.set_stance("force_eager" if setup.sizes.tiny else "default"):
        yield from _variant(setup, method, "compile", {"compile": True})


def fp16(setup: Setup, method: str) -> Iterator[Figure]:
    """The training in fp16 with scaled gradients beside the same in the precision of train.json."""
    if not setup.on_gpu:
        raise LeftOut("fp16 needs a GPU")
    yield from _variant(setup, method, "fp16", {"precision": "fp16"})


def distributed(setup: Setup, method: str) -> Iterator[Figure]:
    """The training by multi_gpu_train.json in one process of torchrun, NCCL on a GPU, beside the same without."""
    _run_plain(setup, method)
    shutil.rmtree(folder(setup, method, "torchrun"), ignore_errors=True)
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=1", "-m", "monai.bundle", "run"]
    line += ["--config_file", str(files(method, "multi_gpu_train.json"))]
    for name, value in (given(setup, method, "torchrun") | {"max_steps": setup.sizes.few_steps}).items():
        line += [f"--{name}", str(value)]
    run_command(line)
    yield from _beside_plain(setup, method, "torchrun", within=0.02)


def _variant(setup: Setup, method: str, name: str, changes: dict[str, Any]) -> Iterator[Figure]:
    """Speed and losses of a training with changes beside the same without."""
    _run_plain(setup, method)
    finish(start(setup, method, name, max_steps=setup.sizes.few_steps, **changes))
    yield from _beside_plain(setup, method, name, within=0.02)


def _run_plain(setup: Setup, method: str) -> None:
    if not (Path(folder(setup, method, "plain")) / BACKBONE).is_file():
        finish(start(setup, method, "plain", max_steps=setup.sizes.few_steps))


def _beside_plain(setup: Setup, method: str, name: str, *, within: float) -> Iterator[Figure]:
    plain, changed = (rate(setup, method, run) for run in ("plain", name))
    yield Figure(f"{name}: pictures per second", f"{changed:.0f}")
    yield Figure(f"{name} : without, pictures per second", f"{changed / plain:.2f}")
    first = min(losses(setup, method, "plain"))
    one, other = (losses(setup, method, run)[first] for run in ("plain", name))
    difference = abs(one - other) / abs(one)
    finite = all(math.isfinite(loss) for loss in losses(setup, method, name).values())
    yield Figure(
        f"{name} : without, relative difference of the first loss logged",
        f"{difference:.2e}",
        f"<= {within:g}",
        equal=difference <= within and finite,
    )
