"""What holds for the configurations of every bundle: short, without references by position, alike in a family."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import BUNDLES, bundle_scripts, bundles

OF_DATA = {  # what a data set decides
    "run_index", "fold", "folds", "repeat", "validation", "split_seed", "protocol", "grouped", "head",
    "near_duplicates", "window", "task", "labels", "label_column", "group_column", "magnification", "unit", "size",
    "npz", "classes", "md5", "download", "channels", "flip", "positive",
}  # fmt: skip
SHARED_SETTINGS = "$lm.read_settings('lessismore_transforms.classification.settings.ClassificationSettings')"
MOST_LINES = {"pretraining": 120, "classification": 130}


def contents(bundle: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((BUNDLES / bundle / "configs" / name).read_text())
    return content


def by_position(text: str) -> list[str]:
    """References to an element of a list by its number, such as `@train#handlers#6`."""
    return re.findall(r"[@%][\w.]+(?:(?:#|::)\w+)*(?:#|::)\d+\b", text)


def test_references_by_position_are_seen() -> None:
    assert by_position('"best": "@train#handlers#4", "a": "@plan", "b": "$@table[0]"') == ["@train#handlers#4"]
    assert by_position("$@train::handlers::9.bytes_to_come(3)") == ["@train::handlers::9"]


@pytest.mark.parametrize(
    "path", sorted(BUNDLES.glob("*/configs/*.json")), ids=lambda p: f"{p.parents[1].name}-{p.stem}"
)
def test_nothing_is_referred_to_by_its_position(path: Path) -> None:
    assert by_position(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("family", sorted(MOST_LINES))
def test_a_training_is_configured_on_a_page(family: str) -> None:
    lines = {
        bundle: len((BUNDLES / bundle / "configs" / "train.json").read_text().splitlines())
        for bundle in bundles(family)
    }
    assert lines
    assert {bundle: count for bundle, count in lines.items() if count > MOST_LINES[family]} == {}


def test_the_trainings_of_a_family_are_wired_alike() -> None:
    for family, own in (
        ("pretraining", {"method", "image_size"}),
        ("classification", set()),
    ):
        trainers = []
        for bundle in bundles(family):
            trainer = contents(bundle, "train.json")["train"]["trainer"]
            trainers.append({name: value for name, value in trainer.items() if name not in own})
        assert all(trainer == trainers[0] for trainer in trainers)
        assert {"max_epochs", "train_handlers", "settings", "configuration"} <= trainers[0].keys()


def test_the_evaluations_of_classifiers_differ_in_their_data_alone() -> None:
    rest = []
    for bundle in bundles("classification"):
        content = contents(bundle, "evaluate.json")
        rest.append({name: value for name, value in content.items() if name not in OF_DATA})
    assert all(content == rest[0] for content in rest)


def test_the_trainings_of_classifiers_differ_in_their_data_alone() -> None:
    """All is written once: the bundle of own slices with another listing."""
    rest = []
    for bundle in bundles("classification"):
        content = contents(bundle, "train.json")
        content["network_def"].pop("head", None)
        classes = contents(bundle, "inference.json")["defaults"]["classes"]
        output = contents(bundle, "metadata.json")["network_data_format"]["outputs"]["pred"]
        assert content["network_def"].pop("classes") == len(classes) == output["num_channels"]
        kept = {name: value for name, value in content.items() if name not in OF_DATA}
        assert kept.pop("dataset_dir") == f"/workspace/data/{bundle}"
        assert kept.pop("settings") in ("$lm.read_settings('scripts.Settings')", SHARED_SETTINGS)
        listing = kept.pop("listing")
        assert listing["_target_"] == "scripts.listing"
        assert set(re.findall(r"@(?:settings\.)?(\w+)", " ".join(listing.values()))) <= content.keys()
        rest.append(kept)
    assert all(content == rest[0] for content in rest)


@pytest.mark.parametrize("bundle", bundles())
def test_no_file_of_a_bundle_hides_what_its_scripts_offer(bundle: str) -> None:
    """`scripts.listing` would be the module to Python 3.13, and the function of that name to those before."""
    folder = BUNDLES / bundle / "scripts"
    if folder.is_dir():
        files = {path.stem for path in folder.glob("[a-z]*.py")}
        assert not files & set(bundle_scripts(bundle).__all__)


def test_batch_norms_of_several_gpus() -> None:
    """Synchronised, they would undo the shuffling of MoCo's keys; SparK's take the statistics of all by themselves."""
    apart = set()
    for bundle in bundles("pretraining") + bundles("classification"):
        content = contents(bundle, "multi_gpu_train.json")
        assert content["placed"].endswith(", sync_batch_norm=@sync_batch_norm)")
        apart |= set() if content["sync_batch_norm"] else {bundle}
    assert apart == {"ct_moco_pretraining", "ct_spark_pretraining"}
