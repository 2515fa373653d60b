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


def write_old_demo(folder: Path, header: str = "slice_id,path,index,region,lesion") -> list[Path]:
    """Write what the demo left before it had a marker; return the results."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "labels.csv").write_text(f"{header}\n")
    return write(folder, "probe_data", *RESULTS)[1:]


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


def test_the_default_folder_may_be_of_a_demo_without_a_marker(checkout: Path, tmp_path: Path) -> None:
    old = write_old_demo(checkout / "demo")
    assert call(checkout, cwd=tmp_path).returncode == 0
    assert not any(path.exists() for path in old)
    assert (checkout / "demo" / "probe_data" / "mine.txt").is_file()


@pytest.mark.parametrize("more", ["notes", ".hidden", "run covid"])
def test_other_files_in_the_default_folder_are_not_of_a_demo(checkout: Path, tmp_path: Path, more: str) -> None:
    old = [*write_old_demo(checkout / "demo"), *write(checkout / "demo", more)]
    assert call(checkout, cwd=tmp_path).returncode == 2
    assert all(path.is_file() for path in old)


def test_only_the_default_folder_with_the_demos_own_data_is_known_without_a_marker(
    checkout: Path, tmp_path: Path
) -> None:
    old = [*write_old_demo(tmp_path / "study"), *write_old_demo(checkout / "demo", "slice_id,label")]
    assert call(checkout, "study", cwd=tmp_path).returncode == 2
    assert call(checkout, cwd=tmp_path).returncode == 2
    assert all(path.is_file() for path in old)


def test_the_demos_data_are_known_by_what_demo_data_writes(tmp_path: Path) -> None:
    from lessismore_transforms.phantom import write_demo_data

    write_demo_data(tmp_path / "data", patients=1, slices=2, size=16)
    first = (tmp_path / "data" / "labels.csv").read_text().splitlines()[0]
    assert f'== "{first}" ]]' in (ROOT / "scripts" / "demo.sh").read_text()
