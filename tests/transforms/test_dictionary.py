"""SelectSlicesd keeps what `reduce` keeps, and lives in MONAI's pipelines."""

from __future__ import annotations

import csv
import itertools
import pickle

import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, pad_list_data_collate
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Flipd,
    Invertd,
    LoadImaged,
    Orientationd,
    Spacingd,
    SplitDimd,
)

import lessismore_transforms.transforms as transforms
from lessismore_transforms.errors import UserError
from lessismore_transforms.phantom import phantom_scan, write_dicom, write_nifti
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.transforms import CTVolumeReader, ScaleToUint8d, SelectSlices, SelectSlicesd, WindowToUint8d
from lessismore_transforms.volumes import find_volumes

AXES = ["".join(codes) for order in itertools.permutations(("LR", "PA", "SI")) for codes in itertools.product(*order)]


def kept_by_reduce(root, folder, **target):
    """Kept canonical indices and positions in mm of each volume of a data set, by its id."""
    key = folder / "key"
    folder.mkdir(exist_ok=True)
    key.write_text("only for tests, no secret")
    reduce_dataset(root, folder / "out", Settings(target=Target.of(**target)), workers=0, patient_key=key)
    with (
        (folder / "out" / "manifest.csv").open() as rows,
        (folder / "out" / "selections" / "default.csv").open() as own,
    ):
        kept: dict[str, list[tuple[int, float]]] = {}
        for row, choice in zip(csv.DictReader(rows), csv.DictReader(own), strict=True):
            assert row["slice_id"] == choice["slice_id"]
            if choice["kept"] == "1":
                kept.setdefault(row["volume"], []).append((int(row["index"]), float(row["position_mm"])))
    return kept


def pipeline(reader, **options):
    return Compose(
        [
            LoadImaged("image", reader=reader),
            EnsureChannelFirstd("image"),
            SelectSlicesd("image", **options),
        ]
    )


def positions(item, original):
    """Where the kept slices are in mm toward the head, posterior or left, ascending, by the original's affine."""
    points = original.affine.numpy()[:3] @ np.array([[0, 0, index, 1] for index in item["image_slices"][0]]).T
    axis = np.abs(original.affine.numpy()[:3, 2]).argmax()
    return np.sort(points[axis] * (1 if axis == 2 else -1))


@pytest.mark.parametrize("target", [{"threshold": 6}, {"fraction": 0.2}])
def test_every_axis_order_and_dicom_keep_what_reduce_keeps(tmp_path, target):
    scan = phantom_scan(1, slices=20, size=24, slice_spacing_mm=6)
    for axes in AXES:
        write_nifti(scan, tmp_path / "data" / f"{axes}.nii", axcodes=axes)
    write_dicom(scan, tmp_path / "data" / "dicom")
    expected = kept_by_reduce(tmp_path / "data", tmp_path / "run", **target)
    ours, theirs = pipeline(CTVolumeReader(), **target), pipeline("NibabelReader", **target)
    load = LoadImaged("image", reader="NibabelReader")
    volumes = find_volumes(tmp_path / "data").volumes
    assert len(volumes) == 49
    for volume in volumes:
        indices, places = zip(*expected[volume.volume], strict=True)
        assert 1 < len(indices) < volume.shape[0]
        item = volume.as_dict(tmp_path / "data")
        assert ours(item)["image_slices"][0].tolist() == list(indices)
        if volume.format == "nifti":
            np.testing.assert_allclose(positions(theirs(item), load(item)["image"]), np.sort(places), atol=1e-2)
    axial = [volume for volume in volumes if volume.orientation.plane == "axial"]
    assert len(axial) == 17  # sixteen NIfTI files and the DICOM series: one and the same choice
    assert len({tuple(index for index, _ in expected[volume.volume]) for volume in axial}) == 1


def test_voxels_that_are_no_numbers(tmp_path):
    scan = phantom_scan(2, slices=12, size=24, slice_spacing_mm=6)
    image = nibabel.load(write_nifti(scan, tmp_path / "whole.nii"))
    voxels = image.get_fdata(dtype=np.float32)
    voxels[3, 4:9, ::2], voxels[5, 5, 1], voxels[:, :, 7] = np.nan, np.inf, np.nan
    (tmp_path / "data").mkdir()
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), tmp_path / "data" / "ct.nii")
    (kept,) = kept_by_reduce(tmp_path / "data", tmp_path / "run", threshold=3).values()
    assert 1 < len(kept) < 12
    for reader in ("NibabelReader", CTVolumeReader()):
        item = pipeline(reader, threshold=3)({"image": tmp_path / "data" / "ct.nii"})
        assert item["image_slices"][0].tolist() == [index for index, _ in kept]


