"""The checks that the model zoo's continuous integration does on a bundle.

They are those of ci/verify_bundle.py in Project-MONAI/model-zoo, mode full, by the functions of MONAI that it calls.
Where LESSISMORE_MODEL_ZOO names a checkout of the zoo, `run_of_the_zoo` runs that script itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
from helpers import bundle_environment
from monai.bundle import ckpt_export, verify_metadata, verify_net_in_out

from lessismore_transforms.sharing.proof import SCHEMA

CHECKOUT = os.environ.get("LESSISMORE_MODEL_ZOO", "")


def check_as_the_zoo(bundle: Path, place: Path) -> None:
    """Check a bundle that has the schema in its folder eval; `place` is a folder for the exported network."""
    for name in ("LICENSE", "configs/metadata.json", "models/model.pt", "configs/inference.json"):
        assert (bundle / name).is_file(), name
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    meta, config = (str(bundle / "configs" / f"{name}.json") for name in ("metadata", "inference"))
    verify_metadata(meta_file=meta, filepath=str(bundle / "eval" / "schema.json"))
    verify_net_in_out(net_id="network_def", meta_file=meta, config_file=config, bundle_root=str(bundle), device="cpu")
    exported = place / "verify_model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=meta,
        config_file=config,
        bundle_root=str(bundle),
    )
    assert exported.stat().st_size > 0.9 * (bundle / "models" / "model.pt").stat().st_size
    for path in bundle.rglob("*.json"):
        if path.name != "schema.json":
            lines = path.read_text().splitlines()
            assert {(len(line) - len(line.lstrip())) % 4 for line in lines} == {0}, path


def run_of_the_zoo(bundle: Path) -> None:
    """Run the zoo's own script on a bundle in models/ of its layout."""
    shutil.copyfile(Path(CHECKOUT) / "models" / "model_info.json", bundle.parent / "model_info.json")
    script = Path(CHECKOUT) / "ci" / "verify_bundle.py"
    line = [sys.executable, str(script), "-b", bundle.name, "-p", str(bundle.parent), "-m", "full"]
    done = subprocess.run(
        line, cwd=bundle.parent, env=bundle_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "export weights into TorchScript module successfully." in done.stdout
    assert "data shape is verified correctly." in done.stdout
