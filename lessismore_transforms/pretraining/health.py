"""Whether a training is healthy: monitors that look every few iterations, and one sentence of advice for each trouble.

A monitor gives figures and says what is wrong with them; `HealthMonitor` asks it, and passes advice on once a trouble
lasted. The bounds come from 200 steps of small networks on phantoms and CT slices, healthy and broken on purpose;
`tests/pretraining/test_health.py` holds those trajectories.
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
from lessismore_transforms.training.processes import process_count, process_rank

GRACE = 100  # iterations: even a healthy MoCo is nearly collapsed after 20, and recovers by itself
ROWS = 256  # embeddings that RankMe is measured on
LEAST_SPREAD, LEAST_RANK = 0.1, 2.5  # a point; a line through it, which leaves two directions and noise
LOW_RANK = 3.2  # where the spread fell too
LEAST_USAGE = 0.1  # of all prototypes
NOTHING_LEARNT = 0.99  # of the loss that a network pays which tells nothing apart


class Monitor:
    """One thing to look at; `patience` is how many looks in a row a trouble has to last before there is advice."""

    patience = 3

    def watch(self, engine: Any) -> None:
        """Take in an iteration, without waiting for the device."""

    def __call__(self, engine: Any) -> dict[str, float]:
        """The figures of the moment."""
        raise NotImplementedError

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """Say what is wrong with the figures and what to do, in one sentence."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it."""


