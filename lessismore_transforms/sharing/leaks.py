"""What the leakage gate found, as rows of a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lessismore_transforms.wording import count

_KINDS = {
    "patients": "patients in more than one split",
    "sources": "sources (papers, figures, groups) in more than one split",
    "exact": "pictures in more than one split, equal in all pixels",
    "two_labels": "pictures under two labels, equal in all pixels",
    "near": "pairs of nearly equal pictures of different splits",
    "pretraining_patients": "patients who are in the pre-training set",
    "pretraining_exact": "pictures that are in the pre-training set, equal in all pixels",
    "pretraining_near": "pairs of a pre-training slice and a picture that are nearly equal",
    "too_small": "pictures too small to be looked for",
}


def leak_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A row for each kind of leak: what it is, and how many were found or that it was not looked for."""
    if not summary.get("checked"):
        return [("leaks", "not looked for")]
    found = [(words, summary.get(kind)) for kind, words in _KINDS.items()]
    return [(words, "not known" if number is None else count(number)) for words, number in found]
