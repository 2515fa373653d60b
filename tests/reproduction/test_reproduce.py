from __future__ import annotations

import ast
import csv
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reproduce_paper
from helpers import ROOT
from matplotlib.figure import Figure
from replaced_processes import replace_processes
from reproduction import results, steps
from reproduction.arms import Reduction
from reproduction.experiment import STAGES, Experiment, tiny
from reproduction.experiment_file import read_experiment
from reproduction.processes import last_error
from reproduction.results import PAPER_HOURS, _draw_task, draw_figure, outcomes, training_hours

from lessismore_transforms.classification import evaluation
from lessismore_transforms.classification.metrics import METRICS
from lessismore_transforms.classification.paper import paper_rows, paper_settings, paper_value
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.errors import UserError
from lessismore_transforms.training import checkpoint

EXPERIMENTS = ROOT / "scripts" / "experiments"
SMALL: dict[str, Any] = {
    "title": "small",
    "tasks": ["COVID-19"],
    "pretrain_datasets": ["LIDC"],
    "methods": ["SwAV"],
    "reductions": ["ALL", "HASH-6"],
    "max_epochs": 20,
    "runs": 2,
    "folds": 2,
    "table_samples": 20,
}


# What an experiment is.


@pytest.mark.parametrize("table", [3, 4, 5, 6, 7])
def test_the_experiments_are_the_tables_of_the_paper(table: int) -> None:
    experiment = read_experiment(EXPERIMENTS / f"table{table}.json")
    found = {(each.dataset, each.method, each.reduction.label) for each in experiment.pretrainings}
    expected = {tuple(setting) for setting in paper_settings(table)}
    assert found == (set() if experiment.scratch else expected)
    assert experiment.scratch == (expected == {("none", "none", "none")})
    assert set(experiment.tasks) == {row.task for row in paper_rows(table)}
    assert (experiment.runs, experiment.folds, experiment.max_epochs) == (5, 5, 800)
    assert experiment.epochs == (tuple(range(50, 801, 50)) if found else (800,))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("ALL", ("all", "", "", "hash")),
        ("EveryN-20%", ("every_n", "step", "5", "hash")),
        ("EveryN-10%", ("every_n", "step", "10", "hash")),
        ("HASH-12", ("hash", "threshold", "12", "hash")),
        ("HASH-10%", ("hash", "fraction", "0.1", "hash")),
        ("DeepNet-10%", ("deepnet", "fraction", "0.1", "deepnet")),
        ("MI-5%", ("mi", "fraction", "0.05", "mi")),
    ],
)
def test_labels_of_the_paper_are_options_of_select(label: str, expected: tuple[str, ...]) -> None:
    reduction = Reduction.of(label)
    assert (reduction.method, reduction.option, reduction.value, reduction.measure) == expected
    assert reduction.label == label


def experiment_file(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "experiment.json"
    content = {name: value for name, value in (SMALL | changes).items() if value is not None}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reduction": ["ALL"]}, "an experiment has no 'reduction': the closest one is 'reductions'"),
        ({"title": None}, "an experiment needs a title, and tasks or probes"),
        ({"methods": ["SWAV"]}, "found 'SWAV': the closest one is 'SwAV'"),
        ({"tasks": ["Covid-19"]}, "found 'Covid-19': the closest one is 'COVID-19'"),
        ({"tasks": []}, "expected one task or more"),
        ({"tasks": "Brain"}, "expected tasks to be a list, found 'Brain'"),
        ({"reductions": ["HASH6"]}, "found 'HASH6': the closest one is 'HASH-6'"),
        ({"reductions": ["HASH-65"]}, "found 'HASH-65': the closest one is 'HASH-6'"),
        ({"reductions": ["EveryN-30%"]}, "P a divisor of 100"),
        ({"reductions": ["ALL", "ALL"]}, "expected each of reductions once"),
        ({"reductions": []}, "expected reductions beside pretrain_datasets, found none"),
        ({"pretrain_datasets": [], "methods": [], "reductions": []}, "or scratch: true"),
        ({"pretrain_datasets": ["Brain"]}, "other than those of tasks and other data, found 'Brain'"),
        ({"pretrain_datasets": ["../LIDC"]}, "found '../LIDC'"),
        ({"runs": 0}, "expected runs of whole numbers from 1, found 0"),
        ({"pretrain_seeds": [0.5]}, "expected pretrain_seeds of whole numbers from 0, found 0.5"),
        ({"max_steps": 5}, "expected max_epochs or max_steps, found both"),
        (
            {"max_epochs": None, "max_steps": 5, "checkpoint_epochs": [1]},
            "expected checkpoint_epochs beside max_epochs",
        ),
        ({"checkpoint_epochs": [10, 30]}, "expected checkpoint_epochs up to max_epochs 20, found 30"),
        ({"as_released": ["finetune"]}, "found 'finetune': the closest one is"),
        (
            {"evaluate_settings": {"all": {"batchsize": 8}}},
            "has no setting 'batchsize': the closest one is 'batch_size'",
        ),
        ({"evaluate_settings": {"Brian": {}}}, "found 'Brian': the closest one is 'Brain'"),
        ({"pretrain_settings": {"SwAV": {"mlp": True}}}, "ct_swav_pretraining has no setting 'mlp'"),
        ({"pretrain_settings": {"SwAV": {"seed": 1}}}, "without seed, which the experiment itself gives"),
        ({"reduce_settings": {"LIDC": {"inclde": "*"}}}, "found 'inclde': the closest one is 'include'"),
        ({"contrasts": [["ALL"]]}, "expected contrasts to be pairs of two reductions, such as"),
        ({"contrasts": [["ALL", "ALL"]]}, "found ['ALL', 'ALL']"),
        ({"contrasts": ["ALL"]}, "found 'ALL'"),
        ({"contrasts": "ALL"}, "expected contrasts to be a list"),
        ({"contrasts": [["ALL", "HASH-3"]]}, "found 'HASH-3': the closest one is 'HASH-6'"),
        ({"scratch": "yes"}, "expected scratch to be true or false, found 'yes'"),
    ],
)
def test_a_mistake_in_an_experiment_is_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_experiment(experiment_file(tmp_path, **changes))


