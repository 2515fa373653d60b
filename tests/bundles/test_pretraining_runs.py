"""The pre-training bundles as their users run them: each in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import bundle_environment, in_bundle, method_files, tiny_backbone, tiny_settings, workflows
from PIL import Image
from warm_python import warm_ranks

from lessismore_transforms.cli.main import main
from lessismore_transforms.reduced.picture_set import PictureSet
from lessismore_transforms.training.checkpoint import read_checkpoint, write_checkpoint
from lessismore_transforms.weights.backbones import build_backbone, read_metadata

SMALL = {
    "batch_size": 8,
    "workers": 0,
    "log_interval": 1,
    "health_interval": 2,
    "export_epochs": 0,
}
TINY = {method: given | {"backbone": tiny_backbone(method)} for method, given in tiny_settings().items()}
# Numbers to train and to keep; pictures of a network that is no tiny one.
FEWER = {"moco": {"queue_length": 64}, "byol": {"learner_def#hidden": 64}, "spark": {"batch_size": 4}}
STEPS, PAUSE = 6, 3  # of a run that is asked to end, and behind which it is
WHOLE = ["moco", "spark", "swav"]  # two processes follow the loss of one to the last step
METHODS = sorted(TINY)
CLOSE = {"moco": 1.0, "spark": 0.002}  # its first keys are noise; its loss begins at 1 and hardly moves


@pytest.fixture(scope="module")
def reduced(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 96 slices of the small data set."""
    folder = tmp_path_factory.mktemp("reduced") / "out"
    line = ["reduce", str(small_data), "--output_dir", str(folder), "--method", "all", "--workers", "0", "--no_report"]
    assert main(line) == 0
    return folder


def command(method: str, overlays: Sequence[str] = (), processes: int = 1, **overrides: Any) -> list[str]:
    files = method_files(method, *overlays)
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"] if processes > 1 else []
    line = [sys.executable, *launcher, "-m", "monai.bundle", "run", "--config_file", str(files)]
    for name, value in (SMALL | TINY[method] | overrides).items():
        line += [f"--{name}", str(value)]
    return line


def run(folder: Path, method: str, *overlays: str, processes: int = 1, **overrides: Any) -> subprocess.CompletedProcess:
    """Run a bundle from a folder that is not its own."""
    _, *line = command(method, overlays, **overrides)
    done = warm_ranks(line, processes, cwd=folder, env=bundle_environment())
    return next((one for one in done if one.returncode), done[0])


def train(folder: Path, method: str, *overlays: str, **options: Any) -> list[dict[str, Any]]:
    done = run(folder, method, *overlays, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return read_lines(folder / options["output_dir"])


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(lines: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


STOPPING = """
import os, signal
from ignite.engine import Events

class AskToEnd:
    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=%d), lambda: os.kill(os.getpid(), signal.SIGTERM))
"""


@pytest.mark.parametrize(
    "method", ["swav", pytest.param("moco", marks=pytest.mark.slow), pytest.param("spark", marks=pytest.mark.slow)]
)  # stopped from within, the others are below
def test_a_run_stopped_and_resumed_equals_one_that_was_not(tmp_path: Path, reduced: Path, method: str) -> None:
    lines = train(tmp_path, method, dataset_dir=reduced, output_dir="whole", max_steps=STEPS)
    assert [step for step, _ in losses(lines)] == list(range(1, STEPS + 1))
    assert lines[0]["event"] == "begin"
    assert lines[-1]["event"] == "end"
    assert any("spread" in line for line in lines)
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {"backbone.safetensors", "checkpoints", "log.jsonl", "config.json", "tensorboard", "curves.png"} <= files
    backbone = build_backbone(TINY[method]["backbone"], weights=tmp_path / "whole" / "backbone.safetensors")
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 64, 64)).isfinite().all()
    assert read_metadata(tmp_path / "whole" / "backbone.safetensors")["method"] == method
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert (config["settings"]["max_steps"], config["settings"]["batch_size"]) == (STEPS, 8)
    handlers = [name.rpartition(".")[2] for name in config["trainer"]["handlers"]]
    assert handlers[:2] == ["SeedIterations", "Schedule"]
    last = ["RunLog", "BackboneExport", "StopOnSignal", "StopAtEnd", "Checkpoint", "Curves"]
    assert handlers[-8:] == ["StopOnNan", "HealthMonitor", *last]
    assert config["trainer"]["sampler"].endswith(".StepSampler")

    (tmp_path / "stopping.py").write_text(STOPPING % PAUSE)
    (tmp_path / "stop.json").write_text('{"+train#handlers": [{"_target_": "stopping.AskToEnd"}]}')
    given = {"dataset_dir": reduced, "output_dir": "parts", "max_steps": STEPS}
    done = run(tmp_path, method, str(tmp_path / "stop"), **given)
    errors = done.stderr
    assert done.returncode == 128 + signal.SIGTERM, errors
    assert len(losses(read_lines(tmp_path / "parts"))) == PAUSE
    assert f"error: stopped by SIGTERM after iteration {PAUSE}: go on with --resume True" in errors
    assert "Traceback" not in errors
    resumed = train(tmp_path, method, **given, resume="true")
    assert losses(resumed) == losses(lines)  # bit for bit


