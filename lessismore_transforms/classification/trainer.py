"""Training and evaluation of a classifier: loaders, engines and the standard handlers, in the one order that works.

What a task may change is given: the pictures, network, loss, optimizer, and further handlers. All else is put together
here, from the settings that all tasks share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import nn
from torch.optim import Optimizer

from lessismore_transforms.classification.best_epoch import KeepBest
from lessismore_transforms.classification.evaluation import (
    TRAINED_ON,
    FinalEvaluation,
    Predict,
    counts,
    experiment,
    reported,
    rescored,
)
from lessismore_transforms.classification.examples import Examples, Split
from lessismore_transforms.classification.finished_runs import METRICS_FILE, OF_FOLDS
from lessismore_transforms.classification.freezing import FreezeEncoder
from lessismore_transforms.classification.leakage import Leakage, check_leakage
from lessismore_transforms.classification.loader import EvaluationLoader, ExampleBatches, PrepareExamples
from lessismore_transforms.classification.logistic_probe import make_sweep, sweep_plan
from lessismore_transforms.classification.network import Classifier, starting_from, weights_of
from lessismore_transforms.classification.preprocessing import statistics_of
from lessismore_transforms.classification.recipe import (
    checked_loss,
    class_weights,
    make_augment,
    make_schedule,
    parameters,
)
from lessismore_transforms.classification.settings import ClassificationSettings, run_seed
from lessismore_transforms.options import names
from lessismore_transforms.training.assembly import check_batch_norms, described, make_engine, make_loader, make_log
from lessismore_transforms.training.checkpoint import Checkpoint
from lessismore_transforms.training.curves import Curves
from lessismore_transforms.training.identity import parts_identity, plain_parts
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.precision import AutocastInferer
from lessismore_transforms.training.processes import process_count, process_rank
from lessismore_transforms.training.schedules import Schedule
from lessismore_transforms.training.seeding import SeedIterations
from lessismore_transforms.training.stopping import StopOnNan, StopOnSignal
from lessismore_transforms.weights.backbones import build_backbone

__all__ = [
    "Examples",
    "KeepBest",
    "Split",
    "class_weights",
    "find_leaks",
    "make_evaluation",
    "make_evaluator",
    "make_plan",
    "make_trainer",
    "parameters",
    "run_seed",
    "starting_network",
    "training_statistics",
    "weights_of",
]

_POINTS = 1000  # iterations and epochs from the first on in which the schedules of two trainings are compared


def make_plan(settings: ClassificationSettings, dataset: Split) -> Plan:
    """Length of a training on these pictures; of the penalties, where a regression takes the place of steps.

    Raises:
        UserError: a number makes no sense, or there are too few pictures.
    """
    plan = Plan.of(
        len(dataset),
        batch_size=settings.batch_size,
        max_epochs=settings.max_epochs,
        processes=process_count(),
        drop_last=False,
    )
    return sweep_plan() if settings.regression else plan


def starting_network(settings: ClassificationSettings, network: Classifier, examples: Examples) -> Classifier:
    """The network that a training begins with: its encoder has the weights of the settings, its head these classes.

    Args:
        settings: what all tasks share.
        network: `network_def` of the configuration; it is changed.
        examples: all pictures.

    Raises:
        UserError: the weights are missing, or are those of another network or method.
    """
    seed = settings.run_seed
    encoder = build_backbone(settings.backbone, weights=settings.weights, method=settings.method, seed=seed)
    return starting_from(network, encoder, len(examples.classes), seed)


def training_statistics(settings: ClassificationSettings, examples: Examples) -> tuple[list[float], list[float]]:
    """Mean and standard deviation by which pictures are normalised, see `statistics_of`."""
    return statistics_of(
        Split(examples, "train"),
        settings.image_size,
        resize=settings.resize,
        mean=settings.mean,
        std=settings.std,
    )


def find_leaks(settings: ClassificationSettings, examples: Examples) -> Leakage:
    """What is in two places that should not be, see `check_leakage`; leakage.csv is written into the run's folder."""
    return check_leakage(
        examples,
        policy=settings.leakage,
        pretraining=settings.pretraining,
        selection=settings.pretraining_selection,
        folder=settings.run_dir,
    )


def make_evaluator(
    settings: ClassificationSettings,
    *,
    dataset: Split,
    bare_network: Classifier,
    network: nn.Module,
    inferer: AutocastInferer,
    val_handlers: Sequence[Any] = (),
) -> SupervisedEvaluator:
    """Evaluator of a split: its predictions are in `state.predictions`, their scores in `state.metrics`.

    Args:
        settings: what all tasks share.
        dataset: the split, with the transform that prepares pictures.
        bare_network: the network as it is before anything wraps it.
        network: the same on its device.
        inferer: runs the network in its precision.
        val_handlers: further handlers; they act after the predictions are scored.
    """
    return SupervisedEvaluator(
        device=torch.device(settings.device),
        val_data_loader=EvaluationLoader(
            dataset,
            settings.batch_size,
            workers=settings.workers,
            pin_memory=torch.device(settings.device).type == "cuda",
        ),
        network=network,
        inferer=inferer,
        prepare_batch=PrepareExamples(),
        non_blocking=True,
        val_handlers=[Predict(dataset, bare_network, positive=settings.positive), *val_handlers],
        decollate=False,
    )


