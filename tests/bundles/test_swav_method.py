from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import bundle_scripts, in_processes
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from timm.optim import Lars
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lessismore_transforms.training.processes import process_count, process_rank
from lessismore_transforms.weights.backbones import build_backbone

scripts = bundle_scripts("ct_swav_pretraining")
SwAV, SwAVLoss, sinkhorn = scripts.SwAV, scripts.SwAVLoss, scripts.sinkhorn


pytestmark = pytest.mark.usefixtures("torch_seed")


class Corner(nn.Module):
    """The features of a picture are its first F pixels; counts its passes."""

    def __init__(self, features: int):
        super().__init__()
        self.features, self.passes = features, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        assert x.shape[1] == 3
        return x[:, 0].flatten(1)[:, : self.features]


def tiny(**settings) -> SwAV:
    """A network whose embeddings are the normalised first two pixels."""
    network = SwAV(Corner(2), 2, **{"embedding": 2, "hidden": 4, "prototypes": 3, **settings})
    network.projection_head = nn.Identity()
    return network


def picture(*pixels: float) -> torch.Tensor:
    return torch.tensor(pixels).reshape(1, 1, 1, -1)


# Slow and obvious: in loops, linear space, float64.


def slow_sinkhorn(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    q = np.exp(scores.astype(np.float64) / epsilon).T  # (K, B)
    k, b = q.shape
    q /= q.sum()
    for _ in range(iterations):
        for row in range(k):
            q[row] /= q[row].sum() * k
        for column in range(b):
            q[:, column] /= q[:, column].sum() * b
    return (q * b).T


def slow_loss(
    scores: np.ndarray, temperature: float, epsilon: float, iterations: int, assigning: int, queue=None
) -> float:
    views, batch, k = scores.shape
    by_assigning = []
    for i in range(assigning):
        seen = scores[i] if queue is None else np.concatenate([queue[i], scores[i]])
        q = slow_sinkhorn(seen, epsilon, iterations)[-batch:]
        by_view = []
        for v in range(views):
            if v == i:
                continue
            total = 0.0
            for b in range(batch):
                p = np.exp(scores[v, b] / temperature)
                p /= p.sum()
                total -= sum(q[b, j] * math.log(p[j]) for j in range(k))
            by_view.append(total / batch)
        by_assigning.append(sum(by_view) / len(by_view))
    return sum(by_assigning) / assigning


def cosines(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, dtype=dtype) * 2 - 1


# Sinkhorn.


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_sinkhorn_equals_the_plain_loop(iterations: int, epsilon: float):
    scores = cosines(12, 7)
    expected = slow_sinkhorn(scores.numpy(), epsilon, iterations)
    codes = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
    assert codes.dtype == torch.float64
    np.testing.assert_allclose(codes.numpy(), expected, rtol=1e-10, atol=1e-14)
    single = sinkhorn(scores.float(), epsilon=epsilon, iterations=iterations)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-4, atol=1e-7)


def test_sinkhorn_by_hand():
    # Two pictures like the same prototype; one of them less: it is given the other prototype.
    half = 0.5 * math.log(9.0)
    codes = sinkhorn(torch.tensor([[2 * half, 0.0], [half, 0.0]], dtype=torch.float64), epsilon=1.0, iterations=1)
    # exp: [[9, 1], [3, 1]]; columns to sum 1: [[3/4, 1/2], [1/4, 1/2]]; rows to sum 1: [[3/5, 2/5], [1/3, 2/3]]
    torch.testing.assert_close(codes, torch.tensor([[3 / 5, 2 / 5], [1 / 3, 2 / 3]], dtype=torch.float64))


def test_sinkhorn_marginals():
    codes = sinkhorn(cosines(12, 8), epsilon=0.2, iterations=200)
    torch.testing.assert_close(codes.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((8,), 12 / 8, dtype=torch.float64))
    three = sinkhorn(cosines(12, 8), epsilon=0.05)
    torch.testing.assert_close(three.sum(1), torch.ones(12, dtype=torch.float64))


def test_sinkhorn_of_equal_scores_is_even():
    torch.testing.assert_close(sinkhorn(torch.ones(6, 4)), torch.full((6, 4), 0.25))


