"""An audit from start to end: neighbours, views in all variants, distances, rates, counted negatives, files, page.

OUTPUT/audit.json     all numbers, and what they are of
OUTPUT/rates.csv      the same rates as a table, under each variant of the views
OUTPUT/pairs.csv      the distances of each slice to its view and to each neighbour
OUTPUT/audit.html     to look at
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lessismore_transforms import __version__
from lessismore_transforms.analysis.group_intervals import Estimate
from lessismore_transforms.analysis.models import Model, load_models
from lessismore_transforms.atomic import atomic_write, finite, write_json, writing
from lessismore_transforms.audit.answer import FULL, REFUSED, batches_of, find, near_bits, with_interval
from lessismore_transforms.audit.compared import Chunks, Variant
from lessismore_transforms.audit.measure import LOSS, Distances, measure
from lessismore_transforms.audit.negatives import Draws, balanced, copies_at, likelihood, shuffled
from lessismore_transforms.audit.neighbours import NEXT, OTHER, Neighbours, at_bits, find_neighbours
from lessismore_transforms.audit.page import write_page
from lessismore_transforms.audit.parts_of_views import parts_of
from lessismore_transforms.audit.rates import Rate, rates
from lessismore_transforms.audit.settings import AuditSettings
from lessismore_transforms.audit.source import Source, open_source
from lessismore_transforms.audit.view_pair import read_views
from lessismore_transforms.audit.within_volumes import collisions_within, exact_copies, strangers
from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.balance import Balanced
from lessismore_transforms.training.precision import pick_device
from lessismore_transforms.wording import aligned, percent

if TYPE_CHECKING:
    import pandas as pd

AUDIT, RATES, PAIRS = "audit.json", "rates.csv", "pairs.csv"
_EXAMPLES = 4

Floats = NDArray[np.float64]


def audit(settings: AuditSettings) -> Path:
    """Audit the slices of an output under the views of a pre-training; returns the page.

    Raises:
        UserError: the output, the configuration, a network or a setting makes no sense.
        OutputError: the folder cannot be written.
    """
    views = read_views(settings.views, settings.image_size)
    if views.queue and settings.batch_size is None:
        raise UserError(
            "expected --batch_size for a method with a queue, whose negatives are the queue, found none: give its "
            "length and one more"
        )
    batch_size = settings.batch_size or views.batch_size
    if batch_size is None or batch_size < 2:
        raise UserError(f"expected a batch of 2 pictures or more, found {batch_size}: give --batch_size, such as 128")
    balance = views.balance if settings.balance is None else settings.balance
    together = (settings.volumes_per_batch or views.volumes_per_batch) if balance else None
    if settings.volumes_per_batch and not balance:
        raise UserError("expected --balance with --volumes_per_batch, found shuffled batches: give both, or drop it")
    if views.queue and balance:
        raise UserError(
            "expected shuffled batches for a method with a queue, found balanced ones: give --balance False"
        )
    batches = {"batch_size": batch_size, "balance": balance, "volumes_per_batch": together}
    source = open_source(settings.dataset_dir, settings.slices, seed=settings.seed)
    seen = source.seen
    smallest = seen.loc[(seen["height"] * seen["width"]).idxmin()]
    models = load_models(
        settings.models, backbone=settings.backbone, device=pick_device(settings.device), alike=(),
    )  # fmt: skip
    neighbours = find_neighbours(seen, settings.distances_mm, settings.bits, seed=settings.seed)
    variants, measured = _variants(parts_of(views.kinds), neighbours)
    chunks = Chunks(source.dataset, views.kinds, list(variants.values()), seed=settings.seed)
    chunks.views.check(int(smallest["height"]), int(smallest["width"]))
    with writing(settings.output_dir):
        settings.output_dir.mkdir(parents=True, exist_ok=True)
    found, directions = measure(chunks, models, neighbours.index, measured, workers=settings.workers)
    patients = seen["patient"].to_numpy()
    of_variants = {
        name: [rate for each in distances for rate in rates(each, neighbours.kinds, patients)]
        for name, distances in zip(variants, found, strict=True)
    }
    about = {
        "version": __version__,
        "settings": settings.told(),
        "data": _data(source, neighbours),
        "method": views.method,
        "has_negatives": views.has_negatives,
        "remedies": list(views.remedies),
        "views": [dataclasses.asdict(kind) for kind in views.kinds],
        "parts": list(parts_of(views.kinds)),
        "models": [{"name": model.name, **model.origin} for model in models],
        "kinds": _kinds(neighbours),
        "rates": {name: [_plain(rate) for rate in each] for name, each in of_variants.items()},
        "batches": batches,
        "negatives": _negatives(source, batches, settings.bits, _worths(source, models, directions)),
    }
    write_json(settings.output_dir / AUDIT, finite(about))
    _write_rates(settings.output_dir / RATES, of_variants)
    _write_pairs(settings.output_dir / PAIRS, source.dataset.slice_ids, neighbours, found[0])
    print(summary(about))
    return write_page(settings.output_dir, finite(about), _examples(chunks, neighbours))


def _variants(parts: Sequence[str], neighbours: Neighbours) -> tuple[dict[str, Variant], list[Any]]:
    """The views with all parts, without each one, and with each one alone; and which neighbours each is compared with.

    Parts are compared by the next slice and by another patient's alone.
    """
    columns = np.array([neighbours.kinds.index(NEXT), neighbours.kinds.index(OTHER)])
    few = dataclasses.replace(neighbours, index=neighbours.index[:, columns]).pairs()
    variants = {FULL: Variant(tuple(parts), neighbours.pairs())}
    for part in parts:
        variants[f"without {part}"] = Variant(tuple(each for each in parts if each != part), few)
        variants[f"{part} alone"] = Variant((part,), few)
    return variants, [np.arange(len(neighbours.kinds))] + [columns] * (len(variants) - 1)


def _examples(chunks: Chunks, neighbours: Neighbours) -> list[list[NDArray[np.uint8]]]:
    """A few slices with their views, and the second view of the next slice."""
    following = neighbours.index[:, neighbours.kinds.index(NEXT)]
    having = np.flatnonzero(following >= 0)
    places = having[np.linspace(0, len(having) - 1, _EXAMPLES + 2).astype(int)[1:-1]] if len(having) else []
    return [[*chunks.views_of(int(row)), chunks.views_of(int(following[row]))[2]] for row in places]


def _data(source: Source, neighbours: Neighbours) -> dict[str, Any]:
    seen = source.seen
    return {
        "slices": len(seen),
        "volumes": int(seen["volume"].nunique()),
        "patients": int(seen["patient"].nunique()),
        "of_slices": len(source.slices),
        "of_volumes": int(source.slices["volume"].nunique()),
    }


def _kinds(neighbours: Neighbours) -> list[dict[str, Any]]:
    """How many slices have each kind of neighbour, and how far away it lies, by median."""
    found = []
    for column, kind in enumerate(neighbours.kinds):
        there = neighbours.index[:, column] >= 0
        mm, bits = neighbours.mm[there, column], neighbours.bits[there, column]
        within = there.any() and kind != OTHER
        found.append(
            {
                "neighbour": kind,
                "slices": int(there.sum()),
                "mm": float(np.median(mm)) if within else None,
                "bits": float(np.median(bits)) if there.any() else None,
            }
        )
    return found


def _worths(
    source: Source, models: Sequence[Model], directions: Sequence[Tensor]
) -> dict[str, Callable[[NDArray[np.bool_], Draws], Estimate]]:
    """For each encoder what a selection's negatives are worth in exact copies, under all parts of the views."""
    seen = source.seen
    members = [rows.astype(np.int64) for rows in seen.groupby("volume", sort=False).indices.values()]
    patients = seen["patient"].to_numpy()

    def worth(views: Tensor) -> Callable[[NDArray[np.bool_], Draws], Estimate]:
        first, second = views[1], views[1 + len(views) // 2]  # under all parts, after the slices
        within, control = collisions_within(first, second, members), strangers(first, second, patients)

        def of(kept: NDArray[np.bool_], draws: Draws) -> Estimate:
            spread = np.zeros((2, len(kept)))
            spread[:, kept] = draws.weight, draws.per_other
            weight, per_other = spread[:, source.rows]
            return exact_copies(within, members, kept[source.rows], weight, per_other, control, patients)

        return of

    return {model.name: worth(views) for model, views in zip(models, directions, strict=True)}


def _negatives(
    source: Source,
    batches: Mapping[str, Any],
    most: int,
    worths: Mapping[str, Callable[[NDArray[np.bool_], Draws], Estimate]],
) -> list[dict[str, Any]]:
    """How likely near copies are in a batch, for ALL and each selection, and what they are to each encoder."""
    rows = []
    for (name, target), kept in source.kept.items():
        slices = source.slices[kept]
        draws, refused = shuffled(len(slices), batches["batch_size"]), ""
        if batches["balance"]:
            draws = balanced(slices["volume"].to_numpy(), batches["batch_size"], batches["volumes_per_batch"])
            refused = _refused(slices["volume"], batches)
        within = copies_at(slices).cumsum(axis=1)  # (n, 65)
        near = [{"bits": bits, **likelihood(within[:, bits], draws)._asdict()} for bits in range(most + 1)]
        rows.append(
            {
                "selection": name,
                "target": target,
                "slices": int(kept.sum()),
                "batch_size": draws.batch_size,
                "refused": refused,
                "near": near,
                "same_volume": likelihood(within[:, 64], draws)._asdict(),
                "as_exact_copies": {
                    model: {name: getattr(told, name) for name in ("value", "low", "high")}
                    for model, told in ((model, worth(kept, draws)) for model, worth in worths.items())
                },
            }
        )
    return rows


def _refused(volumes: pd.Series[str], batches: Mapping[str, Any]) -> str:
    """Why a training would not draw such batches of these slices; empty where it would."""
    member = np.unique(volumes, return_inverse=True)[1].astype(np.int64)
    try:
        Balanced(member, np.arange(len(member)), batches["batch_size"], 0, batches["volumes_per_batch"])
    except UserError as error:
        return str(error)
    return ""


def _plain(rate: Rate) -> dict[str, Any]:
    def interval(name: str, of: Any) -> dict[str, Any]:
        return {name: of.value, f"{name}_low": of.low, f"{name}_high": of.high}

    return {
        "comparison": rate.comparison,
        "measure": rate.measure,
        "neighbour": rate.neighbour,
        **interval("rate", rate.rate),
        **interval("likeness", rate.likeness),
        "slices": rate.slices,
        "patients": rate.rate.groups,
    }


def _write_rates(path: Path, found: Mapping[str, Sequence[Rate]]) -> None:
    rows = [{"views": name, **_plain(rate)} for name, each in found.items() for rate in each]
    _write_table(path, list(rows[0]), (list(row.values()) for row in rows))


def _write_pairs(path: Path, names: Sequence[str], neighbours: Neighbours, found: Sequence[Distances]) -> None:
    """A row for each slice and kind of neighbour, with the distances of each comparison under all parts."""
    head = ["slice_id", "neighbour", "other", "mm", "bits"]
    head += [f"{each.comparison} {each.measure} {what}" for each in found for what in ("view", "other")]

    def rows() -> Iterator[list[Any]]:
        for row, column in zip(*np.nonzero(neighbours.index >= 0), strict=True):
            yield [
                names[row],
                neighbours.kinds[column],
                names[neighbours.index[row, column]],
                neighbours.mm[row, column],
                int(neighbours.bits[row, column]),
                *(value for each in found for value in (each.own[row], each.others[row, column])),
            ]

    _write_table(path, head, rows())


def _write_table(path: Path, head: Sequence[str], rows: Any) -> None:
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return value


def summary(about: Mapping[str, Any]) -> str:
    """The main numbers as text."""
    bits = near_bits(about)
    names = [model["name"] for model in about["models"]]
    rows = [
        ["selection", "slices", f"negatives within {at_bits(bits)}", "per picture", *(f"as exact, {n}" for n in names)]
    ]
    for row in about["negatives"]:
        near = row["near"][bits]
        told = [row["as_exact_copies"][name] for name in names]
        rows.append(
            [
                row["selection"] + (REFUSED if row["refused"] else ""),
                f"{row['slices']:,}",
                percent(near["share"]),
                f"{near['per_picture']:.2f}",
                *(with_interval(each, "-") for each in told),
            ]
        )
    loss = [["closer than the second view", NEXT, OTHER, "likeness"]]
    for name in names:
        near, other = (find(about, LOSS, name, kind) for kind in (NEXT, OTHER))
        like = math.nan if near is None else near["likeness"]
        shares = ["-" if each is None else percent(each["rate"]) for each in (near, other)]
        loss.append([name, *shares, "-" if math.isnan(like) else f"{like:.2f}"])
    return f"{batches_of(about)}\n\n{aligned(rows, left=1)}\n\n{aligned(loss, left=1)}\n"
