"""Pictures of two classes and twelve patients, and an encoder, all tiny."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lessismore_transforms.weights.backbones import build_backbone, save_backbone


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures/, labels.csv with patients, plain.csv without, and RUN/backbone.safetensors."""
    folder = tmp_path_factory.mktemp("labelled")
    random = np.random.default_rng(0)
    rows = []
    for number in range(36):
        patient = number // 3
        grey = random.integers(0, 140, (40, 36)) + 60 * (patient % 2)
        path = folder / "pictures" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(grey.astype(np.uint8)).save(path)
        rows.append([path.name, ("dark", "bright")[patient % 2], f"patient {patient}"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient"], *rows])
    with (folder / "plain.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], *(row[:2] for row in rows)])
    (folder / "RUN").mkdir()
    encoder = build_backbone("resnet18", weights="random", seed=1)
    header = {"backbone": "resnet18", "image_size": 32, "channels": 1, "mean": [0.4], "std": [0.25], "epoch": 9}
    save_backbone(folder / "RUN" / "backbone.safetensors", encoder, {**header, "method": "simclr"})
    return folder
