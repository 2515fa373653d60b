"""Where there is no terminal progress is a line now and then; short work says nothing."""

from __future__ import annotations

import sys
import time
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


@pytest.mark.parametrize("iterated", [True, False])
def test_the_first_line_comes_early_and_the_others_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, iterated: bool
) -> None:
    """Steps of 5 s: a line after 20 s, then every 60 s."""
    now = [time.time()]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    bar = progress_bar(range(43) if iterated else None, total=43, desc="reduce", unit=" slices")
    seen = []
    for each in bar if iterated else range(43):
        now[0] += 5
        seen.append(each)
        if not iterated:
            bar.update()
    bar.close()
    assert seen == list(range(43))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"reduce: {n} of 43 slices" for n in (4, 16, 28, 40, 43)]
    assert "00:20 so far" in lines[0]


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
