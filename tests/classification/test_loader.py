from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from lessismore_transforms.classification.examples import Example, Examples, Split
from lessismore_transforms.classification.loader import EvaluationLoader, ExampleBatches, PrepareExamples
from lessismore_transforms.classification.preprocessing import Prepare
from lessismore_transforms.training.loader import StepLoader, StepSampler


def split(count: int = 7) -> Split:
    """Pictures of their own size and grey value."""
    images = [np.full((4 + k, 5), 10 * k, np.uint8) for k in range(count)]
    examples = tuple(Example(str(k), k % 2, "train") for k in range(count))
    return Split(Examples("task", ("a", "b"), examples, images, 1), "train", Prepare(4))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_has_every_picture_with_its_label(workers: int) -> None:
    pictures = split()
    sampler = StepSampler(7, 3, 6, batches_per_epoch=3, drop_last=False)
    batches = list(StepLoader(ExampleBatches(pictures), sampler, workers=workers))
    assert [batch["step"] for batch in batches] == [1, 2, 3, 4, 5, 6]
    for epoch in (batches[:3], batches[3:]):
        assert [len(batch["image"]) for batch in epoch] == [3, 3, 1]
        index = torch.cat([batch["index"] for batch in epoch])
        assert sorted(index.tolist()) == list(range(7))
        assert torch.equal(torch.cat([batch["label"] for batch in epoch]), index % 2)
        grey = torch.cat([batch["image"] for batch in epoch])
        torch.testing.assert_close(grey, (index * 10 / 255)[:, None, None, None].expand(-1, 1, 4, 4))


def test_evaluation_goes_through_a_split_in_order() -> None:
    batches = list(EvaluationLoader(split(), 3))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def prepared(flip: float, step: int = 1, seed: int = 0, transpose: bool = False, count: int = 500) -> torch.Tensor:
    image = torch.arange(6.0).reshape(1, 1, 2, 3).expand(count, -1, -1, -1)
    batch = {"image": image, "label": torch.arange(count), "step": step}
    made, label = PrepareExamples(flip, seed=seed, transpose=transpose)(batch, torch.device("cpu"))
    assert torch.equal(label, torch.arange(count))
    return made


@pytest.mark.parametrize(("transpose", "mirrored"), [(False, [[2, 1, 0], [5, 4, 3]]), (True, [[3, 4, 5], [0, 1, 2]])])
def test_pictures_are_mirrored_left_and_right_as_often_as_asked(transpose: bool, mirrored: list) -> None:
    plain, other = torch.arange(6.0).reshape(1, 2, 3), torch.tensor(mirrored, dtype=torch.float32)[None]
    assert all(torch.equal(image, plain) for image in prepared(0))
    assert all(torch.equal(image, other) for image in prepared(1, transpose=transpose))
    flipped = [torch.equal(image, other) for image in prepared(0.3, transpose=transpose)]
    assert 110 < sum(flipped) < 190  # 150 +- 4 standard deviations
    assert sum(flipped) + sum(torch.equal(image, plain) for image in prepared(0.3, transpose=transpose)) == 500


def test_which_are_mirrored_is_a_function_of_seed_and_step() -> None:
    assert torch.equal(prepared(0.5), prepared(0.5))
    assert not torch.equal(prepared(0.5), prepared(0.5, step=2))
    assert not torch.equal(prepared(0.5), prepared(0.5, seed=1))
    with pytest.raises(ValueError, match=r"expected flip to be a probability from 0 to 1, found 1.5; 0.5 is usual"):
        PrepareExamples(1.5)


def ignores_signals(item: dict) -> dict:
    """As a worker sees it: label 1 if it lives on when all processes of a job are asked to end."""
    ignored = all(signal.getsignal(number) == signal.SIG_IGN for number in (signal.SIGTERM, signal.SIGINT))
    return {**Prepare(4)(item), "label": int(ignored)}


def test_workers_leave_signals_to_the_trainer() -> None:
    pictures = split()
    pictures.transform = ignores_signals
    sampler = StepSampler(7, 7, 1, batches_per_epoch=1)
    for loader in (StepLoader(ExampleBatches(pictures), sampler, workers=1), EvaluationLoader(pictures, 7, workers=1)):
        (batch,) = loader
        assert batch["label"].tolist() == [1] * 7
