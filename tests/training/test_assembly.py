"""What a batch has to hold for the batch norms of a network."""

from __future__ import annotations

import pytest
from torch import nn

from lessismore_transforms.errors import UserError
from lessismore_transforms.training import assembly
from lessismore_transforms.training.assembly import check_batch_norms

PLAIN, SHARED = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.Sequential(nn.SyncBatchNorm(4))
ROWS = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False))


@pytest.mark.parametrize(
    ("network", "processes", "least"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), 1, 1),
        (PLAIN, 1, 2),
        (ROWS, 1, 2),
        (PLAIN, 3, 6),
        (SHARED, 1, 2),
        (SHARED, 4, 2),
        (nn.Sequential(SHARED, PLAIN), 4, 8),
    ],
)
def test_the_least_batch_of_a_network(
    network: nn.Module, processes: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "process_count", lambda: processes)
    check_batch_norms(network, least)
    if least > 1:
        words = f"^expected 2 pictures or more for each process and step, found 1: .* a batch_size of {least} or more$"
        with pytest.raises(UserError, match=words):
            check_batch_norms(network, least - 1)


@pytest.mark.parametrize(("network", "last", "fine"), [(PLAIN, 3, True), (ROWS, 3, False), (ROWS, 4, True)])
def test_the_last_batch_of_an_epoch(network: nn.Module, last: int, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 pictures one of two processes has 1, which has a deviation over its places, if it has some."""
    monkeypatch.setattr(assembly, "process_count", lambda: 2)
    if fine:
        check_batch_norms(network, 8, last=last)
    else:
        words = "found 1 in the last step of an epoch: batch norms need .* of several; give another batch_size$"
        with pytest.raises(UserError, match=words):
            check_batch_norms(network, 8, last=last)
