from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.visualize import GradCAM
from scipy.stats import spearmanr, t
from torch import nn
from torchvision.models import resnet18

from lessismore_transforms.analysis.attention import (
    default_layer,
    feature_norm_map,
    grad_cam,
    histogram_intersection,
    iou,
    overlap,
    rank_correlation,
    scaled,
)
from lessismore_transforms.analysis.group_intervals import difference_by_groups, jackknife, mean_by_groups
from lessismore_transforms.classification.network import Classifier


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return resnet18(num_classes=3).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


# maps


@pytest.mark.parametrize("layer", ["layer4", "layer3"])
@pytest.mark.parametrize("chosen", [0, 2])
def test_grad_cam_is_that_of_monai_turned_the_right_way(network, images, layer: str, chosen: int) -> None:
    """MONAI's normaliser gives 0 where the evidence is largest."""
    expected = 1 - GradCAM(resnet18_copy(network), layer)(images[1:2], class_idx=chosen)[0, 0]
    found = grad_cam(network, images[1:2], classes=[chosen], layer=layer)
    torch.testing.assert_close(found[0], expected.detach(), atol=1e-5, rtol=0)
    assert found.max() == 1


def resnet18_copy(network: nn.Module) -> nn.Module:
    copied = resnet18(num_classes=3)
    copied.load_state_dict(network.state_dict())
    return copied.eval()


@pytest.mark.parametrize("classes", [None, [0, 2, 1, 1]])
def test_maps_of_a_batch_are_those_of_single_pictures(network, images, classes) -> None:
    """MONAI adds the gradients of all classes that a batch asks for to each picture."""
    together = grad_cam(network, images, classes=classes, batch_size=3)
    each = [grad_cam(network, images[i : i + 1], classes=classes and [classes[i]]) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(each), atol=1e-4, rtol=0)
    layer = default_layer(network)
    mixed = GradCAM(resnet18_copy(network), layer)(images, class_idx=torch.tensor([0, 2, 1, 1]))[:, 0]
    assert (1 - mixed.detach() - together).abs().max() > 0.01


def test_predicted_classes_are_taken_unless_others_are_given(network, images) -> None:
    predicted = network(images).argmax(dim=1)
    torch.testing.assert_close(grad_cam(network, images), grad_cam(network, images, classes=predicted))


def test_grad_cam_by_the_equations(images) -> None:
    """Weights of channels are means of gradients, which for a linear layer behind a mean are its weights / (h w)."""
    conv, linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
    simple = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    found = grad_cam(simple, images, classes=[1, 1, 0, 1])
    for row, chosen in enumerate([1, 1, 0, 1]):
        evidence = torch.einsum("c,chw->hw", linear.weight[chosen], conv(images)[row]).relu()
        torch.testing.assert_close(found[row], (evidence / evidence.max()).detach(), atol=1e-5, rtol=0)


def test_the_network_is_left_as_it_was(network, images) -> None:
    """A frozen classifier in training mode: no hook, no gradient, the same statistics; and grey pictures."""
    classifier = Classifier(nn.Sequential(*list(network.children())[:-1], nn.Flatten()), 512, 2)
    nn.init.constant_(classifier.classifier.weight, 0.1)  # of features that are 0 or more: never without evidence
    classifier.freeze(True)
    classifier.train()
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    with torch.no_grad():
        maps = grad_cam(classifier, images[:2, :1]), feature_norm_map(classifier, images[:2, :1])
    assert all(each.shape == (2, 64, 64) and each.max() == 1 and not each.requires_grad for each in maps)
    assert classifier.training
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in classifier.modules())
    assert any(getattr(module, "inplace", False) for module in classifier.modules())


def test_length_of_features_by_hand() -> None:
    """Two channels 3 x and 4 x of a grey picture have the length 5 |x|."""
    conv = nn.Conv2d(3, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, 0, 0, 0] = torch.tensor([3.0, 4.0])
    picture = torch.tensor([[1.0, -2.0], [3.0, 5.0]])[None, None]
    found = feature_norm_map(nn.Sequential(conv, nn.Flatten()), picture, layer="0")
    torch.testing.assert_close(found[0], torch.tensor([[0.0, 0.25], [0.5, 1.0]]))


def test_a_network_without_evidence_gives_maps_of_zero(images) -> None:
    dead = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    nn.init.zeros_(dead[3].weight)
    maps = grad_cam(dead, images)
    assert torch.equal(maps, torch.zeros(4, 64, 64))
    found = overlap(maps, scaled(images[:, 0]))
    assert found.constant == 4
    assert np.isnan(found.iou).all()


