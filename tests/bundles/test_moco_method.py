from __future__ import annotations

import copy
import math
import re

import numpy as np
import pytest
import torch
from helpers import bundle_scripts, in_processes
from monai.engines import SupervisedTrainer
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from lessismore_transforms.pretraining.momentum import MomentumUpdate
from lessismore_transforms.pretraining.near_copy_mask import NearCopyMask
from lessismore_transforms.training.processes import process_count, process_rank

scripts = bundle_scripts("ct_moco_pretraining")
MoCo, InfoNCE, moco_logits, default_queue_length = (
    scripts.MoCo,
    scripts.InfoNCE,
    scripts.moco_logits,
    scripts.default_queue_length,
)


pytestmark = pytest.mark.usefixtures("torch_seed")


class Corner(nn.Module):
    """The features of a picture are its first F pixels, each times a weight; notes how many pictures came."""

    def __init__(self, features: int, norm: bool = False):
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.ones(features))
        self.norm = nn.BatchNorm1d(features) if norm else nn.Identity()
        self.passes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == 3
        self.passes.append(len(x))
        return self.norm(x[:, 0].flatten(1)[:, : self.features] * self.weight)


def tiny(features: int = 4, *, norm: bool = False, **settings) -> MoCo:
    """A network whose embeddings are the normalised first pixels."""
    network = MoCo(Corner(features, norm), features, **{"embedding": features, "queue_length": 8, **settings})
    network.head = nn.Identity()
    network.key_encoder[1] = nn.Identity()
    return network


def pictures(*rows: object) -> torch.Tensor:
    """Pictures (B, 1, 1, W) of one row of pixels each."""
    return torch.tensor(rows, dtype=torch.float32)[:, None, None, :]


