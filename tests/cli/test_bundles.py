"""Where bundles are: in a checkout, in an installed wheel, and in a folder of one's own."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import BUNDLES, ROOT, bundles, tree

from lessismore_transforms.cli.main import main

OWN = ("LICENSE", "configs", "docs", "scripts")


def own_files(folder: Path) -> dict[str, bytes]:
    """Every file of a bundle that travels."""
    return {
        name: content
        for name, content in tree(folder).items()
        if name.split("/")[0] in OWN and "__pycache__" not in name
    }


def test_bundles_are_told_and_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundles"]) == 0
    told = [line.rsplit("  ", 1)[-1] for line in capsys.readouterr().out.splitlines()]
    assert told == [str(BUNDLES / name) for name in bundles()]
    some = ["ct_swav_pretraining", "covid19_ct_classification"]
    assert main(["bundles", "--output_dir", str(tmp_path / "own"), *some]) == 0
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == sorted(some)
    for name in some:
        assert tree(tmp_path / "own" / name) == own_files(BUNDLES / name)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ct_swav"], "expected bundles out of brain_hemorrhage_ct_classification, "),
        (["ct_swav_pretraining", "--output_dir", "here"], "expected no ct_swav_pretraining in here yet, found one: "),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here" / "ct_swav_pretraining").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert main(["bundles", *arguments]) == 2
    assert f"error: {sentence}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a wheel was unpacked into, as pip does."""
    pytest.importorskip("hatchling", reason="builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *arguments: object) -> str:
    """What a module of the unpacked wheel prints."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bundles_travel_in_the_wheel(site: Path, tmp_path: Path) -> None:
    shipped = site / "lessismore_transforms" / "shipped_bundles"
    told = [
        line.split("  ")[-1].strip() for line in run(site, tmp_path, "lessismore_transforms", "bundles").splitlines()
    ]
    assert told == [str(shipped / name) for name in bundles()]
    assert {path.name for path in shipped.iterdir()} == set(bundles())
    for name in bundles():
        assert tree(shipped / name) == own_files(BUNDLES / name)


def test_the_readme_of_the_package_leads_nowhere_wrong(site: Path) -> None:
    """A wheel that was built without a URL has no picture and no link to a file; one with a URL has absolute ones."""
    (metadata,) = site.glob("*.dist-info/METADATA")
    text = metadata.read_text(encoding="utf-8")
    assert "![" not in text
    assert re.findall(r"\]\((?!https://)", text) == []
    outside = runpy.run_path(str(ROOT / "hatch_build.py"))["outside"]
    assert outside("![a](b/c.png)\n\n[d](e.md) [f](https://g) [h](#i)", "https://j/") == (
        "![a](https://j/b/c.png)\n\n[d](https://j/e.md) [f](https://g) [h](#i)"
    )


@pytest.mark.slow  # kernels are compiled anew in a new place
def test_a_copy_from_the_wheel_runs(site: Path, tmp_path: Path, small_data: Path) -> None:
    run(site, tmp_path, "lessismore_transforms", "bundles", "--output_dir", "own", "ct_slice_reduction")
    config = "own/ct_slice_reduction/configs/inference.json"
    given = ["--dataset_dir", small_data, "--output_dir", "out", "--workers", 0, "--no_report", "True"]
    assert "4 volumes, 96 slices: kept" in run(site, tmp_path, "monai.bundle", "run", "--config_file", config, *given)
