"""A user's mistake as one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessismore_transforms.errors import ManifestError, UserError, VolumeError, first_line, reading


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError) as missing, reading(tmp_path / "a"):
        (tmp_path / "a").read_text()
    assert (
        str(missing.value)
        == f"cannot read {tmp_path / 'a'}: No such file or directory: fix the path or its permissions"
    )
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(VolumeError, match="expected text in A, found bytes that are none"), reading("A", VolumeError):
        (tmp_path / "a").read_text(encoding="utf-8")


def test_other_exceptions_pass() -> None:
    with pytest.raises(ManifestError, match="mine"), reading("A", VolumeError):
        raise ManifestError("mine")
    with pytest.raises(ValueError, match="a defect") as raised, reading("A"):
        raise ValueError("a defect")
    assert not isinstance(raised.value, UserError)


def test_first_line() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
