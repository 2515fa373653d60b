"""How a command ends: its exit code, and the sentence of a mistake."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from lessismore_transforms.errors import UserError


def exit_code(work: Callable[[], int]) -> int:
    """Exit code of a command: its own, 2 for a mistake that a sentence explains, 130 where it was interrupted."""
    try:
        return work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has enough of it, `| head` for instance
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 130