def test_sinkhorn_does_not_depend_on_the_order_of_pictures_or_prototypes():
    scores = cosines(9, 5)
    rows, columns = torch.randperm(9), torch.randperm(5)
    torch.testing.assert_close(sinkhorn(scores[rows][:, columns]), sinkhorn(scores)[rows][:, columns])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sinkhorn_survives_extreme_scores_under_autocast(dtype: torch.dtype):
    scores = torch.where(torch.rand(32, 20) < 0.5, 1.0, -1.0)
    scores[0], scores[1], scores[:, 0] = 1, -1, 1  # exp(1 / 0.05) = 4.9e8 is inf in float16
    with torch.autocast("cpu", dtype=dtype):
        codes = sinkhorn(scores.to(dtype))
    assert codes.dtype == torch.float32
    np.testing.assert_allclose(codes.numpy(), slow_sinkhorn(scores.numpy(), 0.05, 3), rtol=1e-4, atol=1e-6)


def test_sinkhorn_has_no_gradient():
    assert not sinkhorn(cosines(4, 3).requires_grad_()).requires_grad


# The loss.


@pytest.mark.parametrize(("views", "assigning"), [(8, 2), (2, 2), (5, 1), (3, 3)])
@pytest.mark.parametrize("queue", [0, 9])
def test_loss_equals_the_plain_loop(views: int, assigning: int, queue: int):
    prediction = {"scores": cosines(views, 6, 5)}
    if queue:
        prediction["queue_scores"] = cosines(assigning, queue, 5)
    earlier = prediction["queue_scores"].numpy() if queue else None
    expected = slow_loss(prediction["scores"].numpy(), 0.1, 0.05, 3, assigning, earlier)
    assert SwAVLoss(assigning=assigning)(prediction).item() == pytest.approx(expected, rel=1e-12)
    single = {name: scores.float() for name, scores in prediction.items()}
    assert SwAVLoss(assigning=assigning)(single).item() == pytest.approx(expected, rel=1e-5)


def test_loss_takes_its_settings():
    scores = cosines(4, 6, 5)
    expected = slow_loss(scores.numpy(), 0.3, 0.2, 1, 2)
    assert SwAVLoss(0.3, 0.2, 1)({"scores": scores}, None).item() == pytest.approx(expected, rel=1e-12)


def test_a_network_that_tells_nothing_apart_pays_ln_k():
    loss = SwAVLoss()({"scores": torch.full((8, 16, 500), 0.3)})
    assert loss.item() == pytest.approx(6.2146, abs=5e-5)
    assert loss.item() == pytest.approx(math.log(500), rel=1e-6)


def test_perfect_predictions_cost_little_and_swapped_ones_much():
    scores = torch.full((4, 10, 10), -1.0, dtype=torch.float64)
    scores[:, range(10), range(10)] = 1  # each picture has a prototype of its own, on which all crops agree
    agreed = SwAVLoss()({"scores": scores}).item()
    assert agreed == pytest.approx(math.log1p(9 * math.exp(-20)), rel=1e-6)
    scores[2:] = scores[2:].roll(1, dims=2)  # the two small crops predict a neighbour's
    assert SwAVLoss()({"scores": scores}).item() == pytest.approx(agreed + 20 * 2 / 3, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_is_float32_and_finite_under_autocast(dtype: torch.dtype):
    scores = torch.where(torch.rand(4, 8, 30) < 0.5, 1.0, -1.0).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = SwAVLoss()({"scores": scores.to(dtype)})
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_loss(scores.detach().numpy(), 0.1, 0.05, 3, 2), rel=1e-5)
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_gradient_by_hand():
    scores = cosines(4, 6, 5).requires_grad_()
    SwAVLoss()({"scores": scores}).backward()
    codes = [slow_sinkhorn(scores[i].detach().numpy(), 0.05, 3) for i in range(2)]
    p = (scores.detach() / 0.1).softmax(2).numpy()
    expected = np.zeros((4, 6, 5))
    for i in range(2):
        for v in range(4):
            if v != i:  # of -sum q log p over tau, batch of 6, 3 predicting and 2 assigning crops
                expected[v] += (p[v] - codes[i]) / 0.1 / 6 / 3 / 2
    assert scores.grad is not None
    np.testing.assert_allclose(scores.grad.numpy(), expected, rtol=1e-10, atol=1e-15)


def test_gradcheck():
    assigning = cosines(2, 4, 5)  # codes are constants for the gradient, so the crops that they come from stay

    def loss(predicting: torch.Tensor) -> torch.Tensor:
        return SwAVLoss()({"scores": torch.cat([assigning, predicting])})

    assert torch.autograd.gradcheck(loss, cosines(3, 4, 5).requires_grad_())


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"epsilon": -1}, {"iterations": 0}, {"assigning": 0}])
def test_refused_settings(settings: dict[str, float]):
    with pytest.raises(ValueError, match=f"expected {next(iter(settings))} of SwAV's loss above 0, found"):
        SwAVLoss(**settings)


