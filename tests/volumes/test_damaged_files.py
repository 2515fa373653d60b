"""Files that lie, are damaged or are none: sentences and lists, never garbage."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.volumes import checksum, find_volumes, read_slices

VOXELS = np.random.default_rng(3).integers(-1000, 1000, (4, 8, 8)).astype("<i2")
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = {packed}\n"
    "ElementSpacing = 1 1 1\nDimSize = 8 8 4\nElementType = MET_SHORT\nElementDataFile = {data}\n"
)


@pytest.mark.parametrize("place", [10, -1])
def test_damaged_compressed_metaimage_is_one_sentence(tmp_path: Path, place: int) -> None:
    packed = bytearray(zlib.compress(VOXELS.tobytes()))
    header = META.format(packed=True, data="LOCAL").encode()
    (tmp_path / "ct.mha").write_bytes(header + packed)
    (volume,) = find_volumes(tmp_path).volumes
    values = np.concatenate([ct_slice.hu for ct_slice in read_slices(volume, tmp_path)])
    assert sorted(values.ravel()) == sorted(VOXELS.ravel())
    packed[place] ^= 0xFF
    (tmp_path / "ct.mha").write_bytes(header + packed)
    with pytest.raises(VolumeError, match=r"ct\.mha: the file is (damaged|truncated): expected 4 slices"):
        list(read_slices(volume, tmp_path))


def test_detached_voxels_are_summed_and_listed_nowhere(tmp_path: Path) -> None:
    (tmp_path / "ct.mhd").write_text(META.format(packed=False, data="ct.raw"))
    (tmp_path / "ct.raw").write_bytes(VOXELS.tobytes())
    found = find_volumes(tmp_path)
    assert found.skipped == []
    before = checksum(found.volumes[0], tmp_path)
    (tmp_path / "ct.raw").write_bytes((VOXELS + 1).tobytes())
    assert checksum(found.volumes[0], tmp_path) != before


@pytest.mark.parametrize("name", ["/etc/hostname", "../ct.raw", "LIST", "ct%03d.raw"])
def test_voxels_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "ct.mhd").write_text(META.format(packed=False, data=name))
    (skipped,) = find_volumes(tmp_path).skipped
    assert "elsewhere" in skipped.reason or "several files" in skipped.reason


def test_groups_of_pictures_have_ids_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    for name, size in (("case_000", 4), ("case_001", 4), ("case_002", 5), ("case/1_000", 4)):
        Image.new("L", (size, size), 7).save(tmp_path / f"{name}.png")
    volumes = find_volumes(tmp_path, patterns=["numbered"]).volumes
    assert len({volume.volume for volume in volumes}) == len(volumes) == 3


def test_a_header_that_promises_too_much_and_a_pipe(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS, np.eye(4))
    image.header.set_data_shape((30000, 30000, 300))
    (tmp_path / "ct.nii").write_bytes(image.header.binaryblock + bytes(4))
    start = b"IHDR" + struct.pack(">2I5B", 60000, 60000, 8, 0, 0, 0, 0)
    (tmp_path / "a_1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\r" + start)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".hidden").touch()
    reasons = {item.path: item.reason for item in find_volumes(tmp_path, patterns=["numbered"]).skipped}
    assert "its header promises 60000 x 60000 pixels" in reasons["a_1.png"]
    assert "a pipe" in reasons["pipe"]
    assert reasons[".hidden"] == "a hidden file"
    assert "ct.nii" in reasons


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("ct_label", False), ("seg", False), ("LungMask2", False), ("labelsTr/a", False), ("masked_ct", True),
        ("ct.label", False), ("img.mask", False), ("a.b.seg", False), ("GTVmask", False), ("p1_CTseg2", False),
        ("GTVmasks/a", False), ("CTsegmentations/a", True), ("GTVmasked", True), ("ct.masked", True), ("v1.2_ct", True),
    ],
)  # fmt: skip
def test_label_maps_by_name(tmp_path: Path, name: str, taken: bool) -> None:
    path = tmp_path / f"{name}.nii.gz"
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), path)
    assert bool(find_volumes(tmp_path).volumes) == taken
    assert find_volumes(tmp_path, include=[path.name]).volumes


def test_label_maps_by_voxels(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image((VOXELS > 0).astype(np.uint8), np.eye(4)), tmp_path / "b.nii.gz")
    (skipped,) = find_volumes(tmp_path).skipped
    assert "2 different values and no air" in skipped.reason


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_label_maps_of_any_type(tmp_path: Path, dtype: type) -> None:
    whole = (VOXELS > 0) + (VOXELS > 500).astype(dtype)
    files = {"whole": whole, "air": whole - 1000}
    if dtype is not np.int16:
        files |= {"dose": whole * 1.5, "holes": np.where(whole > 0, whole, np.nan)}
    for name, voxels in files.items():
        nibabel.save(nibabel.Nifti1Image(voxels.astype(dtype), np.eye(4)), tmp_path / f"{name}.nii.gz")
    found = find_volumes(tmp_path)
    assert {volume.path for volume in found.volumes} == {f"{name}.nii.gz" for name in files if name != "whole"}
    assert "3 different values and no air" in found.skipped[0].reason


@pytest.mark.parametrize("digits", [19, 20, 400])
@pytest.mark.parametrize("field", ["DimSize", "HeaderSize", "sizes", "byte skip", "line skip"])
def test_numbers_of_hundreds_of_digits_in_a_header(tmp_path: Path, field: str, digits: int) -> None:
    number = "9" * digits
    if field in ("DimSize", "HeaderSize"):
        header = META.format(packed=False, data="LOCAL").replace("DimSize = 8 8 4", "DimSize = 8 8 4\nHeaderSize = 0")
        header = header.replace(
            *(("8 8 4", f"{number} 8 4") if field == "DimSize" else ("Size = 0", f"Size = {number}"))
        )
        (tmp_path / "ct.mha").write_bytes(header.encode() + VOXELS.tobytes())
    else:
        holder = write_nrrd(tmp_path, "raw", "little", detached=False)
        old = b"sizes: 8" if field == "sizes" else b"encoding: raw"
        new = f"sizes: {number}" if field == "sizes" else f"encoding: raw\n{field}: {number}"
        holder.write_bytes(holder.read_bytes().replace(old, new.encode()))
    found = find_volumes(tmp_path)
    assert len(found.skipped) == 1 and not found.volumes  # noqa: PT018
    assert digits == 19 or field == "line skip" or "damaged header" in found.skipped[0].reason


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """12 GB of equal voxels in a file of 12 MB: within what deflate can do, far beyond any CT."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((1024, 1024, 6000))
    header["vox_offset"] = 352
    with gzip.open(tmp_path / "ct.nii.gz", "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
    with (tmp_path / "ct.nii.gz").open("ab") as file:
        file.truncate(13_000_000)
    (item,) = find_volumes(tmp_path).skipped
    assert "unpacks from 13,000,000 to 12,582,912,352 bytes, more than 100 times as many" in item.reason


PACK: dict[str, Callable[[bytes], bytes]] = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}