def test_default_layer(network) -> None:
    assert default_layer(network) == "layer4.1"
    assert default_layer(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))) == "2"
    with pytest.raises(ValueError, match="a network with a convolution, found none"):
        default_layer(nn.Linear(2, 2))


@pytest.mark.parametrize("maps", [grad_cam, feature_norm_map])
@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (
            "layr4",
            "expected names of layers, found 'layr4', which the network does not have; the closest",
        ),
        (
            "fc",
            r"gives maps \(B, channels, h, w\) of several places, found \(1, 3\) of fc: give an earlier one",
        ),
    ],
)
def test_a_wrong_layer_is_told(network, images, maps, layer: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        maps(network, images, layer=layer)


def test_a_layer_that_never_runs_is_told(images) -> None:
    idle = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    idle[1].register_module("idle", nn.Conv2d(3, 2, 3))
    with pytest.raises(ValueError, match=r"a layer that runs and gives one tensor, found that 1\.idle does not"):
        feature_norm_map(idle, images)


def test_wrong_input_of_grad_cam_is_told(network, images) -> None:
    with pytest.raises(ValueError, match="classes from 0 to 2, found 0 to 3"):
        grad_cam(network, images, classes=[0, 3, 1, 1])
    with pytest.raises(ValueError, match=r"for each of 4 pictures, found \(3,\) of torch.int64"):
        grad_cam(network, images, classes=[0, 1, 1])
    with pytest.raises(ValueError, match=r"changes that of layer4.1.bn2 in place .* give the block"):
        grad_cam(network, images, layer="layer4.1.bn2")
    with pytest.raises(ValueError, match=r"expected pictures \(N, 1 or 3, H, W\), found \(3, 64, 64\)"):
        grad_cam(network, images[0])


# overlap


def test_overlap_of_a_map_with_itself_and_of_disjoint_ones() -> None:
    maps = np.random.default_rng(0).random((3, 8, 8))
    same = overlap(maps, maps)
    assert np.array_equal(same.iou, np.ones((9, 3)))
    assert same.intersection == pytest.approx(1)
    assert same.spearman == pytest.approx(1)
    assert same.constant == 0
    left = np.zeros((1, 4, 4))
    left[:, :, :2] = 1
    apart = overlap(left, 1 - left)
    assert not apart.iou.any()
    assert apart.intersection == 0
    assert apart.spearman == pytest.approx(-1)


def test_overlap_by_hand() -> None:
    """At half of the maximum 2 of 3 places are common; sums of 2 and 4 scale to 1."""
    first = np.array([[[1.0, 0.5], [0.5, 0.0]]])
    second = np.array([[[4.0, 2.0], [0.0, 2.0]]]) / 4
    assert iou(first, second).tolist() == [2 / 4]
    assert iou(first, second, share=0.51).tolist() == [1]
    assert histogram_intersection(first, second) == pytest.approx(0.5 + 0.25)
    assert overlap(first, second, shares=[0.1, 0.6]).iou.tolist() == [[0.5], [1.0]]
    assert overlap(first, second).shares == pytest.approx(np.arange(1, 10) / 10)


def test_rank_correlation_is_that_of_scipy_and_keeps_under_rising_functions() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (2, 3, 6, 6)) / 4
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    assert rank_correlation(first, second) == pytest.approx(expected)
    assert rank_correlation(first**3, second) == pytest.approx(expected)


def test_overlap_is_the_same_for_places_in_another_order() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 3, 6, 6))
    order = np.random.default_rng(1).permutation(36)
    moved = [maps.reshape(3, 36)[:, order].reshape(3, 6, 6) for maps in (first, second)]
    for before, after in zip(overlap(first, second)[1:], overlap(*moved)[1:], strict=True):
        np.testing.assert_allclose(after, before)


