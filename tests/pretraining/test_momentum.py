from __future__ import annotations

import math

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import nn

from lessismore_transforms.pretraining.momentum import MomentumUpdate, cosine_momentum, momentum_copy, update_copy


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def changed(module: nn.Module) -> None:
    """Give every parameter and every buffer other values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            value.add_(torch.randn(value.shape, generator=generator).to(value.dtype) + 3)


def test_a_copy_is_equal_apart_and_without_gradient():
    online = network()
    target = momentum_copy(online)
    before = {name: value.clone() for name, value in online.state_dict().items()}
    changed(online)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    assert not any(parameter.requires_grad for parameter in target.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())


def test_each_parameter_moves_by_the_momentum_and_buffers_stay():
    online = network()
    target = momentum_copy(online)
    changed(online)
    expected = {
        name: [0.9 * old + 0.1 * new for old, new in zip(t.flatten().tolist(), o.flatten().tolist(), strict=True)]
        for (name, t), o in zip(target.named_parameters(), online.parameters(), strict=True)
    }
    buffers = [value.clone() for value in target.buffers()]
    update_copy(target, online, 0.9)
    for name, parameter in target.named_parameters():
        assert parameter.flatten().tolist() == pytest.approx(expected[name], rel=1e-6, abs=1e-6)
    assert len(buffers) == 3
    assert all(torch.equal(a, b) for a, b in zip(target.buffers(), buffers, strict=True))


def test_equal_networks_stay_equal_to_the_bit_and_momentum_0_copies():
    online = network()
    target = momentum_copy(online)
    update_copy(target, online, 0.999)
    assert all(torch.equal(t, o) for t, o in zip(target.parameters(), online.parameters(), strict=True))
    changed(online)
    update_copy(target, online, 0.0)
    assert all(torch.equal(t, o) for t, o in zip(target.parameters(), online.parameters(), strict=True))


def test_n_updates_of_a_still_network_leave_the_nth_power_of_the_momentum():
    online, target = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(online.weight, 0.0)
    nn.init.constant_(target.weight, 1.0)
    for _ in range(100):
        update_copy(target, online, 0.99)
    assert target.weight.item() == pytest.approx(0.99**100, rel=1e-5)


def test_the_cosine_goes_from_the_start_to_1_and_stays_there():
    values = [cosine_momentum(iteration, start=0.996, total=200) for iteration in (0, 50, 100, 150, 200, 201, 400)]
    rise = math.sqrt(0.5)
    quarters = [0.996, 1 - 0.004 * (1 + rise) / 2, 0.998, 1 - 0.004 * (1 - rise) / 2, 1.0, 1.0, 1.0]
    assert values == pytest.approx(quarters, abs=1e-12)
    swings = [cosine_momentum(iteration, start=0.996, total=200, clamp=False) for iteration in (200, 300, 400, 600)]
    assert swings == pytest.approx([1.0, 0.998, 0.996, 1.0], abs=1e-12)


def events_of_a_training(handler_of, *, accumulation: int = 1) -> list[str]:
    """What happens in two epochs of four batches, in order."""
    events: list[str] = []

    class Watched(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            events.append("forward")
            return super().forward(x)

    model = Watched(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: events.append("step"))
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=[{"image": torch.ones(1, 2), "label": torch.zeros(1, 1)}] * 4,
        network=model,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        accumulation_steps=accumulation,
        decollate=False,
        train_handlers=[handler_of(events)],
    ).run()
    return events


def test_the_update_comes_before_the_forward_of_each_step():
    events = events_of_a_training(lambda events: MomentumUpdate(lambda momentum: events.append(f"{momentum}"), 0.999))
    assert events == ["0.999", "forward", "step"] * 8


def test_iterations_that_only_add_gradients_up_do_not_update():
    events = events_of_a_training(
        lambda events: MomentumUpdate(lambda momentum: events.append(f"{momentum}"), 0.9), accumulation=2
    )
    assert events == ["0.9", "forward", "forward", "step"] * 4


def test_with_a_total_the_momentum_rises_over_the_iterations():
    momenta: list[float] = []
    events_of_a_training(lambda _: MomentumUpdate(momenta.append, 0.996, total=8), accumulation=2)
    assert momenta == [cosine_momentum(iteration, start=0.996, total=8) for iteration in (0, 2, 4, 6)]
    assert momenta[0] == pytest.approx(0.996)
    assert momenta[2] == pytest.approx(0.998)


@pytest.mark.parametrize("momentum", [-0.1, 1.5, math.nan])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(ValueError, match=r"^expected a momentum from 0 to 1, found .*; 0\.999 is usual$"):
        MomentumUpdate(lambda _: None, momentum)
