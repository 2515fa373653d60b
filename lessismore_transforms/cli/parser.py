"""The parser of our command lines, ours and those of scripts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

from lessismore_transforms.options import TRUTHS


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and answers a mistake in one sentence instead of the whole usage.

    An option that stands alone for true takes true or false only: `--balance OUT` is `--balance True OUT`.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(allow_abbrev=False, **given)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """What was given, and the words that nothing takes."""
        words = list(sys.argv[1:] if args is None else args)
        flags = (each for each in self._actions if each.nargs == "?" and each.const is True)
        alone = {name for each in flags for name in each.option_strings}
        spared: dict[str, str] = {}  # words behind such options, which are none of their values
        for place, (name, word) in enumerate(pairwise(words)):
            if name == "--":
                break
            if name in alone and not word.startswith("-") and word.lower() not in TRUTHS:
                words[place], spared[name] = f"{name}=True", word
        found, left = super().parse_known_args(words, namespace)
        if spared and left and not any(word.startswith("-") for word in left):  # one word too many
            name, word = next(iter(spared.items()))
            self.error(f"argument {name}: expected true or false, found {word!r}")
        return found, left

    def error(self, message: str) -> NoReturn:
        """End with the sentence and exit code 2."""
        self.exit(2, f"error: {message}: see `{self.prog} --help`\n")
