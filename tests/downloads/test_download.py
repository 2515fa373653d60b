"""The command: what it says first, what it refuses, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest

from lessismore_transforms.atomic import holding
from lessismore_transforms.cli.main import main
from lessismore_transforms.downloads import data_sets, idc
from lessismore_transforms.downloads.data_sets import DATA_SETS, DataSet, RemoteFile, data_set_of
from lessismore_transforms.downloads.download import download
from lessismore_transforms.downloads.https import Client
from lessismore_transforms.downloads.settings import DownloadSettings
from lessismore_transforms.errors import OutputError, UserError


class Shelf(Client):
    """A client that takes files from a folder in place of the network."""

    def __init__(self, folder: Path, *, lost: tuple[str, ...] = ()) -> None:
        super().__init__(("example.org",), "page")
        self.folder, self.lost, self.asked = folder, lost, list[str]()

    def size_of(self, file: RemoteFile) -> int | None:
        return None if file.path in self.lost else (self.folder / Path(file.path).name).stat().st_size

    def fetch(self, file: RemoteFile, path: Path) -> str:
        self.asked.append(file.path)
        if file.path in self.lost:
            raise UserError("cannot get it: look at the network")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content := (self.folder / Path(file.path).name).read_bytes())
        return hashlib.sha256(content).hexdigest()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    for kind in ("CT_COVID", "CT_NonCOVID"):
        with zipfile.ZipFile(folder / f"{kind}.zip", "w") as archive:
            for number in range(3):
                archive.writestr(f"{kind}/{number}.png", b"png")
    for file in DATA_SETS["covid-ct"].files:
        if not file.unpack:
            (folder / Path(file.path).name).write_text("0.png\n")
    return folder


def test_a_set_is_told_asked_for_got_and_recorded(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, asked = DownloadSettings("COVID-CT", tmp_path / "out"), list[str]()

    def yes(question: str) -> bool:
        assert "licence: none stated; that is no permission" in capsys.readouterr().out
        asked.append(question)
        return True

    lists = [file.path for file in DATA_SETS["covid-ct"].files if not file.unpack]
    with pytest.raises(UserError, match="look at the network"):
        download(settings, yes, client_of=lambda _: Shelf(shelf, lost=(lists[0],)))
    assert asked == [f"Get it into {tmp_path / 'out'}? [y/N]"]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6  # what was got stays
    rest = Shelf(shelf)
    download(replace(settings, yes=True), lambda _: False, client_of=lambda _: rest)
    assert rest.asked == lists
    assert not list((tmp_path / "out").rglob("*.zip"))
    record = json.loads((tmp_path / "out" / "download.json").read_text())
    assert record["licence"] == "none stated"
    assert record["files"]["CT_COVID.zip"] == hashlib.sha256((shelf / "CT_COVID.zip").read_bytes()).hexdigest()
    assert len(record["files"]) == 8
    done = Shelf(shelf)
    download(settings, yes, client_of=lambda _: done)
    assert done.asked == []


def test_nothing_is_got_without_a_yes(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was got: answer y, or give --yes"):
        download(DownloadSettings("covid-ct", tmp_path / "out"), lambda _: False, client_of=lambda _: Shelf(shelf))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("lidk", "found 'lidk'; the nearest one is lidc"),
        ("covid", "the nearest one is covid-ct"),
        ("organsmist", "the nearest one is organsmnist"),
        ("head-ct", "Kaggle asks for a login: get it from its page and unpack it: https://www.kaggle.com/"),
        ("breakhis", "without HTTPS and without a checksum"),
    ],
)
def test_what_cannot_be_got(name: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", name, "--output_dir", str(tmp_path / "out"), "--yes"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert sentence in said[0]
    assert not (tmp_path / "out").exists()


def test_each_choice_of_patients_stays_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame({"PatientID": ["a", "b"], "SeriesInstanceUID": ["1", "2"], "instanceCount": 1,
                         "series_size_MB": 1.0, "license_short_name": ["CC BY 3.0", "CC BY 4.0"]})  # fmt: skip
    monkeypatch.setattr(idc, "open_client", lambda: None)
    monkeypatch.setattr(idc, "choose", lambda _, __, ___, ids: idc.Choice(rows[rows["PatientID"].isin(ids)]))
    monkeypatch.setattr(idc, "transfer", lambda *_: None)
    for patient in ("b", "a", "a"):
        download(DownloadSettings("lidc", tmp_path / "out", ids=(patient,), yes=True), lambda _: False)
    record = json.loads((tmp_path / "out" / "download.json").read_text())
    assert (record["series"], record["licence"]) == (["1", "2"], "CC BY 3.0, CC BY 4.0")


def test_one_download_at_a_time(shelf: Path, tmp_path: Path) -> None:
    settings = DownloadSettings("covid-ct", tmp_path / "out", yes=True)
    with holding(tmp_path / "out"), pytest.raises(OutputError, match=r"another run is writing into .*out: wait for it"):
        download(settings, lambda _: False, client_of=lambda _: Shelf(shelf))
    assert list((tmp_path / "out").iterdir()) == []
    download(settings, lambda _: False, client_of=lambda _: Shelf(shelf))


def test_a_set_that_another_run_began_meanwhile(shelf: Path, tmp_path: Path) -> None:
    def confirm(_: str) -> bool:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "download.json").write_text('{"name": "colorectal"}')
        return True

    with pytest.raises(UserError, match="found one with colorectal in"):
        download(DownloadSettings("covid-ct", tmp_path / "out"), confirm, client_of=lambda _: Shelf(shelf))
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["download.json"]


def test_a_size_for_a_set_without_sizes(tmp_path: Path) -> None:
    for name in ("covid-ct", "lidc"):
        with pytest.raises(UserError, match=f"expected --size for a MedMNIST set, found it for {name}: leave it out"):
            download(DownloadSettings(name, tmp_path / "out", size=28, yes=True), lambda _: True)


def test_folders_of_others(shelf: Path, tmp_path: Path) -> None:
    settings = DownloadSettings("covid-ct", tmp_path / "out", yes=True)
    settings.output_dir.mkdir()
    (settings.output_dir / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="expected a new folder, or one that this command began"):
        download(settings, lambda _: True, client_of=lambda _: Shelf(shelf))
    (settings.output_dir / "download.json").write_text('{"name": "colorectal"}')
    with pytest.raises(UserError, match="found one with colorectal in"):
        download(settings, lambda _: True, client_of=lambda _: Shelf(shelf))
    with pytest.raises(UserError, match="found them for covid-ct: leave"):
        download(replace(settings, patients=3), lambda _: True)


def test_medmnist_by_its_package() -> None:
    medmnist = pytest.importorskip("medmnist", reason="medmnist is not installed: pip install -e '.[download]'")
    told = medmnist.INFO["organsmnist"]
    for size, flag in ((28, ""), (64, "_64"), (128, "_128"), (224, "_224")):
        chosen = data_set_of("OrganSMNIST", size)
        (file,) = chosen.files
        assert (file.url, file.md5) == (told[f"url{flag}"], told[f"MD5{flag}"])
        assert file.path == f"organsmnist{flag}.npz"  # as the bundle looks for it
        assert chosen.licence == told["license"] == "CC BY 4.0"
    assert data_set_of("dermamnist").licence == "CC BY-NC 4.0"
    with pytest.raises(UserError, match="expected a size out of 28, 64 for organmnist3d, found 224"):
        data_set_of("organmnist3d", 224)
    for name in data_sets._MEDMNIST_CT:
        assert data_set_of(name).files


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_sets, "_medmnist_info", lambda: None)
    with pytest.raises(UserError, match="organsmnist needs the package medmnist: pip install"):
        data_set_of("organsmnist")


@pytest.mark.parametrize("row", DATA_SETS.values(), ids=list(DATA_SETS))
def test_each_row_can_be_used(row: DataSet) -> None:
    assert sum(map(bool, (row.files, row.collection, row.instructions))) == 1
    assert row.seen
    assert row.page.startswith("https://")
    for file in row.files:
        parts = urlsplit(file.url)
        assert parts.scheme == "https"
        assert parts.netloc in row.hosts
        assert not Path(file.path).is_absolute()
        assert len(file.sha256) in (0, 64)
