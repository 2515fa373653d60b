"""The tutorial is what it says: its blocks run in order, and print and draw what the page shows."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import ROOT, bundle_environment
from PIL import Image

FOLDER = ROOT / "docs" / "tutorial"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def runner() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(FOLDER / "run.py")))


def test_blocks_run_in_order_and_lines_are_found_by_their_words(runner: SimpleNamespace, tmp_path: Path) -> None:
    page = (
        "```bash\necho made > file; echo 'kept 12 of 720 (1.7 %)'; echo more\n```\n"
        "```text\nkept 121 of 7 (16.8 %)\n```\nwords\n```python\nprint(open('file').read(), 5)\n```\n```text\n 9\n```\n"
    )
    text, mistakes = runner.run(page, tmp_path)
    assert mistakes == []
    assert text == page.replace("kept 121 of 7 (16.8 %)", "kept 12 of 720 (1.7 %)").replace(" 9", " 5")


@pytest.mark.parametrize(
    ("page", "mistake"),
    [
        ("```bash\necho kept 12\n```\n```text\nkept 12 slices\n```\n", "expected a line like 'kept 12 slices'"),
        ("```bash\nfalse\ntrue\n```\n```bash\ntouch never\n```\n", "exit code 1 of the block\nfalse\n"),
        ("```python\nraise SystemExit(3)\n```\n", "exit code 3 of the block\n"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(runner: SimpleNamespace, tmp_path: Path, page: str, mistake: str) -> None:
    text, mistakes = runner.run(page, tmp_path)
    assert text == page
    assert len(mistakes) == 1
    assert mistakes[0].startswith(mistake)
    assert not list(tmp_path.iterdir())


def test_a_picture_is_made_small(runner: SimpleNamespace, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((1520, 1000)).convert("RGBA").save(tmp_path / "large.png")
    runner.shrink(tmp_path / "large.png", tmp_path / "small.png")
    with Image.open(tmp_path / "small.png") as small:
        assert small.size == (760, 500)
        assert small.mode == "P"


def test_the_pages_pictures_are_there_and_small(runner: SimpleNamespace) -> None:
    shown = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)", PAGE, re.MULTILINE)
    assert shown == [target for _, target in runner.PICTURE.findall(PAGE)]  # each has a mark of where it comes from
    assert sorted(shown) == sorted(path.name for path in FOLDER.glob("*.png"))
    assert sum(path.stat().st_size for path in FOLDER.glob("*.png")) < 2**20 / 4


def test_the_page_shows_what_its_blocks_print(runner: SimpleNamespace) -> None:
    kinds = [block[1] for block in runner.BLOCK.finditer(PAGE)]
    assert kinds.count("text") >= 8
    assert all(before != "text" for before, kind in pairwise(kinds) if kind == "text")


@pytest.mark.slow  # five minutes
def test_the_tutorial_runs(tmp_path: Path) -> None:
    line = [sys.executable, str(FOLDER / "run.py"), str(tmp_path / "new")]
    done = subprocess.run(line, cwd=tmp_path, env=bundle_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    # What no random number is drawn for is equal to the digit.
    for line_of_page in (
        "6 volumes, 720 slices: kept 121 (16.8 %)",
        "selection hash3: kept 252 of 720 slices (35.0 %)",
    ):
        assert line_of_page in PAGE
        assert line_of_page in done.stdout
    for name in ("out/report.html", "probe/probe.html", "my_ct_encoder/docs/README.md", "slices.png"):
        assert (tmp_path / "new" / name).is_file(), name
    assert len((tmp_path / "new" / "elsewhere/features/embeddings.csv").read_text().splitlines()) == 1 + 72
