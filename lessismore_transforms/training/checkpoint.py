"""The state of a training on disk: written whole or not at all, and resumed by the same training only."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from ignite.engine import Engine, Events
from torch import nn

from lessismore_transforms import __version__
from lessismore_transforms.atomic import atomic_write, remove_temporaries, writing
from lessismore_transforms.errors import OutputError, UserError, reading
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.processes import process_rank, wait
from lessismore_transforms.training.sealed_file import is_whole, sealed
from lessismore_transforms.training.stopping import all_finite, not_finite, on_end, stopped
from lessismore_transforms.weights.safe_load import load_safely

if TYPE_CHECKING:
    from lessismore_transforms.training.loader import StepSampler

LAST = Path("checkpoints", "last.pt")
_FORMAT = 1
_FORMER_VALUES = {"sampling": "random"}  # what a checkpoint without that setting did
_FORMER_NAMES = {"log": "journal"}  # in checkpoints of 0.1.0


class Stateful(Protocol):
    """An object whose state a resumed run needs."""

    def state_dict(self) -> Any:
        """The state to save."""

    def load_state_dict(self, state: Any) -> Any:
        """Go on from a saved state."""


class Checkpoint:
    """Write `checkpoints/last.pt` of a run again and again, so that the run can be resumed at any iteration.

    The first checkpoint is written before the first iteration, so that a folder without write access or a full disk
    is noticed at once. Attach it after all handlers that may stop the run.

    Args:
        folder: of the run.
        network: without wrappers.
        state: other objects to save, by name: the optimizer, handlers with a state.
        identity: plain values that must be equal in a resumed run, such as the method and the checksum of its slices;
            a run whose `max_epochs` is among them cannot be made longer.
        sampler: gets the iteration from which a resumed run goes on.
        plan: length of the run.
        resume: go on from `checkpoints/last.pt` instead of starting anew.
        minutes: time between two checkpoints; 0 writes one after every epoch.
        exports: number of bytes that the run will write besides.
        after: a file that is written when the training is over; while it is missing, a run whose training is complete
            can be resumed to write it.

    Raises:
        UserError: there is nothing to resume, or the checkpoint is damaged, of another training, or of a finished one;
            or there is a run in the folder already and it is not to be resumed.
        OutputError: the folder cannot be written, or the disk has no room.
    """

    def __init__(
        self,
        folder: str | Path,
        network: nn.Module,
        state: Mapping[str, Stateful],
        *,
        identity: Mapping[str, Any],
        sampler: StepSampler,
        plan: Plan,
        resume: bool = False,
        minutes: float = 5.0,
        exports: int = 0,
        after: str | Path | None = None,
    ) -> None:
        if not isinstance(minutes, (int, float)) or minutes < 0:
            raise UserError(f"expected checkpoint_minutes of 0 or more, found {minutes!r}; 5 is usual")
        self.path = Path(folder) / LAST
        self.network = network
        self.state: dict[str, Stateful] = {"network": network, **state}
        self.identity, self.sampler, self.plan = dict(identity), sampler, plan
        self.resume, self.minutes, self.exports = resume, minutes, exports
        self.after = None if after is None else Path(after)
        self._scaler: Any = None
        self._written = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Load the saved state, if the run is resumed, and follow an engine."""
        if self.resume:
            self._load(engine)
        elif self.path.exists() and read_checkpoint(self.path)["iteration"]:
            raise UserError(
                f"found a run in {self.path.parents[1]} already: --resume True goes on with it, "
                "or name another output_dir"
            )
        wait()  # before the first process writes what the others look for
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        on_end(engine, self._end)

    def _start(self, engine: Any) -> None:
        if self._scaler is not None and engine.scaler is not None:
            engine.scaler.load_state_dict(self._scaler)
        if process_rank() == 0:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                remove_temporaries(self.path.parent)
            self._save(engine)
            # Optimizers add up to two moments of each weight, and the old checkpoint stays until the new one is whole.
            weights = sum(int(value.nbytes) for value in self.network.parameters())
            largest, free = self.path.stat().st_size + 2 * weights, shutil.disk_usage(self.path).free
            needed = 2 * largest + self.exports
            if free < needed:
                raise OutputError(
                    f"expected {needed / 2**30:.2f} GiB for the checkpoints and backbones of the run in "
                    f"{self.path.parents[1]}, found {free / 2**30:.2f} GiB free: make room or name another output_dir"
                )
        wait()

    def _iteration(self, engine: Any) -> None:
        ends_epoch = engine.state.iteration % self.plan.batches_per_epoch == 0  # what belongs to that is still to come
        if self.minutes and not ends_epoch and engine.state.iteration % self.plan.accumulation == 0:
            self._epoch(engine)

    def _epoch(self, engine: Any) -> None:
        if time.monotonic() - self._written >= 60 * self.minutes and not stopped(engine):
            self._save(engine)

    def _end(self, engine: Any) -> None:
        reason = stopped(engine)
        if reason is None or reason.keep:
            if all_finite(self.network):
                self._save(engine)
            else:
                engine.state.stop = not_finite("network", engine.state.iteration)
        wait()

    def _save(self, engine: Any) -> None:
        if process_rank() != 0 or not all_finite(self.network):  # `StopOnNan` will report it at its next check
            return
        content = {
            "format": _FORMAT,
            "version": __version__,
            "identity": self.identity,
            "iteration": engine.state.iteration,
            "state": {name: item.state_dict() for name, item in self.state.items()},
            "scaler": engine.scaler.state_dict() if engine.scaler is not None else None,
        }
        write_checkpoint(self.path, content)
        self._written = time.monotonic()

    def _load(self, engine: Any) -> None:
        content = read_checkpoint(self.path)
        for name, expected in self.identity.items():
            found = content["identity"].get(name, _FORMER_VALUES.get(name))
            if found != expected:
                raise UserError(
                    f"expected to go on with {name} {expected!r}, found {found!r} in {self.path}: "
                    "give what the run began with, or name another output_dir"
                )
        iteration = content["iteration"]
        to_write = self.after is not None and not self.after.exists()
        if iteration > self.plan.iterations or (iteration == self.plan.iterations and not to_write):
            longer = "" if "max_epochs" in self.identity else "give a larger max_epochs, or "
            raise UserError(
                f"the run in {self.path.parents[1]} is finished, {iteration} of {self.plan.iterations} iterations: "
                f"{longer}name another output_dir"
            )
        for name, item in self.state.items():
            try:
                with keeping_settings(item):
                    item.load_state_dict(_state_of(content["state"], name))
            except (RuntimeError, ValueError, KeyError) as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"expected the {name} of this configuration in {self.path}, found another one ({reason}): "
                    "give the settings that the run began with"
                ) from error
        self._scaler = content["scaler"]
        self.sampler.start = iteration
        engine.load_state_dict(
            {
                "iteration": iteration,
                "max_epochs": self.plan.max_epochs,
                "epoch_length": self.plan.batches_per_epoch,
            }
        )