def make_trainer(
    settings: ClassificationSettings,
    *,
    plan: Plan,
    examples: Examples,
    dataset: Split,
    origin: Mapping[str, Any],
    bare_network: Classifier,
    network: nn.Module,
    loss_function: Callable[..., torch.Tensor],
    optimizer: Optimizer,
    schedule: Callable[[int], float] | None,
    inferer: AutocastInferer,
    best: KeepBest,
    train_handlers: Sequence[Any] = (),
    max_epochs: int | None = None,
    configuration: Mapping[str, Any] | None = None,
) -> SupervisedTrainer:
    """Trainer of a classifier; in the mode linear, unless its recipe says otherwise, that of `logistic_probe`.

    Args:
        settings: what all tasks share; `resume` takes the state of checkpoints/last.pt at once.
        plan: how long the training is.
        examples: all pictures.
        dataset: the training split, with the transform that prepares pictures.
        origin: of the encoder's weights, see `weights_of`.
        bare_network: the network as it is before anything wraps it.
        network: the same on its device, perhaps wrapped for several processes.
        loss_function: of logits and labels.
        optimizer: of the network's parameters.
        schedule: factor of the learning rate, of the iteration counted from 0; None for that of the settings.
        inferer: runs the network in its precision.
        best: validates after each epoch and keeps the best network.
        train_handlers: further handlers; they act behind the schedule and before the loss is judged.
        max_epochs: after which the engine ends; by default the plan's.
        configuration: all that was configured, for config.json.

    Raises:
        UserError: settings, data and a checkpoint that is resumed do not fit each other.
        OutputError: the output folder cannot be written.
    """
    schedule = make_schedule(settings, plan, schedule)
    called = checked_loss(settings, loss_function)
    augment = make_augment(settings, dataset, len(examples.classes))
    identity = _identity(settings, examples, origin) | _of_parts(
        plan, dataset, bare_network, loss_function, optimizer, schedule
    )
    if settings.regression:
        return make_sweep(
            settings,
            plan=plan,
            examples=examples,
            dataset=dataset,
            identity=identity,
            bare_network=bare_network,
            loss_function=loss_function,
            optimizer=optimizer,
            inferer=inferer,
            best=best,
            train_handlers=train_handlers,
            configuration=configuration,
        )
    check_batch_norms(
        bare_network.classifier if settings.mode == "linear" else bare_network,
        settings.batch_size,
        last=min(settings.batch_size, len(dataset) - (plan.batches_per_epoch - 1) * settings.batch_size),
    )
    loader = make_loader(
        ExampleBatches(dataset),
        plan,
        batch_size=settings.batch_size,
        seed=settings.run_seed,
        workers=settings.workers,
        device=settings.device,
        drop_last=False,
    )
    log = make_log(settings.run_dir, settings, plan, optimizer, inferer, configuration)
    checkpoint = Checkpoint(
        settings.run_dir,
        bare_network,
        {"optimizer": optimizer, "best": best, "log": log},
        identity=identity,
        sampler=loader.sampler_of_steps,
        plan=plan,
        resume=settings.resume,
        minutes=settings.checkpoint_minutes,
        after=settings.run_dir / METRICS_FILE,
    )
    handlers = [
        SeedIterations(settings.run_seed, process_rank()),
        FreezeEncoder(
            bare_network, settings.frozen, batch_norm=settings.frozen_batch_norm or settings.mode == "linear"
        ),
        *([] if schedule is None else [Schedule(optimizer, schedule)]),
        *train_handlers,
        StopOnNan(bare_network),  # before what saves
        best,  # behind what may stop the run, before what logs and saves
        log,
        StopOnSignal(),
        checkpoint,
        Curves(settings.run_dir),
    ]
    prepare_batch = PrepareExamples(
        settings.flip, seed=settings.run_seed, transpose=settings.transpose, augment=augment
    )
    log.trainer = described(loader, prepare_batch, handlers)
    return make_engine(
        plan,
        max_epochs=plan.max_epochs if max_epochs is None else max_epochs,
        device=settings.device,
        loader=loader,
        network=network,
        loss_function=called,
        optimizer=optimizer,
        inferer=inferer,
        prepare_batch=prepare_batch,
        handlers=handlers,
    )


