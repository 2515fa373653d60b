"""Small pre-trainings of an experiment one after the other, and all at once."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gpu.commands import run_command
from gpu.pictures import phantom_volumes
from gpu.setup import ROOT, Figure, Setup
from gpu.training import tiny_settings
from lessismore_transforms.training.curves import read_log

SEEDS = 4
_SMALL = {"backbone": "resnet18", "image_size": 64, "batch_size": 64, "learning_rate_per_256": 3.4}


def side_by_side(setup: Setup) -> Iterator[Figure]:
    """Four pre-trainings by SimCLR of a ResNet18 on 64 x 64 pixels, as the evidence has them."""
    trainings = {1: setup.work / "one_by_one", SEEDS: setup.work / "at_once"}
    for folder in trainings.values():
        shutil.rmtree(folder, ignore_errors=True)
    _drive(setup, trainings[1], "reduce")
    shutil.copytree(trainings[1], trainings[SEEDS])
    seconds = {}
    for at_once, folder in trainings.items():
        begin = time.perf_counter()
        _drive(setup, folder, "pretrain", "--at_once", str(at_once))
        seconds[at_once] = time.perf_counter() - begin
    one, all_ = seconds.values()
    yield Figure(f"{SEEDS} pre-trainings one after the other, with starting them", f"{one:.1f} s")
    goal = {"wanted": "< 0.6", "met": all_ / one < 0.6} if setup.on_gpu else {}
    yield Figure("all at once : one after the other, wall time", f"{all_ / one:.2f}", **goal)
    losses = {at_once: _losses(folder) for at_once, folder in trainings.items()}
    same = losses[1].keys() == losses[SEEDS].keys()
    difference = max(abs(losses[1][key] - losses[SEEDS].get(key, 0.0)) / abs(losses[1][key]) for key in losses[1])
    most = 0.02 if setup.on_gpu else 0.0
    yield Figure(
        f"the same, largest relative difference of {SEEDS} first losses",
        f"{difference:.2e}",
        f"<= {most:g}",
        equal=same and len(losses[1]) == SEEDS and difference <= most,
    )


def _drive(setup: Setup, folder: Path, *only: str) -> None:
    """Run a part of the experiment."""
    settings = tiny_settings("simclr") if setup.sizes.tiny else _SMALL
    settings = {**settings, "workers": 0, "device": setup.device, "log_interval": 1}
    experiment = {
        "title": "Small pre-trainings",
        "pretrain_datasets": ["CT"],
        "methods": ["SimCLR"],
        "reductions": ["ALL"],
        "pretrain_seeds": list(range(SEEDS)),
        "max_steps": setup.sizes.steps,
        "pretrain_settings": {"all": settings},
        "tasks": ["COVID-19"],  # an experiment has one; it is not run
    }
    data = f"CT={phantom_volumes(setup)}"
    path = setup.work / "side_by_side.json"
    path.write_text(json.dumps(experiment), encoding="utf-8")
    script = str(ROOT / "scripts" / "reproduce_paper.py")
    run_command([sys.executable, script, str(path), "--output_dir", str(folder), "--data", data, "--only", *only])


def _losses(folder: Path) -> dict[str, float]:
    """The first loss of each training, by its name."""
    return {
        run.name: next(line["loss"] for line in read_log(run) if "loss" in line)
        for run in sorted((folder / "pretrain").iterdir())
    }
