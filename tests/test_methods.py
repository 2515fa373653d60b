"""The rows of methods and tasks: what they say is so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import BUNDLES, bundles, method_files, tiny_settings

from lessismore_transforms.classification.paper import paper_rows, paper_settings
from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.errors import UserError
from lessismore_transforms.methods import METHODS, TITLES, method_of


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("swav", "swav"),
        ("SwAV", "swav"),
        ("MoCoV2", "moco"),
        ("moco_v2", "moco"),
        ("Spar-K", "spark"),
        ("BYOL", "byol"),
        ("DCLW", "dclw"),
        ("VICReg", "vicreg"),
    ],
)
def test_a_method_is_found_however_it_is_spelt(text: str, name: str) -> None:
    assert method_of(text) is METHODS[name]


def test_every_name_and_title_is_found() -> None:
    for name, title in TITLES.items():
        assert method_of(name) is method_of(title) is METHODS[name]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("SvaV", "did you mean swav?"),  # with which the published notebook went on with random weights
        ("rotation", "leave it out to take what the file holds"),
    ],
)
def test_an_unknown_method_is_one_sentence(text: str, advice: str) -> None:
    with pytest.raises(UserError) as caught:
        method_of(text)
    assert str(caught.value) == f"expected a method out of {', '.join(METHODS)}, found {text!r}; {advice}"


def test_each_pretraining_bundle_is_in_one_row_and_says_its_method() -> None:
    rows = [method for method in METHODS.values() if method.bundle]
    assert sorted(method.bundle for method in rows if not method.overlay) == bundles("pretraining")
    for method in rows:
        if not method.overlay:
            assert method.bundle == f"ct_{method.name}_pretraining"
        last = method_files(method.name)[-1]
        assert f'"method": "{method.name}"' in Path(last).read_text()


def test_each_method_with_a_bundle_can_be_made_tiny() -> None:
    for name, settings in tiny_settings().items():
        train = json.loads(Path(method_files(name)[0]).read_text())
        assert settings
        assert settings.keys() <= train.keys()


def test_the_paper_has_the_methods_whose_rows_say_so() -> None:
    found = {setting.ssl_method for setting in paper_settings()} - {"none"}
    assert found == {method.title for method in METHODS.values() if method.paper} == {"SwAV", "MoCoV2", "SparK"}


def test_no_layout_is_mistaken_for_another() -> None:
    marks = [method.layout.mark for method in METHODS.values() if method.layout]
    for mark in marks:
        assert [other for other in marks if other.startswith(mark)] == [mark]


def test_each_classification_bundle_is_in_one_row() -> None:
    assert sorted(task.bundle for task in TASKS.values()) == bundles("classification")
    assert {name for name, task in TASKS.items() if task.paper} == {row.task for row in paper_rows(4)}
    for name, task in TASKS.items():
        folder = BUNDLES / task.bundle
        assert f'"{name}",' in (folder / "scripts" / "examples.py").read_text()
        assert ("fold" in json.loads((folder / "configs" / "train.json").read_text())) == task.folds
        metadata = json.loads((folder / "configs" / "metadata.json").read_text())
        assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == task.classes
