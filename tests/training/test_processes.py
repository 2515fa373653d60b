from __future__ import annotations

import pytest
import torch
from helpers import in_processes

from lessismore_transforms.training.processes import all_gather, all_reduce_sum, process_count, process_rank


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
