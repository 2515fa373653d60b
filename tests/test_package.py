"""What users import from the package itself."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lessismore_transforms


def test_an_import_of_the_package_imports_nothing_big() -> None:
    code = (
        "import sys, lessismore_transforms as package; dir(package); print(package.__version__);"
        "print(*sorted(each.partition('.')[0] for each in sys.modules))"
    )
    version, modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert version == lessismore_transforms.__version__
    imported = set(modules.split())
    assert "lessismore_transforms" in imported
    assert not imported & {"torch", "monai", "numpy", "pandas", "matplotlib", "nibabel", "pydicom"}


def test_reading_volumes_and_slices_imports_no_torch() -> None:
    code = (
        "import sys; from lessismore_transforms import find_volumes, reduce_dataset, SliceSelectionDataset;"
        "print(find_volumes.__module__, 'numpy' in sys.modules, 'torch' in sys.modules, 'monai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["True", "False", "False"]


@pytest.mark.parametrize("name", sorted(lessismore_transforms._HOMES))
def test_a_name_is_offered_from_where_it_is_defined(name: str) -> None:
    module = lessismore_transforms._HOMES[name]
    thing = getattr(lessismore_transforms, name)
    assert thing is getattr(importlib.import_module(module), name)
    assert thing.__module__ == module
    assert name in lessismore_transforms.__all__
    assert name in dir(lessismore_transforms)


def test_type_checkers_are_told_the_same() -> None:
    tree = ast.parse(Path(lessismore_transforms.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        each.asname: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for each in statement.names
        if each.name == each.asname
    }
    assert told == lessismore_transforms._HOMES


def test_no_name_hides_a_room() -> None:
    folder = Path(lessismore_transforms.__file__).parent
    rooms = {path.stem for path in folder.iterdir()}
    assert rooms >= {"reduction", "volumes", "errors"}
    assert not rooms & set(lessismore_transforms.__all__)


def test_a_misspelt_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'lessismore_transforms' has no attribute 'SelectSlicez'$"):
        lessismore_transforms.SelectSlicez  # noqa: B018
    with pytest.raises(ImportError, match="SelectSlicez"):
        exec("from lessismore_transforms import SelectSlicez")
