"""Trainings of two sets of different size at equal steps, through the shipped configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import in_bundle, method_files, tiny_backbone, tiny_settings, workflows
from PIL import Image

from lessismore_transforms.cli.main import main
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.weights.backbones import read_metadata

STEPS = 10
TINY = {method: given | {"backbone": tiny_backbone(method)} for method, given in tiny_settings().items()}
METHODS = ["moco", "spark", "swav"]  # what the others have, these have too
# A step for an epoch, so that each moment falls on a step of its own.
GIVEN: dict[str, Any] = {
    "batch_size": 8, "workers": 0, "log_interval": 1, "max_steps": STEPS, "max_epochs": STEPS,
    "export_epochs": 4, "probe_epochs": 4, "probe": "labelled",
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "moco": {},
    "spark": {"warmup_epochs": 3},
    "swav": {
        "warmup_epochs": 3, "freeze_prototypes": 5, "freeze_unit": "epochs", "queue_length": 16, "queue_start_epoch": 7
    },
}  # fmt: skip

TRACE = """
from pathlib import Path
from ignite.engine import Events

def trace(self):  # the name by which expressions of a configuration find their workflow
    self.initialize()
    get = self.parser.get_parsed_content
    trainer, network, seen = get("train#trainer"), get("learner_def"), []

    def look(engine):
        rates = [[group["lr"], group["weight_decay"]] for group in get("optimizer").param_groups]
        frozen = hasattr(network, "prototypes") and network.prototypes.weight.grad is None
        queue = list(network.queue.shape) if hasattr(network, "queue") else None
        seen.append([rates, frozen, queue, getattr(network, "queue_started", None)])

    trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    self.run()
    self.finalize()
    return seen
"""


def reduced(data: Path, folder: Path, *arguments: str) -> Path:
    assert main(["reduce", str(data), "--output_dir", str(folder), "--workers", "0", "--no_report", *arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def sets(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All 96 slices of the small data set, and a third of them."""
    folder = tmp_path_factory.mktemp("sets")
    return {
        "large": reduced(small_data, folder / "large", "--method", "all"),
        "small": reduced(small_data, folder / "small", "--method", "every_n", "--step", "3"),
    }


def labelled(folder: Path) -> None:
    random = np.random.default_rng(0)
    for label in ("air", "bone"):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(random.integers(0, 256, (64, 64), np.uint8)).save(folder / label / f"{number}.png")


def configured(method: str, dataset: Path, output: str, **more: Any) -> tuple[list[str], dict[str, Any]]:
    given = {"dataset_dir": str(dataset), "output_dir": output}
    return method_files(method), GIVEN | TINY[method] | OWN[method] | given | more


@pytest.mark.parametrize(
    "method", ["moco", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name != "moco")]
)
def test_sets_of_different_size_are_trained_alike(tmp_path: Path, sets: dict[str, Path], method: str) -> None:
    """And a run goes on only as it began; in the same process, to save its start."""
    assert [len(SliceSelectionDataset(folder)) for folder in sets.values()] == [96, 32]
    labelled(tmp_path / "labelled")
    rate = "learning_rate_per_256" if method == "spark" else "learning_rate"
    changes: list[dict[str, Any]] = [
        {rate: 0.5},
        {"max_steps": 2 * STEPS},
        {"max_epochs": 99},
        {"mean": [0.5]},
        {"clip_norm": 1.0},
        {"views#kinds#0#scale": [0.5, 1.0]},
        {"schedule#total": 1000},
        {"views#kinds#0#flip_vertical": 0.25},
    ]
    small = {"device": "cpu", "workers": 0, "log_interval": 7, "checkpoint_minutes": 1.0, "export_epochs": 0}
    changes = changes if method == "moco" else changes[:1]  # the others are alike
    resumed = [configured(method, sets["large"], "large", resume=True, **change) for change in [*changes, small]]
    code = workflows(*(configured(method, folder, name) for name, folder in sets.items()), *resumed) + TRACE
    code += """
seen = [trace(workflow) for workflow in workflows[:2]]
print("SAID" + json.dumps([seen, [run(workflow) for workflow in workflows[2:]]]))
"""
    (large, little), said = json.loads(in_bundle(tmp_path, f"ct_{method}_pretraining", code).partition("SAID")[2])
    assert large == little
    assert len(large) == STEPS
    rates = [rates[0][0] for rates, *_ in large]
    assert len(set(rates)) == STEPS  # it moves in every step
    assert int(np.argmax(rates)) == {"moco": 0, "spark": 3, "swav": 3}[method]
    if method == "moco":
        assert {tuple(queue) for _, _, queue, _ in large} == {(128, 256 * 8)}
    if method == "swav":
        assert [frozen for _, frozen, *_ in large] == [step <= 5 for step in range(1, STEPS + 1)]
        assert [started for *_, started in large] == [step > 7 for step in range(1, STEPS + 1)]
    for name in sets:
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "probe_accuracy" in line] == [0, 4, 8, 10]
        assert [line["learning_rate"] for line in lines if "loss" in line] == rates
        exports = sorted(path.stem for path in (tmp_path / name / "backbones").iterdir())
        assert exports == ["step_000004", "step_000008"]
        header = read_metadata(tmp_path / name / "backbone.safetensors")
        store = json.loads((sets[name] / "manifest.json").read_text())["store"]
        assert (header["mean"], header["std"]) == ([store["mean"]], [store["std"]])

    words = [rate, "max_steps 20, found 10", "max_epochs 99", "mean [0.5]", "clip_norm 1.0, found None"]
    words += ["view 1 scale [0.5, 1.0]", "schedule '", "view 1 flip_vertical 0.25, found 0"]
    for word, text in zip(words[: len(changes)], said[:-1], strict=True):
        (sentence,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert f"expected to go on with {word}" in sentence
        assert "give what the run began with, or name another output_dir" in sentence
    assert "is finished, 10 of 10 iterations: name another output_dir" in said[-1]  # what may change is not in the way


def test_the_store_tells_mean_and_deviation_of_its_pixels(
    small_data: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    dataset = SliceSelectionDataset(sets["small"])
    pixels = np.concatenate([dataset[number]["image"].ravel() for number in range(len(dataset))]) / 255
    told = json.loads((sets["small"] / "manifest.json").read_text())["store"]
    assert told == {
        "pixels": len(pixels),
        "mean": pytest.approx(pixels.mean(), abs=1e-6),
        "std": pytest.approx(pixels.std(), abs=1e-6),
    }
    in_parallel = tmp_path / "parallel"
    line = ["reduce", str(small_data), "--method", "every_n", "--step", "3", "--no_report"]
    assert main([*line, "--output_dir", str(in_parallel), "--workers", "2"]) == 0
    assert (in_parallel / "manifest.json").read_bytes() == (sets["small"] / "manifest.json").read_bytes()
