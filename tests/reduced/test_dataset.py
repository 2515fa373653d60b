from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import imagehash
import nibabel
import numpy as np
import pytest
import torch
from helpers import read_index
from made_outputs import keep, make_out
from PIL import Image
from torch.utils.data import DataLoader

from lessismore_transforms.errors import ManifestError, UserError, VolumeError
from lessismore_transforms.phantom import write_demo_data
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.store import fill_store
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.target import Target


@pytest.fixture(scope="module")
def finished(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("dataset") / "out"
    reduce_dataset(small_data, output, Settings(Target.of(threshold=12)), workers=0, png_dir=output.parent / "png")
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def pictures(dataset: SliceSelectionDataset) -> dict[str, np.ndarray]:
    return {item["slice_id"]: item["image"].numpy() for item in (dataset[i] for i in range(len(dataset)))}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_items_are_the_kept_slices_in_order(finished: Path) -> None:
    dataset = SliceSelectionDataset(finished)
    assert [item["slice_id"] for item in map(dataset.__getitem__, range(len(dataset)))] == Selection.read(
        finished
    ).kept_ids
    image = dataset[0]["image"]
    assert image.dtype == torch.uint8
    assert image.shape == (1, 48, 48)
    assert (dataset.picture(0) == image[0].numpy()).all()
    assert (image.min(), image.max()) == (0, 255)


def test_store_png_and_direct_reading_give_the_same_pixels(finished: Path, output: Path) -> None:
    stored = pictures(SliceSelectionDataset(finished))
    shutil.rmtree(output / "store")
    assert_same(pictures(SliceSelectionDataset(output)), stored)
    exported = [np.asarray(Image.open(path)) for path in sorted((finished.parent / "png").iterdir())]
    assert sorted(picture.tobytes() for picture in exported) == sorted(picture.tobytes() for picture in stored.values())


def test_direct_reading_of_another_place(small_data: Path, output: Path, tmp_path: Path, finished: Path) -> None:
    shutil.rmtree(output / "store")
    moved = shutil.copytree(small_data, tmp_path / "moved")
    log = output / "run.jsonl"
    log.write_text(log.read_text().replace(str(small_data), "/gone"))
    assert_same(pictures(SliceSelectionDataset(output, dataset_dir=moved)), pictures(SliceSelectionDataset(finished)))
    with pytest.raises(UserError, match="/gone"):
        SliceSelectionDataset(output)[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_workers_change_nothing(finished: Path, workers: int) -> None:
    dataset = SliceSelectionDataset(finished)
    loader = DataLoader(
        dataset, batch_size=4, num_workers=workers, multiprocessing_context="spawn" if workers else None
    )
    batches = list(loader)
    assert [name for batch in batches for name in batch["slice_id"]] == Selection.read(finished).kept_ids
    expected = np.stack(list(pictures(dataset).values()))
    np.testing.assert_array_equal(np.concatenate([batch["image"].numpy() for batch in batches]), expected)


def test_a_pickled_data_set_carries_no_pixels(finished: Path) -> None:
    dataset = SliceSelectionDataset(finished)
    before = len(pickle.dumps(dataset))
    opened = pictures(dataset)
    assert len(pickle.dumps(dataset)) == before
    assert_same(pictures(pickle.loads(pickle.dumps(dataset))), opened)  # noqa: S301


def test_several_outputs_and_a_transform(finished: Path, tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", patients=1, slices=8, size=32, seed=50)
    reduce_dataset(tmp_path / "data", tmp_path / "other", Settings(Target.of(threshold=3)), workers=0)
    dataset = SliceSelectionDataset([finished, tmp_path / "other"], transform=lambda item: item["slice_id"])
    kept = [Selection.read(folder).kept_ids for folder in (finished, tmp_path / "other")]
    assert [dataset[i] for i in range(len(dataset))] == kept[0] + kept[1]
    assert kept[1]


def test_fill_store_adds_what_a_selection_lacks_and_moves_nothing(output: Path, finished: Path) -> None:
    before = read_index(output)
    selection, lacking = select(output, Target.of(threshold=2), "more")
    with pytest.warns(
        UserWarning, match=f"{lacking} of {len(selection.kept_ids)} slices of 'more' are not in the store"
    ):
        direct = pictures(SliceSelectionDataset(output, "more"))
    assert fill_store(output, selection) == lacking > 0
    assert read_index(output).items() >= before.items()
    assert set(read_index(output)) == set(before) | set(selection.kept_ids)
    assert_same(pictures(SliceSelectionDataset(output, "more")), direct)
    assert_same(pictures(SliceSelectionDataset(output)), pictures(SliceSelectionDataset(finished)))
    assert fill_store(output, selection) == 0


def test_missing_pieces_are_named(output: Path, small_data: Path, tmp_path: Path) -> None:
    volume = Selection.read(output).kept_ids[0].rpartition("_")[0]
    (output / "store" / f"{volume}.npy").unlink()
    with pytest.raises(ManifestError, match=rf"{volume}\.npy is missing"):
        SliceSelectionDataset(output)[0]
    shutil.rmtree(output / "store")
    (output / "run.jsonl").unlink()
    with pytest.raises(ManifestError, match="does not tell where the volumes are"):
        SliceSelectionDataset(output)[0]
    (tmp_path / "other").mkdir()
    with pytest.raises(ManifestError, match=r"4 volumes of the manifest \(the first: .*\) are not below"):
        SliceSelectionDataset(output, dataset_dir=tmp_path / "other")[0]


@pytest.mark.parametrize(("pixels", "low", "high"), [("lung", -1150, 350), ("40/400", -160, 240)])
def test_windows_are_stored_and_hashing_is_not_affected(
    small_data: Path, tmp_path: Path, finished: Path, pixels: str, low: float, high: float
) -> None:
    reduce_dataset(small_data, tmp_path / "out", Settings(Target.of(threshold=12), pixels=pixels), workers=0)
    assert (Manifest.read(tmp_path / "out").slices["hash"] == Manifest.read(finished).slices["hash"]).all()
    from lessismore_transforms.volumes import find_volumes, read_slices

    hu = {
        f"{volume.volume}_{piece.index:04d}": piece.hu
        for volume in find_volumes(small_data).volumes
        for piece in read_slices(volume, small_data)
    }
    for name, picture in pictures(SliceSelectionDataset(tmp_path / "out")).items():
        expected = np.rint(np.clip(255 * (hu[name].astype(float) - low) / (high - low), 0, 255))
        np.testing.assert_array_equal(picture[0], expected)


def test_padding_is_clipped_but_for_the_released_pixels(tmp_path: Path) -> None:
    import nibabel

    hu = np.random.default_rng(0).integers(-1000, 1000, (40, 40, 3)).astype(np.int16)
    hu[:3] = -3024
    stretched = [
        np.rint(255 * (np.maximum(picture, -1024) + 1024.0) / (picture.max() + 1024)).astype(np.uint8)
        for picture in hu.transpose(2, 1, 0)
    ]
    clipped_hashes = [int(str(imagehash.dhash(Image.fromarray(picture))), 16) for picture in stretched]
    (tmp_path / "data").mkdir()
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([-1, -1, 1, 1.0])), tmp_path / "data" / "ct.nii.gz")
    for pixels, lowest in (("clipped", -1024), ("released", -3024)):
        reduce_dataset(tmp_path / "data", tmp_path / pixels, Settings(pixels=pixels), workers=0)
        clipped = np.clip(hu[:, :, 0].T.astype(float), lowest, None)
        spread = clipped.max() - lowest + (1e-5 if pixels == "released" else 0)
        picture = SliceSelectionDataset(tmp_path / pixels)[0]["image"][0]
        np.testing.assert_array_equal(picture, np.rint(255 * (clipped - lowest) / spread))
        manifest = Manifest.read(tmp_path / pixels)
        assert manifest.slices["hash"].tolist() == clipped_hashes  # whatever is stored
        note = "7.5\u00a0% of the voxels are padding below -1024 HU: they count as -1024 HU"
        where = " where slices are compared, and stay in the pictures" if pixels == "released" else ""
        assert manifest.volumes[0]["notes"] == [note + where]
    for number, pixels in enumerate(("released", "lung")):  # hashed with the padding: no note says otherwise
        out = tmp_path / f"as_released{number}"
        reduce_dataset(tmp_path / "data", out, Settings(pixels=pixels, as_released=True), workers=0)
        assert Manifest.read(out).volumes[0]["notes"] == []
    stored = dhash(np.stack([picture[0] for picture in pictures(SliceSelectionDataset(tmp_path / "clipped")).values()]))
    assert stored.tolist() == clipped_hashes[: len(stored)]  # random slices: all are kept


def test_a_window_of_grey_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.new("L", (8, 8), 7).save(tmp_path / "data" / "LIDC-IDRI-0001_1.png")
    with pytest.raises(VolumeError, match="needs HU, but 2-D images hold grey values"):
        reduce_dataset(tmp_path / "data", tmp_path / "out", Settings(pixels="lung"), workers=0, strict=True)


def test_the_same_output_twice_is_refused(finished: Path, output: Path) -> None:
    with pytest.raises(ManifestError, match="found the same slices in several of"):
        SliceSelectionDataset([finished, output])


def test_identity_is_of_slices_and_pixels(finished: Path, output: Path) -> None:
    identity = SliceSelectionDataset(finished).identity()
    assert SliceSelectionDataset(output).identity() == identity  # wherever they lie
    select(output, Target.of(threshold=3), "more")
    assert SliceSelectionDataset(output, "more").identity() != identity


def test_it_says_what_it_holds_and_which_volume_and_patient_each_item_is_of(finished: Path) -> None:
    dataset, slices = SliceSelectionDataset(finished), Manifest.read(finished).slices.set_index("slice_id")
    assert dataset.volumes == slices.loc[dataset.slice_ids, "volume"].tolist()
    assert dataset.patients == slices.loc[dataset.slice_ids, "patient"].tolist()
    volumes, patients = len({*dataset.volumes}), len({*dataset.patients})
    assert volumes > 1
    holds = f"{len(dataset)} slices of {volumes} volumes and {patients} patients, selection 'default' of {finished}"
    assert repr(dataset) == f"SliceSelectionDataset({holds})"


def test_slicing_gives_a_data_set_of_some_items(finished: Path) -> None:
    dataset = SliceSelectionDataset(finished, transform=lambda item: {**item, "seen": True})
    part = dataset[3:-2:2]
    assert part.slice_ids == dataset.slice_ids[3:-2:2]
    assert [part.slice_id(index) for index in range(len(part))] == part.slice_ids
    assert part.patients == dataset.patients[3:-2:2]
    assert part.clusters.tolist() == list(range(len(part)))
    assert part.hashes().tolist() == dataset.hashes()[3:-2:2].tolist()
    assert part.positions_mm.tolist() == dataset.positions_mm[3:-2:2].tolist()
    assert part[0]["seen"]
    assert torch.equal(part[1]["image"], dataset[5]["image"])
    assert part.identity() != dataset.identity() == dataset[:].identity()
    assert len(dataset[:0]) == 0


@pytest.mark.parametrize("by", ["patient", "volume", "slice"])
def test_a_split_divides_no_patient_or_volume(finished: Path, by: str) -> None:
    dataset = SliceSelectionDataset(finished)
    units = {"patient": dataset.patients, "volume": dataset.volumes, "slice": dataset.slice_ids}[by]
    parts = dataset.split(3, 1, by=by, seed=1)
    own = [
        {unit for unit, name in zip(units, dataset.slice_ids, strict=True) if name in part.slice_ids} for part in parts
    ]
    assert not own[0] & own[1]
    assert own[0] | own[1] == {*units}
    assert len(own[0]) == min(round(0.75 * len({*units})), len({*units}) - 1)
    assert sorted(name for part in parts for name in part.slice_ids) == sorted(dataset.slice_ids)
    assert [part.slice_ids for part in dataset.split(0.75, 0.25, by=by, seed=1)] == [part.slice_ids for part in parts]


def test_each_part_of_a_split_has_a_unit_however_small_its_share(finished: Path) -> None:
    parts = SliceSelectionDataset(finished).split(0.001, 0.998, 0.001, by="slice")
    assert [len(part) for part in parts] == [1, len(SliceSelectionDataset(finished)) - 2, 1]


def test_splits_that_make_no_sense(finished: Path) -> None:
    dataset = SliceSelectionDataset(finished)
    for shares, options, sentence in (
        ((0.5, 0.5), {"by": "site"}, "expected to split by patient, volume or slice, found 'site'"),
        ((1, 0), {}, "expected shares above 0"),
        ((), {}, "expected shares above 0"),
        ((1,) * 50, {"by": "volume"}, "expected a volume or more for each of 50 parts"),
    ):
        with pytest.raises(UserError, match=sentence):
            dataset.split(*shares, **options)


def test_weights_draw_all_volumes_equally_often(finished: Path) -> None:
    dataset = SliceSelectionDataset(finished)
    weights = dataset.volume_weights
    for volume in {*dataset.volumes}:
        own = [weight for weight, of in zip(weights, dataset.volumes, strict=True) if of == volume]
        assert sum(own) == pytest.approx(1 / len({*dataset.volumes}))
        assert len({*own}) == 1


def test_items_go_through_torchvision_upright(finished: Path) -> None:
    from torchvision.transforms import v2

    dataset = SliceSelectionDataset(finished)
    flipped = SliceSelectionDataset(finished, transform=v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(p=1)]))
    assert torch.equal(flipped[0]["image"], dataset[0]["image"].flip(-1))
    small = SliceSelectionDataset(finished, transform=v2.Resize((20, 12)))
    assert small[0]["image"].shape == (1, 20, 12)


