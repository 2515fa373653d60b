"""The data sets that can be got, one row each: where, under which licence, and what is to be cited.

An address stands here only where its publisher, or public code that reads it, was seen to name it; `seen` says where.
What needs a login or an agreement, or whose file has no address under HTTPS, has instructions instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lessismore_transforms.errors import UserError

_SMALLEST = 28  # pixels per side of a MedMNIST set
NO_LICENCE = "none stated"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Args:
        url: its address.
        path: in the folder of the data set.
        size: bytes, None where it is not known.
        sha256: 64 hex digits, empty where they are not known.
        md5: 32 hex digits, where the publisher gives these.
        unpack: whether it is an archive that is unpacked beside itself and deleted.
    """

    url: str
    path: str
    size: int | None = None
    sha256: str = ""
    md5: str = ""
    unpack: bool = False


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Args:
        name: on the command line.
        title: for people.
        licence: as its publisher states it; of an archive its index tells it.
        cite: what is to be cited.
        page: of its publisher.
        seen: where address, sums and licence were seen.
        files: of it; empty where there are instructions or a collection.
        hosts: from which files may come, redirects included.
        collection: of the Imaging Data Commons.
        instructions: what a person has to do, where nothing can be got without.
    """

    name: str
    title: str
    licence: str
    cite: str
    page: str
    seen: str = ""
    files: tuple[RemoteFile, ...] = ()
    hosts: tuple[str, ...] = ()
    collection: str = ""
    instructions: str = ""


_COVID = "https://github.com/UCSD-AI4H/COVID-CT/raw/master/"
_LISTS = [
    f"Data-split/{kind}/{split}CT_{kind}.txt" for kind in ("COVID", "NonCOVID") for split in ("train", "val", "test")
]
_MEDMNIST_CITE = (
    "Yang, J. et al. MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification. "
    "Scientific Data, 2023, and the source of the set, see https://medmnist.com"
)

_ROWS = (
    DataSet(
        "lidc",
        "LIDC-IDRI, CT of the chest",
        "told by the index of the Imaging Data Commons",
        "Armato, S. G. et al. Data From LIDC-IDRI. The Cancer Imaging Archive, 2015. "
        "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
        "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
        seen="index of idc-index-data 25 (CC BY 3.0)",
        collection="lidc_idri",
    ),
    DataSet(
        "fdg-pet-ct",
        "FDG-PET-CT-Lesions, CT of the whole body",
        "told by the index of the Imaging Data Commons",
        "Gatidis, S. and Kuestner, T. A whole-body FDG-PET/CT dataset with manually annotated tumor lesions. The "
        "Cancer Imaging Archive, 2022. https://doi.org/10.7937/gkr0-xv29",
        "https://doi.org/10.7937/gkr0-xv29",
        seen="index of idc-index-data 25 (CC BY 4.0)",
        collection="fdg_pet_ct_lesions",
    ),
    DataSet(
        "covid-ct",
        "COVID-CT, pictures of CT out of papers",
        NO_LICENCE,
        "Yang, X. et al. COVID-CT-Dataset: A CT Scan Dataset about COVID-19. 2020. arXiv:2003.13865",
        "https://github.com/UCSD-AI4H/COVID-CT",
        seen="scripts in public repositories that get the archives there; paths of the lists as in clones of it",
        files=(
            *(
                RemoteFile(f"{_COVID}Images-processed/{kind}.zip", f"{kind}.zip", unpack=True)
                for kind in ("CT_COVID", "CT_NonCOVID")
            ),
            *(RemoteFile(f"{_COVID}{path}", path) for path in _LISTS),
        ),
        hosts=("github.com", "raw.githubusercontent.com", "media.githubusercontent.com"),
    ),
    DataSet(
        "pneumonia-cxr",
        "chest X-rays of children, normal or with pneumonia (version 2)",
        "CC BY 4.0",
        "Kermany, D., Zhang, K. and Goldbaum, M. Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for "
        "Classification. Mendeley Data, V2, 2018. https://doi.org/10.17632/rscbjbr9sj.2",
        "https://data.mendeley.com/datasets/rscbjbr9sj/2",
        seen="public code that gets ChestXRay2017.zip there and tells its size; the licence at labelbox.com and in "
        "copies of the set",
        files=(
            RemoteFile(
                "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
                "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
                "ChestXRay2017.zip",
                size=1_235_512_464,
                unpack=True,
            ),
        ),
        hosts=(
            "data.mendeley.com",
            "prod-dcd-datasets-public-files-eu-west-1.s3.eu-west-1.amazonaws.com",
        ),
    ),
    DataSet(
        "colorectal",
        "textures of colorectal cancer, histology in colour",
        "CC BY 4.0",
        "Kather, J. N. et al. Multi-class texture analysis in colorectal cancer histology. Scientific Reports, 2016. "
        "https://doi.org/10.5281/zenodo.53169",
        "https://zenodo.org/records/53169",
        seen="size and SHA-256 in the checksums of TensorFlow Datasets; the licence in public repositories",
        files=(
            RemoteFile(
                "https://zenodo.org/records/53169/files/Kather_texture_2016_image_tiles_5000.zip",
                "Kather_texture_2016_image_tiles_5000.zip",
                size=258_098_431,
                sha256="936d0b95ae0f04f1f7b18a2b7e8c55776c3e887d102f645bcee752d1a6626a32",
                unpack=True,
            ),
        ),
        hosts=("zenodo.org",),
    ),
    DataSet(
        "breakhis",
        "BreaKHis, histology of the breast in colour",
        "CC BY 4.0, as kaiko-ai/eva tells it; look at the publisher's page",
        "Spanhol, F. et al. A Dataset for Breast Cancer Histopathological Image Classification. IEEE Transactions on "
        "Biomedical Engineering, 2016",
        "https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
        seen="kaiko-ai/eva on GitHub, which reads BreaKHis_v1.tar.gz without HTTPS and without a checksum",
        instructions="its archive is offered without HTTPS and without a checksum: get BreaKHis_v1.tar.gz from its "
        "page and unpack it",
    ),
    DataSet(
        "head-ct",
        "Head CT - hemorrhage, pictures of CT",
        "see its page",
        "Kitamura, F. Head CT - hemorrhage. Kaggle, 2018",
        "https://www.kaggle.com/datasets/felipekitamura/head-ct-hemorrhage",
        seen="data_license.txt of the bundle brain_hemorrhage_ct_classification",
        instructions="Kaggle asks for a login: get it from its page and unpack it",
    ),
)
DATA_SETS = {row.name: row for row in _ROWS}
# Of CT, for a hint where the package that knows them all is not there.
_MEDMNIST_CT = ("organsmnist", "organamnist", "organcmnist", "organmnist3d", "nodulemnist3d")


def data_set_of(name: str, size: int | None = None) -> DataSet:
    """The data set of a name.

    Args:
        name: in any case.
        size: pixels per side, of a MedMNIST set; None for the smallest one, 28.

    Raises:
        UserError: there is none, or not of that size, or its package is not installed.
    """
    plain = name.lower()
    if plain in DATA_SETS:
        if size is not None:
            raise UserError(f"expected --size for a MedMNIST set, found it for {plain}: leave it out")
        return DATA_SETS[plain]
    info = _medmnist_info()
    if info is None and (plain in _MEDMNIST_CT or plain.endswith("mnist")):
        raise UserError(f"{name} needs the package medmnist: pip install 'lessismore-transforms[download]'")
    if info is not None and plain in info:
        return _of_medmnist(plain, info[plain], _SMALLEST if size is None else size)
    known = [*DATA_SETS, *(info or _MEDMNIST_CT)]
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.3)
    nearest = f"; the nearest one is {close[0]}" if close else ""
    raise UserError(f"expected a data set out of {', '.join(DATA_SETS)} or a MedMNIST set, found {name!r}{nearest}")


def _medmnist_info() -> Mapping[str, Any] | None:
    try:
        from medmnist import INFO
    except ModuleNotFoundError:
        return None
    info: Mapping[str, Any] = INFO
    return info


def _of_medmnist(name: str, told: Mapping[str, Any], size: int) -> DataSet:
    """The row of a MedMNIST set, by what its package tells."""
    flag = "" if size == _SMALLEST else f"_{size}"
    if f"url{flag}" not in told:
        sizes = [_SMALLEST, *sorted(int(key.removeprefix("url_")) for key in told if key.startswith("url_"))]
        raise UserError(
            f"expected a size out of {', '.join(map(str, sizes))} for {name}, found {size}: give one of these"
        )
    file = RemoteFile(told[f"url{flag}"], f"{name}{flag}.npz", md5=told[f"MD5{flag}"])
    return DataSet(
        name,
        f"{told.get('python_class', name)} of MedMNIST, {size} pixels",
        told["license"],
        _MEDMNIST_CITE,
        "https://medmnist.com",
        seen="the package medmnist",
        files=(file,),
        hosts=("zenodo.org",),
    )
