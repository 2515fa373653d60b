"""The guide to other trainers runs as it stands, and its scripts write what those ecosystems read."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from helpers import ROOT, bundle_environment

from lessismore_transforms import build_backbone, read_metadata
from lessismore_transforms.cli.main import main

GUIDE = (ROOT / "docs/pages/guides/use_the_slices.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", GUIDE, flags=re.MULTILINE)[1:]}
EXAMPLES = ROOT / "docs" / "examples"


def run(page: str, folder: Path) -> None:
    """Run the blocks of a part of the guide, as the tutorial's are."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bundle_environment().items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
        _, mistakes = runpy.run_path(str(ROOT / "docs/tutorial/run.py"))["run"](page, folder)
    assert mistakes == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands before the first section have run."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "docs").symlink_to(ROOT / "docs")
    run(GUIDE.partition("\n## ")[0], folder)
    return folder


@pytest.mark.slow
def test_lightly(place: Path) -> None:
    pytest.importorskip("lightly", reason="lightly is not installed (extra bench)")
    run(SECTIONS["lightly"], place)
    encoder = build_backbone("resnet18", weights=place / "lightly.safetensors")  # every tensor, or an error
    assert not torch.equal(encoder.conv1.weight, build_backbone("resnet18", weights="random").conv1.weight)
    info = json.loads((place / "out" / "manifest.json").read_text())
    header = read_metadata(place / "lightly.safetensors")
    assert (header["mean"], header["std"]) == ([info["store"]["mean"]], [info["store"]["std"]])


@pytest.mark.slow
def test_a_trainer_in_the_style_of_dino(place: Path) -> None:
    run(SECTIONS["A trainer in the style of DINO"], place)
    tensors = torch.load(place / "dino.pt", weights_only=True)
    assert tensors.keys() == build_backbone("resnet18", weights="random").state_dict().keys()
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.slow
def test_nnunet(tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    run(SECTIONS["nnU-Net"], tmp_path)
    check_format(tmp_path / "Dataset001_Bone", cases=3)


def test_the_loss_of_student_and_teacher_by_hand() -> None:
    """Each large crop of the teacher beside every crop of the student but itself, one pair after the other."""
    dino = SimpleNamespace(**runpy.run_path(str(EXAMPLES / "dino_style.py")))
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(2, 3, generator=generator) for _ in range(4)]
    teacher, center = [torch.randn(2, 3, generator=generator) for _ in range(2)], torch.tensor([0.1, -0.2, 0.3])
    terms = []
    for large in range(2):
        for crop in range(4):
            for picture in range(2):
                p = np.exp((teacher[large][picture] - center).double().numpy() / 0.04)
                q = np.exp(student[crop][picture].double().numpy() / 0.1)
                if crop != large:
                    terms.append(-(p / p.sum() * np.log(q / q.sum())).sum())
    assert dino.dino_loss(student, teacher, center).item() == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's cases, reduced and selected as it says, in this process; read only."""
    folder = tmp_path_factory.mktemp("nnunet")
    (code,) = re.findall(r"^```python\n(.*?)^```", SECTIONS["nnU-Net"], re.MULTILINE | re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(code, {})
    out = str(folder / "out_cases")
    assert main(["reduce", str(folder / "cases"), "--output_dir", out, "--workers", "0", "--no_report"]) == 0
    assert main(["select", out, "--threshold", "6", "--scope", "all", "--name", "across"]) == 0
    return folder


def nnunet(work: Path, name: str, **options: object) -> Path:
    """The folder that the script writes."""
    given = {"labels": ["bone"], "selection": "default", "least": 1, "only_slices": False, **options}
    runpy.run_path(str(EXAMPLES / "nnunet_folder.py"))["main"](work / "cases", work / "out_cases", work / name, **given)
    return work / name


@pytest.fixture(scope="module")
def raw(work: Path) -> Path:
    """The data set of nnU-Net that the guide makes."""
    return nnunet(work, "Dataset001_Bone", selection="across", least=4)


def check_format(raw: Path, cases: int) -> list[str]:
    """The cases of a raw data set, after a check by nnU-Net's documentation of its format."""
    about = json.loads((raw / "dataset.json").read_text())
    assert about.keys() >= {"channel_names", "labels", "numTraining", "file_ending"}
    assert about["channel_names"] == {"0": "CT"}
    assert about["labels"] == {"background": 0, "bone": 1}
    names = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    assert sorted(path.name for path in (raw / "imagesTr").iterdir()) == [f"{name}_0000.nii.gz" for name in names]
    assert len(names) == about["numTraining"] == cases
    for name in names:
        image = nibabel.load(raw / "imagesTr" / f"{name}_0000.nii.gz")
        label = nibabel.load(raw / "labelsTr" / f"{name}.nii.gz")
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)
        # The phantoms' label is bone, from 240 HU on: voxels of image and label are still the same place.
        # One case has noise, so that a voxel near the border tells nothing.
        bone, hu = label.get_fdata(), image.get_fdata()
        assert (bone[hu > 255] == 1).all()
        assert (bone[hu < 225] == 0).all()
        assert bone.any()
    return names


