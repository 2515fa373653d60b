"""What settings of labels, folds and heads refuse."""

from __future__ import annotations

from typing import Any

import pytest

from lessismore_transforms.classification.data_settings import HeadSettings, LabelSettings, ProtocolSettings
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import names

DATA = {"dataset_dir": "x"}


@pytest.mark.parametrize(
    ("kind", "given", "sentence"),
    [
        (LabelSettings, {"window": "lungs"}, "expected a window as LEVEL/WIDTH in HU or one of"),
        (LabelSettings, {"window": "lung+brain"}, r"three channels, found 2 windows in 'lung\+brain'"),
        (LabelSettings, {"window": "lung+brain+40/400"}, "expected 3 channels for the 3 windows"),
        (HeadSettings, {"head": "deep"}, "expected a head out of linear, mlp, found 'deep'"),
        (HeadSettings, {"head": "mlp", "mode": "linear"}, "the head linear for a logistic regression, found mlp"),
        (ProtocolSettings, {"grouped": "maybe"}, "expected true or false, found 'maybe'"),
    ],
)  # fmt: skip
def test_mistakes(kind: type, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        kind(**DATA, **given)


def test_what_is_possible() -> None:
    assert LabelSettings(**DATA, window="lung+brain+40/400", channels=3).window == "lung+brain+40/400"
    assert HeadSettings(**DATA, head="mlp", mode="linear", linear_recipe="adam").head == "mlp"
    assert ProtocolSettings(**DATA, grouped="False").grouped is False
    # What identifies a training is told by the header of its network, so that it can be scored again.
    assert {"protocol", "fold", "folds", "validation", "split_seed", "grouped", "head"} <= set(
        names(ProtocolSettings, "identity")
    )
