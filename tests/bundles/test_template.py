"""Shared files equal the template, and a new bundle starts with all of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jsonschema
import new_bundle
import pytest
import shared_files
from helpers import BUNDLES, ROOT, bundles
from shared_files import TEMPLATE, differing, parts_of, unwritten, update

from lessismore_transforms.errors import UserError
from lessismore_transforms.methods import METHODS, Method

SCHEMA = ROOT / "lessismore_transforms" / "sharing" / "meta_schema_20240725.json"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of a bundle, to be changed."""
    return Path(shutil.copytree(BUNDLES / "ct_moco_pretraining", tmp_path / "ct_moco_pretraining"))


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")


# All bundles.


@pytest.mark.parametrize("bundle", bundles())
def test_shared_files_are_as_the_template_has_them(bundle: str) -> None:
    assert differing(BUNDLES / bundle) == [], "edit the template, then run scripts/new_bundle.py --update"
    assert unwritten(BUNDLES / bundle) == []


def test_what_is_shared() -> None:
    every = {"LICENSE", "configs/logging.conf", "configs/metadata.json"}
    family = {"configs/inference.json", "configs/multi_gpu_train.json", "docs/README.md", "docs/data_license.txt"}
    assert set(shared_files.shared_files("ct_slice_reduction")) == every
    assert (
        set(shared_files.shared_files("ct_swav_pretraining"))
        == set(shared_files.shared_files("covid19_ct_classification"))
        == every | family
    )
    assert (TEMPLATE / "all" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_both_families_cite_the_paper_alike() -> None:
    readmes = [(TEMPLATE / family / "docs" / "README.md").read_text() for family in shared_files.FAMILIES]
    first, second = (parts_of(readme)["citation"] for readme in readmes)
    assert first == second
    assert "doi={10.1016/j.compbiomed.2024.109242}" in first


def test_the_check_of_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, copied: Path) -> None:
    assert new_bundle.main(["--check"]) == 0
    assert capsys.readouterr().out == "all shared files are as the template has them\n"
    change(copied / "configs" / "inference.json", '"format": "csv"', '"format": "npy"')
    assert new_bundle.main(["--check", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith(
        "ct_moco_pretraining/configs/inference.json is not as the template has it"
    )
    assert new_bundle.main(["--update", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "written: ct_moco_pretraining/configs/inference.json\n"
    assert new_bundle.main(["--update", "--folder", str(tmp_path)]) == 0


# What is shared of a file, and what is not.

CHANGED = {
    "a file that is shared whole": ("LICENSE", "Apache License\n", "Licence\n"),
    "a value of JSON": ("configs/inference.json", '"selection": "default"', '"selection": "other"'),
    "a place named after the bundle": ("configs/inference.json", "ct_moco_pretraining", "ct_swav_pretraining"),
    "a version": ("configs/metadata.json", '"timm": "', '"timm": "9'),
    "a part of the README": ("docs/README.md", "# one embedding per picture", "# embeddings"),
    "a cell of a shared row": ("docs/README.md", "how often each slice is seen", "epochs"),
    "a row that is gone": ("docs/README.md", "| `compile` | `false` | `torch.compile` |\n", ""),
}


@pytest.mark.parametrize(("path", "before", "after"), CHANGED.values(), ids=CHANGED)
def test_what_is_shared_comes_back(path: str, before: str, after: str, copied: Path) -> None:
    change(copied / path, before, after)
    assert differing(copied) == [path]
    assert update(copied) == [path]
    assert (copied / path).read_bytes() == (BUNDLES / copied.name / path).read_bytes()
    assert differing(copied) == []


OWN = {
    "text outside of the marks": ("docs/README.md", "# CT MoCo v2 pre-training", "# MoCo"),
    "a row of the bundle": (
        "docs/README.md",
        "share of itself that the key encoder keeps",
        "what the key encoder keeps",
    ),
    "a cell that the template leaves": ("docs/README.md", "| `batch_size` | 64 |", "| `batch_size` | 65 |"),
    "a value that the template leaves": ("configs/metadata.json", '"version": "0.2.0"', '"version": "0.3.0"'),
}


@pytest.mark.parametrize(("path", "before", "after"), OWN.values(), ids=OWN)
def test_what_is_the_bundles_own_stays(path: str, before: str, after: str, copied: Path) -> None:
    change(copied / path, before, after)
    assert update(copied) == []
    assert after in (copied / path).read_text()


def test_a_shared_file_that_is_absent_is_written(copied: Path) -> None:
    (copied / "LICENSE").unlink()
    assert update(copied) == ["LICENSE"]
    assert (copied / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_own_paragraphs_stay_between_shared_ones(tmp_path: Path) -> None:
    name = "covid19_ct_classification"
    copied = Path(shutil.copytree(BUNDLES / name, tmp_path / name))
    path = copied / "docs" / "data_license.txt"
    before = path.read_text()
    path.write_text(before.replace("This bundle comes", "It comes").replace("states no licence", "has none"))
    assert update(copied) == ["docs/data_license.txt"]
    assert path.read_text() == before.replace("states no licence", "has none")


def test_values_of_a_mark_are_filled_in(tmp_path: Path) -> None:
    name = "covid19_ct_classification"
    copied = Path(shutil.copytree(BUNDLES / name, tmp_path / name))
    change(
        copied / "docs" / "README.md",
        "<!-- shared: commands data=COVID -->",
        '<!-- shared: commands data="MY DATA" -->',
    )
    assert update(copied) == ["docs/README.md"]
    part = parts_of((copied / "docs" / "README.md").read_text())["commands"]
    assert part.count("--dataset_dir MY DATA ") == 7
    assert "COVID" not in part


def test_a_new_method_reaches_the_documentation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(METHODS, "rotation", Method("rotation", "RotNet", paper=True))
    name = "covid19_ct_classification"
    copied = Path(shutil.copytree(BUNDLES / name, tmp_path / name))
    assert update(copied) == ["docs/README.md"]
    text = (copied / "docs" / "README.md").read_text()
    assert " or `rotation`; none takes any" in text
    assert ", `RotNet`; told by the weights" in text


MISTAKES = {
    "a part is gone": ("<!-- shared: data -->\n", "", "a shared part 'data', found none: add <!-- shared: data -->"),
    "a part of another name": ("shared: data -->", "shared: date -->", "expected a shared part 'data', found none"),
    "a value is gone": (
        "commands data=COVID",
        "commands",
        "expected a value of data, found none: give one in the mark",
    ),
    "an own row is gone": ("`flip`", "`flop`", "expected own cells in a row '`flip`' of the table, found no such row"),
}


@pytest.mark.parametrize(("before", "after", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_marks_is_one_sentence(
    before: str, after: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "covid19_ct_classification"
    copied = Path(shutil.copytree(BUNDLES / name, tmp_path / name))
    change(copied / "docs" / "README.md", before, after)
    assert new_bundle.main(["--check", "--folder", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}/docs/README.md: ")
    assert sentence in error
    assert error.count("\n") == 1


# A new bundle.


def made(folder: Path, *arguments: str) -> Path:
    assert new_bundle.main([*arguments, "--folder", str(folder)]) == 0
    return folder / arguments[0]


@pytest.mark.parametrize("like", bundles("pretraining"))
def test_a_new_pretraining_bundle(
    like: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(METHODS, "rotation", Method("rotation", "RotNet"))
    folder = made(tmp_path, "ct_rotation_pretraining", "--like", like)
    said = capsys.readouterr().out
    assert f"started {folder}; what remains:" in said
    for step in ("scripts/rotation.py", "test_rotation_method.py", "bundle='ct_rotation_pretraining'", "--check"):
        assert step in said
    check_files(folder)
    config = {path.name: path.read_text() for path in folder.glob("configs/*.json")}
    for text in config.values():
        assert like not in text
    assert '"method": "rotation"' in config["train.json"]
    assert json.loads(config["train.json"])["dataset_dir"] == "/workspace/data/ct_rotation_pretraining"
    method = next(row for row in METHODS.values() if row.bundle == like)
    assert not re.search(rf'"{method.name}"', config["train.json"])
    assert json.loads(config["metadata.json"])["name"] == "CT RotNet pre-training"
    page = (folder / "scripts" / "rotation.py").read_text()
    compile(page, "rotation.py", "exec")
    settings = (folder / "scripts" / "settings.py").read_text()
    assert re.search(r"class Settings\((Pretraining|Contrastive)Settings\):", settings)
    assert (
        (folder / "scripts" / "__init__.py")
        .read_text()
        .endswith(
            "from .rotation import RotNet, RotNetLoss\nfrom .settings import Settings\n\n"
            '__all__ = ["RotNet", "RotNetLoss", "Settings"]\n'
        )
    )
    assert "class RotNet(nn.Module):" in page
    assert "network(views, index=index)" in page
    assert "class RotNetLoss(nn.Module):" in page
    assert unwritten(folder) == ["configs/metadata.json", "docs/README.md", "scripts/rotation.py"]


def test_handlers_of_the_other_method_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, "ct_rotation_pretraining", "--title", "RotNet")
    assert "above all scripts.FreezePrototypes, scripts.StartQueue, scripts.chance_loss\n" in capsys.readouterr().out


@pytest.mark.parametrize("like", bundles("classification"))
def test_a_new_classification_bundle(like: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path, "chest_classification", "--title", "Chest", "--like", like)
    assert "scripts/examples.py" in capsys.readouterr().out
    check_files(folder)
    for path in folder.glob("configs/*.json"):
        assert like not in path.read_text()
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert (metadata["name"], metadata["version"]) == ("Chest classification", "0.1.0")
    compile((folder / "scripts" / "examples.py").read_text(), "examples.py", "exec")
    assert "docs/data_license.txt" in unwritten(folder)


def check_files(folder: Path) -> None:
    """A new bundle has the files that the zoo wants, and its shared parts are those of the others."""
    assert differing(folder) == []
    jsonschema.validate(json.loads((folder / "configs" / "metadata.json").read_text()), json.loads(SCHEMA.read_text()))
    for path in ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf", "scripts/__init__.py"):
        assert (folder / path).stat().st_size, path
    readme = (folder / "docs" / "README.md").read_text()
    family = shared_files.family_of(folder.name)
    assert family
    template = parts_of((TEMPLATE / family / "docs" / "README.md").read_text())
    assert parts_of(readme).keys() == template.keys()
    for name in ("torchscript", "limitations", "citation", "license"):  # nothing is filled into these
        assert parts_of(readme)[name] == template[name]
    told = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", readme, re.MULTILINE))
    for name, value in new_bundle.settings_of(json.loads((folder / "configs" / "train.json").read_text())).items():
        assert told[name] == new_bundle.as_documented(value) or value is None, name
    assert not re.search(r"\{\{\w+\}\}", "".join(path.read_text() for path in folder.rglob("*") if path.is_file()))


REFUSED = {
    "no name": ([], "ends with _pretraining or _classification, found nothing"),
    "no family": (["ct_rotation"], "ends with _pretraining or _classification, found ct_rotation"),
    "capitals": (["CT_pretraining"], "a name of small letters, digits and _ that ends with"),
    "a path": (["../ct_x_pretraining"], "a name of small letters, digits and _ that ends with"),
    "no ct_": (["rotation_pretraining"], "expected ct_METHOD_pretraining, found 'rotation_pretraining'"),
    "there already": (["ct_swav_pretraining"], "ct_swav_pretraining: choose another name, or delete it"),
    "unknown model": (["ct_x_pretraining", "--like", "x"], "expected --like out of ct_byol_pretraining, ct_moco_"),
    "model of another family": (
        ["ct_x_pretraining", "--like", "covid19_ct_classification"],
        "expected --like out of ct_",
    ),
    "no row": (["ct_x_pretraining"], "a row in lessismore_transforms/methods.py, or --title for ct_x_pretraining"),
    "no title": (["x_classification"], "expected --title for x_classification, found none: add one"),
}


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_started_is_refused_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(BUNDLES.iterdir())
    assert new_bundle.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert sorted(BUNDLES.iterdir()) == before


def test_a_placeholder_without_a_value_is_refused() -> None:
    with pytest.raises(UserError, match="expected a value of colour, found none"):
        shared_files.filled("{{own}} {{colour}}", {"bundle": "x"})
    assert shared_files.filled("{{own}} of {{bundle}}", {"bundle": "x"}) == "{{own}} of x"
