"""The scan as files: NIfTI, a DICOM series, and a small labelled data set of both."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

import numpy as np

from lessismore_transforms.atomic import writing
from lessismore_transforms.errors import UserError
from lessismore_transforms.phantom.scan import phantom_scan
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.reduced.table_files import slice_id
from lessismore_transforms.volumes import volume_id

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from lessismore_transforms.phantom.scan import PhantomScan

_LABEL_HEADER = b"slice_id,path,index,region,lesion\n"
_AXES = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}


def write_nifti(scan: PhantomScan, path: Path | str, *, axcodes: str = "LPS") -> Path:
    """Write the scan as int16 .nii or .nii.gz with its affine and return the path.

    Args:
        scan: what to write.
        path: file name; its folder is made.
        axcodes: directions of the stored axes in nibabel's letters: "LPS" is columns, rows, slices of `hu`.

    Raises:
        UserError: `axcodes` does not name three different axes, or the suffix is another one.
    """
    import nibabel

    path = Path(path)
    if sorted(_AXES.get(code, -1) for code in axcodes) != [0, 1, 2]:
        raise UserError(f"expected axcodes such as 'LPS' or 'RAS', found {axcodes!r}; name each axis once")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise UserError(f"expected a name ending in .nii or .nii.gz, found {path.name}; rename it")
    dz, dy, dx = scan.spacing_mm
    x, y, z = scan.origin_mm
    affine = np.array([[-dx, 0, 0, -x], [0, -dy, 0, -y], [0, 0, dz, z], [0, 0, 0, 1]])  # LPS stored, RAS+ world
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("LPS"), nibabel.orientations.axcodes2ornt(axcodes)
    )
    stored = scan.hu.transpose(2, 1, 0)
    data = nibabel.orientations.apply_orientation(stored, turn)
    affine = affine @ nibabel.orientations.inv_ornt_aff(turn, stored.shape)
    image = nibabel.Nifti1Image(np.asfortranarray(data), affine, dtype=np.int16)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        if path.suffix == ".gz":  # no name and no time in the header: same scan, same bytes
            with gzip.GzipFile("", "wb", 5, file, mtime=0) as packed:
                packed.write(image.to_bytes())
        else:
            file.write(image.to_bytes())
    return path


def write_dicom(scan: PhantomScan, folder: Path | str, *, intercept: int = -1024) -> list[Path]:
    """Write the scan as a CT Image Storage series and return the files in order feet to head.

    Files and InstanceNumber run head to feet, as many scanners number them: IM_0001.dcm is the highest slice.

    Args:
        scan: what to write.
        folder: made if absent.
        intercept: RescaleIntercept, HU; stored values are HU - intercept, signed only where they have to be.

    Raises:
        UserError: the stored values do not fit into 16 bits with this intercept.
    """
    folder = Path(folder)
    stored = scan.hu.astype(np.int32) - intercept
    signed = int(stored.min() < 0)
    kind = np.dtype("<i2" if signed else "<u2")
    if stored.min() < np.iinfo(kind).min or stored.max() > np.iinfo(kind).max:
        raise UserError(f"expected HU - intercept within 16 bits, found intercept {intercept}; use one near -1024")
    folder.mkdir(parents=True, exist_ok=True)
    count = len(stored)
    paths = [folder / f"IM_{count - index:04d}.dcm" for index in range(count)]
    for index, path in enumerate(paths):
        dataset = _ct_image(scan, index, intercept)
        dataset.PixelRepresentation = signed
        dataset.PixelData = stored[index].astype(kind).tobytes()
        dataset.save_as(path, enforce_file_format=True)
    return paths


def write_demo_data(
    folder: Path | str, *, patients: int = 6, slices: int = 120, size: int = 192, seed: int = 0
) -> list[Path]:
    """Write scans of `patients` patients and labels.csv; return one path per scan, in order.

    The first half is NIfTI (`<patient>/ct.nii.gz`), the other half DICOM (`<patient>/study/series/*.dcm`).
    labels.csv has a row per slice: slice_id, path (relative, posix), index (feet to head), region and lesion.

    Args:
        folder: made if absent; demo data in it are replaced.
        patients: number of scans, with seeds `seed`, `seed + 1`, ...
        slices: slices of each scan.
        size: rows and columns.
        seed: of the first patient.

    Raises:
        UserError: the folder holds anything but demo data.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    labels = folder / "labels.csv"
    with writing(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            if not labels.is_file() or not labels.read_bytes().startswith(_LABEL_HEADER):
                raise UserError(f"expected an empty folder or earlier demo data, found {folder}; choose another folder")
            for old in (*folder.glob("phantom_*/ct.nii.gz"), *folder.glob("phantom_*/study/series/IM_*.dcm")):
                old.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        labels.write_bytes(_LABEL_HEADER)  # first, so that an interrupted run can be repeated
        written = []
        for number in progress_bar(range(patients), desc="draw", unit=" patients"):
            scan = phantom_scan(seed + number, slices=slices, size=size)
            place = folder / scan.patient
            if number < (patients + 1) // 2:
                written.append(write_nifti(scan, place / "ct.nii.gz"))
                paths = [written[-1].relative_to(folder).as_posix()] * slices
                volume = volume_id(paths[0])
            else:
                written.append(place / "study" / "series")
                paths = [path.relative_to(folder).as_posix() for path in write_dicom(scan, written[-1])]
                volume = volume_id(_uid(scan, "series"))
            with labels.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(
                    (slice_id(volume, index), *row)
                    for index, row in enumerate(zip(paths, range(slices), scan.region, scan.lesion, strict=True))
                )
    return written


def _uid(scan: PhantomScan, *parts: object) -> str:
    """A UID made from a name-based UUID (PS3.5 B.2): the same for the same scan."""
    return f"2.25.{uuid5(NAMESPACE_OID, repr((scan.patient, scan.hu.shape, scan.spacing_mm, parts))).int}"


def _ct_image(scan: PhantomScan, index: int, intercept: int) -> Dataset:
    """Slice `index` as a pydicom data set of the CT Image IOD (PS3.3 A.3), pixels left out."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    dz, dy, dx = scan.spacing_mm
    position = [*scan.origin_mm[:2], round(scan.origin_mm[2] + index * dz, 4)]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(scan, "image", index)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationVersionName = "LESSISMORE_1"  # else pydicom's release gets into the bytes
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    # Type 2: has to be there, may be empty. Nobody was scanned, so there is no date to give.
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.PatientBirthDate = dataset.PatientSex = dataset.PositionReferenceIndicator = ""
    dataset.Modality = "CT"
    dataset.Manufacturer = "lessismore_transforms phantom"
    dataset.SeriesDescription = "synthetic trunk"
    dataset.PatientName = scan.patient
    dataset.PatientID = scan.patient
    dataset.SliceThickness = f"{dz:.4f}"
    dataset.KVP = "120"
    dataset.SpacingBetweenSlices = f"{dz:.4f}"
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = _uid(scan, "study")
    dataset.SeriesInstanceUID = _uid(scan, "series")
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.AcquisitionNumber = 1
    dataset.InstanceNumber = len(scan.hu) - index
    dataset.ImagePositionPatient = [f"{value:.4f}" for value in position]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.FrameOfReferenceUID = _uid(scan, "frame of reference")
    dataset.SliceLocation = f"{position[2]:.4f}"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = scan.hu.shape[1:]
    dataset.PixelSpacing = [f"{dy:.4f}", f"{dx:.4f}"]
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.WindowCenter = 40
    dataset.WindowWidth = 400
    dataset.RescaleIntercept = intercept
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    return dataset
