"""SimCLR with lightly on the slices that `reduce` kept: `python lightly_simclr.py OUT`; --help has the options.

The slices come straight from OUT; nothing is exported. The encoder is written with a header, so that `probe` takes it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_pil_image

from lessismore_transforms import Manifest, SliceSelectionDataset, build_backbone, save_backbone


class Views:
    """Two views of a slice, each (3, size, size)."""

    def __init__(self, size: int, mean: float, std: float) -> None:
        # The slices are grey: hue, saturation and a change to grey would do nothing.
        self.draw = SimCLRTransform(
            input_size=size,
            cj_sat=0.0,
            cj_hue=0.0,
            random_gray_scale=0.0,
            cj_strength=0.5,
            min_scale=0.2,
            normalize={"mean": [mean] * 3, "std": [std] * 3},
        )

    def __call__(self, item: dict[str, Any]) -> list[torch.Tensor]:
        """The views of an item of the data set."""
        return self.draw(to_pil_image(item["image"].expand(3, -1, -1)))


def main(out: Path, selection: str, weights: Path, *, size: int, batch_size: int, epochs: int) -> None:
    """Pre-train, and write the encoder."""
    grey = Manifest.read(out).info["store"]  # mean and deviation of the kept slices, in 0..1
    slices = SliceSelectionDataset(out, selection, transform=Views(size, grey["mean"], grey["std"]))
    loader = DataLoader(slices, batch_size, shuffle=True, drop_last=True)

    encoder = build_backbone("resnet18", weights="random")  # (B, 3, H, W) in, (B, 512) out
    head = SimCLRProjectionHead(input_dim=512, hidden_dim=512, output_dim=128)
    criterion = NTXentLoss(temperature=0.5)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-4)

    encoder.train()
    for epoch in range(epochs):
        total = 0.0
        for first, second in loader:
            loss = criterion(head(encoder(first)), head(encoder(second)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}")
    header = {"backbone": "resnet18", "mean": [grey["mean"]], "std": [grey["std"]], "image_size": size, "channels": 1}
    save_backbone(weights, encoder, header)
    print(f"{len(slices)} slices, encoder: {weights}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of reduce")
    parser.add_argument("--selection", default="default", help="which of its selections")
    parser.add_argument("--weights", type=Path, default=Path("lightly.safetensors"), help="file for the encoder")
    parser.add_argument("--size", type=int, default=64, help="pixels per side of a view; 224 is usual")
    parser.add_argument("--batch_size", type=int, default=16, help="256 is usual")
    parser.add_argument("--epochs", type=int, default=2, help="hundreds are usual")
    main(**vars(parser.parse_args()))
