from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events

from lessismore_transforms.classification.freezing import FreezeEncoder, halved_factor, released_factor
from lessismore_transforms.classification.network import build_classifier
from lessismore_transforms.training.schedules import Schedule

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_the_released_schedule_of_a_perceptron_is_that_of_its_loop() -> None:
    """Against a schedule of PyTorch that takes its steps as the released linear.py does."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=25, gamma=0.5)
    expected = []
    for epoch in range(200):
        expected += [optimizer.param_groups[0]["lr"]] * 3  # three iterations of an epoch
        optimizer.step()
        if epoch > 25:
            schedule.step()
    assert [halved_factor(iteration, every=3) for iteration in range(600)] == pytest.approx(expected, rel=1e-12)
    assert sorted(set(expected), reverse=True) == [0.5**number for number in range(7)]