def sphere(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


# The loss


def slow_info_nce(q: np.ndarray, k: np.ndarray, queue: np.ndarray, own: np.ndarray, temperature: float) -> float:
    """Equation 1 in loops: minus the log of the right key's share in the sum over all keys."""
    total = 0.0
    for i in range(len(q)):
        right = math.exp(float(q[i] @ k[i]) / temperature)
        wrong = [math.exp(float(q[i] @ queue[:, j]) / temperature) for j in range(queue.shape[1]) if not own[i, j]]
        total -= math.log(right / (right + sum(wrong)))
    return total / len(q)


def test_the_loss_is_that_of_equation_1():
    q, k, queue = sphere(5, 4), sphere(5, 4, seed=1), sphere(6, 4, seed=2).T
    own = torch.rand(5, 6) < 0.3
    assert 0 < own.sum() < 30
    logits = moco_logits(q, k, queue, own, 0.07)
    expected = slow_info_nce(q.numpy(), k.numpy(), queue.numpy(), own.numpy(), 0.07)
    assert logits.shape == (5, 7)
    assert InfoNCE()({"logits": logits}).item() == pytest.approx(expected, rel=1e-12)


def test_a_case_by_hand():
    q, k = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    queue = torch.tensor([[0.0, -0.8, 1.0], [1.0, 0.6, 0.0]])
    logits = moco_logits(q, k, queue, torch.tensor([[False, False, True]]), 0.2)
    assert logits.tolist() == [pytest.approx([3.0, 0.0, -4.0, -math.inf])]
    expected = math.log(1 + math.exp(-3) + math.exp(-7))
    assert InfoNCE()({"logits": logits}).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("keys", [512, 65_536])
def test_a_network_that_tells_nothing_apart_pays_ln_of_1_plus_k(keys):
    q = torch.zeros(2, 3)
    logits = moco_logits(q, q, torch.zeros(3, keys), torch.zeros(2, keys, dtype=torch.bool), 0.07)
    assert InfoNCE()({"logits": logits}).item() == pytest.approx(math.log(1 + keys), rel=1e-6)
    assert math.log(1 + 65_536) == pytest.approx(11.09, abs=0.001)  # the docstring's number


def test_gradients_are_those_of_differences_and_left_out_keys_have_none():
    q, k, queue = (t.requires_grad_() for t in (sphere(3, 4), sphere(3, 4, seed=1), sphere(4, 5, seed=2)))
    own = torch.zeros(3, 5, dtype=torch.bool)
    own[:, 1] = True

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return InfoNCE()({"logits": moco_logits(*tensors, own, 0.5)})

    assert torch.autograd.gradcheck(loss, (q, k, queue))
    loss(q, k, queue).backward()
    assert torch.equal(queue.grad[:, 1], torch.zeros(4, dtype=torch.float64))
    assert queue.grad[:, 0].abs().min() > 0


def test_if_every_key_is_left_out_the_loss_is_0_and_finite():
    q = sphere(2, 3).requires_grad_()
    logits = moco_logits(q, q.detach(), sphere(3, 4), torch.ones(2, 4, dtype=torch.bool), 0.07)
    loss = InfoNCE()({"logits": logits})
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(q.grad, torch.zeros_like(q))


def test_the_maths_is_float32_under_autocast():
    q, k, queue = (t.float() for t in (sphere(3, 16), sphere(3, 16, seed=1), sphere(9, 16, seed=2).T))
    own = torch.zeros(3, 9, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = moco_logits(q, k, queue, own, 0.07)
        loss = InfoNCE()({"logits": logits})
        prediction = tiny(norm=True)([torch.rand(8, 1, 2, 2), torch.rand(8, 1, 2, 2)])
    assert logits.dtype == loss.dtype == prediction["logits"].dtype == prediction["embedding"].dtype == torch.float32
    assert torch.equal(logits, moco_logits(q, k, queue, own, 0.07))


# The queue


def test_it_starts_as_normalised_gaussian_columns_of_unknown_pictures():
    network = MoCo(Corner(4), 4, queue_length=2048)
    assert network.queue.shape == (128, 2048)
    assert network.queue.norm(dim=0).numpy() == pytest.approx(np.ones(2048), abs=1e-6)
    assert network.queue.std().item() == pytest.approx(128**-0.5, rel=0.01)
    assert (network.queue_index == -1).all()
    assert torch.equal(network.queue, MoCo(Corner(4), 4, queue_length=2048).queue)  # in every process
    assert not torch.equal(network.queue, MoCo(Corner(4), 4, queue_length=2048, seed=1).queue)


def test_the_oldest_keys_go_first_and_the_queue_wraps_around():
    network = tiny(2, queue_length=6)
    start = network.queue.T.tolist()
    angles = torch.arange(10).float() / 3
    keys = torch.stack([angles.cos(), angles.sin()], dim=1)  # (10, 2)
    for step in range(5):
        batch = slice(2 * step, 2 * step + 2)
        seen = network.compare(keys[batch], keys[batch], torch.arange(10)[batch])
        expected = [*keys.tolist()[: 2 * step], *start[2 * step :]][-6:] if step < 3 else keys.tolist()[:0]
        if step < 3:  # logits come before the keys go in
            assert sorted(seen[0, 1:].tolist()) == pytest.approx(
                sorted(float(keys[2 * step] @ torch.tensor(key)) / 0.07 for key in expected), abs=1e-4
            )
    assert network.queue_index.tolist() == [6, 7, 8, 9, 4, 5]
    assert network.queue.T.tolist() == keys[[6, 7, 8, 9, 4, 5]].tolist()
    assert network.queue_pointer.tolist() == [4]


def test_earlier_keys_of_a_picture_are_left_out_and_no_others():
    network = tiny(2, queue_length=6)
    q = normalize(torch.rand(2, 2), dim=1)
    for index in ([7, 3], [5, 7]):
        network.compare(q, q, torch.tensor(index))
    logits = network.compare(q, q, torch.tensor([7, 1]))
    assert logits.isinf().tolist() == [[False, True, False, False, True, False, False], [False] * 7]
    assert (logits.isinf() == (logits == -math.inf)).all()


def test_without_numbers_nothing_is_left_out():
    network = tiny()
    views = [torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)]
    for _ in range(3):
        assert network(views)["logits"].isfinite().all()
    assert (network.queue_index == -1).all()


def test_the_queue_survives_saving_and_goes_on_where_it_was():
    views = [[torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)] for _ in range(6)]
    one = tiny()
    for step in range(3):
        one(views[step], torch.tensor([2 * step, 2 * step + 1]))
    two = tiny(seed=5)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    assert two.queue_pointer.tolist() == [6]
    for step in range(3, 6):
        index = torch.tensor([step, step + 20])
        results = []
        for network in (one, two):
            torch.manual_seed(step)
            results.append(network(views[step], index)["logits"])
        assert torch.equal(*results)
    assert torch.equal(one.queue, two.queue)
    assert one.queue_index.tolist() == two.queue_index.tolist() == [4, 24, 5, 25, 4, 5, 3, 23]


