"""The classification bundles as their users run them, on tiny pictures that tell their class by their brightness."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT, bundle_environment, in_bundle, tiny_backbone, workflows
from PIL import Image
from warm_python import warm_ranks

from lessismore_transforms.classification.evaluation import SETTLED
from lessismore_transforms.classification.metrics import score
from lessismore_transforms.classification.network import load_classifier
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.training.checkpoint import write_checkpoint
from lessismore_transforms.weights.backbones import build_backbone, save_backbone

COVID, ORGANS, BRAIN = (f"{name}_classification" for name in ("covid19_ct", "organsmnist_ct", "brain_hemorrhage_ct"))
NETWORK = tiny_backbone()
SMALL: dict[str, Any] = {
    "backbone": NETWORK,
    "image_size": 32,
    "batch_size": 8,
    "workers": 0,
    "bootstrap": 20,
    "log_interval": 1,
    "device": "cpu",
}
SPLITS = {"train": 13, "val": 4, "test": 6}  # of each class


def picture(random: np.random.Generator, label: int, size: tuple[int, int] = (40, 36)) -> np.ndarray:
    noise = random.integers(0, 100, size)
    return (noise + 50 * label).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three data sets, and weights of an encoder."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for label, name in enumerate(("COVID", "NonCOVID")):
        (folder / "covid" / f"CT_{name}").mkdir(parents=True)
        (folder / "covid" / "Data-split" / name).mkdir(parents=True)
        for split, count in SPLITS.items():
            names = [f"{name}_{split}%{number}.png" for number in range(count)]
            (folder / "covid" / "Data-split" / name / f"{split}CT_{name}.txt").write_text("\n".join(names))
            for each in names:
                Image.fromarray(picture(random, label)).save(folder / "covid" / f"CT_{name}" / each)
    arrays = {}
    for split, count in SPLITS.items():
        labels = np.arange(3 * count) % 3
        arrays[f"{split}_images"] = np.stack([picture(random, label, (28, 28)) for label in labels])
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    (folder / "organs").mkdir()
    np.savez(folder / "organs" / "organsmnist.npz", **arrays)
    for label, name in enumerate(("a_without", "b_with")):
        (folder / "brain" / name).mkdir(parents=True)
        for number in range(15):
            Image.fromarray(picture(random, label)).save(folder / "brain" / name / f"{number}.png")
    metadata = {"method": "moco", "epoch": 3}
    save_backbone(folder / "backbone.safetensors", build_backbone(NETWORK, weights="random", seed=5), metadata)
    save_backbone(folder / "resnet18.safetensors", build_backbone("resnet18", weights="random", seed=5), metadata)
    return folder


def configs(bundle: str, *names: str) -> list[str]:
    return [str(ROOT / "bundles" / bundle / "configs" / f"{name}.json") for name in names]  # or an absolute path


def runs_of(bundle: str, *given: tuple[list[str], dict[str, Any]]) -> str:
    """Code for trainings and evaluations of (configurations, overrides)."""
    free = {name: value for name, value in SMALL.items() if name not in SETTLED}
    small = {True: free, False: SMALL}
    return workflows(*((configs(bundle, *names), small["evaluate" in names] | more) for names, more in given))


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss", line.get("val_loss"))) for line in lines if "event" not in line]


def test_the_command_fine_tunes_and_scores(tmp_path: Path, data: Path) -> None:
    overrides = SMALL | {
        "dataset_dir": data / "covid",
        "backbone": "resnet18",  # learns in a few epochs
        "pretrained": data / "resnet18.safetensors",
        "output_dir": "eval",
        "run_index": 3,
        "max_epochs": 14,
        "frozen_epochs": 2,
        "pretrain_dataset": "LIDC",
        "reduction": "HASH-6",
    }
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", *configs(COVID, "train")]
    line += [str(item) for name, value in overrides.items() for item in (f"--{name}", value)]
    done = subprocess.run(
        line, cwd=tmp_path, env=bundle_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "eval" / "run_03"
    files = {path.name for path in run.iterdir()}
    assert files >= {
        "predictions.csv",
        "model.safetensors",
        "evaluation.png",
        "leakage.csv",
        "curves.png",
        "config.json",
    }
    found = metrics(run)
    assert found["experiment"] == {"pretrain_dataset": "LIDC", "ssl_method": "MoCoV2", "reduction": "HASH-6"}
    assert found["weights"]["epoch"] == 3
    assert found["counts"] == {split: 2 * count for split, count in SPLITS.items()}
    predictions = Predictions.read(run / "predictions.csv")
    test = predictions.of("test")
    assert found["test"]["auc"] == score(test.labels, test.probabilities)["auc"] >= 0.9  # brightness is easily learned
    assert f"test: AUC {found['test']['auc']:.3f} (95 % of resampled sources " in done.stdout
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    best = max(
        (line for line in lines if "val_accuracy" in line), key=lambda line: (line["val_accuracy"], -line["step"])
    )
    assert found["best_epoch"] == best["epoch"]
    assert found["val"]["accuracy"] == pytest.approx(best["val_accuracy"])


@pytest.mark.parametrize("bundle", [COVID, ORGANS, BRAIN])
def test_each_bundle_trains_as_released_and_evaluates_to_the_same(tmp_path: Path, data: Path, bundle: str) -> None:
    """MONAI's properties, the released settings, and an evaluation of what was trained, in one process.

    The learning rates of the released settings are those of thirteen epochs, for one bundle.
    """
    epochs = 13 if bundle == COVID else 2
    fold = {"fold": 2, "repeat": 1}
    common = {COVID: {"dataset_dir": str(data / "covid")}, BRAIN: {"dataset_dir": str(data / "brain"), **fold}}
    common[ORGANS] = {"dataset_dir": str(data / "organs"), "md5": "any", "classes": ["a", "b", "c"]}
    trained = common[bundle] | {"mode": "scratch", "max_epochs": epochs, "output_dir": "trained"}
    trained |= {} if bundle == COVID else {"frozen_epochs": 1}
    number = "run_07" if bundle == BRAIN else "run_00"  # five folds of the first repeat, then 0, 1 and 2
    scored = common[bundle] | {"output_dir": "scored", "weights": f"trained/{number}/model.safetensors"}
    scored = {name: value for name, value in scored.items() if name not in fold}  # they are those of the training
    refused = (
        {}
        if bundle != COVID
        else {
            "image_size is that of the training of these weights: leave out --image_size": {"image_size": 224},
            "mode is that of the training of these weights: leave out --mode": {"mode": "linear"},
            "found a run in scored/": {},
        }
    )
    given = [(["train"], trained), (["train", "as_released"], trained), (["train", "evaluate"], scored)]
    given += [(["train", "evaluate"], scored | more) for more in refused.values()]
    code = runs_of(bundle, *given)
    code += """
