"""Archives: what is unpacked, and what is refused."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from lessismore_transforms.downloads.archives import unpack
from lessismore_transforms.errors import UserError


def make_zip(path: Path, names: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, members: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 3 if kind == tarfile.REGTYPE else 0
    return info


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_zip_goes_beside_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "old.png").write_bytes(b"old")
    names = {"a/one.png": b"1", "b/c/two.png": b"2", "__MACOSX/a/._one.png": b"no"}
    assert unpack(make_zip(tmp_path / "x.zip", names), out) == 2
    assert files(out) == {"a/old.png": b"old", "a/one.png": b"1", "b/c/two.png": b"2"}


def test_a_tar(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "x.tar.gz", [member("./", tarfile.DIRTYPE), member("./a/one.png"), member("two.png")])
    assert unpack(archive, tmp_path / "out") == 2
    assert files(tmp_path / "out") == {"a/one.png": b"xxx", "two.png": b"xxx"}


BAD = ["../evil.png", "a/../../evil.png", "/evil.png", "..\\evil.png", "C:evil.png"]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    for archive in (
        make_zip(tmp_path / "x.zip", {"good.png": b"1", name: b"2"}),
        make_tar(tmp_path / "x.tar.gz", [member("good.png"), member(name)]),
    ):
        with pytest.raises(UserError, match="which leads out of the folder: nothing was unpacked"):
            unpack(archive, tmp_path / "out" / "deep")
        assert files(tmp_path / "out") == {}
        assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = make_tar(tmp_path / "x.tar.gz", [member("link", kind, "/etc/passwd")])
    with pytest.raises(UserError, match="is a link or a device"):
        unpack(archive, tmp_path / "out")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="'link', which is a link"):
        unpack(path, tmp_path / "out")


def test_damaged_archives(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "x.zip", {"a.png": bytes(range(256)) * 20})
    data = bytearray(whole.read_bytes())
    data[100] ^= 255  # a byte of the picture: the archive's own checksum tells
    whole.write_bytes(data)
    with pytest.raises(UserError, match="expected a whole archive in"):
        unpack(whole, tmp_path / "out")
    broken = tmp_path / "y.tar.gz"
    broken.write_bytes(make_tar(tmp_path / "z.tar.gz", [member("a")]).read_bytes()[:-12])
    with pytest.raises(UserError, match="expected a whole archive in"):
        unpack(broken, tmp_path / "out")
    assert files(tmp_path / "out") == {}