def test_constant_maps_have_no_overlap_and_are_counted() -> None:
    first = np.random.default_rng(0).random((4, 5, 5))
    second = first.copy()
    second[1], first[2] = 0, 0.5
    found = overlap(first, second)
    assert found.constant == 2
    for values in (*found.iou, found.intersection, found.spearman):
        assert np.isnan(values).tolist() == [False, True, True, False]
    mean = mean_by_groups(found.iou[4], ["a", "b", "b", "c"])
    assert (mean.value, mean.groups, mean.undefined) == (1, 2, 2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: iou(np.zeros((2, 3, 3)), np.zeros((2, 4, 4))), r"found \(2, 3, 3\) and \(2, 4, 4\): resize one"),
        (lambda: overlap(-np.ones((2, 3, 3)), np.ones((2, 3, 3))), "maps of 0 or more, found negative values"),
        (lambda: iou(np.ones((2, 3, 3)), np.ones((2, 3, 3)), share=0), "a share of the maximum above 0 and up to 1"),
    ],
)
def test_wrong_maps_are_told(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


# means with intervals


def test_single_pictures_have_the_interval_of_student() -> None:
    """Mean 3, deviation sqrt(2.5), 5 pictures, quantile 2.776."""
    found = mean_by_groups([1, 2, 3, 4, 5], range(5))
    reach = 2.7764451 * math.sqrt(2.5 / 5)
    assert found == (3, pytest.approx(3 - reach), pytest.approx(3 + reach), 5, 0)


def test_a_mean_is_the_jackknife_of_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.random(30), np.sort(rng.integers(0, 9, 30))
    names = np.unique(groups)
    without = np.array([values[groups != name].mean() for name in names])
    error = math.sqrt((len(names) - 1) ** 2 / len(names) * without.var(ddof=1))
    found = mean_by_groups(values, groups)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(t.ppf(0.975, len(names) - 1) * error)
    order = rng.permutation(30)
    assert mean_by_groups(values[order], groups[order]) == pytest.approx(found)
    whole = jackknife(lambda rows: values[rows].mean(), groups)
    assert whole == pytest.approx(found)


def test_a_difference_is_paired() -> None:
    """What is common to both, here nearly all, is not in the interval."""
    rng = np.random.default_rng(0)
    common, groups = rng.random(40), np.arange(40) // 4
    found = difference_by_groups(common + 0.1, common, groups)
    assert found[:3] == pytest.approx((0.1, 0.1, 0.1))
    assert np.subtract(*mean_by_groups(common, groups)[2:0:-1]) > 0.05
    lost = common.copy()
    lost[:5] = math.nan
    assert difference_by_groups(common, lost, groups)[3:] == (9, 5)


def test_too_few_groups_have_no_interval() -> None:
    assert np.isnan(mean_by_groups([1.0, 2.0], ["a", "a"])[1:3]).all()
    assert math.isnan(mean_by_groups([math.nan], ["a"]).value)
    assert np.isnan(jackknife(lambda rows: float(len(rows)), ["a", "a"])[1:3]).all()


def coverage(count: int, *, whole: bool, repeats: int = 1500) -> float:
    """The share of intervals that hold the true mean 0, of patients with 1 to 6 pictures that look alike."""
    rng = np.random.default_rng(count)
    hits = 0
    for _ in range(repeats):
        groups = np.repeat(np.arange(count), rng.integers(1, 7, count))
        values = rng.normal(size=count)[groups] + 0.5 * rng.normal(size=len(groups))
        found = mean_by_groups(values, groups if whole else np.arange(len(groups)))
        hits += found.low <= 0 <= found.high
    return hits / repeats


@pytest.mark.parametrize("count", [10, 40])
def test_intervals_of_clustered_pictures_hold_the_mean(count: int) -> None:
    assert 0.93 < coverage(count, whole=True) < 0.97
    assert coverage(count, whole=False, repeats=300) < 0.8


def test_intervals_of_few_blocks_hold_the_mean() -> None:
    """60 groups in 20 blocks, a statistic of pairs: half of the mean squared difference is the variance, here 1."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        values = rng.uniform(-math.sqrt(3), math.sqrt(3), 60)
        found = jackknife(lambda rows, v=values: float(v[rows].var(ddof=1)), np.arange(60), blocks=20)
        hits += found.low <= 1 <= found.high
    assert 0.92 < hits / 500 < 0.98


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mean_by_groups([1, 2], [1]), r"a value and a group for each picture, found \(2,\) and \(1,\)"),
        (lambda: mean_by_groups([1, math.inf], [1, 2]), "expected finite values or nan, found infinity"),
        (lambda: mean_by_groups([1, 2], [1, 2], level=95), "a level between 0 and 1, found 95"),
        (lambda: jackknife(len, [1, 2], blocks=1), "2 blocks or more, found 1"),
        (lambda: difference_by_groups([1, 2], [1], [1, 2]), r"found \(2,\) and \(1,\): give equal lengths"),
    ],
)
def test_wrong_values_are_told(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
