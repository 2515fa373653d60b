"""The whole chain of an experiment with probes finds what is planted in its volumes, and nothing between equal arms.

Planted are near copies with a nuisance of their own. Each volume has one scene in 64 slices, which HASH-6 takes for the
same, and seven other scenes in one slice each. The copies of a scene carry a faint fine grating, a mark, of eight
kinds, the same eight in every scene. Where near copies are negatives, only the mark tells a slice from them, so an
encoder learns the mark. The pictures of the probe are crops of the scenes, with any mark, in noise, and ask for the
scene. Under a mask near copies need not be told apart. HASH-6 keeps the first copy of each scene, in which the mark is
always the same one. Exact copies, which leave nothing to be learned, do no harm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import reproduce_paper
from helpers import tiny_backbone
from PIL import Image
from reproduction.evidence import Evidence
from reproduction.experiment_file import read_experiment
from reproduction.kept import Kept
from scipy.ndimage import gaussian_filter

from lessismore_transforms.training.curves import read_log

VOLUMES, COPIES, SINGLE, MARKS = 4, 64, 7, 8
MARK, NOISE = 20.0, 3.0  # grey values: height of a mark, deviation of what else differs between the slices of a volume
REPEATED = (3, 7, 13, 19)  # one scene for each volume, whose first copy is within 6 bits of all others
SIZE = 64  # pixels per side
PICTURES = 60  # of each scene, for the probe
NULL, MASK, HASH = "EveryN-100% - ALL", "ALL+mask - ALL", "HASH-6 - ALL"
EXPERIMENT: dict[str, Any] = {
    "title": "A planted effect and a null",
    "pretrain_datasets": ["Scans"],
    "methods": ["SimCLR"],
    "reductions": ["ALL", "EveryN-100%", "ALL+mask", "HASH-6"],
    "pretrain_seeds": [10, 11, 12, 13, 14, 15],
    "max_steps": 240,
    "checkpoint_steps": [120],  # so that settings in epochs are in steps
    "reduce_settings": {"all": {"no_report": True}},
    "pretrain_settings": {
        "all": {
            "backbone": tiny_backbone(), "batch_size": 32, "image_size": 32, "learning_rate_per_256": 3.4,
            "temperature": 0.3, "warmup_epochs": 24, "workers": 0, "precision": "fp32"
        }
    },
    "probes": {name: {"group": "picture", "folds": 2, "repeats": 1, "fractions": 1} for name in ("Copied", "Single")},
    "questions": {
        name: {"plus": [["SimCLR", name.split()[0]]], "minus": [["SimCLR", "ALL"]]} for name in (NULL, MASK, HASH)
    },
}  # fmt: skip


def layout(scene: int) -> np.ndarray:
    """A scene (SIZE, SIZE): smooth, of mean 0 and deviation about 1."""
    field = gaussian_filter(np.random.default_rng(1000 + scene).normal(size=(SIZE, SIZE)), 7, mode="wrap")
    return field / field.std()


def marked(scene: int, mark: int, rng: np.random.Generator, height: float = MARK) -> np.ndarray:
    """Grey values of a scene about 0 with a mark: a grating of one of four directions and two periods."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    direction, period = np.pi / 2 * (mark % 4) / 3, (7, 10)[mark // 4]
    across = columns * np.cos(direction) + rows * np.sin(direction)
    return 35 * layout(scene) + height * np.sin(2 * np.pi * across / period + rng.uniform(0, 2 * np.pi))


def grey(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).astype(np.uint8)


def single_scenes(volume: int) -> list[int]:
    """The scenes that a volume shows once."""
    others = [scene for scene in range(VOLUMES * (1 + SINGLE)) if scene not in REPEATED]
    return others[volume * SINGLE : (volume + 1) * SINGLE]


def write_volumes(folder: Path, *, exact: bool = False) -> None:
    """The volumes; the slices of a scene are equal, and have no mark, or differ."""
    height, noise = (0.0, 0.0) if exact else (MARK, NOISE)
    rng = np.random.default_rng(0)
    for volume, repeated in enumerate(REPEATED):
        shown = [(repeated, copy % MARKS) for copy in range(COPIES)]
        shown += [(scene, 0) for scene in single_scenes(volume)]
        slices = [grey(128 + marked(*each, rng, height) + rng.normal(0, noise, (SIZE, SIZE))) for each in shown]
        for picture in slices:
            picture[0, 0], picture[0, -1] = 0, 255  # so that the scaling of a slice changes nothing
        path = folder / f"patient{volume}" / "ct.nii"
        path.parent.mkdir(parents=True)
        stored = np.stack(slices).transpose(2, 1, 0).astype(np.int16)  # columns, rows, slices feet to head
        nibabel.save(nibabel.Nifti1Image(stored, np.diag([-1.0, -1, 1, 1])), path)


