from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from PIL import Image
from torch import nn

from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.pretraining.labelled import LabelledSet, read_labelled
from lessismore_transforms.pretraining.probe import KNNProbe, nearest_classes, pooled_features
from lessismore_transforms.pretraining.training_set import open_dataset, slices
from lessismore_transforms.reduced.manifest import read_reduction
from lessismore_transforms.reduced.picture_set import PictureSet
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.weights.backbones import build_backbone


def picture(seed: int, size: tuple[int, int] = (24, 20)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three pictures each, one of them in another mode."""
    for number, name in enumerate(("healthy", "ill")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(picture(10 * number + index)).save(tmp_path / "set" / name / f"{index}.png")
    return tmp_path / "set"


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


# nearest neighbours


def slow_knn(features: np.ndarray, targets: list[int], groups: list[int], classes: int, k: int, t: float) -> list[int]:
    """Each picture by itself, in float64."""
    found = []
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for i, row in enumerate(unit):
        others = sorted((float(unit[j] @ row), targets[j]) for j in range(len(unit)) if groups[j] != groups[i])[-k:]
        votes = np.zeros(classes)
        for cosine, target in others:
            votes[target] += np.exp(cosine / t)
        found.append(int(votes.argmax()))
    return found


def test_three_clusters_by_hand() -> None:
    directions = torch.eye(3).repeat_interleave(4, 0) + 0.01 * torch.arange(12.0)[:, None]
    targets = torch.arange(3).repeat_interleave(4)
    found = nearest_classes(directions, targets, torch.arange(12), 3, neighbours=3)
    assert found.tolist() == targets.tolist()
    assert nearest_classes(17 * directions, targets, torch.arange(12), 3, neighbours=3).tolist() == targets.tolist()


def test_a_group_is_no_evidence_for_itself() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.7, 0.3], [0.6, 0.4]])
    targets = torch.tensor([0, 0, 1, 1])
    apart = nearest_classes(features, targets, torch.arange(4), 2, neighbours=1)
    assert apart.tolist() == [0, 0, 1, 1]
    together = nearest_classes(features, targets, torch.tensor([7, 7, 8, 8]), 2, neighbours=1)
    assert together.tolist() == [1, 1, 0, 0]


def test_similar_neighbours_outvote_many() -> None:
    """One neighbour at cosine 1 against three at 0.8: exp(1 / 0.07) > 3 exp(0.8 / 0.07), not so at temperature 1."""
    far = torch.tensor([0.8, 0.6])
    features = torch.stack([torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]), far, far, far])
    targets, groups = torch.tensor([0, 0, 1, 1, 1]), torch.arange(5)
    assert nearest_classes(features, targets, groups, 2)[0] == 0
    assert nearest_classes(features, targets, groups, 2, temperature=1.0)[0] == 1


@pytest.mark.parametrize("pairs", [1, 2**24])
def test_equals_the_slow_way(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lessismore_transforms.pretraining.probe._PAIRS", pairs)  # 1: a picture at a time
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 5))
    targets, groups = random.integers(0, 4, 60), random.integers(0, 15, 60)
    expected = slow_knn(features, targets.tolist(), groups.tolist(), 4, 20, 0.07)
    found = nearest_classes(torch.tensor(features), torch.tensor(targets), torch.tensor(groups), 4)
    assert found.tolist() == expected


# reading


def test_folder_of_class_folders(folder: Path) -> None:
    (folder / "lists").mkdir()
    (folder / "lists" / "train.txt").write_text("0.png")
    labelled = read_labelled(folder, 20)
    assert labelled.classes == ("healthy", "ill")
    assert labelled.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(set(labelled.groups.tolist())) == 6
    assert labelled.images.shape == (6, 1, 20, 20)
    assert labelled.images.dtype == torch.uint8


def test_colour_is_read_in_three_channels_where_training_does(folder: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(colour).save(folder / "ill" / "0.tif")  # sorted behind 0.png
    coloured, grey = (read_labelled(folder, 40, channels=channels).images for channels in (3, 1))
    assert torch.equal(coloured[4], torch.from_numpy(colour.transpose(2, 0, 1).copy()))
    assert torch.equal(grey[4, 0], torch.from_numpy(np.array(Image.fromarray(colour).convert("L"))))
    assert torch.equal(coloured[0], grey[0].expand(3, -1, -1))

    pictures = PictureSet(folder / "ill", channels=1)
    seen = torch.from_numpy(pictures.hashes()[1:2].view(np.int64))
    assert len(read_labelled(folder, 40, channels=3, training=seen).images) == 6  # all but that one


def test_pictures_are_resized_whole(folder: Path) -> None:
    """Halved with antialias, a picture whose left half is 40 and right half is 200 keeps both, border and all."""
    grey = np.full((40, 40), 40, np.uint8)
    grey[:, 20:] = 200
    Image.fromarray(grey).save(folder / "ill" / "0.png")
    image = read_labelled(folder, 20).images[3, 0]
    assert (image[:, :9] == 40).all()
    assert (image[:, 11:] == 200).all()
    assert torch.equal(read_labelled(folder, 40).images[3, 0], torch.from_numpy(grey))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1", "I;16"])
def test_pictures_of_any_mode(folder: Path, mode: str) -> None:
    path = folder / "ill" / "0.png"
    flat = np.zeros((20, 20), np.uint8)
    flat[:, 10:] = 255
    if mode == "I;16":
        Image.fromarray(flat.astype(np.uint16) * 100 + 7).save(path)
    else:
        Image.fromarray(flat).convert(mode).save(path)
    assert torch.equal(read_labelled(folder, 20).images[3, 0], torch.from_numpy(flat))


@pytest.mark.parametrize("column", ["patient", "Patient_ID", "group", "source"])
def test_table_of_paths(folder: Path, column: str) -> None:
    rows = [
        {" path": f"{name}/{index}.png", column: f"p{index // 2}", " finding": name}  # blanks, as real tables have
        for name in ("ill", "healthy")
        for index in range(3)
    ]
    labelled = read_labelled(table(folder / "labels.csv", rows), 8)
    assert labelled.classes == ("healthy", "ill")
    assert labelled.targets.tolist() == [1, 1, 1, 0, 0, 0]
    assert labelled.groups.tolist() == [0, 0, 1, 0, 0, 1]


@pytest.fixture(scope="module")
def output(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("probe") / "out"
    reduce_dataset(small_data, place, Settings(Target.of(threshold=6)), workers=0)
    return place


def test_table_of_slices(small_data: Path, output: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The demo data's own labels.csv names every slice; those that were not kept are left out, and it is said."""
    labelled = read_labelled(small_data / "labels.csv", 48, label="region", output=output)
    manifest, selection = read_reduction(output)
    table = manifest.slices[selection.rows()]
    with (small_data / "labels.csv").open() as file:
        regions = {row["slice_id"]: row["region"] for row in csv.DictReader(file)}
    assert [labelled.classes[target] for target in labelled.targets] == [regions[name] for name in table["slice_id"]]
    assert labelled.groups.tolist() == table["volume"].map(sorted(set(table["volume"])).index).tolist()
    assert f"{96 - len(table)} of 96 slices" in caplog.text
    with pytest.raises(ValueError, match="found region, lesion: name it with --probe_label"):
        read_labelled(small_data / "labels.csv", 48, output=output)


def test_slices_that_training_sees_are_left_out(
    small_data: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = small_data / "labels.csv"
    hashes, volumes = slices(open_dataset(output))
    first = hashes[volumes == 0]
    whole = read_labelled(labels, 16, label="region", output=output)
    rest = read_labelled(labels, 16, label="region", output=output, training=first)
    assert len(rest.targets) == len(whole.targets) - len(first)
    assert f"{len(first)} of {len(whole.targets)} pictures of {labels} are in the pre-training set" in caplog.text
    with pytest.raises(ValueError, match="are in the pre-training set: a probe needs pictures that pre-training does"):
        read_labelled(labels, 16, label="region", output=output, training=hashes)


def test_pictures_that_training_sees_are_left_out(folder: Path) -> None:
    seen = torch.from_numpy(np.array([dhash(picture(11)), dhash(picture(99))], np.uint64).view(np.int64))
    assert read_labelled(folder, 8, training=seen).targets.tolist() == [0, 0, 0, 1, 1]


def bad_png(folder: Path) -> Path:
    (folder / "ill" / "1.png").write_bytes(b"no picture")
    return folder


def no_rows(folder: Path) -> Path:
    (folder / "labels.csv").write_text("path,label\n")
    return folder / "labels.csv"


def one_class(folder: Path) -> Path:
    return table(folder / "labels.csv", [{"path": f"ill/{index}.png", "label": "a"} for index in range(3)])


def one_group(folder: Path) -> Path:
    rows = [{"path": f"ill/{index}.png", "label": index, "group": "x"} for index in range(3)]
    return table(folder / "labels.csv", rows)


def only(column: str, value: str, label: str = "a") -> Callable[[Path], Path]:
    return lambda folder: table(folder / "labels.csv", [{column: value, "label": label}])


def short_row(folder: Path) -> Path:
    (folder / "labels.csv").write_text("path,label\nill/0.png\n")
    return folder / "labels.csv"


def twice(folder: Path) -> Path:
    return table(folder / "labels.csv", [{"path": "ill/0.png", "label": "a"}, {"path": "ill/0.png", "label": "b"}])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda folder: folder / "gone", "gone, found nothing: check the path"),
        (
            lambda folder: folder / "ill",
            "expected a sub-folder of PNG, JPEG or TIFF files for each class in .*ill, found none",
        ),
        (bad_png, r"1\.png cannot be read as an image"),
        (no_rows, r"labels\.csv has no rows"),
        (one_class, r"labels\.csv, found 1 and 3: the probe cannot measure anything"),
        (one_group, r"labels\.csv, found 3 and 1: the probe cannot measure anything"),
        (only("path", "ill/7.png"), r"7\.png cannot be read as an image"),
        (only("id", "7"), r"labels\.csv: expected a column path or slice_id, found id, label"),
        (only("slice_id", "7"), r"labels\.csv names slices by slice_id: give the output folder"),
        (only("path", "ill/0.png", ""), r"labels\.csv, row 1: label is empty: fill it in or take the row away"),
        (short_row, r"labels\.csv, row 1: expected 2 values, found 1"),
        (twice, r"labels\.csv, row 2: ill/0\.png is in row 1 already: take one of them away"),
        (lambda folder: folder / "ill" / "0.png", r"0\.png is no CSV file"),
    ],
)
def test_a_set_that_cannot_be_read(folder: Path, broken: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labelled(broken(folder), 8)


def test_other_slices_and_columns(small_data: Path, output: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a column organ, found slice_id, path, index, region, lesion: check"):
        read_labelled(small_data / "labels.csv", 8, label="organ", output=output)
    stray = table(tmp_path / "labels.csv", [{"slice_id": "nothing_0001", "label": "a"}])
    with pytest.raises(ValueError, match=r"1 of 1 slice .* is not in the selection 'default'"):
        read_labelled(stray, 8, output=output)


def test_a_class_of_one_group_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"path": f"{name}/{index}.png", "label": name, "group": "one" if name == "ill" else index}
        for name in ("ill", "healthy")
        for index in range(3)
    ]
    read_labelled(table(folder / "labels.csv", rows), 8)
    assert "all pictures of the class ill are of one group" in caplog.text


