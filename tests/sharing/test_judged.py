"""What a card tells of evaluations: whose scores they are, and nothing that its readers cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_folders import ALL, HASH6, noisy, write_evaluation

from lessismore_transforms.classification.metrics import METRICS
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.sharing.judged import judged


def mean_auc(runs: list[Predictions]) -> float:
    return sum(METRICS["auc"](run.labels, run.probabilities) for run in runs) / len(runs)


def test_scores_are_of_this_encoder_and_not_of_a_namesake(tmp_path: Path) -> None:
    ours, theirs = noisy(2.0, 2, seed=1), noisy(0.2, 2, seed=2)
    write_evaluation(tmp_path / "a" / "eval", ours, labels=HASH6, weights="01")
    write_evaluation(tmp_path / "b" / "eval", theirs, labels=ALL, weights="02")
    for folders in (["a/eval", "b/eval"], ["b/eval", "a/eval"]):
        card, scores = judged([tmp_path / name for name in folders], "01")
        assert scores == {"auc, COVID-19": pytest.approx(mean_auc(ours), abs=1e-12)}
        assert card.startswith("Of this encoder: a/eval. What else is in the tables")
        assert "| b/eval |" in card


def test_the_mean_is_not_that_of_several_pre_trainings(tmp_path: Path) -> None:
    runs = {name: noisy(gain, 2, seed=3) for name, gain in (("01", 2.0), ("02", 0.2))}
    for name, each in runs.items():
        write_evaluation(tmp_path / name, each, labels=HASH6, weights=name, epoch=2, iteration=8)
    card, scores = judged([tmp_path / "01", tmp_path / "02"], "02")
    assert "| 01 + 1 more |" in card
    assert scores == {"auc, COVID-19": pytest.approx(mean_auc(runs["02"]), abs=1e-12)}


def test_several_evaluations_of_a_task_stand_beside_each_other(tmp_path: Path) -> None:
    runs = {name: noisy(gain, 1, seed=4) for name, gain in (("one", 2.0), ("two", 1.0), ("three", 0.2))}
    for name, mode in (("one", "finetune"), ("two", "linear"), ("three", "linear")):
        write_evaluation(tmp_path / name, runs[name], labels=HASH6, weights="01", mode=mode)
    _, scores = judged([tmp_path / name for name in runs], "01")
    names = {"one": "auc, COVID-19, finetune", "two": "auc, COVID-19, linear", "three": "auc, COVID-19, linear, 2"}
    assert scores == {names[name]: pytest.approx(mean_auc(each), abs=1e-12) for name, each in runs.items()}


def test_readers_of_a_card_get_no_advice_for_whoever_wrote_it(tmp_path: Path) -> None:
    leaks = {"policy": "warn", "checked": True, "near": 3}
    for name, labels in (("one", ALL), ("two", ALL), ("three", HASH6)):
        write_evaluation(tmp_path / name, noisy(1.0, 1, seed=5), labels=labels, weights=name, leakage=leaks)
    for folders in (["one", "two", "three"], ["three"], ["one", "two"]):
        card, _ = judged([tmp_path / name for name in folders], folders[-1])
        assert "--baseline" not in card
        assert "leakage.csv" not in card
    assert "nearly equal pictures of different splits | 3 |" in card