class HealthMonitor:
    """Ask monitors at the first iteration and every `interval` iterations, on the first process, about its own share.

    `engine.state.health` holds their figures, `engine.state.advice` the sentences that are due, both empty after other
    iterations. A trouble is told once: when it lasted for its monitor's patience, and again only after it was away for
    as long. Attach it before what writes those down.

    Args:
        monitors: one of a kind.
        interval: iterations between looks.
    """

    def __init__(self, monitors: Sequence[Monitor], *, interval: int = 20) -> None:
        if interval < 1:
            raise UserError(f"expected an interval of 1 iteration or more between looks, found {interval}; 20 is usual")
        self.monitors = {type(monitor).__name__: monitor for monitor in monitors}
        self.interval = interval
        self._lasted = dict.fromkeys(self.monitors, 0)  # looks in a row unlike what was told
        self._told = dict.fromkeys(self.monitors, False)

    def attach(self, engine: Engine) -> None:
        """Follow an engine of MONAI."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Look, if it is time."""
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
        """Whether it was just now that things have been otherwise than was told for long enough."""
        self._lasted[name] = self._lasted[name] + 1 if troubled != self._told[name] else 0
        if self._lasted[name] < patience:
            return False
        self._lasted[name], self._told[name] = 0, troubled
        return True

    def state_dict(self) -> dict[str, Any]:
        """What was told, and what the monitors know."""
        monitors = {name: monitor.state_dict() for name, monitor in self.monitors.items()}
        return {"lasted": dict(self._lasted), "told": dict(self._told), "monitors": monitors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with it; a monitor that is new begins afresh."""
        for name, monitor in self.monitors.items():
            if name in state["monitors"]:
                self._lasted[name], self._told[name] = state["lasted"][name], state["told"][name]
                monitor.load_state_dict(state["monitors"][name])


class Collapse(Monitor):
    """Whether embeddings become all alike, by `spread` and `rank_me`.

    Both are of the newest embeddings, 256 or one batch if that is more. RankMe takes small batches of several
    iterations together; the spread is the mean of theirs, because a network that jumps from step to step looks spread
    otherwise. Trouble is a spread that is less than half of the first and below 0.1, or a RankMe that is less than a
    quarter of the first and below 2.5, or below 3.2 where the spread fell by half too.

    Args:
        grace: iterations before which there is no trouble. MoCo needs those that fill its queue besides: random keys
            are told apart most easily by a network that is collapsed, so that a healthy one begins there.
    """

    def __init__(self, grace: int = GRACE) -> None:
        self.grace = grace
        self._rows: deque[torch.Tensor] = deque()
        self._first: dict[str, float] = {}

    def watch(self, engine: Any) -> None:
        """Keep the embeddings."""
        batch = engine.state.output["pred"]["embedding"].detach().float().clone()  # (B, D)
        self._rows.append(batch)
        while (len(self._rows) - 1) * len(batch) >= ROWS:
            self._rows.popleft()

    def __call__(self, engine: Any) -> dict[str, float]:
        """`spread` and `rank_me`; nothing where embeddings are no finite numbers."""
        batches = [batch.to(self._rows[-1].device) for batch in self._rows]  # those of a checkpoint lie on the CPU
        embedding = torch.cat(batches)  # (N, D)
        if not embedding.isfinite().all() or len(batches[-1]) < 2:  # one picture has no spread
            return {}
        spreads = torch.stack([spread(batch) for batch in batches])
        figures = {"spread": spreads.mean().item(), "rank_me": rank_me(embedding).item()}
        self._first = self._first or figures
        return figures

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """Say that embeddings collapsed."""
        now, first = figures, self._first
        shrunk = now["spread"] < first["spread"] / 2
        constant = shrunk and now["spread"] < LEAST_SPREAD
        flat = now["rank_me"] < min(LOW_RANK if shrunk else LEAST_RANK, first["rank_me"] / 4)
        if iteration < self.grace or not (constant or flat):
            return None
        return (
            f"the embeddings collapse: at iteration {iteration} their spread is {now['spread']:.2g} (at first "
            f"{first['spread']:.2g}, at best 1) and their RankMe {now['rank_me']:.1f} (at first "
            f"{first['rank_me']:.1f}), so that all pictures look alike to the network; begin again with a learning "
            "rate that is 3 to 10 times smaller or a longer warm-up"
        )

    def state_dict(self) -> dict[str, Any]:
        """The first figures and the embeddings kept."""
        return {"first": dict(self._first), "rows": list(self._rows)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare with those of the run's beginning."""
        self._first, self._rows = dict(state["first"]), deque(state["rows"])


class PrototypeUsage(Monitor):
    """Share of SwAV's prototypes in use, by the network's own soft assignments; codes are even by construction.

    Of the newest pictures, twice as many as there are prototypes. Trouble is a share below 0.1.

    Args:
        temperature: of the loss.
        grace: iterations before which there is no trouble.
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
        """`prototype_usage`."""
        means = torch.stack([mean.to(self._means[-1].device) for mean in self._means])
        return {"prototype_usage": prototype_usage(means).item()}

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """Say that prototypes lie idle."""
        usage, prototypes = figures["prototype_usage"], len(self._means[-1])
        if iteration < self.grace or usage >= LEAST_USAGE:
            return None
        return (
            f"the prototypes lie idle: at iteration {iteration} about {usage * prototypes:.0f} of {prototypes} are in "
            "use; take fewer of them, freeze them for longer, or take a smaller learning rate"
        )

    def state_dict(self) -> dict[str, Any]:
        """The assignments kept."""
        return {"means": list(self._means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with them."""
        self._means = deque(state["means"])


class QueueAge(Monitor):
    """How old the oldest key of MoCo's queue is, and whether the queue outgrows the set.

    Trouble, from the start, is a queue that can hold more than half as many keys as there are slices: within two
    epochs a picture meets its own older keys, and soon every one.

    Args:
        network: the bare `MoCo`, whose buffer `queue_index` (K,) holds the slice of each key, -1 for random ones.
        slices: in the data set.
    """

    patience = 1

    def __init__(self, network: Any, slices: int) -> None:
        self.network, self.slices = network, slices

    def __call__(self, engine: Any) -> dict[str, float]:
        """`queue_age_steps` and `queue_age_epochs`: when the oldest key was made, in batches and in epochs."""
        keys = int((self.network.queue_index >= 0).sum())
        batch = len(engine.state.output["pred"]["embedding"]) * process_count()
        return {"queue_age_steps": keys / batch, "queue_age_epochs": keys / self.slices}

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """Say that the queue is too long."""
        keys = len(self.network.queue_index)
        if keys <= self.slices / 2:
            return None
        return (
            f"the queue outgrows the set: it holds {keys} keys of {self.slices} slices, so that each slice is in it "
            f"{keys / self.slices:.1f} times; set queue_length to {self.slices // 2} or less, or keep more slices"
        )


class NearCopies(Monitor):
    """Share of the negatives that show nearly the same: slices of the same volume within 6 bits of difference hash.

    Training pushes them away from the picture although they show what it shows. Trouble is one or more per picture.

    Args:
        slices: hashes and volumes, int64 (n,) each, as `slice_table` gives them.
        network: the bare `MoCo`, where negatives come from its queue; by default they are the rest of the batch.
    """

    def __init__(self, slices: tuple[torch.Tensor, torch.Tensor], network: Any = None) -> None:
        (self.hashes, self.volumes), self.network = slices, network

    def __call__(self, engine: Any) -> dict[str, float]:
        """`near_copies`, a share of the negatives, and `near_copies_per_picture`; nothing without negatives."""
        device = engine.state.output["loss"].device
        images = engine.state.batch["index"].to(device)  # (B,)
        negatives = images if self.network is None else self.network.queue_index
        self.hashes, self.volumes = self.hashes.to(device), self.volumes.to(device)
        copies, pairs = (int(count) for count in near_copies(images, negatives, self.hashes, self.volumes))
        return {"near_copies": copies / pairs, "near_copies_per_picture": copies / len(images)} if pairs else {}

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """Say that the set holds too many near-copies."""
        share, count = figures["near_copies"], figures["near_copies_per_picture"]
        if count < 1:
            return None
        return (
            f"near-copies are among the negatives: {count:.1f} per picture ({share:.2g} of all) are of the same volume "
            f"within {NEAR_BITS} bits, and training pushes them away from it; reduce the set further (`select` with a "
            f"larger threshold){'' if self.network is None else ' or shorten the queue'}"
        )


class LossConstant(Monitor):
    """The loss beside the constant that a network pays which tells nothing apart.

    ln K for SwAV with K prototypes (6.2146 at 500, about where training starts), ln(1 + K) for MoCo with K keys, 1 for
    SparK. Trouble is a mean loss since the last look of 99 % of it or more, long after the start.

    Args:
        constant: that value, which `chance_loss` of the method gives.
        grace: iterations before which there is no trouble, such as the warm-up and a tenth of the training.
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
        """`loss_constant`, and forget the losses before."""
        self._mean, self._sum, self._count = float(self._sum) / self._count, 0.0, 0
        return {"loss_constant": self.constant}

    def trouble(self, figures: Mapping[str, float], iteration: int) -> str | None:
        """Say that nothing was learnt."""
        if iteration < self.grace or not self._mean >= NOTHING_LEARNT * self.constant:
            return None
        return (
            f"nothing was learnt: at iteration {iteration} the loss is {self._mean:.4g}, and {self.constant:.4g} is "
            "what a network pays that tells nothing apart; take another learning rate, and see that the views still "
            "show what a picture shows"
        )

    def state_dict(self) -> dict[str, Any]:
        """The losses since the last look."""
        return {"sum": float(self._sum), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with them."""
        self._sum, self._count = state["sum"], state["count"]