def test_pictures_in_colour(tmp_path: Path) -> None:
    """A table chooses eight of twelve; the run tells which, goes on with them, and an evaluation finds them there."""
    rows = ["path,split"]
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)
        (tmp_path / "pictures" / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        name = f"{number % 2}/{number}.png"
        Image.fromarray(noise).resize((64, 56)).save(tmp_path / "pictures" / name)
        rows.append(f"{name},{'train' if number < 8 else 'test'}")
    (tmp_path / "splits.csv").write_text("\n".join(rows))
    given = {"dataset_dir": "pictures", "split": "splits.csv:train", "output_dir": "run", "max_steps": 2}
    lines = train(tmp_path, "moco", **given, queue_length=8)
    assert [step for step, _ in losses(lines)] == [1, 2]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    told = config["trainer"]["pictures"]
    assert (told["pictures"], told["channels"], told["split"]) == (8, 3, "splits.csv:train")
    metadata = read_metadata(tmp_path / "run" / "backbone.safetensors")
    assert metadata["channels"] == 3  # which inference.json reads
    pixels = np.stack([np.asarray(Image.open(tmp_path / "pictures" / f"{n % 2}/{n}.png")) / 255 for n in range(8)])
    assert config["settings"]["mean"] == metadata["mean"] == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-6)
    assert config["settings"]["std"] == pytest.approx(pixels.std((0, 1, 2)), abs=1e-6)
    assert PictureSet.of_run(tmp_path / "run").slice_ids == [f"{n % 2}/{n}.png" for n in range(8)]
    done = run(
        tmp_path, "moco", **given | {"split": "splits.csv:test", "resume": True, "batch_size": 4}, queue_length=8
    )
    assert "expected to go on with" in sentence(done)
    done = run(tmp_path, "moco", **given | {"split": "splits.csv", "output_dir": "other"})
    assert "splits.csv: expected one of the splits test, train, none was named" in sentence(done)


@pytest.mark.parametrize(
    "method", ["moco", *(pytest.param(name, marks=pytest.mark.slow) for name in sorted({*METHODS} - {"moco"}))]
)
def test_two_processes(tmp_path: Path, reduced: Path, method: str) -> None:
    """Two processes follow the loss of one; their batch norms see half a batch each, so that it is not equal."""
    given = {"dataset_dir": reduced, "max_steps": 4, "backbone": "resnet18"}  # many features: more alike
    lines = train(tmp_path, method, "multi_gpu_train", processes=2, output_dir="two", **given)
    assert lines[0]["processes"] == 2
    alone = losses(train(tmp_path, method, output_dir="one", **given))
    if method not in WHOLE:  # the batch norms of their heads see half a batch: the weights soon differ
        assert losses(lines)[0][1] == pytest.approx(alone[0][1], abs=0.2, rel=0.05)
    else:
        assert losses(lines) == [(step, pytest.approx(loss, abs=CLOSE.get(method, 0.2))) for step, loss in alone]
    last = tmp_path / "two" / "checkpoints" / "last.pt"
    saved = read_checkpoint(last)
    write_checkpoint(last, {**saved, "iteration": 2})  # as if it had been stopped there
    on = train(tmp_path, method, output_dir="two", resume=True, **given)  # by one alone
    assert losses(on)[:2] == losses(lines)[:2]
    assert [step for step, _ in losses(on)] == [1, 2, 3, 4]
    build_backbone("resnet18", weights=tmp_path / "two" / "backbone.safetensors")