def write_pictures(folder: Path, scenes: list[int], seed: int) -> None:
    """Pictures of each scene that no volume has: crops, mirrored or not, in other light, with any mark, in noise."""
    rng = np.random.default_rng(seed)
    for scene in scenes:
        for number in range(PICTURES):
            whole = Image.fromarray(marked(scene, int(rng.integers(MARKS)), rng).astype(np.float32))
            side = SIZE * rng.uniform(0.3, 0.8)
            left, top = rng.uniform(0, SIZE - side, 2)
            part = np.asarray(
                whole.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
            )
            part = part[:, ::-1] if rng.random() < 0.5 else part
            lit = 128 + rng.uniform(0.4, 1.3) * part + rng.uniform(-40, 40) + rng.normal(0, 8, part.shape)
            path = folder / f"scene{scene}" / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey(lit)).save(path)


def run(folder: Path, *reductions: str, exact: bool = False) -> Evidence:
    """Drive an experiment of these arms and the questions about them."""
    write_volumes(folder / "scans", exact=exact)
    write_pictures(folder / "copied", [*REPEATED], seed=1)
    write_pictures(folder / "single", [single_scenes(volume)[0] for volume in range(VOLUMES)], seed=2)
    questions = {name: value for name, value in EXPERIMENT["questions"].items() if name.split()[0] in reductions}
    file, exp, keep = folder / "planted.json", folder / "exp", folder / "kept" / "planted.jsonl"
    file.write_text(json.dumps({**EXPERIMENT, "reductions": reductions, "questions": questions}))
    data = [f"--data={name}={folder / name.lower()}" for name in ("Scans", "Copied", "Single")]
    assert reproduce_paper.main([str(file), "--output_dir", str(exp), "--keep", str(keep), *data]) == 0
    evidence = Evidence(read_experiment(file), Kept(keep))
    assert evidence.seeds == EXPERIMENT["pretrain_seeds"]
    return evidence


@pytest.mark.slow
def test_a_planted_effect_is_found_and_a_null_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evidence = run(tmp_path, "ALL", "EveryN-100%", "ALL+mask", "HASH-6")
    said = capsys.readouterr().out
    print(said)  # shown where the test fails

    # The planted dose is there, and the two remedies take it away.
    exp, slices = tmp_path / "exp", VOLUMES * (COPIES + SINGLE)
    met = 31 * VOLUMES * COPIES * (COPIES - 1) / slices / (slices - 1)  # by each slice in a batch of 32
    assert near_copies(exp / "pretrain" / "Scans_SimCLR_ALL_seed10") == pytest.approx(met, rel=0.1)
    for arm in ("ALL+mask", "HASH-6"):
        assert near_copies(exp / "pretrain" / f"Scans_SimCLR_{arm}_seed10") == 0
    selection = json.loads((exp / "reduce" / "Scans_hash" / "selections" / "HASH-6.json").read_text())
    assert (selection["kept"], selection["slices"]) == (VOLUMES * (1 + SINGLE), slices)

    nothing, mask, fewer = (evidence.answer(each, evidence.pictures) for each in evidence.experiment.all_questions)
    assert (nothing.value, nothing.error, nothing.interval(), nothing.p) == (0, 0, (0, 0), 1)
    assert (nothing.p_equivalent(evidence.experiment.margin), nothing.detectable) == (0, 0)
    assert mask.interval()[0] > 0.02
    assert fewer.interval()[0] > 0.08
    rows = {
        name: next(line for line in said.splitlines() if line.startswith(name)).split() for name in (NULL, MASK, HASH)
    }
    zero = ["+0.000", "(+0.000", "to", "+0.000)"]
    assert rows[NULL][3:] == [*zero * 3, "1.000", "<0.001", "0.000", "3"]
    for name in (MASK, HASH):
        assert float(rows[name][15].removeprefix("<")) < 0.03  # Holm's p
        assert float(rows[name][16]) > 0.9  # that they are equal


@pytest.mark.slow
def test_exact_copies_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What repels a slice from an exact copy attracts it to its own other view alike: no remedy helps."""
    evidence = run(tmp_path, "ALL", "ALL+mask", "HASH-6", exact=True)
    print(capsys.readouterr().out)  # shown where the test fails
    for question in evidence.experiment.all_questions:
        low, high = evidence.answer(question, evidence.pictures).interval()
        assert low > -0.1
        assert high < 0.02


def near_copies(run: Path) -> float:
    """How many of the negatives of a slice are near copies of it, mean over the looks at a training's health."""
    return float(np.mean([line["near_copies_per_picture"] for line in read_log(run) if "near_copies" in line]))
