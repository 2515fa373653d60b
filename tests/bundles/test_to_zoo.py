"""Bundles in a checkout of the model zoo: what is put there, its lists, its unit tests and its style."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import to_zoo
from helpers import BUNDLES, ROOT, bundle_environment, bundles
from warm_python import warm_run

UTILS = """
def check_workflow(workflow, check_properties=False):
    workflow.initialize()
    assert not check_properties or workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
"""  # what the zoo's ci/unit_tests/utils.py does
CHECKS = {  # the zoo's runtests.sh, setup.cfg and pyproject.toml
    "isort": "--profile black --line-length 120 --check",
    "black": "--line-length 120 --skip-magic-trailing-comma --target-version py37 --target-version py38 --check",
    "flake8": "--isolated --select B,C,E,F,N,P,T4,W,B9 --max-line-length 120 --per-file-ignores __init__.py:F401 "
    "--ignore E203,E501,E741,W503,W504,C408,N812,B023,B905,B028,B907,C419",
}


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """An empty model zoo."""
    (tmp_path / "ci" / "unit_tests").mkdir(parents=True)
    (tmp_path / "ci" / "bundle_custom_data.py").touch()
    (tmp_path / "ci" / "unit_tests" / "utils.py").write_text(UTILS)
    return tmp_path


def test_a_bundle_is_put_there_once(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for bundle, lists in (("ct_swav_pretraining", ["preferred_files", "torchscript"]),
                          ("ct_slice_reduction", ["preferred_files", "torchscript", "shape"])):  # fmt: skip
        assert to_zoo.main([bundle, str(zoo)]) == 0
        said = capsys.readouterr().out.splitlines()[1:]
        assert said == [f"- exclude_verify_{name}_list" for name in lists]
        assert (zoo / "models" / bundle / "configs" / "inference.json").read_bytes() == (
            BUNDLES / bundle / "configs" / "inference.json"
        ).read_bytes()
        assert to_zoo.main([bundle, str(zoo)]) == 2
        assert "expected nothing there yet, found" in capsys.readouterr().err
    (zoo / "models" / bundle / "models").mkdir()
    (zoo / "models" / bundle / "models" / "model.pt").touch()
    assert to_zoo.lists_of(zoo / "models" / bundle) == []


@pytest.mark.parametrize(
    ("bundle", "sentence"),
    [
        ("ct_swav", "found 'ct_swav': name one of these"),
        ("ct_swav_pretraining", "found no ci/bundle_custom_data.py in"),
    ],
)
def test_mistakes_are_one_sentence(
    bundle: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert to_zoo.main([bundle, str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_no_metrics_of_weights_that_are_not_shipped() -> None:
    for bundle in bundles():
        metadata = (BUNDLES / bundle / "configs" / "metadata.json").read_text()
        assert (BUNDLES / bundle / "models").exists() or '"eval_metrics": {},' in metadata


def test_pages_have_the_headings_of_the_zoos_template() -> None:
    headings = ["### **Authors**", "### **Tags**", "## **Model Description**", "## **Data**", "#### **Preprocessing**"]
    headings += ["## **Performance**", "## **System Configuration**", "## **Limitations**", "## **Citation Info**"]
    headings += ["## **References**"]
    for bundle in bundles():
        lines = (BUNDLES / bundle / "docs" / "README.md").read_text().splitlines()
        assert [line for line in lines if line in headings] == headings, bundle


def run_unit_test(bundle: str, zoo: Path) -> None:
    """Run the bundle's unit test as the zoo's runner does: from its root, with nothing but that on the path."""
    assert to_zoo.main([bundle, str(zoo)]) == 0
    path = os.pathsep.join([str(zoo / "ci" / "unit_tests"), str(zoo), str(ROOT)])
    environment = {**bundle_environment(), "PYTHONPATH": path}
    done = warm_run(["-m", "unittest", f"test_{bundle}"], cwd=zoo, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Ran 1 test" in done.stderr


@pytest.mark.slow  # all of it is run by other tests too
@pytest.mark.parametrize("bundle", bundles())
def test_unit_tests_pass(bundle: str, zoo: Path) -> None:
    run_unit_test(bundle, zoo)


@pytest.mark.parametrize("tool", CHECKS)
def test_code_has_the_zoos_style(tool: str, zoo: Path) -> None:
    pytest.importorskip(tool, reason="checks the style of the model zoo")
    for bundle in bundles():
        for path in BUNDLES.glob(f"{bundle}/*/*.py"):
            target = zoo / "models" / path.relative_to(BUNDLES)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (zoo / "ci" / "unit_tests" / f"test_{bundle}.py").write_text(to_zoo.unit_test(bundle))
    (zoo / "ci" / "unit_tests" / "utils.py").unlink()
    line = [sys.executable, "-m", tool, *CHECKS[tool].split(), "."]
    done = subprocess.run(line, cwd=zoo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
