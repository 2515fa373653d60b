"""Leaks: patients, sources and pictures that are in two splits of a data set, or in a split and in a pre-training set.

Patients and sources are those of the listing. Equal pictures have equal grey values. Nearly equal ones are found by
`reduction.near_duplicates` in any of eight positions, from a correlation of 0.7 on. The table shows its pairs in
different splits. Pairs of pictures of native size were inspected; the statements on smaller ones are inferred:

====================================  ===============  ===========================================================
pictures                              pairs            what they show
====================================  ===============  ===========================================================
COVID-CT, 746, official lists         2 (0.85, 0.89)   copies, as COVID in test and as NonCOVID in train
COVID-CT at 64 or 48 pixels           2, 3             the same copies, and one of those missed above (see below)
COVID-CT at 32 or 28 pixels           65, 109          mostly pairs of patients
head CT, 200, all pairs               17 (0.70 to 1)   15 copies, 2 pairs that look like one patient
PneumoniaMNIST, 3,166 of 28 pixels    37,268           4 pairs of equal pictures, else pairs of patients
====================================  ===============  ===========================================================

The bound is 0.7 because pairs from 0.6 to 0.7 show different patients as often as the same one. Pictures below 48
pixels are compared for equality only, because thumbnails of small pictures all look alike. Copies of the 203 test
pictures of COVID-CT were all found if they were mirrored, turned, shrunk to a half or a third, compressed, brightened
or had another gamma or window, and 98 % of them if 5 % of height and width were cut off. Of CT slices by min-max, all
copies in a lung or a soft tissue window were found. Copies that were cropped otherwise are missed: of the three sources
that cross the splits of COVID-CT, one has six slices in val and in test, and the other two have one patient in both. So
sources count as much as pictures.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.classification.examples import SPLITS, Examples, digest
from lessismore_transforms.errors import UserError
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.patients import hash_patient, key_fingerprint, load_key
from lessismore_transforms.reduced.picture_set import PICTURES, UNKNOWN, PictureSet, is_reduction
from lessismore_transforms.reduced.table_files import parse_slice_id
from lessismore_transforms.reduction.near_duplicates import near_duplicates
from lessismore_transforms.training.processes import process_rank
from lessismore_transforms.wording import counted, plural

if TYPE_CHECKING:
    import pandas as pd

LEAKAGE = "leakage.csv"
POLICIES = ("warn", "fail", "ignore")
PRETRAINING = "pretraining"  # stands in the table where a split would
COLUMNS = (
    "kind", "split_a", "image_a", "split_b", "image_b", "label_a", "label_b",
    "bits", "correlation", "transform", "shared",
)  # fmt: skip
CORRELATION, RADIUS = 0.7, 16  # bits of 64
LEAST_SIDE = 48  # pixels

_SAMPLED_FROM, _SAMPLE = 2**20, 256  # pairs from which on a sample of each side decides whether a search is of use
_ALIKE = 0.01  # share of nearly equal pairs among them: phantoms 5 %, radiographs of 28 pixels 1.3 %, COVID-CT 0.001 %
_NAME = 16  # hex digits of a checksum that name a picture of pre-training
_SENTENCES = {  # by the kind of a leak: what was looked at, and what is wrong with some of them
    "patients": ("patient", "{are} in more than one split"),
    "sources": ("source", "{are} in more than one split"),
    "exact": ("picture", "{are} in more than one split, equal in all pixels"),
    "two_labels": ("picture", "{are} there under two labels, equal in all pixels, so one label is wrong"),
    "near": ("pair", "of pictures of different splits {are} nearly equal"),
    "pretraining_patients": ("patient", "{are} in the pre-training set"),
    "pretraining_exact": ("picture", "{are} in the pre-training set, equal in all pixels"),
    "pretraining_near": ("pair", "of a pre-training slice and a picture {are} nearly equal"),
}

_LOGGER = logging.getLogger("lessismore_transforms")

Picture = NDArray[np.uint8]
Named = tuple[str, Picture]


@dataclass(frozen=True, eq=False)
class Leakage:
    """The leaks that were found.

    Args:
        policy: one of `POLICIES`.
        table: a row per pair, columns `COLUMNS`. Its `kind` is patient, source, exact or near. For the first three the
            first picture of each place stands for all that share the value in the column `shared`; for near each pair
            has a row. Labels are the names of classes; what is of pre-training has none, and a picture of it is named
            by digits of the SHA-256 of its file.
        counts: patients, sources, pictures and pairs found, and `too_small`, the pictures that took no part in the
            search for near-duplicates; None where that is not known or was not looked for.
        sentences: sentences, with numbers, on what was found and what could not be checked.
    """

    policy: str
    table: pd.DataFrame
    counts: dict[str, int | None]
    sentences: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Plain values: the policy, whether anything was looked for, the counts."""
        return {"policy": self.policy, "checked": self.policy != "ignore", **self.counts}


