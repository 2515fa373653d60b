from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from lessismore_transforms.pretraining import resample
from lessismore_transforms.pretraining import views as views_module
from lessismore_transforms.pretraining.views import Drawn, View, Views
from lessismore_transforms.reduction.intensity import min_max_uint8

SWAV = (View(40, 2, scale=(0.9, 1.0), hue=0.2), View(20, 6, scale=(0.1, 0.33), hue=0.2))
MOCO = (
    View(
        33,
        2,
        scale=(0.2, 1.0),
        flip_horizontal=0.5,
        flip_vertical=0.5,
        rotate=0.5,
        jitter=1.0,
        grayscale=0.5,
        noise=0.5,
    ),
)
SPARK = (View(48, scale=(0.67, 1.0), interpolation="bicubic", flip_horizontal=0.5, jitter=0.0, blur=0.0),)
BYOL = (View(36, 2, scale=(0.2, 1.0), saturation=0.8, grayscale=0.3, blur=0.6, solarize=0.5),)
PLAIN = View(16, scale=(1.0, 1.0), ratio=(1.0, 1.0), jitter=0.0, blur=0.0)
CPU = torch.device("cpu")
METHODS = pytest.mark.parametrize("kinds", [SWAV, MOCO, SPARK, BYOL], ids=["swav", "moco", "spark", "byol"])


def slices(count: int, channels: int = 1, height: int = 60, width: int = 75) -> tuple[Tensor, Tensor]:
    """Smooth random pictures that use the whole range, and their sizes."""
    noise = torch.randn(count, channels, height + 8, width + 8, generator=torch.Generator().manual_seed(height))
    smooth = torch.nn.functional.avg_pool2d(noise, 9, stride=1)
    low, high = smooth.amin((2, 3), keepdim=True), smooth.amax((2, 3), keepdim=True)
    return ((smooth - low) / (high - low) * 255).byte(), torch.tensor([[height, width]] * count)


def same(a: Sequence[Tensor], b: Sequence[Tensor], error: float = 0.0) -> bool:
    assert len(a) == len(b)
    return all(x.shape == y.shape and float((x - y).abs().max()) <= error for x, y in zip(a, b, strict=True))


def without(drawn: Sequence[Drawn], *names: str) -> list[Drawn]:
    return [replace(one, **{name: torch.zeros_like(getattr(one, name)) for name in names}) for one in drawn]


# The same parameters give torchvision's views.


def by_torchvision(image: Tensor, kind: View, drawn: Drawn, n: int, mean: float, std: float) -> Tensor:
    """One view of a slice (C, H, W), operation by operation with torchvision's functions in floating point."""
    x = tv.resized_crop(
        image.float() / 255,
        *drawn.box[n].tolist(),
        [kind.size, kind.size],
        InterpolationMode(kind.interpolation),
        antialias=True,
    ).clamp(0, 1)
    x = tv.vertical_flip(x) if drawn.flip[n, 0] else x
    x = tv.horizontal_flip(x) if drawn.flip[n, 1] else x
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for operation in drawn.order[n].tolist():
        x = adjust[operation](x, float(drawn.factors[n, operation]))
    x = tv.rgb_to_grayscale(x, 3) if drawn.grayscale[n] and len(x) == 3 else x
    if drawn.sigma[n] > 0:
        kernel = 2 * math.ceil(3 * kind.sigma[1]) + 1
        x = tv.gaussian_blur(x, [kernel, kernel], [float(drawn.sigma[n])] * 2)
    x = tv.solarize(x, kind.solarize_threshold) if drawn.solarize[n] else x
    return tv.normalize(x, [mean] * len(x), [std] * len(x))


