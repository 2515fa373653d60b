from __future__ import annotations

from pathlib import Path

import pytest
from report_cases import (
    Case,
    make_out,
)

from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.report.anonymise import anonymiser


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Doe^John 1970/CT 3/IM0.dcm: truncated", "truncated"),
        ("a copy of Doe^John 1970/CT 3/IM1.dcm (same SOPInstanceUID)", "a copy of … (same SOPInstanceUID)"),
        ("at the same position as IM1.dcm, which was kept", "at the same position as …, which was kept"),
        ("/mnt/My Data/Doe^John 1970/CT 3/IM1.dcm: No such file", "No such file"),
        ("cannot identify image file '/mnt/My Data/x y.png'", "cannot identify image file …"),
        ("could not convert b'DOE^JANE' to float", "could not convert … to float"),
        ("series 1.2.840.99999.1 of patient-0815.", "series … of …"),
        (r"C:\Users\Jane Doe\scan.nii is damaged", "is damaged"),
        ("no CT image: modality MR, MR Image Storage", "no CT image: modality MR, MR Image Storage"),
        ("the file isn't complete: it's 3.5 MB", "the file isn't complete: it's 3.5 MB"),
        ("Doe^John 1970/CT 3/IM0.dcm", "no reason given"),
    ],
)  # fmt: skip
def test_messages_lose_what_is_private(tmp_path: Path, message: str, expected: str) -> None:
    assert anonymiser(Manifest.read(make_out(tmp_path, [Case([0, 1])])))(message) == expected
