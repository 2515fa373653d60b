from __future__ import annotations

import numpy as np
import pandas as pd

from lessismore_transforms.audit.neighbours import OTHER, Neighbours, find_neighbours


def table(volumes: dict[str, list[tuple[float, int]]], patients: dict[str, str] | None = None) -> pd.DataFrame:
    rows = [
        {"volume": name, "patient": (patients or {}).get(name, name), "position_mm": mm, "hash": np.uint64(value)}
        for name, slices in volumes.items()
        for mm, value in slices
    ]
    return pd.DataFrame(rows)


def of(found: Neighbours, kind: str) -> list[int]:
    return found.index[:, found.kinds.index(kind)].tolist()


def test_a_hand_made_volume() -> None:
    slices = table({"a": [(0, 0b0), (1.25, 0b0), (2.5, 0b11), (7.5, 0b1111)], "b": [(0, 0b0)]})
    found = find_neighbours(slices, (1.0, 5.0), 2, seed=0)
    assert found.kinds == ("next slice", "1 mm", "5 mm", "0 bits", "1 bit", "2 bits", OTHER)
    assert of(found, "next slice") == [1, 0, 1, 2, -1]  # of two at one distance the first
    assert of(found, "1 mm") == [1, 0, 1, -1, -1]  # 1.25 mm is within a quarter of 1 mm
    assert of(found, "5 mm") == [-1, 3, 3, 2, -1]  # 6.25 mm is within a quarter of 5 mm, and 2.5 is not
    assert of(found, "0 bits") == [1, 0, -1, -1, -1]
    assert of(found, "1 bit") == [-1] * 5
    assert of(found, "2 bits")[:2] == [2, 2]
    assert of(found, "2 bits")[2] in (0, 1, 3)
    assert of(found, OTHER)[:4] == [4] * 4
    assert of(found, OTHER)[4] in (0, 1, 2, 3)
    assert found.mm[3, 0] == 5
    assert np.isnan(found.mm[:, -1]).all()
    assert found.bits[3].tolist() == [2, -1, 2, -1, -1, 2, 4]
    pairs = {(x, n) for x, row in enumerate(found.index.tolist()) for n in row if n >= 0}
    assert found.pairs().tolist() == sorted(map(list, pairs))


def test_slices_of_other_patients_are_equally_likely_and_the_names_of_patients_decide_nothing() -> None:
    volumes = {"a": [(0, 0)] * 2, "b": [(0, 0)] * 3, "c": [(0, 0)] * 1}
    patients = {"a": "p", "b": "q", "c": "p"}
    counts = np.zeros((6, 6))
    for seed in range(300):
        drawn = of(find_neighbours(table(volumes, patients), (), 0, seed=seed), OTHER)
        counts[np.arange(6), drawn] += 1
    expected = np.array([[0, 0, 1, 1, 1, 0]] * 2 + [[1, 1, 0, 0, 0, 1]] * 3 + [[0, 0, 1, 1, 1, 0]]) * 100
    assert (counts[expected == 0] == 0).all()
    assert np.abs(counts - expected).max() < 5 * np.sqrt(300 * 2 / 9)
    renamed = table(volumes, {"a": "z", "b": "a", "c": "z"})
    assert of(find_neighbours(renamed, (), 0, seed=5), OTHER) == of(
        find_neighbours(table(volumes, patients), (), 0, seed=5), OTHER
    )


def test_one_patient_has_no_others() -> None:
    assert of(find_neighbours(table({"a": [(0, 0), (1, 0)]}), (), 0, seed=0), OTHER) == [-1, -1]
