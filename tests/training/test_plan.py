"""The length of a training, in epochs or in steps."""

from __future__ import annotations

import pytest

from lessismore_transforms.training.plan import Plan


def test_epochs() -> None:
    plan = Plan.of(1000, batch_size=128, max_epochs=800)
    assert (plan.batches_per_epoch, plan.iterations, plan.max_epochs, plan.steps) == (7, 5600, 800, 5600)


def test_the_lidc_set_has_1905_batches_of_128() -> None:
    assert Plan.of(243_958, batch_size=128, max_epochs=1).batches_per_epoch == 1905  # SwAV on LIDC ALL


def test_steps_replace_epochs() -> None:
    plan = Plan.of(1000, batch_size=128, max_epochs=2, max_steps=20)
    assert (plan.iterations, plan.max_epochs) == (20, 3)


def test_accumulation_makes_whole_steps() -> None:
    plan = Plan.of(1000, batch_size=128, max_epochs=2, accumulation=2)
    assert (plan.batches_per_epoch, plan.iterations, plan.steps) == (6, 12, 6)
    assert Plan.of(1000, batch_size=128, max_epochs=1, max_steps=4, accumulation=2).iterations == 8


@pytest.mark.parametrize("slices", [1000, 22_672, 243_958])
def test_an_epoch_of_a_budget_in_steps_is_a_share_of_it_whatever_the_set(slices: int) -> None:
    plan = Plan.of(slices, batch_size=128, max_epochs=800, max_steps=20_000)
    assert plan.iterations_of(10) == 250  # 1.25 %; of epochs of LIDC it would be 19,050
    assert [plan.interval_of(epochs) for epochs in (1, 10, 50)] == [25, 250, 1250]
    whole = Plan.of(slices, batch_size=128, max_epochs=800, max_steps=90, accumulation=3)
    assert (whole.iterations_of(15), whole.iterations_of(10), whole.interval_of(1)) == (3, 3, 3)  # whole steps


def test_a_setting_in_epochs_of_a_short_budget_in_steps_has_an_effect() -> None:
    plan = Plan.of(1000, batch_size=8, max_epochs=800, max_steps=120, accumulation=2)
    assert [plan.iterations_of(epochs) for epochs in (0, 1, 6, 7, 20)] == [0, 2, 2, 2, 6]
    one = Plan.of(1000, batch_size=8, max_epochs=800, max_steps=1)
    assert (one.iterations_of(10), one.interval_of(10)) == (0, 1)  # a warm-up cannot take the whole training


def test_an_epoch_of_a_length_in_epochs_is_one() -> None:
    plan = Plan.of(243_958, batch_size=128, max_epochs=800)
    assert (plan.iterations_of(10), plan.interval_of(50)) == (19_050, 95_250)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"slices": 100, "batch_size": 128, "max_epochs": 1}, "at least 128 slices .* found 100"),
        ({"slices": 200, "batch_size": 128, "max_epochs": 1, "accumulation": 2}, "at least 256 slices"),
        ({"slices": 100, "batch_size": 10, "max_epochs": 1, "processes": 4}, "4 processes share .* take 8"),
        ({"slices": 100, "batch_size": 0, "max_epochs": 1}, "batch_size to be a whole number from 1, found 0"),
        ({"slices": 100, "batch_size": 10, "max_epochs": 1.5}, "max_epochs to be .* found 1.5"),
        ({"slices": 100, "batch_size": 10, "max_epochs": 1, "max_steps": "many"}, "max_steps .* 'many'"),
    ],
)
def test_bad_numbers(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Plan.of(**settings)


@pytest.mark.parametrize(("slices", "processes", "batches"), [(8, 1, 2), (9, 1, 2), (10, 1, 3), (10, 4, 2), (3, 1, 1)])
def test_the_rest_makes_a_batch_where_it_is_kept_and_is_enough(slices: int, processes: int, batches: int) -> None:
    plan = Plan.of(slices, batch_size=4, max_epochs=2, processes=processes, drop_last=False)
    assert (plan.batches_per_epoch, plan.iterations) == (batches, 2 * batches)
