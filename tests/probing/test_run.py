from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, tree
from PIL import Image
from sklearn.linear_model import LogisticRegression

from lessismore_transforms.analysis.models import Model, load_models
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.cli.main import main
from lessismore_transforms.probing.features import cache_key
from lessismore_transforms.weights.backbones import weights_id

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
        (("--models", "a=resnet50.pth"), "expected a file of weights, the folder of a run, or a network"),
        (("--models", "a=vit_b_16"), "expected a (vit_b_16) to take pictures of (1, 32, 32)"),
        (("--image_size", "0"), "expected an image_size of 1 pixel or more, found 0"),
        (("--channels", "2"), "expected channels of 1 (grey) or 3 (colour), found 2"),
        (("--temperature", "nan"), "expected a temperature above 0, found nan"),
        (("--window", "lung+chest+bone"), "expected networks of 3 channels for the windows lung+chest+bone"),
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


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["probe", "{0}/pictures", "--models", "r=resnet18", "a={0}/none"], "found none of them in a={0}/none: check"),
        (["probe", "{0}/pictures", "--models", "r=resnet18", "a={0}/pictures"], "expected backbone.safetensors or mod"),
        (["probe", "{0}/pictures", "--models", "r=resnet18", "--labels", "none.csv"], "the CSV file of labels at {0}/"),
        (["probe", "{0}/none", "--models", "r=resnet18"], "expected a folder of pictures at {0}/none, found none"),
        (["audit", "{0}", "--views", "{0}/none.json", "--models", "a={0}/none"], "found none of them in a={0}/none"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_imported(
    labelled: Path, tmp_path: Path, command: list[str], sentence: str
) -> None:
    line = [*(word.format(labelled) for word in command), "--output_dir", str(tmp_path / "OUT")]
    code = (
        "import sys; from lessismore_transforms.cli.main import main; code = main(sys.argv[1:]); "
        "print(sorted({'torch', 'monai', 'pandas'} & {*sys.modules})); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert sentence.format(labelled) in done.stderr
    assert done.stdout == "[]\n"


def test_patients_that_are_not_known_and_a_folder_of_another_probe_are_mistakes(
    probed: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(labelled, tmp_path / "OUT", "--group", "patient", table="plain.csv") == 2
    assert "expected the patient of each picture for --group patient, found none of 36 of 36" in capsys.readouterr().err
    assert probe(labelled, probed, "--seed", 1) == 2
    assert "found one with other seed in" in capsys.readouterr().err


def brain(labelled: Path, folder: Path) -> Path:
    """The same pictures in folders of classes and patients, as the brain task has them."""
    for row in csv.DictReader((labelled / "labels.csv").open()):
        label = "b_with" if int(row["patient"].split()[1]) % 2 else "a_without"
        place = folder / label / row["patient"].replace(" ", "") / row["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(labelled / "pictures" / row["path"], place)
    return folder


def test_folds_that_a_bundle_makes_are_no_official_split(labelled: Path, tmp_path: Path) -> None:
    bundle = ROOT / "bundles" / "brain_hemorrhage_ct_classification"
    few = ["--repeats", 1, "--fractions", 1, "--folds", 3, "--samples", 20, "--bundle", bundle]
    arguments = ["probe", brain(labelled, tmp_path / "data"), "--models", f"own={labelled / 'RUN'}", *few]
    assert main([*map(str, arguments), "--output_dir", str(tmp_path / "OUT")]) == 0
    assert len(list((tmp_path / "OUT" / "logistic" / "own").glob("run_*"))) == 3
    about = json.loads((tmp_path / "OUT" / "probe.json").read_text())
    assert about["folds"] is True
    assert about["identity"]["task"] == "Brain"


def test_an_option_that_a_bundle_does_not_take_is_refused(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = ROOT / "bundles" / "covid19_ct_classification"
    for option in ("--label_column", "--group", "--window"):
        arguments = ["probe", labelled / "pictures", "--models", f"own={labelled / 'RUN'}", "--bundle", bundle]
        given = [*map(str, arguments), "--output_dir", str(tmp_path / "OUT"), option, "lung"]
        assert main(given) == 2
        assert f"expected no {option} beside --bundle" in capsys.readouterr().err


def test_leaks_are_looked_for_in_all_folds_also_when_the_numbers_are_there(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two equal pictures of two patients; and pictures of pre-training that are judged in some fold."""
    out, few = tmp_path / "OUT", ("--repeats", 1, "--fractions", 1)
    shutil.copytree(labelled / "pictures", tmp_path / "pictures")
    shutil.copytree(labelled / "RUN", tmp_path / "RUN")
    shutil.copy(labelled / "labels.csv", tmp_path)
    shutil.copy(tmp_path / "pictures" / "00.png", tmp_path / "pictures" / "06.png")  # patients 0 and 2
    assert probe(tmp_path, out, *few) == 0
    run = json.loads((out / "knn" / "own" / "run_00" / "metrics.json").read_text())
    folds = {
        name: number
        for number in range(3)
        for name in Predictions.read(out / "knn" / "own" / f"run_{number:02d}" / "predictions.csv").image_ids
    }
    assert run["leakage"]["exact"] == (folds["00.png"] != folds["06.png"])
    (tmp_path / "seen").mkdir()
    last = next(name for name, number in folds.items() if number == 2)
    shutil.copy(tmp_path / "pictures" / last, tmp_path / "seen")
    (tmp_path / "other").mkdir()
    Image.fromarray(np.eye(40, dtype=np.uint8)).save(tmp_path / "other" / "0.png")
    for path in (
        tmp_path / "seen",
        tmp_path / "other",
        None,
    ):  # there; not there, and not looked for: what was found stays
        before = out / "logistic" / "own" / "run_01" / "predictions.csv"
        predictions = before.read_bytes()
        assert probe(tmp_path, out, *few, *(() if path is None else ("--pretraining", path))) == 0
        again = json.loads((out / "knn" / "own" / "run_00" / "metrics.json").read_text())
        assert again == {**run, "leakage": again["leakage"]}
        assert again["leakage"].items() > run["leakage"].items()
        assert again["leakage"]["pretraining_exact"] == 1
        assert before.read_bytes() == predictions
    assert probe(tmp_path, out, *few, "--leakage", "ignore", "--pretraining", tmp_path / "seen") == 0
    assert json.loads((out / "knn" / "own" / "run_00" / "metrics.json").read_text()) == again
    capsys.readouterr()
    assert probe(tmp_path, out, *few, "--leakage", "fail", "--pretraining", tmp_path / "seen") == 2
    assert "expected nothing in two places, found pairs (" in capsys.readouterr().err


def test_three_classes_in_colour_by_an_official_split(labelled: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(36):
        colour = rng.integers(0, 120, (40, 36, 3))
        colour[..., number % 3] += 100
        place = tmp_path / "pictures" / ("train" if number < 24 else "test") / "rgb"[number % 3] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colour.astype(np.uint8)).save(place)
    models = ["--models", f"grey={labelled / 'RUN'}", "random=resnet18"]
    arguments = ["probe", tmp_path / "pictures", *models, "--output_dir", tmp_path / "OUT", "--image_size", 32]
    few = ["--repeats", 2, "--fractions", 0.5, "--samples", 20, "--group", "picture"]
    assert main([*map(str, [*arguments, *few])]) == 0
    runs = {kind: sorted((tmp_path / "OUT" / kind / "grey").glob("run_*")) for kind in KINDS}
    assert [len(found) for found in runs.values()] == [1, 1, 2]  # only few labels are drawn anew
    found = Predictions.read(runs["logistic"][0] / "predictions.csv")
    assert found.probabilities.shape == (12, 3)
    more = [*map(str, arguments), "colour=resnet18", *map(str, few)]
    more = [each for each in more if each != "colour=resnet18"]
    more[more.index("random=resnet18")] = "colour=tf_efficientnet_lite0"
    assert main(more) == 0  # another network finds the same pictures
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Model, "features", lambda *_, **__: 1 / 0)
        assert main(more) == 0


def test_three_windows_where_no_patient_is_known(labelled: Path, tmp_path: Path) -> None:
    few = ("--repeats", 1, "--fractions", 1, "--window", "lung+chest+bone", "--channels", 3)
    assert probe(labelled, tmp_path / "OUT", *few, table="plain.csv") == 0


def test_a_class_that_cannot_be_judged_is_refused(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(csv.reader((labelled / "labels.csv").open()))
    rows = [
        [*rows[0], "split"],
        *([*row, "test" if row[1] == "dark" and n > 18 else "train"] for n, row in enumerate(rows[1:])),
    ]
    with (labelled / "one_class.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert probe(labelled, tmp_path / "OUT", table="one_class.csv") == 2
    assert (
        "expected pictures of all classes to be judged in the official split, found none of bright"
        in capsys.readouterr().err
    )


def test_networks_that_differ_in_their_layers_alone_do_not_share_features() -> None:
    one, other = load_models(["a=timm:efficientnet_b0", "b=tf_efficientnet_b0"], alike=())
    assert weights_id(one.network) == weights_id(other.network)
    assert cache_key(one) != cache_key(other)


def test_random_weights_are_the_baseline_under_both_names(labelled: Path) -> None:
    models = load_models([f"own={labelled / 'RUN'}", "chance=random", "net=resnet18"], alike=())
    assert [model.origin.get("untrained", False) for model in models] == [False, True, True]
