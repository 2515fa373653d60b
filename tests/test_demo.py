"""The demo replaces what an earlier demo wrote and nothing else; install and commands are stand-ins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT

RESULTS = ("analysis", "out", "probe_out", "run", "covid", "finetuned", "scratch")
STAND_INS = 'install_project() { touch installed; }\npython() { echo "$*" >> calls; }\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which the install and each command write down that they were called."""
    scripts = tmp_path / "checkout" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "demo.sh", scripts)
    (scripts / "environment.sh").write_text(STAND_INS)
    return scripts.parent


def call(checkout: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = ["bash", str(checkout / "scripts" / "demo.sh"), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=cwd)


def write(folder: Path, *names: str) -> list[Path]:
    """Write a file into each of these folders within another one."""
    paths = [folder / name / "mine.txt" for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("results of months")
    return paths


@pytest.mark.parametrize("name", [*RESULTS, "thesis"])
def test_a_folder_with_files_of_the_user_is_refused_and_left_as_it_is(
    checkout: Path, tmp_path: Path, name: str
) -> None:
    (mine,) = write(tmp_path / "study", name)
    done = call(checkout, "study", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: expected a new or empty folder, or that of an earlier demo, found others' files in "
        f"{tmp_path}/study: name another\n"
    )
    assert mine.read_text() == "results of months"
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == [name]
    assert not (checkout / "installed").exists()
    file = mine.parent / "mine.txt"
    assert call(checkout, file, cwd=tmp_path).returncode == 2  # no folder
    assert file.is_file()


def test_a_relative_folder_is_taken_from_where_the_user_stands(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "a place").mkdir()
    (there,) = write(checkout / "demo one", "out")  # of the same name, in the checkout
    done = call(checkout, "demo one", cwd=tmp_path / "a place")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a place" / "demo one" / ".lessismore-demo").is_file()
    assert f"-m lessismore_transforms demo-data {tmp_path}/a place/demo one/data\n" in (checkout / "calls").read_text()
    assert there.is_file()


@pytest.mark.parametrize("given", [(), ("new",), ("empty",)])
def test_a_demo_replaces_the_results_of_the_one_before(checkout: Path, tmp_path: Path, given: tuple[str, ...]) -> None:
    (tmp_path / "empty").mkdir()
    folder = tmp_path / given[0] if given else checkout / "demo"
    assert call(checkout, *given, cwd=tmp_path).returncode == 0
    (data, *old) = write(folder, "data", *RESULTS)
    assert call(checkout, *given, cwd=tmp_path).returncode == 0
    assert data.is_file()
    assert not any(path.parent.exists() for path in old)


def test_a_name_with_letters_of_the_shell_is_that_very_folder(checkout: Path, tmp_path: Path) -> None:
    (other,) = write(tmp_path / "ab", "out")
    assert call(checkout, "a&b", cwd=tmp_path).returncode == 0
    (old,) = write(tmp_path / "a&b", "out")
    assert call(checkout, "a&b", cwd=tmp_path).returncode == 0
    assert (old.exists(), other.read_text()) == (False, "results of months")