def check_leakage(
    examples: Examples,
    *,
    policy: str = "warn",
    pretraining: str | Path | Sequence[str | Path] | None = None,
    selection: str = "default",
    folder: str | Path | None = None,
) -> Leakage:
    """Look for patients, sources and pictures that are in two splits, or in one and in the pre-training set.

    A picture with two labels counts too, also inside one split. Pictures that are in the pre-training set and in the
    training split are reported but are no failure: pre-training saw no labels, and the training split is not scored.

    Args:
        examples: pictures with their splits, or the names of folds that are judged in turn; patients as
            `patients.hash_patient` writes them with the default key.
        policy: `warn` logs the leaks, `fail` stops at leaks, `ignore` checks nothing.
        pretraining: what the encoder was pre-trained on, one or several: output folders of `reduce`; runs on folders of
            pictures, which hold pictures.csv; or such folders themselves, as FOLDER or FOLDER:SPLIT, see
            `picture_list.list_split`.
        selection: name of the selection of output folders.
        folder: folder for leakage.csv, which has no rows where nothing was found; with `ignore` none is written.

    Raises:
        UserError: the policy is unknown, or there are leaks under the policy `fail`.
        ManifestError: an output folder holds no manifest, is damaged or has no such selection, or a run's pictures are
            no longer there as they were.
        OutputError: the table cannot be written.
    """
    if policy not in POLICIES:
        raise UserError(f"expected leakage to be one of {', '.join(POLICIES)}, found {policy!r}: name one of these")
    if policy == "ignore":
        return Leakage(policy, _table([]), {}, ())
    here = _Here.of(examples)
    found = _between_splits(here)
    if pretraining:
        sources = [pretraining] if isinstance(pretraining, (str, Path)) else list(pretraining)
        found += _with_pretraining(here, _opened(sources), selection)
    pairs = list(dict.fromkeys(pair for finding in found for pair in finding.pairs or ()))
    counts = {finding.name: finding.count for finding in found} | {"too_small": len(here.items) - len(here.pictures)}
    sentences = tuple(sentence for finding in found for sentence in finding.sentences())
    result = Leakage(policy, _table(pairs), counts, sentences)
    _report(result, None if folder is None else Path(folder) / LEAKAGE)
    return result


