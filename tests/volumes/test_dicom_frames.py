"""Enhanced CT, one file of many frames, made from phantoms; the oracle is pydicom's own pixel_array."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers import stack
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage, RLELossless

from lessismore_transforms.phantom import PhantomScan, phantom_scan, write_dicom
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.store import fill_store
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.transforms import CTVolumeReader
from lessismore_transforms.volumes import Crc32, find_volumes, read_slices
from lessismore_transforms.volumes.discovery import checksum

FRAMES, SIZE = 10, 40


@pytest.fixture(scope="module")
def scan() -> PhantomScan:
    return phantom_scan(5, slices=FRAMES, size=SIZE)


def group(**values: object) -> list[Dataset]:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


def enhanced(scan: PhantomScan, folder: Path, *, kind: str = EnhancedCTImageStorage) -> Path:
    """The scan as one file; frames stand in a mixed order and have two rescales."""
    slices = [pydicom.dcmread(path) for path in write_dicom(scan, folder / "classic")]
    order = np.random.default_rng(1).permutation(len(slices))
    dataset = pydicom.dcmread(folder / "classic" / "IM_0001.dcm")
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                    "RescaleIntercept", "InstanceNumber"):  # fmt: skip
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.NumberOfFrames = len(slices)
    shared, frames, pixels = Dataset(), [], []
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=slices[0].ImageOrientationPatient)
    shared.PixelMeasuresSequence = group(PixelSpacing=slices[0].PixelSpacing, SliceThickness=2.0)
    for number in order:
        own, offset = Dataset(), 24 if number % 2 else 0
        own.PlanePositionSequence = group(ImagePositionPatient=slices[number].ImagePositionPatient)
        own.PixelValueTransformationSequence = group(RescaleSlope=1, RescaleIntercept=-1024 - offset)
        own.FrameContentSequence = group(FrameAcquisitionNumber=1)
        frames.append(own)
        pixels.append(slices[number].pixel_array + np.uint16(offset))
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    dataset.PixelData = np.stack(pixels).astype("<u2").tobytes()
    place = folder / "data" / "p1" / "ct.dcm"
    place.parent.mkdir(parents=True)
    dataset.save_as(place)
    return place


@pytest.mark.parametrize("kind", [EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage])
@pytest.mark.parametrize("compressed", [False, True])
def test_frames_are_slices_in_the_order_of_their_places(
    scan: PhantomScan, tmp_path: Path, kind: str, compressed: bool
) -> None:
    path = enhanced(scan, tmp_path, kind=kind)
    if compressed:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    root = tmp_path / "data"
    found = find_volumes(root)
    assert found.skipped == []
    (volume,) = found.volumes
    np.testing.assert_array_equal(stack(found, root), scan.hu)
    assert volume.path == "p1/ct.dcm"
    assert volume.shape == (FRAMES, SIZE, SIZE)
    np.testing.assert_allclose(volume.spacing_mm, scan.spacing_mm)
    assert volume.as_dict(root)["image"] == str(path)
    assert volume.notes == ("2 different rescales, each applied to its own slices",)
    crc, expected = Crc32(), Crc32()
    list(read_slices(volume, root, crc))
    expected.update(path.read_bytes())
    assert str(crc) == str(expected) == checksum(volume, root)


def test_an_enhanced_file_is_reduced_as_the_classic_series_is(scan: PhantomScan, tmp_path: Path) -> None:
    path = enhanced(scan, tmp_path)
    for name, data in (("one", tmp_path / "data"), ("many", tmp_path / "classic")):
        reduce_dataset(data, tmp_path / name, workers=0)
    one, many = (Manifest.read(tmp_path / name).slices for name in ("one", "many"))
    assert one["hash"].tolist() == many["hash"].tolist()
    assert set(one["path"]) == {"p1/ct.dcm"}
    select(tmp_path / "one", Target.of(threshold=0), "all")
    selection = Manifest.read(tmp_path / "one").read_selection("all")
    assert fill_store(tmp_path / "one", selection) > 0
    image, _ = CTVolumeReader().get_data(CTVolumeReader().read(path))
    np.testing.assert_array_equal(image.transpose(2, 1, 0), scan.hu)


def edit(path: Path, change: object) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)  # type: ignore[operator]
    dataset.save_as(path)


def test_scout_frames_other_directions_and_repeated_places(scan: PhantomScan, tmp_path: Path) -> None:
    path = enhanced(scan, tmp_path)

    def change(dataset: pydicom.Dataset) -> None:
        frames = dataset.PerFrameFunctionalGroupsSequence
        frames[0].CTImageFrameTypeSequence = group(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])
        frames[1].PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
        place = frames[3].PlanePositionSequence[0].ImagePositionPatient
        frames[2].PlanePositionSequence = group(ImagePositionPatient=list(place))

    edit(path, change)
    found = find_volumes(tmp_path / "data")
    assert sorted(volume.shape[0] for volume in found.volumes) == [1, FRAMES - 3]
    assert {(item.path, item.reason) for item in found.skipped} == {
        ("p1/ct.dcm", "1 of its 10 frames: a localizer (scout view), not a slice"),
        ("p1/ct.dcm", "frame 4: at the same position as p1/ct.dcm, which was kept"),
    }
    assert sum(volume.shape[0] for volume in found.volumes) + len(found.skipped) == FRAMES


@pytest.mark.parametrize(
    ("content", "shapes"),
    [
        (lambda k, n: {"FrameAcquisitionNumber": k}, [FRAMES, FRAMES]),
        (lambda k, n: {"FrameAcquisitionNumber": k // n}, [FRAMES, FRAMES]),
        (lambda k, n: {"FrameAcquisitionNumber": k, "TemporalPositionIndex": k // n + 1}, [FRAMES, FRAMES]),
        (lambda k, n: {"FrameAcquisitionNumber": 1, "StackID": str(k // n)}, [FRAMES, FRAMES]),
        (lambda k, n: {"FrameAcquisitionNumber": 1}, [FRAMES]),
    ],
)
def test_two_phases_are_two_volumes(scan: PhantomScan, tmp_path: Path, content: object, shapes: list[int]) -> None:
    """Whatever tells them apart; the second is darker."""
    path = enhanced(scan, tmp_path)

    def change(dataset: pydicom.Dataset) -> None:
        frames = list(dataset.PerFrameFunctionalGroupsSequence)
        dataset.PerFrameFunctionalGroupsSequence = [copy.deepcopy(frame) for frame in frames * 2]
        for k, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            frame.FrameContentSequence = group(**content(k, FRAMES))  # type: ignore[operator]
            if k >= FRAMES:
                frame.PixelValueTransformationSequence[0].RescaleIntercept -= 7
        dataset.NumberOfFrames, dataset.PixelData = 2 * FRAMES, dataset.PixelData * 2

    edit(path, change)
    found = find_volumes(tmp_path / "data")
    assert [volume.shape[0] for volume in found.volumes] == shapes
    assert sum(shapes) + len(found.skipped) == 2 * FRAMES
    means = sorted(stack(found, tmp_path / "data", number).mean() for number in range(len(shapes)))
    np.testing.assert_allclose(means, [scan.hu.mean() - 7, scan.hu.mean()][-len(shapes) :])


def test_frames_of_two_files_may_alternate(scan: PhantomScan, tmp_path: Path) -> None:
    """Each file is read once, and found unchanged by a second run."""
    path = enhanced(scan, tmp_path)
    other = path.with_name("b.dcm")
    whole = pydicom.dcmread(path)
    places = [
        float(item.PlanePositionSequence[0].ImagePositionPatient[2]) for item in whole.PerFrameFunctionalGroupsSequence
    ]
    order = np.argsort(places)
    for number, file in enumerate((path, other)):
        frames = sorted(order[number::2].tolist())
        part = pydicom.dcmread(path) if file == path else whole
        part.PerFrameFunctionalGroupsSequence = [whole.PerFrameFunctionalGroupsSequence[i] for i in frames]
        part.PixelData = np.stack([whole.pixel_array[i] for i in frames]).tobytes()
        part.NumberOfFrames = len(frames)
        part.SOPInstanceUID = f"1.2.3.{number}"
        part.save_as(file)
    found = find_volumes(tmp_path / "data")
    np.testing.assert_array_equal(stack(found, tmp_path / "data"), scan.hu)
    for resumed in (0, 1):
        assert reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0).resumed == resumed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "10 frames, but 9 groups that tell where they are"),
        (lambda d: setattr(d, "NumberOfFrames", 9), "9 frames, but 10 groups that tell where they are"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-800]), "31200 of 32000 bytes of pixels"),
        (lambda d: setattr(d, "Modality", "PT"), "an enhanced image of another modality"),
        (lambda d: setattr(d, "SamplesPerPixel", 3), "3 samples per pixel: a colour picture, not HU"),
        (lambda d: delattr(d, "PixelData"), "no pixel data"),
        (lambda d: delattr(d.PerFrameFunctionalGroupsSequence[4], "PlanePositionSequence"), "its place is unknown"),
    ],
)
def test_what_holds_no_ct_slices_is_listed(scan: PhantomScan, tmp_path: Path, change: object, reason: str) -> None:
    path = enhanced(scan, tmp_path)
    edit(path, change)
    found = find_volumes(tmp_path / "data")
    assert found.volumes == []
    ((name, why),) = [(item.path, item.reason) for item in found.skipped]
    assert name == "p1/ct.dcm"
    assert reason in why
