"""A shared network as a folder for timm, torchvision and a model hub: config.json, model.safetensors, README.md.

    timm.create_model("local-dir:NAME", pretrained=True)

Nothing is uploaded; the user does that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lessismore_transforms.atomic import write_json
from lessismore_transforms.bundle_folders import bundle_folder
from lessismore_transforms.errors import UserError
from lessismore_transforms.sharing.card import card, licence_text
from lessismore_transforms.sharing.configs import fill_metadata, read_configuration
from lessismore_transforms.sharing.facts import Facts, numbers, sha256
from lessismore_transforms.sharing.proof import equal_features, prove_private
from lessismore_transforms.sharing.settings import ShareSettings

_WEIGHTS, _CONFIG, _TIMM = "model.safetensors", "config.json", "timm:"
_KEPT = (  # of what timm writes; the rest (tag, licence, papers, size of a test) is about timm's own ImageNet weights
    "custom_load", "input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std",
    "num_classes", "pool_size", "first_conv", "classifier",
)  # fmt: skip
# Names of licences that the Hugging Face Hub takes in front matter; any other one is `other` with its name beside.
_HUB_LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0",
    "unlicense",
)  # fmt: skip


def write_hub(folder: Path, facts: Facts, settings: ShareSettings) -> None:
    """Write the folder.

    Raises:
        UserError: timm has no network with these tensors.
        OSError: the folder cannot be written.
    """
    from timm.models import save_for_hf

    model = timm_model(facts)
    mean, std = (numbers(facts.header[name]) for name in ("mean", "std"))
    given = {
        "input_size": (3, facts.size, facts.size),
        "mean": tuple(mean * (3 // len(mean))),
        "std": tuple(std * (3 // len(std))),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
    }
    labels = {"label_names": list(facts.classes)} if facts.classes else {}
    save_for_hf(model, str(folder), model_config={"pretrained_cfg": given, **labels}, safe_serialization=True)
    _drop_foreign(folder / _CONFIG)
    (folder / _WEIGHTS).chmod((folder / _CONFIG).stat().st_mode)  # timm's file is for its owner alone
    for name, draw in facts.pictures.items():
        draw(folder / name)
    source = bundle_folder(facts.bundle)
    metadata = fill_metadata(read_configuration(source / "configs" / "metadata.json"), facts, settings)
    modality = metadata["network_data_format"]["inputs"]["image"]["modality"]
    files = [(_WEIGHTS, sha256(folder / _WEIGHTS))]
    text = card(facts, settings, use=_use(facts, settings), metadata=metadata, files=files)
    (folder / "README.md").write_text(front_matter(facts, settings, modality) + text, encoding="utf-8")
    apache = (source / "LICENSE").read_text(encoding="utf-8")
    (folder / "LICENSE").write_text(licence_text(apache, settings).replace("(models/) ", ""), encoding="utf-8")


def prove_hub(folder: Path, facts: Facts) -> None:
    """Load the folder as its users do and compare features.

    Raises:
        UserError: timm or torchvision give other features, or a file holds a path.
    """
    import timm
    from safetensors.torch import load_file
    from torchvision import models

    prove_private(folder, facts)
    equal_features(timm.create_model(f"local-dir:{folder}", pretrained=True), facts, "timm's create_model")
    if facts.backbone.startswith(_TIMM):
        return
    network: Any = models.get_model(facts.backbone, weights=None)
    network.fc = nn.Linear(network.fc.in_features, len(facts.classes)) if facts.classes else nn.Identity()
    network.load_state_dict(load_file(folder / _WEIGHTS))
    equal_features(network, facts, "torchvision's network")


def timm_model(facts: Facts) -> nn.Module:
    """The network in timm's names.

    Raises:
        UserError: timm has no such network, or a head that is no linear layer.
    """
    import timm

    name = facts.backbone.removeprefix(_TIMM)
    if facts.header.get("head", "linear") != "linear":
        raise UserError("expected a network with a linear head for --hub, found another one: share it as a bundle")
    torchvision = not facts.backbone.startswith(_TIMM)
    if not timm.is_model(name) or (torchvision and not name.startswith(("resnet", "resnext", "wide_resnet"))):
        raise UserError(
            f"expected a network that timm names as torchvision does, a ResNet or timm:NAME, for --hub, found "
            f"{facts.backbone}: share it as a bundle"
        )
    with torch.random.fork_rng(devices=[]):
        model: Any = timm.create_model(name, num_classes=len(facts.classes))
    tensors = facts.network.state_dict()
    if facts.classes:
        head = model.pretrained_cfg["classifier"]
        tensors = {
            key.removeprefix("backbone.").replace("classifier.", f"{head}.", 1)
            if key.startswith("classifier.")
            else key.removeprefix("backbone."): value
            for key, value in tensors.items()
        }
    model.load_state_dict(tensors)
    return model.eval()  # type: ignore[no-any-return]


def front_matter(facts: Facts, settings: ShareSettings, modality: str) -> str:
    """The head of the card, which a hub reads."""
    assert settings.license is not None
    licence = settings.license.strip().lower()
    known = licence in _HUB_LICENCES
    lines = [
        f"license: {licence if known else 'other'}",
        *([] if known else [f"license_name: {_quoted(settings.license.strip())}"]),
        "library_name: timm",
        f"pipeline_tag: {'image-classification' if facts.classes else 'image-feature-extraction'}",
        "tags:",
        "- medical",
        *([f"- {modality.lower()}"] if facts.modality_known else []),
        *([] if facts.classes else ["- self-supervised"]),
    ]
    return "---\n" + "\n".join(lines) + "\n---\n"


def _drop_foreign(path: Path) -> None:
    """Leave out of config.json what timm tells of its own weights of that architecture."""
    config = json.loads(path.read_text(encoding="utf-8"))
    told = config["pretrained_cfg"]
    config["pretrained_cfg"] = {name: told[name] for name in _KEPT if name in told}
    write_json(path, config, indent=2)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _use(facts: Facts, settings: ShareSettings) -> str:
    mean, std = (numbers(facts.header[name]) for name in ("mean", "std"))
    size = facts.size
    code = f"""With timm (the path of this folder; on a hub `hf-hub:OWNER/NAME`):
```python
import timm

model = timm.create_model("local-dir:{settings.name}", pretrained=True).eval()
```
It takes pictures (N, 3, {size}, {size}) in 0..1, grey ones as three equal channels, less {mean}, divided by {std}."""
    if facts.backbone.startswith(_TIMM):
        return code
    last = (
        f"model.fc = torch.nn.Linear(model.fc.in_features, {len(facts.classes)})"
        if facts.classes
        else ("model.fc = torch.nn.Identity()")
    )
    return f"""{code}

With torchvision:
```python
import torch
import torchvision
from safetensors.torch import load_file

model = torchvision.models.{facts.backbone}()
{last}
model.load_state_dict(load_file("{settings.name}/model.safetensors"))
```"""
