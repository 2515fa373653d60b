"""Linear CKA: how alike what the layers of two networks make of the same pictures is.

Centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414, Section 3) is the HSIC of two layers divided by the
root of the HSIC of each with itself. It does not see rotations and scales of features. HSIC is estimated without bias
from mini-batches, by HSIC_1 (Song et al. 2012, JMLR 13, Equation 5), summed over the batches (Nguyen et al. 2021, arXiv
2010.15327, Equation 3), so that the number of pictures in a batch does not matter on average. Only the Gram matrices of
the batch at hand are kept.

Two things make this quick. The Gram matrix of a layer is computed while its output is there. And HSIC_1 is an inner
product of U-centred Gram matrices (Székely & Rizzo 2014, arXiv 1310.2926, Section 3), so that one matrix product gives
all pairs of layers.

HSIC_1 has no pair of a picture with itself. A bootstrap would make such pairs, so that intervals come from the
jackknife, which leaves out one unit (patient) at a time. Pictures of one patient are almost such pairs: give batches in
which few of them meet. The jackknife counts twice what depends on two pictures of a batch (Efron & Stein 1981, Annals
of Statistics 9), which makes intervals rather too wide in small batches: in simulations (tests/analysis/test_cka.py)
those of 95 % held the true value in 96 to 99 % of cases for 24 to 40 units in batches of 12 to 20, in 94 to 97 % for a
batch of 100, and in 99 % where nothing is shared.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lessismore_transforms.analysis.group_intervals import Estimate, jackknife_reach
from lessismore_transforms.analysis.layers import ALL, Layers, layer_names, short_names, watching
from lessismore_transforms.atomic import atomic_write, write_json
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.training.precision import float32_only, place
from lessismore_transforms.training.processes import all_gather_objects, process_count, process_rank
from lessismore_transforms.weights.backbones import three_channels
from lessismore_transforms.wording import counted

Floats: TypeAlias = npt.NDArray[np.float64]

LEAST = 4  # pictures of a batch, for HSIC_1
_ONE = 1 - 1e-12  # what is as near to 1 differs by rounding only
_CONSTANT = 1e-12  # share of the squares of float32 features that rounding alone may leave around their mean
_NUMBERS = 2**16  # features of a batch at once, which a processor's cache holds


@dataclass(frozen=True, eq=False)
class CKA:
    """The similarity of each layer of a first network with each of a second one, from early to late layers.

    Args:
        rows: layers of the first network.
        columns: layers of the second network.
        cka: (L1, L2), up to 1; around 0 where nothing is shared, so that it may be below; nan where a layer gives the
            same for all pictures.
        low: lower ends of the intervals (L1, L2); nan where there are fewer than two units.
        high: upper ends.
        pictures: their number.
        units: number of patients or pictures that the intervals are about.
        batch_size: pictures of the largest batch.
        level: the share of intervals that hold the true value.
        checksum: CRC32 of the pictures, in their order.
        notes: sentences about layers without a value.
        replicates: the map without each of the units (units, L1, L2), for `difference`; None where it was loaded.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cka: Floats
    low: Floats
    high: Floats
    pictures: int
    units: int
    batch_size: int
    level: float
    checksum: str
    notes: tuple[str, ...] = ()
    replicates: Floats | None = None