def test_real_volumes_keep_what_reduce_keeps(real_data, tmp_path):
    root = real_data / "ct"
    expected = kept_by_reduce(root, tmp_path / "run", threshold=6)
    volumes = find_volumes(root).volumes
    assert len(volumes) == len(expected) == 5
    ours, theirs = pipeline(CTVolumeReader()), pipeline("NibabelReader")
    for volume in volumes:
        indices = [index for index, _ in expected[volume.volume]]
        item = volume.as_dict(root)
        assert ours(item)["image_slices"][0].tolist() == indices
        if volume.format == "nifti":
            stored = theirs(item)["image_slices"][0].tolist()
            assert sorted(volume.orientation.index(index, volume.shape[0]) for index in stored) == indices
        if volume.format == "dicom":
            turned = Compose(
                [
                    LoadImaged("image", reader="ITKReader"),
                    EnsureChannelFirstd("image"),
                    Orientationd("image", axcodes="SRA", labels=None),  # slices first, everything mirrored
                    SelectSlicesd("image", slice_dim=1),
                ]
            )
            folder = {"image": str(root / volume.path)}
            assert turned(folder)["image_slices"][0].tolist() == indices


@pytest.fixture
def nifti(tmp_path):
    return write_nifti(phantom_scan(5, slices=10, size=24), tmp_path / "ct.nii")


def test_split_gives_two_dimensional_slices_with_their_places(nifti):
    whole = LoadImaged("image", reader=CTVolumeReader())({"image": nifti})["image"]
    split = SplitDimd("image", dim=-1, keepdim=False, list_output=True)
    items = Compose([pipeline(CTVolumeReader(), fraction=0.3), split])({"image": nifti})
    assert len(items) == 3
    for item, index in zip(items, items[0]["image_slices"][0], strict=True):
        assert item["image"].shape == (1, 24, 24)
        np.testing.assert_array_equal(item["image"][0], whole[..., index])
    assert items[0]["image"].affine[2, 3] == whole.affine[2, 3] + whole.affine[2, 2] * items[0]["image_slices"][0, 0]


def test_keys_that_are_missing_and_keys_beside(nifti):
    volume = np.zeros((1, 8, 8, 3), np.float32)
    data = {"a": MetaTensor(volume), "b": MetaTensor(volume), "other": 5}
    result = SelectSlicesd(["a", "b", "c"], allow_missing_keys=True)(data)
    assert set(result) == {"a", "b", "other", "a_slices", "b_slices"}
    assert result["a_slices"].dtype == np.int64
    assert data.keys() == {"a", "b", "other"}
    assert data["a"].shape == (1, 8, 8, 3)
    for transform in (SelectSlicesd("c"), ScaleToUint8d("c"), WindowToUint8d("c", "lung")):
        with pytest.raises(KeyError, match="c"):
            transform(data)


def test_eight_bit_for_dictionaries():
    data = {"image": torch.tensor([[[0.0, 1.0, 4.0]]]), "label": 1}
    assert ScaleToUint8d("image", lower=1)(data)["image"].tolist() == [[[0, 0, 255]]]
    assert WindowToUint8d("image", "2/4")(data)["image"].tolist() == [[[0, 64, 255]]]
    assert WindowToUint8d(["image", "no"], "2/4", allow_missing_keys=True)(data)["label"] == 1


def test_aliases_as_monai_has_them():
    for name in ("ScaleToUint8", "WindowToUint8", "SelectSlices"):
        wrapped = getattr(transforms, f"{name}d")
        assert getattr(transforms, f"{name}D") is getattr(transforms, f"{name}Dict") is wrapped


def test_loader_with_workers_and_cache(tmp_path):
    paths = [
        write_nifti(phantom_scan(seed, slices=8, size=24), tmp_path / f"{seed}.nii", axcodes="RAS") for seed in range(3)
    ]
    chain = Compose([pipeline(CTVolumeReader(), fraction=0.25), ScaleToUint8d("image", lower=-1024)])
    expected = [chain({"image": path}) for path in paths]
    assert pickle.loads(pickle.dumps(chain)).transforms[-1].scale.lower == -1024  # noqa: S301
    dataset = CacheDataset([{"image": str(path)} for path in paths], chain, num_workers=0, progress=False)
    batches = list(DataLoader(dataset, batch_size=1, num_workers=1, multiprocessing_context="forkserver"))
    for batch, item in zip(batches, expected, strict=True):
        assert batch["image"].dtype == torch.uint8
        np.testing.assert_array_equal(batch["image"][0], item["image"])
        np.testing.assert_array_equal(batch["image_slices"][0], item["image_slices"])


@pytest.mark.parametrize("keys", [("image", "label"), ("label", "image"), ("label",)])
def test_other_keys_keep_the_slices_of_the_source(keys):
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 1000, (1, 24, 24, 4)).astype(np.float32).repeat(3, axis=3)
    label = np.arange(12, dtype=np.float32) * np.ones((1, 24, 24, 1), np.float32)
    result = SelectSlicesd(keys, threshold=0, source_key="image")({"image": image, "label": label})
    assert result["image_slices"][0].tolist() == [0, 3, 6, 9]
    assert result["label"][0, 0, 0].tolist() == [0, 3, 6, 9]
    assert result["image"].shape == ((1, 24, 24, 4) if "image" in keys else image.shape)
    assert "label_slices" not in result
    with pytest.raises(ValueError, match=r"expected label on the grid of image, \(24, 24, 12\), found \(24, 24, 11\)"):
        SelectSlicesd(keys, threshold=0, source_key="image")({"image": image, "label": label[..., :11]})