for workflow in workflows[:2]:
    workflow.initialize()
    assert workflow.check_properties() == [], workflow.check_properties()
print(run(workflows[1]), run(workflows[2]))
print("REFUSED" + json.dumps([run(workflow) for workflow in workflows[3:]]))
"""
    said, _, errors = in_bundle(tmp_path, bundle, code).partition("REFUSED")
    assert "error" not in said
    for words, text in zip(refused, json.loads(errors), strict=True):
        assert text.count("error: ") == 1, text
        assert words in text
    _, header = load_classifier(tmp_path / "trained" / number / "model.safetensors")
    log = [json.loads(line) for line in (tmp_path / "trained" / number / "log.jsonl").read_text().splitlines()]
    rates = {line["epoch"]: line["learning_rate"] for line in log if "learning_rate" in line}
    expected = [1e-4] * 11 + [2e-5] * 2
    assert rates == pytest.approx({epoch: expected[epoch - 1] for epoch in range(1, epochs + 1)}, rel=1e-9)
    assert header["channels"] == 3
    assert header["transpose"] is (bundle != ORGANS)
    assert header["mean"] == ([0.5] if bundle == ORGANS else [0.56, 0.5596, 0.5596])
    first, again = (metrics(tmp_path / folder / number) for folder in ("trained", "scored"))
    assert len(first["classes"]) == (3 if bundle == ORGANS else 2)
    assert (first["test"], first["val"]) == (again["test"], again["val"])
    assert again["rescored"] is True
    assert "rescored" not in first
    assert again["mode"] == first["mode"] == "scratch"
    assert again["settings"] == first["settings"]
    assert {**first["settings"], **(fold if bundle == BRAIN else {})} == first["settings"]
    assert first["settings"]["frozen_epochs"] == (10 if bundle == COVID else 1)
    confused = np.array(first["confusion"]["test"])
    assert confused.trace() / confused.sum() == pytest.approx(first["test"]["accuracy"], abs=1e-12)
    assert (again["experiment"], again["epochs"]) == (first["experiment"], epochs)
    tables = [(tmp_path / folder / number / "predictions.csv").read_bytes() for folder in ("trained", "scored")]
    assert tables[0] == tables[1]


def test_the_same_numbers_on_any_number_of_workers_and_after_a_stop(tmp_path: Path, data: Path) -> None:
    common = {"dataset_dir": str(data / "covid"), "pretrained": str(data / "backbone.safetensors"), "max_epochs": 3}
    common |= {"frozen_epochs": 1, "leakage": "ignore"}
    common |= {"encoder_learning_rate": 1e-3, "learning_rate_schedule": "step", "step_epochs": [2], "warmup_epochs": 1}
    common |= {"label_smoothing": 0.1, "class_weights": "balanced", "flip_vertical": 0.5, "crop": 0.5, "rotation": 10}
    common |= {"shift": 0.1, "brightness": 0.2, "contrast": 0.2, "erasing": 0.5, "mixup": 0.4, "cutmix": 1.0}
    given = [(["train"], common | {"output_dir": f"workers_{workers}", "workers": workers}) for workers in (0, 2, 4)]
    stopped = common | {"output_dir": "stopped"}
    (tmp_path / "signal.json").write_text('{"+train#handlers": [{"_target_": "__main__.EndBySignal"}]}')
    given += [(["train", str(tmp_path / "signal")], stopped)]
    given += [(["train"], stopped | {"resume": "true"})]
    given += [(["train"], common | {"output_dir": "workers_0", "resume": True})]
    other = {"crop": 0.6, "max_epochs": 5}
    given += [(["train"], common | {"output_dir": "workers_2", "resume": True} | other)]
    code = runs_of(COVID, *given)
    code += """