@dataclass(frozen=True, eq=False)
class Difference:
    """The difference of two maps of the same pictures, the first less the second.

    Args:
        rows: layers of the first network of the first map.
        columns: layers of its second network.
        difference: (L1, L2).
        low: lower ends of the intervals (L1, L2).
        high: upper ends.
        pictures: their number.
        units: number of patients or pictures that the intervals are about.
        level: the share of intervals that hold the true value.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    difference: Floats
    low: Floats
    high: Floats
    pictures: int
    units: int
    level: float


def compare_networks(
    first: nn.Module,
    second: nn.Module,
    batches: Iterable[torch.Tensor],
    *,
    groups: Sequence[Hashable] | None = None,
    layers: Layers = ALL,
    positions: int | None = None,
    device: str | torch.device = "cpu",
    level: float = 0.95,
    progress: bool = True,
) -> CKA:
    """Linear CKA of all layers of two networks, which may be of different depth, with intervals.

    Batches count by their pictures, so that a short last one does not disturb. A batch of under 4 pictures joins the
    one before it. Where several processes train or evaluate together, each gives the same batches and computes every
    so manieth; all of them return the whole map.

    Args:
        first: its layers are the rows. Copies of the networks are used, in eval mode.
        second: its layers are the columns. If it is the first one again, pictures pass it once.
        batches: pictures, float (B, 1 or 3, H, W), prepared as the networks want them.
        groups: the unit (patient) of each picture, in the order of the batches; by default each picture is one. About
            8 bytes for each pair of layers and unit are held: 120 KB a unit for two ResNet50.
        layers: "all", "blocks" or names, as for `layer_names`.
        positions: compare layers with more positions (H x W) by so many of them only, drawn once for all pictures.
            This is faster for large pictures, and another quantity: the CKA of a part of the features.
        device: where the networks run.
        level: the share of intervals that hold the true value.
        progress: show a bar where there is a terminal.

    Raises:
        UserError: batches, groups, layers or numbers are not as above.
    """
    _check(positions, level)
    both = [first] if second is first else [first, second]
    networks = [place(copy.deepcopy(network).eval().float(), device) for network in both]
    sums, checksum = _Sums(), 0
    names: list[list[str]] = []  # of each network
    sizes: list[int] = []
    with float32_only(device):
        for number, images in enumerate(_bar(batches, progress)):
            names = names or [layer_names(network, _input(images[:2], device), layers) for network in networks]
            units = _units(groups, sum(sizes), len(images))
            sizes.append(len(images))
            checksum = zlib.crc32(np.ascontiguousarray(images.float().cpu().numpy()).data, checksum)
            if number % process_count() == process_rank():
                grams = [
                    layer_grams(network, own, _input(images, device), positions)
                    for network, own in zip(networks, names, strict=True)
                ]
                sums.add(u_centred(grams[0]), u_centred(grams[-1]), units)
    pictures = sum(sizes)
    if groups is not None and len(groups) != pictures:
        raise UserError(
            f"expected a group for each of {counted(pictures, 'picture')}, found {counted(len(groups), 'label')}; "
            "give as many, in the order of the batches"
        )
    rows, columns = (tuple(short_names(own)) for own in (names[0], names[-1]))
    value, replicates, notes = sums.gathered().maps(rows, columns)
    low, high = _interval(value, replicates, level)
    return CKA(
        rows=rows,
        columns=columns,
        cka=value,
        low=low,
        high=high,
        pictures=pictures,
        units=len(replicates),
        batch_size=max(sizes),
        level=level,
        checksum=f"{checksum:08x}",
        notes=notes,
        replicates=replicates,
    )


def difference(first: CKA, second: CKA) -> Difference:
    """The difference of two maps, with intervals from the jackknife of the difference.

    Networks differ, pictures do not, and a unit is left out of both maps at once. Student's quantile with units - 1
    degrees of freedom goes with the standard error; ends lie within -2 and 2.

    Args:
        first: a map as `compare_networks` returns it.
        second: of the same pictures, in the same batches, units and layers.

    Raises:
        UserError: the maps differ in these, or were loaded from files.
    """
    if first.replicates is None or second.replicates is None:
        raise UserError("expected maps as compare_networks returns them, found one from a file: compare both in one go")
    for what in ("checksum", "pictures", "units", "batch_size", "level", "rows", "columns"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            named = isinstance(one, tuple)
            found = f"{len(one)} and {len(other)} names" if named else f"{one} and {other}"
            raise UserError(
                f"expected two maps of the same pictures, batches, units and layers, found another {what} ({found}); "
                "compare both pairs of networks with the same arguments"
            )
    value = first.cka - second.cka
    reach = jackknife_reach(first.replicates - second.replicates, first.level)
    low, high = np.clip(value - reach, -2, 2), np.clip(value + reach, -2, 2)
    return Difference(first.rows, first.columns, value, low, high, first.pictures, first.units, first.level)


def diagonal_mean(result: CKA, *, less: CKA | None = None) -> Estimate | None:
    """The mean similarity of each layer with the layer of the same name, or how much it is more than in another map.

    Args:
        result: as `compare_networks` returns it.
        less: a map of the same layers and pictures, for the difference of both means.

    Returns:
        Its value and interval; None where the networks have other layers.
    """
    if result.rows != result.columns or result.replicates is None:
        return None
    values, without = np.diagonal(result.cka), np.diagonal(result.replicates, axis1=1, axis2=2)  # (L,), (units, L)
    if less is not None and less.replicates is not None:
        values = values - np.diagonal(less.cka)
        without = without - np.diagonal(less.replicates, axis1=1, axis2=2)
    known = ~np.isnan(values)
    if not known.any():
        return None
    value, means = values[known].mean(), without[:, known].mean(axis=1)  # (), (units,)
    if less is None:
        low, high = _interval(value, means, result.level)
    else:
        reach = jackknife_reach(means, result.level)
        low, high = np.clip(value - reach, -2, 2), np.clip(value + reach, -2, 2)
    return Estimate(float(value), float(low), float(high), result.units, int((~known).sum()))


def save_cka(result: CKA, path: Path) -> None:
    """Write a map as an array (3, L1, L2) of values, lower and upper ends, and a JSON file of the rest beside it.

    Args:
        result: its replicates are not written.
        path: ending in .npy; the other file ends in .json.

    Raises:
        OutputError: a file cannot be written.
    """
    with atomic_write(path, "wb") as file:
        np.save(file, np.stack([result.cka, result.low, result.high]))
    plain = {name: getattr(result, name) for name in _PLAIN}
    write_json(path.with_suffix(".json"), plain)


def load_cka(path: Path) -> CKA:
    """A map from files by `save_cka`, without replicates.

    Raises:
        UserError: a file is missing or damaged.
    """
    beside = path.with_suffix(".json")
    place = path
    try:
        with reading(path), path.open("rb") as file:
            value, low, high = np.load(file, allow_pickle=False)
        place = beside
        with reading(beside):
            plain = json.loads(beside.read_text(encoding="utf-8"))
        lists = {name: tuple(plain[name]) for name in ("rows", "columns", "notes")}
        return CKA(cka=value, low=low, high=high, **{name: plain[name] for name in _PLAIN} | lists)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError(f"expected similarities of layers in {place}, found a damaged file: compare again") from error


_PLAIN = ("rows", "columns", "pictures", "units", "batch_size", "level", "checksum", "notes")


# Gram matrices.


def layer_grams(
    network: nn.Module, names: Sequence[str], images: torch.Tensor, positions: int | None = None
) -> torch.Tensor:
    """The Gram matrices of the features of layers.

    Args:
        network: in eval mode.
        names: full names of layers, in the order in which they are computed.
        images: (B, C, H, W), on the device of the network.
        positions: as for `compare_networks`.

    Returns:
        float32 (L, B, B).
    """
    grams: list[torch.Tensor] = []
    with torch.inference_mode(), watching(network, names, lambda _, output: grams.append(gram(output, positions))):
        network(images)
    return torch.stack(grams)


def gram(features: torch.Tensor, positions: int | None = None) -> torch.Tensor:
    """The linear Gram matrix of features less their mean over the batch; 0 where all pictures have the same.

    Centring does not change HSIC_1. But features far from 0 have a Gram matrix of large, nearly equal numbers, in which
    the differences between pictures drown in the rounding of float32.

    Args:
        features: (n, ...), in any precision.
        positions: as for `compare_networks`; for features (n, C, H, W).

    Returns:
        float32 (n, n).
    """
    x = _flat(features, positions)
    n, numbers = x.shape
    result = torch.zeros(n, n, device=x.device)
    size = torch.zeros((), device=x.device)
    # On a processor piece by piece, so that what is read once from memory is centred and multiplied in the cache.
    width = max(1, _NUMBERS // n) if x.device.type == "cpu" else numbers
    for piece in torch.split(x, width, dim=1):
        mean = piece.float().mean(dim=0)
        centred = piece - mean  # (n, c), float32
        result.addmm_(centred, centred.T)
        size += mean.dot(mean)
    spread = result.diagonal().sum()
    return torch.where(spread <= _CONSTANT * (n * size + spread), torch.zeros_like(result), result)


def u_centred(grams: torch.Tensor) -> torch.Tensor:
    """Gram matrices without their diagonals, and with rows and columns that sum to 0.

    Székely & Rizzo 2014, Definition 2. HSIC_1 of two layers is the sum of the products of two such matrices divided by
    n (n - 3), which is Song's Equation 5.

    Args:
        grams: (L, n, n), symmetric, n > 3.

    Returns:
        float64 (L, n, n).
    """
    n = grams.shape[-1]
    diagonal = torch.eye(n, dtype=torch.bool, device=grams.device)
    hollow = grams.double().masked_fill(diagonal, 0)
    rows = hollow.sum(dim=-1, keepdim=True) / (n - 2)  # (L, n, 1)
    total = rows.sum(dim=-2, keepdim=True) / (n - 1)  # (L, 1, 1)
    return (hollow - rows - rows.mT + total).masked_fill(diagonal, 0)


def _flat(features: torch.Tensor, positions: int | None) -> torch.Tensor:
    """Features (n, D), without a copy where that can be; their order does not count."""
    if features.ndim != 4:
        return features.flatten(1)
    count = features.shape[2] * features.shape[3]
    if positions is not None and count > positions:
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:positions].sort().values
        maps = features.flatten(2).mT  # (n, H * W, C)
        return maps.index_select(1, drawn.to(features.device)).flatten(1)
    last = features.is_contiguous(memory_format=torch.channels_last)
    return (features.permute(0, 2, 3, 1) if last else features).flatten(1)


# Sums over batches.


class _Sums:
    """Sums over batches of n HSIC_1, and what leaving out a unit changes in them.

    A vector holds HSIC_1 of all pairs of layers (L1 * L2), of the first layers with themselves (L1) and of the second
    ones (L2).
    """

    def __init__(self) -> None:
        self.total: Floats = np.zeros(())
        self.changes: dict[Hashable, Floats] = defaultdict(partial(np.zeros, ()))

    def add(self, first: torch.Tensor, second: torch.Tensor, units: Sequence[Hashable]) -> None:
        """Add a batch.

        Args:
            first: U-centred Gram matrices (L1, n, n).
            second: (L2, n, n).
            units: n of them.
        """
        n = len(units)
        products = _products(first.flatten(1), second.flatten(1))
        term = (products / (n - 3)).cpu().numpy()
        self.total = self.total + term
        for unit, members in _members(units).items():
            rest = n - len(members)
            change = -term
            if rest >= LEAST:
                change = change + ((products + _less(first, second, members)) / (rest - 3)).cpu().numpy()
            self.changes[unit] = self.changes[unit] + change

    def gathered(self) -> _Sums:
        """The sums of all processes."""
        whole = _Sums()
        for total, changes in all_gather_objects((self.total, dict(self.changes))):
            whole.total = whole.total + total
            for unit, change in changes.items():
                whole.changes[unit] = whole.changes[unit] + change
        return whole

    def maps(self, rows: Sequence[str], columns: Sequence[str]) -> tuple[Floats, Floats, tuple[str, ...]]:
        """The map (L1, L2), the maps without each unit (units, L1, L2), and notes on layers without a value."""
        shape = len(rows), len(columns)
        notes = []
        _, *owns = _parts(self.total, *shape)
        for which, names, own in zip(("first", "second"), (rows, columns), owns, strict=True):
            for name, value in zip(names, own, strict=True):
                if not value > 0 or np.isinf(value):
                    what = "the same for all pictures" if value == 0 else "numbers that are not finite"
                    notes.append(f"{name} of the {which} network gives {what}: it has no similarity")
        replicates = np.empty((len(self.changes), *shape))
        for number, change in enumerate(self.changes.values()):
            replicates[number] = _ratio(self.total + change, *shape)
        return _ratio(self.total, *shape), replicates, tuple(notes)


def _products(first: torch.Tensor, second: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Inner products of rows (L1, k) and (L2, k), each with each and each with itself, as `_Sums` holds them."""
    weighted, other = (first, second) if weights is None else (first * weights, second * weights)
    return torch.cat([(weighted @ second.T).flatten(), (weighted * first).sum(1), (other * second).sum(1)])


