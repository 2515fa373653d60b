"""Overrides of a bundle: booleans, misspelt ids, whose mistake an exception is."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from types import ModuleType

import pytest
import yaml
from monai.bundle import ConfigWorkflow, create_workflow
from torch.utils.data import DataLoader

import lessismore_transforms
from lessismore_transforms.bundle import overrides
from lessismore_transforms.bundle.mistakes import one_sentence, say_mistakes
from lessismore_transforms.bundle.overrides import (
    check_kind,
    known_ids,
    parse_bool,
    unknown_ids,
)
from lessismore_transforms.errors import UserError

BASE = {
    "imports": ["$from lessismore_transforms.bundle.overrides import check_overrides"],
    "lr": 0.1,
    "names": {"0": "no"},
    "spare": 1,
    "optimizer": {"_target_": "torch.optim.SGD", "params": "$[]", "lr": "@lr"},
    "train": {"epochs": 3, "sampler": None, "loader": {"_target_": "dict", "names": "@names", "n": "@train#epochs"}},
    "initialize": ["$check_overrides()"],
    "run": ["$@train#loader"],
}
OVERLAY = {"train#sampler": "$None", "backend": "gloo", "+names": {"1": "yes"}}


@pytest.fixture
def bundle(tmp_path):
    configs = tmp_path / "configs"
    configs.mkdir()
    for name, content in (("train", BASE), ("multi_gpu_train", OVERLAY), ("metadata", {"version": "1"})):
        (configs / f"{name}.json").write_text(json.dumps(content))
    return configs


def start(bundle, *files, **given):
    config_file = [str(bundle / f"{name}.json") for name in ("train", *files)]
    workflow = ConfigWorkflow(config_file, logging_file=False, **given)
    workflow.initialize()
    return workflow.run()


@pytest.mark.parametrize(
    ("given", "value"), [(True, True), (False, False), ("true", True), ("False", False), ("TRUE", True)]
)
def test_booleans(given, value):
    assert parse_bool(given) is value


@pytest.mark.parametrize("given", ["yes", 1, 0, None, "", "truee"])
def test_no_booleans(given):
    with pytest.raises(ValueError, match=f"expected true or false, found {given!r}"):
        parse_bool(given)


def test_known_ids(bundle):
    assert {"lr", "names", "names#0", "names#1", "train", "train#epochs", "train#sampler", "backend"} <= set(
        known_ids(bundle.glob("*.json"))
    )
    assert not {"version", "optimizer#lr", "train#loader#n"} & set(known_ids(bundle.glob("*.json")))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"lr": 1, "spare": 2},
        {"train#epochs": 5},
        {"train::epochs": 5},
        {"backend": "nccl"},  # stands in the overlay only
        {"optimizer#momentum": 0.9},  # an argument: its component judges
        {"names#7": "more"},  # part of what the loader is given as a whole
        {"helper": 3, "lr": "$@helper * 2"},
        {"bundle_root": "/elsewhere", "tracking_uri": "x", "run_name": "y"},
        {"workflow_type": "infer"},
    ],
)
def test_what_is_right_passes(bundle, given):
    ((loader,),) = (start(bundle, **given),)
    assert loader["n"] == given.get("train#epochs", given.get("train::epochs", 3))


def test_an_overlay_passes(bundle):
    assert start(bundle, "multi_gpu_train")[0]["names"] == {"0": "no", "1": "yes"}


@pytest.mark.parametrize(
    ("given", "closest"),
    [
        ({"rl": 1}, "lr"),
        ({"epochs": 1}, "train#epochs"),
        ({"train#epoch": 1}, "train#epochs"),
        ({"train::smapler": 1}, "train#sampler"),
        ({"bakend": "x"}, "backend"),
        ({"optimiser": {"a": 1}}, "optimizer"),
    ],
)
def test_what_is_misspelt_stops_before_the_run(bundle, given, closest, capsys, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        start(bundle, **given)
    assert stopped.value.code == 2
    (name,) = (name.replace("::", "#") for name in given)
    assert capsys.readouterr().err == f"error: the bundle has no setting {name!r}: the closest one is {closest!r}\n"


def test_the_way_of_the_command_line(bundle):
    given = {"config_file": str(bundle / "train.json"), "logging_file": False}
    assert create_workflow(**given, lr=2).parser["lr"] == 2
    with pytest.raises(SystemExit):
        create_workflow(**given, rl=2)


def test_files_of_other_kinds_and_places_may_have_entries_of_their_own(bundle, tmp_path, capsys):
    whole, own = tmp_path / "mine" / "whole.yaml", tmp_path / "mine" / "own.yml"
    own.parent.mkdir()
    whole.write_text(yaml.safe_dump(BASE | {"remark": "tried in May"}))
    own.write_text("remark: tried in May\nlr: 0.5\n")
    train = str(bundle / "train.json")
    assert create_workflow(config_file=str(whole), logging_file=False).parser["remark"] == "tried in May"
    files = [train, str(own)]
    assert create_workflow(config_file=files, logging_file=False).parser["lr"] == 0.5
    with pytest.raises(SystemExit, match="2"):
        create_workflow(config_file=files, logging_file=False, remrak="x")
    assert "the closest one is 'remark'" in capsys.readouterr().err


def test_missing_sections_are_refused_by_monai(bundle):
    with pytest.raises(KeyError, match="trian"):
        start(bundle, **{"trian#epochs": 1})


def test_only_the_unknown_is_named():
    assert unknown_ids(
        {"a": {"b": 1, "c": {"_target_": "x", "d": 2}}, "e": "@f#g", "f": {}, "_meta_": {"z": 1}}, "ae"
    ) == [
        "a#b",
        "a#c",
    ]


def test_outside_of_a_bundle():
    with pytest.raises(RuntimeError, match=r"no `monai.bundle.ConfigWorkflow` is among the callers"):
        overrides.check_overrides()


def test_one_sentence(capsys):
    with pytest.raises(SystemExit) as stopped, one_sentence():
        raise UserError("this is wrong")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: this is wrong\n"
    with pytest.raises(ValueError, match="of a library"), one_sentence():
        raise ValueError("of a library: a bug keeps its traceback")


@pytest.mark.parametrize(
    ("value", "default", "words"),
    [
        (2020, "folder", 'text such as "folder", found 2020'),
        (0.5, [0.1], r"a list such as \[0.1\], found 0.5"),
        (32.5, 224, "a whole number such as 224, found 32.5"),
        (True, 224, "a whole number such as 224, found True"),
        ("abc", 0.1, "a number such as 0.1, found 'abc'"),
    ],
)
def test_a_setting_of_another_kind_is_refused(value, default, words):
    with pytest.raises(ValueError, match=f"expected it to be {words}"):
        check_kind("it", value, default)


@pytest.mark.parametrize(
    ("value", "default"), [(3, 0.1), (["a", "b"], "a"), ("true", False), ("$1 + 1", 3), ("x", None), (5, "@queue")]
)
def test_a_setting_of_a_kind_that_fits(value, default):
    check_kind("it", value, default)


def refuse(what: str = "defect") -> None:
    """A component that stands for one of ours."""
    if what == "mistake":
        raise UserError("expected this, found that: do so")
    int("ten")


refuse.__module__ = "lessismore_transforms.refuse"


def said(bundle, capsys, **loader):
    with pytest.raises(RuntimeError) as raised:
        start(bundle, **{"train#loader": loader})
    with suppress(SystemExit):
        sys.excepthook(RuntimeError, raised.value, raised.value.__traceback__)
    return capsys.readouterr().err


@pytest.mark.usefixtures("hook")
def test_what_a_library_refuses_is_one_sentence(bundle, capsys):
    text = said(bundle, capsys, _target_="int", x="@lr", base="ten")
    assert "error: int cannot take what it was given: " in text
    assert "Traceback" not in text


@pytest.fixture
def ours(monkeypatch):
    """The name of a component of this package: what the tests put there."""
    module = ModuleType("lessismore_transforms.refuse")
    module.refuse = refuse
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(lessismore_transforms, "refuse", module, raising=False)
    return "lessismore_transforms.refuse.refuse"


@pytest.mark.usefixtures("hook")
def test_a_mistake_that_ours_finds_is_one_sentence(bundle, capsys, ours):
    text = said(bundle, capsys, _target_=ours, what="mistake")
    assert [line for line in text.splitlines() if line.startswith("error: ")] == [
        "error: expected this, found that: do so"
    ]
    assert "Traceback" not in text


@pytest.mark.usefixtures("hook")
def test_an_argument_that_ours_has_not_is_one_sentence(bundle, capsys, ours):
    text = said(bundle, capsys, _target_=ours, wath="mistake")
    assert f"error: {ours} cannot take what it was given: " in text
    assert "'wath'" in text
    assert "Traceback" not in text


@pytest.mark.usefixtures("hook")
def test_any_other_exception_in_ours_shows_its_traceback(bundle, capsys, ours):
    text = said(bundle, capsys, _target_=ours)
    assert "Traceback (most recent call last)" in text
    assert "ValueError: invalid literal for int() with base 10: 'ten'" in text
    assert "error: " not in [line[:7] for line in text.splitlines()]


class Wrong:
    """A data set that finds a mistake when a worker reads it."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise UserError("expected a picture, found none: fix it")


