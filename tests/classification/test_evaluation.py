from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import in_processes
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from PIL import Image

from lessismore_transforms.atomic import finite
from lessismore_transforms.classification import leakage
from lessismore_transforms.classification.arms import arms_of
from lessismore_transforms.classification.best_epoch import KeepBest
from lessismore_transforms.classification.calibration import calibrated, operating_point
from lessismore_transforms.classification.data_settings import ProtocolSettings
from lessismore_transforms.classification.evaluation import (
    FinalEvaluation,
    Predict,
    check_trained,
    counts,
    experiment,
    rescored,
)
from lessismore_transforms.classification.examples import Example, Examples, Split, digest
from lessismore_transforms.classification.finished_runs import read_finished_runs
from lessismore_transforms.classification.leakage import check_leakage
from lessismore_transforms.classification.loader import EvaluationLoader, PrepareExamples
from lessismore_transforms.classification.metrics import score
from lessismore_transforms.classification.network import Classifier, build_classifier, load_classifier
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.preprocessing import Prepare
from lessismore_transforms.classification.trainer import find_leaks, make_evaluation
from lessismore_transforms.reduced.patients import hash_patient, load_key
from lessismore_transforms.reduced.picture_set import PictureSet

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"train": 4, "val": 5, "test": 7}


def examples() -> Examples:
    random = np.random.default_rng(0)
    listed = [
        Example(f"{s}/{k}", k % 2, s, f"p{k // 2}", f"s{k // 4}") for s, count in SIZES.items() for k in range(count)
    ]
    images = [random.integers(0, 256, (32, 40), np.uint8) for _ in listed]
    return Examples("task", ("a", "b"), tuple(listed), images, 1)


def evaluator(name: str, network: Classifier) -> SupervisedEvaluator:
    split = Split(examples(), name, Prepare(32))
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=EvaluationLoader(split, 2),
        network=network,
        prepare_batch=PrepareExamples(),
        val_handlers=[Predict(split, network)],
        decollate=False,
    )


def expected_probabilities(name: str, network: Classifier) -> np.ndarray:
    split = Split(examples(), name, Prepare(32))
    with torch.no_grad():
        logits = network(torch.stack([split[index]["image"] for index in range(len(split))]))
    return torch.softmax(logits.double(), 1).numpy()


@pytest.mark.parametrize("official", [True, False])
def test_runs_on_an_official_split_are_of_no_fold(tmp_path: Path, official: bool) -> None:
    """Two runs from scratch on it are two networks of an arm; two on one fold are one."""
    pictures = replace(examples(), official=official)
    for run in range(2):
        settings = ProtocolSettings(
            "x", str(tmp_path), run_index=run, mode="scratch", backbone="resnet18", bootstrap=20, device="cpu"
        )
        network = build_classifier("resnet18", 2, seed=run)
        make_evaluation(
            settings,
            examples=pictures,
            leaks=check_leakage(pictures, policy="ignore"),
            statistics=([0.5], [0.2]),
            origin={"method": None, "id": None, "epoch": None},
            bare_network=network,
            evaluators={name: evaluator(name, network) for name in ("val", "test")},
            precision="fp32",
        ).run()
    found = read_finished_runs(tmp_path)
    (arm,) = arms_of({"scratch": found})
    assert found.folds == ({} if official else {0: (0, 0), 1: (0, 0)})
    assert {"fold", "folds", "repeat"} & set(found.settings) == (set() if official else {"fold", "folds", "repeat"})
    assert [len(runs) for runs in arm.networks()] == ([1, 1] if official else [2])


