"""The steps in their order, each with its parts: parts run one after the other in one process."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial

from gpu.setup import Figure, Part, Setup
from lessismore_transforms.methods import METHODS

_TRAINED = tuple(name for name, row in METHODS.items() if row.bundle)
# The module and the functions of each step; a module is imported in the step's own process.
STEPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tests": ("commands", ("tests",)),
    **{f"method_{name}": ("training", ("speed", "first_step", "resume")) for name in _TRAINED},
    "variants_swav": ("training", ("fp16", "compiled")),
    "distributed_swav": ("training", ("distributed",)),
    "bench_step": ("bench", ("step",)),
    "bench_views": ("bench", ("views",)),
    "measure_ssim": ("measures", ("ssim",)),
    "measure_nmi": ("measures", ("nmi",)),
    "measure_deepnet": ("measures", ("deepnet",)),
    "measure_dhash": ("measures", ("hashes",)),
    "projection": ("projection", ("hours",)),
    "side_by_side": ("side_by_side", ("side_by_side",)),
    "finetune": ("commands", ("finetune",)),
    **{f"variants_{name}": ("training", ("fp16", "compiled")) for name in _TRAINED if name != "swav"},
}


def chosen(beginnings: list[str]) -> list[str]:
    """The steps whose names begin with one of these, in their order; all for none."""
    return [name for name in STEPS if name.startswith(tuple(beginnings))] if beginnings else list(STEPS)


def parts(step: str) -> dict[str, Part]:
    """The parts of a step by name."""
    module, names = STEPS[step]
    functions = {name: getattr(importlib.import_module(f"gpu.{module}"), name) for name in names}
    if module != "training":
        return functions
    return {name: partial(_of_method, function, step.partition("_")[2]) for name, function in functions.items()}


def _of_method(function: object, method: str, setup: Setup) -> Iterator[Figure]:
    yield from function(setup, method)  # type: ignore[operator]
