"""The two views of a picture that a pre-training compares, as its configuration tells them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessismore_transforms.errors import UserError, first_line, reading
from lessismore_transforms.methods import METHODS
from lessismore_transforms.options import is_number
from lessismore_transforms.pretraining.views import View

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

_USUAL = {"sampling": "random", "near_copies": "keep"}
_DO = "give the train.json of a pre-training bundle, or RUN/config.json"


@dataclass(frozen=True)
class ViewPair:
    """What a configuration tells of views and batches.

    Args:
        kinds: of the first and of the second view, `count` 1 each.
        batch_size: pictures of a batch; None where it does not tell.
        method: name of the method; empty where it does not tell.
        balance: whether volumes take turns in the batches.
        volumes_per_batch: how many share a batch then; none for all.
        queue: whether the negatives are a queue; its length is in the plan of a training, not always in here.
        remedies: settings by which the training keeps near copies from each other, as texts.
    """

    kinds: tuple[View, View]
    batch_size: int | None
    method: str
    balance: bool = False
    volumes_per_batch: int | None = None
    queue: bool = False
    remedies: tuple[str, ...] = ()

    @property
    def has_negatives(self) -> bool:
        """Whether the loss of the method pushes other pictures away; True of a method that has no row."""
        return self.method not in METHODS or METHODS[self.method].negatives


def read_views(files: Sequence[Path], image_size: int | None = None) -> ViewPair:
    """The first two views of a configuration; where it has one alone, that one drawn twice.

    Args:
        files: JSON files of MONAI; later ones change earlier ones.
        image_size: pixels per side, in place of those of the configuration.

    Raises:
        UserError: a file is missing or damaged, or holds no views.
    """
    shown = ", ".join(str(path) for path in files)
    parser = _parser(files)
    kinds = _kinds(parser, shown)
    views = [dataclasses.replace(kind, count=1) for kind in kinds for _ in range(kind.count)]
    first, second = (views + views)[:2]
    if image_size is not None:
        first, second = (dataclasses.replace(view, size=image_size) for view in (first, second))
    batch_size = parser.get("batch_size")
    method = parser.get("method") or parser.get("train#trainer#method") or ""
    together = parser.get("volumes_per_batch")
    return ViewPair(
        (first, second),
        batch_size if is_number(batch_size, int) else None,
        str(method),
        parser.get("balance") is True,
        together if is_number(together, int) else None,
        "queue_length" in parser.get(),
        tuple(f"{name} {parser.get(name)}" for name, usual in _USUAL.items() if parser.get(name, usual) != usual),
    )


def _parser(files: Sequence[Path]) -> ConfigParser:
    """The configuration of all files; that of a finished run stands within its config.json."""
    from monai.bundle import ConfigParser  # takes seconds to import

    parser = ConfigParser({})
    for path in files:
        with reading(path):
            text = path.read_text(encoding="utf-8")
        try:
            content: Any = json.loads(text)
        except json.JSONDecodeError:
            content = None
        if not isinstance(content, dict):
            raise UserError(f"expected a JSON object in {path}, found none: {_DO}")
        parser.update(content.get("configuration", content))
    return parser


def _kinds(parser: ConfigParser, shown: str) -> list[View]:
    views = parser.get("views")
    if not isinstance(views, dict) or not views.get("kinds"):
        raise UserError(f"expected views with their kinds in {shown}, found none: {_DO}")
    try:
        kinds = parser.get_parsed_content("views#kinds")
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = first_line(error.__cause__ or error)
        raise UserError(f"expected views that can be made in {shown}, found others ({reason}): {_DO}") from error
    if not isinstance(kinds, list) or not all(isinstance(kind, View) for kind in kinds):
        raise UserError(f"expected kinds that are {View.__module__}.View in {shown}, found others: {_DO}")
    return kinds
