"""The health of a training: monitors that check it every few iterations, and one sentence of advice for each problem.

A monitor computes indicators and detects a problem in them; `HealthMonitor` calls the monitors and reports a problem
once it has lasted. The bounds come from 200 steps of small networks on phantoms and CT slices, healthy and broken on
purpose; `tests/pretraining/test_health.py` holds those trajectories.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events

from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.indicators import NEAR_BITS, near_copies, prototype_usage, rank_me, spread
from lessismore_transforms.pretraining.near_copy_mask import NearCopyMask
from lessismore_transforms.training.processes import process_count, process_rank
from lessismore_transforms.wording import counted

GRACE = 100  # iterations: even a healthy MoCo is nearly collapsed after 20, and recovers by itself
ROWS = 256  # embeddings that RankMe is measured on
LEAST_SPREAD, LEAST_RANK = 0.1, 2.5  # a point; a line through it, which leaves two directions and noise
LOW_RANK = 3.2  # where the spread fell too; then this bound holds instead of LEAST_RANK
LEAST_USAGE = 0.1  # of all prototypes
NOTHING_LEARNT = 0.99  # of the loss of a network that cannot distinguish any pictures


class Monitor:
    """A check of one property; a problem is reported when it was found in `patience` checks in a row."""

    patience = 3

    def watch(self, engine: Any) -> None:
        """Remember what the indicators need of an iteration, without waiting for the device."""

    def __call__(self, engine: Any) -> dict[str, float]:
        """The current indicators by name."""
        raise NotImplementedError

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """One sentence on the problem in these indicators and its remedy; None if there is no problem."""

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""


class HealthMonitor:
    """Call monitors at the first iteration and every `interval` iterations, on the first process, for its own share.

    `engine.state.health` holds their indicators and `engine.state.advice` the sentences to report; both are empty after
    other iterations. A problem is reported once it has lasted for its monitor's patience, and again only if it was gone
    for as many checks in between. Attach it before the handlers that log these.

    Args:
        monitors: at most one of each class.
        interval: iterations between checks.
    """

    def __init__(self, monitors: Sequence[Monitor], *, interval: int = 20) -> None:
        if interval < 1:
            raise UserError(
                f"expected an interval of 1 iteration or more between checks, found {interval}; 20 is usual"
            )
        self.monitors = {type(monitor).__name__: monitor for monitor in monitors}
        self.interval = interval
        self._changed = dict.fromkeys(self.monitors, 0)  # checks in a row whose result differs from the reported state
        self._reported = dict.fromkeys(self.monitors, False)  # whether the last reported state is a problem

    def attach(self, engine: Engine) -> None:
        """Follow an engine of MONAI."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Run the monitors, if a check is due."""
        engine.state.health, engine.state.advice = {}, []
        if process_rank() != 0:
            return
        for monitor in self.monitors.values():
            monitor.watch(engine)
        iteration = engine.state.iteration
        if iteration > 1 and iteration % self.interval:
            return
        for name, monitor in self.monitors.items():
            figures = monitor(engine)
            engine.state.health.update(figures)
            sentence = monitor.trouble(figures, iteration) if figures else None
            if self._due(name, sentence is not None, monitor.patience) and sentence is not None:
                engine.state.advice.append(sentence)
                logging.getLogger("lessismore_transforms").warning("%s", sentence)

    def _due(self, name: str, troubled: bool, patience: int) -> bool:
        """Whether the state of a monitor has now differed from the reported one for `patience` checks in a row.

        The new state then counts as reported.
        """
        self._changed[name] = self._changed[name] + 1 if troubled != self._reported[name] else 0
        if self._changed[name] < patience:
            return False
        self._changed[name], self._reported[name] = 0, troubled
        return True

    def state_dict(self) -> dict[str, Any]:
        """The reported states, and the states of the monitors."""
        monitors = {name: monitor.state_dict() for name, monitor in self.monitors.items()}
        return {"lasted": dict(self._changed), "told": dict(self._reported), "monitors": monitors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; a monitor without a saved state begins anew."""
        for name, monitor in self.monitors.items():
            if name in state["monitors"]:
                self._changed[name], self._reported[name] = state["lasted"][name], state["told"][name]
                monitor.load_state_dict(state["monitors"][name])


class Collapse(Monitor):
    """Detects embeddings that become all alike, by `spread` and `rank_me`.

    Both are computed from the newest embeddings, 256 or one batch if that is more. RankMe takes the batches of several
    iterations together. The spread is the mean over these batches, because the embeddings of a network that jumps from
    step to step would look spread if they were taken together. It is a problem if the spread is less than half of the
    first one and below 0.1, or if RankMe is less than a quarter of the first one and below 2.5 (below 3.2 if the spread
    fell by half too).

    Args:
        grace: iterations before which nothing is reported. For MoCo add those that fill its queue: a collapsed network
            distinguishes the random keys of the start most easily, so that a healthy network begins collapsed.
        lowest: the least that the loss can be, where a constant embedding reaches it (BYOL, SimSiam): the loss then
            falls while nothing is learnt.
    """

    def __init__(self, grace: int = GRACE, lowest: float | None = None) -> None:
        self.grace, self.lowest = grace, lowest
        self._rows: deque[torch.Tensor] = deque()
        self._first: dict[str, float] = {}

    def watch(self, engine: Any) -> None:
        """Keep the embeddings."""
        batch = engine.state.output["pred"]["embedding"].detach().float().clone()  # (B, D)
        self._rows.append(batch)
        while (len(self._rows) - 1) * len(batch) >= ROWS:
            self._rows.popleft()

    def __call__(self, engine: Any) -> dict[str, float]:
        """`spread` and `rank_me`; nothing where embeddings are not finite."""
        batches = [batch.to(self._rows[-1].device) for batch in self._rows]  # those of a checkpoint lie on the CPU
        embedding = torch.cat(batches)  # (N, D)
        if not embedding.isfinite().all() or len(batches[-1]) < 2:  # one picture has no spread
            return {}
        spreads = torch.stack([spread(batch) for batch in batches])
        figures = {"spread": spreads.mean().item(), "rank_me": rank_me(embedding).item()}
        self._first = self._first or figures
        if self.lowest is not None:
            figures = {**figures, "loss_above_lowest": float(engine.state.output["loss"].detach()) - self.lowest}
        return figures

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """A sentence if the embeddings collapsed."""
        now, first = figures, self._first
        shrunk = now["spread"] < first["spread"] / 2
        constant = shrunk and now["spread"] < LEAST_SPREAD
        flat = now["rank_me"] < min(LOW_RANK if shrunk else LEAST_RANK, first["rank_me"] / 4)
        if iteration < self.grace or not (constant or flat):
            return None
        low = "" if self.lowest is None else f", while the loss is {now['loss_above_lowest']:.2g} above its least"
        return (
            f"the embeddings collapse: at iteration {iteration} their spread is {now['spread']:.2g} (at first "
            f"{first['spread']:.2g}, at best 1) and their RankMe {now['rank_me']:.1f} (at first "
            f"{first['rank_me']:.1f}){low}, so that all pictures look alike to the network; begin again with a "
            "learning rate that is 3 to 10 times smaller or a longer warm-up"
        )

    def state_dict(self) -> dict[str, Any]:
        """The first indicators and the embeddings kept."""
        return {"first": dict(self._first), "rows": list(self._rows)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state: compare with the first indicators of the run."""
        self._first, self._rows = dict(state["first"]), deque(state["rows"])


class PrototypeUsage(Monitor):
    """Detects prototypes of SwAV that are not used.

    The share in use is computed from the network's own soft assignments, because the codes use all prototypes evenly by
    construction. It is that of the newest pictures, twice as many as there are prototypes. A share below 0.1 is a
    problem.

    Args:
        temperature: of the loss.
        grace: iterations before which nothing is reported.
    """

    def __init__(self, temperature: float = 0.1, grace: int = GRACE) -> None:
        self.temperature, self.grace = temperature, grace
        self._means: deque[torch.Tensor] = deque()

    def watch(self, engine: Any) -> None:
        """Keep the mean assignment of the first crops."""
        scores = engine.state.output["pred"]["scores"][0].detach().float()  # (B, K)
        batch, prototypes = scores.shape
        self._means.append((scores / self.temperature).softmax(dim=1).mean(dim=0))  # (K,)
        while (len(self._means) - 1) * batch >= 2 * prototypes:
            self._means.popleft()

    def __call__(self, engine: Any) -> dict[str, float]:
        """The indicator `prototype_usage`."""
        means = torch.stack([mean.to(self._means[-1].device) for mean in self._means])
        return {"prototype_usage": prototype_usage(means).item()}

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """A sentence if prototypes are not used."""
        usage, prototypes = figures["prototype_usage"], len(self._means[-1])
        if iteration < self.grace or usage >= LEAST_USAGE:
            return None
        return (
            f"the prototypes lie idle: at iteration {iteration} about {usage * prototypes:.0f} of {prototypes} are in "
            "use; take fewer of them, freeze them for longer, or take a smaller learning rate"
        )

    def state_dict(self) -> dict[str, Any]:
        """The mean assignments kept."""
        return {"means": list(self._means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the mean assignments of a saved state."""
        self._means = deque(state["means"])


class QueueAge(Monitor):
    """Logs the age of the oldest key in MoCo's queue, and detects a queue that is too long for the data set.

    A queue that can hold more than half as many keys as there are slices is a problem from the start: within two epochs
    a picture meets its own older keys, and soon every picture does.

    Args:
        network: the bare `MoCo`, whose buffer `queue_index` (K,) holds the slice of each key, -1 for random ones.
        slices: number of slices in the data set.
    """

    patience = 1

    def __init__(self, network: Any, slices: int) -> None:
        self.network, self.slices = network, slices

    def __call__(self, engine: Any) -> dict[str, float]:
        """`queue_age_steps` and `queue_age_epochs`: age of the oldest key in batches and in epochs."""
        keys = int((self.network.queue_index >= 0).sum())
        batch = len(engine.state.output["pred"]["embedding"]) * process_count()
        return {"queue_age_steps": keys / batch, "queue_age_epochs": keys / self.slices}

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """A sentence if the queue is too long."""
        keys = len(self.network.queue_index)
        if keys <= self.slices / 2:
            return None
        return (
            f"the queue outgrows the set: it holds {counted(keys, 'key')} of {counted(self.slices, 'slice')}, so that "
            f"each slice is in it {keys / self.slices:.1f} times; set queue_length to {self.slices // 2} or less, or "
            "keep more slices"
        )


class NearCopies(Monitor):
    """Detects negatives that show nearly the same: slices of the same volume within 6 bits of the difference hash.

    Training pushes them away from the picture although they show what it shows. One or more per picture is a problem.

    Args:
        slices: hashes and volumes, int64 (n,) each, as `training_set.slices` gives them.
        network: the bare `MoCo`, where negatives come from its queue; by default they are the rest of the batch.
        mask: what the loss leaves out of the negatives, if it does.
    """

    def __init__(
        self, slices: tuple[torch.Tensor, torch.Tensor], network: Any = None, mask: NearCopyMask | None = None
    ) -> None:
        (self.hashes, self.volumes), self.network, self.masked = slices, network, -1 if mask is None else mask.bits

    def __call__(self, engine: Any) -> dict[str, float]:
        """`near_copies` (share of the negatives) and `near_copies_per_picture`; nothing without negatives."""
        device = engine.state.output["loss"].device
        images = engine.state.batch["index"].to(device)  # (B,)
        negatives = images if self.network is None else self.network.queue_index
        self.hashes, self.volumes = self.hashes.to(device), self.volumes.to(device)
        counts = near_copies(images, negatives, self.hashes, self.volumes, masked=self.masked)
        copies, pairs = (int(count) for count in counts)
        return {"near_copies": copies / pairs, "near_copies_per_picture": copies / len(images)} if pairs else {}

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """A sentence if there are too many near-copies among the negatives."""
        share, count = figures["near_copies"], figures["near_copies_per_picture"]
        if count < 1:
            return None
        return (
            f"near-copies are among the negatives: {count:.1f} per picture ({share:.2g} of all) are of the same volume "
            f"within {NEAR_BITS} bits, and training pushes them away from it; reduce the set further (`select` with a "
            f"larger threshold){'' if self.network is None else ' or shorten the queue'}"
        )


class LossConstant(Monitor):
    """Compares the loss with the constant loss of a network that cannot distinguish any pictures.

    The constant is ln K for SwAV with K prototypes (6.2146 for 500, about the loss at the start), ln(1 + K) for MoCo
    with K keys, and 1 for SparK. A mean loss since the last check of 99 % of it or more is a problem long after the
    start.

    Args:
        constant: that loss, which `chance_loss` of the method gives.
        grace: iterations before which nothing is reported, such as the warm-up and a tenth of the training.
    """

    def __init__(self, constant: float, grace: int) -> None:
        self.constant, self.grace = constant, grace
        self._sum: torch.Tensor | float = 0.0
        self._count = 0
        self._mean = math.nan

    def watch(self, engine: Any) -> None:
        """Add up the losses."""
        self._sum = engine.state.output["loss"].detach().double() + self._sum
        self._count += 1

    def __call__(self, engine: Any) -> dict[str, float]:
        """The indicator `loss_constant`; the mean loss since the last check is kept for `trouble`."""
        self._mean, self._sum, self._count = float(self._sum) / self._count, 0.0, 0
        return {"loss_constant": self.constant}

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """A sentence if nothing was learnt."""
        if iteration < self.grace or not self._mean >= NOTHING_LEARNT * self.constant:
            return None
        return (
            f"nothing was learnt: at iteration {iteration} the loss is {self._mean:.4g}, and {self.constant:.4g} is "
            "the loss of a network that cannot distinguish any pictures; take another learning rate, and check that "
            "the views still show what a picture shows"
        )

    def state_dict(self) -> dict[str, Any]:
        """Sum and number of the losses since the last check."""
        return {"sum": float(self._sum), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the losses of a saved state."""
        self._sum, self._count = state["sum"], state["count"]
