from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events

from lessismore_transforms.classification.freezing import (
    FreezeEncoder,
    encoder_weights,
    frozen_epochs,
    released_factor,
)
from lessismore_transforms.classification.network import build_classifier
from lessismore_transforms.training.schedules import Schedule

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("mode", "pretrained", "sentence"),
    [
        ("finetune", None, "expected pre-trained weights for mode finetune, found none: give --pretrained FILE, or"),
        ("linear", "", "expected pre-trained weights for mode linear, found none"),
        ("scratch", "a.pt", "expected no weights for mode scratch, found a.pt: leave out pretrained or mode"),
        ("fine", None, "expected a mode out of finetune, linear, scratch, found 'fine'; finetune is usual"),
    ],
)
def test_a_mode_that_does_not_go_with_the_weights(mode: str, pretrained: str | None, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + sentence):
        encoder_weights(mode, pretrained)


def test_weights_and_epochs_of_each_mode() -> None:
    assert [encoder_weights(mode, "a.pt") for mode in ("finetune", "linear")] == ["a.pt", "a.pt"]
    assert encoder_weights("scratch", None) == "random"
    assert [frozen_epochs(mode, 70) for mode in ("finetune", "linear", "scratch")] == [10, 70, 0]
    assert [frozen_epochs(mode, 70, 3) for mode in ("finetune", "linear", "scratch")] == [3, 70, 3]
    with pytest.raises(ValueError, match="expected frozen_epochs of 0 or more, found -1"):
        frozen_epochs("finetune", 70, -1)
    words = r"more epochs than the 10 in which the encoder is frozen, found max_epochs 10: give --frozen_epochs 0 to 9"
    with pytest.raises(ValueError, match=words):
        frozen_epochs("finetune", 10)
    assert frozen_epochs("finetune", 10, 9) == 9
    with pytest.raises(ValueError, match="more epochs than the 5 in which"):
        frozen_epochs("scratch", 2, 5)


def run(epochs: int, *handlers: object) -> list[tuple[float, bool, bool]]:
    """Rate, and whether a convolution and a batch norm train, in each epoch of two iterations."""
    network = build_classifier("resnet18", 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    trace: list[tuple[float, bool, bool]] = []

    def step(_: Engine, batch: int) -> None:
        backbone = network.train().backbone
        seen = (optimizer.param_groups[0]["lr"], backbone.conv1.weight.requires_grad, backbone.bn1.training)
        if batch == 0:
            trace.append(seen)
        assert trace[-1] == seen  # the same in all iterations of an epoch
        assert backbone.bn1.weight.requires_grad == backbone.bn1.training

    engine = Engine(step)
    Schedule(optimizer, lambda iteration: released_factor(iteration, every=2)).attach(engine)
    FreezeEncoder(network, 10, batch_norm=False).attach(engine)
    engine.run([0, 1], max_epochs=epochs)
    return trace


def test_the_released_schedule_value_by_value() -> None:
    """Epochs 0 to 9 frozen but for batch norms, 10 all at 1e-4, 11 to 69 all at 2e-5."""
    trace = run(70)
    assert [rate for rate, _, _ in trace] == pytest.approx([1e-4] * 11 + [2e-5] * 59, rel=1e-12)
    assert [convolution for _, convolution, _ in trace] == [False] * 10 + [True] * 60
    assert all(norm for _, _, norm in trace)


def test_the_paper_freezes_batch_norms_too_and_a_resumed_run_knows_its_epoch() -> None:
    network = build_classifier("resnet18", 2)
    engine = Engine(lambda *_: network.train())
    FreezeEncoder(network, 3).attach(engine)
    frozen: list[bool] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: frozen.append(not network.backbone.bn1.training))
    engine.load_state_dict({"iteration": 3, "max_epochs": 5, "epoch_length": 2})  # in the middle of epoch 2
    engine.run([0, 1])
    assert frozen == [True, True, False, False]
