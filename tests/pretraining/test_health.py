from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import in_processes
from ignite.engine import Engine, Events
from torch.nn import functional as F

from lessismore_transforms.pretraining.health import (
    Collapse,
    HealthMonitor,
    LossConstant,
    Monitor,
    NearCopies,
    PrototypeUsage,
    QueueAge,
)
from lessismore_transforms.pretraining.indicators import near_copies, popcount, prototype_usage, rank_me, spread

# figures


def test_spread_of_the_sphere_and_of_a_point() -> None:
    generator = torch.Generator().manual_seed(0)
    sphere = torch.randn(4096, 128, generator=generator)
    assert spread(sphere).item() == pytest.approx(1, abs=0.01)
    assert spread(7 * sphere).item() == pytest.approx(spread(sphere).item(), rel=1e-6)  # lengths do not count
    assert spread(torch.ones(9, 128)).item() == pytest.approx(0, abs=1e-6)
    assert spread(torch.zeros(9, 128)).item() == 0


def test_spread_by_hand() -> None:
    """(1, 0) and (0, 1): standard deviation sqrt(1 / 2) in both dimensions, times sqrt(2)."""
    assert spread(torch.tensor([[3.0, 0.0], [0.0, 0.1]])).item() == pytest.approx(1.0)
    assert spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == pytest.approx(1.0)  # 2 / sqrt(2) and 0


def test_rank_me_counts_directions() -> None:
    orthonormal, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))
    for count in (1, 5, 32):
        assert rank_me(orthonormal[:count]).item() == pytest.approx(count, rel=1e-4)
    line = torch.linspace(1, 2, 20)[:, None] * orthonormal[0]
    assert rank_me(line).item() == pytest.approx(1, abs=1e-3)
    assert rank_me(torch.cat([line, -line])).item() == pytest.approx(1, abs=1e-3)  # as spread as can be
    assert rank_me(torch.zeros(4, 8)).item() == 1


def test_rank_me_by_hand() -> None:
    """Three rows along x, one along y: singular values sqrt(3) and 1."""
    p = np.array([math.sqrt(3), 1]) / (math.sqrt(3) + 1)
    rows = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0.5, 0, 0], [0, 9.0, 0]])
    assert rank_me(rows).item() == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_rank_me_sees_collapse_to_a_constant() -> None:
    noise = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    collapsed = torch.ones(64) + 1e-4 * noise
    assert rank_me(collapsed).item() < 1.1
    assert rank_me(collapsed - collapsed.mean(0)).item() > 50  # why it is not centred


def test_prototype_usage() -> None:
    assert prototype_usage(torch.eye(8)).item() == pytest.approx(1)
    assert prototype_usage(torch.full((3, 8), 1 / 8)).item() == pytest.approx(1)
    assert prototype_usage(torch.eye(8)[[2, 2, 2]]).item() == pytest.approx(1 / 8)
    assert prototype_usage(torch.eye(8)[[0, 5]]).item() == pytest.approx(2 / 8)


def test_popcount_equals_python() -> None:
    values = np.random.default_rng(0).integers(-(2**63), 2**63, 1000, dtype=np.int64)
    values[:4] = (0, -1, -(2**63), 2**63 - 1)
    assert popcount(torch.from_numpy(values)).tolist() == [(int(v) % 2**64).bit_count() for v in values]