def test_in_eval_mode_the_queue_stays():
    network = tiny().eval()
    before = copy.deepcopy(network.state_dict())
    network([torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)], torch.tensor([0, 1]))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("length", "advice"), [(9, 8), (3, 4), (6, 4)])
def test_a_queue_that_does_not_hold_whole_batches_is_refused(length, advice):
    keys = normalize(torch.rand(4, 4), dim=1)
    sentence = f"expected a queue_length that is a multiple of the 4 pictures of a batch, found {length}; take {advice}"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        tiny(queue_length=length).compare(keys, keys, torch.arange(4))


@pytest.mark.parametrize("setting", ["queue_length", "temperature", "key_groups"])
def test_settings_that_are_not_positive_are_refused(setting):
    with pytest.raises(ValueError, match=rf"^expected {setting} of MoCo above 0, found 0; give a positive one$"):
        tiny(**{setting: 0})


@pytest.mark.parametrize(
    ("slices", "batch_size", "length"),
    [
        (22_672, 64, 11_328),  # LIDC, HASH-6: 177 batches, half of the set is 11,336
        (243_958, 64, 65_536),  # LIDC, ALL
        (131_072, 64, 65_536),
        (131_070, 64, 65_472),
        (243_958, 48, 65_520),  # 65,536 is no multiple
        (256, 64, 128),
        (255, 64, 64),
        (127, 64, 64),  # at least a batch, even where that is more than half
        (64, 64, 64),
    ],
)
def test_the_usual_length_is_whole_batches_up_to_half_of_the_set(slices, batch_size, length):
    assert default_queue_length(slices, batch_size) == length


@pytest.mark.parametrize(
    ("batch_size", "length"), [(8, 2048), (64, 16_384), (128, 32_768), (256, 65_536), (300, 65_400)]
)
def test_of_a_budget_in_steps_it_depends_on_the_batch_alone(batch_size, length):
    for slices in (1000, 22_672, 243_958):
        assert default_queue_length(slices, batch_size, 20_000) == length


# The encoders


def test_the_heads_of_both_versions():
    two, one = (MoCo(Corner(6), 6, queue_length=4, mlp=mlp) for mlp in (True, False))
    assert [type(layer).__name__ for layer in two.head] == ["Linear", "ReLU", "Linear"]  # no batch norm
    assert [tuple(p.shape) for p in two.head.parameters()] == [(6, 6), (6,), (128, 6), (128,)]
    assert isinstance(one.head, nn.Linear)
    assert [tuple(p.shape) for p in one.head.parameters()] == [(128, 6), (128,)]
    for network in (one, two):
        queries = [*network.backbone.parameters(), *network.head.parameters()]
        pairs = zip(queries, network.key_encoder.parameters(), strict=True)
        assert all(torch.equal(query, key) and query is not key for query, key in pairs)


