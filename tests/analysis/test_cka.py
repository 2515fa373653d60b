from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import in_processes
from torch import nn

from lessismore_transforms.analysis.cka import (
    CKA,
    compare_networks,
    difference,
    gram,
    layer_grams,
    load_cka,
    save_cka,
    u_centred,
)
from lessismore_transforms.errors import UserError
from lessismore_transforms.weights.backbones import build_backbone

pytestmark = pytest.mark.usefixtures("one_thread")

PIXELS = 12  # numbers of a picture (3, 2, 2)


class Maps(nn.Module):
    """Layers that are linear maps of the picture, side by side.

    Args:
        weights: (features, 12) of each.
    """

    def __init__(self, *weights: torch.Tensor) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(3, len(weight), 2, bias=False) for weight in weights)
        for layer, weight in zip(self.maps, weights, strict=True):
            layer.weight.data = weight.reshape(-1, 3, 2, 2).float()
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(images).flatten(1) for layer in self.maps], dim=1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return normal(count, 3, 2, 2, seed=seed)


def compare(first: nn.Module, second: nn.Module, images: torch.Tensor, batch: int = 16, **settings) -> CKA:
    return compare_networks(first, second, images.split(batch), progress=False, **settings)


def hsic_1_by_loops(k: np.ndarray, m: np.ndarray) -> float:
    """METHODS: [tr(KL) + sum(K) sum(L) / ((n-1)(n-2)) - 2 sum(KL) / (n-2)] / (n (n-3)), diagonals 0."""
    n = len(k)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    trace = sum(k[i, j] * m[j, i] for i, j in pairs)
    sums = sum(k[i, j] for i, j in pairs) * sum(m[i, j] for i, j in pairs)
    product = sum(k[i, j] * m[j, h] for i, j in pairs for h in range(n) if h != j)
    return (trace + sums / ((n - 1) * (n - 2)) - 2 * product / (n - 2)) / (n * (n - 3))


def hsic_1(x: torch.Tensor, y: torch.Tensor) -> float:
    a, b = u_centred(torch.stack([gram(x), gram(y)]))
    n = len(x)
    return float((a * b).sum() / (n * (n - 3)))


def cka_by_loops(x: torch.Tensor, y: torch.Tensor, batches: Sequence[Sequence[int]]) -> float:
    """Of features; a batch of n pictures counts n times."""
    sums = np.zeros(3)
    for batch in batches:
        if len(batch) > 3:
            a, b = (f[list(batch)].double().numpy() for f in (x, y))
            k, m = a @ a.T, b @ b.T
            sums += [len(batch) * hsic_1_by_loops(*pair) for pair in ((k, m), (k, k), (m, m))]
    return sums[0] / math.sqrt(sums[1] * sums[2])


def truth(first: torch.Tensor, second: torch.Tensor) -> float:
    """CKA of two linear maps of pictures whose numbers are independent with variance 1."""
    cross, *own = (float((a @ b.T).square().sum()) for a, b in ((first, second), (first, first), (second, second)))
    return cross / math.sqrt(own[0] * own[1])


# HSIC


@pytest.mark.parametrize("n", [4, 5, 9])
def test_hsic_1_equals_loops_over_the_formula(n: int) -> None:
    x, y = normal(n, 7), normal(n, 30, seed=1)
    x[:, 0] += y[:, 0]
    expected = hsic_1_by_loops((x @ x.T).double().numpy(), (y @ y.T).double().numpy())
    assert hsic_1(x, y) == pytest.approx(expected, rel=1e-4)
    assert hsic_1(x, y) == pytest.approx(hsic_1(y, x), rel=1e-12)


def test_hsic_1_by_hand() -> None:
    """One feature 1, -1, 0, 0: K has -1 in one place; sum -2, squares 2, product sum 2; (2 + 4 / 6 - 2) / 4 = 1 / 6."""
    x = torch.tensor([[1.0], [-1.0], [0.0], [0.0]])
    assert hsic_1(x, x) == pytest.approx(1 / 6)
    y = torch.tensor([[0.0], [0.0], [1.0], [-1.0]])  # KL = 0, sums 4: (0 + 4 / 6) / 4
    assert hsic_1(x, y) == pytest.approx(1 / 6)
    z = torch.tensor([[1.0], [0.0], [-1.0], [0.0]])  # KL has one place: (0 + 4 / 6 - 1) / 4
    assert hsic_1(x, z) == pytest.approx(-1 / 12)


