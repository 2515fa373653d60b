"""What the options of `reduce` ask for together."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lessismore_transforms.cli.main import command_of, parser_of
from lessismore_transforms.cli.reduce import Reduce
from lessismore_transforms.errors import UserError
from lessismore_transforms.pipeline.settings import Encoder, Settings, TargetOptions
from lessismore_transforms.reduction.target import METHODS


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


def test_options_of_other_methods_are_refused() -> None:
    words = "--bins (of mi), --encoder (of deepnet), --features (of deepnet)"
    encoder = Encoder("resnet18", output="logits")
    for method in ("hash", "every_n", "random", "all"):
        sentence = f"expected options that the method {method} uses, found {words}: drop them"
        with pytest.raises(UserError, match=rf"^{re.escape(sentence)}$"):
            settings_of(Settings(bins=32, encoder=encoder), target=TargetOptions(method))


@pytest.mark.parametrize(
    ("settings", "name", "methods"),
    [
        (Settings(bins=32), "bins", {"mi"}),
        (Settings(keep_distances=True), "keep_distances", {"ssim", "mi", "deepnet"}),
        (Settings(encoder=Encoder("resnet18")), "encoder", {"deepnet"}),
        (Settings(encoder=Encoder(weights="w.safetensors")), "weights", {"deepnet"}),
        (Settings(encoder=Encoder(output="logits")), "features", {"deepnet"}),
        (Settings(encoder=Encoder(precision="bfloat16")), "precision", {"deepnet"}),
        (Settings(), "", {*METHODS}),  # what is as by default was not asked for
        (Settings(device="cuda", memory_mb=1, body=True, include=("*.nii",)), "", {*METHODS}),
    ],
)
def test_each_method_takes_what_it_uses(settings: Settings, name: str, methods: set[str]) -> None:
    for method in methods:
        assert settings_of(settings, target=TargetOptions(method)).target.method == method
    for method in {*METHODS} - methods:
        with pytest.raises(UserError, match=rf"found --{name} \(of [a-z, ]+\): drop them$"):
            settings_of(settings, target=TargetOptions(method))


def test_defaults_that_are_written_out_are_no_mistake() -> None:
    """A bundle gives all of them."""
    line = (
        "reduce DATA --output_dir OUT --method hash --bins 64 --encoder resnet50 --features pooled --precision float32"
    )
    given = parser_of("reduce").parse_args(line.split())
    seen: list[Reduce] = []
    assert replace(command_of("reduce"), run=lambda options: seen.append(options) or 0, before=None)(given) == 0
    assert seen[0].all_settings() == settings_of()
