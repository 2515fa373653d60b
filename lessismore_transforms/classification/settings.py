"""The settings that all classifiers share, and what follows from them; a task adds its own in its bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import UserError
from lessismore_transforms.methods import METHODS
from lessismore_transforms.options import is_number, option, options_of, parse_bools
from lessismore_transforms.wording import listed

MODES = ("finetune", "linear", "scratch")
LINEAR_RECIPES = ("logistic", "adam")
_TRAINING = "training"  # the phase of what an evaluation of a trained network does not choose again
# What the paper does without, all off by default; evaluations of versions that had no such settings were so, too.
_BEYOND_PAPER = (
    "encoder_learning_rate", "learning_rate_schedule", "warmup_epochs", "step_epochs", "label_smoothing",
    "class_weights", "flip_vertical", "crop", "rotation", "shift", "brightness", "contrast", "erasing", "mixup",
    "cutmix",
)  # fmt: skip
_OF_STEPS = (  # settings of a training by steps, which a regression does not take
    "max_epochs", "frozen_epochs", "frozen_batch_norm", "learning_rate", "weight_decay", "flip", "log_interval",
    *_BEYOND_PAPER,
)  # fmt: skip
SCHEDULES = ("constant", "cosine", "step")


@dataclass(frozen=True)
class ClassificationSettings:
    """Settings that all tasks share, in the order in which they stand at the top of a configuration."""

    dataset_dir: str | Path = option(help="folder that holds pictures and lists", role="path")
    output_dir: str | Path = option(
        "eval", help="folder of the evaluation: all runs of one setting, each in its `run_XX`", role="path"
    )
    run_index: int = option(0, help="which run of the evaluation this is: its folder, and part of its seed", role="run")
    seed: int = option(
        0,
        help="of an evaluation; a run's own is 1000 * seed + run_index: of the linear layer, or of all weights from "
        "scratch, order and mirroring; a logistic regression takes none",
        role="run",
    )
    resume: bool = option(False, help="go on with that run", role="speed", phase=_TRAINING)
    mode: str = option(
        "finetune",
        help="`finetune`: the linear layer alone, then everything; `linear`: the linear layer alone; `scratch`: "
        "everything, from random weights",
        phase=_TRAINING,
    )
    linear_recipe: str = option(
        "logistic",
        help="of the mode `linear`: `logistic`, a regression on the features of the pictures, its penalty chosen on "
        "the validation split; or `adam`, steps as in the other modes",
        phase=_TRAINING,
    )
    pretrained: str | Path | None = option(
        None,
        help="weights of the encoder: a file of ours, a published checkpoint, or `imagenet`; needed but for `scratch`",
        role="path",
        phase=_TRAINING,
    )
    method: str | None = option(
        None,
        help=f"what the file must be of: {listed([f'`{name}`' for name in METHODS], 'or')}; none takes any",
        role="setting",
        phase=_TRAINING,
    )
    pretrain_dataset: str | None = option(
        None, help="label for the table, as the paper writes it: `LIDC`, `PET-CT`", role="label"
    )
    ssl_method: str | None = option(
        None,
        help=f"label for the table: {', '.join(f'`{row.title}`' for row in METHODS.values() if row.paper)}; "
        "told by the weights where they are ours or published",
        role="label",
    )
    reduction: str | None = option(None, help="label for the table: `ALL`, `HASH-6`, `SSIM-10%`, ...", role="label")
    backbone: str = option(
        "resnet50", help="a CNN of torchvision, or `timm:NAME`; the one that was pre-trained", phase=_TRAINING
    )
    max_epochs: int = option(70, help="how often each training picture is seen", role="setting", phase=_TRAINING)
    frozen_epochs: int | None = option(
        None,
        help="for how many epochs the encoder is frozen; none: 10 in the mode `finetune`, 0 in `scratch`; `linear` "
        "freezes always; fewer than `max_epochs`",
        phase=_TRAINING,
    )
    frozen_batch_norm: bool = option(
        True, help="whether that holds for its batch norms too; in the mode `linear` it does", phase=_TRAINING
    )
    batch_size: int = option(64, help="pictures per step, of all processes together")
    learning_rate: float = option(0.0001, help="of Adam, for everything", phase=_TRAINING)
    encoder_learning_rate: float | None = option(
        None, help="of Adam, for the encoder; none: as everything", phase=_TRAINING
    )
    learning_rate_schedule: str = option(
        "constant",
        help="`constant`, `cosine` (to 0 at the end) or `step` (a tenth from each of `step_epochs` on)",
        phase=_TRAINING,
    )
    warmup_epochs: int = option(
        0, help="for how many epochs the learning rate rises from next to nothing first", phase=_TRAINING
    )
    step_epochs: Sequence[int] | None = option(
        None, help="epochs of the schedule `step`, as a list; none: 60 and 80 % of the training", phase=_TRAINING
    )
    weight_decay: float = option(0.0005, help="of Adam, added to the gradient", phase=_TRAINING)
    label_smoothing: float = option(
        0.0, help="share of the label that is spread over all classes in the loss", phase=_TRAINING
    )
    class_weights: str | Sequence[float] | None = option(
        None,
        help="of the classes in the loss: none; `balanced`, one over their share of the training split; or a list",
        phase=_TRAINING,
    )
    image_size: int = option(224, help="pixels per side of what the network sees", phase=_TRAINING)
    channels: int = option(1, help="1 for grey, 3 for colour", role="setting", phase=_TRAINING)
    resize: str = option("area", help="mean of what a pixel covers, or `bilinear` with antialiasing", phase=_TRAINING)
    transpose: bool = option(
        False, help="exchange rows and columns, as the released code's reader does", phase=_TRAINING
    )
    flip: float = option(0.5, help="probability that a training picture is mirrored left and right", phase=_TRAINING)
    flip_vertical: float = option(
        0.0, help="probability that a training picture is mirrored above and below", phase=_TRAINING
    )
    crop: float = option(
        1.0, help="smallest share of a training picture's area that a random crop takes; 1 takes all", phase=_TRAINING
    )
    rotation: float = option(0.0, help="largest angle by which one is rotated, degrees to both sides", phase=_TRAINING)
    shift: float = option(0.0, help="largest shift of one along each axis, as a share of the side", phase=_TRAINING)
    brightness: float = option(0.0, help="largest change of its brightness, as a share", phase=_TRAINING)
    contrast: float = option(0.0, help="largest change of its contrast, as a share", phase=_TRAINING)
    erasing: float = option(0.0, help="probability that a rectangle of it is erased", phase=_TRAINING)
    mixup: float = option(
        0.0, help="alpha of the share of another picture that is mixed in, with its label; 0 for none", phase=_TRAINING
    )
    cutmix: float = option(
        0.0, help="alpha of the area that another picture replaces, with its label; 0 for none", phase=_TRAINING
    )
    mean: Sequence[float] | None = option(
        None,
        help="value that is subtracted, of 0..1, as a list of one or three; none: that of the training split",
        phase=_TRAINING,
    )
    std: Sequence[float] | None = option(
        None, help="what is divided by; none: that of the training split", phase=_TRAINING
    )
    positive: int = option(
        1, help="the class whose F1, precision, sensitivity and specificity are told", role="setting"
    )
    best_by: str = option(
        "accuracy",
        help="score of the validation split by which the best epoch, or penalty, is chosen; or `auc`, or `loss`",
        role="setting",
        phase=_TRAINING,
    )
    bootstrap: int = option(1000, help="resamples for the intervals in `metrics.json`", role="report")
    target_sensitivity: float | None = option(
        None,
        help="sensitivity for `positive`, such as 0.95, by which a threshold is chosen on the validation split; two "
        "classes; none: no threshold",
        role="report",
    )
    leakage: str = option(
        "warn", help="what to do about leaks: `warn`, `fail` before training, or `ignore`", role="report"
    )
    pretraining: str | Path | Sequence[str | Path] | None = option(
        None,
        help="what the encoder was pre-trained on, or a list, to look for leaks there too: an output folder of "
        "`reduce`, the run on a folder of pictures, or `FOLDER:SPLIT`",
        role="path",
    )
    pretraining_selection: str = option("default", help="its selection that was pre-trained on", role="report")
    device: Any = option(None, help="torch device, such as `cuda:1`", role="speed")
    precision: str = option(
        "auto",
        help="`fp32`, `bf16` or `fp16`; auto is bf16 on a GPU that has it, else fp32, as for a logistic regression",
        role="setting",
    )
    channels_last: bool = option(True, help="memory format of the convolutions", role="setting")
    workers: int = option(
        4,
        help="processes that prepare pictures; 0 prepares in the main one. The numbers are the same for any",
        role="speed",
    )
    log_interval: int = option(10, help="steps between lines of the log", role="speed", phase=_TRAINING)
    checkpoint_minutes: float = option(
        5.0, help="time between two checkpoints; 0 writes one after every epoch", role="speed", phase=_TRAINING
    )

    def __post_init__(self) -> None:
        parse_bools(self)
        if self.linear_recipe not in LINEAR_RECIPES:
            raise UserError(
                f"expected a linear_recipe out of {', '.join(LINEAR_RECIPES)}, found {self.linear_recipe!r}; logistic "
                "is usual"
            )
        if self.learning_rate_schedule not in SCHEDULES:
            raise UserError(
                f"expected a learning_rate_schedule out of {', '.join(SCHEDULES)}, found "
                f"{self.learning_rate_schedule!r}; constant is the paper's"
            )
        rate = self.learning_rate
        if not is_number(rate, int, float) or not 0 < rate < math.inf:
            raise UserError(f"expected a learning_rate above 0, found {rate!r}; 0.0001 is the paper's")
        if self.regression:
            self._refuse_steps()

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.output_dir) / f"run_{self.run_index:02d}"

    @property
    def run_seed(self) -> int:
        """Seed of the run."""
        return run_seed(self.seed, self.run_index)

    @property
    def regression(self) -> bool:
        """Whether the linear layer is fitted as a logistic regression, see `logistic_probe`, instead of by steps."""
        return self.mode == "linear" and self.linear_recipe == "logistic"

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the settings that have no effect in this mode."""
        if self.regression:
            return _OF_STEPS
        return ("frozen_batch_norm",) if self.mode == "linear" else ("linear_recipe",)

    @property
    def computed_in(self) -> str:
        """The precision that is asked for; auto is fp32 for a regression, whose features differ in late digits."""
        return "fp32" if self.regression and self.precision == "auto" else self.precision

    @property
    def weights(self) -> str:
        """What the encoder is built with, see `encoder_weights`."""
        return encoder_weights(self.mode, self.pretrained)

    @property
    def frozen(self) -> int:
        """For how many epochs the encoder is frozen, see `frozen_epochs`."""
        return frozen_epochs(self.mode, self.max_epochs, self.frozen_epochs)

    @property
    def table_labels(self) -> tuple[str | None, str | None, str | None]:
        """Labels of the setting in the paper's tables, in the order of `paper.Setting`."""
        return self.pretrain_dataset, self.ssl_method, self.reduction

    def _refuse_steps(self) -> None:
        """Refuse settings that a regression does not take, as whoever gives them expects another training."""
        for each in options_of(self):
            if each.name in _OF_STEPS and getattr(self, each.name) != each.default:
                raise UserError(
                    f"expected no {each.name} for mode linear, which fits a logistic regression and takes no steps, "
                    f"found {getattr(self, each.name)!r}: leave it out, or give --linear_recipe adam"
                )


