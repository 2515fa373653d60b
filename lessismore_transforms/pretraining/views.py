"""Views of slices for self-supervised pre-training, made in batch on the device where the slices lie.

All random numbers are drawn first (`Views.draw`), on the CPU, as a function of seed, rank and step alone; applying
them (`Views.apply`) draws nothing, so that any batch of views can be made again. A view is made in this order:
rotation, crop and resize, flips, brightness, contrast, saturation and hue (in an order of their own), grayscale, blur,
solarization, noise, normalisation. Each equals torchvision's for the same parameters, save that nothing is rounded to 8
bits between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.resample import REACH, blur_taps, resize_taps, rotate, separable, to_device
from lessismore_transforms.reduction.network_input import check_mean_std

MAX_ENLARGEMENT = 7.0  # beyond it a ResNet's first convolution, 7 x 7, sees less than one pixel of the slice

_TRIES = 10  # of torchvision's RandomResizedCrop, before it takes the centre
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_NO_JITTER = (1.0, 1.0, 1.0, 0.0)
_LUMA = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class View:
    """Settings of one kind of view: ranges, probabilities and strengths; a probability or strength of 0 switches off.

    Args:
        size: rows and columns in pixels.
        count: views of this kind per slice.
        scale: share of the slice's area that a crop takes, uniform.
        ratio: width over height of a crop, log-uniform.
        interpolation: "bilinear" or "bicubic", both antialiased.
        flip_horizontal: probability of mirroring left and right.
        flip_vertical: probability of mirroring top and bottom.
        rotate: probability of a rotation by -180 to 180 degrees (nearest pixel, zeros outside), before the crop.
        jitter: probability of the next four together, in a random order.
        brightness: factor from 1 - b to 1 + b.
        contrast: factor from 1 - c to 1 + c.
        saturation: factor from 1 - s to 1 + s; nothing on one channel.
        hue: shift from -h to h, in turns; nothing on one channel.
        grayscale: probability; nothing on one channel.
        blur: probability.
        sigma: of the Gaussian in pixels, uniform; the kernel reaches 3 of the largest sigma.
        solarize: probability of inverting the bright pixels, as in BYOL.
        solarize_threshold: of pixels from 0 to 1; those from it on are inverted.
        noise: probability of Gaussian noise, clipped to the range of the pixels.
        noise_variance: for pixels from 0 to 1, log-uniform.

    Raises:
        UserError: a setting is impossible.
    """

    size: int
    count: int = 1
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    rotate: float = 0.0
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.0
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float = 0.5
    noise: float = 0.0
    noise_variance: tuple[float, float] = (1e-5, 1e-4)

    def __post_init__(self) -> None:
        for name in ("flip_horizontal", "flip_vertical", "rotate", "jitter", "grayscale", "blur", "solarize", "noise"):
            _expect(0 <= getattr(self, name) <= 1, name, "a probability from 0 to 1", getattr(self, name))
        for name, most in (("brightness", math.inf), ("contrast", math.inf), ("saturation", math.inf), ("hue", 0.5)):
            _expect(0 <= getattr(self, name) <= most, name, f"a strength from 0 to {most:g}", getattr(self, name))
        for name, most in (("scale", 1), ("ratio", math.inf), ("sigma", math.inf), ("noise_variance", math.inf)):
            low, high = getattr(self, name)
            _expect(0 < low <= high <= most, name, f"two numbers, 0 < low <= high <= {most:g}", getattr(self, name))
        threshold = self.solarize_threshold
        _expect(0 <= threshold <= 1, "solarize_threshold", "a grey value from 0 to 1", threshold)
        for name in ("size", "count"):
            _expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        _expect(self.interpolation in REACH, "interpolation", " or ".join(REACH), self.interpolation)


def _expect(fine: bool, name: str, expected: str, found: object) -> None:
    if not fine:
        raise UserError(f"expected {name} of a view to be {expected}, found {found!r}")


@dataclass(frozen=True)
class Drawn:
    """The random parameters of the N = B * count samples of one kind of view, on the CPU.

    Sample n is a view of slice n // count.

    Args:
        size: int64 (N, 2), rows and columns of the slice.
        angle: float32 (N,), degrees counter-clockwise, 0 for none.
        box: int64 (N, 4): top, left, height, width.
        flip: bool (N, 2): top and bottom, left and right.
        order: int64 (N, 4), in which brightness (0), contrast (1), saturation (2) and hue (3) are changed.
        factors: float32 (N, 4): of brightness, contrast and saturation; the shift of hue in turns.
        grayscale: bool (N,).
        sigma: float32 (N,), pixels, 0 for none.
        variance: float32 (N,), of noise, 0 for none.
        noise_seed: of the device's generator that makes the noise of each pixel.
        solarize: bool (N,).
    """

    size: Tensor
    angle: Tensor
    box: Tensor
    flip: Tensor
    order: Tensor
    factors: Tensor
    grayscale: Tensor
    sigma: Tensor
    variance: Tensor
    noise_seed: int
    solarize: Tensor


class Views:
    """Draw and make all views of a batch of slices.

    Args:
        kinds: settings of each kind of view, in the order of the output.
        mean: of the pixels, from 0 to 1; one value, or one per channel.
        std: of the pixels, likewise. With three values a one-channel slice gives views of three channels.
        seed: of all random numbers.

    Raises:
        UserError: there is no kind, or mean and std do not fit.
    """

    def __init__(self, kinds: Sequence[View], mean: Sequence[float], std: Sequence[float], *, seed: int = 0) -> None:
        if not kinds:
            raise UserError("expected at least one kind of view, found none: name the views of the method")
        check_mean_std(mean, std, "leave it out to take that of the training pictures")
        if len(mean) != len(std):
            raise UserError(f"expected as many means as stds, found {mean} and {std}: give one of each or three")
        self.kinds = tuple(kinds)
        self.mean, self.std, self.seed = tuple(mean), tuple(std), seed

    def __call__(self, images: Tensor, sizes: Tensor, *, step: int, rank: int = 0) -> list[Tensor]:
        """The views of a batch, of each kind `count` tensors, float32 (B, C, size, size), normalised.

        Args:
            images: uint8 (B, C, H, W) with one channel or three; slices of different sizes lie at the top left.
            sizes: int64 (B, 2), rows and columns of each slice, on the CPU.
            step: step of the training.
            rank: of the process.
        """
        return self.apply(images, self.draw(sizes, step=step, rank=rank))

    def draw(self, sizes: Tensor, *, step: int, rank: int = 0) -> list[Drawn]:
        """Draw the parameters of each kind of view for slices of these sizes, int64 (B, 2)."""
        rng = np.random.default_rng((self.seed, rank, step))
        return [_draw(rng, view, sizes.numpy().repeat(view.count, axis=0)) for view in self.kinds]

    @torch.no_grad()
    def apply(self, images: Tensor, drawn: Sequence[Drawn]) -> list[Tensor]:
        """Make the views of images, uint8 (B, C, H, W), that these parameters describe."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(
                f"expected slices as uint8 (B, C, H, W) with one channel or three, found {images.dtype} "
                f"{tuple(images.shape)}: views want the pixels as the store holds them"
            )
        mean, std = (to_device(torch.tensor(x), images.device).view(-1, 1, 1) for x in (self.mean, self.std))
        views = []
        for view, parameters in zip(self.kinds, drawn, strict=True):
            x = _make(images, view, parameters)  # (N, C, s, s)
            views += [(one - mean).div_(std) for one in x.view(-1, view.count, *x.shape[1:]).unbind(1)]
        return views

    def check(self, height: int, width: int) -> None:
        """Refuse slices that are so small, by the smallest one's size, that the smallest crop would be all blur.

        Raises:
            UserError: a crop would be enlarged more than `MAX_ENLARGEMENT` times.
        """
        for view in self.kinds:
            side = math.sqrt(view.scale[0] * height * width * min(view.ratio[0], 1 / view.ratio[1]))
            if view.size > MAX_ENLARGEMENT * side:
                raise UserError(
                    f"expected slices of which a crop fills a view of {view.size} pixels when enlarged at most "
                    f"{MAX_ENLARGEMENT:g} times, found one of {height} x {width} pixels whose smallest crop would be "
                    f"enlarged {view.size / side:.0f} times: make the views smaller or their scale larger, or leave "
                    "small slices out"
                )


