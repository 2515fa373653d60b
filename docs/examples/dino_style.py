"""A student and its teacher, in the style of DINO, on exported slices: `python dino_style.py PICTURES`.

PICTURES is what `export --format imagefolder` writes; torchvision's ImageFolder reads it, and so does any trainer that
takes one. After Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, Section 3.1 and
Algorithm 1 (arXiv:2104.14294), with a small ResNet; what keeps a long training stable (schedules of momentum,
temperature and weight decay, a frozen last layer) is left out.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import v2

GLOBAL, LOCAL = 2, 4  # crops of a picture
STUDENT, TEACHER, MOMENTUM = 0.1, 0.04, 0.996  # two temperatures; of the teacher


class MultiCrop:
    """Large and small crops of a picture: 2 x (3, size, size), then 4 x (3, size / 2, size / 2)."""

    def __init__(self, size: int) -> None:
        self.large, self.small = (
            self._crops(side, scale) for side, scale in ((size, (0.4, 1)), (size // 2, (0.1, 0.4)))
        )

    def __call__(self, picture: object) -> list[torch.Tensor]:
        """The crops of a picture, the large ones first."""
        return [self.large(picture) for _ in range(GLOBAL)] + [self.small(picture) for _ in range(LOCAL)]

    @staticmethod
    def _crops(side: int, scale: tuple[float, float]) -> v2.Compose:
        return v2.Compose(
            [
                v2.ToImage(),
                v2.RandomResizedCrop(side, scale=scale, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.4, contrast=0.4),  # no hue and no saturation: the slices are grey
                v2.RandomApply([v2.GaussianBlur(5, (0.1, 2.0))], p=0.5),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.24] * 3, [0.26] * 3),  # `store` in OUT/manifest.json tells those of your slices
            ]
        )


def network(outputs: int) -> nn.Sequential:
    """An encoder and a head."""
    encoder = resnet18()
    encoder.fc = nn.Identity()
    return nn.Sequential(encoder, nn.Linear(512, 256), nn.GELU(), nn.Linear(256, outputs))


def dino_loss(student: list[torch.Tensor], teacher: list[torch.Tensor], center: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between the teacher on a large crop and the student on every other crop.

    Args:
        student: logits (B, K) of all crops, the large ones first.
        teacher: logits (B, K) of the large crops.
        center: running mean of the teacher's logits, (K,).
    """
    targets = [F.softmax((logits - center) / TEACHER, dim=1) for logits in teacher]  # (B, K)
    guesses = [F.log_softmax(logits / STUDENT, dim=1) for logits in student]  # (B, K)
    terms = [-(p * q).sum(1).mean() for i, p in enumerate(targets) for j, q in enumerate(guesses) if i != j]
    return torch.stack(terms).mean()


def main(pictures: Path, weights: Path, *, size: int, batch_size: int, epochs: int, outputs: int = 256) -> None:
    """Pre-train, and write the teacher's encoder."""
    folder = ImageFolder(str(pictures), transform=MultiCrop(size))  # its classes, the volumes, are not used
    loader = DataLoader(folder, batch_size, shuffle=True, drop_last=True)
    student = network(outputs)
    teacher = copy.deepcopy(student).requires_grad_(False)
    center = torch.zeros(outputs)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4, weight_decay=0.04)
    for epoch in range(epochs):
        total = 0.0
        for crops, _ in loader:
            with torch.no_grad():
                known = [teacher(crop) for crop in crops[:GLOBAL]]
            loss = dino_loss([student(crop) for crop in crops], known, center)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                center = 0.9 * center + 0.1 * torch.cat(known).mean(0)
                for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                    slow.lerp_(fast, 1 - MOMENTUM)
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}")
    torch.save(teacher[0].state_dict(), weights)
    print(f"{len(folder)} slices of {len(folder.classes)} volumes, encoder: {weights}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("pictures", type=Path, metavar="PICTURES", help="an exported ImageFolder")
    parser.add_argument("--weights", type=Path, default=Path("dino.pt"), help="file for the encoder")
    parser.add_argument("--size", type=int, default=64, help="pixels per side of a large crop; 224 is usual")
    parser.add_argument("--batch_size", type=int, default=16, help="hundreds are usual")
    parser.add_argument("--epochs", type=int, default=2, help="a hundred and more are usual")
    main(**vars(parser.parse_args()))