def test_hsic_1_has_no_bias() -> None:
    values = [hsic_1(normal(6, 3, seed=seed), normal(6, 3, seed=seed + 5000)) for seed in range(2000)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))
    x = [normal(6, 3, seed=seed) for seed in range(2000)]
    values = [hsic_1(a, a[:, :2]) for a in x]  # truth: trace of the product of covariances, 2
    assert abs(np.mean(values) - 2) < 3 * np.std(values) / math.sqrt(len(values))


def test_centred_rows_sum_to_zero() -> None:
    symmetric = gram(normal(9, 5))
    centred = u_centred((symmetric + symmetric.T)[None] / 2)[0]  # some machines multiply both triangles by themselves
    assert centred.dtype == torch.float64
    assert centred.sum(0).abs().max() < 1e-12
    assert centred.diagonal().abs().max() == 0


def test_gram_is_of_features_less_their_mean() -> None:
    x = normal(8, 3, 40, 50)
    flat = (x - x.mean(0)).flatten(1).double()
    assert torch.allclose(gram(x).double(), flat @ flat.T, rtol=1e-4, atol=0.05)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(gram(last), gram(x), rtol=1e-4, atol=0.05)  # another order of the features
    assert gram(x.bfloat16()).dtype == torch.float32
    assert torch.equal(gram(x.bfloat16()), gram(x.bfloat16().float()))


def test_centring_saves_features_far_from_zero() -> None:
    x, y = normal(8, 400), normal(8, 400, seed=1)
    x[:, :100] += y[:, :100]
    far = (x.double() + 2048).float()  # 11 of 24 bits are gone, the rest is there
    exact = far.double()
    expected = hsic_1_by_loops((exact @ exact.T).numpy(), (y.double() @ y.double().T).numpy())
    assert hsic_1(far, y) == pytest.approx(expected, rel=1e-4)
    plain = u_centred(torch.stack([far @ far.T, gram(y)]))
    assert float((plain[0] * plain[1]).sum() / 40) != pytest.approx(expected, rel=0.01)


def test_a_part_of_the_positions_is_the_same_for_all_pictures() -> None:
    x = torch.arange(36.0).reshape(1, 1, 6, 6) * torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    part = gram(x, 3)
    assert part[0, 0] == -part[0, 1] == part[1, 1]
    squares = {sum(value**2 for value in chosen) for chosen in itertools.combinations(range(36), 3)}
    assert int(part[0, 0]) in squares
    assert torch.equal(part, gram(x.contiguous(memory_format=torch.channels_last), 3))
    assert torch.equal(gram(x, 36), gram(x))
    assert torch.equal(gram(x.flatten(1), 3), gram(x.flatten(1)))  # no positions


# CKA


def test_two_layers_by_hand() -> None:
    """The first four pixels are 1, -1, 0, 0 in one picture each; see HSIC_1 by hand."""
    images = torch.zeros(4, PIXELS)
    images[0, :2], images[1, 0], images[2, 1], images[2, 2], images[3, 2] = 1, -1, -1, 1, -1
    rows = [torch.eye(PIXELS)[i : i + 1] for i in range(3)]  # the features x, z and y of above
    result = compare(Maps(rows[0]), Maps(*rows), images.reshape(4, 3, 2, 2))
    assert result.cka == pytest.approx(np.array([[1, -0.5, 1]]), abs=1e-6)
    assert (result.rows, result.columns) == (("maps.0",), ("maps.0", "maps.1", "maps.2"))
    assert (result.pictures, result.units, result.batch_size) == (4, 4, 4)
    assert np.isnan(result.low[0, 1])  # three pictures are too few to leave one out


def test_a_network_is_like_itself() -> None:
    network = Maps(normal(5, PIXELS), normal(9, PIXELS, seed=1))
    result = compare(network, network, pictures(24), 8)
    assert np.diag(result.cka) == pytest.approx(1, abs=1e-12)
    assert np.array_equal(np.diag(result.low), np.diag(result.cka))
    assert np.allclose(result.cka, result.cka.T, atol=1e-12)
    assert result.low[0, 1] < result.cka[0, 1] < result.high[0, 1]
    twin = compare(network, Maps(normal(5, PIXELS), normal(9, PIXELS, seed=1)), pictures(24), 8)
    assert np.allclose(twin.cka, result.cka, atol=1e-12)
    assert np.allclose(twin.low, result.low, atol=1e-9)


