"""The arms of an experiment: ways to reduce a data set, and trainings of encoders on what is left."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from lessismore_transforms import methods
from lessismore_transforms.errors import UserError

METHODS = {method.title: method for method in methods.METHODS.values() if method.bundle}
MEASURES = {"SSIM": "ssim", "MI": "mi", "DeepNet": "deepnet", "HASH": "hash"}
# Settings of the pre-training that keep near copies and do something about them.
REMEDIES: dict[str, dict[str, str]] = {
    "rotate": {"sampling": "rotate"},
    "spread": {"sampling": "spread"},
    "mask": {"near_copies": "mask"},
}


class Reduction(NamedTuple):
    """One way to reduce a data set.

    Args:
        label: as in the paper's tables.
        method: of `reduce` and `select`.
        option: of `select` that says how much, "" where there is none.
        value: of that option.
        remedy: what is done about near copies in the training, a key of REMEDIES; "" where they are discarded alone.
        near: so many removed slices stay beside each kept one.
    """

    label: str
    method: str
    option: str
    value: str
    remedy: str = ""
    near: int = 0

    @classmethod
    def of(cls, label: str) -> Reduction:
        """Read a label.

        Those of the paper are ALL, EveryN-10%, SSIM-10% (MI, DeepNet, HASH too) and HASH-6. EveryN@HASH-6 and
        Random@HASH-6 keep as many slices of each volume as HASH-6 does, random ones drawn anew for each seed.
        HASH-6+2near keeps the two nearest removed slices beside each kept one. +rotate, +spread, +mask are remedies.

        Raises:
            UserError: it is none of these.
        """
        base, plus, remedy = label.partition("+")
        if plus:
            if (match := re.fullmatch(r"(\d+)near", remedy)) and re.fullmatch(r"HASH-\d+", base) and int(match[1]):
                return cls.of(base)._replace(label=label, near=int(match[1]))
            if remedy not in REMEDIES:
                raise unknown("a remedy", remedy, (*REMEDIES, "2near"))
            if remedy == "rotate" and not (base.startswith("HASH-") and cls.of(base).option == "threshold"):
                raise UserError(f"expected a HASH threshold to rotate, such as HASH-6+rotate, found {label}")
            return cls.of(base)._replace(label=label, remedy=remedy)
        if label == "ALL":
            return cls(label, "all", "", "")
        if match := re.fullmatch(r"(EveryN|Random)@(HASH-\d+)", label):
            return cls(label, {"EveryN": "every_n", "Random": "random"}[match[1]], "like", cls.of(match[2]).selection)
        if match := re.fullmatch(r"EveryN-(\d+)%", label):
            share = int(match[1])
            if share < 1 or 100 % share:
                raise UserError(f"expected EveryN-P% with P a divisor of 100, found {label}: 20, 10 and 5 are usual")
            return cls(label, "every_n", "step", str(100 // share))
        if match := re.fullmatch(r"(\w+)-(\d+)%", label):
            if match[1] in MEASURES and 0 < int(match[2]) <= 100:
                return cls(label, MEASURES[match[1]], "fraction", f"{int(match[2]) / 100:g}")
        elif (match := re.fullmatch(r"HASH-(0|[1-9]\d?)", label)) and int(match[1]) <= 64:
            return cls(label, "hash", "threshold", match[1])
        tenths = [f"{name}-10%" for name in ("EveryN", *MEASURES)]
        like = ("EveryN@HASH-6", "Random@HASH-6", "HASH-6+2near")
        raise unknown("a reduction", label, ("ALL", "EveryN-20%", *tenths, "HASH-3", "HASH-6", "HASH-12", *like))

    @property
    def measure(self) -> str:
        """The measure of the `reduce` that it is selected from; what measures nothing takes HASH, which costs least."""
        return self.method if self.method in MEASURES.values() else "hash"

    @property
    def name(self) -> str:
        """The label where file names want no percent sign."""
        return self.label.replace("%", "pct").replace("@", "-at-")

    @property
    def selection(self) -> str:
        """Name of the selection, which is the same with and without a remedy."""
        base = self.name.partition("+")[0]
        return f"{base}-{self.near}near" if self.near else base

    def selection_of(self, seed: int) -> str:
        """Name of the selection for a seed of pre-training: chance chooses other slices for each."""
        return f"{self.selection}_seed{seed}" if self.method == "random" else self.selection


class Pretraining(NamedTuple):
    """One training of an encoder."""

    dataset: str
    method: str
    reduction: Reduction
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.dataset}_{self.method}_{self.reduction.name}_seed{self.seed}"

    @property
    def arm(self) -> str:
        """What all seeds of it have in common, as a name."""
        return f"{self.dataset}_{self.method}_{self.reduction.name}"

    @property
    def selection(self) -> str:
        """Name of the selection that it is trained on."""
        return self.reduction.selection_of(self.seed)


class Question(NamedTuple):
    """A contrast that was named before the runs.

    Args:
        name: what is compared.
        plus: arms, method and label of the reduction, whose values are added.
        minus: arms whose values are taken off.
    """

    name: str
    plus: tuple[tuple[str, str], ...]
    minus: tuple[tuple[str, str], ...]


def unknown(what: str, found: object, known: Iterable[str]) -> UserError:
    """The mistake of a name that there is not."""
    names = list(known)
    (closest,) = difflib.get_close_matches(str(found), names, n=1, cutoff=0)
    return UserError(f"expected {what} out of {', '.join(names)}, found {found!r}: the closest one is {closest!r}")


def check_data_name(name: object, where: str, taken: Collection[str]) -> None:
    """Refuse a name that cannot stand for data in names of folders and steps."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9.-]*", name) or name in taken:
        raise UserError(
            f"expected names of letters, digits, '.' and '-' for {where}, other than those of tasks and other data, "
            f"found {name!r}: rename it"
        )