import os, signal
from ignite.engine import Events

class EndBySignal:
    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_STARTED(once=6), lambda: os.kill(os.getpid(), signal.SIGTERM))

print(*map(run, workflows[:-2]))
os.remove("workers_0/run_00/metrics.json")  # as if it had been killed after the training
os.rename("workers_0/run_00/predictions.csv", "predictions.csv")
print(*map(run, workflows[-2:]))
"""
    said = in_bundle(tmp_path, COVID, code)
    assert said.count("error: ") == 2
    assert "error: stopped by SIGTERM after iteration 6: go on with --resume True" in said
    assert "error: expected to go on with crop 0.6, found 0.5 in workers_2/run_00/checkpoints/last.pt" in said
    assert (tmp_path / "predictions.csv").read_bytes() == (tmp_path / "workers_0/run_00/predictions.csv").read_bytes()
    assert metrics(tmp_path / "workers_0" / "run_00") == metrics(tmp_path / "stopped" / "run_00")
    runs = [tmp_path / name / "run_00" for name in ("workers_0", "workers_2", "workers_4", "stopped")]
    assert len(losses(runs[0])) == 4 * 3 + 3  # each iteration, and the validation of each epoch
    for other in runs[1:]:
        assert losses(other) == losses(runs[0])  # bit for bit
        assert (other / "predictions.csv").read_bytes() == (runs[0] / "predictions.csv").read_bytes()


def test_a_training_goes_on_with_the_parts_that_it_began_with_only(tmp_path: Path, data: Path) -> None:
    """For more epochs it may; what was changed below the settings is found in the parts themselves."""
    begun = {"dataset_dir": str(data / "covid"), "mode": "scratch", "max_epochs": 1, "leakage": "ignore"}
    begun |= {"schedule": "$lambda iteration: 1 / (1 + iteration)"}
    changes: list[dict[str, Any]] = [
        {"optimizer#lr": 0.1},
        {"optimizer#betas": [0.5, 0.9]},
        {"loss#label_smoothing": 0.2},
        {"loss#weight": "$__import__('torch').tensor([1.0, 2.0])"},
        {"train#preprocessing#size": 48},
        {"train#preprocessing#mean": [0.25]},
        {"schedule": "$lambda iteration: 1 / (2 + iteration)"},
        {},
    ]
    given = [(["train"], begun), *((["train"], begun | {"max_epochs": 2, "resume": True} | each) for each in changes)]
    code = runs_of(COVID, *given) + 'print("SAID" + json.dumps([run(workflow) for workflow in workflows]))'
    said = json.loads(in_bundle(tmp_path, COVID, code).partition("SAID")[2].splitlines()[0])
    found = ["".join(line for line in text.splitlines() if line.startswith("error: ")) for text in said]
    assert found[0] == found[-1] == ""
    parts = ("optimizer group 1 lr 0.1", "optimizer group 1 betas", "loss CrossEntropyLoss label_smoothing 0.2")
    parts += ("loss weight [1.0, 2.0]", "preprocessing size 48", "preprocessing mean [0.25]", "schedule ")
    assert [part in text for part, text in zip(parts, found[1:-1], strict=True)] == [True] * 7, found
    assert all(text.startswith("error: expected to go on with ") for text in found[1:-1])
    lines = [json.loads(line) for line in (tmp_path / "eval" / "run_00" / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines if "event" in line][-1] == "end"


def test_a_linear_evaluation_depends_on_nothing_but_weights_and_pictures(tmp_path: Path, data: Path) -> None:
    """Runs with other seeds, workers and a stop between are equal; the network that is saved is that of the metrics."""
    common = {name: value for name, value in SMALL.items() if name != "log_interval"} | {"mode": "linear"}
    common |= {
        "dataset_dir": str(data / "covid"),
        "pretrained": str(data / "backbone.safetensors"),
        "leakage": "ignore",
    }
    stopped = common | {"output_dir": "stopped"}
    (tmp_path / "signal.json").write_text('{"+train#handlers": [{"_target_": "__main__.EndBySignal"}]}')
    given = [
        (["train"], common | {"output_dir": "first"}),
        (["train"], common | {"output_dir": "first", "run_index": 4, "seed": 3, "workers": 2}),
        (["train", str(tmp_path / "signal")], stopped),
        (["train"], stopped | {"resume": "true"}),
        (["train", "as_released"], common | {"output_dir": "released", "max_epochs": 1}),
        (["train"], common | {"output_dir": "steps", "learning_rate": 0.1}),
        (["train"], common | {"output_dir": "first", "resume": True}),
    ]
    given = [(configs(COVID, *names), more) for names, more in given]
    free = {name: value for name, value in SMALL.items() if name not in SETTLED} | {"dataset_dir": str(data / "covid")}
    scored = free | {"output_dir": "scored", "weights": "first/run_00/model.safetensors"}
    given.append((configs(COVID, "train", "evaluate"), scored))
    pictures = {"dataset_dir": str(data / "covid"), "output_dir": "pred", "weights": scored["weights"], "device": "cpu"}
    given.append((configs(COVID, "inference"), pictures))
    code = workflows(*given)
    code += """
