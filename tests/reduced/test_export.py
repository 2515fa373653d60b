"""Each export, read back by the reader of its own ecosystem: names and pixels are those of the selection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import tree

from lessismore_transforms.cli.export import Export
from lessismore_transforms.cli.main import main
from lessismore_transforms.errors import OutputError, UserError
from lessismore_transforms.options import options_of
from lessismore_transforms.phantom import write_demo_data
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.reduced import export as export_module
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.export import FORMATS, SLICES_PER_SHARD, export
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduction.target import Target


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a reduction of scans of two sizes; read only."""
    folder = tmp_path_factory.mktemp("export")
    write_demo_data(folder / "data" / "small", patients=1, slices=12, size=48)
    write_demo_data(folder / "data" / "large", patients=2, slices=12, size=64, seed=1)
    reduce_dataset(folder / "data", folder / "out", workers=0)
    return folder / "out"


def expected(out: Path, selection: str = "default") -> dict[str, np.ndarray]:
    slices = SliceSelectionDataset(out, selection)
    return {name: slices.picture(index) for index, name in enumerate(slices.slice_ids)}


def assert_same(found: dict[str, np.ndarray], out: Path) -> None:
    wanted = expected(out)
    assert {picture.shape for picture in wanted.values()} == {(48, 48), (64, 64)}
    assert sorted(found) == sorted(wanted)
    for name, picture in found.items():
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, wanted[name])


def test_webdataset_reads_the_shards(finished: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    folder = tmp_path / "shards"
    count, size = export(finished, folder, "webdataset", slices_per_shard=4)
    index = json.loads((folder / "index.json").read_text())
    assert index["__kind__"] == "wids-shard-index-v1"
    shards = index["shardlist"]
    assert [shard["nsamples"] for shard in shards] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert [shard["filesize"] for shard in shards] == [(folder / shard["url"]).stat().st_size for shard in shards]
    assert size == sum(shard["filesize"] for shard in shards)
    urls = [str(folder / shard["url"]) for shard in shards]
    found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("l8"))
    assert_same({item["__key__"]: item["png"] for item in found}, finished)
    slices = SliceSelectionDataset(finished)
    assert [item["__key__"] for item in found] == slices.slice_ids
    assert [item["json"]["patient"] for item in found] == slices.patients
    assert found[0]["json"].keys() == {"slice_id", "volume", "patient", "index"}


def test_torchvision_reads_the_folders(finished: Path, tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    export(finished, tmp_path / "pictures", "imagefolder")
    folder = ImageFolder(str(tmp_path / "pictures"), loader=lambda path: (path, path))
    assert folder.classes == sorted({record["volume"] for record in Manifest.read(finished).volumes})
    from PIL import Image

    pictures = {Path(path).stem: Image.open(path) for path, _ in folder.samples}
    assert {picture.mode for picture in pictures.values()} == {"L"}
    assert_same({name: np.asarray(picture) for name, picture in pictures.items()}, finished)


def test_pyarrow_reads_the_parquet_files(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import io

    import pyarrow.parquet
    from PIL import Image

    export(finished, tmp_path / "table", "parquet", slices_per_shard=5)
    table = pyarrow.parquet.read_table(sorted((tmp_path / "table").glob("*.parquet")))
    rows = table.to_pylist()
    assert_same({row["slice_id"]: np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows}, finished)
    assert [row["patient"] for row in rows] == SliceSelectionDataset(finished).patients
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features.keys() == set(table.column_names)


@pytest.mark.parametrize("form", ["webdataset", "imagefolder", "parquet"])
def test_the_same_bytes_again_and_after_an_interruption(
    finished: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    export(finished, tmp_path / "whole", form, slices_per_shard=3)
    made, left = export_module._png, [4]

    def stop(*given: object) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return made(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(export_module, "_png", stop)
    with pytest.raises(KeyboardInterrupt):
        export(finished, tmp_path / "again", form, slices_per_shard=3)
    before = tree(tmp_path / "again")
    assert 1 < len(before) < len(tree(tmp_path / "whole"))
    left[0] = len(expected(finished)) - (4 if form == "imagefolder" else 3)  # none is made twice
    export(finished, tmp_path / "again", form, slices_per_shard=3)
    assert tree(tmp_path / "again") == tree(tmp_path / "whole")
    assert not any(b"/" in name.encode() for name in tree(tmp_path / "again")) or form == "imagefolder"


@pytest.mark.parametrize("form", FORMATS)
def test_the_names_of_all_slices_are_not_listed_for_each_slice(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    lists = []

    def listing(dataset: SliceSelectionDataset) -> list[str]:
        lists.append(dataset)
        return [dataset.slice_id(index) for index in range(len(dataset))]

    monkeypatch.setattr(SliceSelectionDataset, "slice_ids", property(listing))
    count, _ = export(finished, tmp_path / "out", form)
    assert len(lists) <= 2 < count


def test_the_command_offers_what_there_is() -> None:
    """Its file names them again, because --help imports nothing that computes."""
    options = {each.name: each for each in options_of(Export)}
    assert options["format"].choices == FORMATS
    assert options["slices_per_shard"].default == SLICES_PER_SHARD


def test_mistakes_are_one_sentence(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match=r"expected a new or empty folder, found mine\.txt in .*full: name another"):
        export(finished, tmp_path / "full", "imagefolder")
    export(finished, tmp_path / "pictures", "imagefolder")
    with pytest.raises(OutputError, match="holds another export"):
        export(finished, tmp_path / "pictures", "webdataset")
    with pytest.raises(UserError, match=r"expected a format out of webdataset, imagefolder, parquet, found 'zip'"):
        export(finished, tmp_path / "zip", "zip")
    line = ["export", str(finished), "--format", "webdataset", "--output_dir", str(tmp_path / "x"), "--selection", "no"]
    assert main(line) == 2
    assert "no selection 'no'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_an_empty_selection_is_refused_and_one_beyond_the_store_is_read(finished: Path, tmp_path: Path) -> None:
    import shutil

    out = Path(shutil.copytree(finished, tmp_path / "out"))
    chosen = Manifest.read(out).select(Target.of())
    chosen.slices["kept"] = False
    chosen.write(out, "none")
    with pytest.raises(UserError, match=r"the selection 'none' of .* keeps no slice"):
        export(out, tmp_path / "none", "imagefolder", "none")
    select(out, Target.of(method="all"), "all")
    with pytest.warns(UserWarning, match="not in the store"):
        count, _ = export(out, tmp_path / "all", "imagefolder", "all")
    assert count == len(Manifest.read(out).slices)
