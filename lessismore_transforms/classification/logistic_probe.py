"""The linear layer of a classifier as a logistic regression on the features of a frozen encoder, its penalty swept.

The encoder sees each picture of the training and the validation split once, in evaluation mode and as it is. Features
are standardised by the training split. For each penalty, the strongest first, scikit-learn minimises

    sum over training pictures of -log p(label)  +  penalty / 2 * sum of the squared weights, biases left out

by L-BFGS, from the solution for the penalty before. The penalty whose solution is best on the validation split is
taken, the strongest of equal ones; test pictures have no part in it. The standardisation is folded into weights and
biases, so that the network takes pictures as after any other training. No random number is drawn.

The protocol is that of Kornblith et al. 2019 (arXiv 1805.08974, Section 3.2) and Chen et al. 2020 (arXiv 2002.05709,
Appendix B.8.1), who sweep 45 penalties without standardising. Standardised features make the same few penalties serve
encoders whose features differ in size by orders of magnitude, such as random and trained ones.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lessismore_transforms.classification.best_epoch import CRITERIA, KeepBest
from lessismore_transforms.classification.examples import Examples, Split
from lessismore_transforms.classification.finished_runs import METRICS_FILE
from lessismore_transforms.classification.loader import EvaluationLoader, PrepareExamples
from lessismore_transforms.classification.metrics import score
from lessismore_transforms.classification.network import Classifier
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.errors import UserError
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.training.assembly import make_engine, make_log
from lessismore_transforms.training.checkpoint import Checkpoint
from lessismore_transforms.training.curves import Curves
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.precision import AutocastInferer
from lessismore_transforms.training.processes import all_gather_objects, process_rank
from lessismore_transforms.training.run_log import RunLog
from lessismore_transforms.training.stopping import StopOnSignal
from lessismore_transforms.weights.backbones import three_channels
from lessismore_transforms.wording import counted

PENALTIES = tuple(10 ** (power / 2) for power in range(8, -9, -1))  # 1e4 to 1e-4, the strongest first
_ITERATIONS, _TOLERANCE = 2000, 1e-6  # of L-BFGS: the most, and the largest slope at which it ends, per picture
_CONSTANT = 1e-5  # deviation of a feature, as a share of its size, that is rounding of float32 and no information

_LOGGER = logging.getLogger("lessismore_transforms")

Floats = NDArray[np.float64]


def sweep_plan() -> Plan:
    """Length of a sweep: a step, which is an epoch too, for each penalty."""
    return Plan(1, len(PENALTIES))


class LogisticProbe:
    """Fit the linear layer of a network for one penalty after another: the `iteration_update` of a MONAI trainer.

    The number of the iteration tells the penalty. `engine.state.probe` then has penalty, loss of the training split,
    scores of the validation split, and the iterations of the solver.

    Args:
        network: without wrappers, on its device; only its linear layer changes.
        train: pictures that the layer is fitted to, with the transform that prepares them.
        val: pictures by which `best` judges.
        best: keeps the network of the best penalty.
        encode: runs the first argument, a batch of pictures, through the second, the encoder, in the right precision.
        batch_size: pictures that go through the encoder at once.
        workers: processes that prepare pictures.
        device: of the network.

    Attributes:
        start: what a checkpoint sets in a resumed run; the engine's own state tells as much.
    """

    def __init__(
        self,
        network: Classifier,
        train: Split,
        val: Split,
        best: KeepBest,
        encode: Callable[[torch.Tensor, nn.Module], torch.Tensor],
        *,
        batch_size: int,
        workers: int,
        device: str | torch.device,
    ) -> None:
        self.network, self.best, self.encode = network, best, encode
        self.device, self.batch_size, self.workers = torch.device(device), batch_size, workers
        self.train, self.val = train, val
        self.regression: Any = None
        self.start = 0
        self._solution: tuple[torch.Tensor, torch.Tensor] | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the trainer."""
        engine.add_event_handler(Events.STARTED, self._gather)
        engine.add_event_handler(Events.COMPLETED, self._conclude)

    def __call__(self, engine: Any, _: Any) -> dict[str, torch.Tensor]:
        """Fit the layer for the next penalty, and judge it."""
        number = engine.state.iteration
        penalty = PENALTIES[number - 1]
        fitted = self._fit(penalty) if process_rank() == 0 else None
        weights, biases, iterations = all_gather_objects(fitted)[0]
        self._solution = torch.from_numpy(weights), torch.from_numpy(biases)
        layer = self.network.classifier
        if not isinstance(layer, nn.Linear):  # settings refuse it before
            raise TypeError(f"expected a linear layer for a logistic regression, found {type(layer).__name__}")
        fill(layer, *folded(weights, biases, self._mean, self._scale))
        with torch.no_grad():
            loss = F.cross_entropy(layer(self._features["train"]), self._labels["train"])
            probabilities = layer(self._features["val"]).softmax(dim=1)
        found = score(self.val.labels, probabilities.double().cpu().numpy())
        scores: dict[str, Any] = {"accuracy": found["accuracy"], "auc": found["auc"], "loss": found["nll"]}
        engine.state.probe = {
            "loss": float(loss),
            "penalty": penalty,
            **{f"val_{name}": scores[name] for name in CRITERIA},
            "solver_iterations": iterations,
        }
        converged = iterations < _ITERATIONS
        self.best.judge(number, scores, {"penalty": penalty, "penalties": [*PENALTIES], "converged": converged})
        return {"loss": loss}

    def state_dict(self) -> dict[str, Any]:
        """The solution for the penalty before, from which the next one begins."""
        return {"solution": self._solution}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._solution = state["solution"]

    def _gather(self, _: Engine) -> None:
        splits = {split.name: split for split in (self.train, self.val)}
        found = {name: self._features_of(split) for name, split in splits.items()}
        self._features = {name: values.to(self.device) for name, values in found.items()}
        self._labels = {name: torch.from_numpy(split.labels).to(self.device) for name, split in splits.items()}
        values = found["train"].double().numpy()
        self._mean, self._scale = standardisation(values)
        self._standardised = (values - self._mean) / self._scale

    @torch.no_grad()
    def _features_of(self, split: Split) -> torch.Tensor:
        """Features float32 (N, F) of a split, on the CPU; each process encodes its share.

        Raises:
            UserError: a feature is not finite.
        """
        encoder = self.network.eval().backbone
        pinned = self.device.type == "cuda"
        loader = EvaluationLoader(split, self.batch_size, workers=self.workers, pin_memory=pinned)
        prepare = PrepareExamples()
        hidden = process_rank() != 0
        parts = []
        for batch in progress_bar(loader, desc=f"features of {split.name}", unit=" batches", hidden=hidden):
            images, _ = prepare(batch, self.device)
            parts.append((batch["index"], self.encode(three_channels(images), encoder).float().cpu()))
        parts = [part for each in all_gather_objects(parts) for part in each]
        order = torch.cat([index for index, _ in parts]).argsort()
        features = torch.cat([values for _, values in parts])[order]
        if bad := int((~features.isfinite()).any(dim=1).sum()):
            raise UserError(
                f"expected finite features, found others for {bad} of {counted(len(features), 'picture')} of "
                f"{split.name}: give other weights, or --precision fp32"
            )
        return features

    def _fit(self, penalty: float) -> tuple[Floats, Floats, int]:
        """Weights (C, F) of standardised features, or (1, F) for two classes, biases, and iterations of the solver."""
        from sklearn.exceptions import ConvergenceWarning  # takes a second to import
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1 / penalty, tol=_TOLERANCE, max_iter=_ITERATIONS, warm_start=True)
        if self._solution is not None:
            model.coef_, model.intercept_ = (values.numpy() for values in self._solution)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told of the penalty that is taken alone
            model.fit(self._standardised, self.train.labels)
        return model.coef_, model.intercept_, int(model.n_iter_[0])

    def _conclude(self, _: Engine) -> None:
        told = self.best.told
        if process_rank() == 0 and not told["converged"]:
            _LOGGER.warning(
                "the regression of the penalty %.3g that was chosen had not converged after %d iterations",
                told["penalty"],
                _ITERATIONS,
            )