def test_scans_of_several_sizes_make_a_batch(finished: Path, tmp_path: Path) -> None:
    """As the README has it, and by padding."""
    from monai.data import pad_list_data_collate
    from torchvision.transforms import v2

    write_demo_data(tmp_path / "data", patients=1, slices=6, size=64, seed=50)
    reduce_dataset(tmp_path / "data", tmp_path / "out", Settings(Target.of(method="all")), workers=0)
    outputs = [finished, tmp_path / "out"]
    resized = SliceSelectionDataset(outputs, transform=v2.Resize((20, 20)))
    (batch,) = DataLoader(resized, batch_size=len(resized))
    assert batch["image"].shape == (len(resized), 1, 20, 20)
    assert batch["image"].dtype == torch.uint8
    (batch,) = DataLoader(SliceSelectionDataset(outputs), batch_size=len(resized), collate_fn=pad_list_data_collate)
    assert batch["image"].shape == (len(resized), 1, 64, 64)
    assert sum(not picture[:, :8].any() and bool(picture.any()) for picture in batch["image"]) >= len(resized) - 6


def test_it_tells_hashes_places_and_grey_values_of_its_slices(finished: Path, tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", patients=1, slices=8, size=32, seed=50)
    reduce_dataset(tmp_path / "data", tmp_path / "other", Settings(Target.of(threshold=3)), workers=0)
    folders = [finished, tmp_path / "other"]
    dataset = SliceSelectionDataset(folders)
    tables = [Manifest.read(folder).slices.set_index("slice_id") for folder in folders]
    rows = [tables[0].loc[name] if name in tables[0].index else tables[1].loc[name] for name in dataset.slice_ids]
    assert dataset.hashes().tolist() == [int(row["hash"]) for row in rows]
    assert dataset.positions_mm.tolist() == [row["position_mm"] for row in rows]
    assert dataset.smallest() == (32, 32)
    assert dataset[:2].smallest() == (48, 48)
    pixels = np.concatenate([picture.ravel() for picture in pictures(dataset).values()]) / 255
    assert dataset.mean_std() == pytest.approx((pixels.mean(), pixels.std()), abs=2e-6)
    with pytest.raises(UserError, match=r"^expected slices in the selection 'default' of .*out, .*, found none: keep"):
        dataset[:0].smallest()


@pytest.mark.filterwarnings("ignore:1 of 1 slice")  # which the made-up output does not store
def test_an_output_that_tells_no_grey_values_is_refused(tmp_path: Path) -> None:
    (tmp_path / "black").mkdir()
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.eye(4)), tmp_path / "black" / "ct.nii.gz")
    settings = Settings(Target.of(method="all"), include=("ct.nii.gz",))
    reduce_dataset(tmp_path / "black", tmp_path / "out", settings, workers=0)
    old = keep(make_out(tmp_path / "old", [[1, 2]]), "one", [0])
    sentence = "manifest.json tells no mean and standard deviation of stored slices: reduce again with this version, or"
    for folder, name in ((tmp_path / "out", "default"), old):
        with pytest.raises(ManifestError, match=f"^{folder}/{sentence}"):
            SliceSelectionDataset(folder, name).mean_std()
