"""A command run by the configuration of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from lessismore_transforms.cli import main as command_line
from lessismore_transforms.cli.bundled import command_line_of

SELECT: dict[str, Any] = {
    "output_dir": "OUT", "name": "strict", "method": "hash", "threshold": None, "fraction": None, "rule": None,
    "step": None, "step_mm": None, "offset": 0, "seed": 0, "scope": "volume", "like": None,
    "near": 0, "order": "thinnest", "fill_store": False, "dataset_dir": None,
}  # fmt: skip
AMOUNTS = ["--offset=0", "--seed=0", "--scope=volume", "--near=0"]
SAID = ["select", "OUT", "--name=strict", "--method=hash", *AMOUNTS, "--order=thinnest"]


def test_words_of_values_as_they_stand_in_a_configuration() -> None:
    assert command_line_of("select", SELECT) == SAID
    assert command_line_of("select", {**SELECT, "fill_store": "True"})[-1] == "--fill_store"
    assert command_line_of("select", {**SELECT, "fill_store": None}) == SAID
    assert command_line_of("select", {**SELECT, "threshold": 3, "order": ""})[3:] == [
        "--method=hash", "--threshold=3", *AMOUNTS, "--order=",
    ]  # fmt: skip
    compared = {"outputs": "OUT", "selections": ["a", "-b"], "output_dir": None}
    assert command_line_of("compare", compared) == ["compare", "OUT", "--selections=a", "--selections=-b"]


def workflow(folder: Path, **overrides: Any) -> ConfigWorkflow:
    (folder / "configs").mkdir(exist_ok=True)
    content = {
        "imports": ["$from lessismore_transforms.cli.bundled import run_command"],
        **{name: value for name, value in SELECT.items() if name != "output_dir"},
        "root": "/data",
        "out": "$@root + '/out'",
        "run": ["$run_command('select', output_dir=@out)"],
    }
    path = folder / "configs" / "select.json"
    path.write_text(json.dumps(content))
    return ConfigWorkflow(str(path), logging_file=False, **overrides)


def test_options_take_the_settings_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(command_line, "main", lambda line: seen.append(line) or 0)
    chosen = workflow(tmp_path, threshold="$2 * 3", rule="pairs", fill_store="true")
    chosen.initialize()
    chosen.run()
    assert seen == [
        ["select", "/data/out", "--name=strict", "--method=hash", "--threshold=6", "--rule=pairs", *AMOUNTS,
         "--order=thinnest", "--fill_store"]
    ]  # fmt: skip


def test_the_exit_code_of_the_command_is_that_of_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "main", lambda line: 1)
    chosen = workflow(tmp_path)
    chosen.initialize()
    with pytest.raises(SystemExit) as stopped:
        chosen.run()
    assert stopped.value.code == 1
