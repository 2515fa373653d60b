"""Build a release and prove it: wheel and sdist, their contents, and their use where nothing else is installed.

    python scripts/release.py                          # Python 3.11 to 3.13, as far as they are found; leaves dist/
    python scripts/release.py --python 3.13            # one of them
    python scripts/release.py --trial                  # of whatever lies here, changed or not; leaves nothing

1. The tree is clean, and CHANGELOG.md has an entry of this very version and nothing under "Unreleased".
2. The sdist is built, and the wheel out of it; `twine check` accepts both. They hold the files that git knows and no
   other, no test in the wheel, no path of this machine.
3. For each Python: the wheel goes into an empty environment (8 GB and some minutes, for PyTorch), and outside of the
   checkout `reduce` runs on synthetic scans, a bundle does the same with the same bytes, and the tutorial runs. Then
   the sdist takes the wheel's place and installs the same files.

What is left for a person stands in CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from shared_files import ROOT

from lessismore_transforms import __version__
from lessismore_transforms.cli.exit_code import exit_code
from lessismore_transforms.cli.parser import Parser
from lessismore_transforms.errors import UserError

PYTHONS = ("3.11", "3.12", "3.13")
TOOLS = ("build>=1.2", "twine>=6")
PACKAGE = "lessismore_transforms"
DIST_INFO = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
OF_BUNDLE = re.compile(r"bundles/[^/]+/(?:LICENSE$|configs/|docs/|scripts/)")  # as hatch_build.py takes them
IN_SDIST = re.compile(
    rf"(?:{PACKAGE}|bundles|scripts|tests|docs)/|(?:hatch_build\.py|pyproject\.toml|\.gitignore|README\.md|CHANGELOG\.md|"
    r"CONTRIBUTING\.md|CITATION\.cff|LICENSE)$"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and prove a release; returns the exit code."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", action="append", choices=PYTHONS, help="only this one; may be repeated")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "dist", help="folder of the files (default: dist)")
    parser.add_argument("--trial", action="store_true", help="of whatever lies here; the files are not kept")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _release(options))


def _release(options: argparse.Namespace) -> int:
    if not options.trial:
        check_tree(ROOT)
        check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), __version__)
    wanted = options.python or PYTHONS
    pythons = {version: path for version in wanted if (path := find_python(version))}
    print(f"Python {', '.join(pythons)}; not found: {', '.join(v for v in wanted if v not in pythons) or 'none'}")
    if not pythons:
        raise UserError(f"expected a Python out of {', '.join(wanted)}, found none: install one")
    with tempfile.TemporaryDirectory(prefix="release_") as temporary:
        work = Path(temporary)
        wheel, sdist = build(work)
        check_contents(wheel, sdist, tracked(ROOT))
        for version, python in pythons.items():
            prove(work / version, python, wheel, sdist)
        if options.trial:
            print("trial: all is well; nothing is kept")
            return 0
        options.output_dir.mkdir(parents=True, exist_ok=True)
        for path in (wheel, sdist):
            shutil.copy2(path, options.output_dir)
            print(f"ready: {options.output_dir / path.name}; CONTRIBUTING.md tells how to upload it")
    return 0


def check_tree(root: Path) -> None:
    """Refuse a checkout whose files differ from the last commit.

    Raises:
        UserError: some do.
    """
    changed = _run(["git", "status", "--porcelain"], root).splitlines()
    if changed:
        raise UserError(
            f"expected no change since the last commit, found {len(changed)}, first {changed[0].strip()!r}: commit or "
            "undo them, or try with --trial"
        )


def check_changelog(text: str, version: str) -> None:
    """Refuse a version that the changelog does not tell.

    Raises:
        UserError: it has no entry, an empty one, or changes that belong to no version yet.
    """
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    entries = {part.split()[0]: part.partition("\n")[2].strip() for part in parts}
    if not entries.get(version):
        raise UserError(f"expected an entry '## {version}' in CHANGELOG.md, found {', '.join(entries)}: write it")
    if entries.get("Unreleased"):
        raise UserError(
            f"expected nothing under '## Unreleased' in CHANGELOG.md, found lines: give them a version, and raise "
            f"__version__ ({version}) and CITATION.cff to it"
        )


def find_python(version: str) -> str | None:
    """The interpreter of a version, such as `3.12`: on the path, or among those of pyenv."""
    of_pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*/bin/python")
    for candidate in (shutil.which(f"python{version}"), *map(str, sorted(of_pyenv))):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        if (
            candidate
            and subprocess.run([candidate, "-c", code], capture_output=True, text=True).stdout == f"{version}\n"
        ):
            return candidate
    return None


def tracked(root: Path) -> list[str]:
    """The files of the checkout that git knows, or would know after `git add`."""
    line = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return sorted(name for name in _run(line, root).splitlines() if (root / name).is_file())


def build(work: Path) -> tuple[Path, Path]:
    """Wheel and sdist of the checkout, accepted by twine."""
    python = _environment(work / "tools", sys.executable)
    _step("tools", [python, "-m", "pip", "install", "--quiet", *TOOLS], work)
    _step("build", [python, "-m", "build", "--outdir", str(work / "dist"), str(ROOT)], work)
    (wheel,), (sdist,) = (list((work / "dist").glob(name)) for name in ("*.whl", "*.tar.gz"))
    _step("twine check", [python, "-m", "twine", "check", "--strict", str(wheel), str(sdist)], work)
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path, names: Sequence[str]) -> None:
    """Hold the files in both against those of the checkout.

    Args:
        wheel: the wheel.
        sdist: the sdist.
        names: files of the checkout.

    Raises:
        UserError: one holds a file too many or too few, or a path of this machine.
    """
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    with tarfile.open(sdist) as archive_of_sources:
        members = [member for member in archive_of_sources.getmembers() if not member.isdir()]
        in_sdist = {}
        for member in members:
            opened = archive_of_sources.extractfile(member)
            name = PurePosixPath(member.name).relative_to(PurePosixPath(member.name).parts[0]).as_posix()
            in_sdist[name] = opened.read() if opened else b""
    compare(wheel.name, in_wheel, wheel_names(names, wheel))
    compare(sdist.name, in_sdist, {"PKG-INFO", *filter(IN_SDIST.match, names)})


def wheel_names(names: Sequence[str], wheel: Path) -> set[str]:
    """What a wheel has to hold: the package, the bundles' own files, and what installers read."""
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    package = {name for name in names if name.startswith(f"{PACKAGE}/")}
    assert f"{PACKAGE}/py.typed" in package
    bundles = {f"{PACKAGE}/shipped_{name}" for name in names if OF_BUNDLE.match(name)}
    return package | bundles | {f"{info}/{name}" for name in DIST_INFO}