def test_all_processes_and_their_workers_are_asked_to_end(tmp_path: Path, reduced: Path) -> None:
    """As a scheduler does it: torchrun passes SIGTERM on to whole groups of processes, loader workers too."""
    options = {"dataset_dir": reduced, "output_dir": "run", "max_steps": 5000, "workers": 1}
    line = command("swav", ["multi_gpu_train"], 2, **options)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(line, cwd=tmp_path, env=bundle_environment(), **pipes)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not (log.exists() and "loss" in log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=100)
    done = len(losses(read_lines(tmp_path / "run")))
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["iteration"]
    assert 1 <= saved == done < 5000
    assert read_lines(tmp_path / "run")[-1]["event"] == "stop"


def test_what_monai_asks_for_and_the_released_settings(tmp_path: Path, reduced: Path) -> None:
    """The properties that MONAI checks; then the released settings run, in the same process to save its start."""
    method = "swav"
    overrides = {"dataset_dir": str(reduced), "output_dir": str(tmp_path / "released"), "max_steps": 3}
    code = f"""
from monai.bundle import ConfigWorkflow
folder = {str(Path(method_files(method)[0]).parent)!r}
for files in ({method_files(method)!r}, {method_files(method, "as_released")!r}):
    workflow = ConfigWorkflow(
        workflow_type="train", config_file=files,
        meta_file=f"{{folder}}/metadata.json", logging_file=f"{{folder}}/logging.conf",
        **{SMALL | TINY[method] | overrides!r},
    )
    workflow.initialize()
    assert workflow.check_properties() == [], workflow.check_properties()
workflow.run()
workflow.finalize()
"""
    in_bundle(tmp_path, f"ct_{method}_pretraining", code)
    lines = read_lines(tmp_path / "released")
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    assert rates == pytest.approx([0, 0.015, 0.03])  # ten steps of warm-up, whatever the epochs


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("dclw", "simsiam", "vicreg") else name
        for name in sorted({*METHODS} - {"swav"})
    ],
)  # DCLW is SimCLR but for its loss
def test_properties_a_stop_and_the_released_settings(tmp_path: Path, reduced: Path, method: str) -> None:
    """In one process, to save its start: MONAI's properties; a run that is stopped goes on to the bit; as released."""
    given = SMALL | TINY[method] | {"dataset_dir": str(reduced), "max_steps": 6}
    given |= FEWER.get(method, {})
    overlays = ["as_released", "dclw_as_released"] if method == "dclw" else ["as_released"]
    code = f"""
import os, signal
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

def started(files, **more):
    folder = {str(Path(method_files(method)[0]).parent)!r}
    workflow = ConfigWorkflow(
        workflow_type="train", config_file=files, meta_file=f"{{folder}}/metadata.json",
        logging_file=f"{{folder}}/logging.conf", **({given!r} | more),
    )
    workflow.initialize()
    assert workflow.check_properties() == [], workflow.check_properties()
    return workflow

def ended(workflow):
    workflow.run()
    workflow.finalize()

def stop(engine):
    if engine.state.iteration == 3:
        os.kill(os.getpid(), signal.SIGTERM)

ended(started({method_files(method)!r}, output_dir="whole"))
workflow = started({method_files(method)!r}, output_dir="parts")
workflow.parser.get_parsed_content("train#trainer").add_event_handler(Events.ITERATION_STARTED, stop)
try:
    ended(workflow)
    raise AssertionError("expected a stop")
except SystemExit as end:
    assert end.code == 128 + signal.SIGTERM, end.code
ended(started({method_files(method)!r}, output_dir="parts", resume=True))
ended(started({method_files(method, *overlays)!r}, output_dir="released"))
"""
    in_bundle(tmp_path, Path(method_files(method)[0]).parents[1].name, code)
    whole, parts = (read_lines(tmp_path / name) for name in ("whole", "parts"))
    assert [line["event"] for line in parts if "event" in line] == ["begin", "stop", "resume", "end"]
    assert losses(parts) == losses(whole)  # bit for bit
    assert [step for step, _ in losses(whole)] == [1, 2, 3, 4, 5, 6]
    assert len(losses(read_lines(tmp_path / "released"))) == 6
    assert any("spread" in line for line in whole)
    metadata = read_metadata(tmp_path / "whole" / "backbone.safetensors")
    assert metadata["method"] == method
    build_backbone(TINY[method]["backbone"], weights=tmp_path / "whole" / "backbone.safetensors")


