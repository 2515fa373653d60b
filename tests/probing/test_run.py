from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, tree
from sklearn.linear_model import LogisticRegression

from lessismore_transforms.analysis.models import Model
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.cli.main import main

KINDS = ("knn", "logistic", "logistic_50_percent")


def probe(labelled: Path, out: Path, *given: object, table: str = "labels.csv") -> int:
    models = ["--models", f"own={labelled / 'RUN'}", "random=resnet18"]
    size = ["--image_size", 32, "--folds", 3, "--repeats", 2, "--fractions", 0.5, "--samples", 50, "--neighbours", 5]
    arguments = [labelled / "pictures", "--labels", labelled / table, "--output_dir", out, *models, *size, *given]
    return main(["probe", *map(str, arguments)])


@pytest.fixture(scope="module")
def probed(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probed") / "OUT"
    assert probe(labelled, out) == 0
    return out


def test_every_picture_is_judged_once_in_each_repeat_by_all_networks_on_the_same_folds(probed: Path) -> None:
    for kind in KINDS:
        tested = {}
        for name in ("own", "random"):
            runs = [
                Predictions.read(probed / kind / name / f"run_{number:02d}" / "predictions.csv") for number in range(6)
            ]
            assert [len(run.image_ids) for run in runs] == [12] * 6
            for repeat in (runs[:3], runs[3:]):
                assert sorted(name for run in repeat for name in run.image_ids) == [f"{n:02d}.png" for n in range(36)]
                patients = [{*run.patients} for run in repeat]
                assert sum(map(len, patients)) == len(set.union(*patients)) == 12
            tested[name] = [run.image_ids for run in runs]
        assert tested["own"] == tested["random"]


def test_a_regression_is_that_of_scikit_learn_on_the_features_that_were_kept(probed: Path, labelled: Path) -> None:
    about = json.loads((probed / "probe.json").read_text())
    (key,) = (model["id"] for model in about["models"] if model["name"] == "own")
    run = probed / "logistic" / "own" / "run_02"
    record = json.loads((run / "metrics.json").read_text())
    assert record["weights"]["id"] == key
    assert record["counts"] == {"train": 24, "val": 0, "test": 12}
    from lessismore_transforms.classification.examples import digest
    from lessismore_transforms.volumes.pictures import read_picture

    with np.load(probed / "features" / f"{key}.npz") as file:
        known = {row.tobytes().hex(): values for row, values in zip(file["pictures"], file["features"], strict=True)}
    rows = list(csv.DictReader((labelled / "labels.csv").open()))
    features = {row["path"]: known[digest(read_picture(labelled / "pictures" / row["path"]))] for row in rows}
    labels = {row["path"]: row["label"] for row in rows}
    found = Predictions.read(run / "predictions.csv")
    train = [name for name in labels if name not in found.image_ids]
    x = np.array([features[name] for name in train], float)
    mean, std = x.mean(axis=0), x.std(axis=0)
    scale = np.where(std <= 1e-5 * np.sqrt((x**2).mean(axis=0)), np.inf, std)
    model = LogisticRegression(C=1 / record["chosen"]["penalty"], tol=1e-10, max_iter=50_000)
    model.fit((x - mean) / scale, [labels[name] for name in train])
    expected = model.predict_proba((np.array([features[name] for name in found.image_ids]) - mean) / scale)
    assert model.classes_.tolist() == about_classes(about) == ["bright", "dark"]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)


def about_classes(about: dict) -> list[str]:
    return about["identity"]["classes"]


def test_the_table_reads_all_protocols_and_the_page_names_the_networks(
    probed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(probed), "--samples", "20"]) == 0
    text = capsys.readouterr().out
    for title in ("logistic regression", "logistic regression on 50 % of the labels", "5 nearest neighbours"):
        assert f"pictures, {title}: 36 test images of 12 patients in 3 folds, repeated 2 times" in text
    page = (probed / "probe.html").read_text(encoding="utf-8")
    assert "simclr" in page
    assert "random weights" in page
    assert len(list(csv.DictReader((probed / "table.csv").open()))) == 2 * 3 * 2  # networks, protocols, metrics


