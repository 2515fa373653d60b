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


FOLDER = "Zorro 'Maxi' Musterfrau"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"none of its 4 slices can be read; the first: {FOLDER}/IM0.dcm: truncated",
         "none of its 4 slices can be read; the first: …: truncated"),
        (f"{FOLDER}/IM0.dcm: the file is truncated", "the file is truncated"),
        (f"a copy of {FOLDER}/my IM1.dcm (same SOPInstanceUID)", "a copy of … (same SOPInstanceUID)"),
        ("at the same position as Roe Jane 7.dcm, which was kept", "at the same position as …, which was kept"),
        ("has the same slice number as Roe Jane/my 7.png, which was kept",
         "has the same slice number as …, which was kept"),
        ("a link to what was read before, by another path: Roe Jane",
         "a link to what was read before, by another path: …"),
        ("what is in Roe Jane/IM0.dcm is no CT", "what is in … is no CT"),
        ("the voxels cannot be read: Jane x.raw is not there; copy it",
         "the voxels cannot be read: … is not there; copy it"),
    ],
)  # fmt: skip
def test_messages_lose_the_folder_of_a_volume_without_rows(tmp_path: Path, message: str, expected: str) -> None:
    failures = [{"path": FOLDER, "reason": ""}, {"path": "Roe Jane/CT 3", "reason": ""}]
    out = make_out(tmp_path, [Case([0, 1])], failures=failures)
    assert anonymiser(Manifest.read(out))(message) == expected
