"""Classes of pictures by a trained classifier: the parts of the `inference.json` of each classification bundle."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.config import KeysCollection
from monai.transforms import MapTransform

from lessismore_transforms import __version__
from lessismore_transforms.atomic import write_json
from lessismore_transforms.bundle.inference import NUMBER, TableSaver, csv_cell
from lessismore_transforms.classification.finished_runs import METRICS_FILE
from lessismore_transforms.classification.network import Classifier
from lessismore_transforms.classification.preprocessing import Prepare
from lessismore_transforms.errors import UserError
from lessismore_transforms.training.precision import pick_device
from lessismore_transforms.weights.backbones import load_strictly, read_metadata, read_tensors, to_encoder, weights_id
from lessismore_transforms.weights.layouts import or_the_bundle
from lessismore_transforms.wording import plural

CSV, JSON = "predictions.csv", "predictions.json"
_TRAINED = "EVAL/run_00/model.safetensors, which the training writes"


def describe(weights: Path | str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a network and of the preparation of pictures, from the header of its weights.

    Args:
        weights: a model.safetensors of a run; or a bare state_dict (.pt), which has no header.
        defaults: values for settings that are not in the header.

    Raises:
        UserError: a safetensors file is missing, damaged, or not a classifier of ours.
    """
    header = read_metadata(weights)
    if Path(weights).suffix == ".safetensors" and not {"backbone", "classes"} <= header.keys():
        raise UserError(
            f"expected a trained classifier in {weights}, found a file that names no classes: give --weights {_TRAINED}"
        )
    return {**defaults, **header}


def load_trained(network: Classifier, weights: Path | str, device: torch.device | str) -> torch.nn.Module:
    """A copy of a classifier for inference on a device, filled strictly with trained weights.

    Args:
        network: the classifier that is filled with the weights; it stays on its device.
        weights: safetensors, or a bare state_dict (.pt).
        device: device of the copy.

    Raises:
        UserError: the weights are missing or not of this network, or there is no such device.
    """
    place = pick_device(device)
    if not Path(weights).is_file():
        advice = f"give --weights {_TRAINED}{or_the_bundle(Path(weights))}"
        raise UserError(f"expected a trained classifier at {weights}, found none: {advice}")
    load_strictly(network, read_tensors(weights), f"a classifier of {network.classes} classes", weights)
    return to_encoder(network, str(place))


def preparation(
    size: int, mean: Sequence[float] | None, std: Sequence[float] | None, resize: str, *, transpose: bool
) -> Prepare:
    """The preparation of pictures with which the network was trained.

    Raises:
        UserError: a value is out of range, or mean and std are not known, as with a bare state_dict.
    """
    if mean is None or std is None:
        raise UserError(
            "expected the mean and std of the training pictures, which a bare state_dict does not hold: give --mean "
            f"and --std, or --weights {_TRAINED}"
        )
    means, deviations = ([value] if isinstance(value, int | float) else value for value in (mean, std))
    return Prepare(size, means, deviations, resize=resize, transpose=transpose)


class Classified(MapTransform):  # type: ignore[misc]
    """Replace logits (..., classes) by probabilities, float64, and name the most probable class, the first of equals.

    Args:
        keys: of the logits; the name goes to `predicted`.
        classes: their names, in the order of the logits.
    """

    def __init__(self, keys: KeysCollection, classes: Sequence[str]) -> None:
        super().__init__(keys)
        self.classes = list(classes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with probabilities and, of one picture, a name, of several, a list of names."""
        item = dict(data)
        for key in self.key_iterator(item):
            logits = torch.as_tensor(item[key])
            item[key] = logits.double().softmax(dim=-1)
            likeliest: Any = logits.argmax(dim=-1).tolist()
            several = isinstance(likeliest, list)
            item["predicted"] = [self.classes[each] for each in likeliest] if several else self.classes[likeliest]
        return item


class PredictionSaver(TableSaver):
    """Write the classes that a network predicts for pictures.

    predictions.csv has a row for each picture: image_id, predicted (the name of the most probable class, the first of
    equal ones), p_0, p_1, ... (probabilities, by softmax, with nine digits). predictions.json names the classes and the
    weights.

    Args:
        output_dir: folder of the files.
        classes: names, in the order of the network's outputs.
        weights: the file of the network's weights.
        postprocessing: makes probabilities and names of logits; None for `Classified`.

    Raises:
        UserError: the folder is that of a run, where predictions.csv is another table.
        OutputError: the folder cannot be written.
    """

    def __init__(
        self, output_dir: str | Path, classes: Sequence[str], weights: str | Path, postprocessing: Any = None
    ) -> None:
        if (Path(output_dir) / METRICS_FILE).exists():
            raise UserError(
                f"expected a folder for the classes of new pictures, found the run of an evaluation in {output_dir}: "
                "name another output_dir, or its predictions.csv would be lost"
            )
        super().__init__(output_dir, CSV, "prediction")
        self.classes, self.weights = list(classes), weights
        self.postprocessing = postprocessing or Classified("pred", self.classes)

    def columns(self) -> list[str]:
        """The names of the columns: the class and the probabilities."""
        return ["predicted", *(f"p_{number}" for number in range(self.size))]

    def cells(self, predicted: torch.Tensor) -> Iterator[str]:
        """The cells with class and probabilities of logits (N, size)."""
        line = f",%s{f',{NUMBER}' * self.size}"
        found = self.postprocessing({"pred": predicted})
        rows = zip(found["predicted"], found["pred"].tolist(), strict=True)
        return (line % (csv_cell(name), *probabilities) for name, probabilities in rows)

    def _close(self, engine: Engine) -> None:
        identity = weights_id(self.weights)
        about = {"format": 1, "version": __version__, "classes": self.classes, "weights": identity}
        write_json(self.output_dir / JSON, about)
        super()._close(engine)
        meaning = ", ".join(f"p_{number} {name}" for number, name in enumerate(self.classes))
        print(f"{self.rows} {plural(self.rows, 'prediction')} in {self.output_dir / CSV} ({meaning})")
