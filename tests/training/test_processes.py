from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import in_processes
from monai.engines import SupervisedTrainer
from torch import nn

from lessismore_transforms.training.curves import read_log
from lessismore_transforms.training.loader import StepSampler
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.processes import all_gather, all_reduce_sum, process_count, process_rank, wait
from lessismore_transforms.training.run_log import RunLog


def test_one_process_knows_itself():
    x = torch.randn(3, 2, requires_grad=True)
    assert (process_count(), process_rank()) == (1, 0)
    assert torch.equal(all_gather(x), x)
    assert not all_gather(x).requires_grad
    assert all_reduce_sum(x) is x


def ranks() -> tuple[int, int]:
    return process_count(), process_rank()


def test_two_processes_know_each_other():
    assert in_processes(ranks, 2) == [(2, 0), (2, 1)]


def gathered(dtype: torch.dtype) -> tuple[torch.Tensor, bool]:
    mine = (torch.arange(6, dtype=dtype).view(2, 3) + 10 * process_rank()).requires_grad_()
    together = all_gather(mine.T)  # (3, 2), not contiguous
    return together, together.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_gather_is_in_the_order_of_ranks_and_without_gradient(dtype: torch.dtype):
    expected = torch.tensor([[0, 3], [1, 4], [2, 5], [10, 13], [11, 14], [12, 15]], dtype=dtype)
    for together, has_gradient in in_processes(gathered, 2, dtype):
        assert together.dtype == dtype
        assert torch.equal(together, expected)
        assert not has_gradient


def summed() -> tuple[torch.Tensor, torch.Tensor]:
    x = (torch.tensor([1.0, 2.0], dtype=torch.float64) * (process_rank() + 1)).requires_grad_()
    total = all_reduce_sum(x)
    ((process_rank() + 1) * total.pow(2)).sum().backward()
    assert x.grad is not None
    return total.detach(), x.grad


def test_all_reduce_sum_and_its_gradient():
    for total, gradient in in_processes(summed, 2):
        assert total.tolist() == [3.0, 6.0]  # 1 + 2, 2 + 4
        assert gradient.tolist() == [18.0, 36.0]  # of (1 + 2) total^2: 2 * 3 * total


def test_all_reduce_sum_of_an_expanded_gradient():
    # sum() hands back a gradient that is one number expanded: not contiguous
    for gradient in in_processes(expanded, 2):
        assert gradient.tolist() == [2.0, 2.0, 2.0]


def expanded() -> torch.Tensor:
    x = torch.ones(3, requires_grad=True)
    all_reduce_sum(x).sum().backward()
    assert x.grad is not None
    return x.grad


def logged_losses(folder: Path) -> list[float]:
    """The losses in the log of a training on 32 examples, in one process or several."""
    plan = Plan.of(32, batch_size=8, max_epochs=2, processes=process_count())
    sampler = StepSampler(
        32,
        8,
        plan.iterations,
        batches_per_epoch=plan.batches_per_epoch,
        rank=process_rank(),
        processes=process_count(),
    )
    torch.manual_seed(0)
    examples, network = torch.randn(32, 3), nn.Linear(3, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    SupervisedTrainer(
        device="cpu",
        max_epochs=plan.max_epochs,
        epoch_length=plan.batches_per_epoch,
        train_data_loader=[{"x": examples[indices]} for _, indices in sampler],
        network=nn.parallel.DistributedDataParallel(network) if process_count() > 1 else network,
        optimizer=optimizer,
        loss_function=lambda prediction, _: (prediction - 1).square().mean(),
        prepare_batch=lambda batch, *_, **__: (batch["x"], None),
        decollate=False,
        train_handlers=[RunLog(folder, optimizer, plan, batch_size=8, settings={}, interval=1)],
    ).run()
    wait()  # process 0 has written the log
    return [line["loss"] for line in read_log(folder) if "loss" in line]


def test_the_losses_of_two_processes_are_those_of_one(tmp_path: Path):
    alone = logged_losses(tmp_path / "one")
    assert len(alone) == 8
    assert alone[-1] < 0.7 * alone[0]  # it learns, so that equal losses mean equal gradients too
    first, second = in_processes(logged_losses, 2, tmp_path / "two")
    assert first == second == pytest.approx(alone, rel=1e-5)
