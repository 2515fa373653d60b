"""A finished pre-training and a finished classification run, small, each made once by its bundle, and what they share.

All processes of pytest read the same ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import BUNDLES, method_files, tiny_settings
from shared_runs import STATED, made_once, train

from lessismore_transforms.cli.main import main
from lessismore_transforms.phantom import write_demo_task


@pytest.fixture(scope="package")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with OUT, RUN (SwAV on OUT) and EVAL (pictures of COVID-19, from RUN); read only."""

    def make(folder: Path) -> None:
        folder.mkdir()
        data = request.getfixturevalue("small_data")
        assert main(["reduce", str(data), "--output_dir", str(folder / "OUT"), "--workers", "0", "--no_report"]) == 0
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

    return made_once(tmp_path_factory, "share", make)


@pytest.fixture(scope="package")
def encoder(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of RUN, with its evaluation on the card; read only."""

    def make(folder: Path) -> None:
        said = ["--data", "phantoms", "--data_license", "CC0", "--cite", "Student 2026"]
        said += ["--url", "https://example.org/w"]
        line = ["share", str(place / "RUN"), "--output_dir", str(folder), "--dataset_dir", str(place / "OUT")]
        assert main([*line, "--evaluation", str(place / "EVAL"), *STATED, *said]) == 0

    return made_once(tmp_path_factory, "share/my_ct_encoder", make)


@pytest.fixture(scope="package")
def classifier(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of EVAL/run_00, with TorchScript; read only."""

    def make(folder: Path) -> None:
        line = ["share", str(place / "EVAL" / "run_00"), "--output_dir", str(folder), "--torchscript", *STATED]
        assert main(line) == 0

    return made_once(tmp_path_factory, "share/my_classifier", make)