@pytest.mark.parametrize(
    ("method", "overrides", "expected"),
    [
        ("vicreg", {"batch_size": 1}, "expected 2 pictures or more for each process and step, found 1"),
        ("byol", {"near_copies": "mask"}, "no setting 'near_copies', as its loss has no negatives: MoCoV2, SimCLR and"),
    ],
)
def test_mistakes_of_the_methods(
    tmp_path: Path, reduced: Path, method: str, overrides: dict[str, Any], expected: str
) -> None:
    done = run(tmp_path, method, dataset_dir=reduced, output_dir="run", **overrides)
    assert done.returncode == 2
    assert expected in sentence(done)
    assert not (tmp_path / "run").exists()


def sentence(done: subprocess.CompletedProcess) -> str:
    """The one sentence of a run that ended with a mistake of its user."""
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr[-3000:]
    return errors[0]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"backbone": "resnet5"}, "expected a classification model of torchvision, found 'resnet5'; similar names are"),
        ({"learning_rate": 1e38}, "is no finite number at iteration"),
        ({"temperatur": 0.1}, "the bundle has no setting 'temperatur': the closest one is 'temperature'"),
    ],
    ids=["while building", "while training", "in the name"],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, reduced: Path, overrides: dict[str, Any], expected: str) -> None:
    given = {"dataset_dir": reduced, "output_dir": "run", "max_steps": 20} | overrides
    done = run(tmp_path, "swav", **given)
    assert expected in sentence(done)
    assert done.returncode == (1 if "learning_rate" in overrides else 2)


def test_further_mistakes(tmp_path: Path, reduced: Path) -> None:
    """The same way out for each, tried in one process to save its start."""
    for name, content in (
        ("other", {"format": 1, "identity": {"method": "spark"}, "iteration": 5}),
        ("strange", {"epoch": 3}),
    ):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        write_checkpoint(tmp_path / name / "checkpoints" / "last.pt", content)
    (tmp_path / "damaged" / "checkpoints").mkdir(parents=True)
    (tmp_path / "damaged" / "checkpoints" / "last.pt").write_bytes(b"PK nothing")
    mistakes = [
        ({"dataset_dir": "nowhere"}, "nowhere"),
        ({"selection": "hash77"}, "hash77"),
        ({"batch_size": 128}, "expected at least 128 slices to fill batch_size 128 x accumulation 1, found 96"),
        ({"batch_size": 1}, "expected 2 pictures or more for each process and step, found 1: batch norms need"),
        ({"large_size": 400}, "found one of 48 x 48 pixels whose smallest crop would be enlarged 10 times"),
        ({"precision": "fp16"}, "expected a GPU for precision fp16"),
        ({"resume": "yes"}, "expected true or false, found 'yes'"),
        ({"resume": True}, "expected a checkpoint to resume at"),
        ({"resume": True, "output_dir": "other"}, "expected to go on with method 'swav', found 'spark'"),
        ({"resume": True, "output_dir": "strange"}, "expected a checkpoint of format 1"),
        ({"resume": True, "output_dir": "damaged"}, "found a file that is damaged, cut short"),
        ({"output_dir": "other"}, "found a run in other already: --resume True goes on with it"),
        ({"probe": "nowhere"}, "nowhere"),
        ({"warmup_epochs": 900}, "expected a warm-up shorter than the training"),
        ({"mean": 0.5}, "expected mean to be a list of one number or three, such as [0.18], found 0.5"),
        ({"learning_rate": -1.0}, "timm.optim.Lars cannot take what it was given: Invalid learning rate: -1.0"),
        ({"freeze_prototypes": -5}, "expected freeze_prototypes to be a whole number from 0, found -5"),
        ({"log_interval": 0}, "expected a log_interval of 1 step or more, found 0"),
        ({"workers": -1}, "expected 0 or more workers, found -1"),
        ({"seed": -1}, "expected a seed of 0 or more, found -1"),
        ({"dataset_dir": [str(reduced), str(reduced)]}, "found the same slices in several of"),
        ({"backbone": "vit_b_16"}, "take a ResNet"),
    ]
    given = [SMALL | TINY["swav"] | {"dataset_dir": str(reduced), "output_dir": "run"} | more for more, _ in mistakes]
    files = method_files("swav")
    code = workflows(*((files, overrides) for overrides in given))
    code += """
print("SAID" + json.dumps([run(workflow) for workflow in workflows]))
"""
    said = json.loads(in_bundle(tmp_path, "ct_swav_pretraining", code).partition("SAID")[2])
    for (_, expected), text in zip(mistakes, said, strict=True):
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, text
        assert expected in errors[0]
        assert "Traceback" not in text