class SweepLog(RunLog):
    """The log of a sweep: a line for each penalty, which holds what the probe left, and no learning rate or speed."""

    def __call__(self, engine: Any) -> None:
        """Move the progress bar."""
        if self._bar is not None:
            self._bar.update(1)


def standardisation(features: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation (F,) of features (N, F); the deviation of constant ones is infinite, which makes them 0."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    size = np.sqrt(np.square(features).mean(axis=0))
    return mean, np.where(deviation <= _CONSTANT * size, np.inf, deviation)


def folded(weights: Floats, biases: Floats, mean: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """Weights (C, F) and biases (C,) of features as they are, from those of standardised ones.

    Args:
        weights: (C, F); or (1, F) of the second of two classes against the first, which get one half each.
        biases: (C,) or (1,).
        mean: (F,) that is subtracted.
        scale: (F,) that is divided by.
    """
    if len(weights) == 1:
        half = np.array([[-0.5], [0.5]])
        weights, biases = half @ weights, half[:, 0] * biases
    weights = weights / scale
    return weights, biases - weights @ mean


def fill(layer: nn.Linear, weights: Floats, biases: Floats) -> None:
    """Put weights (C, F) and biases (C,) into a linear layer, in its own precision."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(biases))


def make_sweep(
    settings: ClassificationSettings,
    *,
    plan: Plan,
    examples: Examples,
    dataset: Split,
    identity: Mapping[str, Any],
    bare_network: Classifier,
    loss_function: Callable[..., torch.Tensor],
    optimizer: Optimizer,
    inferer: AutocastInferer,
    best: KeepBest,
    train_handlers: Sequence[Any] = (),
    configuration: Mapping[str, Any] | None = None,
) -> SupervisedTrainer:
    """Trainer whose steps are the penalties of a `LogisticProbe`.

    Args:
        settings: what all tasks share; `resume` takes the state of checkpoints/last.pt at once.
        plan: of `sweep_plan`.
        examples: all pictures.
        dataset: the training split, with the transform that prepares pictures.
        identity: what a run that goes on must share.
        bare_network: the network on its device, without wrappers.
        loss_function: not used.
        optimizer: not used.
        inferer: runs the network in its precision.
        best: keeps the best network.
        train_handlers: further handlers.
        configuration: all that was configured, for config.json.

    Raises:
        UserError: settings, data and a checkpoint that is resumed do not fit each other.
        OutputError: the output folder cannot be written.
    """
    probe = LogisticProbe(
        bare_network,
        dataset,
        Split(examples, "val", dataset.transform),
        best,
        inferer,
        batch_size=settings.batch_size,
        workers=settings.workers,
        device=settings.device,
    )
    log = make_log(settings.run_dir, settings, plan, optimizer, inferer, configuration, kind=SweepLog)
    checkpoint = Checkpoint(
        settings.run_dir,
        bare_network,
        {"best": best, "log": log, "probe": probe},
        identity={**identity, "max_epochs": None},  # there is nothing to make longer
        sampler=cast(Any, probe),
        plan=plan,
        resume=settings.resume,
        minutes=settings.checkpoint_minutes,
        after=settings.run_dir / METRICS_FILE,
    )
    handlers = [*train_handlers, log, StopOnSignal(), checkpoint, probe, Curves(settings.run_dir)]
    return make_engine(
        plan,
        max_epochs=plan.max_epochs,
        device=settings.device,
        loader=PENALTIES,
        network=bare_network,
        loss_function=loss_function,
        optimizer=optimizer,
        inferer=inferer,
        prepare_batch=PrepareExamples(),
        handlers=handlers,
        iteration_update=probe,
    )
