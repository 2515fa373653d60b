from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lessismore_transforms.classification.plots import draw_evaluation
from lessismore_transforms.classification.predictions import Predictions


def predictions(classes: int, *, present: int) -> Predictions:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % present
    probabilities = rng.dirichlet(np.ones(classes), 40)
    return Predictions([f"{n}" for n in range(40)], [""] * 40, ["test"] * 40, labels, probabilities)


@pytest.mark.parametrize(("classes", "present"), [(2, 2), (11, 10)])
def test_a_picture_that_shows_its_numbers(tmp_path: Path, classes: int, present: int):
    found = predictions(classes, present=present)
    names = ["_a$b$", "a name too long to be drawn whole", *(f"organ-{n}" for n in range(2, classes))][:classes]
    texts = []
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")  # a class without examples must not warn
        from matplotlib.text import Text

        draw = Text.draw
        patch.setattr(Text, "draw", lambda self, *args, **kw: (texts.append(self.get_text()), draw(self, *args, **kw)))
        path = draw_evaluation(found, names, 1, tmp_path / "evaluation.png", title="Task $x")
    with Image.open(path) as picture:
        assert picture.size == (1265, 1100)
        assert np.ptp(np.asarray(picture.convert("L"))) == 255
    assert [other.name for other in tmp_path.iterdir()] == ["evaluation.png"]
    shown = "\n".join(texts)
    assert r"Task \$x: 40 pictures" in shown
    if classes == 11:
        assert "ROC, macro AUC undefined" in shown
        assert "undefined organ-10" in shown
        assert r"_a\$b\$ (4)" in texts
    else:
        from sklearn.metrics import average_precision_score, roc_auc_score

        truth, scores = found.labels, found.probabilities[:, 1]
        assert f"ROC, AUC {roc_auc_score(truth, scores):.3f}" in texts
        assert f"{average_precision_score(truth, scores):.3f} a name too long to be…" in texts
        both = int(((scores > 0.5) & (truth == 1)).sum())
        assert f"{both}\n{5 * both} %" in texts


def test_as_many_names_as_classes(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected 3 names of classes for .*e\.png, found a, b"):
        draw_evaluation(predictions(3, present=3), ["a", "b"], 1, tmp_path / "e.png", title="t")