def _state_of(saved: Mapping[str, Any], name: str) -> Any:
    """The saved state of that name, or of the name that it had before."""
    return saved[_FORMER_NAMES.get(name, name) if name not in saved else name]


@contextmanager
def keeping_settings(item: Any) -> Iterator[None]:
    """Make an optimizer keep the settings of the configuration, such as weight decay, when it loads a state."""
    settings = [dict(group, params=None) for group in getattr(item, "param_groups", [])]
    yield
    for group, values in zip(getattr(item, "param_groups", []), settings, strict=True):
        group.update({name: value for name, value in values.items() if name != "params"})


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint with its checksum, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()  # torch.save makes something unreadable of a disk that is full
    torch.save(content, buffer)
    with atomic_write(path, "wb") as file:
        file.writelines(sealed(buffer.getbuffer()))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; nothing in the file is executed.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of ours.
    """
    if not path.is_file():
        raise UserError(f"expected a checkpoint to resume at {path}, found none; leave --resume out to begin")
    with reading(path):
        data = path.read_bytes()
    if not is_whole(data):
        raise UserError(
            f"expected a checkpoint with its checksum in {path}, found a file that is damaged, cut short or of another "
            "version: put a whole copy of it there, or begin again in another output_dir"
        )
    content = load_safely(path, "a checkpoint", "begin again in another output_dir")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise UserError(
            f"expected a checkpoint of format {_FORMAT} in {path}, found something else; name another output_dir"
        )
    return content
