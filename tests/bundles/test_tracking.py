"""`--tracking mlflow` writes the losses of a training, with the values of its log, to MLflow's store in a file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers import BUNDLES, run_workflow, tiny_backbone, tiny_settings
from monai.bundle import ConfigWorkflow

from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduction.target import Target


@pytest.fixture(autouse=True)
def _mlflow() -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason=f"{package} is not installed")


def tracked(database: Path, name: str) -> dict[int, float]:
    """The values of a metric in MLflow's store, by step."""
    store = sqlite3.connect(database)
    found = dict(store.execute("SELECT step, value FROM metrics WHERE key = ?", (name,)).fetchall())
    store.close()
    return found


def logged(run: Path, name: str) -> dict[int, float]:
    """The values of a metric in a run's log, by step."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


@pytest.mark.usefixtures("hook", "one_thread")
def test_mlflow_has_the_losses_of_the_log(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path / "out", Settings(Target.of(threshold=3)), workers=0)
    workflow = ConfigWorkflow(
        str(BUNDLES / "ct_swav_pretraining" / "configs" / "train.json"),
        workflow_type="train",
        logging_file=False,
        tracking="mlflow",
        tracking_uri=f"sqlite:///{tmp_path / 'mlruns.db'}",
        dataset_dir=str(tmp_path / "out"),
        output_dir=str(tmp_path / "run"),
        device="cpu",
        workers=0,
        **tiny_settings()["swav"] | {"batch_size": 4, "max_steps": 3, "backbone": "resnet18", "log_interval": 1},
    )
    run_workflow(workflow)
    losses = logged(tmp_path / "run", "loss")
    assert sorted(losses) == [1, 2, 3]
    assert tracked(tmp_path / "mlruns.db", "train_loss") == pytest.approx(losses, rel=1e-12)


@pytest.mark.usefixtures("hook", "one_thread")
def test_mlflow_has_the_losses_of_a_classification(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 24), ("val", 6), ("test", 6)):
        labels = np.arange(count) % 3
        arrays[f"{split}_images"] = (random.integers(0, 100, (count, 28, 28)) + 50 * labels[:, None, None]).astype("u1")
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    (tmp_path / "organs").mkdir()
    np.savez(tmp_path / "organs" / "organsmnist.npz", **arrays)
    workflow = ConfigWorkflow(
        str(BUNDLES / "organsmnist_ct_classification" / "configs" / "train.json"),
        workflow_type="train",
        logging_file=False,
        tracking="mlflow",
        tracking_uri=f"sqlite:///{tmp_path / 'mlruns.db'}",
        dataset_dir=str(tmp_path / "organs"),
        output_dir=str(tmp_path / "eval"),
        md5="any",
        classes=["a", "b", "c"],
        mode="scratch",
        backbone=tiny_backbone(),
        image_size=32,
        batch_size=8,
        max_epochs=2,
        workers=0,
        bootstrap=20,
        log_interval=1,
        device="cpu",
    )
    run_workflow(workflow)
    losses = logged(tmp_path / "eval" / "run_00", "loss")
    assert sorted(losses) == [1, 2, 3, 4, 5, 6]
    assert tracked(tmp_path / "mlruns.db", "train_loss") == pytest.approx(losses, rel=1e-12)