def test_an_experiment_holds_what_it_changes_of_another(tmp_path: Path) -> None:
    settings = {"all": {"batch_size": 8, "backbone": "resnet18"}, "SwAV": {"large_size": 64}}
    experiment_file(tmp_path, pretrain_settings=settings, contrasts=[["ALL", "HASH-6"]])
    given = {"all": {"batch_size": 4}, "MoCoV2": {"image_size": 32}}
    child = {"base": "experiment.json", "pretrain_settings": given, "contrasts": None, "runs": 9}
    (tmp_path / "child.json").write_text(json.dumps(child))
    grandchild = {"base": "child.json", "max_epochs": 7, "checkpoint_epochs": None}
    (tmp_path / "grandchild.json").write_text(json.dumps(grandchild))
    found = read_experiment(tmp_path / "child.json")
    assert found == replace(
        read_experiment(tmp_path / "experiment.json"),
        name="child",
        runs=9,
        contrasts=(),
        pretrain_settings={
            "all": {"batch_size": 4, "backbone": "resnet18"}, "SwAV": {"large_size": 64}, "MoCoV2": {"image_size": 32},
        },
    )  # fmt: skip
    further = read_experiment(tmp_path / "grandchild.json")
    assert further == replace(found, name="grandchild", max_epochs=7, checkpoint_epochs=())


@pytest.mark.parametrize(
    ("changes", "child", "file"),
    [
        ({"runs": 0}, {}, "experiment"),
        ({"pretrain_settings": {"all": {"batchsize": 8}}}, {"runs": 9}, "experiment"),
        ({}, {"runs": 0}, "child"),
        ({}, {"max_steps": 5}, "child"),  # beside max_epochs of the base
        ({"runs": 0}, {"runs": 9, "folds": 0}, "child"),
    ],
)
def test_the_file_with_the_mistake_is_named(
    tmp_path: Path, changes: dict[str, Any], child: dict[str, Any], file: str
) -> None:
    experiment_file(tmp_path, **changes)
    (tmp_path / "child.json").write_text(json.dumps({"base": "experiment.json", **child}))
    (tmp_path / "grandchild.json").write_text(json.dumps({"base": "child.json", "table_samples": 30}))
    for name in ("child", "grandchild"):
        with pytest.raises(UserError, match=rf"^{file}\.json: "):
            read_experiment(tmp_path / f"{name}.json")


@pytest.mark.parametrize("base", ["child.json", "../experiment.json", "other.json", "", ".", 3, None])
def test_a_base_that_is_none(tmp_path: Path, base: object) -> None:
    (tmp_path / "child.json").write_text(json.dumps({"base": base}))
    (tmp_path / "other.json").write_text(json.dumps({"base": "child.json"}))
    with pytest.raises(UserError, match="expected base to be the name of another experiment beside it"):
        read_experiment(tmp_path / "child.json")


def test_a_file_that_is_no_experiment(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "absent.json"):
        with pytest.raises(ValueError, match=r"expected an experiment, such as evidence\.json, .*table3\.json"):
            read_experiment(tmp_path / name)


def test_tiny_keeps_the_whole_way() -> None:
    full = read_experiment(EXPERIMENTS / "table5.json")
    small = tiny(full)
    assert small.tasks == full.tasks
    assert small.scratch
    assert small.reductions == ("EveryN-10%", "HASH-10%")  # the others need a GPU, or weights
    assert len(full.contrasts) == 4
    assert small.contrasts == (("HASH-10%", "EveryN-10%"),)
    assert len(small.pretrainings) == 2
    assert (small.epochs, small.runs, small.folds) == ((1, 2), 2, 2)
    steps_only = tiny(replace(full, checkpoint_epochs=(), max_steps=1000))
    assert (steps_only.max_steps, steps_only.epochs) == (4, (None,))
    for stage in STAGES:  # the overlay has no misspelt setting: it passes the checks of an experiment
        assert getattr(small, f"{stage}_settings")
    assert {item.name for item in fields(Experiment)} > {"title", "tasks"}


# What is run for it.


def steps_of(folder: Path, **changes: Any) -> list[steps.Step]:
    experiment = read_experiment(experiment_file(folder, **changes))
    return steps.all_steps(experiment, Path("/EXP"), {})