def test_too_few_crops():
    with pytest.raises(ValueError, match="expected at least 2 crops of a picture for SwAV, found 1; add views"):
        SwAVLoss()({"scores": torch.zeros(1, 4, 5)})


# Processes.


def embeddings(views: int = 4, batch: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(views, batch, 8, dtype=torch.float64, generator=generator)
    prototypes = torch.randn(5, 8, dtype=torch.float64, generator=generator)
    return nn.functional.normalize(z, dim=2), nn.functional.normalize(prototypes, dim=1)


def share_of_loss(queued: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of this process's pictures, with its gradients by embeddings and prototypes."""
    z, prototypes = embeddings()
    mine = z.chunk(process_count(), dim=1)[process_rank()].clone().requires_grad_()
    prototypes.requires_grad_()
    prediction = {"scores": mine @ prototypes.T}
    if queued:
        prediction["queue_scores"] = (embeddings(2, 7)[0] @ prototypes.T).detach()
    loss = SwAVLoss()(prediction)
    return loss.detach(), *torch.autograd.grad(loss, [mine, prototypes])


@pytest.mark.parametrize("queued", [False, True])
def test_loss_and_gradients_in_two_processes_are_those_of_one(queued: bool):
    loss, by_z, by_prototypes = share_of_loss(queued)
    losses, by_zs, by_prototypess = zip(*in_processes(share_of_loss, 2, queued), strict=True)
    assert losses[0] != losses[1]
    torch.testing.assert_close(sum(losses) / 2, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.cat(by_zs, dim=1) / 2, by_z, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(sum(by_prototypess) / 2, by_prototypes, rtol=1e-10, atol=1e-14)  # DDP's mean


def share_of_step() -> tuple[list[torch.Tensor], torch.Tensor]:
    """Two steps of a whole network, with a queue, each process with its share of the pictures."""
    torch.manual_seed(3)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = SwAV(backbone, 4, hidden=6, embedding=4, prototypes=5, queue_length=6).double()
    wrapped = DistributedDataParallel(network) if process_count() > 1 else network
    network.projection_head[1].eval()  # batch norm would take its statistics per process
    for _ in range(3):
        views = [torch.rand(4, 1, size, size, dtype=torch.float64) for size in (8, 8, 5)]
        prediction = wrapped([view.chunk(process_count())[process_rank()] for view in views])
        wrapped.zero_grad()
        SwAVLoss()(prediction).backward()
    assert "queue_scores" in prediction
    return [p.grad for p in network.parameters() if p.grad is not None], network.queue


def test_a_step_under_ddp_is_that_of_one_process():
    gradients, queue = share_of_step()
    first, second = in_processes(share_of_step, 2)
    assert len(gradients) == 2 + 6 + 1  # convolution, head, prototypes
    for process in (first, second):
        for expected, found in zip(gradients, process[0], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(process[1], queue, rtol=1e-12, atol=1e-14)


# The network.


def test_parameters_of_the_paper():
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    network = SwAV(build_backbone("resnet50", weights="random"), 2048)
    assert count(network) == 28_034_752
    assert count(network.backbone) == 23_508_032
    assert count(network.projection_head) == 4_462_720
    assert count(network.prototypes) == 64_000
    names = set(network.state_dict())
    assert {"prototypes.weight", "projection_head.0.bias", "backbone.layer4.2.conv3.weight"} <= names


def test_crops_keep_their_order_and_sizes_share_a_pass():
    network = SwAV(Corner(4), 4, hidden=8, embedding=6, prototypes=5).eval()
    views = [torch.randn(3, 1, size, size) for size in (4, 4, 2, 2, 2)]
    prediction = network(views)
    assert network.backbone.passes == 2
    assert prediction["scores"].shape == (5, 3, 5)
    assert prediction["embedding"].shape == (3, 6)
    assert not prediction["embedding"].requires_grad
    assert set(prediction) == {"scores", "embedding"}
    weight = network.prototypes.weight
    for view, scores in zip(views, prediction["scores"], strict=True):
        z = network.projection_head(view.flatten(1)[:, :4])
        expected = (z / z.norm(dim=1, keepdim=True)) @ weight.T
        torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(prediction["embedding"] @ weight.T, prediction["scores"][0])
    torch.testing.assert_close(prediction["embedding"].norm(dim=1), torch.ones(3))


def test_one_channel_gives_what_three_equal_ones_give():
    network = SwAV(build_backbone("resnet18", weights="random"), 512, hidden=16, prototypes=5).eval()
    views = [torch.randn(2, 1, size, size) for size in (32, 16)]
    grey = network(views, index=torch.tensor([4, 2]))["scores"]
    torch.testing.assert_close(network([view.repeat(1, 3, 1, 1) for view in views])["scores"], grey)


def test_prototypes_have_length_one_after_each_forward():
    network = tiny()
    with torch.no_grad():
        network.prototypes.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.1, 0.0]]))
    scores = network([picture(5.0, 0.0), picture(0.0, 7.0)])["scores"]
    torch.testing.assert_close(network.prototypes.weight.data, torch.tensor([[0.6, 0.8], [0.0, -1.0], [1.0, 0.0]]))
    torch.testing.assert_close(scores, torch.tensor([[[0.6, 0.0, 1.0]], [[0.8, -1.0, 0.0]]]))
    assert network.prototypes.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_are_exact_under_autocast(dtype: torch.dtype):
    network = SwAV(build_backbone("resnet18", weights="random"), 512, hidden=32, prototypes=7, queue_length=2)
    # 16 pixels would become maps of 1 x 1, of which torch 2.15 makes weight gradients of bfloat16 from stray memory
    views = [torch.randn(4, 1, 32, 32) for _ in range(2)]
    with torch.autocast("cpu", dtype=dtype):
        network(views)
        before = network.queue.clone()
        prediction = network(views)
        loss = SwAVLoss()(prediction)
    assert {value.dtype for value in prediction.values()} | {loss.dtype} == {torch.float32}
    weight = network.prototypes.weight
    torch.testing.assert_close(prediction["scores"][0], prediction["embedding"] @ weight.T, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(prediction["queue_scores"], before @ weight.T, rtol=1e-5, atol=1e-6)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_refused_networks():
    for settings in ({"prototypes": 1}, {"queue_length": -1}):
        with pytest.raises(ValueError, match="expected at least 2 prototypes and a queue of 0 or more, found"):
            tiny(**settings)


# The queue.


def test_queue_by_hand():
    network = tiny(queue_length=3)
    first = [torch.cat([picture(3.0, 4.0), picture(0.0, 2.0)]), torch.cat([picture(-1.0, 0.0), picture(0.0, -3.0)])]
    assert "queue_scores" not in network(first)
    assert network.queue.tolist() == [
        [[pytest.approx(0.6), pytest.approx(0.8)], [0, 1], [0, 0]],
        [[-1, 0], [0, -1], [0, 0]],
    ]
    second = [torch.cat([picture(5.0, 0.0), picture(-2.0, 0.0)]), torch.cat([picture(0.0, 9.0), picture(8.0, 0.0)])]
    assert "queue_scores" not in network(second)  # its last row was empty
    assert network.queue.tolist() == [
        [[1, 0], [-1, 0], [pytest.approx(0.6), pytest.approx(0.8)]],
        [[0, 1], [1, 0], [-1, 0]],
    ]
    before = network.queue.clone()
    prediction = network(first)
    torch.testing.assert_close(prediction["queue_scores"], (before @ network.prototypes.weight.T).detach())
    assert not prediction["queue_scores"].requires_grad
    torch.testing.assert_close(network.queue[0, 2], before[0, 0])
    SwAVLoss()(prediction).backward()  # taking in the batch disturbs no gradient


def test_queue_shorter_than_a_batch_holds_its_first_pictures():
    network = tiny(queue_length=1)
    views = [torch.cat([picture(0.0, 1.0), picture(1.0, 0.0)])] * 2
    network(views)
    assert network.queue.tolist() == [[[0, 1]], [[0, 1]]]


def test_queue_is_left_alone_by_eval_and_before_its_start():
    network = tiny(queue_length=2).eval()
    views = [picture(1.0, 0.0)] * 2
    network(views)
    assert not network.queue.any()
    network.train()
    network.queue_started = False
    network(views)
    assert not network.queue.any()
    network.queue_started = True
    network(views)
    network(views)
    network.eval()
    assert "queue_scores" in network(views)
    assert network.queue.all(dim=0)[:, 0].all()


def test_queue_goes_on_after_a_reload():
    network, resumed = tiny(queue_length=2), tiny(queue_length=2)
    network([picture(1.0, 0.0)] * 2)
    resumed.load_state_dict(network.state_dict())
    views = [picture(0.6, 0.8)] * 2
    for one, other in zip(network(views).values(), resumed(views).values(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(network.queue, resumed.queue)


# Handlers, in MONAI's trainer.


def train(network: SwAV, handlers: list, *, epochs: int, watch: Callable[[], object]) -> list:
    """Train for epochs of three iterations; returns what `watch` saw after each."""
    data = [[torch.randn(4, 1, 1, 2), torch.randn(4, 1, 1, 2)] for _ in range(3)]
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1),
        loss_function=SwAVLoss(),
        prepare_batch=lambda batch, *_, **__: (batch, None),
        train_handlers=handlers,
        decollate=False,
    )
    seen: list = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(watch()))
    trainer.run()
    return seen