def test_rotations_and_scales_of_features_do_not_count_linear_maps_do() -> None:
    weight, other = normal(6, PIXELS), normal(6, PIXELS, seed=1)
    rotation, _ = torch.linalg.qr(normal(6, 6, seed=2))
    maps = Maps(weight, 100 * rotation @ weight, torch.diag(torch.arange(1.0, 7)) @ weight)
    values = compare(Maps(other), maps, pictures(64)).cka[0]
    assert values[1] == pytest.approx(values[0], abs=1e-5)
    assert abs(values[2] - values[0]) > 0.01


def test_map_and_replicates_equal_loops() -> None:
    """Patients of several pictures, some in two batches, the last batch shorter."""
    first, second = Maps(normal(5, PIXELS)), Maps(normal(4, PIXELS, seed=1), normal(3, PIXELS, seed=2))
    images, groups = pictures(19, seed=3), list("aabcdaefghbbijklmnn")
    result = compare(first, second, images, 7, groups=groups)
    batches = [range(7), range(7, 14), range(14, 19)]
    x, ys = first(images).detach(), second(images).detach().split([4, 3], dim=1)
    assert (result.pictures, result.units, result.batch_size) == (19, 14, 7)
    for column, y in enumerate(ys):
        assert result.cka[0, column] == pytest.approx(cka_by_loops(x, y, batches), abs=1e-5)
        for place, unit in enumerate(dict.fromkeys(groups)):
            rest = [[i for i in batch if groups[i] != unit] for batch in batches]
            assert result.replicates is not None
            assert result.replicates[place, 0, column] == pytest.approx(cka_by_loops(x, y, rest), abs=1e-5), unit
        z = np.arctanh(result.replicates[:, 0, column])
        error = math.sqrt(13 / 14 * ((z - z.mean()) ** 2).sum())
        ends = np.tanh(np.arctanh(result.cka[0, column]) + np.array([-1, 1]) * 2.160369 * error)  # Student, 13
        assert [result.low[0, column], result.high[0, column]] == pytest.approx(ends, abs=1e-5)


def test_a_batch_that_a_patient_leaves_too_small_is_left_out() -> None:
    network, images = Maps(normal(5, PIXELS), normal(3, PIXELS, seed=1)), pictures(11)
    result = compare(network, network, images, 6, groups=[*"aaabcd", *"efghi"])
    x, y = network(images).detach().split([5, 3], dim=1)
    assert result.replicates is not None
    assert result.replicates[0, 0, 1] == pytest.approx(cka_by_loops(x, y, [range(6, 11)]), abs=1e-5)


def test_batches_of_8_and_of_64_agree() -> None:
    first, second = Maps(normal(6, PIXELS)), Maps(normal(6, PIXELS, seed=1))
    small, large = (compare(first, second, pictures(512), batch) for batch in (8, 64))
    error = (small.high - small.low).item() / 4
    assert abs(small.cka - large.cka).item() < 2 * error < 0.1


def test_a_short_last_batch_joins_the_one_before() -> None:
    first, second, images = Maps(normal(6, PIXELS)), Maps(normal(6, PIXELS, seed=1)), pictures(19)
    joined = compare_networks(first, second, [images[:8], images[8:16], images[16:]], progress=False)
    whole = compare_networks(first, second, [images[:8], images[8:]], progress=False)
    assert np.array_equal(joined.cka, whole.cka)
    assert np.array_equal(joined.low, whole.low)
    assert joined.batch_size == 11


def test_networks_of_different_depth() -> None:
    shallow, deep = build_backbone("resnet18", weights="random"), build_backbone("resnet50", weights="random")
    images = normal(6, 3, 32, 32)
    result = compare(shallow, deep, images)
    assert result.cka.shape == result.low.shape == (50, 124)
    assert (result.rows[0], result.rows[-1], result.columns[-1]) == ("conv1", "avgpool", "avgpool")
    turned = compare(deep, shallow, images)
    assert np.allclose(turned.cka, result.cka.T, atol=1e-6)
    first, last = [], []
    shallow.conv1.register_forward_hook(lambda module, inputs, output: first.append(output))
    deep.avgpool.register_forward_hook(lambda module, inputs, output: last.append(output))
    with torch.no_grad():
        shallow(images), deep(images)
    expected = cka_by_loops(first[0].flatten(1), last[0].flatten(1), [range(6)])
    assert result.cka[0, -1] == pytest.approx(expected, abs=1e-3)


def test_a_batch_norm_is_seen_before_the_relu_in_place() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 2), nn.BatchNorm2d(6), nn.ReLU(inplace=True)).eval()
    images = pictures(8)
    grams = layer_grams(network, ["0", "1"], images)
    with torch.no_grad():
        assert torch.equal(grams[1], gram(network[1](network[0](images))))
        assert not torch.allclose(grams[1], gram(network(images)))


