"""A shared network as a MONAI bundle: the files of the bundle that trained it, weights, and a card.

NAME/configs/           inference, training with the settings of the run, metadata
NAME/scripts/  LICENSE  code of the method
NAME/models/            model.safetensors, model.pt (a bare state_dict, as the zoo wants it), model.ts where asked for
NAME/docs/              README.md (the card), its pictures, data_license.txt
NAME/large_files.yml    address and SHA-256 of files above 25 MB, which the zoo keeps elsewhere
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import torch

from lessismore_transforms.bundle_folders import bundle_folder, copy_bundle
from lessismore_transforms.methods import METHODS
from lessismore_transforms.sharing.card import card, data_licence_text, licence_text
from lessismore_transforms.sharing.configs import (
    fill_inference,
    fill_metadata,
    fill_training,
    read_configuration,
    write_configuration,
)
from lessismore_transforms.sharing.facts import Facts, sha256
from lessismore_transforms.sharing.quiet import quietly
from lessismore_transforms.sharing.settings import ShareSettings

LARGE = 25_000_000  # bytes; what the zoo keeps in git
LARGE_FILES = "large_files.yml"
_SAFETENSORS, _PT, _TS = "models/model.safetensors", "models/model.pt", "models/model.ts"
_NOT_COPIED = ("*.pyc", "README.md", "*as_released.json", "*.png", "example_*")
_NO_ADDRESS = "STATE-THE-ADDRESS"


def write_bundle(folder: Path, facts: Facts, settings: ShareSettings) -> None:
    """Write the bundle into a new folder.

    Raises:
        UserError: this installation lacks the bundle that trained the network.
        OSError: the folder cannot be written.
    """
    source = bundle_folder(facts.bundle)
    of_others = [row.overlay for row in METHODS.values() if row.overlay not in ("", facts.overlay)]
    copy_bundle(source, folder, *_NOT_COPIED, *of_others)
    metadata = fill_metadata(read_configuration(source / "configs" / "metadata.json"), facts, settings)
    for path in sorted((folder / "configs").glob("*.json")):
        fill = fill_inference if path.name == "inference.json" else fill_training
        content = metadata if path.name == "metadata.json" else fill(read_configuration(path), facts, settings)
        write_configuration(path, content)
    write_weights(folder, facts, settings)
    names = [name for name in (_SAFETENSORS, _PT, _TS) if (folder / name).is_file()]
    files = [(name, sha256(folder / name)) for name in names]
    docs = folder / "docs"
    docs.mkdir(exist_ok=True)
    for name, draw in facts.pictures.items():
        draw(docs / name)
    text = card(facts, settings, use=_use(facts, settings), metadata=metadata, files=files)
    (docs / "README.md").write_text(text, encoding="utf-8")
    (docs / "data_license.txt").write_text(data_licence_text(settings), encoding="utf-8")
    apache = (source / "LICENSE").read_text(encoding="utf-8")
    (folder / "LICENSE").write_text(licence_text(apache, settings), encoding="utf-8")
    if large := [(name, digest) for name, digest in files if (folder / name).stat().st_size > LARGE]:
        (folder / LARGE_FILES).write_text(large_files_text(large, settings.url), encoding="utf-8")


def write_weights(folder: Path, facts: Facts, settings: ShareSettings) -> None:
    """Write the weights as safetensors, which say what they are, and as the bare state_dict that the zoo asks for."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save

    (folder / "models").mkdir()
    tensors = load_file(facts.weights)
    if facts.left_out:
        with safe_open(facts.weights, framework="pt") as file:
            header = {name: text for name, text in file.metadata().items() if name not in facts.left_out}
        (folder / _SAFETENSORS).write_bytes(save(tensors, header))
    else:
        shutil.copyfile(facts.weights, folder / _SAFETENSORS)
    torch.save(tensors, folder / _PT)
    if settings.torchscript:
        export_torchscript(folder)


def export_torchscript(folder: Path) -> None:
    """Write models/model.ts of the bundle in a folder, by MONAI's own export, without the paths of this machine."""
    from monai.bundle import ckpt_export

    with quietly():
        ckpt_export(
            net_id="network_def",
            filepath=str(folder / _TS),
            ckpt_file=str(folder / _PT),
            meta_file=str(folder / "configs" / "metadata.json"),
            config_file=str(folder / "configs" / "inference.json"),
            bundle_root=str(folder),
        )
    _drop_source(folder / _TS)


def _drop_source(path: Path) -> None:
    """Leave out of a TorchScript file where in this machine's files each line of its code was."""
    whole = path.with_name(f"{path.name}.whole")
    path.rename(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            if not member.filename.endswith(".debug_pkl"):
                target.writestr(member, source.read(member))
    whole.unlink()


def large_files_text(files: list[tuple[str, str]], url: str | None) -> str:
    """The text of large_files.yml.

    Args:
        files: path in the bundle and SHA-256 of each file.
        url: address of the folder from which they will be downloaded; None leaves a mark in its place.
    """
    base = (url or _NO_ADDRESS).rstrip("/")
    lines = ["large_files:"]
    for path, digest in files:
        lines += [
            f'- path: "{path}"',
            f'  url: "{base}/{Path(path).name}"',
            f'  hash_val: "{digest}"',
            '  hash_type: "sha256"',
        ]
    return "\n".join(lines) + "\n"


def _use(facts: Facts, settings: ShareSettings) -> str:
    gives = "`predictions.csv`: a class and probabilities" if facts.classes else "`embeddings.csv`: a row of numbers"
    weights = "weights" if facts.classes else "pretrained"
    config = "configs/train.json"
    if facts.overlay:
        config = f"\"['configs/train.json','configs/{facts.overlay}']\""
    tail = (
        "\n\nPictures (PNG, JPEG) at any depth, or what the bundle that trained it reads too. The network takes one "
        "channel or three and gives logits; softmax makes probabilities of them."
        if facts.classes
        else "\n\nPictures (PNG, JPEG, TIFF, DICOM) at any depth, or an output of `reduce`. To go on from them in a "
        "classification bundle give it `--pretrained models/model.safetensors`."
    )
    return f"""In this folder, with `lessismore_transforms` installed:
```
python -m monai.bundle run --config_file configs/inference.json --dataset_dir PICTURES --output_dir RESULT
```
From another folder add `--bundle_root THIS_FOLDER` and name the configuration by its path there.
It writes {gives} for each picture. `models/model.pt` is read by default; `--{weights} models/model.safetensors` is the
same.{tail}

The training, with the settings of this run:
```
python -m monai.bundle run --config_file {config} --dataset_dir DATA --output_dir RUN
```"""
