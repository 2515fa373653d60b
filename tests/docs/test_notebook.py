"""The notebook runs from scans to a step of a U-Net, and is shipped without outputs."""

from __future__ import annotations

import json

import pytest
from helpers import ROOT

NOTEBOOK = ROOT / "docs" / "pages" / "guides" / "encoder_to_unet.ipynb"


def test_no_outputs_are_shipped() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(cell.get("outputs", []) == [] and cell.get("execution_count") is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="runs the notebook")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    printed = ["".join(output.get("text", "") for output in cell.get("outputs", [])) for cell in notebook.cells]
    assert "of 96 slices kept" in printed[2]
    assert printed[-1].startswith("loss ")
