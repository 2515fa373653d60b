"""An analysis from its command to its page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import BUNDLES, bundle_environment, tree
from PIL import Image
from warm_python import warm_run

from lessismore_transforms.analysis import run
from lessismore_transforms.analysis.attention import feature_norm_map, grad_cam, iou
from lessismore_transforms.analysis.cka import compare_networks, load_cka
from lessismore_transforms.analysis.models import load_models
from lessismore_transforms.analysis.page import write_page
from lessismore_transforms.analysis.run import analyse, check_complete
from lessismore_transforms.analysis.sample import read_sample
from lessismore_transforms.analysis.settings import AnalysisSettings
from lessismore_transforms.cli.main import main
from lessismore_transforms.errors import IncompleteError, UserError
from lessismore_transforms.pretraining.indicators import rank_me

CONFIG = BUNDLES / "ssl_representation_analysis" / "configs" / "inference.json"


def models(folder: Path) -> list[str]:
    return [f"ALL={folder / 'RUN'}", f"tuned={folder / 'EVAL/run_00'}", f"HASH-6={folder / 'other.safetensors'}"]


@pytest.fixture(scope="module")
def analysis(explained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole command, in a process of its own."""
    folder = tmp_path_factory.mktemp("analysis")
    pairs = [["ALL", "tuned"], ["ALL", "HASH-6"]]
    line = ["-m", "monai.bundle", "run", "--config_file", str(CONFIG), "--dataset_dir", str(explained / "pictures")]
    line += ["--labels", str(explained / "plain.csv"), "--models", str(models(explained)), "--pairs", str(pairs)]
    line += ["--output_dir", "out", "--batch_size", "8", "--seeds", "2", "--overlays", "3", "--device", "cpu"]
    done = warm_run(line, cwd=folder, env=bundle_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert "page: out/analysis.html" in done.stdout
    return folder / "out"


def numbers(analysis: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((analysis / "analysis.json").read_text())
    return found


def test_the_folder_holds_what_is_promised(analysis: Path, explained: Path) -> None:
    files = set(tree(analysis))
    assert files == {
        "analysis.html", "analysis.json", "map.csv", "cka_00.npy", "cka_00.json", "cka_01.npy", "cka_01.json",
        "cka_difference_01.npy", "attention/00.png", "attention/01.png", "attention/02.png",
    }  # fmt: skip
    found = numbers(analysis)
    assert found["pictures"] == {
        "count": 24, "of": 24, "unit": "patient", "units": 8, "classes": {"bright": 12, "dark": 12}, "unread": {},
    }  # fmt: skip
    text = "".join(content.decode("latin-1") for name, content in tree(analysis).items() if not name.endswith("png"))
    assert "patient 1" not in text  # groups are private
    assert str(explained) not in text


def test_similarities_are_those_of_the_networks(analysis: Path, explained: Path) -> None:
    first, _, third = load_models(models(explained))
    sample = read_sample(explained / "pictures", size=64, labels=explained / "plain.csv")
    batches = list(torch.split(sample.images, 8))
    expected = compare_networks(first.network, third.network, batches, groups=sample.groups, progress=False)
    found = load_cka(analysis / "cka_01.npy")
    np.testing.assert_allclose(found.cka, expected.cka, atol=1e-6)
    np.testing.assert_allclose(found.low, expected.low, atol=1e-5)
    assert (found.rows, found.units) == (expected.rows, 8)
    tuned = load_cka(analysis / "cka_00.npy")  # its encoder is that of ALL
    assert np.diagonal(tuned.cka) == pytest.approx(1, abs=1e-6)
    difference = np.load(analysis / "cka_difference_01.npy")[0]
    np.testing.assert_allclose(difference, found.cka - tuned.cka, atol=1e-12)
    (told,) = numbers(analysis)["cka"]["differences"]
    assert told["diagonal"]["value"] == pytest.approx(np.diagonal(difference).mean())


def test_maps_are_written_and_correlated(analysis: Path) -> None:
    table = pd.read_csv(analysis / "map.csv")
    kinds = [("ALL", "features"), ("tuned", "features"), ("tuned", "outputs"), ("HASH-6", "features")]
    assert list(dict.fromkeys(zip(table["model"], table["of"], strict=True))) == kinds
    assert set(table["map"]) == {"tsne_0", "tsne_1", "pca"}
    for network in numbers(analysis)["map"]["networks"]:
        for seed in (0, 1):
            rows = table[
                table["model"].eq(network["model"]) & table["of"].eq(network["of"]) & table["map"].eq(f"tsne_{seed}")
            ]
            target = rows["label"].eq("bright").astype(float)  # in the order of the classifier: dark is 0
            design = np.column_stack([rows["x"], rows["y"], np.ones(len(rows))])
            residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
            share = 1 - residual.var() / target.var(ddof=0)
            assert network["tsne"]["multiple"][seed] == pytest.approx(np.sqrt(share), abs=1e-3)
            r = np.corrcoef(rows["x"], target)[0, 1]
            assert network["tsne"]["axes"][seed][0] == pytest.approx(r, abs=1e-3)
        assert network["linear"]["value"] > 0.9  # bright or dark is easy


def test_attention_of_encoders_and_classifiers(analysis: Path, explained: Path) -> None:
    first, second, third = load_models(models(explained))
    sample = read_sample(explained / "pictures", size=64, labels=explained / "plain.csv")
    told = numbers(analysis)["attention"]
    assert [each["kind"] for each in told["networks"]] == [
        "length of features", "Grad-CAM of the predicted class", "length of features",
    ]  # fmt: skip
    lengths = [feature_norm_map(model.network, sample.images).numpy() for model in (first, second, third)]
    cam = grad_cam(second.network, sample.images).numpy()
    mixed, plain = told["pairs"]
    assert mixed["iou"]["value"] == pytest.approx(np.nanmean(iou(lengths[0], cam)), abs=1e-6)
    assert mixed["lengths"]["iou"]["value"] == pytest.approx(1, abs=1e-6)  # the same encoder
    assert plain["iou"]["value"] == pytest.approx(np.nanmean(iou(lengths[0], lengths[2])), abs=1e-6)
    assert "lengths" not in plain
    (change,) = told["differences"]  # of lengths, as Grad-CAM has nothing to be compared with
    assert change["of"] == "length of features"
    expected = np.nanmean(iou(lengths[0], lengths[2]) - iou(lengths[0], lengths[1]))
    assert change["iou"]["value"] == pytest.approx(expected, abs=1e-6)
    assert [point["share"] for point in plain["curve"]] == [number / 10 for number in range(1, 10)]
    with Image.open(analysis / "attention" / "00.png") as picture:
        assert picture.size == (4 * 224 + 3 * 6, 224 + 18)
    assert [shown["label"] for shown in told["overlays"]].count("dark") in (1, 2)  # of each class in turn


def test_encoders_over_their_checkpoints(analysis: Path, explained: Path) -> None:
    rows = numbers(analysis)["encoder"]
    assert [(row["model"], row["checkpoint"]) for row in rows] == [
        ("ALL", "step_000005"), ("ALL", "end"), ("tuned", "end"), ("HASH-6", "end"),
    ]  # fmt: skip
    (model,) = load_models(models(explained)[:1])
    sample = read_sample(explained / "pictures", size=64, labels=explained / "plain.csv")
    assert rows[1]["rank_me"] == pytest.approx(float(rank_me(model.features(sample.images))), rel=1e-3)
    assert rows[1]["rank_me"] == pytest.approx(rows[2]["rank_me"], rel=1e-3)  # the same encoder


def test_the_page_is_the_same_from_the_numbers_alone(
    analysis: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = (analysis / "analysis.html").read_bytes()
    (analysis / "analysis.html").unlink()
    assert main(["explain", str(analysis)]) == 0
    assert f"page: {analysis}/analysis.html" in capsys.readouterr().out
    assert (analysis / "analysis.html").read_bytes() == page
    text = page.decode()
    for heading in ("Similarity of layers", "Map of the pictures", "Attention", "Encoders without labels"):
        assert f"<h2>{heading}</h2>" in text
    assert text.count("How to read it:") == text.count("What it cannot tell:") == 4
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert main(["explain", str(tmp_path)]) == 2
    assert "expected the folder of an analysis with analysis.json, found" in capsys.readouterr().err


@pytest.mark.parametrize(
    "broken", ["analysis.json", "cka_00.npy", "cka_00.json", "cka_difference_01.npy", "map.csv", "attention/00.png"]
)
def test_a_file_that_is_lost_or_damaged_is_named(analysis: Path, broken: str) -> None:
    kept = (analysis / broken).read_bytes()
    try:
        (analysis / broken).write_bytes(b"{")
        if not broken.endswith("png"):
            with pytest.raises(UserError, match=broken):
                write_page(analysis)
        (analysis / broken).unlink()
        with pytest.raises(UserError, match=broken):
            write_page(analysis)
    finally:
        (analysis / broken).write_bytes(kept)


def settings(explained: Path, folder: Path, **more: Any) -> AnalysisSettings:
    given: dict[str, Any] = {
        "dataset_dir": explained / "pictures", "labels": explained / "plain.csv", "models": models(explained)[:2],
        "output_dir": folder, "batch_size": 8, "seeds": 1, "device": "cpu", "overlays": 0,
    }  # fmt: skip
    return AnalysisSettings(**given | more)


def test_parts_and_pictures_without_labels(explained: Path, tmp_path: Path) -> None:
    analyse(settings(explained, tmp_path, analyses="map", labels=None))
    assert set(tree(tmp_path)) == {"analysis.json", "map.csv"}
    (network, *_) = numbers(tmp_path)["map"]["networks"]
    assert "tsne" not in network
    assert "No labels were given" in write_page(tmp_path).read_text()


def test_an_analysis_that_fails_leaves_none_of_an_earlier_one(
    explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyse(settings(explained, tmp_path, analyses=["map", "encoder"]))
    assert (tmp_path / "analysis.json").is_file()
    analyse_again = settings(explained, tmp_path, analyses=["map"], perplexity=99)
    with pytest.raises(UserError, match="expected a perplexity"):  # before any work: the earlier one stays
        analyse(analyse_again)
    assert (tmp_path / "analysis.json").is_file()
    monkeypatch.setitem(run._WORK, "map", lambda task: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        analyse(settings(explained, tmp_path, analyses=["map"]))
    assert not set(tree(tmp_path))


def test_a_picture_that_cannot_be_read_is_told_at_the_end(explained: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(explained / "pictures", pictures)
    (pictures / "bad.png").write_text("no picture")
    folder = analyse(settings(explained, tmp_path / "out", dataset_dir=pictures, labels=None, analyses="encoder"))
    assert "1 picture could not be read" in write_page(folder).read_text()
    with pytest.raises(IncompleteError, match=r"1 of 25 pictures could not be read .* first bad.png \(bad.png cannot"):
        check_complete(folder)
    assert numbers(folder)["encoder"][0]["near_copies"] is None  # nobody knows which are of one patient
    assert "Near copies need patients or volumes" in (folder / "analysis.html").read_text()


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"positions": "x"}, "expected positions to be a whole number of 1 or more, found 'x'"),
    ({"image_size": -3}, "expected image_size to be a whole number of 1 or more, found -3"),
    ({"seed": -1}, "expected seed to be a whole number of 0 or more, found -1"),
    ({"perplexity": "x"}, "expected a perplexity of 1 or more, found 'x'"),
    ({"mean": "x"}, "expected mean to be one number or three, found 'x'"),
    ({"std": [0]}, r"expected std to be one number above 0 or three, found \[0\]"),
    ({"models": None}, "expected one model or more as NAME=FILE, found none"),
    ({"pairs": []}, "expected pairs of two of the models ALL, tuned, found 'none'"),
    ({"pairs": [["ALL", "ALL"]]}, "expected pairs of two of the models ALL, tuned"),
    ({"pairs": [["ALL", "tuned"], ["ALL", "tuned"]]}, "expected each pair once, found ALL and tuned twice"),
    ({"labels": None, "attention_class": "true", "analyses": "attention"}, "expected labels out of .*, found none"),
    ({"labels": "none.csv"}, "expected a table of labels, as FILE.csv or FILE.csv:SPLIT, found no file none.csv"),
    ({"attention_layer": "avgpool", "analyses": "attention"}, "expected a layer that gives maps .* of several places"),
    ({"analyses": ["cka", "tsne"]}, "expected analyses out of cka, map, attention and encoder, found 'tsne'"),
    ({"analyses": []}, "found none"),
    ({"pairs": [["ALL", "HASH"]]}, r"expected pairs of two of the models ALL, tuned, found \['ALL', 'HASH'\]"),
    ({"batch_size": 3}, "expected batch_size to be a whole number of 4 or more, found 3"),
    ({"attention_class": "all"}, "expected attention_class predicted or true, found 'all'"),
    ({"share": 0}, "expected a share of the maximum above 0 and up to 1, found 0"),
    ({"layers": ["layer9"], "analyses": "cka"}, "expected names of layers, found 'layer9'.*closest one is layer"),
    (
        {"attention_layer": "layer5", "analyses": "attention"},
        "expected names of layers, found 'layer5'.*closest one is layer",
    ),
    ({"perplexity": 20, "analyses": "map"}, "expected a perplexity from 1 to 7.667"),
    ({"labels": "{0}/one.csv", "analyses": "map"}, "expected pictures of two classes or more .*, found 'dark' only"),
    (
        {"labels": "folders", "attention_class": "true", "analyses": "attention"},
        "expected labels out of dark or bright",
    ),
]


@pytest.mark.parametrize(("given", "sentence"), MISTAKES)
def test_a_mistake_is_one_sentence(explained: Path, tmp_path: Path, given: dict[str, Any], sentence: str) -> None:
    (tmp_path / "one.csv").write_text("path,label\n" + "".join(f"p{n // 3}/{n}.png,dark\n" for n in range(24)))
    given = {name: value.format(tmp_path) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(UserError, match=sentence):
        analyse(settings(explained, tmp_path / "out", **given))