def test_no_worker_or_five_and_a_second_run_give_the_same_bytes(
    probed: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert probe(labelled, tmp_path / "OUT", "--workers", 2) == 0
    assert tree(tmp_path / "OUT") == tree(probed)
    shutil.rmtree(tmp_path / "OUT" / "knn" / "own" / "run_03")
    shutil.rmtree(tmp_path / "OUT" / "logistic" / "random")

    def refuse(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("features were computed again")

    monkeypatch.setattr(Model, "features", refuse)
    assert probe(labelled, tmp_path / "OUT") == 0
    assert tree(tmp_path / "OUT") == tree(probed)


def test_pictures_that_are_renamed_are_not_encoded_again_and_a_damaged_file_is_made_anew(
    probed: Path, labelled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    rows = list(csv.reader((labelled / "labels.csv").open()))
    for row in rows[1:]:
        shutil.copy(labelled / "pictures" / row[0], tmp_path / "pictures" / f"renamed{row[0]}")
        row[0] = f"renamed{row[0]}"
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    shutil.copytree(labelled / "RUN", tmp_path / "RUN")
    shutil.copytree(probed / "features", tmp_path / "features")
    with monkeypatch.context() as patched:
        patched.setattr(Model, "features", lambda *_, **__: 1 / 0)
        assert probe(tmp_path, tmp_path / "OUT", "--features_dir", tmp_path / "features") == 0
    damaged = sorted((tmp_path / "features").glob("*.npz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert probe(tmp_path, tmp_path / "AGAIN", "--features_dir", tmp_path / "features") == 0
    assert f"{damaged} is damaged: its features are computed again" in caplog.text
    assert tree(tmp_path / "features") == tree(probed / "features")


def test_groups_by_near_duplicates_or_none(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--repeats", 1, "--fractions", 1)
    assert probe(labelled, tmp_path / "near", *few, table="plain.csv") == 0
    near = (
        "what stays together: 36 pictures (near-duplicates from a correlation of 0.65 on), the largest with 1 picture"
    )
    assert near in capsys.readouterr().err
    assert probe(labelled, tmp_path / "picture", *few, "--group", "picture") == 0
    assert "what stays together: 36 pictures, the largest with 1 picture" in capsys.readouterr().err
    run = Predictions.read(tmp_path / "picture" / "knn" / "own" / "run_00" / "predictions.csv")
    assert {*run.patients, *run.sources} == {""}


def test_a_bundle_lists_its_own_task(labelled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name, patient in ((row["path"], row["patient"]) for row in csv.DictReader((labelled / "labels.csv").open())):
        label = "b_with" if int(patient.split()[1]) % 2 else "a_without"
        place = folder / label / patient.replace(" ", "") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(labelled / "pictures" / name, place)
    bundle = ROOT / "bundles" / "brain_hemorrhage_ct_classification"
    arguments = [folder, "--bundle", bundle, "--models", f"own={labelled / 'RUN'}", "--output_dir", tmp_path / "OUT"]
    few = ["--repeats", "1", "--fractions", "1", "--folds", "3", "--samples", "20", "--protocol", "folds"]
    assert main(["probe", *map(str, arguments), *few]) == 0
    record = json.loads((tmp_path / "OUT" / "logistic" / "own" / "run_00" / "metrics.json").read_text())
    assert record["task"] == "Brain, logistic regression"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--models", "own"), "expected a model as NAME=FILE, found 'own'"),
        (("--models", "a=nowhere"), "expected a file of weights, the folder of a run, or a network"),
        (("--models", "a/b=resnet18"), "expected names of letters, digits, - and _, found 'a/b'"),
        (("--fractions", "0"), "expected fractions above 0 and up to 1, found 0"),
        (("--fractions", "2"), "expected fractions above 0 and up to 1, found 2"),
        (("--folds", "1"), "expected folds of 2 or more, found 1"),
        (("--folds", "9"), "expected at least 9 patients (or sources, or single pictures) of the class bright"),
        (("--baseline", "own2"), "expected the baseline to be one of own, random, found own2"),
        (("--protocol", "official"), "expected an official split of all pictures in"),
        (("--positive", "2"), "expected positive to be the number of a class"),
        (("--bundle", "bundles"), "expected a bundle of a task in bundles, found no function listing"),
    ],
)
def test_mistakes_are_one_sentence(
    given: tuple[str, ...], sentence: str, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(labelled, tmp_path / "OUT", *given) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in error


def test_patients_that_are_not_known_and_a_folder_of_another_probe_are_mistakes(
    probed: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(labelled, tmp_path / "OUT", "--group", "patient", table="plain.csv") == 2
    assert "expected the patient of each picture for --group patient, found none of 36 of 36" in capsys.readouterr().err
    assert probe(labelled, probed, "--seed", 1) == 2
    assert "found one with other seed in" in capsys.readouterr().err
