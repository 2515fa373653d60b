"""A user's mistake, as one sentence: what was expected, what was found, what to do.

The command line and the bundles print the sentence of a `UserError` and end with exit code 2. Any other exception is a
defect of the program and shows its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """What a user can put right; a ValueError, so that callers from Python may treat it as a wrong argument."""


class OutputError(UserError):
    """An output that cannot be written."""


class VolumeError(UserError):
    """A volume that cannot be read."""


class ManifestError(UserError):
    """An output folder of a reduction that is none or was damaged."""


class RunError(UserError):
    """A run that cannot start."""


def first_line(error: BaseException) -> str:
    """First line of an error's message; the name of its class where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
