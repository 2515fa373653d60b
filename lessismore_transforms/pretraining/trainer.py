"""The trainer of every pre-training: sampler, loader and the standard handlers, in the one order that works.

What makes a method is given: network, loss, optimizer, schedule, views, its own handlers and what its health is judged
by. All else is put together here, from the settings that all methods share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import nn
from torch.optim import Optimizer

from lessismore_transforms.pretraining.clipping import ClipGradients
from lessismore_transforms.pretraining.export import BackboneExport
from lessismore_transforms.pretraining.health import HealthMonitor, Monitor
from lessismore_transforms.pretraining.identity import training_identity
from lessismore_transforms.pretraining.labelled import read_labelled
from lessismore_transforms.pretraining.loader import SliceBatches
from lessismore_transforms.pretraining.near_copy_mask import NearCopyMask
from lessismore_transforms.pretraining.prepare_views import PrepareViews
from lessismore_transforms.pretraining.probe import KNNProbe
from lessismore_transforms.pretraining.sampling import (
    count_near_pairs,
    draws_per_epoch,
    make_order,
    near_pairs_line,
)
from lessismore_transforms.pretraining.settings import ContrastiveSettings, PretrainingSettings
from lessismore_transforms.pretraining.spreading import Spread
from lessismore_transforms.pretraining.training_set import (
    TrainingSet,
    WritePictures,
    channels,
    described_set,
    grey_mean,
    grey_std,
    open_dataset,
    slices,
    smallest,
)
from lessismore_transforms.pretraining.views import Views
from lessismore_transforms.reduced.picture_set import PictureSet
from lessismore_transforms.training.assembly import check_batch_norms, described, make_engine, make_loader, make_log
from lessismore_transforms.training.checkpoint import Checkpoint
from lessismore_transforms.training.curves import Curves
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.precision import AutocastInferer
from lessismore_transforms.training.processes import process_count, process_rank
from lessismore_transforms.training.schedules import Schedule
from lessismore_transforms.training.seeding import SeedIterations
from lessismore_transforms.training.stopping import StopAtEnd, StopOnNan, StopOnSignal

__all__ = ["grey_mean", "grey_std", "make_plan", "make_trainer", "near_copy_mask", "open_dataset", "slices"]


def make_plan(settings: PretrainingSettings, dataset: TrainingSet) -> Plan:
    """Length of a training of these slices.

    Raises:
        UserError: a number makes no sense, the slices do not fill one step, or they cannot be drawn as `sampling` says.
    """
    return Plan.of(
        draws_per_epoch(settings, dataset),
        batch_size=settings.batch_size,
        max_epochs=settings.max_epochs,
        max_steps=settings.max_steps,
        accumulation=settings.accumulation,
        processes=process_count(),
    )


def near_copy_mask(settings: ContrastiveSettings, dataset: TrainingSet) -> NearCopyMask | None:
    """What a loss leaves out of the negatives, as `near_copies` says; None where near copies stay."""
    return NearCopyMask(slices(dataset), settings.mask_bits) if settings.near_copies == "mask" else None


def make_trainer(
    settings: PretrainingSettings,
    *,
    method: str,
    plan: Plan,
    dataset: TrainingSet,
    views: Views,
    image_size: int,
    backbone: nn.Module,
    bare_network: nn.Module,
    network: nn.Module,
    loss_function: Callable[..., torch.Tensor],
    optimizer: Optimizer,
    schedule: Callable[[int], float],
    inferer: AutocastInferer,
    monitors: Sequence[Monitor],
    train_handlers: Sequence[Any] = (),
    max_epochs: int | None = None,
    configuration: Mapping[str, Any] | None = None,
) -> SupervisedTrainer:
    """Trainer of a method.

    Args:
        settings: what all methods share; `resume` takes the state of checkpoints/last.pt at once.
        method: its name in `methods.METHODS`.
        plan: how long the training is.
        dataset: the slices.
        views: what is made of a slice.
        image_size: rows and columns in which the backbone is probed and will be used, pixels.
        backbone: what is exported; a part of the network.
        bare_network: the network as it is before anything wraps it.
        network: the same on its device, perhaps wrapped for several processes.
        loss_function: of what the network gives and None.
        optimizer: of the network's parameters.
        schedule: factor of the learning rate, of the iteration counted from 0.
        inferer: runs the network in its precision.
        monitors: what the health of the training is judged by.
        train_handlers: the method's own; they act behind the schedule and before gradients are clipped.
        max_epochs: after which the engine ends; by default the plan's.
        configuration: all that was configured, for config.json.

    Raises:
        UserError: settings, data and a checkpoint that is resumed do not fit each other.
        OutputError: the output folder cannot be written.
    """
    check_batch_norms(bare_network, settings.batch_size)
    order = make_order(settings, dataset, plan.batches_per_epoch)
    loader = make_loader(
        SliceBatches(dataset),
        plan,
        batch_size=settings.batch_size,
        seed=settings.seed,
        workers=settings.workers,
        device=settings.device,
        order=order,
    )
    health = HealthMonitor(monitors, interval=settings.health_interval)
    log = make_log(settings.output_dir, settings, plan, optimizer, inferer, configuration)
    export = BackboneExport(
        settings.output_dir,
        backbone,
        settings.backbone,
        every=settings.export_epochs,
        metadata={
            "method": method,
            "mean": list(views.mean),
            "std": list(views.std),
            "image_size": image_size,
            "channels": channels(dataset),
        },
        plan=plan,
    )
    checkpoint = Checkpoint(
        settings.output_dir,
        bare_network,
        {"optimizer": optimizer, "health": health, "log": log},
        identity={"method": method, "sampling": settings.sampling, "slices": dataset.identity()}
        | training_identity(
            settings,
            plan=plan,
            views=views,
            optimizer=optimizer,
            schedule=schedule,
            loss_function=loss_function,
            network=bare_network,
            handlers=train_handlers,
        ),
        sampler=loader.sampler_of_steps,
        plan=plan,
        resume=settings.resume,
        minutes=settings.checkpoint_minutes,
        exports=export.bytes_to_come(plan),
    )
    handlers = [
        SeedIterations(settings.seed, process_rank()),
        Schedule(optimizer, schedule),
        *train_handlers,
        *([] if settings.clip_norm is None else [ClipGradients(bare_network, settings.clip_norm)]),
        StopOnNan(bare_network),  # before what saves
        health,  # before what writes its figures down
        *([] if settings.probe is None else [_make_probe(settings, plan, dataset, views, backbone, image_size)]),
        log,
        *([WritePictures(dataset, settings.output_dir)] if isinstance(dataset, PictureSet) else []),
        export,
        StopOnSignal(settings.accumulation),
        StopAtEnd(plan),
        checkpoint,  # behind whatever may stop the run
        Curves(settings.output_dir),
    ]
    prepare_batch = PrepareViews(views, smallest(dataset))
    log.trainer = described(loader, prepare_batch, handlers) | described_set(dataset)
    if isinstance(order, Spread):
        near_pairs = count_near_pairs(order)
        log.found = {"near_pairs": near_pairs}
        log.says = near_pairs_line(settings, near_pairs)
    return make_engine(
        plan,
        max_epochs=plan.max_epochs if max_epochs is None else max_epochs,
        device=settings.device,
        loader=loader,
        network=network,
        loss_function=loss_function,
        optimizer=optimizer,
        inferer=inferer,
        prepare_batch=prepare_batch,
        handlers=handlers,
        accumulation=settings.accumulation,
        compile_network=settings.compile,
    )


def _make_probe(
    settings: PretrainingSettings,
    plan: Plan,
    dataset: TrainingSet,
    views: Views,
    backbone: nn.Module,
    image_size: int,
) -> KNNProbe:
    assert settings.probe is not None
    labelled = read_labelled(
        settings.probe,
        image_size,
        label=settings.probe_label,
        output=settings.probe_output,
        training=slices(dataset)[0],
        channels=channels(dataset),
    )
    return KNNProbe(backbone, labelled, interval=settings.probe_epochs, mean=views.mean, std=views.std, plan=plan)
