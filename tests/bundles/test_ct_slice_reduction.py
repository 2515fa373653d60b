"""The reduction bundle: the same bytes as the command line, mistakes in one sentence, the zoo's rules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, bundle_environment
from monai.bundle import ConfigWorkflow
from warm_python import warm_run

from lessismore_transforms.cli.main import main
from lessismore_transforms.cli.reduce import Reduce
from lessismore_transforms.options import options_of
from lessismore_transforms.phantom import phantom_scan, write_dicom, write_nifti

BUNDLE = ROOT / "bundles" / "ct_slice_reduction"
CONFIG = BUNDLE / "configs" / "inference.json"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a data set of two volumes and a patient key."""
    folder = tmp_path_factory.mktemp("bundle")
    write_nifti(phantom_scan(0, slices=8, size=32, slice_spacing_mm=4), folder / "data" / "a" / "ct.nii.gz")
    write_dicom(phantom_scan(1, slices=8, size=32, slice_spacing_mm=4), folder / "data" / "b" / "series")
    (folder / "key").write_text("only for tests, no secret")
    return folder


def run_bundle(place, *overrides, anew=False):
    """`python -m monai.bundle run` from another folder than the bundle's, relative paths."""
    line = ["-m", "monai.bundle", "run", "--config_file", str(CONFIG), "--dataset_dir", "data"]
    line += ["--patient_key", "key", "--workers", "0", *overrides]
    options = {"cwd": place, "env": bundle_environment()}
    if not anew:
        return warm_run(line, **options)
    return subprocess.run([sys.executable, *line], **options, capture_output=True, text=True, timeout=300, check=False)


def test_same_bytes_as_the_command_line(place, monkeypatch):
    overrides = "--output_dir bundle --threshold 12 --rule pairs --window 40/400 --include ['ct.nii.gz','*.dcm']"
    overrides += " --keep_patient_ids true --strict False --png_dir bundle_png"
    done = run_bundle(place, *overrides.split(), anew=True)
    assert done.returncode == 0, done.stderr
    assert "2 volumes, 16 slices: kept" in done.stdout
    assert "Traceback" not in done.stderr
    monkeypatch.chdir(place)
    arguments = "reduce data --output_dir line --threshold 12 --rule pairs --window 40/400 --include ct.nii.gz"
    arguments += " --include *.dcm --keep_patient_ids --png line_png --workers 0 --patient_key key"
    assert main(arguments.split()) == 0
    for ours, lines in (("bundle", "line"), ("bundle_png", "line_png")):
        files = sorted(path.relative_to(ours) for path in Path(ours).rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(lines) for path in Path(lines).rglob("*") if path.is_file())
        for file in files:
            if file.name not in ("run.jsonl", "report.html"):
                assert (ours / file).read_bytes() == (lines / file).read_bytes(), file
    assert (place / "bundle" / "report.html").is_file()
    kept = json.loads((place / "bundle" / "selections" / "default.json").read_text())
    assert 2 <= kept["kept"] < 16


def test_another_method_gives_the_same_manifest(place, monkeypatch):
    amount = "--method ssim --fraction 0.5"
    done = run_bundle(place, *f"--output_dir bundle_ssim --no_report true {amount}".split())
    assert done.returncode == 0, done.stderr
    assert "2 volumes, 16 slices: kept 8 (50.0 %), SSIM to 0.5 of each volume" in done.stdout
    monkeypatch.chdir(place)
    arguments = f"reduce data --output_dir line_ssim --no_report {amount} --workers 0 --patient_key key"
    assert main(arguments.split()) == 0
    for name in ("manifest.csv", "manifest.json", "selections/default.csv", "selections/default.json"):
        assert (place / "bundle_ssim" / name).read_bytes() == (place / "line_ssim" / name).read_bytes(), name
    assert not (place / "bundle_ssim" / "report.html").exists()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["--treshold", "3"], "error: the bundle has no setting 'treshold': the closest one is 'threshold'"),
        (["--fraction", "2"], "error: expected a fraction above 0 and up to 1, found 2"),
    ],
)
def test_a_mistake_is_one_sentence(place, overrides, sentence):
    done = run_bundle(place, "--output_dir", "refused", *overrides)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == sentence
    assert "Traceback" not in done.stderr
    assert not (place / "refused").exists()


def test_config_workflow(place, capsys):
    def workflow(**overrides):
        return ConfigWorkflow(
            str(CONFIG),
            logging_file=False,
            dataset_dir=str(place / "data"),
            output_dir=str(place / "python"),
            **overrides,
        )

    good = workflow(workers=0, dry_run=True)
    good.initialize()
    good.run()
    good.finalize()
    assert "2 volumes, 16 slices" in capsys.readouterr().out
    assert not (place / "python").exists()
    with pytest.raises(SystemExit) as stopped:
        workflow(worker=0).initialize()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: the bundle has no setting 'worker': the closest one is 'workers'\n"


def settings() -> dict[str, Any]:
    """What stands at the top of the configuration for users, by the name of the option."""
    config = json.loads(CONFIG.read_text())
    own = {name: value for name, value in config.items() if name not in ("imports", "bundle_root", "initialize", "run")}
    return {"png" if name == "png_dir" else name: value for name, value in own.items()}


def test_the_settings_are_the_options_of_the_command_with_their_defaults():
    options = {each.name: each for each in options_of(Reduce)}
    assert set(settings()) == set(options)
    for name, value in settings().items():
        if name not in ("dataset_dir", "output_dir"):
            default = options[name].default
            assert value == (None if default == () else default), name
            assert isinstance(value, bool) == isinstance(default, bool), name


def test_every_setting_is_in_the_readme_with_its_default():
    rows = re.findall(r"(?m)^\| `(\w+)` \| (.+?) \| (.+) \|$", (BUNDLE / "docs" / "README.md").read_text())
    table = {"png" if name == "png_dir" else name: default for name, default, _ in rows}
    assert set(settings()) <= set(table)
    for name, value in settings().items():
        shown = table[name].strip("`")
        if name == "output_dir":
            assert shown == "<bundle_root>/eval"
        elif value is None:  # what it then is depends on the method or the machine
            assert shown not in ("", "None", "null")
        else:
            assert shown == (str(value).lower() if isinstance(value, bool) else str(value)), name


def test_configurations_are_laid_out_evenly():
    for path in BUNDLE.glob("configs/*.json"):
        assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=4) + "\n"