@pytest.mark.usefixtures("hook")
def test_a_mistake_in_a_worker_of_a_loader_is_one_sentence(capsys):
    with pytest.raises(UserError) as raised:
        next(iter(DataLoader(Wrong(), num_workers=1)))
    say_mistakes()
    with pytest.raises(SystemExit, match="2"):
        sys.excepthook(raised.type, raised.value, raised.tb)
    assert capsys.readouterr().err == "error: expected a picture, found none: fix it\n"


def test_ids_of_what_runs_something_else_are_unknown(tmp_path):
    (tmp_path / "train.json").write_text('{"learning_rate": 1, "run": ["$train()"]}')
    (tmp_path / "as_released.json").write_text('{"momentum": 1}')
    (tmp_path / "inference.json").write_text('{"batch_size": 1, "run": ["$infer()"]}')
    files = sorted(tmp_path.glob("*.json"))
    known = known_ids(files, {"batch_size": 2, "momentum": 0, "run": ["$infer()"]})
    assert {"batch_size", "momentum"} <= set(known)
    assert "learning_rate" not in known
    assert {"batch_size", "momentum", "learning_rate"} <= set(known_ids(files))


def test_ids_of_an_evaluation_are_none_of_the_training_that_it_is_read_over(tmp_path):
    train = {"lr": 1, "gate": 2, "run": ["$@gate", "$train()"]}
    evaluate = {"weights": "w", "loaded": "$load(@weights)", "run": ["$@gate", "$score()"]}
    for name, content in (("train", train), ("evaluate", evaluate)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = sorted(tmp_path.glob("*.json"))
    assert "weights" not in known_ids(files, {**train, "weights": "mine"})
    assert {"weights", "lr"} <= set(known_ids(files, train | evaluate))