# the handler


def grey_levels(levels: list[int], targets: list[int]) -> LabelledSet:
    images = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 32, 32).contiguous()
    return LabelledSet(images, torch.tensor(targets), torch.arange(len(levels)), ("a", "b"))


class Angle(nn.Module):
    """The mean grey value as a direction; with a batch norm and a dropout that a probe must not touch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout, self.scale = nn.BatchNorm1d(2), nn.Dropout(), nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1] == 3
        angle = self.scale * images.mean((1, 2, 3))
        return self.dropout(self.norm(torch.stack([angle.cos(), angle.sin()], 1)))


def test_accuracies_by_hand() -> None:
    """Angles 0 to 0.1 are a, 1 to 1.1 are b, and one b lies among the a's: 6 of 7 right, recalls 1 and 2 / 3."""
    labelled = grey_levels([0, 8, 16, 24, 200, 208, 12], [0, 0, 0, 0, 1, 1, 1])
    probe = KNNProbe(Angle(), labelled, interval=1, mean=(0.0,), std=(1.0,))
    figures = probe.measure()
    assert figures["probe_majority"] == pytest.approx(4 / 7)
    assert figures["probe_accuracy"] == pytest.approx(6 / 7)
    assert figures["probe_balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)


def test_normalised_as_training_sees() -> None:
    images = grey_levels([51], [0]).images
    seen: list[torch.Tensor] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.mean((2, 3))

    assert pooled_features(Spy(), images, (0.1,), (0.5,)).tolist() == [[pytest.approx(0.2)] * 3]
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    found = pooled_features(Spy(), images, (0.1, 0.2, 0.3), (0.5, 0.5, 1.0))
    assert found[0].tolist() == pytest.approx([0.2, 0.0, -0.1])


def test_training_goes_on_as_if_nothing_had_happened() -> None:
    network = Angle().train()
    network.norm.eval()  # a frozen part stays so
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    KNNProbe(network, grey_levels([0, 9, 99, 128], [0, 0, 1, 1]), interval=1, mean=(0.5,), std=(0.2,)).measure()
    assert network.training
    assert network.dropout.training
    assert not network.norm.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.scale.grad is None
    broken = KNNProbe(network, grey_levels([0, 9], [0, 1]), interval=1, mean=(0.5, 0.5), std=(0.2,))
    with pytest.raises(AssertionError):
        broken.measure()  # two channels
    assert network.training


def run(interval: int, epochs: int, start: int = 0, stop_at: int | None = None) -> list[tuple[int, bool]]:
    """The iterations after which figures stand in the state."""
    engine = Engine(lambda engine, batch: engine.terminate() if engine.state.iteration == stop_at else None)
    labelled = grey_levels([0, 9, 99, 128], [0, 0, 1, 1])
    KNNProbe(Angle(), labelled, interval=interval, mean=(0.0,), std=(1.0,)).attach(engine)
    seen: list[tuple[int, bool]] = []
    for event in (Events.STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
        engine.add_event_handler(event, lambda e: seen.append((e.state.iteration, bool(e.state.probe))))
    if start:
        engine.load_state_dict({"iteration": start, "max_epochs": epochs, "epoch_length": 2})
    engine.run([None] * 2, max_epochs=epochs)
    return seen


def test_measured_before_the_first_step_at_the_interval_and_at_the_end() -> None:
    assert run(2, 5) == [(0, True), (2, False), (4, True), (6, False), (8, True), (10, False), (10, True)]
    assert run(1, 2) == [(0, True), (2, True), (4, True), (4, False)]  # not twice at the end


def test_a_resumed_run_does_not_measure_its_beginning() -> None:
    assert run(2, 4, start=2) == [(2, False), (4, True), (6, False), (8, True), (8, False)]


def test_the_end_in_the_middle_of_an_epoch_is_measured() -> None:
    assert run(10, 5, stop_at=3) == [(0, True), (2, False), (3, True)]


def test_interval_is_checked() -> None:
    with pytest.raises(ValueError, match="found an interval of 0"):
        KNNProbe(Angle(), grey_levels([0, 9], [0, 1]), interval=0, mean=(0.0,), std=(1.0,))


def test_real_pictures_of_every_mode(real_data: Path) -> None:
    """ImageNet-free features of COVID-CT at a small size: all files are read, and figures are in range."""
    labelled = read_labelled(real_data / "covid_ct", 32)
    assert labelled.classes == ("CT_COVID", "CT_NonCOVID")
    assert torch.bincount(labelled.targets).tolist() == [349, 397]
    backbone = build_backbone("resnet18", weights="random")
    figures = KNNProbe(backbone, labelled, interval=1, mean=(0.18,), std=(0.19,)).measure()
    assert figures["probe_majority"] == pytest.approx(397 / 746)
    assert 0.5 < figures["probe_balanced_accuracy"] < 1