def test_queries_and_keys_are_what_their_encoders_give():
    network = tiny(2, queue_length=2)
    network.key_encoder[0].weight.copy_(torch.tensor([1.0, 2.0]))
    queue = network.queue.clone()
    prediction = network([pictures([3.0, 4.0], [1.0, 0.0]), pictures([3.0, 2.0], [0.0, 5.0])], torch.tensor([4, 9]))
    assert prediction["embedding"].numpy() == pytest.approx(np.array([[0.6, 0.8], [1.0, 0.0]]), abs=1e-6)
    keys = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    assert prediction["logits"][:, 0].tolist() == pytest.approx([1 / 0.07, 0.0], abs=1e-4)
    negatives = torch.tensor([[0.6, 0.8], [1.0, 0.0]]) @ queue / 0.07
    assert prediction["logits"][:, 1:].detach().numpy() == pytest.approx(negatives.numpy(), abs=1e-4)
    assert network.queue.T.numpy() == pytest.approx(keys.numpy(), abs=1e-6)
    assert network.queue_index.tolist() == [4, 9]


def test_no_gradient_and_no_optimiser_reaches_keys_or_queue():
    network = MoCo(Corner(4, norm=True), 4, embedding=3, queue_length=16).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    keys = [p.clone() for p in network.key_encoder.parameters()]
    for step in range(2):
        optimizer.zero_grad()
        InfoNCE()(network([torch.rand(16, 1, 2, 2), torch.rand(16, 1, 2, 2)], torch.arange(16) + 16 * step)).backward()
        optimizer.step()
    assert all(p.grad is None for p in network.key_encoder.parameters())
    assert all(torch.equal(p, before) for p, before in zip(network.key_encoder.parameters(), keys, strict=True))
    assert all(p.grad.abs().sum() > 0 for p in [network.backbone.weight, *network.head.parameters()])
    assert not network.queue.requires_grad


def test_the_keys_batch_norm_has_its_own_statistics():
    network = tiny(2, norm=True, key_groups=1)
    query, key = torch.rand(8, 1, 1, 2), torch.rand(8, 1, 1, 2) + 5
    network([query, key], torch.arange(8))
    network.update_keys(0.0)  # parameters are copied whole, statistics are not
    expected = 0.1 * key.flatten(1).mean(dim=0)
    assert network.key_encoder[0].norm.running_mean.numpy() == pytest.approx(expected.numpy(), rel=1e-5)
    expected = 0.1 * query.flatten(1).mean(dim=0)
    assert network.backbone.norm.running_mean.numpy() == pytest.approx(expected.numpy(), rel=1e-5)


def test_update_keys_moves_backbone_and_head():
    network = MoCo(Corner(4), 4, embedding=3, queue_length=8)
    with torch.no_grad():
        for parameter in [*network.backbone.parameters(), *network.head.parameters()]:
            parameter.add_(1.0)
    before = [p.clone() for p in network.key_encoder.parameters()]
    network.update_keys(0.75)
    for now, then in zip(network.key_encoder.parameters(), before, strict=True):
        assert now.detach().numpy() == pytest.approx(then.numpy() + 0.25, abs=1e-6)


def test_in_a_training_the_keys_follow_the_query_of_the_step_before():
    network = tiny(2, queue_length=2)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    network.register_forward_pre_hook(
        lambda module, _: seen.append((module.backbone.weight.detach().clone(), module.key_encoder[0].weight.clone()))
    )
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[torch.rand(2, 1, 1, 2) for _ in range(6)],
        prepare_batch=lambda batch, *_, **__: ([batch, batch.flip(3)], None, (), {"index": torch.arange(2)}),
        network=network,
        optimizer=torch.optim.SGD(network.backbone.parameters(), lr=1.0),
        loss_function=InfoNCE(),
        accumulation_steps=2,
        decollate=False,
        train_handlers=[MomentumUpdate(network.update_keys, 0.5)],
    ).run()
    queries, keys = zip(*seen, strict=True)
    assert torch.equal(keys[0], torch.ones(2))
    for step in (0, 2, 4):
        assert torch.equal(queries[step], queries[step + 1])
        assert torch.equal(keys[step], keys[step + 1])
    for step in (2, 4):
        assert not torch.equal(queries[step], queries[step - 1])
        assert keys[step].numpy() == pytest.approx((keys[step - 1] + queries[step]).numpy() / 2, abs=1e-6)


# Batch norms and their company


