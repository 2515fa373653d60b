"""Questions: asked of a person at a terminal only, and what `share` and `download` make of the answers."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from lessismore_transforms.cli import share as share_command
from lessismore_transforms.cli.ask import ask
from lessismore_transforms.errors import UserError
from lessismore_transforms.sharing.settings import ShareSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch, answers: str) -> Terminal:
    shown = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answers))
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_an_answer_without_its_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = at_terminal(monkeypatch, "  yes \n\n")
    assert ask("Well?") == "yes"
    assert shown.getvalue() == "Well? "
    assert ask("Well?") is None  # an empty line
    assert ask("Well?") is None  # the end


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert ask("Well?") is None


def test_share_asks_for_licence_and_author(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = at_terminal(monkeypatch, "cc-by-4.0\nA. Student\n")
    with pytest.raises(UserError, match=r"found no config\.json in"):  # both were answered, and the run is none
        share_command.share(ShareSettings(tmp_path / "run", tmp_path / "out"))
    assert shown.getvalue() == "Licence of the weights, such as cc-by-4.0: Who shares them: "