@pytest.mark.parametrize("allow", [False, True])
def test_a_source_that_is_missing_is_told(allow):
    select = SelectSlicesd(["image", "label"], source_key="x", allow_missing_keys=allow)
    volume = torch.rand(1, 8, 8, 10)
    with pytest.raises(UserError, match=r"expected the source_key 'x', .* found only 'image', 'label': load it before"):
        select({"image": volume, "label": volume})


def test_without_any_of_the_keys_no_source_is_needed():
    assert SelectSlicesd("image", source_key="x", allow_missing_keys=True)({"label": 1}) == {"label": 1}


def test_an_inverse_puts_the_slices_back_and_fills_the_others(nifti):
    chain = Compose(
        [
            *pipeline(CTVolumeReader(), fraction=0.3).transforms[:-1],
            SelectSlicesd("image", fraction=0.3, fill_value=-1024),
        ]
    )
    whole = Compose(chain.transforms[:-1])({"image": nifti})["image"]
    item = chain({"image": nifti})
    slices = item["image_slices"][0]
    expected = torch.full_like(whole, -1024)
    expected[..., slices] = whole[..., slices]
    found = SelectSlicesd("image", fraction=0.3).inverse  # another instance has not made it
    with pytest.raises(RuntimeError, match="most recently"):
        found({"image": item["image"].clone()})
    back = chain.transforms[-1].inverse(item)
    assert torch.equal(back["image"], expected)
    assert torch.equal(back["image"].affine, whole.affine)
    assert 0 < len(slices) < whole.shape[-1]
    assert "image_slices" in back


@pytest.mark.parametrize("slice_dim", [1, 2, 3])
def test_spacing_before_and_flips_behind_are_inverted_as_well(nifti, slice_dim):
    before = Compose(
        [
            LoadImaged("image", reader=CTVolumeReader()),
            EnsureChannelFirstd("image"),
            Spacingd("image", pixdim=(2.1, 1.3, 1.9)),
        ]
    )
    select = SelectSlicesd("image", fraction=0.4, slice_dim=slice_dim, fill_value=7)
    chain = Compose([before, select, Flipd("image", spatial_axis=0)])
    spaced = before({"image": nifti})
    slices = select(dict(spaced))["image_slices"][0]
    expected = spaced["image"].clone()
    removed = np.setdiff1d(np.arange(expected.shape[slice_dim]), slices)
    expected.index_fill_(slice_dim, torch.from_numpy(removed), 7)
    found = chain.inverse(chain({"image": nifti}))
    oracle = before.transforms[-1].inverse({"image": expected})
    assert found["image"].shape == oracle["image"].shape
    torch.testing.assert_close(found["image"].as_tensor(), oracle["image"].as_tensor())
    torch.testing.assert_close(found["image"].affine, oracle["image"].affine)


def test_a_prediction_of_several_channels_goes_back_by_invertd(nifti):
    chain = Compose([*pipeline(CTVolumeReader(), fraction=0.3).transforms])
    item = chain({"image": nifti})
    item["pred"] = MetaTensor(item["image"].repeat(2, 1, 1, 1) > 0).float()
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=False)(item)["pred"]
    assert back.shape == (2, 24, 24, 10)
    slices = item["image_slices"][0]
    assert torch.equal(back[..., slices].as_tensor(), item["pred"].as_tensor())
    assert not back[..., np.setdiff1d(np.arange(10), slices)].any()


def test_an_inverse_that_cannot_be_right_is_refused(nifti):
    select = SelectSlices(fraction=0.3)
    with pytest.raises(UserError, match="expected a MetaTensor that knows what was done with it"):
        select.inverse(select(torch.rand(1, 8, 8, 10)))
    kept = select(MetaTensor(torch.rand(1, 8, 8, 10)))
    with pytest.raises(UserError, match=r"expected the 3 kept slices, of shape \(8, 8, 3\), found \(8, 8, 2\)"):
        select.inverse(kept[..., :2])


def test_volumes_with_other_numbers_of_slices_make_a_batch(tmp_path):
    paths = [write_nifti(phantom_scan(n, slices=n, size=24), tmp_path / f"{n}.nii") for n in (10, 20)]
    items = [pipeline(CTVolumeReader(), fraction=0.3)({"image": path}) for path in paths]
    places = [item["image_slices"][0].tolist() for item in items]
    volumes = [item["image"].as_tensor().clone() for item in items]
    assert [len(indices) for indices in places] == [3, 6]
    batch = pad_list_data_collate(items)
    assert batch["image"].shape == (2, 1, 24, 24, 6)
    assert batch["image_slices"].shape == (2, 1, 6)
    for number, (volume, indices) in enumerate(zip(volumes, places, strict=True)):
        first = (6 - len(indices)) // 2  # padded on both sides
        own = slice(first, first + len(indices))
        assert batch["image_slices"][number, 0, own].tolist() == indices
        assert torch.equal(batch["image"][number][..., own].as_tensor(), volume)
