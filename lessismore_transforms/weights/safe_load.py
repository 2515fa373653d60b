"""The content of a file that PyTorch wrote, nothing in it executed, and in our own words why one is refused.

The messages of PyTorch advise to load a refused file unsafely; none of them is passed on.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import UserError, first_line

_AGAIN = "copy or download it again"
_LONGEST = 80  # characters of a name that stands in a file


def load_safely(path: Path, what: str = "weights", advice: str = _AGAIN, *, allowed: Sequence[Any] = ()) -> Any:
    """The tensors and plain values in a file, on the CPU.

    Args:
        path: the file.
        what: was expected in it, for an error.
        advice: what to do where it is damaged.
        allowed: as `torch.serialization.safe_globals` takes them.

    Raises:
        UserError: the file is missing, damaged, or holds anything else.
    """
    import torch

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([*allowed]):
            warnings.simplefilter("ignore")  # on old protocols and storages, with advice of their own
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is damaged raises many kinds
        raise refusal(error, path, what, advice) from error


def refusal(error: Exception, path: Path | str, what: str = "weights", advice: str = _AGAIN) -> UserError:
    """Why a file could not be loaded, from what PyTorch or safetensors raised."""
    text = str(error)
    if refused := re.search(r"GLOBAL (\S+)", text):
        then = "ask for a file with the network's state_dict only" if what == "weights" else advice
        name = "".join(letter for letter in refused[1] if letter.isprintable())[:_LONGEST]
        return UserError(
            f"expected nothing but tensors and plain values in {path}, found {name}, which is not known to be safe and "
            f"was not executed: {then}"
        )
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"cannot read {path}: {error.strerror}: fix the path or its permissions")
    return UserError(
        f"expected {what} in {path}, found a file that is damaged or unsafe ({_problem(error, text)}): {advice}"
    )


def _problem(error: Exception, text: str) -> str:
    kind = type(error).__name__
    if kind == "SafetensorError":
        return "".join(letter for letter in first_line(error) if letter.isprintable())[: 2 * _LONGEST]
    if kind == "EOFError" or "central directory" in text or "not enough data" in text:
        return "it ends too early, or is no file of PyTorch"
    if "legacy .tar" in text:
        return "it is a tar archive, as PyTorch wrote before 0.4"
    if kind == "MemoryError" or "can't allocate memory" in text:
        return "it claims more than fits into memory"
    return "its content makes no sense"
