"""The parser of our command lines, ours and those of scripts."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and answers a mistake in one sentence instead of the whole usage."""

    def __init__(self, **given: Any) -> None:
        super().__init__(allow_abbrev=False, **given)

    def error(self, message: str) -> NoReturn:
        """End with the sentence and exit code 2."""
        self.exit(2, f"error: {message}: see `{self.prog} --help`\n")
