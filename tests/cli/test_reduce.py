"""What the options of `reduce` ask for together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lessismore_transforms.cli.reduce import Reduce
from lessismore_transforms.errors import UserError
from lessismore_transforms.pipeline.settings import Settings


def settings_of(settings: Settings | None = None, **given: Any) -> Settings:
    return Reduce(Path("DATA"), Path("OUT"), settings=settings or Settings(), **given).all_settings()


@pytest.mark.parametrize(
    ("given", "as_released", "pixels"),
    [
        ({}, False, "clipped"),
        ({}, True, "released"),
        ({"pixels": "clipped"}, False, "clipped"),
        ({"pixels": "released"}, False, "released"),
        ({"pixels": "released"}, True, "released"),
        ({"window": "lung"}, False, "lung"),
        ({"window": "lung"}, True, "lung"),
    ],
)
def test_stored_are_the_pixels_that_were_asked_for(given: dict[str, str], as_released: bool, pixels: str) -> None:
    assert settings_of(Settings(as_released=as_released), **given).pixels == pixels


def test_pixels_that_would_not_be_stored_are_refused() -> None:
    with pytest.raises(UserError, match=r"^--as_released and --pixels clipped exclude each other: drop one$"):
        settings_of(Settings(as_released=True), pixels="clipped")
    with pytest.raises(UserError, match=r"^--window and --pixels released exclude each other: drop one$"):
        settings_of(window="lung", pixels="released")