def test_near_copies_equal_a_loop() -> None:
    random = np.random.default_rng(0)
    base = random.integers(-(2**63), 2**63, 12, dtype=np.int64)
    flips = np.array([[1 << int(bit) for bit in random.choice(63, 10, replace=False)] for _ in range(120)])
    count = random.integers(0, 11, 120)
    hashes = np.array([base[i // 10] ^ flips[i, : count[i]].sum() for i in range(120)])
    volumes = np.arange(120) // 20
    images, negatives = random.choice(120, 16, replace=False), random.integers(-1, 120, 200)
    pairs = [(i, j) for i in images for j in negatives if j >= 0 and j != i]
    expected = sum(
        volumes[i] == volumes[j] and ((int(hashes[i]) ^ int(hashes[j])) % 2**64).bit_count() <= 6 for i, j in pairs
    )
    found = near_copies(*(torch.from_numpy(array) for array in (images, negatives, hashes, volumes)))
    assert [int(number) for number in found] == [expected, len(pairs)]
    assert expected > 10


def test_near_copies_at_the_bound() -> None:
    hashes, volumes = torch.tensor([0, 0b111111, 0b1111111, 0, -1]), torch.tensor([0, 0, 0, 1, 0])
    found = near_copies(torch.tensor([0]), torch.tensor([0, 1, 2, 3, 4, -1]), hashes, volumes)
    assert [int(number) for number in found] == [1, 4]  # 6 bits; not 7, nor itself, nor another volume


def test_masked_near_copies_are_no_negatives() -> None:
    hashes, volumes = torch.tensor([0, 0b1, 0b111111, -1]), torch.zeros(4, dtype=torch.int64)
    images, everyone = torch.tensor([0]), torch.arange(4)
    for masked, expected in ((-1, [2, 3]), (0, [2, 3]), (1, [1, 2]), (6, [0, 1])):
        assert [int(number) for number in near_copies(images, everyone, hashes, volumes, masked=masked)] == expected


# the handler


class Script(Monitor):
    """Trouble at the looks that a script tells."""

    def __init__(self, looks: Sequence[bool]) -> None:
        self.looks: Iterator[bool] = iter(looks)

    def __call__(self, engine: Any) -> dict[str, float]:
        return {"trouble": float(next(self.looks))}

    def trouble(self, figures: Any, iteration: int) -> str | None:
        return f"trouble at {iteration}" if figures["trouble"] else None


def advice(monitor: HealthMonitor, iterations: int, start: int = 0) -> list[str]:
    engine = Engine(lambda engine, batch: None)
    monitor.attach(engine)
    told: list[str] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: told.extend(e.state.advice))
    if start:
        engine.load_state_dict({"iteration": start, "max_epochs": 1, "epoch_length": iterations})
    engine.run([None] * iterations, max_epochs=1)
    return told


def test_looks_at_the_first_iteration_and_at_the_interval() -> None:
    engine = Engine(lambda engine, batch: None)
    HealthMonitor([Script([False] * 9)], interval=3).attach(engine)
    seen: list[int] = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.iteration) if e.state.health else None
    )
    engine.run([None] * 10, max_epochs=1)
    assert seen == [1, 3, 6, 9]


def test_advice_once_and_again_after_it_was_away(caplog: pytest.LogCaptureFixture) -> None:
    looks = "0110 1111111 00100 11 000 1111"
    script = [look == "1" for look in looks if look != " "]
    with caplog.at_level(logging.WARNING, "lessismore_transforms"):
        told = advice(HealthMonitor([Script(script)], interval=1), len(script))
    assert told == ["trouble at 7", "trouble at 24"]
    assert [record.message for record in caplog.records] == told


def test_a_resumed_run_counts_on() -> None:
    script = [True] * 8
    first = HealthMonitor([Script(script)], interval=1)
    assert advice(first, 2) == []
    second = HealthMonitor([Script(script)], interval=1)
    second.load_state_dict(first.state_dict())
    assert advice(second, 3, start=2) == ["trouble at 3"]
    third = HealthMonitor([Script(script)], interval=1)
    third.load_state_dict(second.state_dict())
    assert advice(third, 6, start=5 - 2) == []


def test_the_state_fits_into_a_checkpoint(tmp_path: Path) -> None:
    """A checkpoint is read without executing anything, and the figures go on as those of a run without a break."""
    generator = torch.Generator().manual_seed(0)
    looks = [
        state(i, embedding=torch.randn(32, 8, generator=generator), scores=torch.randn(2, 32, 20, generator=generator))
        for i in range(1, 7)
    ]

    def monitors() -> HealthMonitor:
        return HealthMonitor([Collapse(), PrototypeUsage(), LossConstant(1.0, 0)], interval=3)

    whole, first, second = monitors(), monitors(), monitors()
    for look in looks:
        whole(look)
    expected = looks[-1].state.health
    for look in looks[:4]:
        first(look)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for look in looks[4:]:
        second(look)
    assert looks[-1].state.health == expected
    assert set(expected) == {"spread", "rank_me", "prototype_usage", "loss_constant"}
    assert second.state_dict()["lasted"] == whole.state_dict()["lasted"] == {
        "Collapse": 0, "PrototypeUsage": 0, "LossConstant": 0,
    }  # fmt: skip
    assert second.state_dict()["told"]["LossConstant"]  # of which the third look, with a loss at its constant, told


