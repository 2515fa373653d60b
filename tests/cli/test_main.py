"""The command line, in processes of its own where exit codes and imports matter."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT, tree

from lessismore_transforms.cli import main as command_line
from lessismore_transforms.cli.main import COMMANDS, main
from lessismore_transforms.errors import UserError
from lessismore_transforms.phantom import phantom_scan, write_nifti
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.selection import Selection


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_reduce_select_report(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code, text, _ = run(capsys, "reduce", small_data, "--output_dir", out, "--workers", 0)
    assert code == 0
    kept = len(Selection.read(out).kept_ids)
    assert f"4 volumes, 96 slices: kept {kept} ({100 * kept / 96:.1f} %), HASH at 6 bits, rule exemplars" in text
    assert f"skipped 1 file without CT slices: listed with reasons in {out}/manifest.json" in text
    assert (out / "report.html").is_file()

    before = tree(out)
    code, text, _ = run(capsys, "select", out, "--threshold", 2, "--name", "hash2")
    chosen = Selection.read(out, "hash2")
    assert code == 0
    assert f"selection hash2: kept {len(chosen.kept_ids)} of 96 slices" in text
    lacking = int(re.search(r"the store lacks (\d+) of them", text)[1])
    assert {name: tree(out)[name] for name in before} == before
    _, text, _ = run(capsys, "select", out, "--threshold", 2, "--name", "hash2", "--fill_store")
    assert f"added to the store: {lacking} slices" in text

    (out / "report.html").unlink()
    assert run(capsys, "report", out, "--selection", "hash2")[0] == 0
    assert (out / "report.html").is_file()


def test_fraction_and_dry_run(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ("reduce", small_data, "--output_dir", out, "--workers", 0, "--no_report", "--fraction", 0.1)
    code, text, _ = run(capsys, *arguments, "--dry_run")
    assert code == 0
    assert text.startswith("4 volumes, 96 slices (1 other file)")
    assert not out.exists()
    assert run(capsys, *arguments)[0] == 0
    selection = Selection.read(out).slices["kept"]
    assert [int(selection[rows.index].sum()) for _, rows in Manifest.read(out).by_volume()] == [2, 2, 2, 2]


def test_a_broken_volume_gives_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nifti(phantom_scan(0, slices=6, size=32), tmp_path / "data" / "good" / "ct.nii.gz")
    broken = write_nifti(phantom_scan(1, slices=6, size=32), tmp_path / "data" / "broken" / "ct.nii.gz")
    broken.write_bytes(broken.read_bytes()[:-50])
    arguments = ("reduce", tmp_path / "data", "--workers", 0, "--no_report")
    code, text, errors = run(capsys, *arguments, "--output_dir", tmp_path / "out")
    assert code == 1
    assert text.startswith("1 volume, 6 slices: kept ")
    assert "failed: broken/ct.nii.gz: the file is truncated" in errors
    code, _, errors = run(capsys, *arguments, "--output_dir", tmp_path / "strict", "--strict")
    assert code == 2
    assert errors.splitlines()[-1].startswith("error: broken/ct.nii.gz: the file is truncated")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("reduce", "{data}/nothing", "--output_dir", "{out}"), "expected a folder .*nothing, found nothing"),
        (("reduce", "{data}/labels.csv", "--output_dir", "{out}"), "expected a folder .*, found a file"),
        (("reduce", "{out}", "--output_dir", "{out}/x"), "found none: the folder holds no files"),
        (("reduce", "{data}", "--output_dir", "{out}", "--threshold", "70"), "0 to 64 whole bits, found 70"),
        (("reduce", "{data}", "--output_dir", "{out}", "--fraction", "0"), "above 0 and up to 1, found 0"),
        (("reduce", "{data}", "--output_dir", "{out}", "--threshold", "6", "--fraction", "0.1"), "found both"),
        (("reduce", "{data}", "--output_dir", "{out}", "--window", "lugn"), "expected a window .* found 'lugn'"),
        (("reduce", "{data}", "--output_dir", "{out}", "--window", "lung", "--pixels", "released"), "exclude"),
        (("reduce", "{data}", "--output_dir", "{out}", "--as_released", "--pixels", "clipped"), "exclude"),
        (("reduce", "{data}", "--output_dir", "{out}", "--pattern", "x"), r"\(\?P<index>"),
        (("reduce", "{data}", "--output_dir", "{data}/x"), "lies inside the data set"),
        (("reduce", "{data}", "--output_dir", "{out}", "--patient_key", "{data}"), "cannot read the patient key"),
        (("reduce", "{data}", "--output_dir", "{data}/labels.csv"), "lies inside the data set"),
        (("select", "{out}", "--name", "x"), r"manifest\.json is missing"),
        (("report", "{out}"), r"manifest\.json is missing"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    values = [argument.format(data=small_data, out=tmp_path / "out") for argument in arguments]
    code, _, errors = run(capsys, *values)
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert re.match(f"error: .*{sentence}", errors)
    assert list((tmp_path / "out").iterdir()) == []


def test_only_a_user_error_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: Exception) -> None:
        def write_report(*_: object) -> None:
            raise error

        monkeypatch.setattr("lessismore_transforms.report.write_report", write_report)

    raising(UserError("expected this, found that: do so"))
    assert run(capsys, "report", "OUT") == (2, "", "error: expected this, found that: do so\n")
    for error in (ValueError("of a library"), OSError("of a disk"), ModuleNotFoundError("of an extra")):
        raising(error)
        with pytest.raises(type(error), match=str(error)):
            main(["report", "OUT"])


def test_a_defect_shows_its_traceback(tmp_path: Path) -> None:
    script = (
        "import sys, lessismore_transforms.report as report\n"
        "def write_report(*_): raise ValueError('shapes (3,) and (4,) not aligned')\n"
        "report.write_report = write_report\n"
        "from lessismore_transforms.cli.main import main\n"
        f"sys.exit(main(['report', {str(tmp_path)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("ValueError: shapes (3,) and (4,) not aligned\n")


def test_the_console_script_and_the_module_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"lessismore": f"{main.__module__}:{main.__qualname__}"}
    seen = []
    monkeypatch.setattr(command_line, "main", lambda: seen.append("main") or 7)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lessismore_transforms", run_name="__main__")
    assert (seen, stopped.value.code) == (["main"], 7)


@pytest.mark.parametrize(
    "arguments", [("--treshold", "3"), ("--thresh", "3"), ("--method", "SvaV"), ("--workers", "-1")]
)
def test_a_misspelt_flag_is_an_error_at_once(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reduce", str(tmp_path), "--output_dir", str(tmp_path / "out"), *arguments])
    assert stop.value.code == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: .*{arguments[0]}.*see `python -m lessismore_transforms", sentence)


def test_a_misspelt_flag_is_named_before_those_that_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["reduce", "DATA", "--treshold", "3"])
    assert capsys.readouterr().err.startswith("error: unrecognized arguments: --treshold (did you mean --threshold?)")


def test_help_tells_every_command() -> None:
    command = [sys.executable, "-m", "lessismore_transforms", "--help"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for name, (_, does) in COMMANDS.items():
        assert name in text
        assert does in " ".join(text.split())


def test_a_reduction_loads_neither_torch_nor_monai_nor_itk(small_data: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from lessismore_transforms.cli.main import main;"
        f"code = main(['reduce', {str(small_data)!r}, '--output_dir', {str(tmp_path / 'out')!r}, '--workers', '0',"
        "'--no_report']);"
        "print([name for name in ('torch', 'monai', 'itk', 'matplotlib') if name in sys.modules]); sys.exit(code)"
    )
    text = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert text.splitlines()[-1] == "[]"


def test_no_output_names_a_patient(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(capsys, "reduce", small_data, "--output_dir", out, "--workers", 0)[0] == 0
    found = {name for name, content in tree(out, without=()).items() if b"phantom_0001" in content}
    # Here folders are named after patients, and paths stand in the manifest alone.
    assert found == {"manifest.csv", "manifest.json"}
    lines = [line.split(",") for line in (out / "manifest.csv").read_text().splitlines()]
    assert not any(
        "phantom_0001" in cell for line in lines for i, cell in enumerate(line) if i != lines[0].index("path")
    )


def test_demo_pictures_of_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo-data", str(tmp_path / "covid"), "--task", "covid19", "--patients", "8"]) == 0
    assert f"pictures for covid19 in {tmp_path / 'covid'}" in capsys.readouterr().out
    assert len(list((tmp_path / "covid").rglob("*.png"))) == 24
    assert main(["demo-data", str(tmp_path / "covid"), "--task", "covid19"]) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
