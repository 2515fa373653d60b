"""Networks by name: what is found, and that all are looked for before one is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessismore_transforms.analysis import models
from lessismore_transforms.analysis.model_names import find_weights, named_models, seed_of
from lessismore_transforms.errors import UserError


def test_the_file_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected backbone\.safetensors or model\.safetensors in .*, found neither"):
        find_weights("a", str(tmp_path))
    for name in ("model.safetensors", "backbone.safetensors"):  # of both, the encoder
        (tmp_path / name).touch()
        assert find_weights("a", str(tmp_path)) == tmp_path / name
    assert find_weights("a", str(tmp_path / "model.safetensors")) == tmp_path / "model.safetensors"


def test_a_network_and_its_weights(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    assert find_weights("a", "resnet18") == ("resnet18", "random")
    assert find_weights("a", "resnet18:imagenet") == ("resnet18", "imagenet")
    assert find_weights("a", f"resnet18:{tmp_path / 'w.pt'}") == ("resnet18", str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match=r"expected a file of weights at none\.pt, found none"):
        find_weights("a", "resnet18:none.pt")


def test_names_and_seeds() -> None:
    assert named_models([" a = resnet18", "b=random:7"]) == [("a", "resnet18"), ("b", "random:7")]
    assert [seed_of(place) for place in ("random", "random:7", "random:x", "resnet18")] == [0, 7, None, None]


def test_all_are_looked_for_before_one_is_loaded(explained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(models, "_load", lambda name, *_, **__: loaded.append(name))
    with pytest.raises(UserError, match="found none of them in b=none/RUN: check the name"):
        models.load_models([f"a={explained / 'RUN'}", "b=none/RUN"])
    assert loaded == []