import os, signal
from ignite.engine import Events

class EndBySignal:
    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_STARTED(once=6), lambda: os.kill(os.getpid(), signal.SIGTERM))

print("SAID" + json.dumps([run(workflow) for workflow in workflows]))
"""
    said = json.loads(in_bundle(tmp_path, COVID, code).partition("SAID")[2].splitlines()[0])
    mistakes = [[line for line in text.splitlines() if line.startswith("error: ")] for text in said]
    assert [len(found) for found in mistakes] == [0, 0, 1, 0, 0, 1, 1, 0, 0], mistakes
    assert mistakes[2] == ["error: stopped by SIGTERM after iteration 6: go on with --resume True"]
    assert "expected no learning_rate for mode linear, which fits a logistic regression and takes no" in mistakes[5][0]
    assert "the run in first/run_00 is finished, 17 of 17 iterations: name another output_dir" in mistakes[6][0]
    first = tmp_path / "first" / "run_00"
    for other in ("first/run_04", "stopped/run_00", "scored/run_00"):
        assert (tmp_path / other / "predictions.csv").read_bytes() == (first / "predictions.csv").read_bytes()
    found, again = metrics(first), metrics(tmp_path / "scored" / "run_00")
    assert found["test"] == metrics(tmp_path / "first" / "run_04")["test"] == again["test"]
    assert found["penalty"] == again["penalty"] == max(found["penalties"]) == 1e4  # brightness is easily learned
    assert found["converged"]
    assert found["best_epoch"] is found["epochs"] is None
    assert found["settings"]["linear_recipe"] == "logistic"
    assert {"max_epochs", "learning_rate", "flip", "schedule", "frozen_epochs"}.isdisjoint(found["settings"])
    assert metrics(tmp_path / "released" / "run_00")["settings"]["linear_recipe"] == "adam"
    lines = [json.loads(line) for line in (first / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "event" not in line]
    assert [line["penalty"] for line in steps] == found["penalties"]
    assert all(line["val_auc"] == 1.0 for line in steps)
    assert found["test"]["auc"] == 1.0
    network, header = load_classifier(first / "model.safetensors")
    assert header["record"]["penalty"] == 1e4
    released, _ = load_classifier(tmp_path / "released" / "run_00" / "model.safetensors")
    assert "frozen_batch_norm" not in metrics(tmp_path / "released" / "run_00")["settings"]
    before = build_backbone(NETWORK, weights=data / "backbone.safetensors").state_dict()
    for each in (network, released):  # batch norms too
        assert all(torch.equal(value, before[name]) for name, value in each.backbone.state_dict().items())
    test = Predictions.read(first / "predictions.csv").of("test")
    told = pd.read_csv(tmp_path / "pred" / "predictions.csv").set_index("image_id").loc[test.image_ids]
    np.testing.assert_allclose(told[["p_0", "p_1"]], test.probabilities, atol=1e-4)


@pytest.mark.parametrize("recipe", ["adam", "logistic"])
def test_two_processes_leave_a_frozen_encoder_as_it_was(tmp_path: Path, data: Path, recipe: str) -> None:
    overrides = SMALL | {"dataset_dir": data / "covid", "pretrained": data / "backbone.safetensors", "mode": "linear"}
    overrides |= {"output_dir": "eval", "leakage": "ignore", "linear_recipe": recipe}
    if recipe == "adam":
        overrides |= {"max_epochs": 2, "flip": 0.0}  # each process mirrors its own
    else:
        del overrides["log_interval"]
    line = ["-m", "monai.bundle", "run", "--config_file", str(configs(COVID, "train", "multi_gpu_train"))]
    line += [str(item) for name, value in overrides.items() if name != "device" for item in (f"--{name}", value)]
    for done in warm_ranks(line, 2, cwd=tmp_path, env=bundle_environment()):
        assert done.returncode == 0, done.stderr[-3000:]
    network, _ = load_classifier(tmp_path / "eval" / "run_00" / "model.safetensors")
    before = build_backbone(NETWORK, weights=data / "backbone.safetensors").state_dict()
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert metrics(tmp_path / "eval" / "run_00")["mode"] == "linear"
    overrides |= {"output_dir": "alone"}
    given = {name: str(value) if isinstance(value, Path) else value for name, value in overrides.items()}
    code = workflows((configs(COVID, "train"), given)) + "print(run(workflows[0]))"
    assert "error" not in in_bundle(tmp_path, COVID, code)
    expected = losses(tmp_path / "alone" / "run_00")
    assert losses(tmp_path / "eval" / "run_00") == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in expected]


def test_mistakes_are_one_sentence_each(tmp_path: Path, data: Path) -> None:
    """Tried in one process to save its start; those of the lists are in test_listings."""
    pretrained, other = (str(data / f"{name}.safetensors") for name in ("backbone", "resnet18"))
    shutil.copytree(data / "covid", tmp_path / "unreadable")
    (tmp_path / "unreadable" / "CT_COVID" / "COVID_val%1.png").write_bytes(b"no picture")
    state = {"format": 1, "identity": {"task": "COVID-19", "classes": ["a", "b", "c"]}, "iteration": 2}
    (tmp_path / "three" / "run_00" / "checkpoints").mkdir(parents=True)
    write_checkpoint(tmp_path / "three" / "run_00" / "checkpoints" / "last.pt", state)
    mistakes = [
        ({}, "expected pre-trained weights for mode finetune, found none: give --pretrained FILE, or --mode scratch"),
        ({"mode": "scratch", "pretrained": pretrained}, "expected no weights for mode scratch, found"),
        ({"pretrained": other, "backbone": "resnet50"}, "expected the 318 tensors of resnet50 (pooled), found 97"),
        ({"pretrained": pretrained, "method": "SvaV"}, "found 'SvaV'; did you mean swav?"),
        ({"pretrained": pretrained, "method": "swav"}, "expected weights of method swav in"),
        ({"mode": "scratch", "output_dir": "three", "resume": True}, "found ['a', 'b', 'c'] in"),
        (
            {"mode": "scratch", "dataset_dir": "unreadable"},
            "1 of 46 pictures cannot be read, first CT_COVID/",
        ),
        ({"mode": "scratch", "leakage": "never"}, "found 'never'"),
        ({"mode": "scratch", "reduction": "ALL"}, "expected no label of a pre-training for mode scratch, found one"),
        (
            {"pretrained": pretrained, "frozen_epochs": 2},
            "more epochs than the 2 in which the encoder is frozen, found",
        ),
        ({"mode": "scratch", "channels": 2}, "expected pictures of 1 or 3 channels, found"),
        ({"mode": "scratch", "best_by": "f1"}, "expected best_by out of accuracy, auc, loss, found 'f1'"),
        ({"mode": "scratch", "positive": 2}, "expected positive to be the number of a class, 0 to 1 (COVID"),
        ({"mode": "scratch", "weights": "other.safetensors"}, "the bundle has no setting 'weights'"),
        ({"mode": "scratch", "frozen_epoch": 2}, "has no setting 'frozen_epoch': the closest one is 'frozen_epochs'"),
        (
            {"mode": "scratch", "max_epochs": "many"},
            "expected max_epochs to be a whole number such as 70, found",
        ),
        ({"mode": "scratch", "bootstrap": 0}, "expected bootstrap to be 1 resample or more, found 0"),
        (
            {"mode": "scratch", "run_index": -1},
            "expected a seed of 0 or more and a run_index from 0 to 999, found",
        ),
        ({"mode": "scratch", "batch_size": 0}, "expected batch_size to be a whole number from 1, found 0"),
        ({"mode": "scratch", "batch_size": 1}, "expected 2 pictures or more for each process and step, found 1"),
        ({"mode": "scratch", "learning_rate": 0}, "expected a learning_rate above 0, found 0"),
        ({"mode": "scratch", "mean": ["a"], "std": [1]}, "expected mean to be a list of one number or three"),
        ({"mode": "scratch", "learning_rate": 1e30, "max_epochs": 3}, "is no finite number at iteration"),
    ]
    common = {"dataset_dir": str(data / "covid"), "leakage": "ignore", "max_epochs": 1, "frozen_epochs": 0}
    given = [(["train"], common | {"output_dir": f"run_{k}"} | more) for k, (more, _) in enumerate(mistakes)]
    code = runs_of(COVID, *given)
    code += """
print("SAID" + json.dumps([run(workflow) for workflow in workflows]))
"""
    said = json.loads(in_bundle(tmp_path, COVID, code).partition("SAID")[2])
    for (_, expected), text in zip(mistakes, said, strict=True):
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, text
        assert expected in errors[0]
        assert "Traceback" not in text
    trained = [path.parent.parent.name for path in tmp_path.glob("*/run_*/log.jsonl")]
    assert trained == [f"run_{len(mistakes) - 1}"]  # the one whose loss broke down: no other mistake waits for training
