"""A user's mistake, as one sentence: what was expected, what was found, what to do.

The command line and the bundles print the sentence of a `UserError` and end with its exit code. Any other exception is
a defect of the program and shows its traceback.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHOW = "LESSISMORE_TRACEBACK"  # in the environment: show the traceback of a mistake too


class UserError(ValueError):
    """What a user can put right; a ValueError, so that callers from Python may treat it as a wrong argument."""

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of it instead of a traceback."""
        shown = traceback.format_exception(self) if os.environ.get(SHOW) else []
        return ["".join(shown) + f"error: {self}"]


class OutputError(UserError):
    """An output that cannot be written."""


class VolumeError(UserError):
    """A volume that cannot be read."""


class ManifestError(UserError):
    """An output folder of a reduction that is none or was damaged."""


class RunError(UserError):
    """A run that cannot start."""


class IncompleteError(UserError):
    """A result that was written and lacks what could not be read."""

    exit_code = 1


@contextmanager
def reading(path: str | Path, kind: type[UserError] = UserError) -> Iterator[None]:
    """Turn the operating system's complaints about reading `path`, and text that is none, into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise kind(f"cannot read {path}: {reason}: fix the path or its permissions") from error
    except UnicodeDecodeError as error:
        raise kind(f"expected text in {path}, found bytes that are none ({error.reason}): fix the file") from error


def first_line(error: BaseException) -> str:
    """First line of an error's message; the name of its class where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
