"""The trained backbone as a file that others load: proven before the first step, written at intervals and the end."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from lessismore_transforms.atomic import writing
from lessismore_transforms.errors import UserError
from lessismore_transforms.training.moments import every_epochs
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.processes import process_rank
from lessismore_transforms.training.stopping import stopped
from lessismore_transforms.weights.backbones import build_backbone, save_backbone
from lessismore_transforms.weights.layouts import BACKBONE

EPOCHS = "backbones"
_TOLERANCE = 1e-6


class BackboneExport:
    """Write `backbones/epoch_XXXX.safetensors` every few epochs and `backbone.safetensors` at the end of a run.

    Where the plan counts steps, the files are `backbones/step_XXXXXX.safetensors`, by the steps that are done.

    Before the first iteration the backbone is written, loaded strictly into a new network of that name and compared, so
    that a long run cannot end in a file that nothing loads. Attach it after whatever may stop the run.

    Args:
        folder: of the run.
        backbone: what is trained.
        name: of its architecture, as `build_backbone` takes it.
        every: epochs between files; 0 writes the last one only.
        metadata: plain values for the header of the file, such as method, mean, std and image_size.
        plan: length of the training; where it counts steps, so does `every`, see `Plan.interval_of`.

    Raises:
        UserError: `every` is negative, or the backbone does not survive the way through a file.
    """

    def __init__(
        self,
        folder: str | Path,
        backbone: nn.Module,
        name: str,
        *,
        every: int = 50,
        metadata: Mapping[str, Any],
        plan: Plan | None = None,
    ) -> None:
        if every < 0:
            raise UserError(f"expected export_epochs of 0 or more, found {every}; 50 is usual, 0 writes the last one")
        self.folder, self.backbone, self.name, self.every = Path(folder), backbone, name, every
        self.plan = plan
        self.metadata = {"backbone": name, **metadata}

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        engine.add_event_handler(Events.STARTED, self._prove)
        if self.every:
            engine.add_event_handler(every_epochs(self.every, self.plan), self)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def bytes_to_come(self, plan: Plan) -> int:
        """The size of all files of a run of that length."""
        size = sum(int(value.nbytes) for value in self.backbone.state_dict().values())
        return size * (1 + (plan.iterations // plan.interval_of(self.every) if self.every else 0))

    def _prove(self, engine: Any) -> None:
        if process_rank() == 0:
            path = self.folder / EPOCHS / "epoch_0000.safetensors"
            self._write(engine, path)
            prove_export(self.backbone, self.name, path)
            path.unlink()

    def __call__(self, engine: Any) -> None:
        """Write the backbone as it is now."""
        if stopped(engine):
            return
        name = f"epoch_{engine.state.epoch:04d}"
        if self.plan is not None and self.plan.by_steps:
            name = f"step_{engine.state.iteration // self.plan.accumulation:06d}"
        self._write(engine, self.folder / EPOCHS / f"{name}.safetensors")

    def _end(self, engine: Any) -> None:
        if not stopped(engine):
            self._write(engine, self.folder / BACKBONE)
            if process_rank() == 0:
                print(f"the encoder is in {self.folder / BACKBONE}", flush=True)

    def _write(self, engine: Any, path: Path) -> None:
        if process_rank() == 0:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            state = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
            save_backbone(path, self.backbone, {**self.metadata, **state})


def prove_export(backbone: nn.Module, name: str, path: Path) -> None:
    """Load a written backbone strictly into a new network and compare what both make of a picture.

    Raises:
        UserError: the file does not fill the network, or the features differ by more than 1e-6 of their size.
    """
    # Beside each other on the CPU, in one memory format: where and how the training runs rounds differently.
    trained: Any = copy.deepcopy(backbone)
    trained = trained.to(device="cpu", memory_format=torch.contiguous_format).eval()
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = trained(picture), build_backbone(name, weights=path)(picture)
    if not (expected - found).abs().max() <= _TOLERANCE * expected.abs().max().clamp_min(1.0):
        raise UserError(
            f"expected the features of {name} to survive writing and loading {path}, found a difference of "
            f"{(expected - found).abs().max():.2g}: this network keeps something outside of its weights; take another"
        )
