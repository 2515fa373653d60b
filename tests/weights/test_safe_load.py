"""Damaged and malicious files: one sentence each, that names the file and repeats no advice to load it unsafely."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lessismore_transforms.classification.network import load_classifier, weights_of
from lessismore_transforms.errors import UserError
from lessismore_transforms.training.checkpoint import read_checkpoint
from lessismore_transforms.weights.backbones import read_metadata, read_tensors
from lessismore_transforms.weights.safe_load import load_safely

ADVICE = ("weights_only", "trust", "allow_pickle", "unsafely", "add_safe_globals", "pytorch.org", "file an issue")


class Attack:
    """An object whose reading calls a function."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("made",)


def refused(path: Path) -> list[str]:
    """The sentences of all who read such a file and refuse it."""
    readers = [read_tensors, weights_of, load_classifier if path.suffix == ".safetensors" else read_checkpoint]
    found = []
    for read in [*readers, read_metadata]:
        try:
            read(path)
        except UserError as error:
            found.append(str(error))
    for text in found:
        assert str(path) in text
        assert "\n" not in text
        assert not [words for words in ADVICE if words in text], text
        assert ": " in text or "; " in text, text  # and then what to do
    return found


def files(folder: Path) -> dict[str, bytes]:
    tensors = {"conv1.weight": torch.arange(216.0).reshape(8, 3, 3, 3), "bn1.weight": torch.ones(8)}
    torch.save(tensors, folder / "a.pt")
    torch.save(tensors, folder / "a.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, folder / "a.safetensors", {"method": "moco"})
    return {name: (folder / name).read_bytes() for name in ("a.pt", "a.pth", "a.safetensors")}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.safetensors"])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    whole, path = files(tmp_path)[name], tmp_path / name
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        texts = refused(path)
        assert len(texts) >= 3, length
        assert "found a file that is damaged or unsafe (" in texts[0]
        assert texts[0].endswith(": copy or download it again")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.safetensors"])
def test_flipped_bits_are_one_sentence_or_do_not_matter(tmp_path: Path, name: str) -> None:
    whole, path, random = files(tmp_path)[name], tmp_path / name, np.random.default_rng(0)
    texts: list[str] = []
    for _ in range(60):
        changed = bytearray(whole)
        changed[random.integers(min(len(whole), 600))] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        texts += refused(path)
    assert len(texts) > 30


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_tensor_is_named_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    content = {"state_dict": {"conv1.weight": torch.zeros(1)}, "more": Attack()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    *weights, checkpoint = sorted(refused(path), key=lambda text: "a checkpoint with its checksum" in text)
    assert "expected a checkpoint with its checksum" in checkpoint  # it is not looked into
    for text in weights:
        assert f"found {os.name}.mkdir, which is not known to be safe and was not executed: ask for a file" in text
    assert len(weights) == 2
    assert not Path("made").exists()


@pytest.mark.filterwarnings("error")
def test_other_files_under_such_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for content in (b"hello", b"<html>", pickle.dumps({"a": np.zeros(3)}), b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'}"):
        path.write_bytes(content)
        assert len(refused(path)) == 3, content
    with pytest.raises(UserError, match=r"^cannot read .*: Is a directory: fix the path or its permissions$"):
        load_safely(tmp_path)
