from __future__ import annotations

from pathlib import Path

from lessismore_transforms.bundle_folders import copy_bundle


def test_a_copy_of_a_bundle_holds_no_run_or_result_that_lies_in_its_folder(tmp_path: Path) -> None:
    source = tmp_path / "bundle"
    kept = ("LICENSE", "configs/train.json", "scripts/loss.py", "docs/README.md")
    private = ("eval/embeddings.csv", "run/config.json", "run/last.pt", "models/model.pt", "notes.txt")
    for name in (*kept, *private, "scripts/__pycache__/loss.pyc"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    copy_bundle(source, tmp_path / "copy", "*.md")
    found = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert found == {*kept} - {"docs/README.md"}