def test_there_is_one_reduce_for_each_measure(tmp_path: Path) -> None:
    found = steps_of(tmp_path, reductions=["ALL", "EveryN-10%", "HASH-3", "HASH-10%", "SSIM-10%", "SSIM-20%"])
    reduces = [step for step in found if step.command[1] == "reduce"]
    assert [step.name for step in reduces] == ["reduce/LIDC_hash", "reduce/LIDC_ssim"]
    assert reduces[0].command[-2:] == ("--method", "hash")
    assert reduces[1].command[-4:] == ("--method", "ssim", "--fraction", "0.1")  # ranked as far as both need it
    selects = {step.name: " ".join(step.command) for step in found if step.command[1] == "select"}
    assert list(selects) == [
        *(f"reduce/LIDC_hash/{name}" for name in ("ALL", "EveryN-10pct", "HASH-3", "HASH-10pct")),
        *(f"reduce/LIDC_ssim/{name}" for name in ("SSIM-10pct", "SSIM-20pct")),
    ]
    assert "--name HASH-10pct --method hash --fraction 0.1 --fill_store" in selects["reduce/LIDC_hash/HASH-10pct"]
    assert "--name EveryN-10pct --method every_n --step 10 --fill_store" in selects["reduce/LIDC_hash/EveryN-10pct"]
    names = [step.name for step in found]
    for step in found:
        assert all(names.index(need) < names.index(step.name) for need in step.needs)


def option(step: steps.Step, name: str) -> str:
    return step.command[step.command.index(f"--{name}") + 1]


def test_remedies_are_arms_beside_the_reductions(tmp_path: Path) -> None:
    """The selection of a remedy is that of its reduction; what rotates needs all slices in the store."""
    given = {"methods": ["DCLW"], "reductions": ["HASH-6", "HASH-6+rotate", "ALL+spread", "ALL+mask"]}
    found = {step.name: step for step in steps_of(tmp_path, tasks=["COVID-19"], as_released=["pretrain"], **given)}
    selects = [name for name, step in found.items() if step.command[1] == "select"]
    assert selects == ["reduce/LIDC_hash/HASH-6", "reduce/LIDC_hash/ALL"]
    arms = {name: found[f"pretrain/LIDC_DCLW_{name}_seed0"] for name in given["reductions"]}
    assert [option(step, "selection") for step in arms.values()] == ["HASH-6", "HASH-6", "ALL", "ALL"]
    assert option(arms["HASH-6+rotate"], "sampling") == "rotate"
    assert arms["HASH-6+rotate"].needs == ("reduce/LIDC_hash/HASH-6", "reduce/LIDC_hash/ALL")
    assert option(arms["ALL+spread"], "sampling") == "spread"
    assert option(arms["ALL+mask"], "near_copies") == "mask"
    assert "--sampling" not in arms["HASH-6"].command
    files = [Path(name).name for name in ast.literal_eval(option(arms["HASH-6"], "config_file"))]
    assert files == ["train.json", "dclw.json", "as_released.json", "dclw_as_released.json"]
    run = found["evaluate/COVID-19/LIDC_DCLW_HASH-6+rotate_seed0_epoch0020/run_00"]
    assert (option(run, "reduction"), option(run, "pretraining_selection")) == ("HASH-6+rotate", "ALL")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reductions": ["HASH-6+turn"]}, "found 'turn'"),
        ({"reductions": ["EveryN-10%+rotate"]}, "expected a HASH threshold to rotate, such as HASH-6+rotate, found"),
        (
            {"reductions": ["ALL+mask"]},
            "expected methods with negatives for ALL+mask (MoCoV2, SimCLR, DCLW), found SwAV",
        ),
    ],
)
def test_remedies_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_experiment(experiment_file(tmp_path, **changes))


def test_checkpoints_are_exported_where_they_are_needed(tmp_path: Path) -> None:
    found = {step.name: step for step in steps_of(tmp_path, checkpoint_epochs=[8, 12, 20], tasks=["COVID-19", "Brain"])}
    pretrain = found["pretrain/LIDC_SwAV_HASH-6_seed0"]
    assert (option(pretrain, "max_epochs"), option(pretrain, "export_epochs")) == ("20", "4")
    assert option(pretrain, "selection") == "HASH-6"
    assert pretrain.needs == ("reduce/LIDC_hash/HASH-6",)
    run = found["evaluate/Brain/LIDC_SwAV_HASH-6_seed0_epoch0012/run_01"]
    assert option(run, "pretrained") == "/EXP/pretrain/LIDC_SwAV_HASH-6_seed0/backbones/epoch_0012.safetensors"
    assert (option(run, "fold"), option(run, "folds"), option(run, "reduction")) == ("1", "2", "HASH-6")
    assert Path(option(run, "pretrained")) in pretrain.products
    last = found["evaluate/COVID-19/LIDC_SwAV_ALL_seed0_epoch0020/run_00"]
    assert option(last, "pretrained") == "/EXP/pretrain/LIDC_SwAV_ALL_seed0/backbone.safetensors"
    assert option(last, "run_index") == "0"
    # Equal steps instead of equal epochs
    equal = {step.name: step for step in steps_of(tmp_path, max_epochs=None, max_steps=70, scratch=True)}
    assert option(equal["pretrain/LIDC_SwAV_ALL_seed0"], "max_steps") == "70"
    assert "--max_epochs" not in equal["pretrain/LIDC_SwAV_ALL_seed0"].command
    assert "evaluate/COVID-19/LIDC_SwAV_ALL_seed0_end/run_00" in equal
    assert option(equal["evaluate/COVID-19/scratch/run_00"], "mode") == "scratch"
    assert "--pretrained" not in equal["evaluate/COVID-19/scratch/run_00"].command
    frozen = {"evaluate_settings": {"all": {"frozen_epochs": 3, "flip": 0.1}}}
    steps = {step.name: step for step in steps_of(tmp_path, scratch=True, **frozen)}
    assert "--frozen_epochs" not in steps["evaluate/COVID-19/scratch/run_00"].command
    assert option(steps["evaluate/COVID-19/scratch/run_00"], "flip") == "0.1"
    assert option(steps["evaluate/COVID-19/LIDC_SwAV_ALL_seed0_epoch0020/run_00"], "frozen_epochs") == "3"


