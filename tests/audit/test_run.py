from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import BUNDLES, tree

from lessismore_transforms.analysis.models import load_models
from lessismore_transforms.audit.compared import Chunks, Variant
from lessismore_transforms.audit.measure import LOSS, WHOLE, measure
from lessismore_transforms.audit.neighbours import OTHER, find_neighbours
from lessismore_transforms.audit.parts_of_views import parts_of
from lessismore_transforms.audit.rates import collisions
from lessismore_transforms.audit.source import open_source
from lessismore_transforms.audit.view_pair import read_views
from lessismore_transforms.audit.within_volumes import collisions_within
from lessismore_transforms.cli.main import main

pytestmark = pytest.mark.usefixtures("one_thread")


def audit(out: Path, views: Path, folder: Path, *given: object) -> int:
    size = ["--image_size", 32, "--batch_size", 8, "--models", "random=test_resnet"]
    return main(["audit", *map(str, [out, "--views", views, "--output_dir", folder, *size, *given])])


@pytest.fixture(scope="module")
def audited(changing: Path, simclr_views: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited") / "AUDIT"
    assert audit(changing, simclr_views, folder) == 0
    return folder


def rate_of(about: dict[str, Any], comparison: str, measure: str, neighbour: str, views: str = "all parts") -> float:
    (found,) = (
        rate["rate"]
        for rate in about["rates"][views]
        if (rate["comparison"], rate["measure"], rate["neighbour"]) == (comparison, measure, neighbour)
    )
    return float(found)


def test_exact_copies_always_collide_and_half_the_time_as_the_loss_sees_them(
    copies: Path, simclr_views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(copies, simclr_views, tmp_path / "AUDIT") == 0
    assert "ALL" in capsys.readouterr().out
    about = json.loads((tmp_path / "AUDIT" / "audit.json").read_text())
    for neighbour in ("next slice", "2 mm", "0 bits"):
        for comparison, measures in (("whole", ("hash", "random")), ("aligned", ("hash", "ssim"))):
            for name in measures:
                assert rate_of(about, comparison, name, neighbour) == 1
    for views in about["rates"]:
        assert rate_of(about, "aligned", "ssim", "next slice", views) == 1
    assert rate_of(about, "aligned", "ssim", OTHER) < 0.2
    near = about["negatives"][0]["near"][0]
    assert near["share"] == pytest.approx(7 / 39)
    assert near["per_picture"] == pytest.approx(7 * 7 / 39)
    assert "an exact copy: 50 %" in (tmp_path / "AUDIT" / "audit.html").read_text(encoding="utf-8")


def test_a_view_of_an_exact_copy_is_closer_half_the_time(copies: Path, simclr_views: Path) -> None:
    source = open_source(copies, 100, seed=0)
    views = read_views([simclr_views], 32)
    nobody = np.full((40, 1), -1)
    chunks = Chunks(source.dataset, views.kinds, [Variant(parts_of(views.kinds), np.zeros((0, 2), np.int64))], seed=0)
    _, ((_, first, second),) = measure(chunks, load_models(["random=test_resnet"]), nobody, [np.arange(1)])
    members = [np.arange(begin, begin + 8) for begin in range(0, 40, 8)]
    closer = [matrix.sum(axis=1) - 0.5 for matrix in collisions_within(first, second, members)]  # without itself
    places = np.concatenate(closer)  # of the own view among eight, each as likely
    assert abs(places.mean() - 3.5) < 3 * np.sqrt((8**2 - 1) / 12 / 40)


def test_slices_of_other_patients_collide_as_often_as_all_of_them_do_on_average(
    changing: Path, simclr_views: Path
) -> None:
    """The rate of one drawn slice of another patient has the mean over all of them for its expected value."""
    source = open_source(changing, 100, seed=0)
    views = read_views([simclr_views], 32)
    models = load_models(["random=test_resnet"])
    n, patients = len(source.rows), source.seen["patient"].to_numpy()
    everyone = np.tile(np.arange(n), (n, 1))
    everyone[patients[:, None] == patients] = -1
    drawn = np.stack([find_neighbours(source.seen, (), 0, seed=seed).index[:, -1] for seed in range(25)], axis=1)
    index = np.concatenate([everyone, drawn], axis=1)
    pairs = np.argwhere(np.arange(n)[None] == -1).reshape(0, 2)
    chunks = Chunks(source.dataset, views.kinds, [Variant(parts_of(views.kinds), pairs)], seed=0)
    ((*found,),), _ = measure(chunks, models, index, [np.arange(index.shape[1])])
    compared = 0
    for distances in found:
        if distances.comparison not in (WHOLE, LOSS):
            continue
        hits = collisions(distances)
        expected = np.nanmean(hits[:, :n], axis=1)  # of each slice
        of_draws = hits[:, n:].mean(axis=0)
        spread = np.sqrt(np.nanvar(hits[:, :n], axis=1).sum()) / n  # of the mean over slices, each drawn by itself
        assert abs(of_draws.mean() - expected.mean()) < 4 * spread / 5
        compared += 1
    assert compared == 4


def test_the_numbers_are_those_of_the_pairs(audited: Path) -> None:
    about = json.loads((audited / "audit.json").read_text())
    rows = [row for row in csv.DictReader((audited / "pairs.csv").open()) if row["neighbour"] == "next slice"]
    assert len(rows) == 40
    for comparison, name in (("whole", "random"), ("aligned", "ssim"), ("aligned", "hash"), ("loss", "hash")):
        own, other = (
            np.array([float(row[f"{comparison} {name} {what}"]) for row in rows]) for what in ("view", "other")
        )
        tie = (own == other) * (0.5 if comparison == "loss" else 1)
        assert rate_of(about, comparison, name, "next slice") == pytest.approx(np.mean((other < own) + tie), abs=0.03)
    assert {row["mm"] for row in rows} == {"2.5"}


def test_all_parts_and_selections_are_there(audited: Path) -> None:
    about = json.loads((audited / "audit.json").read_text())
    parts = ["crop", "flip", "brightness", "contrast", "blur"]
    assert about["parts"] == parts
    alone = [name for part in parts for name in (f"without {part}", f"{part} alone")]
    assert list(about["rates"]) == ["all parts", *alone]
    everything, hash3 = about["negatives"]
    assert (everything["selection"], everything["slices"]) == ("ALL", 40)
    assert hash3["selection"] == "hash3"
    assert hash3["slices"] < 40
    assert hash3["near"][3]["per_picture"] == 0  # exemplars are further apart
    assert everything["near"][3]["per_picture"] > 0
    assert everything["as_exact_copies"].keys() == {"random"}
    page = (audited / "audit.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 16
    assert str(audited.parent) not in page
    for row in csv.DictReader((audited / "rates.csv").open()):
        assert 0 <= float(row["rate"]) <= 1


def test_workers_and_a_second_run_change_no_byte(
    audited: Path, changing: Path, simclr_views: Path, tmp_path: Path
) -> None:
    assert audit(changing, simclr_views, tmp_path / "AUDIT", "--workers", 2) == 0
    assert tree(tmp_path / "AUDIT") == tree(audited)


@pytest.mark.parametrize(
    "bundle", sorted(path.parents[1].name for path in BUNDLES.glob("ct_*_pretraining/configs/train.json"))
)
def test_the_views_of_every_bundle_can_be_audited(bundle: str) -> None:
    found = read_views([BUNDLES / bundle / "configs" / "train.json"])
    assert [view.count for view in found.kinds] == [1, 1]
    assert found.has_negatives == (bundle in ("ct_simclr_pretraining", "ct_moco_pretraining"))
    assert found.batch_size is not None
    assert parts_of(found.kinds)


def test_the_configuration_of_a_run_and_an_overlay_are_read(simclr_views: Path, tmp_path: Path) -> None:
    content = json.loads(simclr_views.read_text())
    (tmp_path / "config.json").write_text(json.dumps({"settings": {}, "configuration": content}))
    (tmp_path / "overlay.json").write_text(json.dumps({"batch_size": 16, "image_size": 40}))
    found = read_views([tmp_path / "config.json", tmp_path / "overlay.json"])
    assert (found.batch_size, found.kinds[0].size, found.method) == (16, 40, "simclr")
    assert read_views([simclr_views], 64).kinds[1].size == 64


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "expected a JSON object in"),
        ("[]", "expected a JSON object in"),
        ("{}", "expected views with their kinds in"),
        ('{"views": {"kinds": [3]}}', "expected kinds that are lessismore_transforms.pretraining.views.View in"),
        (
            '{"views": {"kinds": [{"_target_": "lessismore_transforms.pretraining.views.View", "size": 0}]}}',
            "expected size of a view to be at least 1, found 0",
        ),
        (None, "cannot read"),
    ],
)
def test_views_that_are_none(
    content: str | None, sentence: str, changing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = tmp_path / "views.json"
    if content is not None:
        views.write_text(content)
    assert audit(changing, views, tmp_path / "AUDIT") == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "AUDIT").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--bits", "65"], "expected bits of 0 to 64, found 65"),
        (["--distances_mm", "0"], "expected distances above 0 mm, found 0"),
        (["--image_size", "8"], "expected an image_size of 16 pixels or more, found 8"),
        (["--batch_size", "1"], "expected 2 or more, found 1"),
        (["--distances_mm", "2", "2.0"], "expected each of distances_mm once, found [2.0, 2.0]"),
        (["--models", "hash=resnet18"], "which are measures themselves, found hash"),
        (["--volumes_per_batch", "2"], "expected --balance with --volumes_per_batch, found shuffled"),
        (["--models", "random"], "expected a model as NAME=FILE, found 'random'"),
        (["--image_size", "512"], "smallest crop would be enlarged"),
    ],
)
def test_settings_that_make_no_sense(
    given: list[str],
    sentence: str,
    changing: Path,
    simclr_views: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        code = audit(changing, simclr_views, tmp_path / "AUDIT", *given)
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    assert sentence in capsys.readouterr().err


def test_a_queue_wants_its_length_and_no_balance(
    changing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moco = BUNDLES / "ct_moco_pretraining" / "configs" / "train.json"
    assert main(["audit", str(changing), "--views", str(moco), "--output_dir", str(tmp_path / "AUDIT")]) == 2
    assert "whose negatives are the queue, found none: give its length and one more" in capsys.readouterr().err
    assert audit(changing, moco, tmp_path / "AUDIT", "--batch_size", "9", "--balance") == 2
    assert "expected shuffled batches for a method with a queue" in (said := capsys.readouterr().err)
    assert "give --balance False" in said


def test_batches_that_a_training_refuses_and_remedies_are_said(
    changing: Path, simclr_views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "mask.json"
    overlay.write_text(json.dumps({"near_copies": "mask", "balance": True, "volumes_per_batch": 5, "batch_size": 30}))
    assert read_views([simclr_views, overlay]).remedies == ("near_copies mask",)
    assert audit(changing, simclr_views, tmp_path / "AUDIT", "--views", simclr_views, overlay, "--batch_size", 30) == 0
    about = json.loads((tmp_path / "AUDIT" / "audit.json").read_text())
    assert about["batches"] == {"batch_size": 30, "balance": True, "volumes_per_batch": 5}
    everything, hash3 = about["negatives"]
    assert everything["refused"] == ""
    assert "expected 6 slices or more of every volume for balance" in hash3["refused"]
    assert "hash3 (cannot be trained in such batches)" in capsys.readouterr().out
    page = (tmp_path / "AUDIT" / "audit.html").read_text(encoding="utf-8")
    assert "batches of 30, 5 volumes in turn" in page
    assert "The configuration has near_copies mask, which keeps near copies from each other" in page
    for row in about["negatives"]:
        assert all(0 <= near["at_least_one"] <= 1 for near in row["near"])
    given = ("--views", simclr_views, overlay, "--batch_size", 30, "--balance", False)
    assert audit(changing, simclr_views, tmp_path / "SHUFFLED", *given) == 0  # as if the overlay did not say it
    about = json.loads((tmp_path / "SHUFFLED" / "audit.json").read_text())
    assert about["batches"] == {"batch_size": 30, "balance": False, "volumes_per_batch": None}
    assert [row["refused"] for row in about["negatives"]] == ["", ""]


def test_an_output_that_lacks_slices(
    changing: Path, simclr_views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(tmp_path / "nothing", simclr_views, tmp_path / "AUDIT") == 2
    assert "expected the output folder of a finished `reduce`" in capsys.readouterr().err
    data, out = changing.parent / "data", tmp_path / "OUT"
    assert main(["reduce", str(data), "--output_dir", str(out), "--threshold", "6", "--no_report"]) == 0
    assert audit(out, simclr_views, tmp_path / "AUDIT") == 2
    assert "that keeps every slice, found none: `select" in capsys.readouterr().err
    assert main(["select", str(out), "--method", "all", "--name", "all"]) == 0
    assert audit(out, simclr_views, tmp_path / "AUDIT") == 2
    assert "of 40 are not there: `select" in capsys.readouterr().err
    shutil.rmtree(out)