def volumes(out: Path) -> dict[str, str]:
    """The id of each volume by its path."""
    return {record["path"]: record["volume"] for record in json.loads((out / "manifest.json").read_text())["volumes"]}


def test_whole_volumes_for_nnunet(work: Path, raw: Path) -> None:
    names = check_format(raw, cases=3)
    of_path = volumes(work / "out_cases")
    assert names == sorted(of_path[f"case_{number}/ct.nii.gz"] for number in range(3))
    written = nibabel.load(raw / "imagesTr" / f"{of_path['case_1/ct.nii.gz']}_0000.nii.gz")
    there = nibabel.load(work / "cases" / "case_1" / "ct.nii.gz")
    np.testing.assert_array_equal(nibabel.as_closest_canonical(written).get_fdata(),
                                  nibabel.as_closest_canonical(there).get_fdata())  # fmt: skip
    np.testing.assert_allclose(nibabel.as_closest_canonical(written).affine,
                               nibabel.as_closest_canonical(there).affine, atol=1e-4)  # fmt: skip
    assert not any(b"case_" in path.read_bytes() for path in raw.rglob("*.json"))


def test_the_kept_slices_for_nnunet(work: Path) -> None:
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

    from lessismore_transforms import CTVolumeReader, SelectSlicesd

    raw = nnunet(work, "Dataset002_Slices", only_slices=True)
    check_format(raw, cases=4)
    keep = Compose(
        [
            LoadImaged("image", reader=CTVolumeReader()),
            EnsureChannelFirstd("image"),
            SelectSlicesd("image", method="hash", threshold=6),
        ]
    )
    for path, name in volumes(work / "out_cases").items():
        expected = keep({"image": work / "cases" / path})["image"][0].numpy()
        written = nibabel.load(raw / "imagesTr" / f"{name}_0000.nii.gz")
        np.testing.assert_array_equal(written.get_fdata(), expected)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("Bone", {}, "expected a new folder named as Dataset001_NAME, found .*Bone"),
        ("cases", {}, "expected a new folder named as Dataset001_NAME, found .*cases"),
        ("Dataset003_Bone", {"least": 41}, "expected a volume of which 'default' keeps 41 slices or more"),
        ("Dataset003_Bone", {"labels": []}, "expected labels 0 to 0, found 1 in .*label.nii.gz: --labels"),
    ],
)
def test_mistakes_are_one_sentence(work: Path, name: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: {sentence}"):
        nnunet(work, name, **options)
    assert not (work / "Dataset003_Bone").exists()


@pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is None, reason="nnunetv2 is not installed")
def test_nnunet_itself_accepts_the_folder(raw: Path, tmp_path: Path) -> None:
    code = (
        "from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity as verify\n"
        f"if __name__ == '__main__': verify({str(raw)!r}, 1)\n"
    )
    (tmp_path / "verify.py").write_text(code)
    places = {f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed", "results")}
    line = [sys.executable, str(tmp_path / "verify.py")]
    done = subprocess.run(line, env={**os.environ, **places}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "verify_dataset_integrity Done" in done.stdout
    assert "Warning" not in done.stdout
    assert "Error" not in done.stdout