def _draw(rng: np.random.Generator, view: View, size: npt.NDArray[np.int64]) -> Drawn:
    """Draw the parameters of one kind of view for slices of these sizes (N, 2)."""
    n = len(size)

    def sometimes(probability: float, values: npt.NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.where(rng.random(n) < probability, values, 0).astype(np.float32))

    strengths = np.array((view.brightness, view.contrast, view.saturation, view.hue))
    centre = np.array(_NO_JITTER)
    factors = rng.uniform(np.maximum(centre - strengths, (0, 0, 0, -1)), centre + strengths, (n, 4))
    jitter = rng.random((n, 1)) < view.jitter
    flips = rng.random((n, 2)) < (view.flip_vertical, view.flip_horizontal)
    return Drawn(
        size=torch.from_numpy(size),
        angle=sometimes(view.rotate, rng.uniform(-180, 180, n)),
        box=torch.from_numpy(_boxes(rng, view, size)),
        flip=torch.from_numpy(flips),
        order=torch.from_numpy(rng.permuted(np.tile(np.arange(4), (n, 1)), axis=1)),
        factors=torch.from_numpy(np.where(jitter, factors, centre).astype(np.float32)),
        grayscale=sometimes(view.grayscale, np.ones(n)) > 0,
        sigma=sometimes(view.blur, rng.uniform(*view.sigma, size=n)),
        variance=sometimes(view.noise, _log_uniform(rng, view.noise_variance, (n,))),
        noise_seed=int(rng.integers(2**63)),
        # Behind all others, and only where it is wanted: what is drawn for other settings stays as it was without it.
        solarize=sometimes(view.solarize, np.ones(n)) > 0 if view.solarize else torch.zeros(n, dtype=torch.bool),
    )


