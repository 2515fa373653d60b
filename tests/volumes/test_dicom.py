from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers import stack
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lessismore_transforms.phantom import PhantomScan, phantom_scan, write_dicom
from lessismore_transforms.volumes import Crc32, Found, find_volumes, read_slices, volume_id

SLICES, SIZE = 12, 40


@pytest.fixture(scope="module")
def scan() -> PhantomScan:
    return phantom_scan(3, slices=SLICES, size=SIZE)


@pytest.fixture
def series(scan: PhantomScan, tmp_path: Path) -> list[Path]:
    """The files of one series below tmp_path/data, feet to head."""
    return write_dicom(scan, tmp_path / "data" / "p1" / "s1")


def edit(path: Path, change: Callable[[pydicom.Dataset], object]) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def save_as(path: Path, syntax: str) -> None:
    """Write a file again in another little-endian transfer syntax."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)


def find(series: list[Path]) -> Found:
    return find_volumes(series[0].parents[2])


def test_a_series_is_one_volume_feet_to_head(series: list[Path], scan: PhantomScan) -> None:
    found = find(series)
    (volume,) = found.volumes
    root = series[0].parents[2]
    np.testing.assert_array_equal(stack(found, root), scan.hu)
    assert found.skipped == []
    assert volume.series == pydicom.dcmread(series[0]).SeriesInstanceUID
    assert volume.volume == volume_id(volume.series)
    assert volume.patient == scan.patient
    assert volume.shape == (SLICES, SIZE, SIZE)
    np.testing.assert_allclose(volume.spacing_mm, scan.spacing_mm)
    np.testing.assert_allclose(volume.positions_mm, scan.origin_mm[2] + scan.spacing_mm[0] * np.arange(SLICES))
    assert volume.as_dict(root)["image"] == [str(path) for path in series]
    assert volume.notes == ()


def test_the_checksum_covers_every_byte_in_slice_order(series: list[Path]) -> None:
    root, crc, expected = series[0].parents[2], Crc32(), Crc32()
    list(read_slices(find(series).volumes[0], root, crc))
    for path in series:
        expected.update(path.read_bytes())
    assert crc.value == expected.value


def test_names_and_instance_numbers_decide_nothing(series: list[Path], scan: PhantomScan) -> None:
    for number, path in enumerate(np.random.default_rng(0).permutation(series)):
        edit(path, lambda dataset, number=number: setattr(dataset, "InstanceNumber", number))
        path.rename(path.with_name(f"x{number}"))  # no suffix either
    np.testing.assert_array_equal(stack(find(series), series[0].parents[2]), scan.hu)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_any_plane_and_direction_gets_the_canonical_orientation(plane: str, series: list[Path]) -> None:
    # Slices stored in the opposite of each canonical direction: rows and columns swapped and flipped.
    directions = {
        "axial": [0, -1, 0, -1, 0, 0],
        "coronal": [0, 0, 1, -1, 0, 0],
        "sagittal": [0, 0, 1, 0, -1, 0],
    }[plane]
    normal = np.cross(directions[:3], directions[3:])
    for k, path in enumerate(series):
        edit(path, lambda dataset, k=k: setattr(dataset, "ImageOrientationPatient", directions))
        edit(path, lambda dataset, k=k: setattr(dataset, "ImagePositionPatient", (k * 2.0 * normal).tolist()))
    found, root = find(series), series[0].parents[2]
    stored = np.stack([pydicom.dcmread(path).pixel_array.astype(float) for path in series]) - 1024
    increasing = normal[np.abs(normal).argmax()] > 0  # canonical slices run along the larger LPS coordinate
    expected = stored.transpose(0, 2, 1)[:, ::-1, ::-1][:: 1 if increasing else -1]
    np.testing.assert_array_equal(stack(found, root), expected)
    assert found.volumes[0].orientation.plane == plane
    assert (np.diff(found.volumes[0].positions_mm) > 0).all()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_transfer_syntaxes(series: list[Path], scan: PhantomScan, syntax: str) -> None:
    for path in series:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            list(dataset.iterall())  # decodes every element, so that all are encoded anew
            pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False)
        else:
            save_as(path, syntax)
    found = find(series)
    np.testing.assert_array_equal(stack(found, series[0].parents[2]), scan.hu)
    assert (found.volumes[0].slices[0].offset >= 0) == (syntax == ImplicitVRLittleEndian)


def test_compressed_pixels(series: list[Path], scan: PhantomScan) -> None:
    for path in series:
        edit(path, lambda dataset: dataset.compress(RLELossless, generate_instance_uid=False))
    np.testing.assert_array_equal(stack(find(series), series[0].parents[2]), scan.hu)


@pytest.mark.parametrize(
    ("kind", "name"), [("JPEG", "JPEG Lossless"), ("JPEG2000", "JPEG 2000 Image Compression (Loss")]
)
def test_jpeg_by_pydicom_or_by_gdcm(series: list[Path], scan: PhantomScan, kind: str, name: str) -> None:
    import itk

    for path in series:
        reader, writer = itk.GDCMImageIO.New(), itk.GDCMImageIO.New()
        image = itk.imread(str(path), itk.SS, imageio=reader)
        image.SetMetaDataDictionary(reader.GetMetaDataDictionary())
        writer.SetCompressionType(getattr(itk.GDCMImageIOEnums, f"Compression_{kind}"))
        writer.KeepOriginalUIDOn()
        itk.imwrite(image, str(path), imageio=writer, compression=True)
    assert pydicom.dcmread(series[0]).file_meta.TransferSyntaxUID.name.startswith(name)
    np.testing.assert_array_equal(stack(find(series), series[0].parents[2]), scan.hu)


def test_a_rescale_per_slice_and_unused_high_bits(series: list[Path], scan: PhantomScan) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        stored = np.frombuffer(dataset.PixelData, "<u2") + np.uint16(24)
        dataset.PixelData = (stored | np.uint16(0x8000)).tobytes()  # an overlay in a bit that is not in use
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.RescaleIntercept = -1048

    edit(series[4], change)
    found = find(series)
    np.testing.assert_array_equal(stack(found, series[0].parents[2]), scan.hu)
    assert any("2 different rescales" in note for note in found.volumes[0].notes)


def test_a_missing_slice_is_a_gap_in_mm(series: list[Path], scan: PhantomScan) -> None:
    series[5].unlink()
    (volume,) = find(series).volumes
    step = scan.spacing_mm[0]
    assert volume.shape[0] == SLICES - 1
    assert f"gap of {2 * step:.1f} mm" in volume.notes[0]
    assert "1 missing" in volume.notes[0]


def test_gantry_tilt_is_noted(series: list[Path]) -> None:
    for k, path in enumerate(series):
        edit(path, lambda dataset, k=k: setattr(dataset, "ImagePositionPatient", [0.0, k * 1.0, k * 4.0]))
    (volume,) = find(series).volumes
    assert f"tilt of {np.degrees(np.arctan(1 / 4)):.1f} degrees" in volume.notes[0]


def test_a_copied_slice_and_one_at_a_taken_position_are_listed(series: list[Path]) -> None:
    shutil.copy(series[2], series[2].with_name("copy.dcm"))
    shutil.copy(series[3], series[3].with_name("zz_again.dcm"))
    edit(series[3].with_name("zz_again.dcm"), lambda dataset: setattr(dataset, "SOPInstanceUID", "1.2.3.4"))
    found = find(series)
    assert found.volumes[0].shape[0] == SLICES
    reasons = {Path(item.path).name: item.reason for item in found.skipped}
    assert set(reasons) == {series[2].name, "zz_again.dcm"} or set(reasons) == {"copy.dcm", "zz_again.dcm"}
    assert any("same SOPInstanceUID" in reason for reason in reasons.values())
    assert "same position" in reasons["zz_again.dcm"]
    assert any("1 slice at a position that was taken already is left out" in note for note in found.volumes[0].notes)


def test_two_acquisitions_at_the_same_positions_are_two_volumes(series: list[Path], scan: PhantomScan) -> None:
    for path in series:
        second = path.with_name(f"second_{path.name}")
        shutil.copy(path, second)
        edit(path, lambda dataset: setattr(dataset, "AcquisitionNumber", 1))
        edit(second, lambda dataset: setattr(dataset, "AcquisitionNumber", 2))
        edit(second, lambda dataset: setattr(dataset, "SOPInstanceUID", f"{dataset.SOPInstanceUID}.2"))
    found = find(series)
    uid = pydicom.dcmread(series[0]).SeriesInstanceUID
    assert sorted(volume.volume for volume in found.volumes) == sorted([volume_id(uid), volume_id(f"{uid}/1")])
    for number in range(2):
        np.testing.assert_array_equal(stack(found, series[0].parents[2], number), scan.hu)


def test_two_phases_whose_acquisition_numbers_run_on_take_turns(series: list[Path], scan: PhantomScan) -> None:
    """As of sequential scans, with an AcquisitionNumber per slice."""
    for number, path in enumerate(series):
        second = path.with_name(f"second_{path.name}")
        shutil.copy(path, second)
        for file, later in ((path, 0), (second, SLICES)):
            edit(file, lambda dataset, later=later: setattr(dataset, "AcquisitionNumber", number + later))  # noqa: B023
            edit(file, lambda dataset, later=later: setattr(dataset, "InstanceNumber", number + later))  # noqa: B023
            edit(file, lambda dataset, later=later: setattr(dataset, "RescaleIntercept", -1024 - later))
        edit(second, lambda dataset: setattr(dataset, "SOPInstanceUID", f"{dataset.SOPInstanceUID}.2"))
    found = find(series)
    assert not found.skipped
    uid = pydicom.dcmread(series[0]).SeriesInstanceUID
    for number, volume in enumerate((volume_id(uid), volume_id(f"{uid}/1"))):
        (place,) = [i for i, item in enumerate(found.volumes) if item.volume == volume]
        np.testing.assert_array_equal(stack(found, series[0].parents[2], place), scan.hu - number * SLICES)


def test_a_slice_of_another_size_becomes_a_volume_of_its_own(series: list[Path]) -> None:
    def shrink(dataset: pydicom.Dataset) -> None:
        dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[::2, ::2]).tobytes()
        dataset.Rows = dataset.Columns = SIZE // 2

    edit(series[0], shrink)
    found = find(series)
    assert sorted(volume.shape for volume in found.volumes) == [(1, 20, 20), (SLICES - 1, SIZE, SIZE)]
    uid = pydicom.dcmread(series[0]).SeriesInstanceUID
    assert {volume.shape[0]: volume.volume for volume in found.volumes} == {
        SLICES - 1: volume_id(uid),
        1: volume_id(f"{uid}/1"),
    }


def test_two_series_in_one_folder_are_two_volumes(series: list[Path], scan: PhantomScan) -> None:
    other = phantom_scan(4, slices=5, size=SIZE)
    for number, path in enumerate(write_dicom(other, series[0].parents[1] / "other")):
        path.rename(series[0].with_name(f"other_{number}.dcm"))
    found = find(series)
    assert sorted(volume.shape[0] for volume in found.volumes) == [5, SLICES]
    by_length = {volume.shape[0]: number for number, volume in enumerate(found.volumes)}
    np.testing.assert_array_equal(stack(found, series[0].parents[2], by_length[5]), other.hu)
    np.testing.assert_array_equal(stack(found, series[0].parents[2], by_length[SLICES]), scan.hu)


def drop(*keywords: str) -> Callable[[pydicom.Dataset], None]:
    def change(dataset: pydicom.Dataset) -> None:
        for keyword in keywords:
            delattr(dataset, keyword)

    return change


def localizer(dataset: pydicom.Dataset) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def colour(dataset: pydicom.Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"


def magnetic(dataset: pydicom.Dataset) -> None:
    dataset.Modality, dataset.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"


def enhanced(dataset: pydicom.Dataset) -> None:
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop("PixelData"), "no pixel data"),
        (drop("ImagePositionPatient"), "its place is unknown"),
        (drop("Rows"), "no pixel data"),
        (localizer, "localizer"),
        (colour, "3 samples per pixel"),
        (magnetic, "no CT image: modality MR, MR Image Storage"),
        (enhanced, "1 frame, but 0 groups that tell where they are"),
        (lambda dataset: setattr(dataset, "BitsStored", 20), "20 of 16 bits in use"),
        (lambda dataset: setattr(dataset, "BitsStored", 0), "0 of 16 bits in use"),
        (lambda dataset: setattr(dataset, "PixelRepresentation", 2), "PixelRepresentation 2: expected 0 or 1"),
        (lambda dataset: setattr(dataset, "BitsAllocated", 12), "of 12 bits in use"),
        (lambda dataset: setattr(dataset, "RescaleSlope", 0), "RescaleSlope 0 and RescaleIntercept -1024 give no HU"),
    ],
)
def test_what_is_no_slice_is_listed_and_the_rest_goes_on(
    series: list[Path], change: Callable[[pydicom.Dataset], None], reason: str
) -> None:
    edit(series[6], change)
    found = find(series)
    assert [volume.shape[0] for volume in found.volumes] == [SLICES - 1]
    ((path, why),) = [(item.path, item.reason) for item in found.skipped]
    assert path == f"p1/s1/{series[6].name}"
    assert reason in why
    assert "gap of" in found.volumes[0].notes[0]


def test_a_slice_with_too_few_bytes_comes_with_its_reason(series: list[Path]) -> None:
    series[1].write_bytes(series[1].read_bytes()[:-100])
    volume = find(series).volumes[0]
    pieces = list(read_slices(volume, series[0].parents[2]))
    assert len(pieces) == SLICES
    assert [piece.index for piece in pieces if piece.reason] == [1]
    assert f"{series[1].name}: truncated: {2 * SIZE * SIZE - 100} of {2 * SIZE * SIZE} bytes" in pieces[1].reason


def test_files_that_are_no_dicom_are_listed(series: list[Path]) -> None:
    series[0].with_name("notes.txt").write_text("hello")
    series[0].with_name("noise").write_bytes(b"\x01" * 500)
    series[0].with_name("empty.dcm").touch()
    reasons = {Path(item.path).name: item.reason for item in find(series).skipped}
    assert reasons == {
        "notes.txt": "not an image in a known format",
        "noise": "not an image in a known format",
        "empty.dcm": "not an image in a known format",
    }


def test_a_real_series(real_data: Path) -> None:
    root = real_data / "ct"
    (volume,) = [volume for volume in find_volumes(root).volumes if volume.format == "dicom"]
    assert volume.shape == (30, 512, 512)
    assert volume.positions_mm == [80.0 + 8 * k for k in range(30)]
    for piece in read_slices(volume, root):
        dataset = pydicom.dcmread(root / volume.slice_path(piece.index))
        np.testing.assert_array_equal(piece.hu, dataset.pixel_array.astype(int) - 1024)


@pytest.mark.parametrize("uid", ["", "1.2.3"])
def test_uids_that_an_anonymiser_blanked_or_shared(series: list[Path], scan: PhantomScan, uid: str) -> None:
    other = phantom_scan(4, slices=SLICES, size=SIZE)
    for path in (*series, *write_dicom(other, series[0].parents[2] / "p2" / "s1")):
        edit(path, lambda dataset: setattr(dataset, "SOPInstanceUID", uid))
        edit(path, lambda dataset: setattr(dataset, "SeriesInstanceUID", uid))
    found = find(series)
    assert [(volume.patient, volume.shape[0]) for volume in found.volumes] == [
        (scan.patient, SLICES),
        (other.patient, SLICES),
    ]
    assert len({volume.volume for volume in found.volumes}) == 2
    np.testing.assert_array_equal(stack(found, series[0].parents[2], 0), scan.hu)
    np.testing.assert_array_equal(stack(found, series[0].parents[2], 1), other.hu)


def test_directions_that_differ_by_rounding_are_one_volume(series: list[Path], scan: PhantomScan) -> None:
    for k, path in enumerate(series):
        tilted = [1, 0, 0, 0, 0.9985 + 1e-6 * (-1) ** k, 0.0547]
        edit(path, lambda dataset, tilted=tilted: setattr(dataset, "ImageOrientationPatient", tilted))
    assert [volume.shape[0] for volume in find(series).volumes] == [SLICES]


def test_a_series_without_pixel_size_is_listed_and_the_others_go_on(series: list[Path], scan: PhantomScan) -> None:
    write_dicom(phantom_scan(4, slices=3, size=SIZE), series[0].parents[2] / "p2")
    for path in series:
        edit(path, lambda dataset: setattr(dataset, "PixelSpacing", [0, 0]))
    found = find(series)
    assert [volume.shape[0] for volume in found.volumes] == [3]
    assert len(found.skipped) == SLICES
    assert "collapses an axis" in found.skipped[0].reason


def test_high_bits_and_no_file_meta(series: list[Path], scan: PhantomScan) -> None:
    for path in series:
        dataset = pydicom.dcmread(path)
        stored = np.frombuffer(dataset.PixelData, "<u2") << 4
        dataset.PixelData = stored.astype("<u2").tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 15
        dataset.save_as(path)
    assert {item.reason for item in find(series).skipped} == {
        "12 bits in use up to bit 15, not the lowest ones: convert it to NIfTI"
    }
    for path in write_dicom(scan, series[0].parent):
        dataset = pydicom.dcmread(path)
        body = path.read_bytes()[132:]
        length = int.from_bytes(body[8:12], "little")
        path.write_bytes(body[12 + length :])  # explicit VR without preamble and file meta
        assert dataset.Rows == SIZE
    np.testing.assert_array_equal(stack(find(series), series[0].parents[2]), scan.hu)


MARK = b"ZQSECRET"
NAMES = ("PatientName", "PatientBirthDate", "InstitutionName", "PatientID", "StudyDescription")


def damaged(data: bytes, keyword: str, value: bytes | None = None, vr: bytes | None = None) -> bytes:
    """A file with the length, the type or the value of an element changed behind its back."""
    tag = int(pydicom.tag.Tag(keyword))
    place = data.index((tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little"), 132)
    length = int.from_bytes(data[place + 6 : place + 8], "little")
    if value is not None:
        return data[: place + 6] + len(value).to_bytes(2, "little") + value + data[place + 8 + length :]
    if vr is not None:
        return data[: place + 4] + vr + data[place + 6 :]
    return data[: place + 6] + (length + 40).to_bytes(2, "little") + data[place + 8 :]  # swallows what follows


@pytest.mark.parametrize("keep", ["SOPClassUID", "Modality", "PatientID", "SeriesInstanceUID", "ImageType"])
@pytest.mark.parametrize(
    "how", [{}, {"vr": b"UN"}, {"vr": b"OB"}, {"value": MARK + b"^JANE"}, {"value": b"1.2\r\n3\x00"}]
)
def test_no_reason_repeats_what_a_header_holds(series: list[Path], keep: str, how: dict[str, bytes]) -> None:
    """A header is a place where a name can stand in any element: neither reasons nor volumes show it."""

    def identify(dataset: pydicom.Dataset) -> None:
        for name in NAMES:
            setattr(dataset, name, "19010203" if name == "PatientBirthDate" else MARK.decode())

    for path in series[:3]:
        edit(path, identify)
        path.write_bytes(damaged(path.read_bytes(), keep, **how))
    found = find(series)
    shown = str([(item.path, item.reason) for item in found.skipped])
    shown += str([(volume.series, volume.notes, volume.path) for volume in found.volumes])
    assert MARK.decode() not in shown
    assert "19010203" not in shown
    assert "\\r" not in shown
    listed = {item.path for item in found.skipped} | {s.path for volume in found.volumes for s in volume.slices}
    assert listed == {f"p1/s1/{path.name}" for path in series}
    for volume in found.volumes:
        for ct_slice in read_slices(volume, series[0].parents[2]):
            assert MARK.decode() not in ct_slice.reason


def test_a_decoder_does_not_repeat_what_it_read(series: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from lessismore_transforms.volumes import dicom

    for path in series:
        edit(path, lambda dataset: dataset.compress(RLELossless, generate_instance_uid=False))

    def fail(*_: object, **__: object) -> None:
        raise ValueError(f"element {MARK!r} at <_io.BytesIO object at 0x7f00>")

    monkeypatch.setattr(dicom, "pixel_array", fail)
    reasons = {ct_slice.reason for ct_slice in read_slices(find(series).volumes[0], series[0].parents[2])}
    assert (
        f"p1/s1/{series[0].name}: damaged, or no decoder for its pixels: copy it again, or convert it to NIfTI"
        in reasons
    )
    assert not any("ZQ" in reason or "0x7" in reason for reason in reasons)


@pytest.mark.parametrize("place", [6, 7])
def test_reserved_bytes_before_the_length_of_the_pixels_move_no_pixel(
    series: list[Path], scan: PhantomScan, place: int
) -> None:
    for path in series:
        data = bytearray(path.read_bytes())
        data[data.index(b"\xe0\x7f\x10\x00OW") + place] ^= 4
        path.write_bytes(data)
    np.testing.assert_array_equal(stack(find(series), series[0].parents[2]), scan.hu)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_wrong_label_of_the_transfer_syntax_moves_no_pixel(
    series: list[Path], scan: PhantomScan, implicit: bool
) -> None:
    """Implicit elements labelled explicit, and the reverse: what is there counts."""
    for path in series:
        right, wrong = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)[:: 1 if implicit else -1]
        save_as(path, right)
        data = path.read_bytes()
        old, new = (uid.encode() + b"\0" * (len(uid) % 2) for uid in (right, wrong))
        place = data.index(old, 132) - 2
        meta = data.index(b"\x02\x00\x00\x00UL\x04\x00", 132) + 8  # the length of the meta elements
        length = int.from_bytes(data[meta : meta + 4], "little") + len(new) - len(old)
        data = data[:place] + len(new).to_bytes(2, "little") + new + data[place + 2 + len(old) :]
        path.write_bytes(data[:meta] + length.to_bytes(4, "little") + data[meta + 4 :])
    found = find(series)
    np.testing.assert_array_equal(stack(found, series[0].parents[2]), scan.hu)
    assert found.skipped == []


def test_two_blocks_of_slices_are_two_spacings_and_no_gaps(series: list[Path]) -> None:
    """As in a head scan: thin slices at the base, thick ones above, and one slice missing among the thick ones."""
    positions = [0, 4, 8, 12, 16, 20, 27, 34, 41, 55, 62, 69]
    for path, position in zip(series, positions, strict=True):
        edit(path, lambda dataset, z=position: setattr(dataset, "ImagePositionPatient", [0.0, 0.0, float(z)]))
    (volume,) = find(series).volumes
    assert volume.notes == (
        "blocks of different slice spacing: 4.0 mm apart from 0.0 to 20.0 mm and 7.0 mm apart from 20.0 to 41.0 mm",
        "gap of 14.0 mm between positions 41.0 and 55.0 mm (slices are 7.0 mm apart: 1 missing)",
    )


def test_slices_in_the_root_and_in_several_folders_have_a_path(series: list[Path]) -> None:
    assert find_volumes(series[0].parent).volumes[0].path == "."
    root = series[0].parents[2]
    for place, path in (("a", series[0]), ("b", series[1])):
        (root / place).mkdir()
        path.rename(root / place / path.name)
    assert find_volumes(root).volumes[0].path == "."


def test_a_deflated_file_is_not_inflated_without_end(series: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from lessismore_transforms.volumes import dicom_file

    for path in series:
        save_as(path, DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr(dicom_file, "LARGEST_INFLATED", 1000)
    assert {item.reason for item in find(series).skipped} == {"deflated data of more than 0 MB: convert it to NIfTI"}


def pydicom_says(path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    from lessismore_transforms.volumes import dicom_file

    with monkeypatch.context() as patch:
        patch.setattr(dicom_file, "walk", lambda *_: None)
        return list(dicom_file.read_headers(path.relative_to(root).as_posix(), root))


def test_the_walk_over_elements_reads_what_pydicom_reads(series: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On phantoms, pydicom's own files and 2,000 damaged copies: the same header, or the same refusal."""
    from pydicom.data import data_manager

    from lessismore_transforms.volumes.dicom_file import read_headers
    from lessismore_transforms.volumes.dicom_header import Header

    samples = Path(data_manager.__file__).parent / "test_files"
    rng, compared, walked = np.random.default_rng(0), 0, 0
    for path in [series[0], *sorted(path for path in samples.rglob("*") if path.is_file())]:
        ours = read_headers(path.relative_to(path.parent).as_posix(), path.parent)
        assert ours == pydicom_says(path, path.parent, monkeypatch), path
        compared += isinstance(ours[0], Header)
    assert compared > 10
    implicit = series[1]
    save_as(implicit, ImplicitVRLittleEndian)
    for original in (series[0], implicit):
        data = original.read_bytes()
        header = data.index(b"\xe0\x7f\x10\x00")
        place = original.with_name("damaged.dcm")
        for _ in range(1000):
            copy = bytearray(data)
            for position in rng.integers(132, header + 12, rng.integers(1, 4)):
                copy[position] = rng.integers(256) if rng.random() < 0.5 else copy[position] ^ (1 << rng.integers(8))
            place.write_bytes(copy)
            ours, theirs = read_headers(place.name, place.parent), pydicom_says(place, place.parent, monkeypatch)
            walked += isinstance(ours[0], Header)
            assert ours == theirs
    assert walked > 1000


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_walk_skips_sequences_in_sequences_and_reads_nothing_behind_the_data(
    series: list[Path], syntax: str, tmp_path: Path
) -> None:
    from lessismore_transforms.volumes.dicom_elements import walk

    dataset = pydicom.dcmread(series[0])
    for depth in range(9):
        inner = pydicom.Dataset()
        inner.Rows = inner.Columns = depth  # that of the file is asked for, not this one
        if depth:
            inner.ReferencedImageSequence = [*dataset.ReferencedImageSequence, pydicom.Dataset()]
            inner["ReferencedImageSequence"].is_undefined_length = depth % 3 > 0
            for item in inner.ReferencedImageSequence:
                item.is_undefined_length_sequence_item = depth % 2 > 0
        dataset.ReferencedImageSequence = [inner]
        dataset["ReferencedImageSequence"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
        path = tmp_path / "nested.dcm"
        dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
        data = path.read_bytes()
        wanted = np.array([0x00080018, 0x00081140, 0x00280010, 0x00280011, 0x00281052])
        found = walk(data, wanted)
        assert found is not None
        assert {tag: found.text(tag) for tag in (0x00080018, 0x00281052)} == {
            0x00080018: str(dataset.SOPInstanceUID),
            0x00281052: str(dataset.RescaleIntercept),
        }
        assert (found.whole(0x00280010), found.whole(0x00280011)) == (dataset.Rows, dataset.Columns)
        assert data[found.pixels : found.pixels + found.length] == dataset.PixelData
        for stop in range(found.pixels):
            assert walk(data[:stop], wanted) is None
