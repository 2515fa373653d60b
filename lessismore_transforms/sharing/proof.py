"""The proof of a shared folder before it gets its name: loaded back, checked and used, as others will do it."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lessismore_transforms.classification.network import build_classifier
from lessismore_transforms.errors import UserError
from lessismore_transforms.sharing.facts import PLACE_OF_DATA, Facts
from lessismore_transforms.sharing.quiet import quietly
from lessismore_transforms.volumes.pictures import read_image
from lessismore_transforms.weights.backbones import build_backbone, load_strictly, read_tensors

SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")  # of the model zoo, unchanged, Apache License 2.0, from
# https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/
_TOLERANCE = 1e-4  # of the largest number: inference folds batch norms, and may compute in another order
_INSTALLED = (str(Path(torch.__file__).parents[1]), str(Path(__file__).resolve().parents[2]))
_TEXT = (".json", ".md", ".txt", ".yml", ".py", ".conf", "")


def prove_bundle(folder: Path, facts: Facts) -> None:
    """Prove a bundle.

    Raises:
        UserError: weights do not come back, metadata do not fit the schema, MONAI finds no property, the bundle does
            not run, it gives other numbers, or a file holds a path.
    """
    import jsonschema

    prove_private(folder, facts)
    for name in ("model.safetensors", "model.pt"):
        prove_weights(folder / "models" / name, facts)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    try:
        jsonschema.validate(metadata, json.loads(SCHEMA.read_text(encoding="utf-8")))
    except jsonschema.ValidationError as error:
        raise UserError(f"the metadata do not fit the zoo's schema: {error.message}: change what was stated") from error
    with tempfile.TemporaryDirectory() as place:
        pictures, result = Path(place) / "pictures", Path(place) / "result"
        picture = _draw_picture(pictures / "below" / "picture.png", facts)
        run_inference(folder, pictures, result)
        found = _read_numbers(result)
    expected = _numbers_of(facts, picture)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=_tolerance(expected)):
        raise UserError(
            f"expected the bundle to give for a picture what the run's network gives, found a difference of "
            f"{np.abs(found - expected).max():.2g}: its inference prepares pictures in another way; report this"
        )


def prove_weights(path: Path, facts: Facts) -> None:
    """Load weights strictly into a network that is built anew, and compare what both make of a picture.

    Raises:
        UserError: they do not fill it, or it gives other numbers.
    """
    network: nn.Module
    if facts.classes:
        network = build_classifier(facts.backbone, len(facts.classes), head=facts.header.get("head", "linear"))
        load_strictly(network, read_tensors(path), "the shared network", path)
    else:
        network = build_backbone(facts.backbone, weights=path)
    equal_features(network, facts, str(path))


def equal_features(network: nn.Module, facts: Facts, name: str) -> None:
    """Refuse a network whose numbers for a picture are not those of the run's network.

    Raises:
        UserError: they are not.
    """
    pictures = torch.rand(2, 3, facts.size, facts.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = facts.network.eval()(pictures).numpy(), network.eval()(pictures).numpy()
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=_tolerance(expected)):
        raise UserError(f"expected the features of the run's network from {name}, found others: report this")


def prove_private(folder: Path, facts: Facts) -> None:
    """Refuse a folder with a file that holds a path of the run, of its data or of whoever shares it.

    Raises:
        UserError: there is one.
    """
    private = {text for text in (*facts.private, str(Path.home()), *_INSTALLED) if not PLACE_OF_DATA.startswith(text)}
    whole = {text: _pattern(text) for text in private}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for text in _texts(path):
            if held := sorted(each for each, pattern in whole.items() if pattern.search(text)):
                raise UserError(
                    f"expected no path of this machine in {path.name}, found {held[0]}: leave it out of what is stated"
                )


def _pattern(path: str) -> re.Pattern[str]:
    """Finds a path and what lies below it; a short one, as /data, not as a part of another path or address."""
    before = r"(?:(?<![\w./-])|(?<=//))" if len(Path(path).parts) < 3 else ""
    forms = dict.fromkeys((path, json.dumps(path)[1:-1]))  # as it is, and as JSON writes it
    return re.compile(rf"{before}(?:{'|'.join(map(re.escape, forms))})(?![\w-])")


def _texts(path: Path) -> Iterator[str]:
    """What a file says in words: texts, the header of weights, and all of an archive but its numbers."""
    if path.suffix in _TEXT:
        yield path.read_text(encoding="utf-8", errors="replace")
    elif path.suffix == ".safetensors":
        with path.open("rb") as file:
            yield file.read(int.from_bytes(file.read(8), "little")).decode("utf-8", "replace")
    elif path.suffix in (".pt", ".ts"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not {"data", "constants"} & {*name.split("/")[1:-1]}:
                    yield archive.read(name).decode("utf-8", "replace")


def run_inference(folder: Path, pictures: Path, result: Path) -> None:
    """Check the properties of a bundle's inference and run it on pictures, from another working folder.

    Raises:
        UserError: MONAI misses a property, or the run ends with a mistake.
    """
    from monai.bundle import ConfigWorkflow

    said = StringIO()
    with _as_it_was(result.parent), quietly(), redirect_stderr(said), redirect_stdout(StringIO()):
        workflow = ConfigWorkflow(
            workflow_type="inference",
            config_file=str(folder / "configs" / "inference.json"),
            meta_file=str(folder / "configs" / "metadata.json"),
            logging_file=False,
            bundle_root=str(folder),
            dataset_dir=str(pictures),
            output_dir=str(result),
            device="cpu",
            workers=0,
        )
        try:
            workflow.initialize()
            lacking = workflow.check_properties()
            workflow.run()
            workflow.finalize()
        except SystemExit as error:  # a mistake that the bundle told in a sentence
            raise UserError(f"the shared bundle does not run: {said.getvalue().strip().splitlines()[-1]}") from error
    if lacking:
        raise UserError(f"expected the properties that MONAI asks of an inference, found none of {', '.join(lacking)}")


@contextmanager
def _as_it_was(folder: Path) -> Iterator[None]:
    """Another working folder for a while; what a bundle changes of this process is put back."""
    before, path, hook, tf32 = Path.cwd(), list(sys.path), sys.excepthook, torch.backends.cudnn.allow_tf32
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        sys.excepthook = hook
        torch.backends.cudnn.allow_tf32 = tf32


def _draw_picture(path: Path, facts: Facts) -> torch.Tensor:
    """A synthetic slice as a file, and as inference reads it, uint8 (C, H, W)."""
    from PIL import Image

    from lessismore_transforms.phantom.scan import phantom_scan

    scan = phantom_scan(0, slices=3, size=96)
    low, high = float(scan.hu.min()), float(scan.hu.max())
    grey = ((scan.hu[1] - low) / (high - low) * 255).astype(np.uint8)
    path.parent.mkdir(parents=True)
    Image.fromarray(grey).save(path)
    picture = np.atleast_3d(read_image(path, facts.channels)).transpose(2, 0, 1)
    return torch.from_numpy(picture.copy())


def _numbers_of(facts: Facts, picture: torch.Tensor) -> Any:
    with torch.no_grad():
        given = facts.network.eval()(_wide(facts.prepare(picture)))[0].double()
    return (given.softmax(0) if facts.classes else given).numpy()


def _wide(image: torch.Tensor) -> torch.Tensor:
    return image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image


def _read_numbers(result: Path) -> Any:
    (table,) = result.glob("*.csv")
    with table.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return np.array([float(value) for name, value in row.items() if name.startswith(("e_", "p_"))])


def _tolerance(expected: Any) -> float:
    return float(_TOLERANCE * max(1.0, np.abs(expected).max()))
