"""The trainer of a classifier where a batch holds one picture."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lessismore_transforms.classification.examples import Example, Examples, Split
from lessismore_transforms.classification.network import Classifier, build_classifier
from lessismore_transforms.classification.preprocessing import Prepare
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.classification.trainer import KeepBest, make_evaluator, make_plan, make_trainer
from lessismore_transforms.errors import UserError
from lessismore_transforms.training import assembly
from lessismore_transforms.training.precision import AutocastInferer

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 32  # pixels, of which a ResNet leaves one


def trainer(folder: Path, network: Classifier, pictures: int = 4, **changes: Any) -> Any:
    settings = ClassificationSettings(
        "data", str(folder), backbone="resnet18", pretrained="a.pt", device="cpu", workers=0, max_epochs=1, **changes
    )
    random = np.random.default_rng(0)
    sizes = {"train": pictures, "val": 2}
    listed = tuple(Example(f"{split}/{k}", k % 2, split) for split, count in sizes.items() for k in range(count))
    examples = Examples("task", ("a", "b"), listed, [random.integers(0, 256, (40, 40), np.uint8) for _ in listed], 1)
    train, val = (Split(examples, name, Prepare(SIZE)) for name in ("train", "val"))
    inferer = AutocastInferer("cpu", "fp32")
    evaluator = make_evaluator(settings, dataset=val, bare_network=network, network=network, inferer=inferer)
    return make_trainer(
        settings,
        plan=make_plan(settings, train),
        examples=examples,
        dataset=train,
        origin={"method": None, "id": None, "epoch": None},
        bare_network=network,
        network=network,
        loss_function=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-3),
        schedule=None,
        inferer=inferer,
        best=KeepBest(network, evaluator, "loss"),
    )


class Plain(nn.Module):
    """An encoder without batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layer(images).mean((2, 3))
        return features


@pytest.mark.parametrize("kind", ["frozen", "plain"])
def test_one_picture_a_step_where_no_batch_norm_trains(tmp_path: Path, kind: str) -> None:
    """A frozen encoder keeps its statistics; an encoder without batch norms has none."""
    network: Classifier
    mode: dict[str, Any]
    if kind == "frozen":
        network, mode = build_classifier("resnet18", 2), {"mode": "linear", "linear_recipe": "adam"}
    else:
        network, mode = Classifier(Plain(), 5, 2), {"mode": "finetune", "frozen_epochs": 0}
    weight = network.classifier.get_parameter("weight")
    before = weight.detach().clone()
    made = trainer(tmp_path, network, batch_size=1, **mode)
    made.run()
    assert made.state.iteration == 4
    assert not torch.equal(weight, before)


@pytest.mark.parametrize(
    ("head", "changes"),
    [
        ("linear", {"mode": "finetune", "frozen_epochs": 0}),
        ("linear", {"mode": "finetune", "frozen_epochs": 0, "frozen_batch_norm": False}),
        ("mlp", {"mode": "linear", "linear_recipe": "adam"}),
    ],
)
def test_one_picture_a_step_is_refused_where_a_batch_norm_trains(
    tmp_path: Path, head: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_classifier("resnet18", 2, head=head)
    with pytest.raises(UserError, match="expected 2 pictures or more for each process and step, found 1: batch norms"):
        trainer(tmp_path, network, batch_size=1, **changes)
    assert not list(tmp_path.iterdir())
    made = trainer(tmp_path, network, pictures=5, batch_size=2, **changes)
    made.run()
    assert made.state.iteration == 2  # the fifth picture would be alone
    monkeypatch.setattr(assembly, "process_count", lambda: 2)  # of 7 pictures the last batch of 3 is 1 and 2
    last = pytest.raises(UserError, match="found 1 in the last step of an epoch: batch norms need the statistics")
    with last if head == "mlp" else nullcontext():  # in the encoder a picture has places
        trainer(tmp_path / "two", network, pictures=7, batch_size=4, **changes)
