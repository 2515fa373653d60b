"""How a labelled set is divided: by its official split or in folds made here; and what stays together in both.

The unit that is never divided is the patient, else the source (paper, case, slide), else the picture. Where neither is
known, pictures that are nearly equal can be made one source.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from lessismore_transforms.classification.examples import SPLITS, Example, Listing, digest, read_pictures
from lessismore_transforms.classification.leakage import LEAST_SIDE
from lessismore_transforms.classification.splits import cut_validation, split_fold
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number
from lessismore_transforms.reduction.near_duplicates import near_duplicates
from lessismore_transforms.volumes.pictures import with_channels
from lessismore_transforms.wording import counted

PROTOCOLS = ("auto", "official", "folds")
CORRELATION = 0.65
_LARGE = 0.2  # of the pictures: a fold of five

_LOGGER = logging.getLogger("lessismore_transforms")


def divided(
    listing: Listing,
    *,
    protocol: str = "auto",
    fold: int = 0,
    folds: int = 5,
    repeat: int = 0,
    validation: float = 0.1,
    seed: int = 0,
    grouped: bool = True,
) -> Listing:
    """A listing in the splits of a protocol.

    Args:
        listing: whose pictures have all an official split or none.
        protocol: `official`; `folds`; or `auto`, official where train and test are told, else folds.
        fold: number of the fold that is test, from 0; of an official split there is none but 0.
        folds: number of folds.
        repeat: which partition into folds `seed` makes, from 0; of an official split there is none but 0.
        validation: the share of val in the pictures that are not test, where val is cut out here.
        seed: of folds and val.
        grouped: whether units stay together; else pictures are dealt one by one.

    Raises:
        UserError: the protocol is unknown, or does not fit the pictures, see `with_official` and `with_folds`.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"expected a protocol out of {', '.join(PROTOCOLS)}, found {protocol!r}; auto is usual")
    told = {example.split for example in listing.examples}
    if protocol == "folds" or (protocol == "auto" and not told >= {"train", "test"}):
        return with_folds(listing, fold=fold, folds=folds, validation=validation, seed=seed, grouped=grouped)
    found = with_official(listing, validation=validation, seed=seed, grouped=grouped)
    for name, given in (("fold", fold), ("repeat", repeat)):
        if given:
            raise UserError(
                f"expected no {name} for the official split of {listing.task}, found {given}: leave it out, or give "
                "--protocol folds"
            )
    return found


def with_folds(
    listing: Listing,
    *,
    fold: int = 0,
    folds: int = 5,
    validation: float = 0.1,
    seed: int = 0,
    grouped: bool = True,
) -> Listing:
    """One fold as test, the rest as train and val, stratified, with no unit in two splits; official splits go.

    Wolf et al. 2024, Section 2.3: five folds, the rest 90/10.

    Args:
        listing: pictures with or without splits.
        fold: number of the fold that is test, from 0.
        folds: number of folds.
        validation: the share of val in the pictures that are not test.
        seed: of folds and val; the test sets of all folds of one seed partition the data.
        grouped: whether units stay together; else pictures are dealt one by one.

    Raises:
        UserError: a number is out of its range, or a class has too few units for so many folds.
    """
    names, groups = _names(listing, listing.examples), _groups(listing.examples, grouped=grouped)
    splits = split_fold(names, groups, fold=fold, folds=folds, validation=validation, seed=seed)
    found = replace(_in_splits(listing, splits), official=False)
    _check_classes(found, f"fold {fold} of {folds}", ("train", "test"))
    return found


def with_official(listing: Listing, *, validation: float = 0.1, seed: int = 0, grouped: bool = True) -> Listing:
    """The official split; where it has no val, that is cut out of train, stratified, with no unit in both.

    A unit that the official split itself has in two splits stays there: `leakage` warns of it or stops.

    Args:
        listing: pictures with their official splits.
        validation: the share of val in train where it is cut out.
        seed: of the cut.
        grouped: whether units stay together in it; else pictures are dealt one by one.

    Raises:
        UserError: a picture has no split, train or test are empty, or a class has too few units to be cut.
    """
    told = Counter(example.split for example in listing.examples)
    lacking = [split for split in ("train", "test") if not told[split]]
    if told[""] or lacking:
        found = ", ".join(f"{split or 'without any'} {told[split]}" for split in (*SPLITS, "") if told[split])
        raise UserError(
            f"{listing.task}: expected an official split with train and test, found {found}: name them in a column "
            "split or by folders train and test, or give --protocol folds"
        )
    listing = replace(listing, official=True)
    if told["val"]:
        return listing
    train = [example for example in listing.examples if example.split == "train"]
    groups = _groups(train, grouped=grouped)
    parts = iter(cut_validation(_names(listing, train), groups, share=validation, seed=seed))
    whole = _in_splits(
        listing, [next(parts) if example.split == "train" else example.split for example in listing.examples]
    )
    _check_classes(whole, "training without validation", ("train",))
    return whole


def unit_of(example: Example) -> str:
    """What an example must not be separated from: its patient, else its source, else itself."""
    if example.patient:
        return f"patient {example.patient}"
    return f"source {example.source}" if example.source else f"picture {example.image_id}"