def _less(first: torch.Tensor, second: torch.Tensor, members: list[int]) -> torch.Tensor:
    """What leaving out pictures changes in the inner products of U-centred matrices, as `_Sums` holds them.

    What is left of such a matrix has to be U-centred again. As its rows summed to 0, the sums of what is left follow
    from what was left out: g rows of each matrix tell all.

    Args:
        first: (L1, n, n).
        second: (L2, n, n).
        members: positions of g pictures.
    """
    n, g = first.shape[-1], len(members)
    m = n - g
    others = [i for i in range(n) if i not in set(members)]
    parts = []
    for centred in (first, second):
        rows = centred[:, members]  # (L, g, n)
        corner = rows[:, :, members]  # (L, g, g)
        sums, total = rows[:, :, others].sum(dim=1), corner.sum(dim=(1, 2))  # (L, m), (L,)
        parts.append(torch.cat([rows.flatten(1), corner.flatten(1), sums, total[:, None]], dim=1))
    counts = {-2.0: g * n, 1.0: g * g, -2 / (m - 2): m, 1 / ((m - 1) * (m - 2)): 1}
    weights = torch.repeat_interleave(
        torch.tensor(list(counts), dtype=first.dtype), torch.tensor(list(counts.values()))
    )
    return _products(parts[0], parts[1], weights.to(first.device))