def compare(what: str, found: Mapping[str, bytes], expected: set[str]) -> None:
    """Refuse an archive with other files than expected, or with a path of this machine in one of them.

    Raises:
        UserError: it has.
    """
    if surplus := sorted(set(found) - expected):
        raise UserError(f"expected only files of the checkout in {what}, found {len(surplus)} more, first {surplus[0]}")
    if missing := sorted(expected - set(found)):
        raise UserError(f"expected all files of the checkout in {what}, found {len(missing)} missing: {missing[0]}")
    paths = [f"{place}/".encode() for place in (ROOT, Path.home())]
    for name, content in found.items():
        for path in paths:
            if path in content:
                raise UserError(
                    f"expected no path of this machine in {what}, found {path.decode()} in {name}: remove it"
                )
    print(f"{what}: {len(found)} files, {sum(map(len, found.values())) / 1e6:.1f} MB")


def prove(work: Path, python: str, wheel: Path, sdist: Path) -> None:
    """Install a wheel, then its sdist, into an empty environment, and use it from an empty folder."""
    work.mkdir()
    environment = _environment(work / "environment", python)
    pip = [environment, "-m", "pip", "--disable-pip-version-check"]
    _step(f"{work.name}: install", [*pip, "install", "--quiet", str(wheel)], work)
    installed = [environment, "-c", _INSTALLED]
    files = _run(installed, work)
    lessismore = str(Path(environment).with_name("lessismore"))
    _step(f"{work.name}: demo-data", [lessismore, "demo-data", "scans", "--patients", "2"], work)
    _step(f"{work.name}: reduce", [lessismore, "reduce", "scans", "--output_dir", "out"], work)
    name = "ct_slice_reduction"
    _step(f"{work.name}: bundles", [lessismore, "bundles", "--output_dir", "bundles", name], work)
    config = ["--config_file", f"bundles/{name}/configs/inference.json"]
    given = [*config, "--dataset_dir", "scans", "--output_dir", "out_of_bundle"]
    _step(f"{work.name}: a bundle", [environment, "-m", "monai.bundle", "run", *given], work)
    for table in ("manifest.csv", "selections/default.csv"):
        if (work / "out" / table).read_bytes() != (work / "out_of_bundle" / table).read_bytes():
            raise UserError(f"expected the same {table} of `reduce` and of its bundle, found others")
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "sources", filter="data")
    (sources,) = (work / "sources").iterdir()
    shutil.copytree(sources / "docs" / "tutorial", work / "tutorial")
    _step(f"{work.name}: tutorial", [environment, "tutorial/run.py", "tutorial_run"], work)
    again = ["install", "--quiet", "--no-deps", "--force-reinstall", str(sdist)]
    _step(f"{work.name}: the sdist instead", [*pip, *again], work)
    if _run(installed, work) != files:
        raise UserError("expected the same installed files of wheel and sdist, found others")
    for large in ("environment", "tutorial_run"):
        shutil.rmtree(work / large)


# Names, sizes and checksums of the installed files, save for what installers note about the origin.
_INSTALLED = f"""
from importlib.metadata import files
print(*sorted(str((f, f.size, f.hash and f.hash.value)) for f in files("{PACKAGE}") if str(f).startswith("{PACKAGE}/")
              and not str(f).endswith(".pyc")), sep="\\n")
"""


def _environment(folder: Path, python: str) -> str:
    """The interpreter of a new, empty virtual environment."""
    _run([python, "-m", "venv", str(folder)], folder.parent)
    return str(folder / "bin" / "python")


def _step(what: str, line: Sequence[str], folder: Path) -> None:
    """Run a command, tell how long it took, and stop where it fails.

    Raises:
        UserError: it failed; what it printed is told.
    """
    begun = time.monotonic()
    _run(line, folder)
    print(f"{what}: {time.monotonic() - begun:.0f} s", flush=True)


def _run(line: Sequence[str], folder: Path) -> str:
    """What a command prints; neither this checkout nor a user's own packages are on its path."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PYTHONNOUSERSITE": "1"}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stdout + done.stderr).strip()
        raise UserError(f"`{' '.join(map(str, line))}` failed with exit code {done.returncode}:\n{told}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