def grouped_by_near_duplicates(listing: Listing, *, correlation: float = CORRELATION, channels: int = 1) -> Listing:
    """Pictures that are nearly equal as one source, of those that have neither a patient nor a source.

    All pictures that are connected by pairs of nearly equal ones get the name of the first of them as their source; a
    picture with no such partner stays alone. A pair counts if it is found from both sides, as only one picture of a
    pair is shifted to fit. Pictures below 48 pixels are compared for equality only, as in `leakage`.

    The default is from IQ-OTH/NCCD: 1,097 pictures of 110 people, each of whom has one of three classes, so that pairs
    of one person have one class, which two pictures taken at random have in 42 % of the cases. Names are numbers, near
    each other for pictures of one person (printed by `pytest -s -m slow tests/classification/test_protocol.py`):

    ============  =====  =========  ===================  =============  =============
    correlation   pairs  one class  difference of names  groups         largest group
    ============  =====  =========  ===================  =============  =============
    0.70 or more  1810   100 %      2                    388            33
    0.65 to 0.70  851    99 %       5                    263            38
    0.60 to 0.65  1562   93 %       7                    136            187
    0.55 to 0.60  3151   74 %       64                   72             557
    ============  =====  =========  ===================  =============  =============

    (The difference is the median; groups are made of all pairs from there on, and single pictures count.) Down to 0.65
    pairs are of one person; below, wrong ones chain people of several classes to a group as large as a fold. Still, 263
    groups of 110 people: this makes a split leak less and does not replace knowing who is who.

    Args:
        listing: whose pictures are read for it.
        correlation: from which on a pair counts, see `near_duplicates`.
        channels: in which pictures can be read, 1 or 3; they are compared in grey.

    Raises:
        UserError: the correlation is out of range, or a picture cannot be read.
    """
    if not is_number(correlation, int, float) or not 0 < correlation <= 1:
        raise UserError(
            f"expected a correlation above 0 and at most 1 for near-duplicates, found {correlation!r}; "
            f"{CORRELATION} is usual"
        )
    alone = [example for example in listing.examples if not example.patient and not example.source]
    if not alone:
        return listing
    pictures = [with_channels(each, 1) for each in read_pictures(replace(listing, examples=tuple(alone)), channels)]
    named = [(example.image_id, picture) for example, picture in zip(alone, pictures, strict=True)]
    equal = defaultdict[str, list[str]](list)
    for name, picture in named:
        equal[digest(picture)].append(name)
    large = [(name, picture) for name, picture in named if min(picture.shape) >= LEAST_SIDE]
    pairs = near_duplicates(large, large, correlation=correlation)
    links = [(names[0], name) for names in equal.values() for name in names]
    found = set(zip(pairs["image_a"], pairs["image_b"], strict=True))
    links += sorted(pair for pair in found if pair[::-1] in found)
    first = _connected([name for name, _ in named], links)
    sizes = Counter(first.values())
    groups = [size for size in sizes.values() if size > 1]
    largest = max(groups, default=0)
    chained = largest > _LARGE * len(alone)
    _LOGGER.warning(
        "%s: patients are not known of %s; %s of near-duplicates (correlation %g or more) with %s of them, the largest "
        "with %d, stay together%s",
        listing.task,
        counted(len(alone), "picture"),
        counted(len(groups), "group"),
        correlation,
        f"{sum(groups):,}",
        largest,
        "; that is more than a fold: raise the correlation, or let each picture count as its own where different "
        "people look alike"
        if chained
        else "",
    )
    return replace(
        listing,
        examples=tuple(
            replace(example, source=first[example.image_id])
            if not example.patient and not example.source and sizes[first[example.image_id]] > 1
            else example
            for example in listing.examples
        ),
    )


def _connected(names: Sequence[str], links: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The first name of the component that each name is in."""
    parent = {name: name for name in names}
    place = {name: number for number, name in enumerate(names)}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for pair in links:
        low, high = sorted(map(root, pair), key=place.__getitem__)
        parent[high] = low
    return {name: root(name) for name in names}


def _groups(examples: Sequence[Example], *, grouped: bool) -> list[str]:
    return [unit_of(example) if grouped else example.image_id for example in examples]


def _names(listing: Listing, examples: Sequence[Example]) -> list[str]:
    return [listing.classes[example.label] for example in examples]


def _check_classes(listing: Listing, what: str, splits: Sequence[str]) -> None:
    """Refuse splits made here that lack a class, which units that hold several classes, or too few units, may cause."""
    for split in splits:
        there = {example.label for example in listing.examples if example.split == split}
        if lacking := [name for label, name in enumerate(listing.classes) if label not in there]:
            raise UserError(
                f"{listing.task}, {what}: expected pictures of all classes in {split}, found none of "
                f"{', '.join(lacking)}, as too few patients or sources have one: take fewer folds, another split_seed, "
                "or add pictures"
            )


def _in_splits(listing: Listing, splits: Sequence[str]) -> Listing:
    examples = (replace(example, split=split) for example, split in zip(listing.examples, splits, strict=True))
    return replace(listing, examples=tuple(examples))