@pytest.mark.parametrize(
    ("batch", "key_groups", "passes"),
    [(16, 2, [8, 8]), (15, 2, [15]), (32, 4, [8] * 4), (24, 4, [8] * 3), (17, 2, [9, 8]), (16, 1, [16]), (2, 2, [2])],
)
def test_one_process_normalises_in_groups_none_too_small(batch, key_groups, passes):
    network = tiny(norm=True, key_groups=key_groups, queue_length=batch)
    network([torch.rand(batch, 1, 2, 2), torch.rand(batch, 1, 2, 2)])
    assert network.backbone.passes == network.key_encoder[0].passes == passes


def test_groups_are_drawn_anew_and_keys_come_back_in_order():
    network = tiny(2, norm=True)
    images = torch.rand(16, 1, 1, 2)
    pixels = images.flatten(1)
    torch.manual_seed(3)
    keys = network.encode_keys(images)
    torch.manual_seed(3)
    order = torch.randperm(16)
    for group in (order[:8], order[8:]):
        own = pixels[group]
        normed = (own - own.mean(dim=0)) / (own.var(dim=0, unbiased=False) + 1e-5).sqrt()
        assert keys[group].numpy() == pytest.approx(normalize(normed, dim=1).numpy(), abs=1e-5)
    assert not torch.allclose(keys, network.encode_keys(images))


def encode(images: torch.Tensor, norm: bool, seeds: tuple[int, int]) -> list[list[float]]:
    """The keys of all processes from their shares."""
    network = tiny(2, norm=norm)
    share = images.chunk(process_count())[process_rank()]
    torch.manual_seed(seeds[process_rank()])  # each process has its own
    return network.encode_keys(share).tolist()


def test_keys_that_two_processes_shuffle_come_back_in_order():
    images = torch.rand(8, 1, 1, 2)
    expected = normalize(images.flatten(1), dim=1)
    one, two = in_processes(encode, 2, images, False, (3, 4))
    assert one == two
    assert one == [pytest.approx(row, abs=1e-6) for row in expected.tolist()]


def test_two_processes_normalise_keys_in_mixed_company():
    images = torch.rand(8, 1, 1, 2)
    pixels = images.flatten(1)
    one, two = in_processes(encode, 2, images, True, (3, 4))
    torch.manual_seed(3)  # the order of process 0 counts
    order = torch.randperm(8)
    assert set(order[:4].tolist()) != set(range(4))
    expected = torch.empty(8, 2)
    for group in (order[:4], order[4:]):
        own = pixels[group]
        normed = (own - own.mean(dim=0)) / (own.var(dim=0, unbiased=False) + 1e-5).sqrt()
        expected[group] = normalize(normed, dim=1)
    assert one == two
    assert one == [pytest.approx(row, abs=1e-5) for row in expected.tolist()]


# One process and two


def compare_in_parts(q: torch.Tensor, keys: torch.Tensor, index: torch.Tensor) -> dict[str, list]:
    """Three steps with given embeddings: losses, gradients and what the queue holds."""
    network = tiny(4, queue_length=24).double()
    result: dict[str, list] = {"loss": [], "gradient": []}
    for step in range(len(q)):
        own = q[step].chunk(process_count())[process_rank()].clone().requires_grad_()
        logits = network.compare(own, keys[step], index[step].chunk(process_count())[process_rank()])
        loss = InfoNCE()({"logits": logits})
        loss.backward()
        result["loss"].append(loss.item())
        result["gradient"].append((own.grad / process_count()).tolist())  # DDP averages over processes
    state = {name: value.tolist() for name, value in network.state_dict().items() if name.startswith("queue")}
    return {**result, **state}


def test_given_embeddings_cost_the_same_in_one_process_and_in_two():
    q, keys = sphere(5, 8, 4), sphere(5, 8, 4, seed=1)
    index = torch.stack([torch.randperm(16)[:8] for _ in range(5)])  # pictures come again while in the queue
    alone = compare_in_parts(q, keys, index)
    parts = in_processes(compare_in_parts, 2, q, keys, index)
    assert np.mean([part["loss"] for part in parts], axis=0) == pytest.approx(alone["loss"], rel=1e-12)
    gradient = np.concatenate([part["gradient"] for part in parts], axis=1)
    assert gradient == pytest.approx(np.array(alone["gradient"]), rel=1e-12, abs=1e-15)
    for part in parts:
        assert {name: part[name] for name in part if name.startswith("queue")} == {
            name: alone[name] for name in alone if name.startswith("queue")
        }
    assert alone["queue_pointer"] == [16]
    assert alone["queue_index"] == index[[3, 4, 2]].flatten().tolist()


