"""A shared bundle in the model zoo's layout, models/NAME, under the checks of its continuous integration.

They are those of `zoo_checks`; test_every_bundle.py has the same for each bundle.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from helpers import in_bundle
from monai.apps import download_url
from monai.bundle import load
from zoo_checks import check_as_the_zoo

from lessismore_transforms.sharing.bundle_folder import LARGE, LARGE_FILES
from lessismore_transforms.sharing.facts import sha256
from lessismore_transforms.sharing.proof import SCHEMA
from lessismore_transforms.weights.backbones import build_backbone

KINDS = ["encoder", "classifier"]
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def zoo(encoder: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/ of the zoo as in a pull request: files above 25 MB are not in it."""
    models = tmp_path_factory.mktemp("zoo") / "models"
    for folder in (encoder, classifier):
        shutil.copytree(folder, models / folder.name)
        (models / folder.name / "eval").mkdir()
        shutil.copyfile(SCHEMA, models / folder.name / "eval" / "schema.json")  # so that nothing is downloaded
        for path in (models / folder.name).rglob("*"):
            if path.is_file() and path.stat().st_size > LARGE:
                path.unlink()
    return models


@pytest.fixture(scope="module")
def server(encoder: Path) -> Iterator[str]:
    """The address of a server of files beside the shared bundles."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(encoder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def bundle(kind: str, zoo: Path, encoder: Path, classifier: Path, server: str) -> Path:
    """A bundle of the zoo whose large files were downloaded as its checks do it, each checked by its sum."""
    source = {"encoder": encoder, "classifier": classifier}[kind]
    folder = zoo / source.name
    listed = yaml.safe_load((folder / LARGE_FILES).read_text())["large_files"]
    large = {str(path.relative_to(source)) for path in source.rglob("*") if path.stat().st_size > LARGE}
    assert {each["path"] for each in listed} == large
    for each in listed:
        address = f"{server}/{source.name}/{each['path']}"  # where the stated one would lead
        download_url(
            address, folder / each["path"], hash_val=each["hash_val"], hash_type=each["hash_type"], progress=False
        )
    return folder


def test_the_address_is_the_one_that_is_stated(encoder: Path, classifier: Path) -> None:
    listed = yaml.safe_load((encoder / LARGE_FILES).read_text())["large_files"]
    by_path = {each["path"]: each for each in listed}
    assert by_path["models/model.pt"]["url"] == "https://example.org/w/model.pt"
    assert by_path["models/model.pt"]["hash_val"] == sha256(encoder / "models" / "model.pt")
    assert "STATE-THE-ADDRESS" in (classifier / LARGE_FILES).read_text()


@each_kind
def test_the_checks_of_the_zoo(bundle: Path, tmp_path: Path) -> None:
    check_as_the_zoo(bundle, tmp_path)


@pytest.mark.parametrize("kind", ["encoder"])
def test_properties_of_both_workflows(bundle: Path, tmp_path: Path) -> None:
    """As a unit test of the zoo asks for them, of inference and of training."""
    code = f"""
from pathlib import Path
from monai.bundle import ConfigWorkflow
from PIL import Image
folder = {str(bundle)!r}
Path("pictures").mkdir()
for number in range(8):
    Image.new("L", (40, 40), 20 * number).save(f"pictures/{{number}}.png")
for kind, name in (("inference", "inference"), ("train", "train")):
    workflow = ConfigWorkflow(
        workflow_type=kind, config_file=f"{{folder}}/configs/{{name}}.json",
        meta_file=f"{{folder}}/configs/metadata.json", logging_file=f"{{folder}}/configs/logging.conf",
        dataset_dir="pictures", output_dir="out", bundle_root=folder,
    )
    workflow.initialize()
    print(kind, workflow.check_properties())
"""
    said = in_bundle(tmp_path, "ct_swav_pretraining", code)
    assert {"inference []", "train []"} <= {*said.splitlines()}


@pytest.mark.parametrize("kind", ["encoder"])
def test_monai_loads_it(bundle: Path, place: Path) -> None:
    """By name out of a folder of bundles; the network has the weights of the run."""
    before = list(sys.path)
    found = load(bundle.name, bundle_dir=str(bundle.parent), source="local", workflow_type="inference", device="cpu")
    sys.path[:] = before
    network = build_backbone("resnet18", weights=place / "RUN" / "backbone.safetensors")
    expected = network.state_dict()
    assert expected.keys() == found.state_dict().keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
