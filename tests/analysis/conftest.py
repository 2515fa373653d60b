"""Pictures of two classes and eight patients, two encoders and a classifier, all tiny."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lessismore_transforms.classification.network import build_classifier, save_classifier
from lessismore_transforms.weights.backbones import build_backbone, save_backbone

SIZE = 64  # the last block has four places
HEADER = {"backbone": "resnet18", "image_size": SIZE, "channels": 1, "mean": [0.4], "std": [0.25]}
CLASSES = ("dark", "bright")


@pytest.fixture(scope="session")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures/, labels.csv, RUN/ (with a checkpoint), other.safetensors and EVAL/run_00/."""
    folder = tmp_path_factory.mktemp("explained")
    random = np.random.default_rng(0)
    rows = []
    for number in range(24):
        patient, label = number // 3, (number // 3) % 2
        grey = random.integers(0, 120, (40, 36)) + 100 * label
        path = folder / "pictures" / f"p{patient}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.astype(np.uint8)).save(path)
        split = "train" if patient < 1 else "test"
        rows.append([f"p{patient}/{number}.png", CLASSES[label], f"patient {patient}", split])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient", "split"], *rows])
    with (folder / "plain.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient"], *(row[:3] for row in rows)])
    encoder = build_backbone("resnet18", weights="random", seed=1)
    (folder / "RUN" / "backbones").mkdir(parents=True)
    save_backbone(folder / "RUN" / "backbone.safetensors", encoder, {**HEADER, "method": "simclr", "epoch": 9})
    earlier = build_backbone("resnet18", weights="random", seed=3)
    save_backbone(folder / "RUN" / "backbones" / "step_000005.safetensors", earlier, {**HEADER, "method": "simclr"})
    other = build_backbone("resnet18", weights="random", seed=2)
    save_backbone(folder / "other.safetensors", other, {**HEADER, "mean": [0.3], "method": "simclr"})
    classifier = build_classifier("resnet18", 2, weights=folder / "RUN" / "backbone.safetensors", seed=4)
    header = {**HEADER, "classes": list(CLASSES), "resize": "bilinear", "transpose": False}
    record = {"mode": "finetune", "settings": {}}
    (folder / "EVAL" / "run_00").mkdir(parents=True)
    save_classifier(
        folder / "EVAL" / "run_00" / "model.safetensors", classifier, {**header, "record": record, "epoch": 2}
    )
    return folder
