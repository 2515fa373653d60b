"""What is in two places: made sets with known leaks of each kind, and the real ones."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import bundle_scripts, in_processes
from PIL import Image
from scipy.ndimage import gaussian_filter

from lessismore_transforms.classification import leakage
from lessismore_transforms.classification.examples import SPLITS, Example, Examples
from lessismore_transforms.classification.leakage import COLUMNS, PRETRAINING, check_leakage
from lessismore_transforms.errors import ManifestError
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.patients import hash_patient, load_key
from lessismore_transforms.reduced.pictures import images_in
from lessismore_transforms.training.processes import process_rank
from lessismore_transforms.volumes.pictures import read_picture


def picture(seed: int, side: int = 64) -> np.ndarray:
    """Smooth noise, another for each seed."""
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side + 16)), 3)
    return np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))


def made(changes=None, *, per_split=4, **fields) -> Examples:
    """Unrelated pictures train/0, train/1 ...; `changes` are other pictures, `fields` others of the examples."""
    names = [f"{split}/{number}" for split in SPLITS for number in range(per_split)]
    examples = []
    for name in names:
        known = {field: values[name] for field, values in fields.items() if name in values}
        examples.append(Example(name, **{"label": int(name[-1]) % 2, "split": name.split("/")[0], **known}))
    images = [(changes or {}).get(name, picture(number)) for number, name in enumerate(names)]
    return Examples("Toy", ("no", "yes"), tuple(examples), images, 1)


def compressed(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def places(found, kind):
    table = found.table[found.table["kind"] == kind]
    return list(table[["image_a", "image_b"]].itertuples(index=False, name=None))


def test_unrelated_pictures_share_nothing_and_the_empty_table_says_so(tmp_path, caplog):
    found = check_leakage(made(), policy="fail", folder=tmp_path / "run_00")
    assert found.sentences == ()
    assert caplog.text == ""
    assert (tmp_path / "run_00" / "leakage.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert found.summary() == {
        "policy": "fail", "checked": True, "patients": None, "sources": None, "exact": 0, "two_labels": 0, "near": 0,
        "too_small": 0,
    }  # fmt: skip


def test_patients_and_sources_in_two_splits(caplog):
    patient = {"train/0": "p", "train/1": "p", "val/0": "q", "val/2": "p", "test/0": "r", "test/3": "p"}
    found = check_leakage(made(patient=patient, source={"train/3": "s", "val/3": "s", "test/1": "t"}))
    assert places(found, "patient") == [("train/0", "val/2"), ("train/0", "test/3"), ("val/2", "test/3")]
    assert places(found, "source") == [("train/3", "val/3")]
    assert found.table["shared"].tolist() == ["p", "p", "p", "s"]
    assert (found.counts["patients"], found.counts["sources"]) == (1, 1)
    assert found.sentences == (
        "1 of 3 patients is in more than one split (train-val 1, train-test 1, val-test 1), first p: train/0 (train, "
        "no) and val/2 (val, no)",
        "1 of 2 sources is in more than one split (train-val 1), first s: train/3 (train, yes) and val/3 (val, yes)",
    )
    assert [record.getMessage() for record in caplog.records] == list(found.sentences)
    assert {(record.name, record.levelno) for record in caplog.records} == {("lessismore_transforms", logging.WARNING)}


def test_equal_pictures_and_two_labels():
    """In two splits, there with the other label, and in one split with the other label; not in one with the same."""
    one, two, three, four = (picture(100 + number) for number in range(4))
    changes = {"train/0": one, "train/2": one, "val/2": one, "train/1": two, "test/0": two, "val/0": three}
    changes |= {"val/3": three, "test/2": four}
    changes["test/1"] = four.reshape(four.shape[::-1])  # as many bytes
    found = check_leakage(made(changes))
    assert places(found, "exact") == [("train/0", "val/2"), ("train/1", "test/0"), ("val/0", "val/3")]
    assert found.table["label_a"].tolist() == ["no", "yes", "no"]
    assert found.table["label_b"].tolist() == ["no", "no", "yes"]
    assert (found.counts["exact"], found.counts["two_labels"], found.counts["near"]) == (2, 2, 0)
    assert found.sentences == (
        "2 of 12 pictures are in more than one split, equal in all pixels (train-val 1, train-test 1), first train/0 "
        "(train, no) and val/2 (val, no)",
        "2 of 12 pictures are there under two labels, equal in all pixels, so one label is wrong (train-test 1, "
        "val-val 1), first train/1 (train, yes) and test/0 (test, no)",
    )


def test_nearly_equal_pictures():
    """Mirrored, turned and compressed ones of other splits, in grey or colour; not those of the same split."""
    base = made()
    image = dict(zip([each.image_id for each in base.examples], base.images, strict=True))
    changes = {
        "test/1": compressed(np.ascontiguousarray(image["train/3"][:, ::-1])),
        "val/1": compressed(np.rot90(image["train/1"]).copy()),
        "test/2": compressed(image["val/0"]),
        "train/2": compressed(image["train/0"]),
    }
    found = check_leakage(made(changes))
    assert set(places(found, "near")) == {("train/3", "test/1"), ("train/1", "val/1"), ("val/0", "test/2")}
    table = found.table.set_index("image_b")
    assert table["transform"].to_dict() == {"test/1": "flip_left_right", "val/1": "rotate_270", "test/2": "none"}
    assert (table["correlation"] > 0.85).all()
    assert table["correlation"].is_monotonic_decreasing
    (sentence,) = found.sentences
    assert sentence.startswith("3 of 48 pairs of pictures of different splits are nearly equal (")
    assert "; 1 with two labels)" in check_leakage(made({"test/1": compressed(image["train/2"])})).sentences[0]

    grey = made(changes)
    colour = Examples("Toy", grey.classes, grey.examples, [np.dstack([each] * 3) for each in grey.images], 3)
    pd.testing.assert_frame_equal(check_leakage(colour).table, check_leakage(grey).table)


def test_small_pictures_are_compared_for_equality_only():
    small = {f"{split}/{n}": picture(n, leakage.LEAST_SIDE - 1) for split in ("train", "val") for n in range(4)}
    small["val/3"] = small["val/1"][:, ::-1].copy()
    found = check_leakage(made(small))
    assert places(found, "exact") == [(f"train/{n}", f"val/{n}") for n in range(3)]
    assert (found.counts["near"], found.counts["too_small"]) == (None, 8)
    assert found.sentences[-1] == "8 of 12 pictures are smaller than 48 pixels: compared for equality only"


def test_where_all_look_alike_likeness_is_no_sign(monkeypatch):
    rng = np.random.default_rng(0)
    base = picture(0).astype(int)
    noisy = {
        f"{s}/{n}": np.uint8(np.clip(base + rng.integers(-3, 4, base.shape), 0, 255)) for s in SPLITS for n in range(4)
    }
    assert check_leakage(made(noisy)).counts["near"] == 48
    monkeypatch.setattr(leakage, "_SAMPLED_FROM", 1)
    found = check_leakage(made(noisy))
    assert found.counts["near"] is None
    assert found.table.empty
    assert found.sentences[0].endswith("so that copies cannot be recognised by it: near-duplicates were not looked for")
    assert check_leakage(made()).counts["near"] == 0


def test_policies(tmp_path, caplog):
    examples = made(source={"train/3": "s", "val/3": "s"})
    with pytest.raises(ValueError, match=r"pairs \(source 1\), listed in .*leakage\.csv: fix the lists or go on with"):
        check_leakage(examples, policy="fail", folder=tmp_path)
    assert len(pd.read_csv(tmp_path / "leakage.csv")) == 1
    with pytest.raises(ValueError, match="expected leakage to be one of warn, fail, ignore, found 'never'"):
        check_leakage(examples, policy="never")
    caplog.clear()
    ignored = check_leakage(examples, policy="ignore", folder=tmp_path / "other")
    assert ignored.summary() == {"policy": "ignore", "checked": False}
    assert (ignored.table.empty, caplog.text) == (True, "")
    assert not (tmp_path / "other").exists()


def _in_each_process(folder: str) -> tuple[bool, str]:
    own = Path(folder) / str(process_rank())
    try:
        check_leakage(made(source={"train/3": "s", "val/3": "s"}), policy="fail", folder=own)
    except ValueError as error:
        return own.exists(), str(error)[:20]
    return own.exists(), ""


def test_the_first_of_several_processes_writes_and_all_refuse(tmp_path):
    assert in_processes(_in_each_process, 2, str(tmp_path)) == [
        (True, "expected nothing in "),
        (False, "expected nothing in "),
    ]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> dict[str, Path]:
    """Two patients of three unrelated slices, reduced with the default key, with another one, and without."""
    root = tmp_path_factory.mktemp("pretraining")
    for number in range(2):
        (root / "data" / f"anna{number}").mkdir(parents=True)
        slices = np.stack([picture(1000 + 10 * number + index).T for index in range(3)], axis=-1)
        nib.save(nib.Nifti1Image(slices.astype(np.int16), np.eye(4)), root / "data" / f"anna{number}" / "ct.nii")
    (root / "key").write_text("another secret of enough letters")
    reduce_dataset(root / "data", root / "ours", workers=0)
    reduce_dataset(root / "data", root / "other", workers=0, patient_key=root / "key")
    reduce_dataset(root / "data", root / "found", Settings(keep_patient_ids=True), workers=0)
    return {name: root / name for name in ("ours", "other", "found")}


@pytest.mark.parametrize("name", ["ours", "found"])
def test_what_pretraining_has_seen(outputs, name):
    slices = dict(images_in(outputs[name]))
    assert len(slices) == 6
    first, second, *_ = slices
    patient = {"train/0": hash_patient("anna1", load_key()), "test/2": hash_patient("berta", load_key())}
    changes = {"train/0": slices[first], "test/3": compressed(slices[second][:, ::-1].copy())}
    found = check_leakage(made(changes, patient=patient), pretraining=outputs[name])
    table = found.table.set_index("kind")
    assert set(table["split_a"]) == {PRETRAINING}
    assert table.loc["exact", ["image_a", "image_b", "label_a", "label_b"]].tolist() == [first, "train/0", "", "no"]
    assert table.loc["near", ["image_a", "image_b", "transform"]].tolist() == [second, "test/3", "flip_left_right"]
    assert table.loc["patient", ["image_b", "shared"]].tolist() == ["train/0", patient["train/0"]]
    assert [found.counts[f"pretraining_{kind}"] for kind in ("patients", "exact", "near")] == [1, 1, 1]
    assert [found.counts[kind] for kind in ("patients", "exact", "near")] == [0, 0, 0]
    assert found.sentences[-1].startswith("1 of 72 pairs of a pre-training slice and a picture is nearly equal (")

    changes.pop("test/3")
    check_leakage(made(changes, patient=patient), policy="fail", pretraining=[str(outputs[name])])  # train is no leak
    patient["test/2"] = patient["train/0"]
    with pytest.raises(ValueError, match=r"\(patient 2\)"):
        check_leakage(made(patient=patient), policy="fail", pretraining=outputs[name])


def test_patients_under_another_key_are_not_known(outputs):
    patient = {"train/0": hash_patient("anna1", load_key())}
    found = check_leakage(made(patient=patient), pretraining=outputs["other"])
    assert found.counts["pretraining_patients"] is None
    (sentence,) = found.sentences
    assert "are hashed with key" in sentence
    assert sentence.endswith("is not known unless it is reduced again without --patient_key")
    assert check_leakage(made(), pretraining=outputs["other"]).sentences == ()  # no patient is known here


def test_pretraining_against_small_pictures_and_no_output(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr(leakage, "LEAST_SIDE", 100)
    name, image = next(images_in(outputs["ours"]))
    found = check_leakage(made({"val/1": image}), pretraining=outputs["ours"])
    assert places(found, "exact") == [(name, "val/1")]
    assert (found.counts["pretraining_exact"], found.counts["pretraining_near"]) == (1, None)
    assert "6 of 6 pre-training slices are smaller than 100 pixels: compared for equality only" in found.sentences
    with pytest.raises(ManifestError, match="expected the output folder of a finished `reduce`"):
        check_leakage(made(), pretraining=tmp_path)


def test_covid_ct(real_data):
    """All three sources have patients or slices on both sides; both pairs are copies with the other label."""
    found = check_leakage(Examples.of(bundle_scripts("covid19_ct_classification").listing(real_data / "covid_ct")))
    assert found.summary() == {
        "policy": "warn", "checked": True, "patients": None, "sources": 3, "exact": 0, "two_labels": 0, "near": 2,
        "too_small": 0,
    }  # fmt: skip
    assert found.sentences[0].startswith("3 of 342 sources are in more than one split (train-test 1, train-val 1, val-")
    assert set(places(found, "near")) == {
        ("CT_NonCOVID/71%0.jpg", "CT_COVID/kjr-21-e24-p5-29.png"),
        ("CT_NonCOVID/71%1.jpg", "CT_COVID/kjr-21-e24-p5-31.png"),
    }
    assert found.table["correlation"].dropna().round(2).tolist() == [0.89, 0.85]


def test_head_ct_and_radiographs(real_data):
    """Every third picture is in another split; of MedMNIST as it comes."""
    paths = sorted((real_data / "head_ct_hemorrhage" / "head_ct").glob("*.png"))
    head = [Example(path.stem, int(path.stem < "100"), SPLITS[int(path.stem) % 3]) for path in paths]
    images = [read_picture(path) for path in paths]
    found = check_leakage(Examples("Brain", ("no", "yes"), tuple(head), images, 1))
    assert places(found, "exact") == [("189", "188")]
    assert places(found, "near")[:3] == [("198", "199"), ("061", "011"), ("009", "065")]
    assert found.counts["near"] == 11

    arrays = np.load(real_data / "medmnist" / "pneumoniamnist_balanced.npz")
    names = [(split, number) for split in SPLITS for number in range(len(arrays[f"{split}_labels"]))]
    labels = {split: arrays[f"{split}_labels"][:, 0].tolist() for split in SPLITS}
    chest = tuple(Example(f"{split}/{number}", labels[split][number], split) for split, number in names)
    images = [image for split in SPLITS for image in arrays[f"{split}_images"]]
    found = check_leakage(Examples("X", ("normal", "pneumonia"), chest, images, 1))
    assert places(found, "exact") == [("train/211", "val/117"), ("train/494", "val/39"), ("train/689", "val/120")]
    assert (found.counts["near"], found.counts["too_small"]) == (None, 3166)
