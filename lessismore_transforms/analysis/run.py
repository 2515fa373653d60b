"""An analysis from its settings to its numbers: which pictures, which networks, and the chosen comparisons of them."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lessismore_transforms import __version__
from lessismore_transforms.analysis import cka
from lessismore_transforms.analysis.attention import (
    SHARES,
    default_layer,
    feature_norm_map,
    grad_cam,
    overlap,
)
from lessismore_transforms.analysis.embedding_map import (
    default_perplexity,
    pca_map,
    separation,
    target_correlation,
    tsne_maps,
)
from lessismore_transforms.analysis.encoder_measures import measures_of
from lessismore_transforms.analysis.group_intervals import difference_by_groups, mean_by_groups
from lessismore_transforms.analysis.models import Model, checkpoints_of, common, load_models
from lessismore_transforms.analysis.overlays import write_overlays
from lessismore_transforms.analysis.results import ANALYSIS, MAP, OVERLAYS, cka_file, difference_file
from lessismore_transforms.analysis.sample import Sample, read_sample
from lessismore_transforms.analysis.settings import AnalysisSettings
from lessismore_transforms.atomic import atomic_write, finite, write_json, writing
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import names, plain_values
from lessismore_transforms.pretraining.views import View, Views
from lessismore_transforms.training.precision import pick_device
from lessismore_transforms.wording import listed

_LOGGER = logging.getLogger("lessismore_transforms")
Pair = tuple[Model, Model]


def analyse(settings: AnalysisSettings) -> Path:
    """Compare networks as the settings say, and write numbers, maps and overlays; returns the folder.

    Raises:
        UserError: models, pictures or settings do not fit each other.
        OutputError: the folder cannot be written.
    """
    folder = Path(settings.output_dir)
    device = pick_device(settings.device)
    models = load_models(
        settings.models,
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
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    task = _Task(settings, models, pairs, sample, folder, torch.device(device))
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
    for name in settings.analyses:
        found[name] = _WORK[name](task)
    write_json(folder / ANALYSIS, finite(found))
    return folder


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


def _pairs(models: Sequence[Model], pairs: Sequence[Sequence[str]] | None) -> list[Pair]:
    """The pairs that are named; else each model with each later one."""
    if pairs is None:
        return list(itertools.combinations(models, 2))
    by_name = {model.name: model for model in models}
    found = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2 or not {*pair} <= by_name.keys():
            raise UserError(
                f"expected pairs of names out of {listed(by_name) if len(by_name) > 1 else next(iter(by_name))}, found "
                f"{pair!r}: give a list such as [['{models[0].name}', '{models[-1].name}']]"
            )
        found.append((by_name[pair[0]], by_name[pair[1]]))
    return found


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
    """CKA of the layers of each pair, and of each further pair less the first."""
    settings, sample = task.settings, task.sample
    found: list[cka.CKA] = []
    told: list[dict[str, Any]] = []
    for number, (first, second) in enumerate(task.pairs):
        batches = list(torch.split(sample.images, settings.batch_size))
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
        found.append(compared)
        told.append({"first": first.name, "second": second.name, "file": cka_file(number)} | _diagonal(compared))
    differences = []
    for number, (pair, compared) in enumerate(zip(task.named, found[1:], strict=False), start=1):
        if (compared.rows, compared.columns) != (found[0].rows, found[0].columns):
            continue
        difference = cka.difference(compared, found[0])
        file = difference_file(number)
        with atomic_write(task.folder / file, "wb") as out:
            np.save(out, np.stack([difference.difference, difference.low, difference.high]))
        which = {"pair": [model.name for model in pair], "less": [model.name for model in task.pairs[0]]}
        differences.append({**which, "file": file} | _diagonal(compared, less=found[0]))
    return {"pairs": told, "differences": differences}


def _diagonal(compared: cka.CKA, *, less: cka.CKA | None = None) -> dict[str, Any]:
    mean = cka.diagonal_mean(compared, less=less)
    return {"diagonal": None if mean is None else mean._asdict()}


def _map(task: _Task) -> dict[str, Any]:
    """Maps of features and outputs, their correlation with the labels, and what tells classes apart without a map."""
    sample, settings = task.sample, task.settings
    perplexity = default_perplexity(len(sample.names)) if settings.perplexity is None else settings.perplexity
    classes = sorted(set(sample.labels))
    if sample.labels and len(classes) < 2:
        raise UserError(
            f"expected pictures of two classes or more to correlate a map with, found {classes[0]!r} only: add others, "
            "or leave out --labels"
        )
    target = np.array([classes.index(label) for label in sample.labels])
    kinds = [(model, outputs) for model in task.models for outputs in ((False, True) if model.classes else (False,))]
    rows, told = [], []
    for model, outputs in tqdm(kinds, desc="map", unit=" networks", disable=None):
        features = model.features(sample.images, outputs=outputs).numpy()
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
    wanted = {model.name for pair in task.pairs for model in pair} or {model.name for model in task.models}
    norms: dict[str, torch.Tensor] = {}
    shown: dict[str, torch.Tensor] = {}
    about = []
    chosen = [model for model in task.models if model.name in wanted]
    for model in tqdm(chosen, desc="attention", unit=" networks", disable=None):
        layer = settings.attention_layer or default_layer(model.network)
        images = sample.images.to(task.device)
        norms[model.name] = shown[model.name] = feature_norm_map(model.network, images, layer=layer)
        if model.classes:
            classes = sample.classes(model.classes) if settings.attention_class == "true" else None
            shown[model.name] = grad_cam(model.network, images, layer=layer, classes=classes)
        constant = int((shown[model.name].amax((1, 2)) == 0).sum())
        kind = f"Grad-CAM of the {settings.attention_class} class" if model.classes else "length of features"
        about.append({"model": model.name, "kind": kind, "layer": layer, "constant": constant})
    pictures = _to_show(sample, settings.overlays)
    write_overlays(task.folder / OVERLAYS, sample.images, shown, pictures)
    labels = sample.labels or ("",) * len(sample.names)
    overlaid = [{"image_id": sample.names[place], "label": labels[place]} for place in pictures]
    told = []
    by_picture = []
    for first, second in task.pairs:
        one, other = shown[first.name], shown[second.name]
        agreement = _agreement(one, other, settings, sample)
        entry: dict[str, Any] = {"first": first.name, "second": second.name, **agreement.told}
        if bool(first.classes) != bool(second.classes):  # Grad-CAM against lengths: compare like with like as well
            entry["lengths"] = _agreement(norms[first.name], norms[second.name], settings, sample).told
        told.append(entry)
        by_picture.append(agreement.iou)
    differences = [
        {
            "pair": [model.name for model in pair],
            "less": [model.name for model in task.pairs[0]],
            "iou": difference_by_groups(values, by_picture[0], sample.groups)._asdict(),
        }
        for pair, values in zip(task.named, by_picture[1:], strict=False)
    ]
    return {"networks": about, "overlays": overlaid, "pairs": told, "differences": differences}


class _Agreement(NamedTuple):
    told: dict[str, Any]
    iou: NDArray[np.float64]  # (N,), at the chosen share


def _agreement(first: torch.Tensor, second: torch.Tensor, settings: AnalysisSettings, sample: Sample) -> _Agreement:
    """Measures of two maps of each picture, and of maps of different pictures, which agree by chance."""
    one, other = first.numpy(), second.numpy()
    shares = sorted({*SHARES, settings.share})
    found = overlap(one, other, shares=shares)
    chance = overlap(one, np.roll(other, 1, axis=0), shares=[settings.share])

    def mean(values: NDArray[np.float64]) -> dict[str, Any]:
        return mean_by_groups(values, sample.groups)._asdict()

    at = shares.index(settings.share)
    told = {
        "share": settings.share,
        "iou": mean(found.iou[at]),
        "chance": mean(chance.iou[0]),
        "intersection": mean(found.intersection),
        "spearman": mean(found.spearman),
        "constant": found.constant,
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
        states = tqdm(
            checkpoints_of(model), total=count, desc=f"encoder {model.name}", unit=" checkpoints", disable=None
        )
        for state in states:
            features = state.name, state.features(sample.images), state.features(other)
            (measured,) = measures_of([features], sample.hashes, sample.volumes)
            nearest, possible = measured.near_copies
            row = {"model": model.name, "checkpoint": "end" if state is model else state.name}
            row |= {name: state.origin.get(name) for name in ("epoch", "iteration")}
            row |= {"rank_me": measured.rank_me, "alignment": measured.alignment, "uniformity": measured.uniformity}
            rows.append({**row, "near_copies": nearest, "possible": possible})
    return rows


_WORK: Mapping[str, Callable[[_Task], Any]] = {
    "cka": _similarity,
    "map": _map,
    "attention": _attention,
    "encoder": _encoder,
}
