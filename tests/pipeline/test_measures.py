"""The six ways to choose slices, through all doors: `reduce`, `select` and `SelectSlicesd`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from skimage.metrics import structural_similarity

from lessismore_transforms.errors import ManifestError, RunError
from lessismore_transforms.phantom import phantom_scan, write_nifti
from lessismore_transforms.pipeline import run
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Encoder, Settings
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.transforms import CTVolumeReader, SelectSlicesd
from lessismore_transforms.weights.backbones import build_backbone

SLICES = 18


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods") / "data"
    for seed in range(2):
        write_nifti(phantom_scan(seed, slices=SLICES, size=40), folder / f"p{seed}" / "ct.nii.gz", axcodes="RAS")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights for a small network."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(build_backbone("resnet18", weights="random", output="logits").state_dict(), path)
    return path


def pictures(folder: Path, patient: int) -> np.ndarray:
    return min_max_uint8(phantom_scan(patient, slices=SLICES, size=40).hu)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    return structural_similarity(
        a.astype(float), b.astype(float), data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    def entropy(counts: np.ndarray) -> float:
        share = counts[counts > 0] / counts.sum()
        return float(-(share * np.log(share)).sum())

    edges = np.linspace(0, 256, 65)
    joint = np.histogram2d(a.ravel(), b.ravel(), bins=[edges, edges])[0]
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / entropy(joint)


def by_hand(
    images: np.ndarray, similarity: Callable[..., float], stop: Callable[[list[int], float], bool]
) -> list[int]:
    """Section 2.1: of the most similar pair that is left the later slice goes, until it is time to stop."""
    left = list(range(len(images)))
    scores = {(i, j): similarity(images[i], images[j]) for j in left for i in range(j)}
    while len(left) > 1:
        best = max((scores[i, j], -i, -j) for i in left for j in left if i < j)
        if stop(left, best[0]):
            break
        left.remove(-best[2])
    return left


def kept(output: Path, name: str = "default") -> list[list[int]]:
    selection = Selection.read(output, name).slices["kept"].to_numpy()
    return [np.flatnonzero(selection[rows.index]).tolist() for _, rows in Manifest.read(output).by_volume()]


@pytest.mark.parametrize(
    ("method", "oracle", "amount"),
    [
        ("ssim", ssim, {"fraction": 0.2}),
        ("ssim", ssim, {"fraction": 0.5}),
        ("ssim", ssim, {"threshold": 0.6}),
        ("mi", mutual_information, {"fraction": 0.2}),
        ("mi", mutual_information, {"fraction": 0.5}),
        ("mi", mutual_information, {"threshold": 1.4}),
    ],
)
def test_equals_the_paper_by_hand(
    data: Path, tmp_path: Path, method: str, oracle: Callable[..., float], amount: dict[str, float]
) -> None:
    reduce_dataset(data, tmp_path / "out", Settings(Target.of(method=method, **amount)), workers=0)
    count = round(SLICES * amount.get("fraction", 0))

    def stop(left: list[int], similarity: float) -> bool:
        return len(left) == count if count else similarity < amount["threshold"]

    assert kept(tmp_path / "out") == [by_hand(pictures(data, i), oracle, stop) for i in range(2)]
    lengths = [len(volume) for volume in kept(tmp_path / "out")]
    assert all(1 < length < SLICES for length in lengths)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "hash", "threshold": 6},
        {"method": "ssim", "fraction": 0.3},
        {"method": "ssim", "threshold": 0.8},
        {"method": "mi", "fraction": 0.3},
        {"method": "deepnet", "fraction": 0.3},
        {"method": "every_n", "step": 5, "offset": 2},
        {"method": "every_n", "step_mm": 60.0},
        {"method": "every_n", "fraction": 0.3},
        {"method": "all"},
    ],
)
def test_the_transform_keeps_what_reduce_keeps(data: Path, tmp_path: Path, weights: Path, options: dict) -> None:
    encoder = Encoder("resnet18", str(weights))
    reduce_dataset(data, tmp_path / "out", Settings(Target.of(**options), encoder=encoder), workers=0)
    network = build_backbone("resnet18", weights=weights) if options["method"] == "deepnet" else None
    pipeline = Compose(
        [
            LoadImaged("image", reader=CTVolumeReader()),
            EnsureChannelFirstd("image"),
            SelectSlicesd("image", encoder=network, **options),
        ]
    )
    found = [pipeline({"image": str(data / f"p{i}" / "ct.nii.gz")})["image_slices"][0].tolist() for i in range(2)]
    assert found == kept(tmp_path / "out")


def test_every_n(data: Path, tmp_path: Path) -> None:
    reduce_dataset(data, tmp_path / "out", Settings(Target.of(method="every_n", step=5, offset=1)), workers=0)
    assert kept(tmp_path / "out") == [[1, 6, 11, 16]] * 2
    spacing = 480 / SLICES
    for name, target, expected in (
        ("fraction", Target.of(method="every_n", fraction=0.25), [0, 3, 7, 10, 14]),  # 4.5 slices, rounded half up
        ("mm", Target.of(method="every_n", step_mm=3 * spacing), list(range(0, SLICES, 3))),
        ("shifted", Target.of(method="every_n", step_mm=3 * spacing, offset=spacing), list(range(1, SLICES, 3))),
        ("thin", Target.of(method="every_n", step_mm=1.0), list(range(SLICES))),
        ("all", Target.of(method="all"), list(range(SLICES))),
    ):
        select(tmp_path / "out", target, name)
        assert kept(tmp_path / "out", name) == [expected] * 2
        assert Selection.read(tmp_path / "out", name).target == target


def test_a_full_ranking_gives_every_amount_and_a_lazy_one_says_where_it_stopped(data: Path, tmp_path: Path) -> None:
    full, lazy = tmp_path / "full", tmp_path / "lazy"
    reduce_dataset(data, full, Settings(Target.of(method="ssim", threshold=0.9)), workers=0)
    reduce_dataset(data, lazy, Settings(Target.of(method="ssim", fraction=0.5)), workers=0)
    assert [record["ranked_to"] for record in Manifest.read(lazy).volumes] == [9, 9]
    assert "ranked_to" not in Manifest.read(full).volumes[0]
    for number, fraction in enumerate((0.1, 0.5, 0.8)):
        target = Target.of(method="ssim", fraction=fraction)
        select(full, target, f"f{number}")
        reduce_dataset(data, tmp_path / f"own{number}", Settings(target), workers=0)
        assert kept(full, f"f{number}") == kept(tmp_path / f"own{number}")
        if fraction < 0.5:
            with pytest.raises(ManifestError, match=r"SSIM to 0\.1 of each volume, rule pairs goes beyond the ranking"):
                select(lazy, target, "x")
        else:
            select(lazy, target, f"f{number}")
            assert kept(lazy, f"f{number}") == kept(full, f"f{number}")
    removed_at = Manifest.read(lazy).slices["removed_at"]
    low, high = float(removed_at.min()) - 0.05, float(removed_at.max()) - 1e-3
    with pytest.raises(ManifestError, match="goes beyond the ranking, which stopped at 9 of 18"):
        select(lazy, Target.of(method="ssim", threshold=low), "x")
    select(lazy, Target.of(method="ssim", threshold=high), "high")
    select(full, Target.of(method="ssim", threshold=high), "high")
    assert kept(lazy, "high") == kept(full, "high")


def test_hash_can_be_selected_from_any_ranking_and_nothing_else(data: Path, tmp_path: Path) -> None:
    for method in ("ssim", "hash", "every_n"):
        reduce_dataset(data, tmp_path / method, Settings(Target.of(method=method)), workers=0)
    for target in (Target.of(threshold=6), Target.of(threshold=6, rule="pairs"), Target.of(fraction=0.2)):
        chosen = []
        for method in ("ssim", "hash", "every_n"):
            select(tmp_path / method, target, "again")
            chosen.append(kept(tmp_path / method, "again"))
        assert chosen[0] == chosen[1] == chosen[2]
    with pytest.raises(ManifestError, match="holds no SSIM ranking: reduce again with the method ssim"):
        select(tmp_path / "hash", Target.of(method="ssim"), "x")


def test_exemplars_by_similarity_need_the_distances(data: Path, tmp_path: Path) -> None:
    target = Target.of(method="ssim", rule="exemplars", threshold=0.6)
    with pytest.raises(ValueError, match="needs all distances: add --keep_distances"):
        Settings(target)
    reduce_dataset(data, tmp_path / "out", Settings(target, keep_distances=True), workers=0)
    expected = []
    for patient in range(2):
        images = pictures(data, patient)
        chosen: list[int] = []
        for i in range(SLICES):
            if not any(ssim(images[i], images[j]) >= 0.6 for j in chosen):
                chosen.append(i)
        expected.append(chosen)
    assert kept(tmp_path / "out") == expected
    select(tmp_path / "out", target, "again")
    assert kept(tmp_path / "out", "again") == expected
    reduce_dataset(data, tmp_path / "without", Settings(Target.of(method="ssim")), workers=0)
    with pytest.raises(ManifestError, match=r"npy is missing: the exemplar rule needs a run with --keep_distances"):
        select(tmp_path / "without", target, "x")


@pytest.mark.parametrize("method", ["ssim", "mi"])
def test_torch_keeps_the_same_slices(data: Path, tmp_path: Path, method: str) -> None:
    for name, device in (("compiled", None), ("torch", "cpu")):
        settings = Settings(Target.of(method=method, fraction=0.3), device=device)
        reduce_dataset(data, tmp_path / name, settings, workers=0)
    assert kept(tmp_path / "torch") == kept(tmp_path / "compiled")


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("abacus", r"Expected one of cpu, cuda, .*: abacus"),
        ("meta", "this PyTorch cannot compute on it"),  # which has shapes and no values
        ("vulkan", "this PyTorch cannot compute on it"),
        ("hpu", "this PyTorch cannot compute on it"),  # needs a package of its own
    ],
)
def test_a_device_on_which_nothing_can_be_computed_is_refused(
    data: Path, tmp_path: Path, device: str, reason: str
) -> None:
    sentence = rf"^the device '{device}' cannot be used \({reason}\): name another or leave --device out$"
    with pytest.raises(RunError, match=sentence):
        reduce_dataset(data, tmp_path / "x", Settings(Target.of(method="ssim"), device=device), workers=0)


@pytest.mark.parametrize("method", ["hash", "every_n", "random", "all"])
def test_a_method_that_computes_on_no_device_asks_for_none(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(run, "processes_for", lambda device: pytest.fail(f"asked for {device}"))
    settings = Settings(Target.of(method=method), device="cuda:99")
    workers = 2 if method == "hash" else 0
    assert reduce_dataset(data, tmp_path / "out", settings, workers=workers).volumes == 2
    start = json.loads((tmp_path / "out" / "run.jsonl").read_text().splitlines()[0])
    assert (start["event"], start["workers"]) == ("start", workers)


def test_deepnet_settings_name_the_weights(data: Path, tmp_path: Path, weights: Path) -> None:
    target = Target.of(method="deepnet", fraction=0.3)
    reduce_dataset(data, tmp_path / "out", Settings(target, encoder=Encoder("resnet18", str(weights))), workers=0)
    described = Manifest.read(tmp_path / "out").settings["encoder"]
    assert (described["name"], described["output"], described["precision"]) == ("resnet18", "pooled", "float32")
    assert str(weights) not in json.dumps(Manifest.read(tmp_path / "out").info)
    with pytest.raises(ValueError, match="resnet50"):  # another network's weights
        reduce_dataset(data, tmp_path / "x", Settings(target, encoder=Encoder("resnet50", str(weights))), workers=0)
    assert not (tmp_path / "x").exists()


def test_a_volume_beyond_the_memory_that_a_worker_may_take(data: Path, tmp_path: Path) -> None:
    settings = Settings(Target.of(method="ssim"), memory_mb=0)
    summary = reduce_dataset(data, tmp_path / "out", settings, workers=0)
    assert len(summary.failures) == 2
    assert "ssim needs 0 MB in memory for 18 slices of 40 x 40, more than the 0 MB" in summary.failures[0][1]


def test_constant_slices_in_every_measure(tmp_path: Path, weights: Path) -> None:
    voxels = np.zeros((20, 20, 6), np.int16)
    voxels[:, :, 4] = np.random.default_rng(0).integers(-1000, 1000, (20, 20))
    (tmp_path / "data").mkdir()
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1, -1, 1, 1.0])), tmp_path / "data" / "ct.nii.gz")
    for method in ("hash", "ssim", "mi", "deepnet"):
        settings = Settings(Target.of(method=method, fraction=0.34), encoder=Encoder("resnet18", str(weights)))
        assert reduce_dataset(tmp_path / "data", tmp_path / method, settings, workers=0).failures == []
        assert kept(tmp_path / method) == [[0, 4]]


def test_slices_without_a_body_are_left_out(tmp_path: Path) -> None:
    scan = phantom_scan(0, slices=10, size=64)
    scan.hu[[0, 9]] = -1000
    write_nifti(scan, tmp_path / "data" / "ct.nii.gz")
    reduce_dataset(tmp_path / "data", tmp_path / "out", Settings(Target.of(method="all"), body=True), workers=0)
    manifest = Manifest.read(tmp_path / "out")
    assert kept(tmp_path / "out") == [list(range(1, 9))]
    assert manifest.slices["reason"][[0, 1, 9]].tolist() == [
        "no body: 0.00 % of the slice",
        "",
        "no body: 0.00 % of the slice",
    ]
    assert manifest.volumes[0]["notes"] == ["2 slices show no body and are left out"]


def test_a_volume_of_air_alone_keeps_nothing(tmp_path: Path) -> None:
    scan = phantom_scan(0, slices=4, size=32)
    scan.hu[:] = -1000
    write_nifti(scan, tmp_path / "data" / "ct.nii.gz")
    for method in ("hash", "ssim", "mi", "every_n"):
        settings = Settings(Target.of(method=method), body=True)
        assert reduce_dataset(tmp_path / "data", tmp_path / method, settings, workers=0).failures == []
        assert kept(tmp_path / method) == [[]]


def test_a_changed_volume_is_noticed_and_reduced_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "data"
    for seed in range(2):
        write_nifti(phantom_scan(seed, slices=6, size=32), own / f"p{seed}" / "ct.nii.gz")
    reduce_dataset(own, tmp_path / "out", workers=0)
    write_nifti(phantom_scan(7, slices=6, size=32), own / "p1" / "ct.nii.gz")
    assert reduce_dataset(own, tmp_path / "out", workers=0).resumed == 1
    assert "changed since: p1/ct.nii.gz: reduced again" in capsys.readouterr().err
    reduce_dataset(own, tmp_path / "fresh", workers=0)
    assert (tmp_path / "out" / "manifest.csv").read_bytes() == (tmp_path / "fresh" / "manifest.csv").read_bytes()
