from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import bundle_scripts, in_processes
from torch import nn
from torch.nn.functional import normalize

from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.near_copy_mask import NearCopyMask
from lessismore_transforms.training.processes import process_count, process_rank

scripts = bundle_scripts("ct_simclr_pretraining")
SimCLR, NTXent, DCLW, chance_loss = scripts.SimCLR, scripts.NTXent, scripts.DCLW, scripts.chance_loss

pytestmark = pytest.mark.usefixtures("torch_seed")
LOSSES = {
    "NT-Xent": NTXent(0.2),
    "DCLW": DCLW(0.2, 0.5),
    "DCLW as released": DCLW(0.1, 0.5, symmetric=False, detach_weights=False),
}


def sphere(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def slow_nt_xent(z: torch.Tensor, masked: set[tuple[int, int]], temperature: float) -> list[list[float]]:
    """Equation 1 in loops, for each view of each picture."""
    _, count, _ = z.shape
    losses = []
    for v in range(2):
        losses.append([])
        for i in range(count):
            right = math.exp(float(z[v, i] @ z[1 - v, i]) / temperature)
            wrong = [
                math.exp(float(z[v, i] @ z[w, j]) / temperature)
                for w in range(2)
                for j in range(count)
                if j != i and (i, j) not in masked
            ]
            losses[-1].append(-math.log(right / (right + sum(wrong))))
    return losses


def slow_dclw(z: torch.Tensor, masked: set[tuple[int, int]], temperature: float, sigma: float) -> list[list[float]]:
    """Equations 5 and 6 in loops, for each view of each picture."""
    _, count, _ = z.shape
    easy = [math.exp(float(z[0, i] @ z[1, i]) / sigma) for i in range(count)]
    losses = []
    for v in range(2):
        losses.append([])
        for i in range(count):
            weight = 2 - easy[i] / (sum(easy) / count)
            wrong = [
                math.exp(float(z[v, i] @ z[w, j]) / temperature)
                for w in range(2)
                for j in range(count)
                if j != i and (i, j) not in masked
            ]
            losses[-1].append(-weight * float(z[0, i] @ z[1, i]) / temperature + math.log(sum(wrong)))
    return losses


@pytest.mark.parametrize("masked", [set(), {(0, 1), (1, 0), (4, 2)}])
def test_the_losses_are_those_of_the_papers(masked: set[tuple[int, int]]) -> None:
    z = sphere(2, 6, 5)
    prediction = {"projections": z}
    if masked:
        prediction["masked"] = torch.zeros(6, 6, dtype=torch.bool)
        for pair in masked:
            prediction["masked"][pair] = True
    expected = torch.tensor(slow_nt_xent(z, masked, 0.2), dtype=torch.float64)
    torch.testing.assert_close(NTXent(0.2).of_views(prediction), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(NTXent(0.2)(prediction), expected.mean(), atol=1e-12, rtol=0)
    expected = torch.tensor(slow_dclw(z, masked, 0.2, 0.5), dtype=torch.float64)
    torch.testing.assert_close(DCLW(0.2, 0.5).of_views(prediction), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(DCLW(0.2, 0.5)(prediction), expected.mean(), atol=1e-12, rtol=0)
    torch.testing.assert_close(DCLW(0.2, 0.5, symmetric=False)(prediction), expected[0].mean(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients(loss: nn.Module) -> None:
    def of(x: torch.Tensor) -> torch.Tensor:
        return loss({"projections": normalize(x, dim=-1)})

    if getattr(loss, "detach_weights", False):  # what is detached has no numeric gradient: compare with fixed weights
        x = sphere(2, 4, 3).requires_grad_()
        easy = ((x[0] * x[1]).sum(1) / loss.sigma).exp()
        weights = (2 - easy / easy.mean()).detach()
        z = normalize(x, dim=-1)
        cosines, _, excluded = scripts.similarities(z)
        log = (cosines / loss.temperature).masked_fill(excluded, -math.inf).logsumexp(2)
        by_hand = (log - weights * (z[0] * z[1]).sum(1) / loss.temperature).mean()
        (expected,) = torch.autograd.grad(by_hand, x)
        (found,) = torch.autograd.grad(of(x), x)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    else:
        assert torch.autograd.gradcheck(of, sphere(2, 4, 3).requires_grad_())


@pytest.mark.parametrize("loss", [LOSSES["NT-Xent"], LOSSES["DCLW"]])
def test_order_of_pictures_and_of_views_changes_nothing(loss: nn.Module) -> None:
    z = sphere(2, 7, 4)
    order = torch.randperm(7)
    whole = loss({"projections": z})
    torch.testing.assert_close(loss({"projections": z[:, order]}), whole)
    torch.testing.assert_close(loss({"projections": z.flip(0)}), whole)


def test_known_answers() -> None:
    alike = torch.ones(2, 5, 3, dtype=torch.float64) / math.sqrt(3)
    assert NTXent(0.1)({"projections": alike}).item() == pytest.approx(math.log(9)) == pytest.approx(chance_loss(5))
    assert DCLW()({"projections": alike}).item() == pytest.approx(math.log(8))
    assert chance_loss(5, decoupled=True) == pytest.approx(math.log(8))
    apart = torch.eye(3, dtype=torch.float64).expand(2, -1, -1)  # views equal, pictures orthogonal
    expected = -math.log(math.exp(10) / (math.exp(10) + 4))
    assert NTXent(0.1)({"projections": apart}).item() == pytest.approx(expected)
    assert DCLW(0.1)({"projections": apart}).item() == pytest.approx(-10 + math.log(4))


def test_a_batch_with_planted_copies_gives_the_loss_without_them() -> None:
    """Pictures 4 and 5 are near copies of picture 0, 6 of picture 1: these two pay what they paid without them."""
    z = sphere(2, 4, 6)
    planted = torch.cat([z, z[:, [0, 0, 1]]], dim=1)
    hashes = torch.tensor([0, 0b1111 << 20, 0b11111 << 40, -1, 1, 2, 0b1111 << 20 | 1])
    mask = NearCopyMask((hashes, torch.zeros(7, dtype=torch.int64)), bits=2)
    masked = mask(torch.arange(7), torch.arange(7))
    assert [tuple(pair) for pair in masked.nonzero().tolist()] == [
        (0, 4), (0, 5), (1, 6), (4, 0), (4, 5), (5, 0), (5, 4), (6, 1)
    ]  # fmt: skip
    for loss in (NTXent(0.2), DCLW(0.2, 0.5)):
        two = z[:, :2]
        planted = torch.cat([two, two[:, [0, 0]]], dim=1)  # 0, 1, and two copies of 0
        chosen = torch.tensor([0, 1, 4, 5])
        with_copies = loss.of_views({"projections": planted, "masked": mask(chosen, chosen)})
        alone = loss.of_views({"projections": two})
        if isinstance(loss, NTXent):
            torch.testing.assert_close(with_copies[:, 0], alone[:, 0], atol=1e-12, rtol=0)
        else:  # the weights are means over the batch
            agreement = (planted[0] * planted[1]).sum(1) / 0.5
            weights = 2 - agreement.exp() / agreement.exp().mean()
            before = 2 - agreement[:2].exp() / agreement[:2].exp().mean()
            moved = (weights[0] - before[0]) * agreement[0] * 0.5 / 0.2
            torch.testing.assert_close(with_copies[:, 0] + moved, alone[:, 0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_without_near_copies_the_mask_changes_no_bit(loss: nn.Module) -> None:
    z = sphere(2, 6, 5).float()
    none = {"projections": z, "masked": torch.zeros(6, 6, dtype=torch.bool)}
    assert loss(none).item() == loss({"projections": z}).item()


def test_where_all_others_are_masked_nothing_repels() -> None:
    z = sphere(2, 3, 4).requires_grad_()
    prediction = {"projections": z, "masked": ~torch.eye(3, dtype=torch.bool)}
    assert NTXent(0.2)(prediction).item() == pytest.approx(0)
    loss = DCLW(0.2)(prediction)
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


class Linear(nn.Module):
    """Features of a picture are its mean pixels times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(9, 4, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.mean(1).flatten(1))


def network(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    made = SimCLR(Linear(), 4, hidden=5, embedding=3, **settings).double()
    made.head = nn.Sequential(nn.Linear(4, 3, dtype=torch.float64))  # without statistics, which are each process's own
    return made


def step(loss: nn.Module, masked: bool) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of this process's share of eight pictures, averaged as DDP does."""
    views = torch.randn(2, 8, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    hashes = torch.tensor([0, 1, 2, -1, 0b1111 << 30, 0b1111 << 30, 7, 15])
    mask = NearCopyMask((hashes, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])), bits=2) if masked else None
    made, share = network(near_copies=mask), torch.arange(8).chunk(process_count())[process_rank()]
    value = loss(made(list(views[:, share]), index=share))
    value.backward()
    gradients = [parameter.grad for parameter in made.parameters()]
    if process_count() > 1:
        for each in (value := value.detach(), *gradients):
            torch.distributed.all_reduce(each)
            each /= process_count()
    return value.item(), gradients


@pytest.mark.parametrize("masked", [False, True])
def test_two_processes_have_the_loss_and_gradients_of_one(masked: bool) -> None:
    for loss in LOSSES.values():
        value, gradients = step(loss, masked)
        for other, others in in_processes(step, 2, loss, masked):
            assert other == pytest.approx(value, abs=1e-6)
            for mine, its in zip(gradients, others, strict=True):
                torch.testing.assert_close(its, mine, atol=1e-6, rtol=0)


def test_the_network() -> None:
    made = SimCLR(Linear().float(), 4, hidden=5, embedding=3)
    views = list(torch.randn(2, 6, 1, 3, 3).double())
    made.backbone.double(), made.head.double()
    output = made(views, index=torch.arange(6))
    assert output["projections"].shape == (2, 6, 3)
    torch.testing.assert_close(output["projections"].norm(dim=2), torch.ones(2, 6, dtype=torch.float64))
    assert not output["embedding"].requires_grad
    assert "masked" not in output


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: NTXent(0), "expected temperature above 0, found 0"),
        (lambda: DCLW(0.1, -1), "expected sigma above 0, found -1"),
        (lambda: chance_loss(1), "expected 2 pictures or more in a batch, found 1"),
    ],
)
def test_mistakes(make: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()