def _report(found: Leakage, path: Path | None) -> None:
    """Write and log the leaks in the first process; under the policy `fail` raise in all processes."""
    table = found.table
    if process_rank() == 0:
        if path is not None:
            with writing(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                table.to_csv(file, index=False, lineterminator="\n")
        for sentence in found.sentences:
            _LOGGER.warning("%s", sentence)
    leaks = Counter(table["kind"][(table["split_a"] != PRETRAINING) | (table["split_b"] != "train")])
    if found.policy == "fail" and leaks:
        kinds = ", ".join(f"{kind} {count}" for kind, count in leaks.items())
        where = "" if path is None else f", listed in {path}"
        raise UserError(
            f"expected nothing in two places, found pairs ({kinds}){where}: fix the lists or go on with --leakage warn"
        )


@dataclass(frozen=True)
class _Item:
    """A picture with what others may share with it: patient, source, digest of its pixels; each empty where unknown."""

    place: str  # a split or PRETRAINING
    image: str
    label: str = ""
    patient: str = ""
    source: str = ""
    exact: str = ""

    def __str__(self) -> str:
        return f"{self.image} ({self.place}{self.label and ', '}{self.label})"


@dataclass(frozen=True)
class _Pair:
    """Two pictures that share a property or show nearly the same; `a` is of the earlier place."""

    kind: str
    a: _Item
    b: _Item
    shared: str = ""
    bits: int | None = None
    correlation: float | None = None
    transform: str = ""


@dataclass(frozen=True)
class _Finding:
    """The result of one search.

    Args:
        name: one of `_SENTENCES`.
        pairs: the pairs found; None where nothing was searched.
        known: number of patients, sources, pictures or pairs that were searched.
        note: a sentence on what could not be searched.
    """

    name: str
    pairs: Sequence[_Pair] | None
    known: int = 0
    note: str = ""

    @property
    def count(self) -> int | None:
        """The number of leaks; a property that several pairs share counts once."""
        return None if self.pairs is None else len({pair.shared or pair for pair in self.pairs})

    def sentences(self) -> Iterator[str]:
        """The note, then the sentence on the leaks."""
        if self.note:
            yield self.note
        if self.pairs:
            noun, wrong = _SENTENCES[self.name]
            sentence = f"of {counted(self.known, noun)} {wrong.format(are=plural(self.count or 0, 'is', 'are'))}"
            counts = Counter(f"{pair.a.place}-{pair.b.place}" for pair in self.pairs)
            first = self.pairs[0]
            two = sum(pair.a.label != pair.b.label for pair in self.pairs)
            labels = f"; {two} with two labels" if two and self.name == "near" else ""
            places = ", ".join(f"{place} {count:,}" for place, count in counts.items())
            name = f"{first.shared}: " if first.kind in ("patient", "source") else ""
            yield f"{self.count:,} {sentence} ({places}{labels}), first {name}{first.a} and {first.b}"


@dataclass(frozen=True, eq=False)
class _Here:
    """The examples, in the order of the splits.

    Args:
        items: the examples by name.
        pictures: names and grey values, uint8 (H, W), of those large enough for the search for near-duplicates.
        shapes: shapes of all pictures.
        places: the splits that there are, in their order.
    """

    items: dict[str, _Item]
    pictures: list[Named]
    shapes: set[tuple[int, ...]]
    places: list[str]

    @classmethod
    def of(cls, examples: Examples) -> _Here:
        """Collect the properties and the grey values of each example."""
        places = tuple(dict.fromkeys([*SPLITS, *sorted({example.split for example in examples.examples})]))
        order = sorted(range(len(examples.images)), key=lambda number: places.index(examples.examples[number].split))
        named = [(examples.examples[number], _grey(examples.images[number])) for number in order]
        items = {
            each.image_id: _Item(
                each.split, each.image_id, examples.classes[each.label], each.patient, each.source, digest(grey)
            )
            for each, grey in named
        }
        pictures = [(each.image_id, grey) for each, grey in named if min(grey.shape) >= LEAST_SIDE]
        there = {item.place for item in items.values()}
        return cls(items, pictures, {grey.shape for _, grey in named}, [place for place in places if place in there])

    def known(self, kind: str) -> int:
        """The number of different patients or sources."""
        return len({getattr(item, kind) for item in self.items.values()} - {""})


def _between_splits(here: _Here) -> list[_Finding]:
    """Leaks between two splits, and equal pictures with two labels."""
    items, count = list(here.items.values()), len(here.items)
    equal = _sharing("exact", items)
    found = [
        _Finding(f"{kind}s", _sharing(kind, items) if here.known(kind) else None, here.known(kind))
        for kind in ("patient", "source")
    ]
    found += [
        _Finding("exact", [pair for pair in equal if pair.a.place != pair.b.place], count),
        _Finding("two_labels", [pair for pair in equal if pair.a.label != pair.b.label], count),
    ]
    return [*found, _near_between_splits(here)]


def _near_between_splits(here: _Here) -> _Finding:
    note = _too_small(len(here.items) - len(here.pictures), len(here.items), "pictures")
    first, second = (
        [named for named in here.pictures if here.items[named[0]].place != place]
        for place in (here.places[-1], here.places[0])
    )
    sizes = Counter(here.items[name].place for name, _ in here.pictures)
    known = sum(sizes[one] * sizes[other] for one, other in combinations(here.places, 2))
    if not known:
        return _Finding("near", None, note=note)
    if alike := _alike(first, second, here.items.__getitem__, here, "pictures of different splits"):
        return _Finding("near", None, note="; ".join(filter(None, (note, alike))))
    pairs = _near(first, second, here.items.__getitem__, here)
    ordered = [pair for pair in pairs if here.places.index(pair.a.place) < here.places.index(pair.b.place)]
    return _Finding("near", ordered, known, note)


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Pictures of pre-training.

    Args:
        given: what named them.
        pictures: with their paths, which may tell patients and stay in pictures.csv of a run.
        names: in place of the paths: digits of the checksums of the files, and of further copies of a file a number.
    """

    given: str | Path
    pictures: PictureSet
    names: list[str]


def _opened(sources: Sequence[str | Path]) -> list[Path | _Pictures]:
    """Output folders of `reduce`, and pictures, with names that are unique among all of them."""
    times: Counter[str] = Counter()

    def named(checksum: str) -> str:
        name = checksum[:_NAME]
        times[name] += 1
        return name if times[name] == 1 else f"{name}-{times[name]}"

    opened: list[Path | _Pictures] = []
    for source in sources:
        found = _open(source)
        if isinstance(found, PictureSet):
            opened.append(_Pictures(source, found, [named(checksum) for checksum in found.checksums]))
        else:
            opened.append(found)
    return opened


def _open(source: str | Path) -> Path | PictureSet:
    """An output folder of `reduce`, or the pictures of a run, or of a folder and perhaps a split behind a colon."""
    folder, text = Path(source), str(source)
    if (folder / PICTURES).is_file() and (folder / "config.json").is_file():
        return PictureSet.of_run(folder)
    if folder.is_dir():
        return folder if is_reduction(folder) else PictureSet(folder, channels=1)
    for place, letter in enumerate(text):
        if letter == ":" and text[place + 1 :] and Path(text[:place] or ":").is_dir():
            return PictureSet(text[:place], text[place + 1 :], channels=1)
    return folder


def _with_pretraining(here: _Here, sources: Sequence[Path | _Pictures], selection: str) -> list[_Finding]:
    """Leaks between slices of pre-training and the splits."""
    slices = _Slices(sources, selection, here.shapes)
    alike = _alike(slices, here.pictures, slices.item, here, "pre-training slices and pictures")
    walk = iter(slices)
    pairs = None if alike or not here.pictures else _near(walk, here.pictures, slices.item, here)
    deque(walk, maxlen=0)  # to the end: equal pictures are looked for even where nearly equal ones are not
    note = "; ".join(filter(None, (_too_small(slices.small, len(slices), "pre-training slices"), alike)))
    large = len(slices) - slices.small
    equal = _sharing("exact", [*slices.items.values(), *here.items.values()])
    return [
        _pretraining_patients(here, sources, selection),
        _Finding("pretraining_exact", _with_slices(equal), len(here.items)),
        _Finding("pretraining_near", pairs if large else None, large * len(here.pictures), note),
    ]


def _pretraining_patients(here: _Here, sources: Sequence[Path | _Pictures], selection: str) -> _Finding:
    """Patients in pre-training and in the splits, where both are hashed with the same key or can be."""
    name, known = "pretraining_patients", here.known("patient")
    if not known:
        return _Finding(name, None)
    key = load_key()
    ours = f"hashed with key {key_fingerprint(key)}"
    items = []
    for output in sources:
        if isinstance(output, _Pictures):
            pictures = output.pictures
            if pictures.patients_are not in (ours, UNKNOWN) or "" in pictures.patients:
                theirs = "not all known" if "" in pictures.patients else pictures.patients_are
                note = (
                    f"the patients of the pictures of {output.given} are {theirs}, those of this data set {ours}: "
                    "whether they share any is not known"
                )
                return _Finding(name, None, note=note)
            names = zip(output.names, pictures.patients, strict=True)
            items += [_Item(PRETRAINING, image, patient=patient) for image, patient in names]
            continue
        manifest = Manifest.read(output)
        theirs = manifest.settings["patients"]
        if theirs not in (ours, "as found"):
            note = (
                f"the patients of {output} are {theirs}, those of this data set {ours}: whether they share any is not "
                "known unless it is reduced again without --patient_key"
            )
            return _Finding(name, None, note=note)
        patients = {record["volume"]: record["patient"] for record in manifest.volumes}
        for slice_id in manifest.read_selection(selection).kept_ids:
            patient = patients[parse_slice_id(slice_id)[0]]
            patient = patient if theirs == ours else hash_patient(patient, key)
            items.append(_Item(PRETRAINING, slice_id, patient=patient))
    return _Finding(name, _with_slices(_sharing("patient", [*items, *here.items.values()])), known)


class _Slices:
    """The slices and pictures of pre-training with their names, in grey.

    Iterating yields the large ones, and keeps the digests of those with the shape of an example in `items`.

    Args:
        sources: output folders of `reduce`, and pictures.
        selection: name of the selection.
        shapes: shapes of the examples.
    """

    def __init__(self, sources: Sequence[Path | _Pictures], selection: str, shapes: set[tuple[int, ...]]) -> None:
        outputs = [source for source in sources if isinstance(source, Path)]
        self.slices = SliceSelectionDataset(outputs, selection) if outputs else None
        self.names = [] if self.slices is None else self.slices.slice_ids
        self.pictures = [
            (name, source.pictures, index)
            for source in sources
            if isinstance(source, _Pictures)
            for index, name in enumerate(source.names)
        ]
        self.shapes = shapes
        self.items: dict[str, _Item] = {}
        self.small = 0

    def __len__(self) -> int:
        return len(self.names) + len(self.pictures)

    def __getitem__(self, index: int) -> Named:
        if self.slices is None or index >= len(self.names):
            name, source, number = self.pictures[index - len(self.names)]
            return name, source.picture(number)
        return self.names[index], self.slices.picture(index)

    def __iter__(self) -> Iterator[Named]:
        for index in progress_bar(range(len(self)), desc="leaks", unit=" slices"):
            name, picture = self[index]
            if picture.shape in self.shapes:
                self.items[name] = _Item(PRETRAINING, name, exact=digest(picture))
            if min(picture.shape) >= LEAST_SIDE:
                yield name, picture
            else:
                self.small += 1

    def item(self, name: str) -> _Item:
        """The properties of a slice."""
        return self.items.get(name) or _Item(PRETRAINING, name)


def _too_small(small: int, count: int, nouns: str) -> str:
    if not small:
        return ""
    verb = plural(small, "is", "are")
    return f"{small:,} of {count:,} {nouns} {verb} smaller than {LEAST_SIDE} pixels: compared for equality only"


def _sharing(kind: str, items: Iterable[_Item]) -> list[_Pair]:
    """Pairs of pictures that share a property, the first of each place; of equal pictures the first of each label."""
    groups: dict[str, dict[tuple[str, str], _Item]] = {}
    for item in items:
        if shared := getattr(item, kind):
            place = (item.place, item.label if kind == "exact" else "")
            groups.setdefault(shared, {}).setdefault(place, item)
    return [_Pair(kind, a, b, shared) for shared, group in groups.items() for a, b in combinations(group.values(), 2)]


def _with_slices(pairs: Iterable[_Pair]) -> list[_Pair]:
    return [pair for pair in pairs if pair.a.place == PRETRAINING]


def _near(first: Iterable[Named], second: Sequence[Named], item_of: Callable[[str], _Item], here: _Here) -> list[_Pair]:
    """Pairs of different places that show nearly the same, the most similar first, without equal pictures."""
    table = near_duplicates(first, second, radius=RADIUS, correlation=CORRELATION)
    pairs = [
        _Pair("near", item_of(a), here.items[b], "", int(bits), round(float(correlation), 4), transform)
        for a, b, bits, correlation, transform in table.itertuples(index=False)
    ]
    apart = [pair for pair in pairs if pair.a.place != pair.b.place and pair.a.exact != pair.b.exact]
    return sorted(apart, key=lambda pair: -(pair.correlation or 0))


def _alike(first: Any, second: Sequence[Named], item_of: Callable[[str], _Item], here: _Here, nouns: str) -> str:
    """A sentence if so many pairs of a sample are nearly equal that this is no sign of copies; "" for small sets."""
    if len(first) * len(second) < _SAMPLED_FROM:
        return ""
    one, other = (_spread(side) for side in (first, second))
    share = len(_near(one, other, item_of, here)) / (len(one) * len(other))
    if share <= _ALIKE:
        return ""
    return (
        f"{share:.0%} of a sample of pairs of {nouns} are nearly equal, so that copies cannot be recognised by it: "
        "near-duplicates were not looked for"
    )


def _spread(side: Any) -> list[Named]:
    return [side[int(index)] for index in np.linspace(0, len(side) - 1, min(len(side), _SAMPLE))]


def _grey(image: Picture) -> Picture:
    return image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L"))


def _table(pairs: Sequence[_Pair]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (pair.kind, pair.a.place, pair.a.image, pair.b.place, pair.b.image, pair.a.label, pair.b.label,
         pair.bits, pair.correlation, pair.transform, pair.shared)
        for pair in pairs
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"bits": "Int64", "correlation": float})
