"""A finished pre-training and a finished classification run, small, each made once by its bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import BUNDLES, method_files, tiny_settings
from shared_runs import STATED, train

from lessismore_transforms.cli.main import main
from lessismore_transforms.phantom import write_demo_task


@pytest.fixture(scope="package")
def place(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with OUT, RUN (SwAV on OUT) and EVAL (pictures of COVID-19, from RUN); read only."""
    folder = tmp_path_factory.mktemp("share")
    reduce = ["reduce", str(small_data), "--output_dir", str(folder / "OUT"), "--workers", "0", "--no_report"]
    assert main(reduce) == 0
    train(
        folder,
        method_files("swav"),
        dataset_dir="OUT",
        output_dir="RUN",
        **tiny_settings()["swav"] | {"batch_size": 8, "max_steps": 3, "export_epochs": 0, "health_interval": 1},
    )
    write_demo_task(folder / "COVID", "covid19", patients=8)
    train(
        folder,
        [str(BUNDLES / "covid19_ct_classification" / "configs" / "train.json")],
        dataset_dir="COVID",
        pretrained="RUN/backbone.safetensors",
        output_dir="EVAL",
        image_size=32,
        max_epochs=2,
        frozen_epochs=1,
        bootstrap=20,
        pretraining="OUT",
    )
    return folder


@pytest.fixture(scope="package")
def encoder(place: Path) -> Path:
    """The bundle of RUN, with its evaluation on the card; read only."""
    folder = place / "my_ct_encoder"
    said = ["--data", "phantoms", "--data_license", "CC0", "--cite", "Student 2026", "--url", "https://example.org/w"]
    line = ["share", str(place / "RUN"), "--output_dir", str(folder), "--dataset_dir", str(place / "OUT")]
    assert main([*line, "--evaluation", str(place / "EVAL"), *STATED, *said]) == 0
    return folder


@pytest.fixture(scope="package")
def classifier(place: Path) -> Path:
    """The bundle of EVAL/run_00, with TorchScript; read only."""
    folder = place / "my_classifier"
    line = ["share", str(place / "EVAL" / "run_00"), "--output_dir", str(folder), "--torchscript", *STATED]
    assert main(line) == 0
    return folder
