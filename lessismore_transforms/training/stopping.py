"""Early ends of a training, with their reasons: a loss that is not finite, a signal, the end of the plan."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.processes import all_gather, process_count

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Stop:
    """The reason why a training stopped early: a sentence, the exit code, and whether its state is worth keeping."""

    sentence: str
    code: int
    keep: bool


def stop(engine: Any, reason: Stop) -> None:
    """End the training of an engine early, without running the handlers of its regular end."""
    engine.state.stop = reason
    engine.terminate(skip_completed=True)


def stopped(engine: Any) -> Stop | None:
    """The reason why the training of an engine stopped early; None if it did not."""
    reason: Stop | None = getattr(engine.state, "stop", None)
    return reason


def on_end(engine: Engine, act: Callable[[Any], None]) -> None:
    """Call `act(engine)` once, when the training of an engine is complete or stopped early."""
    engine.add_event_handler(Events.COMPLETED, act)
    engine.add_event_handler(Events.TERMINATE, lambda engine: act(engine) if stopped(engine) else None)


def run_rest(engine: Any, plan: Plan) -> None:
    """Run the rest of a training; a complete one that was resumed is left alone, as the engine would start it anew."""
    if engine.state.iteration < plan.iterations:
        engine.run()


def conclude(engine: Any) -> None:
    """End the program with a sentence and an exit code if the training stopped early.

    Raises:
        SystemExit: the training stopped early.
    """
    if reason := stopped(engine):
        if engine.state.rank == 0:
            print(f"error: {reason.sentence}", file=sys.stderr)
        raise SystemExit(reason.code)


class StopAtEnd:
    """End the training after the last iteration of a plan, where that is not the end of an epoch."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """End the training if the iteration that ended is the last one."""
        iteration, epoch = self.plan.iterations, self.plan.batches_per_epoch
        if engine.state.iteration == iteration and iteration % epoch and not stopped(engine):
            engine.terminate()


class StopOnNan:
    """Stop when the loss or a weight is not finite, before the spoilt state is saved.

    Reading the loss of every iteration would make the host wait for the GPU. So the losses are checked on the device,
    and the result is read every `interval` iterations and at the end of each epoch. Attach it before handlers that
    save.

    Args:
        network: its weights and buffers are checked.
        interval: iterations between checks.
    """

    def __init__(self, network: nn.Module, interval: int = 10) -> None:
        self.network, self.interval = network, interval
        self._bad: torch.Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self)
        engine.add_event_handler(Events.EPOCH_COMPLETED | Events.COMPLETED, self)

    def _note(self, engine: Any) -> None:
        bad = ~torch.isfinite(engine.state.output["loss"].detach()).reshape(1)
        self._bad = bad if self._bad is None else self._bad | bad

    def __call__(self, engine: Any) -> None:
        """Check the losses since the last check, and the weights."""
        if self._bad is None or stopped(engine):
            return
        loss_is_bad = all_gather(self._bad).any()
        weight_is_bad = all_gather(~all_finite(self.network).reshape(1)).any()  # buffers differ between processes
        self._bad = None
        if loss_is_bad or weight_is_bad:
            stop(engine, not_finite("loss" if loss_is_bad else "network", engine.state.iteration))


def not_finite(what: str, iteration: int) -> Stop:
    """The reason to stop a training whose loss or network is not finite."""
    sentence = (
        f"the {what} is no finite number at iteration {iteration}: the last good state is in checkpoints/last.pt; go "
        "on from there with --resume True and precision fp32 or bf16, or begin again with a smaller learning rate"
    )
    return Stop(sentence, 1, keep=False)


def all_finite(network: nn.Module) -> torch.Tensor:
    """Whether every weight and buffer of a network is a finite number, as a bool () on its device."""
    values = [value for value in network.state_dict().values() if value.is_floating_point()]
    return torch.stack([torch.isfinite(value).all() for value in values]).all()


class StopOnSignal:
    """Stop at the end of a step, its state kept, when a process is asked to end (SIGTERM, Ctrl-C).

    Args:
        accumulation: iterations of a step.
        interval: steps after which several processes ask each other; one alone looks after every step.
    """

    def __init__(self, accumulation: int = 1, interval: int = 10) -> None:
        self.accumulation, self.interval = accumulation, interval
        self._received = 0
        self._former: dict[int, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        engine.add_event_handler(Events.STARTED, self._install)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        on_end(engine, self._remove)

    def _iteration(self, engine: Any) -> None:
        iteration = engine.state.iteration
        # What belongs to the end of an epoch is done first: a resumed run would begin with the next one.
        ends_epoch = iteration % engine.state.epoch_length == 0
        if not ends_epoch and iteration % (self.accumulation * (self.interval if process_count() > 1 else 1)) == 0:
            self(engine)

    def __call__(self, engine: Any) -> None:
        """Stop if a signal has come to any process."""
        if stopped(engine):
            return
        received = self._received
        if process_count() > 1:
            received = int(all_gather(torch.tensor([received], device=engine.state.device)).max())
        if received:
            name = signal.Signals(received).name
            sentence = f"stopped by {name} after iteration {engine.state.iteration}: go on with --resume True"
            stop(engine, Stop(sentence, 128 + received, keep=True))

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # signals belong to the main one
            return
        self._former = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _remove(self, *_: Any) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}

    def _receive(self, number: int, _: Any) -> None:
        if self._received and number == signal.SIGINT:  # a second Ctrl-C means now; schedulers may send SIGTERM twice
            self._remove()
            signal.raise_signal(number)
        self._received = number
