"""Every bundle that trains a network, from a short run of its own to a shared one that passes the checks of the zoo.

LESSISMORE_MODEL_ZOO=CHECKOUT runs the script of a checkout of Project-MONAI/model-zoo, too.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import BUNDLES, bundles, method_files, tiny_backbone, tiny_settings
from shared_runs import STATED, train
from zoo_checks import CHECKOUT, check_as_the_zoo, run_of_the_zoo

from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.cli.main import main
from lessismore_transforms.methods import METHODS
from lessismore_transforms.phantom import write_demo_task
from lessismore_transforms.phantom.tasks import REGIONS
from lessismore_transforms.sharing.bundle_folder import LARGE_FILES
from lessismore_transforms.sharing.proof import SCHEMA
from lessismore_transforms.weights.backbones import build_backbone, save_backbone

pytestmark = pytest.mark.slow  # minutes; two of them are shared and checked in every run of the tests
TRAINED = [row for row in METHODS.values() if row.bundle]
RUNS = [*((name, "finetune") for name in TASKS), ("COVID-19", "linear")]


def test_no_bundle_is_left_out() -> None:
    assert {row.bundle for row in TRAINED} == {*bundles("pretraining")}
    assert {TASKS[name].bundle for name, _ in RUNS} == {*bundles("classification")}


def share_and_check(run: Path, folder: Path, *more: str) -> Path:
    """The shared bundle, proven by `share`, then by the zoo in its layout."""
    assert main(["share", str(run), "--output_dir", str(folder), *STATED, *more]) == 0
    listed = (folder / LARGE_FILES).is_file()
    assert listed == any(path.stat().st_size > 25_000_000 for path in folder.rglob("*"))
    (folder / "eval").mkdir()
    shutil.copyfile(SCHEMA, folder / "eval" / "schema.json")  # so that nothing is downloaded
    check_as_the_zoo(folder, folder.parent)
    if CHECKOUT:
        run_of_the_zoo(folder)
    return folder


@pytest.mark.parametrize("method", [row.name for row in TRAINED])
def test_a_pre_training(method: str, small_data: Path, tmp_path: Path) -> None:
    reduce = ["reduce", str(small_data), "--output_dir", str(tmp_path / "OUT"), "--workers", "0", "--no_report"]
    assert main(reduce) == 0
    tiny: dict[str, Any] = tiny_settings()[method] | {"backbone": tiny_backbone(method), "max_steps": 2}
    train(tmp_path, method_files(method), dataset_dir="OUT", output_dir="RUN", export_epochs=0, **tiny)
    (tmp_path / "models").mkdir()
    folder = share_and_check(
        tmp_path / "RUN", tmp_path / "models" / f"my_{method}", "--dataset_dir", str(tmp_path / "OUT"), "--torchscript"
    )
    card = (folder / "docs" / "README.md").read_text()
    assert f"| method | {METHODS[method].title} |" in card
    assert "| weights compared with the last checkpoint | yes: equal in every number |" in card


@pytest.mark.parametrize(("task", "mode"), RUNS, ids=["-".join(each) for each in RUNS])
def test_a_classification(task: str, mode: str, tmp_path: Path) -> None:
    row, network = TASKS[task], tiny_backbone()
    write_demo_task(tmp_path / "DATA", row.phantom, patients=16 if row.folds else 8)
    weights = tmp_path / "backbone.safetensors"
    save_backbone(weights, build_backbone(network, weights="random", seed=5), {"method": "moco", "epoch": 3})
    given: dict[str, Any] = {
        "mode": mode,
        "image_size": 32,
        "bootstrap": 20,
        "backbone": network,
        "pretrained": weights,
    }
    if mode == "finetune":
        given |= {"max_epochs": 1, "frozen_epochs": 0, "log_interval": 1, "batch_size": 8}
    if row.name == "Own":
        given |= {"labels": "labels.csv", "label_column": "hemorrhage"}
    if row.phantom == "organsmnist":
        given |= {"md5": "any", "classes": [*REGIONS]}
    train(
        tmp_path,
        [str(BUNDLES / row.bundle / "configs" / "train.json")],
        dataset_dir="DATA",
        output_dir="EVAL",
        only=given,
    )
    (tmp_path / "models").mkdir()
    folder = share_and_check(tmp_path / "EVAL" / "run_00", tmp_path / "models" / f"my_{mode}", "--torchscript")
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    record = json.loads((tmp_path / "EVAL" / "run_00" / "metrics.json").read_text())
    found = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert [*found.values()] == record["classes"]
    np.testing.assert_allclose(metadata["eval_metrics"]["auc"], record["test"]["auc"], atol=1e-6)
