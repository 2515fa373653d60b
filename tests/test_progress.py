"""Where there is no terminal progress is a line now and then; short work says nothing."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from lessismore_transforms import progress
from lessismore_transforms.progress import has_bars, progress_bar


def states(text: str) -> list[str]:
    return [line.split(",")[0] for line in text.splitlines()]


def test_long_work_says_where_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    assert list(progress_bar([5, 6], desc="reduce", unit=" slices")) == [5, 6]
    with progress_bar(desc="fit", unit=" folds", total=4, initial=2) as bar:
        bar.update(1)
    error = capsys.readouterr().err
    reduced = ["reduce: 0 of 2 slices", "reduce: 1 of 2 slices", "reduce: 2 of 2 slices"]
    assert states(error) == [*reduced, "fit: 2 of 4 folds", "fit: 3 of 4 folds"]
    assert "\r" not in error


def test_short_work_and_hidden_work_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar(range(3), desc="read", unit=" pictures")) == [0, 1, 2]
    assert list(progress_bar(range(3), desc="read", unit=" pictures", hidden=True)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_terminals_and_notebooks_have_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_bars()
    with monkeypatch.context() as patched:
        patched.setattr(sys.stderr, "isatty", lambda: True)
        assert has_bars()
        assert list(progress_bar(range(3), desc="read", unit=" pictures")) == [0, 1, 2]
        assert "read: 100%" in capsys.readouterr().err
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert has_bars()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert not has_bars()
