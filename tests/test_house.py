"""Imports go down only: drawn from the source of the package, the bundles and the scripts, never from running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = "lessismore_transforms"
# From the top. A room may import from its own floor and from those below; modules at the root of the package are at
# the bottom, but for the one that starts the command line.
FLOORS = (
    {"cli", "scripts", "bundles"},
    {"pretraining", "classification", "analysis", "probing", "audit", "sharing"},
    {"bundle", "training", "report", "pipeline", "transforms", "phantom", "downloads"},
    {"reduced", "weights"},
    {"volumes"},
    {"reduction"},
    {"the root"},
)
STARTERS = {f"{PACKAGE}.__main__"}


def modules(root: Path) -> dict[str, Path]:
    """The files of the package, the bundles and the scripts by the name under which they are imported.

    Files of a bundle and scripts are named by their path: they import each other as top-level modules.
    """
    found = {}
    for top in (PACKAGE, "bundles", "scripts"):
        for path in sorted((root / top).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a file imports, also in functions and under TYPE_CHECKING."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def draw_imports(root: Path) -> dict[tuple[str, str], str]:
    """Where, as `file:line`, each import from one module of the tree to another one stands."""
    tree = modules(root)
    arrows: dict[tuple[str, str], str] = {}
    for name, path in tree.items():
        for line, full in imported(path, name):
            for target in homes(full, name, path.relative_to(root).parts):
                found = next((known for known in shortened(target) if known in tree), None)
                if found is not None:
                    if found != name:
                        arrows.setdefault((name, found), f"{path.relative_to(root).as_posix()}:{line}")
                    break
    return arrows


def homes(full: str, name: str, parts: tuple[str, ...]) -> Iterator[str]:
    """Names by which a module may be known in the tree; scripts see their own folder, bundles theirs."""
    yield full
    if parts[0] == "scripts":
        yield f"scripts.{full}"
    if parts[0] == "bundles":
        yield f"bundles.{parts[1]}.{full}"


def shortened(full: str) -> Iterator[str]:
    """`a.b.c`, `a.b`: the last part of a name may be a class or a function. Not `a` alone but for the package."""
    while "." in full:
        yield full
        full = full.rpartition(".")[0]
    if full == PACKAGE:
        yield full


def room(module: str) -> str:
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return parts[0]
    if module in STARTERS:
        return "cli"
    rooms = {name for floor in FLOORS for name in floor}
    return parts[1] if len(parts) > 1 and (len(parts) > 2 or parts[1] in rooms) else "the root"


def floor(module: str) -> int:
    """0 is the bottom."""
    for height, rooms in enumerate(reversed(FLOORS)):
        if room(module) in rooms:
            return height
    raise AssertionError(f"the room {room(module)!r} of {module} stands on no floor: name it in FLOORS")


def wrong_imports(root: Path) -> list[str]:
    """A sentence for each import that goes up, from a library room to the command line or out of the package."""
    wrong = []
    for (name, target), place in draw_imports(root).items():
        if name == PACKAGE:  # the front door, which offers what all rooms hold
            continue
        arrow = f"{place}: {name} imports {target}"
        if name.startswith(f"{PACKAGE}.") and not target.startswith(PACKAGE):
            wrong.append(f"{arrow}, which is no part of the package")
        elif room(target) == "cli" and room(name) not in FLOORS[0]:
            wrong.append(f"{arrow}: no library room imports the command line")
        elif floor(target) > floor(name):
            wrong.append(f"{arrow}: the room {room(target)} stands above {room(name)}")
    return wrong


def circle(arrows: set[tuple[str, str]]) -> list[str]:
    """The nodes of a circle, the least one first and again at the end; empty where there is none."""
    ahead: dict[str, list[str]] = {}
    for start, end in sorted(arrows):
        ahead.setdefault(start, []).append(end)
    done: set[str] = set()
    for start in ahead:
        path, turns = [start], [iter(ahead[start])]
        while path:
            step = next((end for end in turns[-1] if end not in done), None)
            if step is None:
                done.add(path.pop())
                turns.pop()
            elif step in path:
                nodes = path[path.index(step) :]
                least = nodes.index(min(nodes))
                return [*nodes[least:], *nodes[: least + 1]]
            else:
                path.append(step)
                turns.append(iter(ahead.get(step, ())))
    return []


def circles(root: Path) -> list[str]:
    """A circle between files and one between rooms, in words."""
    drawn = {arrow: place for arrow, place in draw_imports(root).items() if arrow[0] != PACKAGE}
    rooms: dict[tuple[str, str], str] = {}
    for (name, target), place in drawn.items():
        if room(name) != room(target):
            rooms.setdefault((room(name), room(target)), place)
    found = []
    for kind, arrows in (("files", drawn), ("rooms", rooms)):
        nodes = circle(set(arrows))
        if nodes:
            steps = (f"{a} imports {b} ({arrows[a, b]})" for a, b in pairwise(nodes))
            found.append(f"circle between {kind}: {', '.join(steps)}")
    return found


def test_imports_go_down_only() -> None:
    assert not (wrong := wrong_imports(ROOT)), "\n".join(wrong)


def test_no_circles_between_files_or_rooms() -> None:
    assert not (found := circles(ROOT)), "\n".join(found)


def test_the_drawing_is_of_the_whole_house() -> None:
    """An empty drawing has no wrong line."""
    arrows = draw_imports(ROOT)
    assert {room(name) for name in modules(ROOT)} >= {"the root", "scripts", "bundles", "cli", "reduction", "report"}
    for arrow in (
        (f"{PACKAGE}.pipeline.task", f"{PACKAGE}.volumes"),
        (f"{PACKAGE}.reduction.measures", f"{PACKAGE}.reduction.ssim"),  # in a function
        (f"{PACKAGE}.report.threshold_section", f"{PACKAGE}.report.charts"),  # a module of a room
        (f"{PACKAGE}.pipeline.run", PACKAGE),  # its version
        ("scripts.bench_plan", "scripts.bench_pipeline"),
        ("scripts.bench_pretraining", f"{PACKAGE}.pipeline.run"),
    ):
        assert arrow in arrows
    assert len(arrows) > 300


FILES = {
    "lessismore_transforms/__init__.py": "__version__ = '0'",
    "lessismore_transforms/errors.py": "",
    "lessismore_transforms/reduction/__init__.py": "",
    "lessismore_transforms/reduction/hashing.py": "from lessismore_transforms.errors import UserError",
    "lessismore_transforms/volumes/__init__.py": "from lessismore_transforms.volumes.dicom import read",
    "lessismore_transforms/volumes/dicom.py": "import lessismore_transforms.reduction.hashing",
    "lessismore_transforms/pipeline/__init__.py": "",
    "lessismore_transforms/pipeline/run.py": "from lessismore_transforms import __version__, volumes",
    "lessismore_transforms/report/__init__.py": "",
    "lessismore_transforms/report/page.py": "from lessismore_transforms.pipeline.run import reduce",
    "lessismore_transforms/cli/__init__.py": "",
    "lessismore_transforms/cli/main.py": "def main():\n    from lessismore_transforms.report import page",
    "scripts/bench.py": "import tools",
    "scripts/tools.py": "from lessismore_transforms.cli.main import main",
    "bundles/ct/scripts/method.py": "from lessismore_transforms.volumes import read",
}


def write_house(root: Path, **changes: str) -> Path:
    """A made-up house; `changes` are texts by path, with double underscores for slashes."""
    for path, text in {**FILES, **{path.replace("__", "/") + ".py": text for path, text in changes.items()}}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_a_made_up_house_in_order(tmp_path: Path) -> None:
    root = write_house(tmp_path)
    assert (f"{PACKAGE}.pipeline.run", f"{PACKAGE}.volumes") in draw_imports(root)
    assert ("scripts.bench", "scripts.tools") in draw_imports(root)
    assert wrong_imports(root) == []
    assert circles(root) == []


@pytest.mark.parametrize(
    ("place", "text", "sentence"),
    [
        (
            "reduction__hashing",
            "def f():\n    from lessismore_transforms.volumes.dicom import read",
            "lessismore_transforms/reduction/hashing.py:2: lessismore_transforms.reduction.hashing imports "
            "lessismore_transforms.volumes.dicom: the room volumes stands above reduction",
        ),
        (
            "volumes__dicom",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lessismore_transforms.pipeline.run",
            "lessismore_transforms/volumes/dicom.py:3: lessismore_transforms.volumes.dicom imports "
            "lessismore_transforms.pipeline.run: the room pipeline stands above volumes",
        ),
        (
            "pipeline__run",
            "from ..cli import main",
            "lessismore_transforms/pipeline/run.py:1: lessismore_transforms.pipeline.run imports "
            "lessismore_transforms.cli.main: no library room imports the command line",
        ),
        (
            "errors",
            "from lessismore_transforms.reduction import hashing",
            "lessismore_transforms/errors.py:1: lessismore_transforms.errors imports "
            "lessismore_transforms.reduction.hashing: the room reduction stands above the root",
        ),
        (
            "cli__main",
            "import scripts.tools",
            "lessismore_transforms/cli/main.py:1: lessismore_transforms.cli.main imports scripts.tools, "
            "which is no part of the package",
        ),
        (
            "report__page",
            "from bundles.ct.scripts import method",
            "lessismore_transforms/report/page.py:1: lessismore_transforms.report.page imports "
            "bundles.ct.scripts.method, which is no part of the package",
        ),
    ],
)
def test_a_wrong_import_is_named(tmp_path: Path, place: str, text: str, sentence: str) -> None:
    assert wrong_imports(write_house(tmp_path, **{f"lessismore_transforms__{place}": text})) == [sentence]


def test_circles_are_named(tmp_path: Path) -> None:
    """Files of one room, and rooms of one floor without a circle of files."""
    text = "from lessismore_transforms.report import charts"
    root = write_house(
        tmp_path,
        lessismore_transforms__report__charts="import lessismore_transforms.report.html",
        lessismore_transforms__report__html="def f():\n    from lessismore_transforms.report.charts import draw",
        lessismore_transforms__pipeline__show=text,
    )
    charts, html = f"{PACKAGE}.report.charts", f"{PACKAGE}.report.html"
    files, rooms = circles(root)
    assert files == (
        f"circle between files: {charts} imports {html} ({PACKAGE}/report/charts.py:1), "
        f"{html} imports {charts} ({PACKAGE}/report/html.py:2)"
    )
    assert rooms == (
        f"circle between rooms: pipeline imports report ({PACKAGE}/pipeline/show.py:1), "
        f"report imports pipeline ({PACKAGE}/report/page.py:1)"
    )
    assert wrong_imports(root) == []


def test_a_room_that_stands_on_no_floor_is_named(tmp_path: Path) -> None:
    root = write_house(tmp_path, lessismore_transforms__attic__box="import lessismore_transforms.errors")
    with pytest.raises(
        AssertionError, match=r"the room 'attic' of lessismore_transforms\.attic\.box stands on no floor"
    ):
        wrong_imports(root)