def test_interval_is_checked() -> None:
    with pytest.raises(ValueError, match="found 0; 20 is usual"):
        HealthMonitor([], interval=0)


def ranks_health() -> dict[str, float]:
    engine = SimpleNamespace(state=SimpleNamespace(iteration=1))
    HealthMonitor([Script([True])])(engine)
    return engine.state.health


def test_only_the_first_process_looks() -> None:
    assert in_processes(ranks_health, 2) == [{"trouble": 1.0}, {}]


# the monitors


def state(iteration: int = 1, **pred: torch.Tensor) -> Any:
    embedding = pred.pop("embedding", torch.zeros(4, 2))
    batch = {"index": pred.pop("index", torch.zeros(4, dtype=torch.int64))}
    output = {"pred": {"embedding": embedding, **pred}, "loss": pred.pop("loss", torch.tensor(1.0))}
    return SimpleNamespace(state=SimpleNamespace(iteration=iteration, output=output, batch=batch))


def told(monitor: Monitor, *looks: Any) -> str | None:
    """What a monitor says of the last of some iterations, all of which it watches."""
    for look in looks:
        monitor.watch(look)
    return monitor.trouble(monitor(looks[-1]), looks[-1].state.iteration)


def test_collapse_takes_batches_together() -> None:
    """Eight batches of 32 of 256 directions: RankMe of all, spread of each; an older ninth is forgotten."""
    directions = torch.eye(256).split(32)
    monitor = Collapse()
    for batch in (torch.ones(32, 256), *directions):
        monitor.watch(state(embedding=batch))
    figures = monitor(state())
    assert figures["rank_me"] == pytest.approx(256, rel=1e-4)
    assert figures["spread"] == pytest.approx(spread(directions[0]).item(), rel=1e-4)
    assert spread(torch.eye(256)).item() != pytest.approx(figures["spread"], rel=0.1)
    monitor.watch(state(embedding=torch.ones(300, 256)))  # one batch that is large enough
    assert monitor(state())["rank_me"] == pytest.approx(1, abs=1e-3)


def test_collapse_says_nothing_of_embeddings_that_are_no_numbers() -> None:
    monitor = Collapse()
    monitor.watch(state(embedding=torch.full((4, 2), math.nan)))
    assert monitor(state()) == {}


def test_collapse_against_the_first_look() -> None:
    """A network whose embeddings are alike from the beginning is not collapsing; one that shrinks to that is."""
    noise = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    alike, wide = state(150, embedding=1 + 0.05 * noise), state(1, embedding=1 + noise)
    fresh = Collapse()
    assert told(fresh, alike) is None
    monitor = Collapse()
    assert told(monitor, wide) is None
    sentence = told(monitor, alike)
    assert sentence is not None
    figures = f"spread is {spread(1 + 0.05 * noise):.2g} (at first {spread(1 + noise):.2g}, at best 1)"
    assert sentence.startswith(f"the embeddings collapse: at iteration 150 their {figures} and their RankMe 2.")
    resumed = Collapse()
    resumed.load_state_dict(monitor.state_dict())
    assert told(resumed, alike) is not None
    assert told(Collapse(grace=151), wide, alike) is None


def test_prototypes_in_use() -> None:
    """Scores of 1 and -1 at temperature 0.1 are hard assignments; 40 rows of two batches are kept, of 20 prototypes."""
    monitor = PrototypeUsage()
    sure = 2 * torch.eye(20) - 1
    for rows in (torch.zeros(20, dtype=torch.int64), torch.arange(20), torch.arange(20) % 2):
        monitor.watch(state(scores=torch.stack([sure[rows], sure])))
    shares = np.array([0.5 + 0.05] * 2 + [0.05] * 18) / 2
    expected = math.exp(-(shares * np.log(shares)).sum()) / 20
    assert monitor(state())["prototype_usage"] == pytest.approx(expected, rel=1e-4)


def test_idle_prototypes_are_told() -> None:
    sure = (2 * torch.eye(50) - 1)[torch.arange(32) % 3]
    assert told(PrototypeUsage(), state(99, scores=sure[None])) is None
    sentence = told(PrototypeUsage(), state(100, scores=sure[None]))
    assert sentence is not None
    assert "at iteration 100 about 3 of 50 are in use" in sentence


