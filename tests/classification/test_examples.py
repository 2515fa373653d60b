"""Labelled pictures in memory: checks of the listing, identity, items."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from lessismore_transforms.classification.examples import Example, Examples, Listing, Split

EXAMPLES = tuple(Example(f"{split}/{i}", i % 2, split, f"p{i}") for split in ("train", "val", "test") for i in range(4))


def picture(example: Example, channels: int) -> np.ndarray:
    value = 10 * EXAMPLES.index(example) if example in EXAMPLES else 0
    shape = (3, 5) if channels == 1 else (3, 5, 3)
    return (value + np.arange(np.prod(shape))).astype(np.uint8).reshape(shape)


def made(examples=EXAMPLES, read=picture, classes=("no", "yes")) -> Listing:
    return Listing("Toy", classes, tuple(examples), read)


def test_pictures_stand_in_the_order_of_the_listing():
    examples = Examples.of(made())
    assert examples.examples == EXAMPLES
    assert (examples.task, examples.classes, examples.channels) == ("Toy", ("no", "yes"), 1)
    for example, image in zip(EXAMPLES, examples.images, strict=True):
        np.testing.assert_array_equal(image, picture(example, 1))


def test_items_of_a_split():
    examples = Examples.of(made())
    split = Split(examples, "val")
    item = split[1]
    assert (len(split), split.name, split.classes) == (4, "val", ("no", "yes"))
    np.testing.assert_array_equal(split.labels, [0, 1, 0, 1])
    assert split.labels.dtype == np.int64
    assert split.image_ids == ["val/0", "val/1", "val/2", "val/3"]
    assert split.patients == ["p0", "p1", "p2", "p3"]
    assert {key: item[key] for key in item if key != "image"} == {
        "label": 1, "image_id": "val/1", "patient": "p1", "index": 1,
    }  # fmt: skip
    assert item["image"].dtype == torch.uint8
    np.testing.assert_array_equal(item["image"].numpy(), picture(EXAMPLES[5], 1)[None])
    item["image"].zero_()  # a transform may write into its item, not into the data set
    assert split[1]["image"].any()


def test_colour_items_have_channels_first():
    split = Split(Examples.of(made(), channels=3), "train", lambda item: {**item, "seen": True})
    item = split[2]
    assert item["seen"]
    assert item["image"].is_contiguous()
    np.testing.assert_array_equal(item["image"].numpy(), picture(EXAMPLES[2], 3).transpose(2, 0, 1))


def test_workers_give_what_the_main_process_gives():
    split = Split(Examples.of(made()), "train")
    seen = [
        [
            (item["image_id"], item["image"].sum().item())
            for item in torch.utils.data.DataLoader(split, None, num_workers=n)
        ]
        for n in (0, 2)
    ]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 4


def test_a_pickled_split_carries_only_its_own_pictures():
    big = Examples.of(made(read=lambda example, channels: np.full((100, 100), len(example.split), np.uint8)))
    assert len(pickle.dumps(Split(big, "val"))) < 4 * 100 * 100 + 2000


def test_identity_tells_ids_labels_splits_pixels_and_order():
    examples = Examples.of(made())
    identity = examples.identity()
    assert len(identity) == 64
    assert Examples.of(made()).identity() == identity
    first, *rest = EXAMPLES
    others = [
        replace(examples, examples=(replace(first, image_id="x"), *rest)),
        replace(examples, examples=(replace(first, label=1), *rest)),
        replace(examples, examples=(replace(first, split="val"), *rest)),
        replace(examples, images=[examples.images[0] ^ 1, *examples.images[1:]]),
        replace(examples, images=[examples.images[0].T, *examples.images[1:]]),
        replace(examples, examples=EXAMPLES[::-1], images=examples.images[::-1]),
    ]
    assert len({identity, *(other.identity() for other in others)}) == 7


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda e: (*e, e[0]), "Toy: train/0 is twice in train"),
        (lambda e: (*e, replace(e[0], split="test")), "Toy: train/0 is in train and test"),
        (lambda e: (*e, Example("x", 2, "test")), "Toy: expected labels from 0 to 1 for 2 classes, found 2 for x"),
        (lambda e: (*e, Example("x", -1, "test")), "found -1 for x"),
        (lambda e: (*e, Example("x", 0, "valid")), "Toy: expected one of train, val, test, found 'valid' for x"),
        (lambda e: e[:8], "Toy: the test split is empty"),
        (lambda e: (*e[:8], e[9], e[11]), "Toy: all pictures of the test split are yes"),
        (lambda e: (e[0], *e[4:]), "Toy: the only picture of the train split is no"),
        (lambda e: (), "Toy: the train split is empty"),
    ],
)
def test_refused_listings(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Examples.of(made(change(EXAMPLES)))


def test_unreadable_pictures_are_counted_and_the_first_is_named():
    def read(example: Example, channels: int) -> np.ndarray:
        if example.image_id in ("val/2", "test/0"):
            raise ValueError("/long/path cannot be read") from OSError("truncated")
        if example.image_id == "test/3":
            return np.zeros((2, 2, 3), np.uint8)
        return picture(example, channels)

    sentence = r"3 of 12 pictures cannot be read, first val/2 \(truncated\): fix them or take them off the lists"
    with pytest.raises(ValueError, match=sentence):
        Examples.of(made(read=read))
    with pytest.raises(ValueError, match=r"12 of 12 .* first train/0 .*expected uint8 .* found float64 \(2, 2\)"):
        Examples.of(made(read=lambda example, channels: np.zeros((2, 2))))


def test_other_mistakes():
    with pytest.raises(ValueError, match="expected pictures of 1 or 3 channels, found channels 4"):
        Examples.of(made(), channels=4)
    with pytest.raises(ValueError, match="expected one of train, val, test, found valid"):
        Split(Examples.of(made()), "valid")


def test_a_class_that_a_split_lacks_is_told_and_one_that_is_never_trained_refused(caplog):
    with pytest.raises(ValueError, match=r"Toy: expected training pictures of 3 classes, found none of perhaps: name"):
        Examples.of(made(classes=("no", "yes", "perhaps")))
    third = (*EXAMPLES, Example("train/9", 2, "train"))
    with caplog.at_level(logging.WARNING):
        Examples.of(made(third, classes=("no", "yes", "perhaps")))
    assert [record.getMessage() for record in caplog.records] == [
        f"Toy: the {split} split has no picture of perhaps" for split in ("val", "test")
    ]


def test_what_is_where_and_which_pixels_are_equal():
    examples = Examples.of(made())
    turned = replace(examples, examples=examples.examples[::-1], images=examples.images[::-1])
    assert examples.splits() == turned.splits() != examples.identity()
    moved = (replace(EXAMPLES[0], split="val"), *EXAMPLES[1:])
    assert replace(examples, examples=moved).splits() != examples.splits()
    digests = [digest for split in ("train", "val", "test") for digest in examples.pixels(split)]
    assert len(set(digests)) == len(digests) == len(EXAMPLES)
    assert {len(text) for text in (*digests, examples.splits(), examples.identity())} == {64}  # of a whole SHA-256
    assert examples.pixels("val") == turned.pixels("val")[::-1]