@pytest.mark.parametrize("kind", ["folder", "run", "several"])
def test_no_output_tells_the_paths_of_what_was_pretrained_on(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They may hold the names of patients; the checksum of a file finds it, in pictures.csv of the run too."""
    monkeypatch.setattr(leakage, "LEAST_SIDE", 16)
    pictures = examples()
    near = pictures.images[5].copy()
    near[0, 0] ^= 1
    paths = ["Anna/Mueller_19700101.png", "Anna/scan of Anna Mueller.png", "Berta-Schmidt.png"]
    folder = tmp_path / "Hospital"
    (folder / "Anna").mkdir(parents=True)
    for path, image in zip(paths, (pictures.images[4], near, 255 - near), strict=True):
        Image.fromarray(image).save(folder / path)
    (tmp_path / "table.csv").write_text("path,patient\n" + "".join(f"{path},Mueller\n" for path in paths))
    split = str(tmp_path / "table.csv")
    own = hash_patient("Mueller", load_key())
    known = [replace(each, patient=own) if each.image_id == "test/6" else each for each in pictures.examples]
    pictures = replace(pictures, examples=tuple(known))
    trained = PictureSet(folder, split)
    trained.write(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"trainer": {"pictures": trained.record()}}))
    of_folder, of_run = f"{folder}:{split}", str(tmp_path / "run")
    given: Any = {"folder": of_folder, "run": of_run, "several": [of_run, of_folder]}[kind]
    settings = ProtocolSettings(
        "x", str(tmp_path), pretraining=given, mode="scratch", backbone="resnet18", bootstrap=20, device="cpu"
    )
    with caplog.at_level(logging.INFO):
        found = find_leaks(settings, pictures)
        network = build_classifier("resnet18", 2)
        make_evaluation(
            settings,
            examples=pictures,
            leaks=found,
            statistics=([0.5], [0.2]),
            origin={"method": None, "id": None, "epoch": None},
            bare_network=network,
            evaluators={name: evaluator(name, network) for name in ("val", "test")},
            precision="fp32",
        ).run()
    rows = found.table[found.table["split_a"] == "pretraining"].set_index("kind")
    with (tmp_path / "run" / "pictures.csv").open(newline="") as file:
        names = [row["sha256"][:16] for row in csv.DictReader(file)]
    assert rows.loc["exact", ["image_a", "image_b"]].tolist() == [names[0], "val/0"]
    assert rows.loc["patient", ["image_a", "image_b", "shared"]].tolist() == [names[0], "test/6", own]
    second = [names[1]] if kind != "several" else [names[1], f"{names[1]}-2"]
    assert sorted(rows.loc[["near"], "image_a"]) == second
    assert f"first {own}: {names[0]} (pretraining) and test/6" in caplog.text
    told = [(tmp_path / "run_00" / name).read_text() for name in ("leakage.csv", "metrics.json", "predictions.csv")]
    for part in ("Anna", "Mueller", "1970", "Berta", "Schmidt", "Hospital", ".png", str(tmp_path)):
        assert part not in caplog.text
        assert not any(part in text for text in told)


def test_predictions_are_the_softmax_of_each_picture_in_order() -> None:
    network = build_classifier("resnet18", 2, seed=3)
    engine = evaluator("test", network)
    for _ in range(2):  # the second run starts anew
        engine.run()
    found = engine.state.predictions
    assert found.image_ids == [f"test/{k}" for k in range(7)]
    assert found.patients == ["p0", "p0", "p1", "p1", "p2", "p2", "p3"]
    assert found.sources == ["s0"] * 4 + ["s1"] * 3
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    np.testing.assert_allclose(found.probabilities, expected_probabilities("test", network), atol=1e-6)
    assert engine.state.metrics["auc"] == score(found.labels, found.probabilities)["auc"]
    chosen = found.probabilities[np.arange(7), found.labels]
    assert engine.state.metrics["loss"] == pytest.approx(-np.log(chosen).mean())


def in_two(folder: str) -> dict[str, Any]:
    """The second process has other batch norms until they are shared."""
    network = build_classifier("resnet18", 2, seed=3)
    if torch.distributed.get_rank() == 1:
        network.backbone.bn1.running_mean.add_(5)
    engine = evaluator("test", network)
    engine.run()
    return {"p": torch.from_numpy(engine.state.predictions.probabilities), "auc": engine.state.metrics["auc"]}


def test_two_processes_share_a_split_and_all_know_the_result(tmp_path: Path) -> None:
    network = build_classifier("resnet18", 2, seed=3)
    for found in in_processes(in_two, 2, str(tmp_path)):
        np.testing.assert_allclose(found["p"], expected_probabilities("test", network), atol=1e-6)


def kept(scores: list[float], by: str = "accuracy") -> tuple[int, float]:
    """The best epoch of a training whose weight is its epoch, and the weight that is restored."""
    network = torch.nn.Linear(1, 1, bias=False)
    validator = SimpleNamespace(state=SimpleNamespace(metrics={}))

    def run(epoch: int) -> None:
        value = scores[epoch - 1]
        validator.state.metrics = {"accuracy": value, "auc": 1 - value, "loss": value}

    validator.run = run
    best = KeepBest(network, validator, by)
    trainer = Engine(lambda engine, _: network.weight.data.fill_(engine.state.epoch))
    best.attach(trainer)
    trainer.run([0], max_epochs=len(scores))
    assert trainer.state.probe == {"val_accuracy": scores[-1], "val_auc": 1 - scores[-1], "val_loss": scores[-1]}
    again = KeepBest(network, validator, by)
    again.load_state_dict(best.state_dict())
    again.restore()
    return again.epoch, network.weight.item()


def test_the_first_of_the_best_epochs_is_kept() -> None:
    assert kept([0.5, 0.7, 0.6, 0.7]) == (2, 2.0)
    assert kept([0.5, 0.7, 0.6, 0.4], "auc") == (4, 4.0)
    assert kept([0.5, 0.7, 0.3, 0.3], "loss") == (3, 3.0)
    with pytest.raises(ValueError, match="expected best_by out of accuracy, auc, loss, found 'f1'"):
        kept([0.5], "f1")
    with pytest.raises(ValueError, match="expected a validation split by which auc is defined, found one that lacks a"):
        kept([float("nan")], "auc")


def test_all_that_is_known_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = build_classifier("resnet18", 2, seed=3)
    about = {"task": "task", "classes": ["a", "b"], "positive": 1, "run": 2, "counts": counts(examples())}
    header = {"backbone": "resnet18", "classes": ["a", "b"], "mean": [0.0]}
    engines = {name: evaluator(name, network) for name in ("val", "test")}
    record = {"mode": "scratch", "experiment": {"reduction": "ALL"}, "epochs": 3, "settings": {"flip": 0.5}}
    told = {"header": header, "about": about, "record": record}
    FinalEvaluation(
        tmp_path / "run_02", network, engines, best=None, bootstrap=50, target_sensitivity=0.9, **told
    ).run()
    found = Predictions.read(tmp_path / "run_02" / "predictions.csv")
    assert found.splits == ["val"] * 5 + ["test"] * 7
    content = json.loads((tmp_path / "run_02" / "metrics.json").read_text())
    assert content["counts"] == SIZES
    assert content["run"] == 2
    assert {name: content[name] for name in record} == record
    for split in ("val", "test"):
        part = found.of(split)
        expected = score(part.labels, part.probabilities)
        assert content[split].keys() - {"calibrated", "operating_point"} == expected.keys()
        for name, value in expected.items():
            assert content[split][name] == pytest.approx(value, rel=1e-6)
    val, test = found.of("val"), found.of("test")
    expected = finite(calibrated(val, test))
    assert expected.pop("note") == content["test"]["calibrated"].pop("note")  # a network at random
    assert content["test"]["calibrated"] == pytest.approx(expected, rel=1e-6)
    point = finite(operating_point(val, test, positive=1, target=0.9, samples=50))
    assert content["test"]["operating_point"].keys() == point.keys()
    assert content["test"]["operating_point"]["threshold"] == pytest.approx(point["threshold"], rel=1e-6)
    assert content["test"]["operating_point"]["sensitivity"] == point["sensitivity"]
    assert content["val"].keys() == score(val.labels, val.probabilities).keys()
    low, high = content["intervals"]["auc"]
    assert 0 <= low <= content["test"]["auc"] <= high <= 1
    assert content["intervals"]["unit"] == "patient"
    loaded, head = load_classifier(tmp_path / "run_02" / "model.safetensors")
    assert head["mean"] == [0.0]
    assert head["record"] == record
    assert torch.equal(loaded.classifier.weight, network.classifier.weight)
    assert (tmp_path / "run_02" / "evaluation.png").stat().st_size > 10_000
    assert capsys.readouterr().out.startswith(f"test: AUC {content['test']['auc']:.3f} (95 % of resampled patients ")


def test_an_evaluation_of_what_was_trained_keeps_the_record_of_its_training() -> None:
    trained = {
        "mode": "linear",
        "experiment": {"pretrain_dataset": None, "ssl_method": "SwAV", "reduction": "ALL"},
        "epochs": 3,
        "settings": {"max_epochs": 3, "flip": 0.1, "backbone": "resnet18", "size": 28, "run_index": 4},
    }
    now = {"max_epochs": 70, "flip": 0.5, "size": 64, "run_index": 0}
    assert rescored({"record": trained}, ("LIDC", None, "ALL"), now) == {
        "mode": "linear",
        "experiment": {"pretrain_dataset": "LIDC", "ssl_method": "SwAV", "reduction": "ALL"},
        "epochs": 3,
        "settings": {"max_epochs": 3, "flip": 0.1, "backbone": "resnet18", "size": 64, "run_index": 0},
        "rescored": True,
    }
    with pytest.raises(ValueError, match="was trained as reduction ALL, found HASH-6: leave out --reduction"):
        rescored({"record": trained}, (None, None, "HASH-6"), now)


def test_labels_of_the_papers_tables() -> None:
    assert set(experiment("scratch", None, (None, None, None)).values()) == {"none"}
    expected = {"pretrain_dataset": "LIDC", "ssl_method": "MoCoV2", "reduction": "HASH-6"}
    assert experiment("finetune", "moco", ("LIDC", None, "HASH-6")) == expected
    assert experiment("linear", None, (None, "SwAV", None))["ssl_method"] == "SwAV"
    ours = ("our CT", "SwAV, twice as long", "HASH-7")
    assert tuple(experiment("finetune", "swav", ours).values()) == ours


@pytest.mark.parametrize(
    ("mode", "method", "labels", "words"),
    [
        (
            "scratch",
            None,
            (None, None, "ALL"),
            "expected no label of a pre-training for mode scratch, found one: leave out",
        ),
        (
            "finetune",
            "swav",
            (None, "MoCoV2", None),
            "expected ssl_method SwAV, by which the weights were trained, found",
        ),
        ("finetune", None, ("lidc", None, None), "pretrain_dataset as the paper spells it, LIDC, found lidc: fix it"),
        ("finetune", None, (None, None, "hash-6"), "reduction as the paper spells it, HASH-6, found hash-6: fix it"),
    ],
)
def test_labels_that_cannot_be(mode: str, method: str | None, labels: tuple[str | None, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        experiment(mode, method, labels)


def test_a_positive_class_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"expected positive to be the number of a class, 0 to 1 \(a, b\), found 2"):
        Predict(Split(examples(), "test"), build_classifier("resnet18", 2), positive=2)


def test_a_network_is_not_scored_on_what_it_was_trained_on_or_on_other_classes() -> None:
    known = examples()
    header = {"classes": ["a", "b"], "splits": known.splits(), "trained_on_sha256": "".join(known.pixels("train"))}
    check_trained(header, known, "model")
    moved = [
        replace(each, split="test") if each.image_id in ("train/1", "train/2") else each for each in known.examples
    ]
    other = replace(known, examples=tuple(moved))
    with pytest.raises(
        ValueError, match=r"2 of 9 test pictures are among those that model was trained on: split them as"
    ):
        check_trained(header, other, "model")
    elsewhere = replace(other, images=[255 - image for image in known.images])
    check_trained(header, elsewhere, "model")  # other pictures, whatever they are called
    with pytest.raises(ValueError, match=r"expected a network for the classes a, b, found one for b, a in model: give"):
        check_trained(header | {"classes": ["b", "a"]}, known, "model")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_training_picture_under_the_name_of_another_is_found(split: str) -> None:
    """Splits are equal by name; only the copy of a picture that train still has is the leakage gate's business."""
    known = examples()
    header = {"classes": ["a", "b"], "splits": known.splits(), "trained_on_sha256": "".join(known.pixels("train"))}
    place = next(number for number, each in enumerate(known.examples) if each.split == split)
    copied = list(known.images)
    copied[place] = known.images[0]
    check_trained(header, replace(known, images=copied), "model")
    copied[0] = known.images[place]  # exchanged
    exchanged = replace(known, images=copied)
    assert exchanged.splits() == header["splits"]
    with pytest.raises(
        ValueError, match=rf"^1 of {SIZES[split]} {split} pictures are among those that model was trained on: put back"
    ):
        check_trained(header, exchanged, "model")
    copied[place] = known.images[place]
    check_trained(header, replace(known, images=copied), "model")  # a picture fewer of train is none that was seen


def test_pictures_whose_digests_begin_alike_are_not_taken_for_each_other(caplog: pytest.LogCaptureFixture) -> None:
    """The first 8 hex digits of the digests of these two are equal; 1 in 27 evaluations of OrganSMNIST has such two."""
    one, other = (np.array([[number >> 16, number >> 8 & 255, number & 255]], np.uint8) for number in (65787, 39740))
    one, other = (np.concatenate([np.zeros((1, 1), np.uint8), each], axis=1) for each in (one, other))
    assert digest(one)[:8] == digest(other)[:8] == "dfa19369"
    known = examples()
    known.images[0] = one  # of train
    header = {"classes": ["a", "b"], "splits": known.splits(), "trained_on_sha256": "".join(known.pixels("train"))}
    moved = tuple(replace(each, image_id=f"{each.image_id}.png") for each in known.examples if each.split != "train")
    new = Examples("task", known.classes, moved, [other, *known.images[5:]], 1)
    check_trained(header, new, "model")
    same = Examples("task", known.classes, moved, [one, *known.images[5:]], 1)
    with pytest.raises(ValueError, match="1 of 5 val pictures are among those that model was trained on"):
        check_trained(header, same, "model")
    assert new.identity() != same.identity()
    with caplog.at_level(logging.WARNING):
        check_trained({"classes": ["a", "b"], "splits": known.splits()}, known, "model")  # the same splits
        assert not caplog.messages
        check_trained({"classes": ["a", "b"], "splits": known.splits()}, same, "model")  # shared weights do not tell
    (said,) = caplog.messages
    assert said.startswith("it could not be checked whether model was trained on pictures that it is now scored on")
    with pytest.raises(
        ValueError, match="tells which pictures it was trained on, found that of an earlier version in m"
    ):
        check_trained({"classes": ["a", "b"], "splits": "0123456789abcdef", "trained_on": "dfa19369"}, new, "model")


def test_an_evaluation_does_not_overwrite_a_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    network = build_classifier("resnet18", 2)
    with pytest.raises(ValueError, match=r"expected a folder of its own .*, found a run in .* \(checkpoints/last.pt\)"):
        FinalEvaluation(tmp_path, network, {}, best=None, header=None, about={}, record={})
    (tmp_path / "checkpoints" / "last.pt").unlink()
    FinalEvaluation(tmp_path, network, {}, best=None, header=None, about={}, record={})
    (tmp_path / "metrics.json").touch()
    with pytest.raises(
        ValueError, match=r"found a run in .* \(metrics.json\), whose results would be lost: name another"
    ):
        FinalEvaluation(tmp_path, network, {}, best=None, header=None, about={}, record={})
