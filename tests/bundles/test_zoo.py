"""What the MONAI model zoo asks of every bundle: files, metadata, input and output."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from helpers import BUNDLES, ROOT, bundles
from monai.bundle import verify_metadata, verify_net_in_out

from lessismore_transforms import __version__

NETWORKS = [*bundles("pretraining"), *bundles("classification")]
SCHEMA = ROOT / "lessismore_transforms" / "sharing" / "meta_schema_20240725.json"

every_bundle = pytest.mark.parametrize("bundle", bundles())
every_network = pytest.mark.parametrize("bundle", NETWORKS)


@every_bundle
def test_metadata_fit_the_schema(bundle: str, tmp_path: Path) -> None:
    path = BUNDLES / bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    assert metadata["schema"].endswith(f"/{SCHEMA.name}")
    assert metadata["version"] in metadata["changelog"]
    assert metadata["required_packages_version"]["lessismore-transforms"] == __version__
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    shutil.copyfile(SCHEMA, tmp_path / "schema.json")  # in place already, so that nothing is downloaded
    verify_metadata(meta_file=str(path), filepath=tmp_path / "schema.json")


def test_the_schema_refuses_metadata_that_lack_something() -> None:
    metadata = json.loads((BUNDLES / NETWORKS[0] / "configs" / "metadata.json").read_text())
    del metadata["network_data_format"]
    with pytest.raises(jsonschema.ValidationError, match="'network_data_format' is a required property"):
        jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))


def test_bundles_need_the_same_version_of_a_package() -> None:
    versions: dict[str, set[str]] = {}
    for bundle in bundles():
        metadata = json.loads((BUNDLES / bundle / "configs" / "metadata.json").read_text())
        for package, version in metadata["required_packages_version"].items():
            versions.setdefault(package, set()).add(version)
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


@every_bundle
def test_files_fit_the_zoo(bundle: str) -> None:
    folder = BUNDLES / bundle
    for path in ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf"):
        assert (folder / path).stat().st_size, path
    for path in folder.glob("configs/*.json"):
        lines = path.read_text().splitlines()
        assert {(len(line) - len(line.lstrip())) % 4 for line in lines} == {0}, path
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 25_000_000


@every_network
def test_what_networks_need_is_named(bundle: str) -> None:
    metadata = json.loads((BUNDLES / bundle / "configs" / "metadata.json").read_text())
    packages = metadata["required_packages_version"]
    assert packages.keys() >= {"fire", "pytorch-ignite", "safetensors", "tensorboard", "timm", "torchvision"}
    if bundle.endswith("classification"):
        assert packages.keys() >= {"matplotlib", "scikit-learn"}
    assert (BUNDLES / bundle / "scripts" / "__init__.py").stat().st_size


@every_network
def test_the_network_fits_its_metadata(bundle: str, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(BUNDLES / bundle, tmp_path / bundle))
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(copied / "configs" / "metadata.json"),
        config_file=str(copied / "configs" / "inference.json"),
        bundle_root=str(copied),
        device="cpu",
    )
