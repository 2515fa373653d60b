"""Check by simulation what the statistics of classifications promise: how often intervals hold the truth, tests err.

    python scripts/check_statistics.py [--repetitions 1000] [--samples 300]

Scores of pictures are normal. Pictures of a patient (or a paper) share a part of their score, the networks of an arm
differ in how good they are, and each network has its own opinion of a patient, so that the true AUC of every network
and the mean over all networks of an arm are known.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri

from lessismore_transforms.classification.crossed import Difference, arm_difference, arm_interval
from lessismore_transforms.classification.metrics import Metric, accuracy, auc
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import bootstrap_interval, permutation_test
from lessismore_transforms.wording import aligned

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """How scores come about: the sum of independent normal parts, whose deviations are given.

    Args:
        units: patients or sources, half of them positive.
        pictures: of a unit, on average; 1 and 2 and so on, as many of each.
        gain: how much higher positive pictures score.
        unit: what the pictures of a unit share, for all networks.
        picture: what a picture has of its own, for all networks.
        opinion: what a network adds to all pictures of a unit.
        noise: what a network adds to a picture.
        network: by how much the gain differs between the networks of an arm.
    """

    units: int = 60
    pictures: int = 3
    gain: float = 1.0
    unit: float = 0.7
    picture: float = 0.3
    opinion: float = 0.4
    noise: float = 0.3
    network: float = 0.0

    @property
    def variance(self) -> float:
        """Of a picture's score within its class, for one network."""
        return self.unit**2 + self.picture**2 + self.opinion**2 + self.noise**2

    @property
    def auc(self) -> float:
        """The true mean over the networks of an arm."""
        return float(ndtr(self.gain / math.sqrt(2 * self.variance + self.network**2)))

    @property
    def accuracy(self) -> float:
        """The true share of pictures on the right side of 1/2, for one network."""
        return float(ndtr(self.gain / 2 / math.sqrt(self.variance)))

    def arms(self, rng: np.random.Generator, *counts: int) -> list[list[list[Predictions]]]:
        """Arms of so many networks each, all scored on one new test set."""
        sizes = 1 + np.arange(self.units) // 2 % (2 * self.pictures - 1)
        of = np.repeat(np.arange(self.units), sizes)  # (N,) the unit of each picture
        labels = of % 2
        common = self.unit * rng.normal(size=self.units)[of] + self.picture * rng.normal(size=len(of))
        names, patients = [f"{n}" for n in range(len(of))], [f"p{n}" for n in of]

        def network() -> list[Predictions]:
            own = self.opinion * rng.normal(size=self.units)[of] + self.noise * rng.normal(size=len(of))
            gain = self.gain + self.network * rng.normal()
            p = expit(gain * (labels - 0.5) + common + own)
            return [Predictions(names, patients, ["test"] * len(of), labels, np.stack([1 - p, p], axis=1))]

        return [[network() for _ in range(count)] for count in counts]


def repeated_folds(world: World, rng: np.random.Generator, *, folds: int, repeats: int) -> list[Predictions]:
    """The runs of a repeated cross-validation: each repeat deals the units into folds, each fold has its network."""
    (networks,) = world.arms(rng, folds * repeats)
    runs = []
    for repeat in range(repeats):
        fold = np.empty(world.units, np.int64)  # of each unit
        for label in (0, 1):
            of_class = rng.permutation(np.arange(label, world.units, 2))
            fold[of_class] = np.arange(len(of_class)) % folds
        for number in range(folds):
            (run,) = networks[folds * repeat + number]
            units = [int(patient.removeprefix("p")) for patient in run.patients]
            runs.append(run.rows(np.flatnonzero(fold[units] == number).tolist()))
    return runs


def by_picture(runs: list[Predictions]) -> list[Predictions]:
    """Runs in which nobody knows which pictures belong together."""
    return [replace(run, patients=[""] * len(run.patients)) for run in runs]


def interval_holds(world: World, rng: np.random.Generator, samples: int, *, known: bool, metric: Metric = auc) -> bool:
    """Whether the interval of one network holds its true AUC, or accuracy."""
    world = replace(world, network=0.0)
    ((runs,),) = world.arms(rng, 1)
    low, high = bootstrap_interval(runs if known else by_picture(runs), metric, samples=samples)
    return low <= (world.auc if metric is auc else world.accuracy) <= high


def folds_hold(
    world: World, rng: np.random.Generator, samples: int, *, folds: int, repeats: int, metric: Metric = auc
) -> bool:
    """Whether the interval of a repeated cross-validation holds the true AUC, or accuracy."""
    low, high = bootstrap_interval(repeated_folds(world, rng, folds=folds, repeats=repeats), metric, samples=samples)
    return low <= (world.auc if metric is auc else world.accuracy) <= high


def difference_seen(world: World, rng: np.random.Generator, samples: int, *, better: World) -> bool:
    """Whether the interval of the difference between two networks, one of them better, leaves 0 out."""
    found = difference_of(world, rng, samples, better=better)
    return not found.low <= 0 <= found.high


def difference_of(world: World, rng: np.random.Generator, samples: int, *, better: World) -> Difference:
    """The difference between two networks on the same pictures, which only differ in the gain."""
    ((first,), (second,)) = world.arms(rng, 1, 1)
    raised = expit((better.gain - world.gain) * (first[0].labels - 0.5) + logit(first[0].probabilities[:, 1]))
    first = [replace(first[0], probabilities=np.stack([1 - raised, raised], axis=1))]
    return arm_difference([first], [second], auc, samples=samples)


