"""`--tracking mlflow` writes the losses of a training, with the values of its log, to MLflow's store in a file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from helpers import BUNDLES, run_workflow, tiny_settings
from monai.bundle import ConfigWorkflow

from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduction.target import Target


@pytest.mark.usefixtures("hook", "one_thread")
def test_mlflow_has_the_losses_of_the_log(small_data: Path, tmp_path: Path) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason=f"{package} is not installed")
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
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    logged = {line["step"]: line["loss"] for line in lines if "loss" in line}
    store = sqlite3.connect(tmp_path / "mlruns.db")
    tracked = dict(store.execute("SELECT step, value FROM metrics WHERE key = 'train_loss'").fetchall())
    store.close()
    assert sorted(logged) == [1, 2, 3]
    assert tracked == pytest.approx(logged, rel=1e-12)
