"""The parts of a trainer that pre-training and classification put together alike: loader, engine, what was added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # those of one process and of several
from torch.optim import Optimizer

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import plain_values
from lessismore_transforms.training.loader import Order, StepLoader, StepSampler
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.precision import AutocastInferer
from lessismore_transforms.training.processes import process_count, process_rank
from lessismore_transforms.training.run_log import RunLog


def check_batch_norms(network: nn.Module, batch_size: int, *, last: int | None = None) -> None:
    """Refuse a batch of which a batch norm sees one picture alone: it has no deviation, or that of one picture.

    Args:
        network: what trains, as it is on the device: batch norms of all processes together see the whole batch.
        batch_size: of all processes together.
        last: pictures of the last batch of an epoch. One picture has no deviation where it has no places; else it will
            do for a step.

    Raises:
        UserError: a batch is too small for the batch norms.
    """
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    shares = 1 if all(isinstance(norm, nn.SyncBatchNorm) for norm in norms) else process_count()
    if norms and batch_size // shares < 2:
        raise UserError(
            "expected 2 pictures or more for each process and step, found 1: batch norms need the statistics of "
            f"several; give a batch_size of {2 * shares} or more"
        )
    if last is not None and last // process_count() < 2 and any(isinstance(norm, nn.BatchNorm1d) for norm in norms):
        raise UserError(
            "expected 2 pictures or more for each process and step, found 1 in the last step of an epoch: batch norms "
            "need the statistics of several; give another batch_size"
        )


def make_loader(
    batches: Any,
    plan: Plan,
    *,
    batch_size: int,
    seed: int,
    workers: int,
    device: str | torch.device,
    drop_last: bool = True,
    order: Order | None = None,
) -> StepLoader:
    """Loader of this process's share of each batch of a training.

    Args:
        batches: a data set of finished batches, such as `SliceBatches`.
        plan: how long the training is.
        batch_size: of all processes together.
        seed: of the order.
        workers: processes that read ahead; 0 reads in this one.
        device: where the network is; memory is pinned for a GPU.
        drop_last: leave out what does not fill a batch.
        order: which slices each epoch takes; by default all of them, in a random order.

    Raises:
        UserError: a number makes no sense for this data set.
    """
    sampler = StepSampler(
        len(batches) if order is None else order.draws,
        batch_size,
        plan.iterations,
        batches_per_epoch=plan.batches_per_epoch,
        seed=seed,
        rank=process_rank(),
        processes=process_count(),
        drop_last=drop_last,
        order=order,
    )
    return StepLoader(batches, sampler, workers=workers, pin_memory=torch.device(device).type == "cuda")


def make_engine(
    plan: Plan,
    *,
    max_epochs: int,
    device: str | torch.device,
    loader: Iterable[Any],
    network: nn.Module,
    loss_function: Callable[..., torch.Tensor],
    optimizer: Optimizer,
    inferer: AutocastInferer,
    prepare_batch: Callable[..., Any],
    handlers: Sequence[Any],
    accumulation: int = 1,
    compile_network: bool = False,
    iteration_update: Callable[[Any, Any], Any] | None = None,
) -> SupervisedTrainer:
    """MONAI's trainer with these parts; handlers act in their order."""
    for handler in handlers:
        if hasattr(handler, "output_transform"):
            handler.output_transform = _single(handler.output_transform)
    return SupervisedTrainer(
        max_epochs=max_epochs,
        epoch_length=plan.batches_per_epoch,
        device=torch.device(device),
        train_data_loader=loader,
        network=network,
        loss_function=loss_function,
        optimizer=optimizer,
        inferer=inferer,
        prepare_batch=prepare_batch,
        iteration_update=iteration_update,
        non_blocking=True,
        train_handlers=list(handlers),
        amp=inferer.scaled,
        amp_kwargs={"dtype": inferer.dtype},
        accumulation_steps=accumulation,
        compile=compile_network,
        optim_set_to_none=True,
        decollate=False,
    )


def _single(transform: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The transform of a handler of MONAI without a tuple around its only value.

    `from_engine(["loss"], first=True)`, which `--tracking` and most configurations use, gives the bare loss where a
    trainer decollates its output, but a tuple where it does not.
    """

    def unpacked(output: Any) -> Any:
        values = transform(output)
        return values[0] if isinstance(values, tuple) and len(values) == 1 else values

    return unpacked


def make_log(
    folder: str | Path,
    settings: Any,
    plan: Plan,
    optimizer: Optimizer,
    inferer: AutocastInferer,
    configuration: Mapping[str, Any] | None,
    kind: type[RunLog] = RunLog,
) -> RunLog:
    """Log of a run with its settings: a dataclass of options with device, batch_size and log_interval among them."""
    return kind(
        folder,
        optimizer,
        plan,
        batch_size=settings.batch_size,
        settings=plain_values(settings) | {"device": str(settings.device), "precision": inferer.precision},
        configuration=configuration,
        interval=settings.log_interval,
    )


def described(loader: StepLoader, prepare_batch: Any, handlers: Sequence[Any]) -> dict[str, Any]:
    """Names of the classes that a trainer was put together from, for config.json."""
    parts = {
        "batches": loader.dataset,
        "sampler": loader.sampler_of_steps,
        "loader": loader,
        "prepare_batch": prepare_batch,
    }
    content: dict[str, Any] = {name: _class_of(part) for name, part in parts.items()}
    return {**content, "handlers": [_class_of(handler) for handler in handlers]}


def _class_of(part: Any) -> str:
    kind = type(part)
    return f"{kind.__module__}.{kind.__qualname__}"