def test_settings_reach_their_commands(tmp_path: Path) -> None:
    found = {
        step.name: step
        for step in steps_of(
            tmp_path,
            tasks=["OrgMNIST"],
            methods=["SwAV", "SparK"],
            as_released=["reduce", "evaluate"],
            reduce_settings={"all": {"body": True, "no_report": False}, "LIDC": {"include": ["*.dcm", "*.nii"]}},
            pretrain_settings={"all": {"batch_size": 16}, "SparK": {"batch_size": 4, "precision": "32"}},
            evaluate_settings={"all": {"max_epochs": 3}, "OrgMNIST": {"classes": ["a", "b"]}},
        )
    }
    reduce = found["reduce/LIDC_hash"].command
    assert reduce[-4:] == ("--as_released", "--body", "--include=*.dcm", "--include=*.nii")
    assert option(found["pretrain/LIDC_SwAV_ALL_seed0"], "batch_size") == "16"
    spark = found["pretrain/LIDC_SparK_ALL_seed0"]
    assert (option(spark, "batch_size"), option(spark, "precision")) == ("4", "'32'")  # a text stays a text
    assert spark.command[3].endswith("ct_spark_pretraining/configs/train.json")
    run = found["evaluate/OrgMNIST/LIDC_SparK_ALL_seed0_epoch0020/run_00"]
    assert (option(run, "max_epochs"), option(run, "classes")) == ("3", "['a', 'b']")
    assert run.command[3].endswith("organsmnist_ct_classification/configs/as_released.json']")


# The driver, with stubs for what takes hours.


AUC = {1: [0.1, 0.4, 0.2, 0.6], 0.75: [0.1, 0.4, 0.3, 0.25], 0.5: [0.4, 0.3, 0.2, 0.36]}
LABELS = np.array([0, 1, 0, 1])