def smallest_detectable(world: World, samples: int, repetitions: int) -> tuple[World, World]:
    """Two worlds around one, a worse and a better: as far as what a comparison in it calls detectable, on average."""
    rng = np.random.default_rng(1)
    half = np.mean([difference_of(world, rng, samples, better=world).detectable for _ in range(repetitions)]) / 2
    deviation = math.sqrt(2 * world.variance + world.network**2)
    worse, better = (replace(world, gain=float(ndtri(world.auc + side)) * deviation) for side in (-half, half))
    return worse, better


def arm_holds(world: World, rng: np.random.Generator, samples: int, *, networks: int) -> bool:
    """Whether the interval of an arm holds the mean over all its networks."""
    (arm,) = world.arms(rng, networks)
    low, high = arm_interval(arm, auc, samples=samples)
    return low <= world.auc <= high


def difference_holds(world: World, rng: np.random.Generator, samples: int, *, networks: int) -> bool:
    """Whether the interval of the difference between two equal arms holds 0."""
    found = arm_difference(*world.arms(rng, networks, networks), auc, samples=samples)
    return found.low <= 0 <= found.high


def arms_differ(world: World, rng: np.random.Generator, samples: int, *, networks: int) -> bool:
    """Whether two equal arms are said to differ."""
    return arm_difference(*world.arms(rng, networks, networks), auc, samples=samples).p < 0.05


def networks_differ(world: World, rng: np.random.Generator, samples: int, *, known: bool = True) -> bool:
    """Whether the permutation test says that two networks of one arm differ."""
    ((first,), (second,)) = world.arms(rng, 1, 1)
    if not known:
        first, second = by_picture(first), by_picture(second)
    return permutation_test(first, second, auc, samples=samples) < 0.05


def share(found: Callable[..., bool], world: World, repetitions: int, samples: int, **options: Any) -> float:
    """How often something is found, in percent."""
    rng = np.random.default_rng(0)
    return 100 * float(np.mean([found(world, rng, samples, **options) for _ in range(repetitions)]))


def lines(repetitions: int, samples: int) -> Iterator[tuple[str, str, str, str]]:
    """What is checked, in which world, what is found, and what it should be."""

    def line(what: str, where: str, wanted: str, found: Callable[..., bool], world: World, **options: Any) -> tuple:
        return what, where, f"{share(found, world, repetitions, samples, **options):.1f} %", wanted

    for units, pictures in ((40, 3), (60, 3), (95, 2)):
        world, where = World(units, pictures), f"{units} units of 1 to {2 * pictures - 1} pictures"
        yield line("one network, interval holds, by unit", where, "93 to 97 %", interval_holds, world, known=True)
        yield line("... by picture", where, "too low", interval_holds, world, known=False)
    for gain, units, pictures in ((2.5, 60, 3), (2.5, 40, 3), (2.5, 40, 1), (3.5, 40, 3)):
        world, many = World(units, pictures, gain=gain), f"{units} units of 1 to {2 * pictures - 1} pictures"
        for name, metric in (("AUC", auc), ("accuracy", accuracy)):
            where = f"{name} {world.auc if metric is auc else world.accuracy:.3f}, {many}"
            of_metric = {"known": True, "metric": metric}
            yield line("one network, interval holds", where, "93 % or more", interval_holds, world, **of_metric)
        world = replace(world, network=0.1)
        yield line(
            "arm of 3 networks, interval holds",
            f"AUC {world.auc:.3f}, {many}",
            "93 % or more",
            arm_holds,
            world,
            networks=3,
        )
    for units, folds, repeats in ((40, 5, 1), (40, 5, 5)):
        where, how = f"{units} units of 1 picture", {"folds": folds, "repeats": repeats}
        for name, metric in (("AUC", auc), ("accuracy", accuracy)):
            what, world = f"{repeats} x {folds} folds, interval of {name} holds", World(units, 1)
            yield line(what, where, "93 % or more", folds_hold, world, metric=metric, **how)
    for units in (60, 200):
        worse, better = smallest_detectable(World(units, 1), samples, repetitions)
        what = f"two networks as far apart as detectable, AUC {worse.auc:.3f} and {better.auc:.3f}, told apart"
        yield line(what, f"{units} units of 1 picture", "80 %", difference_seen, worse, better=better)
    # All that the two networks do not share is their opinion of patients: the null is true, and units are exchangeable.
    world, where = World(60, 3, opinion=0.5, noise=0.1), "60 units of 1 to 5 pictures"
    yield line("two equal networks, permutation test errs, by unit", where, "5 %", networks_differ, world, known=True)
    yield line("... by picture", where, "too high", networks_differ, world, known=False)
    for spread in (0.1, 0.3):
        where = f"gain of networks 1 +- {spread}"
        world = World(network=spread)
        yield line("two networks of one arm, permutation test errs", where, "too high", networks_differ, world)
    for networks in (2, 3, 5):
        for spread in (0.0, 0.1, 0.3):
            where, world = f"{networks} networks, gain 1 +- {spread}", World(network=spread)
            yield line("arm, interval holds", where, "93 to 97 %", arm_holds, world, networks=networks)
            if networks > 2:  # the interval holds 0 where the test does not err
                yield line("two equal arms, test errs", where, "5 % or less", arms_differ, world, networks=networks)
            else:
                both = "two equal arms, interval holds 0"
                yield line(both, where, "93 to 97 %", difference_holds, world, networks=networks)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000, help="simulated test sets for each line")
    parser.add_argument("--samples", type=int, default=300, help="resamples of each interval and test")
    options = parser.parse_args()
    found = list(lines(options.repetitions, options.samples))
    print(aligned([("what", "where", "found", "wanted"), *found], left=2))


if __name__ == "__main__":
    main()
