from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lessismore_transforms.phantom import phantom_scan
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.pictures import images_in
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.reduction.near_duplicates import near_duplicates
from lessismore_transforms.reduction.target import Target


@pytest.fixture(scope="module")
def pictures() -> list[tuple[str, np.ndarray]]:
    slices = min_max_uint8(phantom_scan(0, slices=32, size=96).hu)
    return [(f"slice {i}", slices[i]) for i in range(0, 32, 8)]


def test_images_of_a_folder_and_of_an_output(small_data, pictures, tmp_path_factory, tmp_path):
    grey = pictures[2][1]
    (tmp_path / "b").mkdir()
    Image.fromarray(grey).save(tmp_path / "b" / "grey.png")
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "a.PNG")
    Image.fromarray(np.dstack([grey, np.full_like(grey, 255)]), "LA").save(tmp_path / "c.png")
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    Image.fromarray(grey).save(tmp_path / "e.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("none")
    read = dict(images_in(tmp_path))
    assert list(read) == ["a.PNG", "b/grey.png", "c.png", "deep.png", "e.jpg"]
    for name in ("a.PNG", "b/grey.png", "c.png", "deep.png"):
        np.testing.assert_array_equal(read[name], grey)
    assert set(near_duplicates(images_in(tmp_path), pictures[2:3])["image_a"]) == set(read)

    output = tmp_path_factory.mktemp("pictures") / "ours"
    reduce_dataset(small_data, output, Settings(target=Target.of(threshold=8, rule="exemplars")), workers=0)
    kept = dict(images_in(output))
    assert list(kept) == Selection.read(output).kept_ids
    assert all(image.dtype == np.uint8 and image.shape == (48, 48) for image in kept.values())


def test_a_manifest_of_the_user_s_own_makes_no_output_of_a_folder(pictures, tmp_path):
    Image.fromarray(pictures[0][1]).save(tmp_path / "a.png")
    (tmp_path / "manifest.json").write_text("{}")
    assert list(dict(images_in(tmp_path))) == ["a.png"]


def test_folders_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match="expected PNG or JPEG files or an output of `reduce`"):
        list(images_in(tmp_path))
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        list(images_in(tmp_path))
