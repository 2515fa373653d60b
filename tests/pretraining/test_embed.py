"""Pictures of any kind to network input, networks filled strictly, embeddings that come back as they were."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from PIL import Image
from torch import nn

from lessismore_transforms.errors import OutputError
from lessismore_transforms.pretraining.embed import EmbeddingSaver, load_pretrained, prepare
from lessismore_transforms.weights.backbones import build_backbone, save_backbone

GREY = {"mean": [0.2], "std": [0.5]}


def picture(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_prepare_gives_hand_made_values() -> None:
    grey = prepare(torch.full((2, 1, 7, 5), 102, dtype=torch.uint8), size=3, **GREY)
    torch.testing.assert_close(grey, torch.full((2, 3, 3, 3), 0.4))
    colours = torch.tensor([51, 102, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 6)
    found = prepare(colours, size=2, mean=[0.1, 0.2, 0.5], std=[0.5, 1.0, 0.25])
    torch.testing.assert_close(found, torch.tensor([0.2, 0.2, 2.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2))
    grey = prepare(torch.full((1, 1, 4, 4), 51, dtype=torch.uint8), size=4, mean=[0.1, 0.2, 0.3], std=[1.0])
    torch.testing.assert_close(grey[0, :, 0, 0], torch.tensor([0.1, 0.0, -0.1]))  # three means: three channels


@pytest.mark.parametrize("shape", [(50, 70), (20, 9), (32, 32), (1, 1), (512, 33)])
def test_prepare_resizes_as_pillow_does_in_floats(shape: tuple[int, int]) -> None:
    image = picture(1, 1, *shape)
    found = prepare(image, size=32, mean=[0.0], std=[1.0])[0, 0]
    floats = Image.fromarray(image[0, 0].numpy().astype(np.float32), mode="F")
    expected = np.asarray(floats.resize((32, 32), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("images", "settings", "sentence"),
    [
        (picture(1, 2, 8, 8), {}, "expected pictures uint8 .* of 1 or 3 channels, found torch.uint8 .1, 2, 8, 8."),
        (picture(1, 1, 8, 8).float(), {}, "found torch.float32"),
        (picture(1, 1, 0, 8), {}, "found torch.uint8 .1, 1, 0, 8."),
        (picture(1, 1, 8, 8), {"size": 0}, "expected an image size of 1 or more pixels, found 0"),
        (picture(1, 1, 8, 8), {"size": 7.5}, "found 7.5"),
        (picture(1, 1, 8, 8), {"std": [0.0]}, "expected std to be a list of one number above 0 or three"),
        (picture(1, 1, 8, 8), {"mean": [0.1, 0.2]}, r"found \[0.1, 0.2\]"),
        (picture(1, 1, 8, 8), {"mean": "abc"}, "found 'abc'"),
    ],
)
def test_prepare_refuses(images: torch.Tensor, settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        prepare(images, **{"size": 4, **GREY, **settings})


def test_load_pretrained_fills_strictly_and_folds_what_it_can(tmp_path: Path) -> None:
    trained = build_backbone("resnet18", weights="random", seed=7)
    torch.manual_seed(0)
    with torch.no_grad():
        for module in trained.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics that matter
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)
    save_backbone(tmp_path / "r18.safetensors", trained, {})
    network = build_backbone("resnet18", weights="random")
    loaded = load_pretrained(network, tmp_path / "r18.safetensors", "resnet18", "cpu")
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = trained(image)
        assert torch.equal(network(image), expected)
        torch.testing.assert_close(loaded(image), expected, rtol=1e-5, atol=1e-5)
    assert not loaded.training
    with pytest.raises(ValueError, match=r"expected the 216 tensors of resnet34 .*found 120 of them"):
        load_pretrained(build_backbone("resnet34", weights="random"), tmp_path / "r18.safetensors", "resnet34", "cpu")
    with pytest.raises(ValueError, match="expected a device that this machine has, found 'gpu'"):
        load_pretrained(network, "random", "resnet18", "gpu")


NAMES = ["plain.png", 'with "quotes", commas.png', "line\nbreak.png", "bad.png", "odd \udcff.png"]
ERRORS = ["", "", "", "cannot be read", ""]
_BITS = np.random.default_rng(0).integers(0, 2**32, (5, 7), dtype=np.uint32).view(np.float32)
ROWS = np.where(np.isfinite(_BITS), _BITS, np.float32(0.1)).astype(np.float32)
ROWS[0, :5] = [0, 0.1, 1e-45, 3.4028235e38, 16777217]


def run_saver(saver: EmbeddingSaver, rows: np.ndarray = ROWS, network: nn.Module | None = None) -> None:
    """An evaluator whose network gives the rows back, in batches of two."""
    items = [
        {"image": row, "image_id": name, "error": error} for row, name, error in zip(rows, NAMES, ERRORS, strict=True)
    ]
    loader = DataLoader(items, batch_size=2)
    evaluator = SupervisedEvaluator(
        device="cpu", val_data_loader=loader, network=network or nn.Identity(), val_handlers=[saver], decollate=False
    )
    evaluator.run()


def read_csv(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    numbers = np.array([row[1:] for row in rows], dtype=np.float64).astype(np.float32)
    return head, [row[0] for row in rows], numbers


GOOD = [index for index, error in enumerate(ERRORS) if not error]
GOOD_NAMES = [*NAMES[:3], r"odd \udcff.png"]  # bytes that are no UTF-8 are spelt out


def test_embeddings_come_back_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saver = EmbeddingSaver(tmp_path / "new" / "folder")
    (saver.output_dir / "embeddings.npy").touch()  # an earlier run's
    run_saver(saver)
    head, names, numbers = read_csv(saver.output_dir / "embeddings.csv")
    assert head == ["image_id", *(f"e_{number}" for number in range(7))]
    assert names == GOOD_NAMES
    assert numbers.tobytes() == ROWS[GOOD].tobytes()
    assert [path.name for path in saver.output_dir.iterdir()] == ["embeddings.csv"]
    assert f"4 embeddings of 7 numbers in {saver.output_dir}" in capsys.readouterr().out


def test_numpy_file_holds_the_same_rows(tmp_path: Path) -> None:
    saver = EmbeddingSaver(tmp_path, "npy")
    run_saver(saver)
    head, names, _ = read_csv(tmp_path / "embeddings.csv")
    assert (head, names) == (["image_id"], GOOD_NAMES)
    array = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    assert (array.dtype, array.shape) == (np.float32, (4, 7))
    assert array.tobytes() == ROWS[GOOD].tobytes()


def test_pictures_without_embedding_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saver = EmbeddingSaver(tmp_path)
    run_saver(saver)
    assert [record.message for record in caplog.records if record.name == "lessismore_transforms"] == [
        "bad.png could not be read: cannot be read"
    ]
    with pytest.raises(ValueError, match=r"1 of 5 pictures could not be read .* first bad.png \(cannot be read\)"):
        saver.check()
    saver.unread = {}
    saver.check()


def test_a_failed_run_leaves_the_old_files(tmp_path: Path) -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) == 1:  # the last batch
                raise RuntimeError("no memory")
            return x

    for form in ("csv", "npy"):
        (tmp_path / "embeddings.csv").write_text("old")
        (tmp_path / "embeddings.npy").write_text("old")
        with pytest.raises(RuntimeError, match="no memory"):
            run_saver(EmbeddingSaver(tmp_path, form), network=Fails())
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            "embeddings.csv": "old",
            "embeddings.npy": "old",
        }


def test_saver_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a format out of csv, npy, found 'xlsx'"):
        EmbeddingSaver(tmp_path, "xlsx")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write to .*file"):
        EmbeddingSaver(tmp_path / "file" / "below")