@METHODS
@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_those_of_torchvision(kinds: tuple[View, ...], channels: int) -> None:
    images, sizes = slices(12, channels)
    views = Views(kinds, [0.2], [0.5])
    drawn = without(views.draw(sizes, step=3), "angle", "variance")
    made = iter(views.apply(images, drawn))
    for kind, parameters in zip(kinds, drawn, strict=True):
        for number in range(kind.count):
            view = next(made)
            for i, image in enumerate(images):
                wanted = by_torchvision(image, kind, parameters, i * kind.count + number, 0.2, 0.5)
                torch.testing.assert_close(view[i], wanted, rtol=0, atol=1e-5)  # 5e-6 of the range of the pixels


COLOURS = {
    "saturation": ({"jitter": 1.0, "brightness": 0, "contrast": 0, "saturation": 0.9, "hue": 0}, 2),
    "hue": ({"jitter": 1.0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.5}, 3),
    "grayscale": ({"grayscale": 1.0}, None),
    "solarize": ({"solarize": 1.0, "solarize_threshold": 0.3}, None),
}


@pytest.mark.parametrize("name", COLOURS)
def test_each_change_of_colour_alone_is_that_of_torchvision(name: str) -> None:
    """No resampling between: the pixels of the pictures are those that torchvision is given."""
    settings, factor = COLOURS[name]
    images, sizes = slices(8, 3, 16, 16)
    kind = replace(PLAIN, **settings)
    views = Views([kind], [0.0] * 3, [1.0] * 3)
    (drawn,) = views.draw(sizes, step=1)
    (made,) = views.apply(images, [drawn])
    for n, image in enumerate(images.float() / 255):
        if name == "grayscale":
            wanted = tv.rgb_to_grayscale(image, 3)
        elif name == "solarize":
            wanted = tv.solarize(image, 0.3)
        else:
            adjust = tv.adjust_saturation if name == "saturation" else tv.adjust_hue
            wanted = adjust(image, float(drawn.factors[n, factor]))
        torch.testing.assert_close(made[n], wanted, rtol=0, atol=1e-5)
        assert not torch.equal(made[n], image)


def test_solarization_keeps_the_dark_and_inverts_the_bright() -> None:
    image = torch.tensor([[0, 51, 102, 128, 204, 255]], dtype=torch.uint8).expand(6, 6)[None, None]
    views = Views([replace(PLAIN, size=6, solarize=1.0, solarize_threshold=0.4)], [0.0], [1.0])
    (made,) = views(image, torch.tensor([[6, 6]]), step=1)
    assert made.shape == (1, 1, 6, 6)  # grey stays one channel
    assert made[0, 0, 3].tolist() == pytest.approx([0, 0.2, 0.6, 1 - 128 / 255, 0.2, 0])


def test_what_is_drawn_without_solarization_is_what_was_drawn_before_there_was_one() -> None:
    """Literal values of the version before: an old run goes on with equal views, also those of its second kind."""
    drawn = Views(SWAV, [0.2], [0.5], seed=3).draw(torch.tensor([[60, 75]] * 2), step=4)
    assert [one.noise_seed for one in drawn] == [2246127015613545008, 5252884902151888039]
    assert [one.box[-1].tolist() for one in drawn] == [[0, 0, 60, 75], [10, 31, 29, 23]]
    assert drawn[1].factors[-1].tolist() == pytest.approx([0.79895043, 0.91205174, 1.00940931, 0.08150451])
    assert not any(one.solarize.any() for one in drawn)
    solarized = Views([replace(SWAV[0], solarize=1.0), SWAV[1]], [0.2], [0.5], seed=3)
    first = solarized.draw(torch.tensor([[60, 75]] * 2), step=4)[0]
    assert first.solarize.all()
    assert all(
        torch.equal(getattr(first, name), getattr(drawn[0], name)) for name in ("box", "flip", "factors", "sigma")
    )