def test_scores_kept_hold_no_graph() -> None:
    scores = torch.zeros(1, 4, 5, requires_grad=True)
    monitor = PrototypeUsage()
    monitor.watch(state(scores=2 * scores))
    assert not any(mean.requires_grad for mean in monitor.state_dict()["means"])


def test_age_of_the_queue() -> None:
    """Batches of 4: 20 of 40 keys are real, so the oldest is 5 batches and a fifth of an epoch of 100 slices old."""
    network = SimpleNamespace(queue_index=torch.cat([torch.arange(20), torch.full((20,), -1)]))
    monitor = QueueAge(network, 100)
    assert monitor(state()) == {"queue_age_steps": 5.0, "queue_age_epochs": 0.2}
    assert told(monitor, state()) is None
    assert told(QueueAge(network, 80), state()) is None


def test_a_queue_that_outgrows_the_set_is_told_at_once() -> None:
    """The released 65,536 keys on the 22,672 slices of LIDC HASH-6 hold each about three times."""
    engine = state()
    HealthMonitor([QueueAge(SimpleNamespace(queue_index=torch.full((65_536,), -1)), 22_672)])(engine)
    (sentence,) = engine.state.advice
    assert "65,536 keys of 22,672 slices, so that each slice is in it 2.9 times; set queue_length to 11336" in sentence


def test_near_copies_of_a_batch_and_of_a_queue() -> None:
    hashes, volumes = torch.tensor([0, 1, 3, 0]), torch.tensor([0, 0, 0, 1])
    batch = state(index=torch.arange(4))
    figures = NearCopies((hashes, volumes))(batch)
    assert figures == {"near_copies": 6 / 12, "near_copies_per_picture": 6 / 4}
    queue = SimpleNamespace(queue_index=torch.tensor([3, 3, 3, -1]))
    monitor = NearCopies((hashes, volumes), queue)
    assert monitor(batch) == {"near_copies": 0.0, "near_copies_per_picture": 0.0}
    sentence = told(NearCopies((hashes, volumes)), batch)
    assert sentence is not None
    assert "1.5 per picture (0.5 of all)" in sentence
    assert "shorten the queue" not in sentence
    queue.queue_index = torch.tensor([0, 1, 2, 2, 2])
    assert "or shorten the queue" in (told(monitor, batch) or "")
    queue.queue_index = torch.full((4,), -1)
    assert monitor(batch) == {}
    assert told(NearCopies((hashes, volumes)), state(index=torch.tensor([0, 3]))) is None


def test_a_loss_at_its_constant_is_told_after_the_grace_only() -> None:
    def monitor() -> LossConstant:
        return LossConstant(6.2146, grace=1000)

    high, low = torch.tensor(6.21), torch.tensor(5.0)
    assert told(monitor(), state(980, loss=high)) is None
    assert told(monitor(), state(1000, loss=low), state(1020, loss=high)) is None  # on average far below
    sentence = told(monitor(), state(1000, loss=high))
    assert sentence is not None
    assert "at iteration 1000 the loss is 6.21, and 6.215 is the loss of a network that" in sentence
    assert told(monitor(), state(1000, loss=torch.tensor(math.nan))) is None
    first = monitor()
    first.watch(state(loss=low))
    second = monitor()
    second.load_state_dict(first.state_dict())
    assert told(second, state(1000, loss=high)) is None
    assert told(second, state(1020, loss=high)) is not None  # losses before the last look are forgotten


# what the bounds were chosen by: ResNet18, batches of 32 views of 32 to 64 pixels, looked at every 20 iterations from
# the 20th to the 200th; slices of 8 phantoms after HASH-3, or of 5 real volumes; the first look stands by itself

