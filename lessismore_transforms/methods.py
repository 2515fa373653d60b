"""The pre-training methods, one row each: everything that the name of a method decides.

Recognition of checkpoints, labels of tables, the driver of experiments, documentation and tests read these rows. A new
method is one row here, beside its bundle.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from lessismore_transforms.errors import UserError


@dataclass(frozen=True)
class Layout:
    """Where the checkpoints that a method's authors publish keep the backbone.

    Args:
        text: for people, whose checkpoints these are and what their keys look like.
        mark: with which keys begin that only this layout has.
        prefix: of the backbone's keys.
        heads: layers under that prefix that are not of the backbone.
        entry: of a file whose weights have the backbone's plain names; it tells the method there.
    """

    text: str
    mark: str
    prefix: str
    heads: tuple[str, ...] = ()
    entry: str | None = None


@dataclass(frozen=True)
class Method:
    """A way to pre-train an encoder.

    Args:
        name: in configurations, file names and headers of weights.
        title: for people, and in tables; where the paper has the method it is the paper's spelling.
        paper: whether the paper's tables have it.
        bundle: that trains by it.
        overlay: configuration of that bundle which makes it this method, empty where train.json is it.
        negatives: whether its loss pushes pictures away from each other, so that near copies can be left out of it.
        layout: of published checkpoints; None where there are none.
    """

    name: str
    title: str
    paper: bool = False
    bundle: str = ""
    overlay: str = ""
    negatives: bool = False
    layout: Layout | None = None


_ROWS = (
    Method(
        "swav",
        "SwAV",
        paper=True,
        bundle="ct_swav_pretraining",
        layout=Layout(
            "SwAV (model.* with model.prototypes.*)",
            mark="model.prototypes.",
            prefix="model.",
            heads=("projection_head.", "prototypes."),
        ),
    ),
    Method(
        "moco",
        "MoCoV2",
        paper=True,
        bundle="ct_moco_pretraining",
        negatives=True,
        layout=Layout("MoCo (encoder_q.*)", mark="encoder_q.", prefix="encoder_q.", heads=("fc.",)),
    ),
    Method(
        "byol",
        "BYOL",
        bundle="ct_byol_pretraining",
        layout=Layout(
            "BYOL (online_network.encoder.*)", mark="online_network.encoder.", prefix="online_network.encoder."
        ),
    ),
    Method(
        "spark",
        "SparK",
        paper=True,
        bundle="ct_spark_pretraining",
        layout=Layout(
            "SparK (module with sparse_encoder.sp_cnn.* or bare)",
            mark="sparse_encoder.sp_cnn.",
            prefix="sparse_encoder.sp_cnn.",
            entry="is_pretrain",
        ),
    ),
    Method("simclr", "SimCLR", bundle="ct_simclr_pretraining", negatives=True),
    Method("dclw", "DCLW", bundle="ct_simclr_pretraining", overlay="dclw.json", negatives=True),
    Method("simsiam", "SimSiam", bundle="ct_simsiam_pretraining"),
    Method("vicreg", "VICReg", bundle="ct_vicreg_pretraining"),
)
METHODS = {row.name: row for row in _ROWS}
# Published checkpoints whose keys do not tell which of several methods made them.
SHARED_LAYOUT = Layout("SmallDataSSL (model with backbone.* and projector.*)", mark="projector.", prefix="backbone.")
TITLES = {row.name: row.title for row in _ROWS}


def method_of(text: str) -> Method:
    """The method that a user means: "SwAV" is swav, "MoCo v2" is moco.

    Raises:
        UserError: there is no such method.
    """
    plain = re.sub("[^a-z0-9]", "", text.lower()).removesuffix("v2")
    if plain not in METHODS:
        close = difflib.get_close_matches(plain, METHODS, n=1)
        advice = f"did you mean {close[0]}?" if close else "leave it out to take what the file holds"
        raise UserError(f"expected a method out of {', '.join(METHODS)}, found {text!r}; {advice}")
    return METHODS[plain]