@pytest.mark.parametrize(("length", "unit", "frozen"), [(4, "iterations", 4), (2, "epochs", 6), (0, "epochs", 0)])
def test_prototypes_are_frozen_and_then_move(length: int, unit: str, frozen: int):
    network = tiny()
    start = nn.functional.normalize(network.prototypes.weight.detach(), dim=1)
    handler = scripts.FreezePrototypes(network, length, unit=unit)
    seen = train(network, [handler], epochs=3, watch=lambda: network.prototypes.weight.detach().clone())
    assert len(seen) == 9
    for weight in seen[:frozen]:
        torch.testing.assert_close(weight, start, rtol=0, atol=1e-6)
    moved = [(weight - start).abs().max().item() for weight in seen[frozen:]]
    assert min(moved) > 1e-3


def test_freezing_is_for_313_iterations_unless_told_otherwise():
    handler = scripts.FreezePrototypes(tiny())
    assert (handler.length, handler.unit) == (313, "iterations")
    with pytest.raises(ValueError, match="frozen for iterations or epochs, found 'steps'"):
        scripts.FreezePrototypes(tiny(), unit="steps")


@pytest.mark.parametrize("length", [-5, 1.5, "3", True, None])
def test_no_prototypes_are_frozen_and_no_queue_waits_for_less_than_nothing(length: object):
    with pytest.raises(ValueError, match=f"^expected freeze_prototypes to be a whole number from 0, found {length!r};"):
        scripts.FreezePrototypes(tiny(), length)
    with pytest.raises(ValueError, match=f"^expected queue_start_epoch to be a whole number from 0, found {length!r};"):
        scripts.StartQueue(tiny(), length)