def test_networks_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 2), nn.BatchNorm2d(6)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = compare(network, network, pictures(8))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert result.cka.shape == (2, 2)


def test_one_pass_for_one_network() -> None:
    passes = []
    network = Maps(normal(6, PIXELS))
    network.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    compare(network, network, pictures(16), 8)
    assert passes == [2, 8, 8]  # two pictures to find the layers


def test_networks_of_any_precision_run_in_float32() -> None:
    weight, images = normal(6, PIXELS).bfloat16().float(), pictures(16).bfloat16()
    network = Maps(weight, normal(4, PIXELS, seed=1).bfloat16().float())
    expected = compare(network, network, images.float()).cka
    assert np.array_equal(compare(copy.deepcopy(network).bfloat16(), network.double(), images).cka, expected)


def test_grey_pictures_as_colour_ones_and_any_setting_outside() -> None:
    network, grey = Maps(normal(6, PIXELS), normal(4, PIXELS, seed=1)), pictures(16)[:, :1]
    expected = compare(network, network, grey.expand(-1, 3, -1, -1))
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            result = compare(network, network, grey)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert np.array_equal(result.cka, expected.cka)


def test_a_constant_layer_has_no_similarity() -> None:
    result = compare(Maps(normal(6, PIXELS), torch.zeros(2, PIXELS)), Maps(normal(5, PIXELS, seed=1)), pictures(16))
    assert np.isnan(result.cka[:, 0]).tolist() == [False, True]
    assert np.isnan(result.low[:, 0]).tolist() == [False, True]
    assert result.notes == ("maps.1 of the first network gives the same for all pictures: it has no similarity",)
    broken = compare(Maps(normal(6, PIXELS)), Maps(torch.full((2, PIXELS), torch.nan)), pictures(16))
    assert broken.notes == (
        "maps.0 of the second network gives numbers that are not finite: it has no similarity",
    )  # fmt: skip


def test_rounding_around_a_constant_is_constant() -> None:
    x = 3 + 1e-7 * normal(8, 1000)
    assert len(x.unique()) > 1
    assert torch.equal(gram(x), torch.zeros(8, 8))
    assert gram(3 + 1e-4 * normal(8, 1000)).diagonal().min() > 0


# intervals


def coverage(repeats: int, units: int, batch: int, each: int = 1) -> np.ndarray:
    """The share of intervals that hold the truth, for layers that are alike by 0, 0.28, 0.5, 0.85 and 0.999.

    A patient has `each` pictures that resemble each other and do not meet in a batch.
    """
    weight, line = normal(6, PIXELS), torch.eye(PIXELS)
    others = [weight + noise * normal(6, PIXELS, seed=1) for noise in (0.03, 0.6, 2)]
    first, second = [weight, line[:6]], [*others, line[6:]]
    expected = np.array([[truth(a, b) for b in second] for a in first])
    networks = [Maps(*maps) for maps in (first, second)]
    hits = np.zeros_like(expected)
    for seed in range(repeats):
        own, shared = normal(each, units, 3, 2, 2, seed=2 * seed), normal(units, 3, 2, 2, seed=2 * seed + 1)
        images = (own if each == 1 else 0.6 * own + 0.8 * shared).flatten(0, 1)
        result = compare(*networks, images, batch, groups=list(range(units)) * each)
        hits += (result.low <= expected) & (expected <= result.high)
    return hits / repeats


def test_intervals_hold_the_truth() -> None:
    assert coverage(100, 20, 20).min() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("units", "batch", "each"), [(40, 20, 1), (24, 12, 4), (100, 100, 1)])
def test_intervals_hold_the_truth_often_enough(units: int, batch: int, each: int) -> None:
    found = coverage(300, units, batch, each)
    assert found.min() > 0.92
    assert 0.95 < found.mean() < 0.99


@pytest.mark.slow
def test_intervals_of_differences_hold_the_truth_often_enough() -> None:
    weight = normal(6, PIXELS)
    others = [weight + noise * normal(6, PIXELS, seed=1) for noise in (0.5, 0.8)]
    expected = truth(weight, others[0]) - truth(weight, others[1])
    hits, networks = 0, [Maps(weight), *map(Maps, others)]
    for seed in range(300):
        images = pictures(40, seed)
        result = difference(*(compare(networks[0], network, images, 20) for network in networks[1:]))
        hits += result.low.item() <= expected <= result.high.item()
    assert 0.93 < hits / 300 < 0.99


