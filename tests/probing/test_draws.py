from __future__ import annotations

import numpy as np

from lessismore_transforms.probing.draws import draw_folds, draw_labels, draw_official

LABELS = np.array([0, 1] * 20)
GROUPS = [f"p{number // 2 // 2}" for number in range(40)]  # ten patients of four pictures, of both classes
OWN = [f"{label}-{number // 4}" for number, label in enumerate(LABELS)]  # twenty of one class each


def test_each_picture_is_judged_once_in_each_repeat_and_no_group_is_divided() -> None:
    draws = draw_folds(LABELS, OWN, folds=5, repeats=3, seed=0)
    assert [(draw.repeat, draw.fold) for draw in draws] == [(r, f) for r in range(3) for f in range(5)]
    for repeat in range(3):
        own = [draw for draw in draws if draw.repeat == repeat]
        assert sorted(np.concatenate([draw.test for draw in own])) == list(range(40))
        for draw in own:
            assert not {OWN[row] for row in draw.train} & {OWN[row] for row in draw.test}
            assert len(draw.train) + len(draw.test) == 40
    first, second = draws[0].test.tolist(), draws[5].test.tolist()
    assert first != second


def test_the_official_split_is_the_same_in_each_repeat() -> None:
    one, other = draw_official(["train", "test", "val", "test"], repeats=2)
    assert one.train.tolist() == other.train.tolist() == [0, 2]
    assert one.test.tolist() == [1, 3]
    assert one.fold is None


def test_few_labels_are_of_whole_groups_of_each_class_and_part_of_more() -> None:
    known = draw_labels(LABELS, OWN, [1.0, 0.5, 0.25, 0.01], seed=3)
    assert known[:, 0].all()
    for column, groups in ((1, 5), (2, 3), (3, 1)):  # 2.5 is rounded up
        for label in (0, 1):
            names = {OWN[row] for row in np.flatnonzero(known[:, column] & (label == LABELS))}
            assert len(names) == groups
            assert all(known[row, column] for row in range(40) if OWN[row] in names)
        assert (known[:, column] <= known[:, column - 1]).all()


def test_the_draw_does_not_depend_on_the_names_of_groups() -> None:
    renamed = [f"zz{hash(group) % 1000}{group}" for group in OWN]
    assert (draw_labels(LABELS, OWN, [0.3], seed=1) == draw_labels(LABELS, renamed, [0.3], seed=1)).all()
    assert (draw_labels(LABELS, OWN, [0.3], seed=1) != draw_labels(LABELS, OWN, [0.3], seed=2)).any()


def test_a_class_that_is_in_no_group_the_most_has_a_label_all_the_same() -> None:
    labels, groups = np.array([0, 0, 1, 0, 0, 1]), ["a", "a", "a", "b", "b", "b"]
    known = draw_labels(labels, groups, [0.1], seed=0)[:, 0]
    assert {0, 1} == {*labels[known].tolist()}