def make_evaluation(
    settings: ClassificationSettings,
    *,
    examples: Examples,
    leaks: Leakage,
    statistics: tuple[Sequence[float], Sequence[float]],
    origin: Mapping[str, Any],
    bare_network: Classifier,
    evaluators: Mapping[str, SupervisedEvaluator],
    precision: str,
    schedule: Callable[[int], float] | None = None,
    best: KeepBest | None = None,
    trained: Mapping[str, Any] | None = None,
) -> FinalEvaluation:
    """Evaluation of a network at the end of its training, or of one that was trained before.

    Args:
        settings: what all tasks share.
        examples: all pictures.
        leaks: what the leakage gate found.
        statistics: mean and standard deviation by which pictures are normalised.
        origin: of the weights, see `weights_of`.
        bare_network: the network as it is before anything wraps it.
        evaluators: by the names of their splits, val and test.
        precision: of the computation, see `AutocastInferer`.
        schedule: of the learning rate, instead of that of the settings; that there is none is reported among them.
        best: whose weights are restored first.
        trained: header of the file of a network that was trained before; its record is kept and no network is written.

    Raises:
        UserError: labels contradict the weights, or the folder holds a run that would be lost.
    """
    about = {
        "task": examples.task,
        "classes": list(examples.classes),
        "positive": settings.positive,
        "run": settings.run_index,
        "weights": dict(origin),
        "counts": counts(examples),
        "leakage": leaks.summary(),
    }
    resolved = {"precision": precision, "processes": process_count()}
    resolved |= {"schedule": None} if schedule is None and not settings.regression else {}
    record: dict[str, Any]
    if trained is None:
        header = _header(settings, examples, statistics)
        record = {
            "mode": settings.mode,
            "experiment": experiment(settings.mode, origin["method"], settings.table_labels),
            "epochs": None if settings.regression else settings.max_epochs,
            "settings": reported(
                settings, **resolved, **({} if settings.regression else {"frozen_epochs": settings.frozen})
            ),
        }
    else:
        header, record = None, rescored(trained, settings.table_labels, reported(settings, **resolved))
    if examples.official:  # there were none, or a comparison would take its runs for those of one fold
        record["settings"] = {name: value for name, value in record["settings"].items() if name not in OF_FOLDS}
    return FinalEvaluation(
        settings.run_dir,
        bare_network,
        evaluators,
        best=best,
        header=header,
        about=about,
        record=record,
        bootstrap=settings.bootstrap,
        target_sensitivity=settings.target_sensitivity,
    )


def _identity(settings: ClassificationSettings, examples: Examples, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What a training that goes on must share."""
    return {
        "task": examples.task,
        "classes": list(examples.classes),
        "examples": examples.identity(),
        "weights": origin["id"],
        **{name: getattr(settings, name) for name in names(settings, "identity")},
        "seed": settings.run_seed,
    }


def _of_parts(
    plan: Plan,
    dataset: Split,
    network: Classifier,
    loss_function: Any,
    optimizer: Optimizer,
    schedule: Callable[[int], float] | None,
) -> dict[str, Any]:
    """The same of what the parts really hold, wherever it was configured; a training may go on for more epochs."""
    epochs = range(0, _POINTS * plan.batches_per_epoch, plan.batches_per_epoch)
    parts = parts_identity(
        points=[*range(_POINTS), *epochs],
        optimizer=optimizer,
        schedule=schedule,
        loss_function=loss_function,
        network=network,
    )
    if isinstance(loss_function, nn.Module):
        parts |= {f"loss {name}": value.tolist() for name, value in loss_function.named_buffers()}  # weights of classes
    made_by = type(dataset.transform).__name__
    values = plain_parts(getattr(dataset.transform, "__dict__", {}))
    # Computed means and deviations may differ in late digits, as pictures are added up on another number of cores.
    return (
        parts
        | {f"preprocessing {made_by}": True}
        | {
            f"preprocessing {name}": [float(f"{x:.6g}") for x in value] if name in ("mean", "std") else value
            for name, value in values
        }
    )


def _header(
    settings: ClassificationSettings, examples: Examples, statistics: tuple[Sequence[float], Sequence[float]]
) -> dict[str, Any]:
    """What the file of a network says of itself: how pictures are prepared for it, and which ones it has seen."""
    own = set(names(settings, "identity")) - set(names(ClassificationSettings))
    return {
        "task": examples.task,
        "classes": list(examples.classes),
        "positive": settings.positive,
        "backbone": settings.backbone,
        "channels": settings.channels,
        "image_size": settings.image_size,
        "resize": settings.resize,
        "transpose": settings.transpose,
        "mean": statistics[0],
        "std": statistics[1],
        **{name: getattr(settings, name) for name in names(settings) if name in own},
        "splits": examples.splits(),
        TRAINED_ON: "".join(examples.pixels("train")),
    }