def test_hand_made_resize() -> None:
    # Two pixels from four: the filter of +-2 pixels weighs 3/4, 3/4, 1/4 around the first centre, over their sum 7/4.
    taps = resample.resize_taps(torch.tensor([1]), torch.tensor([4]), torch.tensor([False]), 2, "bilinear", CPU)
    assert torch.allclose(
        taps.matrix(6), torch.tensor([[[0, 3, 3, 1, 0, 0], [0, 0, 1, 3, 3, 0]]]) / 7, rtol=0, atol=1e-6
    )
    # Twice as many pixels: centres at 1/4 and 3/4 between neighbours; the ends keep the end pixel.
    taps = resample.resize_taps(torch.tensor([0]), torch.tensor([2]), torch.tensor([True]), 4, "bilinear", CPU)
    assert taps.matrix(2)[0].tolist() == [[0, 1], [0.25, 0.75], [0.75, 0.25], [1, 0]]


def test_hand_made_blur() -> None:
    sigma = 1 / math.sqrt(2 * math.log(2))  # so that the neighbour weighs half as much
    matrix = resample.blur_taps(torch.tensor([sigma, 0.05]), 1, 4, CPU).matrix(4)
    mirrored = [[0.5, 0.5, 0, 0], [0.25, 0.5, 0.25, 0], [0, 0.25, 0.5, 0.25], [0, 0, 0.5, 0.5]]
    assert torch.allclose(matrix[0], torch.tensor(mirrored), rtol=0, atol=1e-6)
    assert torch.equal(matrix[1], torch.eye(4))  # a Gaussian much narrower than a pixel


@pytest.mark.parametrize(("rows", "columns"), [(60, 60), (41, 60)])
def test_rotation_is_that_of_torchvision(rows: int, columns: int) -> None:
    images, _ = slices(6, 3)
    images[:, :, rows:], images[..., columns:] = 0, 0  # smaller slices in a larger batch
    angle = torch.tensor([-171.0, -33.3, 12.0, 45.0, 90.0, 180.0])
    turned = resample.rotate(images, angle, torch.tensor([[rows, columns]] * 6))
    for image, ours, degrees in zip(images, turned, angle.tolist(), strict=True):
        wanted = tv.rotate(image[:, :rows, :columns], degrees, InterpolationMode.NEAREST)
        # Where a source lies between two pixels, rounding decides.
        assert (ours[:, :rows, :columns] != wanted).float().mean() < 0.002 or degrees in (90, 180)
        assert not ours[:, rows:].any()
        assert not ours[..., columns:].any()
    if rows == columns:
        assert torch.equal(turned[4, :, :rows, :rows], images[4, :, :rows, :rows].rot90(1, (1, 2)))
    assert torch.equal(turned[5, :, :rows, :columns], images[5, :, :rows, :columns].flip(1, 2))


# The two ways.