def test_a_difference_has_the_interval_of_paired_pictures() -> None:
    weight = normal(6, PIXELS)
    networks = [Maps(weight), *(Maps(weight + noise * normal(6, PIXELS, seed=1)) for noise in (0.5, 0.52))]
    one, other = (compare(networks[0], network, pictures(60), 20) for network in networks[1:])
    result = difference(one, other)
    assert result.difference == pytest.approx(one.cka - other.cka)
    assert one.replicates is not None
    assert other.replicates is not None
    replicates = (one.replicates - other.replicates)[:, 0, 0]
    reach = 2.000995 * math.sqrt(59 / 60 * ((replicates - replicates.mean()) ** 2).sum())  # Student, 59
    assert (result.high - result.low).item() / 2 == pytest.approx(reach, rel=1e-4)
    assert result.low.item() > 0  # although the intervals of the two overlap
    assert one.low.item() < other.high.item()
    assert difference(one, one).high.item() == 0


def test_other_pictures_have_no_difference() -> None:
    network = Maps(normal(6, PIXELS))
    one = compare(network, network, pictures(16))
    with pytest.raises(UserError, match="another checksum"):
        difference(one, compare(network, network, pictures(16, seed=1)))
    with pytest.raises(UserError, match=r"another batch_size \(16 and 8\)"):
        difference(one, compare(network, network, pictures(16), 8))
    with pytest.raises(UserError, match=r"another columns \(1 and 2 names\)"):
        difference(one, compare(network, Maps(normal(6, PIXELS), normal(6, PIXELS)), pictures(16)))


# files and processes


def test_saved_and_loaded(tmp_path: Path) -> None:
    result = compare(Maps(normal(6, PIXELS), torch.zeros(1, PIXELS)), Maps(normal(5, PIXELS, seed=1)), pictures(16))
    save_cka(result, tmp_path / "map.npy")
    loaded = load_cka(tmp_path / "map.npy")
    for name in ("cka", "low", "high"):
        assert np.array_equal(getattr(loaded, name), getattr(result, name), equal_nan=True)
    for name in ("rows", "columns", "pictures", "units", "batch_size", "level", "checksum", "notes"):
        assert getattr(loaded, name) == getattr(result, name)
    with pytest.raises(UserError, match="found one from a file"):
        difference(loaded, loaded)
    (tmp_path / "map.json").write_text("{}")
    with pytest.raises(UserError, match="found a damaged file"):
        load_cka(tmp_path / "map.npy")
    with pytest.raises(UserError, match="cannot read"):
        load_cka(tmp_path / "other.npy")


def shares() -> list[torch.Tensor]:
    first, second = Maps(normal(6, PIXELS)), Maps(normal(6, PIXELS, seed=1), normal(3, PIXELS, seed=2))
    groups = [number % 13 for number in range(40)]  # most patients are in batches of both processes
    result = compare(first, second, pictures(40), 8, groups=groups)
    return [torch.from_numpy(array) for array in (result.cka, result.low, result.high)]


def test_two_processes_give_the_map_of_one() -> None:
    expected = shares()
    for found in in_processes(shares, 2):
        for array, other in zip(found, expected, strict=True):
            assert torch.allclose(array, other, rtol=0, atol=1e-12)


# mistakes


def test_bad_pictures_and_groups() -> None:
    network = Maps(normal(6, PIXELS))
    for batches, sentence in (
        ([], "expected batches of 4 pictures or more, found none"),
        ([pictures(3)], "expected batches of 4 pictures or more, found 3 in the first one; take larger batches"),
        ([pictures(8)[0]], r"expected batches of pictures, float \(B, C, H, W\), found torch.float32 \(3, 2, 2\)"),
        ([pictures(8).byte()], "found torch.uint8"),
        ([{"image": pictures(8)}], "found <class 'dict'>"),
    ):
        with pytest.raises(UserError, match=sentence):
            compare_networks(network, network, batches, progress=False)
    for count, sentence in ((7, "found 7 labels for more pictures"), (9, "of 8 pictures, found 9 labels")):
        with pytest.raises(UserError, match=f"expected a group for each .*{sentence}"):
            compare(network, network, pictures(8), groups=["a"] * count)
    with pytest.raises(UserError, match="expected 1 position or more, found 0"):
        compare(network, network, pictures(8), positions=0)
    with pytest.raises(UserError, match="expected a level between 0 and 1, found 95"):
        compare(network, network, pictures(8), level=95)