def train(views: torch.Tensor, index: torch.Tensor, norm: bool) -> dict[str, torch.Tensor]:
    """Weights and queue after three steps; a single process takes two groups."""
    torch.manual_seed(7)
    network = MoCo(Corner(4, norm), 4, embedding=3, queue_length=32)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    model = DistributedDataParallel(network, broadcast_buffers=False) if process_count() > 1 else network
    for step in range(len(views)):
        torch.manual_seed(100 * process_rank() + step)
        network.update_keys(0.9)
        query, key = (view.chunk(process_count())[process_rank()] for view in views[step])
        optimizer.zero_grad()
        InfoNCE()(model([query, key], index=index[step].chunk(process_count())[process_rank()])).backward()
        optimizer.step()
    statistics = ("running_mean", "running_var", "num_batches_tracked")  # those of a process or of the last group
    return {name: value for name, value in network.state_dict().items() if not name.endswith(statistics)}


@pytest.mark.parametrize("norm", [False, True])
def test_a_training_is_the_same_in_two_groups_and_in_two_processes(norm):
    views, index = torch.rand(3, 2, 16, 1, 2, 2), torch.stack([torch.randperm(24)[:16] for _ in range(3)])
    alone, start = train(views, index, norm), train(views[:0], index, norm)
    assert not torch.allclose(alone["head.0.weight"], start["head.0.weight"], atol=1e-4)
    for part in in_processes(train, 2, views, index, norm):
        assert part.keys() == alone.keys()
        for name, value in alone.items():
            assert part[name].numpy() == pytest.approx(value.numpy(), abs=1e-5), name


def test_the_loss_of_a_network_that_tells_nothing_apart() -> None:
    assert scripts.chance_loss(65_536) == pytest.approx(11.0904, abs=5e-5)
    uniform = F.cross_entropy(torch.zeros(3, 1 + 160), torch.zeros(3, dtype=torch.int64))
    assert scripts.chance_loss(160) == pytest.approx(uniform.item())


# Near copies


def test_keys_of_near_copies_have_no_weight() -> None:
    """A queue with planted copies gives the loss of the queue without them; without copies no bit changes."""
    hashes = torch.tensor([0, 1, 0b111111, -1, 0, 0])
    mask = NearCopyMask((hashes, torch.tensor([0, 0, 0, 0, 1, 0])), bits=2)
    assert mask(torch.tensor([0, 4]), torch.tensor([0, 1, 2, 3, 4, 5, -1])).tolist() == [
        [False, True, False, False, False, True, False],
        [False, False, False, False, False, False, False],
    ]
    q, k, queue = sphere(1, 4).float(), sphere(1, 4, seed=1).float(), sphere(8, 4, seed=2).float()
    planted = torch.tensor([1, 2, 5, 3, 4, -1, 1, 2])
    losses = []
    for near_copies, index in ((mask, planted), (None, planted), (mask, torch.tensor([2, 3, 4, 2, 3, 4, 2, 3]))):
        network = tiny(near_copies=near_copies).eval()
        network.queue.copy_(queue.T)
        network.queue_index.copy_(index)
        losses.append(InfoNCE()({"logits": network.compare(q, k, torch.tensor([0]))}).item())
    keep = torch.tensor([1, 3, 4, 5, 7])  # all but 0, 2 and 6, the keys of slices 1 and 5
    alone = moco_logits(q, k, queue[keep].T, torch.zeros(1, 5, dtype=torch.bool), 0.07)
    assert losses[0] == pytest.approx(InfoNCE()({"logits": alone}).item(), abs=1e-6)
    assert losses[1] == losses[2] != losses[0]