class Stub:
    """In place of processes: writes what the commands would write, and remembers them."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.failing = ""  # what is in a command that fails
        self.val: dict[str, float | None] = {}  # by what is in the folder of an evaluation
        self.auc: dict[str, float] = {}

    def __call__(self, command: Sequence[str], log: Path) -> int:
        self.commands.append(tuple(command))
        log.parent.mkdir(parents=True, exist_ok=True)
        if self.failing and self.failing in " ".join(command):
            log.write_text(
                "a page of\nINFO\nerror: expected 8 slices, found 3; take more\nfinished\n", encoding="utf-8"
            )
            return 1
        log.write_text("", encoding="utf-8")
        options = {name[2:]: value for name, value in itertools.pairwise(command) if name[:2] == "--"}
        if command[1] == "select":
            self.touch(Path(command[2]) / "selections" / f"{options['name']}.json")
            return 0
        output = Path(options["output_dir"])
        if command[1] == "reduce":
            self.touch(output / "manifest.json")
        elif "pretraining/configs" in options["config_file"]:
            self.pretrain(output, options)
        else:
            self.evaluate(output, options)
        return 0

    def touch(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")

    def pretrain(self, output: Path, options: dict[str, str]) -> None:
        self.touch(output / "backbone.safetensors")
        every = int(options["export_epochs"])
        for epoch in range(every, int(options["max_epochs"]) + 1, every) if every else ():
            self.touch(output / "backbones" / f"epoch_{epoch:04d}.safetensors")
        log = [
            {"event": "begin", "step": 0, "time": "2026-01-01T00:00:00+00:00"},
            {"event": "end", "step": 9, "time": "2026-01-02T03:00:00+00:00"},
        ]
        write_log(output, *log)

    def evaluate(self, output: Path, options: dict[str, str]) -> None:
        name = f"run_{int(options.get('fold', options.get('run_index', '0'))):02d}"
        auc = next((value for part, value in self.auc.items() if part in str(output / name)), 0.75)
        ones = np.array(AUC[auc])
        predictions = Predictions(
            [f"{options.get('fold', '')}{number}.png" for number in range(4)],
            [""] * 4,
            ["test"] * 4,
            LABELS,
            np.stack([1 - ones, ones], axis=1),
        )
        self.touch(output / name / "checkpoints" / "last.pt")
        self.touch(output / name / "model.safetensors")
        predictions.write(output / name / "predictions.csv")
        mode = options.get("mode", "finetune")
        names = ("pretrain_dataset", "ssl_method", "reduction")
        test = {metric: float(METRICS[metric](LABELS, predictions.probabilities)) for metric in ("auc", "accuracy")}
        record = {
            "format": 1, "task": output.parent.name, "classes": ["COVID", "NonCOVID"], "positive": 1, "mode": mode,
            "run": int(name[-2:]), "experiment": {key: options.get(key, "none") for key in names},
            "weights": {"id": options.get("pretrained"), "iteration": Path(options.get("pretrained", "")).stem},
            "settings": {"fold": int(options["fold"])} if "fold" in options else {},
            "val": {"auc": next((value for part, value in self.val.items() if part in str(output / name)), 0.5)},
            "test": test,
        }  # fmt: skip
        (output / name / "metrics.json").write_text(json.dumps(record))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    replace_processes(monkeypatch, stub)
    return stub


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("lidc", "covid", "brain"):
        (tmp_path / name).mkdir()
    return tmp_path


def drive(place: Path, *more: str, data: Sequence[str] = ("LIDC=lidc", "COVID-19=covid"), **changes: Any) -> int:
    path = experiment_file(place, **changes)
    named = [part for item in data for part in ("--data", item.replace("=", f"={place}/"))]
    return reproduce_paper.main([str(path), "--output_dir", str(place / "exp"), *named, *more])


def test_everything_is_run_once_and_told(place: Path, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert drive(place, scratch=True) == 0
    kinds = [" ".join(command[:2]) for command in stub.commands]
    reduces, bundles = ["lessismore_transforms reduce", *["lessismore_transforms select"] * 2], ["monai.bundle run"] * 8
    assert kinds == reduces + bundles  # two pre-trainings, three times two runs
    said = capsys.readouterr().out
    assert "0 of 11 steps are done" in said
    assert "[11/11, 0:00:00, about 0:00:00 left] evaluate/COVID-19/LIDC_SwAV_HASH-6_seed0_epoch0020/run_01 " in said
    assert "All encoders are those after epoch 20" in said
    table = (place / "exp" / "tables" / "experiment.txt").read_text()
    assert table in said
    mean, std = paper_value("COVID-19", "auc", "LIDC", "SwAV", "HASH-6") or (0, 0)
    assert f"{mean:.3f} ± {std:.3f}" in table
    assert {path.name for path in (place / "exp" / "tables").iterdir()} == {
        f"experiment.{suffix}" for suffix in ("csv", "md", "txt", "png")
    }
    assert not list((place / "exp").rglob("last.pt"))  # of finished fine-tunings
    assert len(list((place / "exp").rglob("model.safetensors"))) == 6
    stub.commands.clear()
    assert drive(place, scratch=True) == 0
    assert stub.commands == []
    assert (place / "exp" / "tables" / "experiment.txt").read_text() == table


def test_an_experiment_grows_in_the_same_folder(place: Path, stub: Stub) -> None:
    assert drive(place) == 0
    stub.commands.clear()
    assert drive(place, reductions=["HASH-6", "HASH-3"], runs=3) == 0
    assert [command[1] for command in stub.commands] == ["select", *["run"] * 5]
    assert sum("pretraining/configs" in command[3] for command in stub.commands) == 1


def test_experiments_in_one_folder_share_what_is_equal_and_keep_their_tables(place: Path, stub: Stub) -> None:
    assert drive(place) == 0
    table = (place / "exp" / "tables" / "experiment.txt").read_bytes()
    stub.commands.clear()
    other = experiment_file(place / "second", reductions=["ALL"], title="other").rename(place / "other.json")
    assert reproduce_paper.main([str(other), "--output_dir", str(place / "exp")]) == 0
    assert stub.commands == []
    assert (place / "exp" / "tables" / "experiment.txt").read_bytes() == table
    assert (place / "exp" / "tables" / "other.txt").read_text().startswith("other\n")


def test_others_go_on_when_a_step_fails(place: Path, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.failing = "pretrain/LIDC_SwAV_ALL_seed0 "
    assert drive(place) == 1
    said = capsys.readouterr()
    log = place / "exp" / "steps" / "pretrain" / "LIDC_SwAV_ALL_seed0.log"
    assert (
        "failed: pretrain/LIDC_SwAV_ALL_seed0: error: expected 8 slices, found 3; take more (exit code 1); "
        f"log: {log}" in said.err
    )
    assert "run_00 and 1 more: it needs pretrain/LIDC_SwAV_ALL_seed0, which is not done" in said.err
    assert "LIDC SwAV HASH-6" in said.out
    table = place / "exp" / "tables" / "experiment.txt"
    preliminary = "preliminary: not all runs are finished of COVID-19 LIDC_SwAV_ALL_seed0."
    assert preliminary in " ".join(table.read_text().split())
    stub.failing, stub.commands = "", []
    (place / "exp" / "pretrain" / "LIDC_SwAV_ALL_seed0" / "checkpoints").mkdir(parents=True)
    (place / "exp" / "pretrain" / "LIDC_SwAV_ALL_seed0" / "checkpoints" / "last.pt").touch()
    assert drive(place) == 0
    assert len(stub.commands) == 3
    assert stub.commands[0][-2:] == ("--resume", "True")
    assert "--resume" not in stub.commands[1]
    assert "preliminary" not in table.read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INFO\nerror: one\nerror: two\nbye\n", "error: two"),
        ("Traceback\n  File x\nKeyError: 'a'\n\nRuntimeError: wrapped\n  hint\n", "KeyError: 'a'"),
        ("Killed\n\n", "Killed"),
        ("", "it printed nothing"),
    ],
)
def test_what_went_wrong_is_found_in_a_log(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "log").write_text(text)
    assert last_error(tmp_path / "log") == expected


def test_a_selection_is_done_when_its_store_is_filled(place: Path, stub: Stub) -> None:
    stub.failing = "lessismore_transforms select"
    (place / "exp" / "reduce" / "LIDC_hash" / "selections").mkdir(parents=True)
    assert drive(place, "--only", "reduce/LIDC_hash") == 2  # a folder of unknown origin
    (place / "exp" / "reduce" / "LIDC_hash" / "selections").rmdir()
    (place / "exp" / "reduce" / "LIDC_hash").rmdir()
    assert drive(place, "--only", "reduce") == 1
    stub.touch(place / "exp" / "reduce" / "LIDC_hash" / "selections" / "ALL.json")  # written before the store is filled
    stub.failing, stub.commands = "", []
    assert drive(place, "--only", "reduce") == 0
    assert [command[4] for command in stub.commands] == ["ALL", "HASH-6"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_epochs": 30}, "pretrain/LIDC_SwAV_ALL_seed0 (max_epochs was 20, now 30), and 1 more"),
        ({"evaluate_settings": {"all": {"flip": 0.0}}}, "run_00 (flip was not given, now 0.0), and 3 more"),
        ({"reduce_settings": {"all": {"window": "lung"}}}, "reduce/LIDC_hash (window was not given, now lung), and 8"),
        ({"checkpoint_epochs": [10, 20]}, "ALL_seed0 (it has no backbones/epoch_0010.safetensors), and 1 more"),
    ],
)
def test_results_of_other_settings_are_not_taken(
    place: Path, stub: Stub, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], expected: str
) -> None:
    assert drive(place) == 0
    stub.commands.clear()
    assert drive(place, **changes) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: expected results of these settings, found others in ")
    assert expected in error
    assert "name another --output_dir, or delete" in error
    assert stub.commands == []


def test_where_and_how_fast_does_not_matter(place: Path, stub: Stub) -> None:
    assert drive(place) == 0
    stub.commands.clear()
    (place / "exp").rename(place / "moved")
    (place / "moved").rename(place / "exp")
    (place / "lidc").rename(place / "elsewhere")
    changes = {"pretrain_settings": {"all": {"workers": 9}}, "evaluate_settings": {"all": {"device": "cpu"}}}
    assert drive(place, data=("LIDC=elsewhere", "COVID-19=covid"), **changes) == 0
    assert drive(place, data=()) == 0  # nothing has to be read again
    assert stub.commands == []


def test_what_was_made_of_something_else_is_not_taken(
    place: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"pretrain_settings": {"SwAV": {"prototypes": 7}}}
    assert drive(place) == 0
    for name in ("ALL", "HASH-6"):
        (place / "exp" / "pretrain" / f"LIDC_SwAV_{name}_seed0").rename(place / name)
    assert drive(place, **changes) == 2
    assert "run_00 (what it is made from has changed), and 3 more" in capsys.readouterr().err


def test_missing_data_are_named_all_at_once(place: Path, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ["COVID-19", "Brain", "OrgMNIST"]
    assert drive(place, data=("LIDC=lidc", "Brain=nowhere"), tasks=tasks) == 2
    error = capsys.readouterr().err
    assert "found none for --data COVID-19=DIR, --data OrgMNIST=DIR; fix --data Brain (" in error
    assert "nowhere is not there)" in error
    assert drive(place, data=("PET-CT=lidc",)) == 2
    assert "the experiment has no data set 'PET-CT': it has LIDC, COVID-19" in capsys.readouterr().err
    assert drive(place, "--only", "evalute") == 2
    assert "found 'evalute': --dry_run shows the names" in capsys.readouterr().err
    assert drive(place, "--only", "table") == 2
    assert "found none: there is nothing to tell yet" in capsys.readouterr().err
    assert drive(place, "--tiny") == 2
    assert "--tiny makes its own data: drop --data" in capsys.readouterr().err
    assert stub.commands == []
    assert drive(place, "--dry_run", data=()) == 0
    said = capsys.readouterr().out
    assert "# reduce/LIDC_hash\npython -m lessismore_transforms reduce '<LIDC>' --output_dir" in said
    assert "9 of 9 steps are to be done; nothing was run" in said
    assert not (place / "exp").exists()


def test_only_some_steps(place: Path, stub: Stub) -> None:
    assert drive(place, "--only", "reduce", data=("LIDC=lidc",)) == 0
    assert drive(place, "--only", "pretrain/LIDC_SwAV_ALL", data=()) == 0
    assert [command[1] for command in stub.commands] == ["reduce", "select", "select", "run"]
    assert not (place / "exp" / "tables" / "experiment.txt").exists()
    assert drive(place, "--only", "evaluate/COVID-19/LIDC_SwAV_ALL", data=("COVID-19=covid",)) == 0
    assert len(stub.commands) == 6
    assert "HASH-6" not in (place / "exp" / "tables" / "experiment.csv").read_text()


# What came out of it.


def test_the_checkpoint_is_chosen_by_validation(place: Path, stub: Stub) -> None:
    """Epoch 12 is best on the test split, epoch 8 on the validation split; 4 equals 8 in the other training."""
    stub.val = {"ALL_seed0_epoch0008": 0.9, "ALL_seed0_epoch0012": 0.7, "HASH-6_seed0_epoch0004": 0.5}
    stub.auc = {"ALL_seed0_epoch0012": 1, "ALL_seed0_epoch0008": 0.5}
    changes = {"checkpoint_epochs": [4, 8, 12], "scratch": True}
    assert drive(place, **changes) == 0
    experiment = read_experiment(place / "experiment.json")
    found = {each.name: each for each in outcomes(experiment, place / "exp")}
    assert list(found) == ["scratch", "LIDC_SwAV_ALL_seed0_epoch0008", "LIDC_SwAV_HASH-6_seed0_epoch0004"]
    assert found["LIDC_SwAV_ALL_seed0_epoch0008"].auc == (0.5, 0.5)
    text = " ".join((place / "exp" / "tables" / "experiment.txt").read_text().split())
    assert "checkpoints after epochs 4, 8, 12 the table shows" in text
    assert "highest mean validation AUC over the runs" in text
    kept = {path.parts[-3] for path in (place / "exp").rglob("model.safetensors")}
    assert kept == set(found)  # the others' networks would fill a disk
    assert len(list((place / "exp").rglob("predictions.csv"))) == 14


def test_each_fold_chooses_its_checkpoint_by_its_own_validation_pictures(place: Path, stub: Stub) -> None:
    """By the mean over folds epoch 8 would be shown for both; fold 0 by itself prefers 4, fold 1 has only 8 and 12."""
    stub.val = {"epoch0004/run_00": 0.7, "epoch0008/run_00": 0.6, "epoch0008/run_01": 0.9, "epoch0012/run_01": 0.8}
    stub.auc = {"epoch0004/run_00": 0.5, "epoch0008/run_01": 1}
    stub.failing = "epoch0004 --fold 1"
    changes = {"checkpoint_epochs": [4, 8, 12], "reductions": ["ALL"], "tasks": ["Brain"]}
    assert drive(place, data=("LIDC=lidc", "Brain=brain"), **changes) == 1
    experiment = read_experiment(place / "experiment.json")
    (found,) = outcomes(experiment, place / "exp")
    assert (found.epochs, found.auc, found.name) == ((4, 8), (0.5, 1), "LIDC_SwAV_ALL_seed0")
    stub.failing = ""
    assert drive(place, data=("LIDC=lidc", "Brain=brain"), **changes) == 0
    assert outcomes(experiment, place / "exp") == [found]
    text = " ".join((place / "exp" / "tables" / "experiment.txt").read_text().split())
    assert "LIDC_SwAV_ALL_seed0 LIDC SwAV ALL 2 folds 0.750 ± 0.354" in text
    assert "for each fold the one with the highest AUC of the fold's own validation pictures" in text
    assert "mean validation AUC" not in text
    kept = [path.parent for path in sorted((place / "exp").rglob("model.safetensors"))]
    assert kept == sorted(found.runs)


def test_a_validation_split_that_lacks_a_class_chooses_nothing(
    place: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.val = {"": None}
    assert drive(place, reductions=["ALL"]) == 0  # there is one checkpoint
    for run in (place / "exp").rglob("metrics.json"):
        record = json.loads(run.read_text())
        run.write_text(json.dumps(record | {"test": {"auc": None}}))
    experiment = read_experiment(place / "experiment.json")
    found = outcomes(experiment, place / "exp")
    assert [len(each.auc) for each in found] == [2]
    assert all(math.isnan(value) for each in found for value in each.auc)
    draw_figure(experiment, place / "exp", found, place / "figure.png")
    for task, data in (("COVID-19", "COVID-19=covid"), ("Brain", "Brain=brain")):
        changes = {"checkpoint_epochs": [4, 8], "reductions": ["ALL"], "tasks": [task]}
        capsys.readouterr()
        assert drive(place, "--output_dir", str(place / "other"), data=("LIDC=lidc", data), **changes) == 2
        said = capsys.readouterr().err
        assert "expected an AUC of the validation split in" in said
        assert "found none: the split lacks a class" in said


def test_an_experiment_names_its_comparisons(place: Path, stub: Stub) -> None:
    reductions = ["EveryN-10%", "HASH-10%", "HASH-6"]
    assert drive(place, reductions=reductions, contrasts=[["HASH-10%", "EveryN-10%"]]) == 0
    rows = list(csv.DictReader((place / "exp" / "tables" / "experiment.csv").open(encoding="utf-8")))
    found = {(row["reduction"], row["baseline"]) for row in rows}
    assert found == {("EveryN-10%", ""), ("HASH-10%", "LIDC_SwAV_EveryN-10pct_seed0_epoch0020"), ("HASH-6", "")}
    assert drive(place, reductions=[*reductions, "ALL"]) == 0
    rows = list(csv.DictReader((place / "exp" / "tables" / "experiment.csv").open(encoding="utf-8")))
    assert {row["reduction"] for row in rows if row["baseline"] == "LIDC_SwAV_ALL_seed0_epoch0020"} == set(reductions)


def test_a_checkpoint_whose_runs_are_not_finished_does_not_count(place: Path, stub: Stub) -> None:
    stub.val = {"epoch0008": 0.9}
    stub.failing = "epoch0008 --run_index 1"
    assert drive(place, checkpoint_epochs=[4, 8], reductions=["ALL"]) == 1
    experiment = read_experiment(place / "experiment.json")
    assert [each.epochs for each in outcomes(experiment, place / "exp")] == [(4, 4)]
    assert len(list((place / "exp").rglob("model.safetensors"))) == 3  # nothing is deleted while runs are to come
    stub.failing = ""
    assert drive(place, checkpoint_epochs=[4, 8], reductions=["ALL"]) == 0
    assert [each.epochs for each in outcomes(experiment, place / "exp")] == [(8, 8)]


def test_fine_tunings_go_seed_by_seed(place: Path, stub: Stub) -> None:
    assert drive(place, pretrain_seeds=[1, 0], runs=1) == 0
    pretrained = [command[command.index("--pretrained") + 1] for command in stub.commands if "--pretrained" in command]
    assert [Path(each).parent.name for each in pretrained] == [
        "LIDC_SwAV_ALL_seed1", "LIDC_SwAV_HASH-6_seed1", "LIDC_SwAV_ALL_seed0", "LIDC_SwAV_HASH-6_seed0",
    ]  # fmt: skip


def test_several_pretrainings_tell_how_much_the_seed_matters(place: Path, stub: Stub) -> None:
    stub.auc = {"seed1": 0.5}
    assert drive(place, pretrain_seeds=[0, 1], reductions=["ALL"]) == 0
    text = " ".join((place / "exp" / "tables" / "experiment.txt").read_text().split())
    assert "one arm of 2 pre-trainings (LIDC_SwAV_ALL_seed0_epoch0020, LIDC_SwAV_ALL_seed1_epoch0020)" in text
    assert "LIDC_SwAV_ALL LIDC SwAV ALL 2 pre-trainings of 2 runs 0.625 ± 0.177" in text


def test_the_figure_has_a_point_for_each_reduction_with_the_deviation_between_pretrainings(
    place: Path, stub: Stub
) -> None:
    stub.auc = {"seed1": 0.5, "HASH-6_seed0": 1.0}
    assert drive(place, pretrain_seeds=[0, 1]) == 0
    experiment = read_experiment(place / "experiment.json")
    axes = Figure().subplots()
    _draw_task(axes, experiment, place / "exp", outcomes(experiment, place / "exp"))
    (ours,) = [each for each in axes.containers if each.get_label() == "LIDC, SwAV"]
    assert sorted(ours[0].get_ydata()) == pytest.approx([(0.75 + 0.5) / 2, (1.0 + 0.5) / 2])
    ends = sorted(segment[:, 1].tolist() for segment in ours[2][0].get_segments())
    for (low, high), (mean, both) in zip(ends, [(0.75, (1.0, 0.5)), (0.625, (0.75, 0.5))], strict=True):
        assert (low, high) == pytest.approx((mean - np.std(both, ddof=1), mean + np.std(both, ddof=1)))
    assert sorted(each.get_text() for each in axes.texts)[-2:] == ["HASH-6", "HASH-6"]  # ours and the paper's
    assert sorted({each.get_text() for each in axes.texts}) == ["ALL", "HASH-6"]


def write_log(folder: Path, *lines: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def test_the_duration_is_that_of_all_sessions(tmp_path: Path) -> None:
    settings = {"batch_size": 32}
    begin = {"event": "begin", "step": 0, "time": "2026-01-01T10:00:00+00:00", "settings": settings}
    stop = {"event": "stop", "step": 40, "time": "2026-01-01T11:30:00+00:00"}
    resume = {"event": "resume", "step": 40, "time": "2026-01-03T00:00:00+00:00", "settings": settings}
    end = {"event": "end", "step": 90, "time": "2026-01-03T00:30:00+00:00"}
    assert training_hours(write_log(tmp_path / "two", begin, stop, resume, end)) == 2.0
    # One that was killed says only how fast it was: 40 steps of 32 pictures at 8 a second are 160 s
    lines = [{"step": step, "loss": 1.0, "images_per_second": 8.0} for step in (10, 20, 40)]
    assert training_hours(write_log(tmp_path / "killed", begin, *lines, resume, end)) == pytest.approx(
        0.5 + 160 / 3600, abs=1e-12
    )


def test_the_paper_is_as_fast_as_it_says() -> None:
    """Section 3.4: 8.7 times for PET-CT, 10.4 times for LIDC."""
    for dataset, factor in (("PET-CT", 8.7), ("LIDC", 10.4)):
        assert PAPER_HOURS[dataset, "ALL"] / PAPER_HOURS[dataset, "HASH-6"] == pytest.approx(factor, abs=0.05)


def test_where_a_training_leaves_its_checkpoint_and_its_network() -> None:
    assert steps.LAST == checkpoint.LAST
    assert results.MODEL == evaluation.MODEL


# The whole way.


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_the_whole_way_on_synthetic_data(tmp_path: Path) -> None:
    """Demo data, reduce, select, pre-train, fine-tune, table; interrupted once, then two steps at a time."""
    path = experiment_file(tmp_path, tasks=["Brain"], reductions=["HASH-6"], runs=1)
    script = ROOT / "scripts" / "reproduce_paper.py"
    line = [sys.executable, str(script), str(path), "--output_dir", str(tmp_path / "exp"), "--tiny"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment(), "text": True, "stderr": subprocess.PIPE}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, **options)
    assert process.stdout is not None
    for said in process.stdout:
        if "reduce/LIDC_hash/HASH-6" in said:  # is done
            break
    process.send_signal(signal.SIGTERM)  # SIGINT is ignored by what a shell started in the background
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert errors == "interrupted: run the same command again to go on\n"
    done = subprocess.run([*line, "--at_once", "2"], stdout=subprocess.PIPE, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\b0 of \d+ steps are done", done.stdout)
    found = json.loads(
        (tmp_path / "exp/evaluate/Brain/LIDC_SwAV_HASH-6_seed0_epoch0002/run_01/metrics.json").read_text()
    )
    assert found["experiment"] == {"pretrain_dataset": "LIDC", "ssl_method": "SwAV", "reduction": "HASH-6"}
    assert found["weights"]["method"] == "swav"
    assert found["settings"]["pretraining_selection"] == "HASH-6"
    rows = (tmp_path / "exp" / "tables" / "experiment.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 3  # encoders, metrics
    for name in ("experiment.md", "experiment.txt"):
        text = " ".join((tmp_path / "exp" / "tables" / name).read_text().split())
        assert "synthetic data and small networks, not to be compared with the paper" in text
        assert "0.678" not in text  # the paper's, from scratch
    assert (tmp_path / "exp" / "tables" / "experiment.png").stat().st_size > 10_000
    shutil.rmtree(tmp_path / "exp")  # networks of half a gigabyte