OFF: dict[str, Any] = {
    each.name: each.default for each in options_of(ClassificationSettings) if each.name in _BEYOND_PAPER
}


def encoder_weights(mode: str, pretrained: str | Path | None) -> str:
    """What to build the encoder with: a file of weights, or `random` for the mode scratch.

    Raises:
        UserError: the mode is unknown, or does not go with whether there are weights.
    """
    if mode not in MODES:
        raise UserError(f"expected a mode out of {', '.join(MODES)}, found {mode!r}; finetune is usual")
    if mode == "scratch":
        if pretrained:
            raise UserError(f"expected no weights for mode scratch, found {pretrained}: leave out pretrained or mode")
        return "random"
    if not pretrained:
        raise UserError(
            f"expected pre-trained weights for mode {mode}, found none: give --pretrained FILE, or --mode scratch"
        )
    return str(pretrained)


def frozen_epochs(mode: str, max_epochs: int, epochs: int | None = None) -> int:
    """For how many epochs the encoder is frozen.

    Args:
        mode: linear freezes it for good; finetune for ten epochs (Section 2.3); scratch not at all, as nothing can be
            learned from random features that is worth keeping.
        max_epochs: of the training.
        epochs: taken instead, but for the mode linear.

    Raises:
        UserError: the number is negative, or nothing but the linear layer would ever be trained.
    """
    if epochs is not None and (not isinstance(epochs, int) or epochs < 0):
        raise UserError(f"expected frozen_epochs of 0 or more, found {epochs!r}; 10 is the paper's")
    if mode == "linear":
        return max_epochs
    frozen = {"finetune": 10, "scratch": 0}[mode] if epochs is None else epochs
    if frozen >= max_epochs:
        raise UserError(
            f"expected more epochs than the {frozen} in which the encoder is frozen, found max_epochs {max_epochs}: "
            f"give --frozen_epochs 0 to {max_epochs - 1}, or --mode linear to train the linear layer alone"
        )
    return frozen


def run_seed(seed: int, run_index: int) -> int:
    """The seed of one of several runs that are alike but for chance.

    Raises:
        UserError: a number is negative, or there are more than 1000 runs.
    """
    if seed < 0 or not 0 <= run_index < 1000:
        raise UserError(
            f"expected a seed of 0 or more and a run_index from 0 to 999, found {seed} and {run_index}; give others"
        )
    return 1000 * seed + run_index
