"""The slices of a selection as files that other trainers read: WebDataset shards, an ImageFolder, or Parquet.

Pictures are 8-bit grey PNG in their own size, named by slice_id; the patient is the manifest's, a keyed hash unless ids
were asked for; no path is written. The same selection gives the same bytes, and what is interrupted goes on.

Formats: WebDataset (https://github.com/webdataset/webdataset, its index as wids 1 reads it), torchvision's ImageFolder,
and Parquet with an image column as Hugging Face's datasets declares it.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lessismore_transforms.atomic import atomic_write, lock, remove_temporaries, write_json, writing
from lessismore_transforms.errors import OutputError, UserError
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.table_files import parse_slice_id, read_record

FORMATS = ("webdataset", "imagefolder", "parquet")
SLICES_PER_SHARD = 1000  # 50 to 150 MB of 512 x 512 pictures
_RECORD, _INDEX = "export.json", "index.json"
_ENDINGS = {"webdataset": "tar", "parquet": "parquet"}


def export(
    output_dir: str | Path,
    folder: str | Path,
    form: str,
    selection: str = "default",
    *,
    dataset_dir: str | Path | None = None,
    slices_per_shard: int = SLICES_PER_SHARD,
) -> tuple[int, int]:
    """Write the slices of a selection for another trainer; files that an interrupted call finished are kept.

    Args:
        output_dir: output folder of `reduce`.
        folder: where to write; new, empty, or that of the same export.
        form: one of `FORMATS`.
        selection: name of the selection.
        dataset_dir: where the volumes are, for slices that the store lacks; by default where they were.
        slices_per_shard: slices of a WebDataset shard or Parquet file.

    Returns:
        The number of slices, and of bytes of all files with pictures.

    Raises:
        UserError: an unknown format, a selection that keeps nothing, or Parquet without pyarrow.
        OutputError: the folder holds something else, or cannot be written.
        ManifestError: the output is damaged, or has no such selection.
    """
    folder = Path(folder)
    if form not in FORMATS:
        raise UserError(f"expected a format out of {', '.join(FORMATS)}, found {form!r}")
    if slices_per_shard < 1:
        raise UserError(f"expected 1 slice or more in a shard, found {slices_per_shard}")
    if form == "parquet":
        _pyarrow()
    slices = SliceSelectionDataset(output_dir, selection, dataset_dir=dataset_dir)
    if not len(slices):
        raise UserError(f"the selection {selection!r} of {output_dir} keeps no slice: choose another one")
    record = {
        "format": form,
        "slices": len(slices),
        "slices_per_shard": slices_per_shard,
        "identity": slices.identity(),
    }
    _begin(folder, record)
    with (folder / _RECORD).open("rb") as held:
        lock(held, folder)
        remove_temporaries(folder)
        files = _write_folders(slices, folder) if form == "imagefolder" else _write_shards(slices, folder, form, record)
        return len(slices), sum(path.stat().st_size for path in files)


def _begin(folder: Path, record: dict[str, Any]) -> None:
    """Make the folder and note what it holds; refuse one that holds something else."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in folder.iterdir())
    if _RECORD not in found and found:
        raise OutputError(f"expected a new or empty folder, found {found[0]} in {folder}: name another")
    if _RECORD not in found:
        write_json(folder / _RECORD, record)
    elif read_record(folder / _RECORD) != record:
        raise OutputError(f"{folder} holds another export (see {_RECORD} there): name another folder or delete it")


def _write_shards(slices: SliceSelectionDataset, folder: Path, form: str, record: dict[str, Any]) -> list[Path]:
    """Write shards of consecutive slices, and the index that states their sizes."""
    write = {"webdataset": _write_tar, "parquet": _write_parquet}[form]
    size, count = record["slices_per_shard"], len(slices)
    starts = range(0, count, size)
    paths = [folder / f"slices-{number:06d}.{_ENDINGS[form]}" for number in range(len(starts))]
    done = sum(min(size, count - start) for start, path in zip(starts, paths, strict=True) if path.is_file())
    with progress_bar(desc="export", unit=" slices", total=count, initial=done) as bar:
        for start, path in zip(starts, paths, strict=True):
            if not path.is_file():
                _write_shard(path, slices, range(start, min(start + size, count)), write, bar.update)
    shards = [
        {"url": path.name, "nsamples": min(size, count - start), "filesize": path.stat().st_size}
        for start, path in zip(starts, paths, strict=True)
    ]
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "slices", "shardlist": shards}
    write_json(folder / _INDEX, index)
    return paths


def _write_shard(
    path: Path,
    slices: SliceSelectionDataset,
    indices: range,
    write: Callable[[IO[Any], Iterator[tuple[dict[str, Any], bytes]]], None],
    advance: Callable[[], Any],
) -> None:
    def items() -> Iterator[tuple[dict[str, Any], bytes]]:
        for index in indices:
            yield _about(slices, index), _png(slices, index)
            advance()

    with atomic_write(path, "wb") as file:
        write(file, items())


def _about(slices: SliceSelectionDataset, index: int) -> dict[str, Any]:
    name = slices.slice_id(index)
    volume, place = parse_slice_id(name)
    return {"slice_id": name, "volume": volume, "patient": slices.patients[index], "index": place}


def _png(slices: SliceSelectionDataset, index: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(slices.picture(index)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _write_tar(file: IO[Any], items: Iterator[tuple[dict[str, Any], bytes]]) -> None:
    """Write a shard: per slice a picture and what is known of it, with nobody's name and no time."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for about, png in items:
            for ending, content in (("png", png), ("json", json.dumps(about, sort_keys=True).encode())):
                entry = tarfile.TarInfo(f"{about['slice_id']}.{ending}")  # times, users and groups are 0 and empty
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def _write_parquet(file: IO[Any], items: Iterator[tuple[dict[str, Any], bytes]]) -> None:
    """Write a file of which a row is a slice; `image` holds bytes and name as Hugging Face's datasets reads them."""
    pyarrow = _pyarrow()
    texts = ("slice_id", "volume", "patient")
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    kinds = [("image", image), *((name, pyarrow.string()) for name in texts), ("index", pyarrow.int64())]
    features: dict[str, Any] = {"image": {"_type": "Image"}, "index": {"dtype": "int64", "_type": "Value"}}
    features |= {name: {"dtype": "string", "_type": "Value"} for name in texts}
    told = json.dumps({"info": {"features": features}}, sort_keys=True)
    schema = pyarrow.schema(kinds, metadata={"huggingface": told})
    rows = [{"image": {"bytes": png, "path": f"{about['slice_id']}.png"}, **about} for about, png in items]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file, row_group_size=100, compression="none")


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet needs the package pyarrow: pip install 'lessismore-transforms[export]'") from None
    return pyarrow


def _write_folders(slices: SliceSelectionDataset, folder: Path) -> list[Path]:
    """Write pictures in a folder of their volume, which an ImageFolder takes for their class."""
    paths = []
    for index, name in enumerate(progress_bar(slices.slice_ids, desc="export", unit=" slices")):
        path = folder / parse_slice_id(name)[0] / f"{name}.png"
        paths.append(path)
        if not path.is_file():
            with writing(path):
                path.parent.mkdir(exist_ok=True)
            remove_temporaries(path.parent)
            with atomic_write(path, "wb") as file:
                file.write(_png(slices, index))
    return paths
