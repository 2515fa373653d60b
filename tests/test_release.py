"""A release is refused where something is wrong with it; the rest of the command is tried with `--trial`."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import release
from helpers import ROOT

from lessismore_transforms.errors import UserError


def test_a_changed_tree_is_refused(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "kept").write_text("1")
    git("add", "kept")
    git("commit", "-m", "first")
    release.check_tree(tmp_path)
    (tmp_path / "stray").write_text("1")
    with pytest.raises(UserError, match=r"^expected no change since the last commit, found 1, first '\?\? stray': "):
        release.check_tree(tmp_path)
    assert release.tracked(tmp_path) == ["kept", "stray"]
    (tmp_path / "stray").unlink()
    (tmp_path / "kept").write_text("2")
    with pytest.raises(UserError, match="first 'M kept'"):
        release.check_tree(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "# Changelog\n\n## 0.2.0\n\n- a\n",
            r"expected an entry '## 0\.3\.0' in CHANGELOG\.md, found 0\.2\.0: write it",
        ),
        ("## 0.3.0\n\n## 0.2.0\n\n- a\n", r"expected an entry '## 0\.3\.0'"),
        ("## 0.3.0b1\n\n- a\n", r"expected an entry '## 0\.3\.0'"),
        ("## Unreleased\n\n- b\n\n## 0.3.0\n\n- a\n", "expected nothing under '## Unreleased' in CHANGELOG.md"),
    ],
)
def test_a_version_that_the_changelog_does_not_tell_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=f"^{sentence}"):
        release.check_changelog(text, "0.3.0")


def test_a_version_that_the_changelog_tells_is_taken() -> None:
    release.check_changelog(
        "# Changelog\n\n## Unreleased\n\n## 0.3.0 (2026-12-01)\n\n- a\n\n## 0.2.0\n\n- b\n", "0.3.0"
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist of this checkout."""
    pytest.importorskip("hatchling", reason="builds the wheel")
    folder = tmp_path_factory.mktemp("built")
    line = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_wheel_and_sdist_hold_the_files_of_the_checkout(built: tuple[Path, Path]) -> None:
    wheel, sdist = built
    release.check_contents(wheel, sdist, release.tracked(ROOT))
    names = zipfile.ZipFile(wheel).namelist()
    assert "lessismore_transforms/py.typed" in names
    assert "lessismore_transforms/shipped_bundles/ct_swav_pretraining/configs/train.json" in names
    assert not [name for name in names if "test" in name.split("/")[0]]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("lessismore_transforms/secret.txt", b"", "expected only files of the checkout in .*whl, found 1 more, first"),
        (
            "tests/conftest.py",
            b"",
            "expected only files of the checkout in .*whl, found 1 more, first tests/conftest.py",
        ),
        (
            "lessismore_transforms/py.typed",
            None,
            "expected all files .* found 1 missing: lessismore_transforms/py.typed",
        ),
        (
            "lessismore_transforms/cores.py",
            f"x = '{ROOT}/data'".encode(),
            "expected no path of this machine in .*cores",
        ),
    ],
)
def test_a_wheel_with_other_files_is_refused(
    built: tuple[Path, Path], tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    wheel, sdist = built
    changed = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(changed, "w") as target:
        for each in source.namelist():
            if each != name:
                target.writestr(each, source.read(each))
        if content is not None:
            target.writestr(name, content)
    with pytest.raises(UserError, match=f"^{sentence}"):
        release.check_contents(changed, sdist, release.tracked(ROOT))


def test_an_sdist_with_another_file_is_refused(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = built
    changed = tmp_path / sdist.name
    with tarfile.open(sdist) as source, tarfile.open(changed, "w:gz") as target:
        for member in source.getmembers():
            target.addfile(member, source.extractfile(member))
        stray = tarfile.TarInfo(f"{source.getnames()[0].split('/')[0]}/docs/notes.txt")
        target.addfile(stray, io.BytesIO())
    with pytest.raises(UserError, match=r"in .*\.tar\.gz, found 1 more, first docs/notes\.txt$"):
        release.check_contents(wheel, changed, release.tracked(ROOT))


def test_an_interpreter_is_found_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert release.find_python(version) is None
    other = tmp_path / "python3.99"  # answers with another version, as a launcher of pyenv may
    other.symlink_to(sys.executable)
    assert release.find_python("3.99") is None
    (tmp_path / "versions" / f"{version}.7" / "bin").mkdir(parents=True)
    (tmp_path / "versions" / f"{version}.7" / "bin" / "python").symlink_to(sys.executable)
    assert release.find_python(version) == str(tmp_path / "versions" / f"{version}.7" / "bin" / "python")
