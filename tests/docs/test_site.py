"""The documentation as a site: built strictly, and complete without anything from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
pytest.importorskip("material", reason="the extra docs is not installed")
pytest.importorskip("mkdocstrings_handlers.python", reason="the extra docs is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a broken link, a page outside of the navigation and an argument that is none stop the build."""
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(ROOT / "docs/mkdocs.yml"), "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_each_bundle_has_its_page(site: Path) -> None:
    bundles = sorted(path.name for path in (ROOT / "bundles").iterdir() if path.is_dir())
    assert sorted(path.stem for path in (site / "bundles").glob("*.html")) == bundles
    assert "ct_slice_reduction" in bundles
    assert (site / "bundles" / "report.png").read_bytes() == next(ROOT.glob("bundles/*/docs/report.png")).read_bytes()


def test_each_room_has_its_page(site: Path) -> None:
    rooms = {path.parent.name for path in (ROOT / "lessismore_transforms").glob("*/__init__.py")}
    assert {path.stem for path in (site / "api").glob("*.html")} == (rooms - {"cli"}) | {"index", "files"}
    page = (site / "api" / "reduced.html").read_text(encoding="utf-8")
    assert 'id="lessismore_transforms.reduced.dataset.SliceSelectionDataset"' in page
    assert "an output is incomplete or damaged, or has no such selection" in page  # Raises


def test_each_command_is_told(site: Path) -> None:
    page = (site / "commands.html").read_text(encoding="utf-8")
    commands = re.findall(r'<h2 id="([a-z-]+)">', page)
    assert {"reduce", "select", "report", "compare", "duplicates", "table", "curves", "demo-data"} <= set(commands)
    assert "--output_dir OUT" in page


def test_the_first_page_is_the_readme_with_its_links_turned(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert 'src="bundles/report.png"' in page
    assert 'href="guides/reduce.html"' in page
    assert 'href="bundles/ct_swav_pretraining.html"' in page
    assert "docs/pages" not in page


def test_a_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?([^"'\s>]+)""", text)
        assert fetched
        assert [url for url in fetched if re.match(r"(?:[a-z]+:)?//", url)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style
