"""The networks that are compared, by name, looked for before anything is read and before PyTorch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lessismore_transforms.errors import UserError
from lessismore_transforms.weights.backbones import find_network
from lessismore_transforms.weights.layouts import BACKBONE, MODEL, must_exist

RANDOM, IMAGENET = "random", "imagenet"


def named_models(models: Sequence[str]) -> list[tuple[str, str]]:
    """The name and the place of each network, all of which are there.

    Args:
        models: of each `NAME=WHAT`, as `models.load_models` takes them.

    Raises:
        UserError: a name is missing or there twice, or a place is none.
    """
    pairs = [_named(text) for text in models]
    if not pairs:
        raise UserError("expected one model or more as NAME=FILE, found none: name them with --models")
    names = [name for name, _ in pairs]
    if doubled := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise UserError(f"expected each name of a model once, found {doubled!r} twice: change one")
    others = [(name, place) for name, place in pairs if seed_of(place) is None]
    if not others:
        raise UserError(
            "expected a model from a file beside the random one, found none: name one with --models, or the network, "
            "as in random=resnet50"
        )
    for name, place in sorted(others, key=lambda pair: "/" not in pair[1]):  # to know names of networks takes seconds
        find_weights(name, place)
    return pairs


def find_weights(name: str, place: str) -> Path | tuple[str, str]:
    """The file of a network; or the network that a text names, and its weights: a file, `random` or `imagenet`.

    Raises:
        UserError: there is none, or a folder is that of no finished run.
    """
    path = Path(place)
    if path.is_dir():
        files = [path / file for file in (BACKBONE, MODEL) if (path / file).is_file()]
        if not files:
            raise UserError(
                f"expected {BACKBONE} or {MODEL} in {path}, found neither: give the folder of a finished run"
            )
        return files[0]
    if path.exists():
        return path
    network = find_network(place)
    if network is None:
        raise UserError(
            f"expected a file of weights, the folder of a run, or a network of torchvision or timm as NETWORK or "
            f"NETWORK:FILE, found none of them in {name}={place}: check the name"
        )
    if network[1] not in (RANDOM, IMAGENET):
        must_exist(Path(network[1]))
    return network


def seed_of(place: str) -> int | None:
    """The seed of untrained weights, `random` or `random:SEED`; None of anything else."""
    word, _, seed = place.partition(":")
    return int(seed or 0) if word == RANDOM and (seed or "0").isdecimal() else None


def _named(text: str) -> tuple[str, str]:
    name, sign, path = str(text).partition("=")
    if not (sign and name.strip() and path.strip()):
        raise UserError(f"expected a model as NAME=FILE, found {text!r}: give its name in tables, then its file")
    return name.strip(), path.strip()