def _members(units: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """The positions of each unit's pictures in a batch."""
    members: dict[Hashable, list[int]] = {}
    for position, unit in enumerate(units):
        members.setdefault(unit, []).append(position)
    return members


def _parts(sums: Floats, rows: int, columns: int) -> tuple[Floats, Floats, Floats]:
    cross, first, second = np.split(sums, [rows * columns, rows * columns + rows])
    return cross.reshape(rows, columns), first, second


def _ratio(sums: Floats, rows: int, columns: int) -> Floats:
    """CKA of sums; nan where a layer's HSIC with itself is 0, but for rounding."""
    cross, first, second = _parts(sums, rows, columns)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.sqrt(first)[:, None] * np.sqrt(second)
        value = np.where((own > 0) & np.isfinite(own), cross / own, np.nan)
    clipped: Floats = np.clip(value, -1, 1)
    return clipped


# Intervals.


def _interval(value: Floats, replicates: Floats, level: float) -> tuple[Floats, Floats]:
    """The ends of the intervals of CKA, symmetric on the scale of Fisher's z; none for a value of 1.

    Args:
        value: (L1, L2).
        replicates: the same without each unit (units, L1, L2).
        level: the share of intervals that hold the true value.
    """
    z = np.arctanh(np.clip(value, -_ONE, _ONE))
    reach = jackknife_reach(np.arctanh(np.clip(replicates, -_ONE, _ONE)), level)
    low, high = np.tanh(z - reach), np.tanh(z + reach)
    equal = np.abs(value) >= _ONE
    return np.where(equal, value, low), np.where(equal, value, high)


# Pictures.


def _bar(batches: Iterable[torch.Tensor], progress: bool) -> Iterator[torch.Tensor]:
    total = len(batches) if isinstance(batches, Sized) else None
    shown = progress_bar(batches, total=total, desc="compare layers", unit=" batches", hidden=not progress)
    return _joined(shown)


def _joined(batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The batches, those of under 4 pictures joined to the one before."""
    held: torch.Tensor | None = None
    for images in batches:
        if not isinstance(images, torch.Tensor) or images.ndim != 4 or not images.is_floating_point():
            found = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images)
            raise UserError(f"expected batches of pictures, float (B, C, H, W), found {found}; prepare them first")
        if held is not None and len(images) < LEAST:
            held = torch.cat([held, images])
            continue
        if held is not None:
            yield held
        elif len(images) < LEAST:
            raise UserError(
                f"expected batches of {LEAST} pictures or more, found {len(images)} in the first one; take larger "
                "batches, 32 are usual"
            )
        held = images
    if held is None:
        raise UserError(f"expected batches of {LEAST} pictures or more, found none; give some")
    yield held


def _input(images: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    return three_channels(images).to(device=device, dtype=torch.float32).contiguous(memory_format=torch.channels_last)


def _units(groups: Sequence[Hashable] | None, start: int, count: int) -> Sequence[Hashable]:
    units = range(start, start + count) if groups is None else groups[start : start + count]
    if len(units) < count:
        raise UserError(
            f"expected a group for each picture, found {counted(len(groups or ()), 'label')} for more pictures; "
            "give as many, in the order of the batches"
        )
    return list(units)


def _check(positions: int | None, level: float) -> None:
    if positions is not None and positions < 1:
        raise UserError(f"expected 1 position or more, found {positions}; 196 are those of a map of 14 x 14")
    if not 0 < level < 1:
        raise UserError(f"expected a level between 0 and 1, found {level}; 0.95 is usual")