@METHODS
@pytest.mark.parametrize("channels", [1, 3])
def test_matrices_give_the_views_of_the_compiled_loop(
    kinds: tuple[View, ...], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, sizes = slices(8, channels)
    sizes[::2] = torch.tensor([31, 70])
    views = Views(kinds, [0.2], [0.5])
    drawn = views.draw(sizes, step=1, rank=2)
    by_taps = views.apply(images, drawn)
    monkeypatch.setattr(views_module, "separable", resample.by_matrices)
    assert same(views.apply(images, drawn), by_taps, 1e-5)  # 5e-6 of the range of the pixels


def test_rotation_by_index_is_that_of_the_compiled_loop() -> None:
    images, _ = slices(50, 3)
    sizes = torch.tensor([[60, 75], [33, 20]]).repeat(25, 1)
    images[1::2, :, 33:], images[1::2, ..., 20:] = 0, 0
    angle = torch.linspace(-180, 180, 50)
    different = resample.rotate(images, angle, sizes) != resample.rotate_by_index(images, angle, sizes)
    assert different[::2].float().mean() < 1e-3
    assert different[1::2, :, :33, :20].float().mean() < 1e-3


def test_no_value_is_asked_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without values raise where a program would wait for one."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such tensors
    images, sizes = slices(4, 3)
    for kinds in (SWAV, MOCO, SPARK):
        views = Views(kinds, [0.2], [0.5])
        made = views.apply(images.to("meta"), without(views.draw(sizes, step=1), "variance"))
        assert [view.shape[-1] for view in made] == [kind.size for kind in kinds for _ in range(kind.count)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@METHODS
def test_a_gpu_gives_the_views_of_the_cpu_and_is_never_waited_for(kinds: tuple[View, ...]) -> None:
    images, sizes = slices(8, 3)
    views = Views(kinds, [0.2], [0.5])
    drawn = without(views.draw(sizes, step=1), "variance", "angle")
    on_device = images.cuda()
    views(on_device, sizes, step=1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = views.apply(on_device, drawn)
        views(on_device, sizes, step=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert same([view.cpu() for view in made], views.apply(images, drawn), 1e-4)


# What is drawn.


def draw(kind: View, count: int, height: int = 512, width: int = 512) -> Drawn:
    return Views([kind], [0.5], [0.5], seed=7).draw(torch.tensor([[height, width]] * count), step=1)[0]


def distance_to_uniform(values: Tensor, low: float, high: float) -> float:
    """The statistic of Kolmogorov and Smirnov; of 20,000 values it exceeds 0.0138 once in 1,000 times."""
    ranks = torch.linspace(0, 1, len(values), dtype=torch.float64)
    return float(((values.double().sort().values - low) / (high - low) - ranks).abs().max())


def test_crops_are_uniform_in_area_and_log_uniform_in_ratio() -> None:
    drawn = draw(View(96, scale=(0.1, 0.33)), 20_000)
    top, left, height, width = drawn.box.T
    assert distance_to_uniform(height * width / 512**2, 0.1, 0.33) < 0.0138
    assert distance_to_uniform((width / height).log(), math.log(3 / 4), math.log(4 / 3)) < 0.0138
    torch.manual_seed(0)
    assert distance_to_uniform((top + torch.rand(20_000)) / (512 - height + 1), 0, 1) < 0.0138  # a random pixel
    assert distance_to_uniform((left + torch.rand(20_000)) / (512 - width + 1), 0, 1) < 0.0138
    position = torch.stack((top / (512 - height), left / (512 - width)))
    assert abs(float(torch.corrcoef(position)[0, 1])) < 0.03


@pytest.mark.parametrize("shape", [(512, 512), (300, 512)])
def test_crops_that_rarely_fit_are_those_of_torchvision(shape: tuple[int, int]) -> None:
    """Of crops of 90 to 100 %, most tries do not fit: ten tries and the fallback decide."""
    torch.manual_seed(0)
    picture = torch.empty(1, *shape)
    wanted = torch.tensor([RandomResizedCrop.get_params(picture, [0.9, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    ours = draw(View(224, scale=(0.9, 1.0)), 4000, *shape).box
    whole = torch.tensor([[0, (shape[1] - 400) // 2, 300, 400] if shape[0] < 400 else [0, 0, 512, 512]])
    assert abs(float((ours == whole).all(1).float().mean() - (wanted == whole).all(1).float().mean())) < 0.03
    for a, b in zip(ours.double().T, wanted.double().T, strict=True):
        at = torch.cat((a, b)).sort().values
        steps = [torch.searchsorted(values.sort().values, at, right=True) / 4000 for values in (a, b)]
        assert float((steps[0] - steps[1]).abs().max()) < 0.044  # exceeded once in 1,000 times


def test_crops_reach_every_border() -> None:
    box = draw(View(8, scale=(9 / 16, 9 / 16), ratio=(1.0, 1.0)), 100, 4, 4).box
    assert box.unique(dim=0).tolist() == [[0, 0, 3, 3], [0, 1, 3, 3], [1, 0, 3, 3], [1, 1, 3, 3]]


def test_what_cannot_fit_takes_the_centre() -> None:
    box = draw(View(8, scale=(0.9, 1.0)), 50, 100, 400).box
    assert box.unique(dim=0).tolist() == [[0, 133, 100, 133]]
    box = draw(View(8, scale=(0.9, 1.0)), 50, 400, 100).box
    assert box.unique(dim=0).tolist() == [[133, 0, 133, 100]]


def test_probabilities_and_ranges() -> None:
    kind = View(
        8, flip_horizontal=0.3, flip_vertical=0.6, rotate=0.5, jitter=0.8, saturation=2.0, grayscale=0.2, blur=0.5,
        solarize=0.2, noise=0.4,
    )  # fmt: skip
    drawn = draw(kind, 20_000)
    vertical, horizontal = drawn.flip.float().mean(0).tolist()
    jittered = (drawn.factors != torch.tensor([1.0, 1.0, 1.0, 0.0])).any(1)
    for share, probability in (
        (horizontal, 0.3),
        (vertical, 0.6),
        (jittered.float().mean(), 0.8),
        (drawn.grayscale.float().mean(), 0.2),
        (drawn.solarize.float().mean(), 0.2),
        ((drawn.angle != 0).float().mean(), 0.5),
        ((drawn.sigma != 0).float().mean(), 0.5),
        ((drawn.variance != 0).float().mean(), 0.4),
    ):
        assert abs(float(share) - probability) < 3.3 * math.sqrt(probability * (1 - probability) / 20_000)
    limits = ((0.6, 1.4), (0.6, 1.4), (0.0, 3.0), (-0.1, 0.1))
    for factor, (low, high) in zip(drawn.factors[jittered].T, limits, strict=True):
        assert distance_to_uniform(factor, low, high) < 0.0138 * math.sqrt(1 / 0.8)
    assert distance_to_uniform(drawn.sigma[drawn.sigma != 0], 0.1, 2.0) < 0.0138 * math.sqrt(1 / 0.5)
    assert distance_to_uniform(drawn.angle[drawn.angle != 0], -180, 180) < 0.0138 * math.sqrt(1 / 0.5)
    noise = drawn.variance[drawn.variance != 0].log()
    assert distance_to_uniform(noise, math.log(1e-5), math.log(1e-4)) < 0.0138 * math.sqrt(1 / 0.4)
    orders, counts = drawn.order.unique(dim=0, return_counts=True)
    assert orders.tolist() == sorted(map(list, itertools.permutations(range(4))))
    assert float((counts / 20_000 * 24 - 1).abs().max()) < 0.15  # five deviations


def test_noise_has_the_variance_drawn() -> None:
    images = torch.full((64, 1, 32, 32), 128, dtype=torch.uint8)
    views = Views([replace(PLAIN, size=32, noise=1.0)], [128 / 255], [1.0])
    (drawn,) = views.draw(torch.tensor([[32, 32]] * 64), step=1)
    (view,) = views.apply(images, [drawn])
    ratio = view.var((1, 2, 3)) / drawn.variance
    assert abs(float(ratio.mean()) - 1) < 0.02
    assert float((ratio - 1).abs().max()) < 0.2
    (dark,) = views.apply(torch.zeros_like(images), [drawn])
    assert float(dark.min()) == pytest.approx(-128 / 255)  # clipped


# Replay.


def test_views_are_a_function_of_seed_rank_and_step() -> None:
    images, sizes = slices(3)
    images[1:] = images[0]

    def make(seed: int = 0, step: int = 5, rank: int = 1) -> list[Tensor]:
        return Views(MOCO, [0.2], [0.5], seed=seed)(images, sizes, step=step, rank=rank)

    torch.manual_seed(1)
    first = make()
    torch.manual_seed(2)
    np.random.seed(3)
    state = torch.get_rng_state()
    assert same(make(), first)
    assert torch.equal(torch.get_rng_state(), state)
    for other in (make(seed=1), make(step=6), make(rank=2), make(seed=1, step=0), make(rank=5, step=1)):
        assert not any(torch.equal(a, b) for a, b in itertools.product(other, first))
    samples = [view[i] for view in first for i in range(3)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(samples, 2))


def test_noise_differs_between_kinds_and_samples() -> None:
    kind = replace(PLAIN, count=2, noise=1.0, noise_variance=(1e-4, 1e-4))
    images = torch.full((2, 1, 16, 16), 128, dtype=torch.uint8)
    made = Views([kind, kind], [0.5], [0.5])(images, torch.tensor([[16, 16]] * 2), step=1)
    samples = torch.stack([view[i] for view in made for i in range(2)]).flatten(1)
    assert float((torch.corrcoef(samples) - torch.eye(8)).abs().max()) < 0.25  # 256 pixels


def test_drawn_parameters_lie_on_the_cpu_and_are_small() -> None:
    for one in Views(SWAV, [0.2], [0.5]).draw(torch.tensor([[512, 512]] * 4), step=1):
        tensors = [getattr(one, field.name) for field in fields(one) if field.name != "noise_seed"]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        assert sum(tensor.numel() for tensor in tensors) < 25 * len(one.box)


# Channels and sizes.


@pytest.mark.parametrize("kinds", [SWAV, MOCO[:1]], ids=["swav", "moco"])
def test_one_grey_channel_gives_what_three_equal_ones_give(kinds: tuple[View, ...]) -> None:
    images, sizes = slices(6)
    views = Views(kinds, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    drawn = without(views.draw(sizes, step=1), "variance")
    grey = views.apply(images, drawn)
    assert {view.shape[1] for view in grey} == {3}
    assert same(
        views.apply(images.expand(-1, 3, -1, -1), drawn), grey, 2e-3
    )  # torchvision's weights of grey add up to 0.9999


def test_views_come_out_contiguous_and_normalised_by_kind_and_count() -> None:
    images, sizes = slices(2)
    made = Views(SWAV, [0.25], [0.5])(images, sizes, step=1)
    assert [tuple(view.shape) for view in made] == [(2, 1, 40, 40)] * 2 + [(2, 1, 20, 20)] * 6
    assert all(view.is_contiguous() and view.dtype == torch.float32 for view in made)
    black = Views([PLAIN], [0.25], [0.5])(torch.zeros_like(images), sizes, step=1)[0]
    assert black.unique().tolist() == [-0.5]


def test_padding_never_shows() -> None:
    images, sizes = slices(4)
    padded = torch.nn.functional.pad(images, (0, 30, 0, 11), value=255)
    for kinds in (SWAV, MOCO, SPARK):
        views = Views(kinds, [0.2], [0.5])
        assert same(views(padded, sizes, step=1), views(images, sizes, step=1))


def test_the_batch_itself_is_left_as_it_is() -> None:
    images, sizes = slices(4)
    before = images.clone()
    Views([replace(MOCO[0], count=1, rotate=1.0)], [0.2], [0.5])(images, sizes, step=1)
    assert torch.equal(images, before)


@METHODS
def test_a_constant_slice_stays_constant(kinds: tuple[View, ...]) -> None:
    images = torch.full((8, 1, 50, 40), 100, dtype=torch.uint8)
    views = Views(kinds, [0.0], [1.0])
    drawn = without(views.draw(torch.tensor([[50, 40]] * 8), step=1), "angle", "variance")
    for view in views.apply(images, drawn):
        assert float((view.amax((1, 2, 3)) - view.amin((1, 2, 3))).max()) < 1e-6


# What is refused.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "expected size of a view to be at least 1, found 0"),
        ({"count": 0}, "count"),
        (
            {"scale": (0.0, 1.0)},
            r"expected scale of a view to be two numbers, 0 < low <= high <= 1, found \(0.0, 1.0\)",
        ),
        ({"scale": (0.5, 1.1)}, "scale"),
        ({"scale": (0.5, 0.4)}, "scale"),
        ({"ratio": (-1.0, 1.0)}, "ratio"),
        ({"blur": 1.5}, "expected blur of a view to be a probability from 0 to 1, found 1.5"),
        ({"flip_horizontal": -0.1}, "flip_horizontal"),
        ({"sigma": (0.0, 1.0)}, "sigma"),
        ({"noise_variance": (1e-4, 1e-5)}, "noise_variance"),
        ({"hue": 0.6}, "expected hue of a view to be a strength from 0 to 0.5, found 0.6"),
        ({"contrast": -1.0}, "contrast"),
        ({"solarize": -0.5}, "expected solarize of a view to be a probability from 0 to 1, found -0.5"),
        (
            {"solarize_threshold": 128},
            "expected solarize_threshold of a view to be a grey value from 0 to 1, found 128",
        ),
        ({"interpolation": "nearest"}, "expected interpolation of a view to be bilinear or bicubic, found 'nearest'"),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        View(**{"size": 8, **settings})


def test_views_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one kind of view"):
        Views([], [0.5], [0.5])
    with pytest.raises(
        ValueError, match=r"expected mean to be a list of one number or three, .* found \[0.5, 0.5\]: leave"
    ):
        Views([PLAIN], [0.5, 0.5], [0.5, 0.5])
    with pytest.raises(ValueError, match="expected std to be a list of one number above 0 or three"):
        Views([PLAIN], [0.5], [0.0])
    with pytest.raises(ValueError, match="expected as many means as stds"):
        Views([PLAIN], [0.5], [0.5] * 3)
    sizes = torch.tensor([[20, 20]])
    for images in (torch.zeros(1, 1, 20, 20), torch.zeros(1, 2, 20, 20, dtype=torch.uint8), torch.zeros(1, 20, 20)):
        with pytest.raises(ValueError, match="expected slices as uint8"):
            Views([PLAIN], [0.5], [0.5])(images, sizes, step=1)


def test_slices_too_small_for_a_view_are_refused() -> None:
    swav = Views([View(224, 2, scale=(0.9, 1.0)), View(96, 6, scale=(0.1, 0.33))], [0.2], [0.2])
    swav.check(192, 192)
    swav.check(101, 122)
    with pytest.raises(ValueError, match=r"view of 224 pixels .* one of 28 x 28 pixels .* enlarged 10 times"):
        swav.check(28, 28)
    with pytest.raises(ValueError, match="view of 96 pixels"):
        swav.check(48, 48)
    Views([View(48, scale=(0.2, 1.0))], [0.2], [0.2]).check(48, 48)


# Beside Pillow, which the released scripts use.


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        (View(224, scale=(0.9, 1.0)), 1.01),
        (View(96, scale=(0.1, 0.33)), 1.01),
        (View(224, scale=(0.67, 1.0), interpolation="bicubic"), 7),  # Pillow cuts overshoots off between its two passes
    ],
)
def test_pillow_differs_by_its_rounding_and_its_boxes(real_data: Path, kind: View, most: float) -> None:
    """Differences in grey levels of 255 on real slices; Pillow's Gaussian is three box filters with a repeated edge."""
    volume = nibabel.load(real_data / "ct" / "chest_lidc" / "LIDC-IDRI-0314_z108-171.nii.gz")
    pictures = min_max_uint8(np.asarray(volume.dataobj[..., ::8]).transpose(2, 1, 0))
    sizes = torch.tensor([[512, 512]] * len(pictures))
    views = Views([replace(kind, jitter=0.0, blur=1.0)], [0.0], [1 / 255])
    drawn = views.draw(sizes, step=1)
    images = torch.from_numpy(pictures)[:, None]
    (sharp,), (blurred,) = views.apply(images, without(drawn, "sigma")), views.apply(images, drawn)
    for n, picture in enumerate(pictures):
        top, left, height, width = drawn[0].box[n].tolist()
        cut = Image.fromarray(picture[top : top + height, left : left + width])
        resized = cut.resize((kind.size, kind.size), Image.Resampling[kind.interpolation.upper()])
        assert np.abs(np.asarray(resized) - sharp[n, 0].numpy()).max() < most
        smooth = resized.filter(ImageFilter.GaussianBlur(float(drawn[0].sigma[n])))
        difference = np.abs(np.asarray(smooth) - blurred[n, 0].numpy())
        assert difference.mean() < 1  # 0.4 on average
        assert (difference > 4).mean() < 0.02
        assert difference[6:-6, 6:-6].max() < 13  # near sigma 0.3; above 0.5 it is 6