def _boxes(rng: np.random.Generator, view: View, size: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Top, left, height and width (N, 4) by the rule of torchvision's RandomResizedCrop, all tries at once."""
    rows, columns = size.T
    area = np.prod(size, axis=1)[:, None] * rng.uniform(*view.scale, (len(size), _TRIES))
    ratio = _log_uniform(rng, view.ratio, area.shape)
    tried = np.rint(np.sqrt((area / ratio, area * ratio))).astype(np.int64)  # (2, N, tries): heights, widths
    fits = np.all((tried > 0) & (tried <= size.T[..., None]), axis=0)
    any_fits, first = np.any(fits, axis=1), fits.argmax(axis=1)
    # Where none fits: the largest box of an allowed ratio, at the centre.
    largest = np.stack(
        (np.minimum(rows, np.rint(columns / view.ratio[0])), np.minimum(columns, np.rint(rows * view.ratio[1])))
    ).astype(np.int64)
    box = np.where(any_fits, np.take_along_axis(tried, first[None, :, None], axis=2)[..., 0], largest)  # (2, N)
    room = size.T - box
    corner = np.where(any_fits, rng.integers(0, room + 1), room // 2)
    return np.concatenate((corner, box)).T


def _log_uniform(
    rng: np.random.Generator, bounds: tuple[float, float], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    low, high = map(math.log, bounds)
    values: npt.NDArray[np.float64] = np.exp(rng.uniform(low, high, shape))
    return values


def _make(images: Tensor, view: View, drawn: Drawn) -> Tensor:
    """The views of one kind, float32 (N, C, s, s) from 0 to 1, before normalisation."""
    device = images.device
    if len(some := drawn.angle.nonzero()[:, 0]):
        images = images.repeat_interleave(view.count, dim=0)  # (N, C, H, W): each view has a picture of its own
        turned = to_device(some, device)
        images[turned] = rotate(images[turned], drawn.angle[some], drawn.size[some])
    top, left, height, width = drawn.box.T
    rows = resize_taps(top, height, drawn.flip[:, 0], view.size, view.interpolation, device)
    columns = resize_taps(left, width, drawn.flip[:, 1], view.size, view.interpolation, device)
    x = separable(images, rows, columns).mul_(1 / 255).clamp_(0, 1)  # (N, C, s, s)
    if view.jitter:
        _jitter(x, drawn.order, drawn.factors)
    if x.shape[1] == 3:
        grey = to_device(drawn.grayscale.nonzero()[:, 0], device)
        x[grey] = _luma(x[grey]).expand(-1, 3, -1, -1)
    _blur(x, drawn.sigma, min(math.ceil(3 * view.sigma[1]), view.size - 1))
    _solarize(x, drawn.solarize, view.solarize_threshold)
    _add_noise(x, drawn.variance, drawn.noise_seed)
    return x


def _jitter(x: Tensor, order: Tensor, factors: Tensor) -> None:
    """Change brightness, contrast, saturation and hue of pictures (N, C, s, s) in place, each in its own order.

    The first three blend with black, with the mean of the picture, and with its grey picture.
    """
    if x.shape[1] == 1:
        order = order[order < _SATURATION].view(-1, 2)
    for operation in order.T:  # (N,)
        factor = factors.gather(1, operation[:, None])[:, 0]
        hue = operation == _HUE
        keep = torch.where(hue, 1.0, factor)
        to_mean = torch.where(operation == _CONTRAST, 1 - factor, 0.0)
        to_grey = torch.where(operation == _SATURATION, 1 - factor, 0.0)
        keep, to_mean, to_grey = to_device(torch.stack((keep, to_mean, to_grey)), x.device)[..., None, None, None]
        grey = _luma(x)
        other = to_mean * grey.mean((1, 2, 3), keepdim=True)
        if x.shape[1] == 3:
            other = other + to_grey * grey
        x.mul_(keep).add_(other).clamp_(0, 1)
        if len(shifted := (hue & (factor != 0)).nonzero()[:, 0]):
            shift = to_device(factor[shifted], x.device)
            shifted = to_device(shifted, x.device)
            x[shifted] = _shift_hue(x[shifted], shift)


def _blur(x: Tensor, sigma: Tensor, radius: int) -> None:
    """Blur those pictures (N, C, s, s) in place whose sigma is not 0."""
    if len(some := sigma.nonzero()[:, 0]):
        taps = blur_taps(sigma[some], radius, x.shape[-1], x.device)
        some = to_device(some, x.device)
        x[some] = separable(x[some], taps, taps)


def _solarize(x: Tensor, solarize: Tensor, threshold: float) -> None:
    """Invert the values from the threshold on in place, in those pictures (N, C, s, s) that are to be solarized."""
    if len(some := solarize.nonzero()[:, 0]):
        some = to_device(some, x.device)
        bright = x[some]
        x[some] = torch.where(bright >= threshold, 1 - bright, bright)


def _add_noise(x: Tensor, variance: Tensor, seed: int) -> None:
    """Add Gaussian noise in place to those pictures (N, C, s, s) whose variance is not 0."""
    if len(some := variance.nonzero()[:, 0]):
        generator = torch.Generator(x.device).manual_seed(seed)
        noise = torch.randn(len(some), *x.shape[1:], device=x.device, generator=generator)
        noise *= to_device(variance[some].sqrt(), x.device)[:, None, None, None]
        some = to_device(some, x.device)
        x[some] = noise.add_(x[some]).clamp_(0, 1)


def _luma(x: Tensor) -> Tensor:
    """The grey picture (N, 1, s, s) of (N, C, s, s)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def _shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of colour pictures (N, 3, s, s) in the hexagonal model (HSV)."""
    red, green, blue = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    divisor = torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = hue + 6 * turns[:, None, None]
    channels = [(hue + n) % 6 for n in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in channels], dim=1)
