"""Get a data set: say what it is, ask, transfer, check, unpack, and keep a record of what was got."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lessismore_transforms.atomic import holding, write_json
from lessismore_transforms.downloads import idc
from lessismore_transforms.downloads.archives import unpack
from lessismore_transforms.downloads.data_sets import NO_LICENCE, DataSet, data_set_of
from lessismore_transforms.downloads.https import Client
from lessismore_transforms.downloads.settings import DownloadSettings
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.wording import counted

RECORD = "download.json"


def download(
    settings: DownloadSettings,
    confirm: Callable[[str], bool],
    *,
    client_of: Callable[[DataSet], Client] | None = None,
) -> Path:
    """Get a data set into a folder; returns it.

    Args:
        settings: what is asked for.
        confirm: asked with a question before anything is got, unless `yes` is given.
        client_of: the client for a data set, in place of one for its hosts.

    Raises:
        UserError: there is no such set, it cannot be got without a person, the folder is another's, or getting it
            fails; what was got stays.
        OutputError: there is no room, or the folder cannot be written.
    """
    chosen = data_set_of(settings.name, settings.size)
    if chosen.instructions:
        raise UserError(f"{chosen.title} cannot be got by a command: {chosen.instructions}: {chosen.page}")
    if not chosen.collection and (settings.patients is not None or settings.ids):
        raise UserError(
            f"expected --patients and --ids for lidc and fdg-pet-ct, found them for {chosen.name}: leave them out"
        )
    folder = settings.output_dir
    record = _open_folder(folder, chosen)
    if chosen.collection:
        _from_idc(chosen, settings, confirm)
    else:
        client = client_of(chosen) if client_of else Client(chosen.hosts, chosen.page)
        _from_publisher(chosen, client, settings, record, confirm)
    return folder


def _from_idc(chosen: DataSet, settings: DownloadSettings, confirm: Callable[[str], bool]) -> None:
    client = idc.open_client()
    choice = idc.choose(client, chosen.collection, settings.patients, settings.ids)
    _say(chosen, choice.licences, choice.told())
    _confirm(settings, confirm)
    with _begun(settings.output_dir, chosen, choice.licences) as record:
        idc.transfer(client, choice, settings.output_dir)
        series = {*record.get("series", []), *choice.series["SeriesInstanceUID"]}  # with those of earlier choices
        write_json(settings.output_dir / RECORD, {**record, "series": sorted(series)})
    print(f"{choice.told()} in {settings.output_dir}: all files are there, in the sizes that the index tells")


def _from_publisher(
    chosen: DataSet,
    client: Client,
    settings: DownloadSettings,
    record: dict[str, Any],
    confirm: Callable[[str], bool],
) -> None:
    folder, got = settings.output_dir, dict(record.get("files", {}))
    waiting = [file for file in chosen.files if file.path not in got]
    if not waiting:
        print(f"{chosen.title} is in {folder} already")
        return
    sizes = [client.size_of(file) for file in waiting]
    known = sum(size for size in sizes if size is not None)
    unknown = sum(size is None for size in sizes)
    told = f"{counted(len(waiting), 'file')}, {known / 1e6:,.1f} MB"
    _say(chosen, chosen.licence, told + (f" and {counted(unknown, 'file')} of unknown size" if unknown else ""))
    _confirm(settings, confirm)
    with _begun(folder, chosen, chosen.licence) as record:
        got = dict(record.get("files", {}))
        for file in (file for file in chosen.files if file.path not in got):
            path = folder / file.path
            digest = client.fetch(file, path)
            if file.unpack:
                count = unpack(path, folder)
                path.unlink()
                print(f"{path.name}: unpacked {counted(count, 'file')}")
            got[file.path] = digest
            write_json(folder / RECORD, {**record, "files": got})  # what is done stays done
    print(f"{chosen.title} is in {folder}")


def _open_folder(folder: Path, chosen: DataSet) -> dict[str, Any]:
    """The record of a folder that is new, empty, or was begun for the same data set.

    Raises:
        UserError: it holds anything else.
    """
    path = folder / RECORD
    new = {"name": chosen.name, "cite": chosen.cite, "page": chosen.page}
    with reading(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return new
        if not path.is_file():
            raise UserError(f"expected a new folder, or one that this command began, found {folder}: name another one")
        text = path.read_text(encoding="utf-8")
    try:
        found: dict[str, Any] = json.loads(text)
        name = found["name"]
        dict(found.get("files", {})), list(found.get("series", []))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"expected the record of a download in {path}, found a damaged file: name another folder"
        ) from error
    if name != chosen.name:
        raise UserError(f"expected a folder for {chosen.name}, found one with {name} in {folder}: name another one")
    return {**found, **new}


def _say(chosen: DataSet, licence: str, size: str) -> None:
    warned = "; that is no permission: look at the terms of each picture's source" if licence == NO_LICENCE else ""
    print(f"{chosen.title}: {size}\nlicence: {licence}{warned}\nto be cited: {chosen.cite}")


def _confirm(settings: DownloadSettings, confirm: Callable[[str], bool]) -> None:
    if not settings.yes and not confirm(f"Get it into {settings.output_dir}? [y/N]"):
        raise UserError("nothing was got: answer y, or give --yes once size and licence are fine")


@contextmanager
def _begun(folder: Path, chosen: DataSet, licence: str) -> Iterator[dict[str, Any]]:
    """Be the one process that writes into the folder; gives its record, as it is by then, which says what is to come.

    Raises:
        UserError: meanwhile it holds anything else.
        OutputError: another process writes into it, or it cannot be written.
    """
    with holding(folder):
        record = _open_folder(folder, chosen)
        if chosen.collection and record.get("licence"):  # of another choice of its series
            licence = ", ".join(sorted({*str(record["licence"]).split(", "), *licence.split(", ")}))
        record["licence"] = licence
        write_json(folder / RECORD, record)
        yield record