def test_queue_starts_after_its_epochs():
    network = tiny(queue_length=8)
    filled = train(
        network,
        [scripts.StartQueue(network, 1)],
        epochs=3,
        watch=lambda: int(network.queue[0].any(dim=1).sum()),
    )
    assert filled == [0, 0, 0, 4, 8, 8, 8, 8, 8]


# The optimiser.


def test_lars_of_timm_equals_the_formula():
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    frozen, zero = torch.tensor([1.0, 1.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    parameters = [nn.Parameter(value.clone()) for value in (weight, zero, frozen)]
    optimizer = Lars(parameters, lr=0.15, momentum=0.9, weight_decay=1e-6, trust_coeff=0.001)
    expected, velocity = [weight.numpy().copy(), zero.numpy().copy()], [0.0, 0.0]
    for step in range(3):
        for number, parameter in enumerate(parameters[:2]):
            gradient = np.full(parameter.shape, 0.25) * (step + 1) + np.arange(parameter.numel()).reshape(
                parameter.shape
            )
            parameter.grad = torch.from_numpy(gradient)
            p = expected[number]
            norm_p, norm_g = np.sqrt((p**2).sum()), np.sqrt((gradient**2).sum())
            g = gradient
            if norm_p != 0 and norm_g != 0:
                g = (gradient + 1e-6 * p) * 0.001 * norm_p / (norm_g + 1e-6 * norm_p + 1e-8)
            velocity[number] = 0.9 * velocity[number] + g
            expected[number] = p - 0.15 * velocity[number]
        optimizer.step()
        for parameter, value in zip(parameters, expected, strict=False):
            np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-13, atol=0)
    assert torch.equal(parameters[2].data, frozen)  # no gradient: no step and no decay


def test_lars_of_timm_decays_where_only_the_gradient_is_zero():
    # the released LARS leaves such a tensor alone; the README tells of it
    weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
    weight.grad = torch.zeros_like(weight)
    Lars([weight], lr=0.15, momentum=0.9, weight_decay=1e-6, trust_coeff=0.001).step()
    torch.testing.assert_close(weight.data, torch.full((3,), 1 - 0.15 * 1e-6, dtype=torch.float64), rtol=1e-15, atol=0)


def test_the_loss_of_a_network_that_tells_nothing_apart() -> None:
    assert scripts.chance_loss(500) == pytest.approx(6.2146, abs=5e-5)