def write_nrrd(folder: Path, encoding: str, endian: str, *, detached: bool) -> Path:
    """VOXELS as an NRRD written by hand, with its voxels in the same file or beside it; the file that holds them."""
    voxels = PACK[encoding](VOXELS.astype("<i2" if endian == "little" else ">i2").tobytes())
    header = (
        f"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 8 8 4\n"
        f"space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (0,0,0)\nendian: {endian}\nencoding: {encoding}\n"
    )
    if not detached:
        (folder / "ct.nrrd").write_bytes(header.encode() + b"\n" + voxels)
        return folder / "ct.nrrd"
    (folder / "ct.nhdr").write_text(f"{header}data file: ct.bin\n\n")
    (folder / "ct.bin").write_bytes(voxels)
    return folder / "ct.bin"


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("encoding", PACK)
def test_nrrd_of_every_encoding(tmp_path: Path, encoding: str, endian: str, detached: bool) -> None:
    holder = write_nrrd(tmp_path, encoding, endian, detached=detached)
    found = find_volumes(tmp_path)
    assert found.skipped == []
    np.testing.assert_array_equal([one.hu for one in read_slices(found.volumes[0], tmp_path)], VOXELS)
    whole = holder.read_bytes()
    holder.write_bytes(whole[:-20])
    with pytest.raises(VolumeError, match=r"ct\.(nrrd|nhdr): the file is (damaged|truncated)"):
        list(read_slices(found.volumes[0], tmp_path))
    if encoding != "raw":
        place = len(whole) - 100
        holder.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(VolumeError, match=r"ct\.(nrrd|nhdr): the file is damaged"):
            list(read_slices(found.volumes[0], tmp_path))


@pytest.mark.parametrize("skipped", [-1, 0, 48])
def test_bytes_before_the_voxels_of_a_metaimage(tmp_path: Path, skipped: int) -> None:
    header = META.format(packed=False, data="ct.raw").replace(
        "ElementDataFile", f"HeaderSize = {skipped}\nElementDataFile"
    )
    (tmp_path / "ct.mhd").write_text(header)
    (tmp_path / "ct.raw").write_bytes(bytes(48 if skipped else 0) + VOXELS.tobytes())
    (volume,) = find_volumes(tmp_path).volumes
    np.testing.assert_array_equal([one.hu for one in read_slices(volume, tmp_path)], VOXELS)
    (tmp_path / "ct.mhd").write_text(header.replace("CompressedData = False", "CompressedData = True"))
    if skipped:
        (item,) = [item for item in find_volumes(tmp_path).skipped if item.path == "ct.mhd"]
        assert "a HeaderSize before compressed voxels is not read" in item.reason


def test_pictures_of_sixteen_bit_colour_and_of_several_frames(tmp_path: Path) -> None:
    grey = VOXELS[0].astype(np.uint16)
    rows = b"".join(b"\0" + np.repeat(row.astype(">u2"), 3).tobytes() for row in grey)
    chunks = ((b"IHDR", struct.pack(">2I5B", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    (tmp_path / "a_1.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )
    frames = [Image.fromarray((grey >> shift).astype(np.uint8)) for shift in (8, 7)]
    frames[0].save(tmp_path / "b_1.png", save_all=True, append_images=frames[1:])
    volumes = {volume.slices[0].path: volume for volume in find_volumes(tmp_path, patterns=["numbered"]).volumes}
    (colour,) = read_slices(volumes["a_1.png"], tmp_path)
    np.testing.assert_array_equal(colour.hu, grey >> 8)  # the high bytes, as every viewer shows them
    (animation,) = read_slices(volumes["b_1.png"], tmp_path)
    assert "an animation or several pictures in one file" in animation.reason


def test_itk_writes_no_lines_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    header = META.format(packed=False, data="LOCAL").replace("NDims = 3", "NDims = x")
    (tmp_path / "ct.mha").write_bytes(header.encode() + VOXELS.tobytes())
    (item,) = find_volumes(tmp_path).skipped
    assert "damaged header: no NRRD or MetaImage that ITK can read" in item.reason
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"
