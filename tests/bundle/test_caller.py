"""A configuration that a parser of MONAI alone evaluates, without a workflow and its `initialize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import BUNDLES, tiny_settings
from monai.bundle import ConfigParser

from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduction.target import Target


@pytest.mark.usefixtures("one_thread")
def test_a_trainer_of_a_parser_alone(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path / "out", Settings(Target.of(threshold=3)), workers=0)
    given: dict[str, Any] = {
        **tiny_settings()["swav"],
        "bundle_root": str(BUNDLES / "ct_swav_pretraining"),
        "dataset_dir": str(tmp_path / "out"),
        "output_dir": str(tmp_path / "run"),
        "batch_size": 4,
        "max_steps": 2,
        "backbone": "resnet18",
        "device": "cpu",
        "workers": 0,
    }
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / "ct_swav_pretraining" / "configs" / "train.json"))
    parser.update(pairs=given)
    trainer = parser.get_parsed_content("train#trainer")
    trainer.run()
    assert trainer.state.iteration == 2
    assert (tmp_path / "run" / "backbone.safetensors").is_file()


def test_a_configuration_is_kept_as_it_was_written() -> None:
    """MONAI makes `::` of the `#` in references; what else has two colons stays."""
    parser = ConfigParser(
        {
            "imports": ["$import lessismore_transforms.bundle as lm"],
            "train": {"steps": [1, 2, 3, 4]},
            "every_second": "$@train#steps[::2]",
            "steps": "@train#steps",
            "note": "of std::vector, by @somebody::else",
            "bundle_root": ".",
            "kept": "$lm.configuration()",
        }
    )
    kept = parser.get_parsed_content("kept")
    assert parser.get_parsed_content("every_second") == [1, 3]
    assert kept["every_second"] == "$@train#steps[::2]"
    assert kept["steps"] == "@train#steps"
    assert kept["note"] == "of std::vector, by @somebody::else"
    assert "bundle_root" not in kept