FIRST = {"swav": (0.81, 27.7), "moco": (0.66, 25.1), "spark": (0.64, 25.6)}
HEALTHY = {
    "swav: LARS 0.15": (
        (0.82, 0.77, 0.73, 0.70, 0.72, 0.75, 0.77, 0.78, 0.80, 0.81),
        (94.0, 82.7, 66.1, 49.4, 42.7, 37.2, 33.6, 32.2, 30.8, 29.7),
        (0.92, 0.96, 0.98, 0.99, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00),
    ),
    "moco: SGD 1e-4, real slices": (
        (0.66, 0.64, 0.62, 0.61, 0.60, 0.60, 0.59, 0.59, 0.58, 0.58),
        (90.5, 88.9, 87.7, 87.0, 85.5, 85.0, 83.9, 82.7, 81.6, 81.9),
        None,
    ),
    "moco: SGD 0.03": (
        (0.13, 0.25, 0.38, 0.45, 0.46, 0.44, 0.43, 0.40, 0.42, 0.39),
        (10.3, 6.60, 6.05, 5.66, 5.07, 5.08, 4.65, 4.60, 4.41, 4.43),
        None,
    ),
    "moco: SGD 0.03, real slices": (
        (0.17, 0.28, 0.39, 0.44, 0.48, 0.53, 0.50, 0.55, 0.56, 0.56),
        (10.7, 7.52, 8.14, 7.92, 8.16, 8.47, 8.34, 8.72, 8.65, 8.76),
        None,
    ),
    "moco: SGD 0.03, 4096 keys, random ones until the 128th iteration": (
        (0.060, 0.059, 0.083, 0.12, 0.17, 0.23, 0.31, 0.37, 0.42, 0.45),
        (8.55, 5.77, 5.49, 5.67, 5.72, 5.92, 5.75, 5.74, 6.04, 5.76),
        None,
    ),
    "moco: Adam 1e-3, from the 220th to the 400th iteration, where phantoms have no more to tell": (
        (0.37, 0.34, 0.36, 0.32, 0.34, 0.36, 0.39, 0.35, 0.39, 0.38),
        (4.01, 3.77, 3.47, 3.53, 3.33, 3.41, 3.29, 3.40, 3.43, 3.28),
        None,
    ),
    "spark: LAMB 0.005": (
        (0.64, 0.63, 0.63, 0.64, 0.62, 0.63, 0.64, 0.64, 0.64, 0.65),
        (183.0, 136.0, 82.8, 78.0, 75.3, 80.8, 79.7, 75.8, 81.9, 84.5),
        None,
    ),
}
UNSEEN = {  # by the choice: the bundles themselves, another seed, 64 pixels, 12 phantoms after HASH-6
    "swav: LARS 0.6": (
        (0.596, 0.531, 0.663, 0.744, 0.798, 0.816, 0.825, 0.830, 0.832, 0.837),
        (82.9, 42.8, 26.2, 25.4, 23.0, 22.4, 22.9, 22.7, 22.0, 22.4),
        (0.993, 0.993, 0.992, 0.998, 0.992, 0.994, 0.995, 0.995, 0.995, 0.991),
    ),
    "moco: SGD 0.01": (
        (0.160, 0.111, 0.155, 0.241, 0.341, 0.413, 0.482, 0.514, 0.518, 0.526),
        (27.5, 15.5, 14.7, 15.5, 16.8, 17.0, 17.0, 17.4, 17.5, 17.6),
        None,
    ),
}
COLLAPSED = {
    "swav: LARS 0.6, epsilon 100, so that all codes are even": (
        (0.582, 0.371, 0.349, 0.322, 0.298, 0.309, 0.318, 0.304, 0.288, 0.327),
        (71.5, 15.7, 5.14, 3.70, 3.08, 2.88, 3.01, 2.90, 2.84, 2.92),
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    ),
    "swav: LARS 0.15, codes that are not shared out": (
        (0.77, 0.65, 0.44, 0.19, 0.082, 0.048, 0.029, 0.022, 0.020, 0.016),
        (92.1, 81.7, 61.8, 28.7, 11.0, 5.58, 3.60, 2.94, 2.57, 2.24),
        (0.86, 0.52, 0.040, 0.0044, 0.0029, 0.0027, 0.0027, 0.0026, 0.0026, 0.0026),
    ),
    "swav: Adam 1e-3, codes that are not shared out: two clusters": (
        (0.38, 0.30, 0.32, 0.36, 0.39, 0.40, 0.43, 0.42, 0.42, 0.42),
        (14.0, 6.65, 5.01, 4.64, 4.72, 5.02, 4.48, 4.04, 3.91, 4.90),
        (0.058, 0.0060, 0.0047, 0.0044, 0.0043, 0.0042, 0.0042, 0.0041, 0.0041, 0.0041),
    ),
    "swav: SGD 10": (
        (0.31, 0.063, 0.086, 0.28, 0.34, 0.30, 0.45, 0.41, 0.39, 0.34),
        (4.17, 2.10, 1.84, 2.45, 2.32, 2.17, 2.23, 2.20, 2.11, 2.06),
        (0.99, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 0.99, 0.99, 1.00),
    ),
    "moco: SGD 0.03, no negatives": (
        (0.020, 0.017, 0.019, 0.020, 0.020, 0.021, 0.023, 0.022, 0.022, 0.022),
        (2.74, 2.04, 1.97, 1.94, 1.91, 1.92, 1.90, 1.85, 1.86, 1.84),
        None,
    ),
    "moco: SGD 10": (
        (0.0012, 0.0015, 0.0022, 0.0027, 0.0035, 0.0044, 0.0060, 0.011, 0.026, 0.088),
        (1.10, 1.06, 1.06, 1.06, 1.06, 1.07, 1.09, 1.14, 1.24, 1.52),
        None,
    ),
    "spark: LAMB 1": (
        (0.45, 0.36, 0.35, 0.31, 0.074, 0.062, 0.087, 0.10, 0.10, 0.065),
        (68.1, 74.5, 55.9, 32.6, 9.54, 6.26, 6.21, 5.99, 5.44, 4.56),
        None,
    ),
}


