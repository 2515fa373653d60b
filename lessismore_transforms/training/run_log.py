"""The records of a run: log.jsonl, TensorBoard, a progress bar, and config.json with its settings."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import torch
from ignite.engine import Engine, Events
from torch.optim import Optimizer

from lessismore_transforms import __version__
from lessismore_transforms.atomic import finite, lock, write_json, writing
from lessismore_transforms.errors import UserError
from lessismore_transforms.progress import has_bars, progress_bar
from lessismore_transforms.training.curves import LOG, length_until
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.processes import all_gather, process_count, process_rank
from lessismore_transforms.training.stopping import on_end, stopped
from lessismore_transforms.wording import duration

CONFIG, EVENTS = "config.json", "tensorboard"
_SAID_S = 10.0  # seconds between two lines on the screen, where it shows no bar


class RunLog:
    """Write a line of log.jsonl, and its numbers to TensorBoard, every few steps.

    A line holds step, epoch (of the set, also where the plan counts steps), the mean loss since the line before,
    learning rate and images per second, and the numbers that monitors and probes left in `engine.state.health` and
    `engine.state.probe`. A resumed run drops the lines that are newer than its checkpoint. Only process 0 writes.

    Args:
        folder: of the run.
        optimizer: its learning rate is logged.
        plan: length of the run.
        batch_size: of all processes together.
        settings: plain values, for config.json and the first line.
        configuration: the whole configuration, for config.json.
        interval: steps between lines.

    Attributes:
        trainer: what the trainer was put together from, for config.json.
        found: plain values that were found out before the first step, for config.json and the first line.
        says: a sentence about them that is printed at the start, empty for none.

    Raises:
        UserError: the interval is below 1.
    """

    def __init__(
        self,
        folder: str | Path,
        optimizer: Optimizer,
        plan: Plan,
        *,
        batch_size: int,
        settings: Mapping[str, Any],
        configuration: Mapping[str, Any] | None = None,
        interval: int = 10,
    ) -> None:
        if interval < 1:
            raise UserError(f"expected a log_interval of 1 step or more, found {interval}; 10 is usual")
        self.folder, self.optimizer, self.plan = Path(folder), optimizer, plan
        self.batch_size, self.interval = batch_size, interval
        self.settings, self.configuration = dict(settings), dict(configuration or {})
        self.trainer: dict[str, Any] = {}
        self.found: dict[str, Any] = {}
        self.says = ""
        self._losses: torch.Tensor | None = None
        self._count = 0
        self._file: IO[str] | None = None
        self._writer: Any = None
        self._bar: Any = None
        self._since = (0.0, 0)
        self._said = self._began = (0.0, 0)  # when, and at which iteration

    def state_dict(self) -> dict[str, float]:
        """The losses since the last line, for the mean in the next one."""
        return {"losses": 0.0 if self._losses is None else float(self._losses), "count": self._count}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on with the losses since the last line."""
        self._losses, self._count = torch.tensor([state["losses"]], dtype=torch.float64), int(state["count"])

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._probed)
        on_end(engine, self._close)

    def __call__(self, engine: Any) -> None:
        """Take the loss of the iteration that ended; write a line if one is due."""
        loss = engine.state.output["loss"].detach().double().reshape(1)
        self._losses = loss if self._losses is None else self._losses.to(loss.device) + loss
        self._count += 1
        if engine.state.iteration % (self.interval * self.plan.accumulation) == 0:
            mean = float(all_gather(self._losses).mean()) / self._count
            self._losses, self._count = None, 0
            now, iteration = time.perf_counter(), engine.state.iteration
            speed = self.batch_size * (iteration - self._since[1]) / (now - self._since[0])
            self._since = now, iteration
            rate = self.optimizer.param_groups[0]["lr"]
            self._write(
                engine,
                {
                    "loss": mean,
                    "learning_rate": rate,
                    "images_per_second": speed,
                    **getattr(engine.state, "health", {}),
                },
            )
            if self._bar is not None:
                self._bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
                self._bar.update(iteration // self.plan.accumulation - self._bar.n)
            elif self._file is not None and now - self._said[0] >= _SAID_S:
                self._said = now, iteration
                self._say(engine, mean, rate, speed)
        elif health := getattr(engine.state, "health", {}):
            self._write(engine, health)
        for sentence in getattr(engine.state, "advice", []):
            self._write(engine, {"advice": sentence})
        self._probed(engine)  # here where probes come by steps

    def _say(self, engine: Any, loss: float, rate: float, speed: float) -> None:
        """Print how far the training is; the time that is left is told by the speed since it began."""
        seconds, iterations = (now - then for now, then in zip(self._since, self._began, strict=True))
        left = seconds / iterations * (self.plan.iterations - engine.state.iteration)
        step = engine.state.iteration // self.plan.accumulation
        epoch = "" if self.plan.by_steps else f", epoch {engine.state.epoch:,}"  # there a setting's epoch is a share
        print(
            f"step {step:,} of {self.plan.steps:,}{epoch}: loss {loss:.4f}, learning rate {rate:.3g}, "
            f"{speed:,.0f} pictures/s, {duration(left)} left",
            flush=True,
        )

    def _open(self, engine: Any) -> None:
        if process_rank() != 0:
            return
        step = engine.state.iteration // self.plan.accumulation
        path = self.folder / LOG
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", buffering=1, encoding="utf-8")
        lock(self._file, self.folder)
        kept = length_until(self.folder, step) if step else 0
        with writing(path):
            self._file.truncate(kept)  # what came after the checkpoint comes again
        software = {name: version(name) for name in ("torch", "monai", "timm")} | {"python": platform.python_version()}
        run = {
            "version": __version__,
            **software,
            "device": _device_name(engine.state.device),
            "processes": process_count(),
        }
        plan = {"steps": self.plan.steps, "epochs": self.plan.max_epochs, "steps_per_epoch": self._epoch_steps}
        content = {
            "settings": self.settings,
            "plan": plan,
            **run,
            **self.found,
            "configuration": self.configuration,
            "trainer": self.trainer,
        }
        write_json(self.folder / CONFIG, content)
        event = {"event": "resume" if step else "begin", "step": step, "time": _now()}
        self._line({**event, **run, **self.found, "settings": self.settings})
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(self.folder / EVENTS, purge_step=step + 1 if step else None)
        print(f"training in {self.folder}: steps {step + 1} to {self.plan.steps} on {run['device']}", flush=True)
        if self.says:
            print(self.says, flush=True)
        if has_bars():
            self._bar = progress_bar(total=self.plan.steps, initial=step, desc="train", unit=" steps")
        self._since = self._began = time.perf_counter(), engine.state.iteration
        self._probed(engine)

    @property
    def _epoch_steps(self) -> int:
        return self.plan.batches_per_epoch // self.plan.accumulation

    def _probed(self, engine: Any) -> None:
        if probe := getattr(engine.state, "probe", {}):
            self._write(engine, probe)
            engine.state.probe = {}

    def _write(self, engine: Any, values: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        step = engine.state.iteration // self.plan.accumulation
        self._line({"step": step, "epoch": engine.state.epoch, **values})
        for name, value in values.items():
            if isinstance(value, str):
                self._writer.add_text(name, value, step)
            else:
                self._writer.add_scalar(name, value, step)

    def _line(self, content: Mapping[str, Any]) -> None:
        assert self._file is not None
        with writing(self.folder / LOG):
            self._file.write(json.dumps(finite(content), ensure_ascii=False) + "\n")

    def _close(self, engine: Any) -> None:
        self._probed(engine)
        if self._file is None:
            return
        reason = stopped(engine)
        step = engine.state.iteration // self.plan.accumulation
        end = {"event": "stop", "reason": reason.sentence} if reason else {"event": "end"}
        self._line({**end, "step": step, "time": _now()})
        if self._bar is not None:
            self._bar.close()
        if reason is None:
            print(f"finished step {step} of {self.plan.steps}: the results are in {self.folder}", flush=True)
        self._writer.close()
        self._file.close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
