"""An analysis from its settings to its numbers: which pictures, which networks, and the chosen comparisons of them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lessismore_transforms import __version__
from lessismore_transforms.analysis import cka
from lessismore_transforms.analysis.attention import SHARES, default_layer, feature_norm_map, grad_cam, iou, overlap
from lessismore_transforms.analysis.embedding_map import (
    check_perplexity,
    pca_map,
    separation,
    target_correlation,
    tsne_maps,
)
from lessismore_transforms.analysis.encoder_measures import measures_of
from lessismore_transforms.analysis.group_intervals import difference_by_groups, mean_by_groups
from lessismore_transforms.analysis.layers import layer_names
from lessismore_transforms.analysis.models import Model, checkpoints_of, common, load_models
from lessismore_transforms.analysis.overlays import write_overlays
from lessismore_transforms.analysis.results import (
    ANALYSIS,
    FILES,
    MAP,
    OVERLAYS,
    cka_file,
    difference_file,
    read_analysis,
)
from lessismore_transforms.analysis.sample import Sample, read_sample
from lessismore_transforms.analysis.settings import AnalysisSettings
from lessismore_transforms.atomic import atomic_write, finite, write_json, writing
from lessismore_transforms.errors import IncompleteError, UserError
from lessismore_transforms.options import names, plain_values
from lessismore_transforms.pretraining.views import View, Views
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.training.precision import float32_only, pick_device
from lessismore_transforms.weights.backbones import three_channels
from lessismore_transforms.wording import counted

Pair = tuple[Model, Model]
LENGTHS = "length of features"


def analyse(settings: AnalysisSettings) -> Path:
    """Compare networks as the settings say, and write numbers, maps and overlays; returns the folder.

    Raises:
        UserError: models, pictures or settings do not fit each other.
        OutputError: the folder cannot be written.
    """
    folder = Path(settings.output_dir)
    device = pick_device(settings.device)
    models = load_models(
        settings.models or (),
        backbone=settings.backbone,
        device=device,
        image_size=settings.image_size,
        mean=settings.mean,
        std=settings.std,
        window=settings.window,
    )
    pairs = _pairs(models, settings.pairs)
    sample = read_sample(
        settings.dataset_dir,
        size=common(models, "image_size"),
        selection=settings.selection,
        labels=settings.labels,
        pictures=settings.pictures,
        seed=settings.seed,
        channels=common(models, "channels"),
        resize=common(models, "resize"),
        transpose=common(models, "transpose"),
        window=common(models, "window"),
    )
    sample = sample.named(_known(models))
    task = _Task(settings, models, pairs, sample, folder, torch.device(device))
    _check(task)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in _files_of(folder):  # of an analysis before: its numbers belong to other files
            old.unlink()
    found: dict[str, Any] = {
        "format": 1,
        "version": __version__,
        "settings": {name: plain_values(settings)[name] for name in names(settings, "identity")},
        "pictures": _about(sample),
        "models": [
            {"name": model.name, "classes": list(model.classes), **model.origin, **model.settings} for model in models
        ],
        "pairs": [[first.name, second.name] for first, second in pairs],
    }
    with float32_only(device):
        for name in settings.analyses:
            found[name] = _WORK[name](task)
    write_json(folder / ANALYSIS, finite(found))
    return folder


def check_complete(folder: Path | str) -> None:
    """Tell of the pictures of an analysis that could not be read.

    Raises:
        IncompleteError: there are such.
    """
    about = read_analysis(Path(folder))["pictures"]
    for name, reason in about["unread"].items():
        raise IncompleteError(
            f"{len(about['unread'])} of {counted(len(about['unread']) + about['count'], 'picture')} could not be read "
            f"and are not in the analysis, first {name} ({reason}): fix them or take them away"
        )


class _Task(NamedTuple):
    settings: AnalysisSettings
    models: list[Model]
    pairs: list[Pair]
    sample: Sample
    folder: Path
    device: torch.device

    @property
    def named(self) -> list[Pair]:
        """The pairs behind the first, where the user has named them: which to compare is to be said beforehand."""
        return [] if self.settings.pairs is None else self.pairs[1:]


def _known(models: Sequence[Model]) -> tuple[str, ...]:
    """The classes of the first classifier; none where there is none."""
    return next((model.classes for model in models if model.classes), ())


def _files_of(folder: Path) -> list[Path]:
    """What an analysis writes into a folder, as far as it is there."""
    return [path for pattern in FILES for path in sorted(folder.glob(pattern))]


def _pairs(models: Sequence[Model], pairs: Sequence[Sequence[str]] | None) -> list[Pair]:
    """The pairs that are named; else each model with each later one."""
    if pairs is None:
        return list(itertools.combinations(models, 2))
    by_name = {model.name: model for model in models}
    found: list[Pair] = []
    for pair in pairs or [()]:
        if isinstance(pair, str) or len(pair) != 2 or len({*pair}) != 2 or not {*pair} <= by_name.keys():
            known = ", ".join(by_name)
            raise UserError(
                f"expected pairs of two of the models {known}, found {pair or 'none'!r}: give a list such as "
                f"[['{models[0].name}','{models[-1].name}']]"
            )
        if (chosen := (by_name[pair[0]], by_name[pair[1]])) in found:
            raise UserError(f"expected each pair once, found {pair[0]} and {pair[1]} twice: take one of them away")
        found.append(chosen)
    return found


def _check(task: _Task) -> None:
    """Refuse before the work begins what would end it later.

    Raises:
        UserError: labels, layers or numbers do not fit the networks and pictures.
    """
    settings, sample = task.settings, task.sample
    if "map" in settings.analyses:
        if len(set(sample.labels)) == 1:
            raise UserError(
                f"expected pictures of two classes or more to correlate a map with, found {sample.labels[0]!r} only: "
                "add others, or leave out --labels"
            )
        check_perplexity(settings.perplexity, len(sample.names))
    first = sample.images[:2].to(task.device)
    if "cka" in settings.analyses:
        for model in {model.name: model for pair in task.pairs for model in pair}.values():
            layer_names(model.network, three_channels(first), settings.layers)
    if "attention" in settings.analyses:
        for model in task.models:
            if model.classes and settings.attention_class == "true":
                sample.classes(model.classes)
            feature_norm_map(model.network, first, layer=settings.attention_layer)


def _about(sample: Sample) -> dict[str, Any]:
    return {
        "count": len(sample.names),
        "of": sample.of,
        "unit": sample.unit,
        "units": len(set(sample.groups)),
        "classes": dict(sorted(Counter(sample.labels).items())),
        "unread": dict(sample.unread),
    }


def _similarity(task: _Task) -> dict[str, Any]:
    """CKA of the layers of each pair, and of each further pair that was named less the first."""
    settings, sample = task.settings, task.sample
    batches = list(torch.split(sample.images, settings.batch_size))
    told: list[dict[str, Any]] = []
    differences = []
    beside: cka.CKA | None = None
    for number, (first, second) in enumerate(task.pairs):
        compared = cka.compare_networks(
            first.network,
            second.network,
            batches,
            groups=sample.groups,
            layers=settings.layers,
            positions=settings.positions,
            device=task.device,
        )
        cka.save_cka(compared, task.folder / cka_file(number))
        told.append({"first": first.name, "second": second.name, "file": cka_file(number)} | _diagonal(compared))
        if beside is not None and settings.pairs is not None:
            which = {"pair": [first.name, second.name], "less": [model.name for model in task.pairs[0]]}
            alike = (compared.rows, compared.columns) == (beside.rows, beside.columns)
            if alike:
                change = cka.difference(compared, beside)
                with atomic_write(task.folder / difference_file(number), "wb") as out:
                    np.save(out, np.stack([change.difference, change.low, change.high]))
                which |= {"file": difference_file(number)} | _diagonal(compared, less=beside)
            differences.append(which)
        beside = compared if beside is None else beside
    return {"pairs": told, "differences": differences}


def _diagonal(compared: cka.CKA, *, less: cka.CKA | None = None) -> dict[str, Any]:
    mean = cka.diagonal_mean(compared, less=less)
    return {"diagonal": None if mean is None else mean._asdict()}


def _map(task: _Task) -> dict[str, Any]:
    """Maps of features and outputs, their correlation with the labels, and what tells classes apart without a map."""
    sample, settings = task.sample, task.settings
    perplexity = check_perplexity(settings.perplexity, len(sample.names))
    classes = sample.class_names(_known(task.models))
    target = np.array([classes.index(label) for label in sample.labels])
    kinds = [(model, outputs) for model in task.models for outputs in ((False, True) if model.classes else (False,))]
    rows, told = [], []
    for model, outputs in progress_bar(kinds, desc="map", unit=" networks"):
        features = model.features(sample.images, outputs=outputs, batch_size=settings.batch_size).numpy()
        maps = tsne_maps(features, perplexity=perplexity, seeds=range(settings.seeds))  # (S, N, 2)
        plane = pca_map(features)  # (N, 2)
        what = "outputs" if outputs else "features"
        rows += [_table(model.name, what, f"tsne_{seed}", places, sample) for seed, places in enumerate(maps)]
        rows.append(_table(model.name, what, "pca", plane, sample))
        one: dict[str, Any] = {"model": model.name, "of": what, "numbers": features.shape[1]}
        if len(target):
            one |= {"tsne": _correlation(maps, target), "pca": _correlation(plane, target)}
            one |= {
                name: value._asdict()
                for name, value in separation(features, target, sample.groups, seed=settings.seed)._asdict().items()
            }
        told.append(one)
    with atomic_write(task.folder / MAP) as file:
        pd.concat(rows).to_csv(file, index=False, lineterminator="\n", float_format="%.6g")
    return {"perplexity": perplexity, "init": "random", "classes": classes, "networks": told}


def _correlation(maps: NDArray[np.float64], target: NDArray[np.int64]) -> dict[str, Any]:
    return {name: value.tolist() for name, value in target_correlation(maps, target)._asdict().items()}


def _table(model: str, what: str, which: str, places: NDArray[np.float64], sample: Sample) -> pd.DataFrame:
    labels = sample.labels or ("",) * len(sample.names)
    columns = {"model": model, "of": what, "map": which, "image_id": sample.names, "label": labels}
    return pd.DataFrame({**columns, "x": places[:, 0], "y": places[:, 1]})


def _attention(task: _Task) -> dict[str, Any]:
    """Where each network looks, and how far the two of a pair agree."""
    settings, sample = task.settings, task.sample
    lengths: dict[str, torch.Tensor] = {}
    shown: dict[str, torch.Tensor] = {}
    about = []
    images = sample.images.to(task.device)
    at: dict[str, Any] = {"layer": settings.attention_layer, "batch_size": settings.batch_size}
    for model in progress_bar(task.models, desc="attention", unit=" networks"):
        lengths[model.name] = shown[model.name] = feature_norm_map(model.network, images, **at)
        if model.classes:
            classes = sample.classes(model.classes) if settings.attention_class == "true" else None
            shown[model.name] = grad_cam(model.network, images, classes=classes, **at)
        constant = int((shown[model.name].amax((1, 2)) == 0).sum())
        kind = f"Grad-CAM of the {settings.attention_class} class" if model.classes else LENGTHS
        layer = settings.attention_layer or default_layer(model.network)
        about.append({"model": model.name, "kind": kind, "layer": layer, "constant": constant})
    pictures = _to_show(sample, settings.overlays)
    write_overlays(task.folder / OVERLAYS, sample.images, shown, pictures)
    labels = sample.labels or ("",) * len(sample.names)
    overlaid = [{"image_id": sample.names[place], "label": labels[place]} for place in pictures]
    mixed = [bool(first.classes) != bool(second.classes) for first, second in task.pairs]
    told, by_picture = [], []
    for first, second in task.pairs:
        agreement = _agreement(shown[first.name], shown[second.name], settings, sample)
        entry: dict[str, Any] = {"first": first.name, "second": second.name, **agreement.told}
        if any(mixed) and (first.classes or second.classes):  # compare like with like as well
            agreement = _agreement(lengths[first.name], lengths[second.name], settings, sample)
            entry["lengths"] = agreement.told
        told.append(entry)
        by_picture.append(agreement.iou)
    differences = [
        {
            "pair": [model.name for model in pair],
            "less": [model.name for model in task.pairs[0]],
            "of": LENGTHS if any(mixed) else "the maps",
            "iou": difference_by_groups(by_picture[number], by_picture[0], sample.groups, bounds=(-1, 1))._asdict(),
        }
        for number, pair in enumerate(task.named, start=1)
    ]
    return {"networks": about, "overlays": overlaid, "pairs": told, "differences": differences}


class _Agreement(NamedTuple):
    told: dict[str, Any]
    iou: NDArray[np.float64]  # (N,), at the chosen share


def _agreement(first: torch.Tensor, second: torch.Tensor, settings: AnalysisSettings, sample: Sample) -> _Agreement:
    """Measures of two maps of each picture, and the IoU of maps of different pictures, which agree by chance."""
    one, other = first.numpy(), second.numpy()
    shares = sorted({*SHARES, settings.share})
    found = overlap(one, other, shares=shares)
    strangers = np.roll(np.arange(len(one)), 1)
    chance = iou(one, other[strangers], share=settings.share)
    groups = np.array(sample.groups)
    chance[groups == groups[strangers]] = np.nan  # a picture of the same patient is no stranger

    def mean(values: NDArray[np.float64], least: float = 0.0) -> dict[str, Any]:
        return mean_by_groups(values, sample.groups, bounds=(least, 1.0))._asdict()

    at = shares.index(settings.share)
    told = {
        "share": settings.share,
        "iou": mean(found.iou[at]),
        "chance": mean(chance),
        "intersection": mean(found.intersection),
        "spearman": mean(found.spearman, -1.0),
        "curve": [{"share": share, **mean(values)} for share, values in zip(shares, found.iou, strict=True)],
    }
    return _Agreement(told, found.iou[at])


def _to_show(sample: Sample, count: int) -> list[int]:
    """Pictures whose overlays are drawn: of each class in turn."""
    labels = sample.labels or ("",) * len(sample.names)
    seen = Counter[str]()
    rounds = []
    for label in labels:
        rounds.append(seen[label])
        seen[label] += 1
    return [int(place) for place in np.argsort(rounds, kind="stable")[:count]]


def _encoder(task: _Task) -> list[dict[str, Any]]:
    """Measures without labels of each encoder, at each checkpoint where a run's folder was given."""
    sample, settings = task.sample, task.settings
    view = View(size=sample.images.shape[-1], scale=(0.2, 1.0), flip_horizontal=0.5)
    pixels = (sample.images * 255).round().to(torch.uint8)
    sizes = torch.tensor([pixels.shape[2:]] * len(pixels))
    (other,) = Views([view], mean=[0.0], std=[1.0], seed=settings.seed)(pixels, sizes, step=0)
    rows = []
    for model in task.models:
        count = 1 + len(model.checkpoints)
        states = progress_bar(checkpoints_of(model), total=count, desc=f"encoder {model.name}", unit=" checkpoints")
        for state in states:
            seen = (state.features(each, batch_size=settings.batch_size) for each in (sample.images, other))
            features = (state.name, *seen)
            (measured,) = measures_of([features], sample.hashes, sample.volumes)
            nearest, possible = measured.near_copies
            row = {"model": model.name, "checkpoint": "end" if state is model else state.name}
            row |= {name: state.origin.get(name) for name in ("epoch", "iteration")}
            row |= {"rank_me": measured.rank_me, "alignment": measured.alignment, "uniformity": measured.uniformity}
            known = sample.unit != "picture"  # else nobody knows which pictures are of one volume
            rows.append({**row, "near_copies": nearest if known else None, "possible": possible if known else None})
    return rows


_WORK: Mapping[str, Callable[[_Task], Any]] = {
    "cka": _similarity,
    "map": _map,
    "attention": _attention,
    "encoder": _encoder,
}
