"""What the MONAI model zoo asks of every bundle with a network: files, metadata, input and output."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import jsonschema
import pytest
from helpers import ROOT, bundles
from monai.bundle import verify_metadata, verify_net_in_out

from lessismore_transforms import __version__

BUNDLES = [*bundles("pretraining"), *bundles("classification")]
SCHEMA = Path(os.environ.get("LESSISMORE_META_SCHEMA", ROOT.parent / "shared/facts/meta_schema_20240725.json"))

every_bundle = pytest.mark.parametrize("bundle", BUNDLES)


@every_bundle
def test_metadata_and_files_fit_the_zoo(bundle: str, tmp_path: Path) -> None:
    folder = ROOT / "bundles" / bundle
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    first = json.loads((ROOT / "bundles" / "ct_slice_reduction" / "configs" / "metadata.json").read_text())
    for name in ("schema", "monai_version", "pytorch_version", "numpy_version"):
        assert metadata[name] == first[name]
    packages = metadata["required_packages_version"]
    assert packages["lessismore-transforms"] == __version__
    assert packages.items() >= {k: v for k, v in first["required_packages_version"].items() if k in packages}.items()
    assert packages.keys() >= {"fire", "pytorch-ignite", "safetensors", "tensorboard", "timm", "torchvision"}
    others = json.loads((ROOT / "bundles" / BUNDLES[0] / "configs" / "metadata.json").read_text())
    shared = others["required_packages_version"].keys() & packages.keys()
    assert {name: packages[name] for name in shared} == {
        name: others["required_packages_version"][name] for name in shared
    }
    if bundle.endswith("classification"):
        assert packages.keys() >= {"matplotlib", "scikit-learn"}
    for path in ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf", "scripts/__init__.py"):
        assert (folder / path).stat().st_size, path
    for path in folder.glob("configs/*.json"):
        lines = path.read_text().splitlines()
        assert {(len(line) - len(line.lstrip())) % 4 for line in lines} == {0}, path
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 25_000_000
    if not SCHEMA.is_file():
        pytest.skip(f"no schema of bundle metadata at {SCHEMA}; set LESSISMORE_META_SCHEMA to the file")
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    shutil.copyfile(SCHEMA, tmp_path / "schema.json")  # in place already, so that nothing is downloaded
    verify_metadata(meta_file=str(folder / "configs" / "metadata.json"), filepath=tmp_path / "schema.json")


@every_bundle
def test_the_network_fits_its_metadata(bundle: str, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(ROOT / "bundles" / bundle, tmp_path / bundle))
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(copied / "configs" / "metadata.json"),
        config_file=str(copied / "configs" / "inference.json"),
        bundle_root=str(copied),
        device="cpu",
    )