class Recorded(Monitor):
    """The judgement of a monitor on figures that were written down."""

    def __init__(self, judge: Monitor, rows: Sequence[dict[str, float]]) -> None:
        self.judge, self.rows = judge, iter(rows)

    def __call__(self, engine: Any) -> dict[str, float]:
        return next(self.rows)

    def trouble(self, figures: Any, iteration: int) -> str | None:
        return self.judge.trouble(figures, iteration)


def first_advice(name: str, figures: tuple[Sequence[float], Sequence[float], Sequence[float] | None]) -> int | None:
    """The iteration of the first advice; at the first iteration the first look is looked at again."""
    spreads, ranks, usages = figures
    first = dict(zip(("spread", "rank_me"), FIRST[name.partition(":")[0]], strict=True))
    collapse, usage = Collapse(), PrototypeUsage()
    collapse.load_state_dict({"first": first, "rows": []})
    usage.load_state_dict({"means": [torch.zeros(500)]})
    rows = [first, *({"spread": s, "rank_me": r} for s, r in zip(spreads, ranks, strict=True))]
    shares = [{"prototype_usage": share} for share in (0.9, *(usages or [1.0] * 10))]
    when: list[int] = []
    for judge, looks in ((collapse, rows), (usage, shares)):
        monitor = HealthMonitor([Recorded(judge, looks)], interval=20)
        for iteration in (1, *range(20, 201, 20)):
            engine = state(iteration)
            monitor(engine)
            when += [iteration] if engine.state.advice else []
    return min(when, default=None)


@pytest.mark.parametrize("name", [*HEALTHY, *UNSEEN])
def test_healthy_runs_raise_no_alarm(name: str) -> None:
    assert first_advice(name, (HEALTHY | UNSEEN)[name]) is None


@pytest.mark.parametrize("name", COLLAPSED)
def test_collapse_is_flagged_within_200_iterations(name: str) -> None:
    assert first_advice(name, COLLAPSED[name]) == 140


@pytest.mark.parametrize(("negatives", "flagged"), [(True, False), (False, True)])
def test_a_collapse_as_it_happens(negatives: bool, flagged: bool) -> None:
    """Two noisy views of 64 points are drawn together; what keeps them from falling into one point is the others."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(64, 16, generator=generator)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
    optimizer = torch.optim.SGD(network.parameters(), 0.5, momentum=0.9)

    def step(engine: Engine, rows: torch.Tensor) -> dict[str, Any]:
        noisy = [points[rows] + 0.5 * torch.randn(len(rows), 16, generator=generator) for _ in range(2)]
        a, b = (F.normalize(network(view), dim=1) for view in noisy)
        loss = F.cross_entropy(a @ b.T / 0.2, torch.arange(len(a))) if negatives else -(a * b).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"pred": {"embedding": a.detach()}, "loss": loss.detach()}

    engine = Engine(step)
    HealthMonitor([Collapse()]).attach(engine)
    advice: list[str] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: advice.extend(e.state.advice))
    engine.run([torch.randperm(64, generator=generator)[:32] for _ in range(200)], max_epochs=1)
    assert bool(advice) == flagged
    assert all("the embeddings collapse" in sentence for sentence in advice)
