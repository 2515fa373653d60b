"""A user's mistake is one sentence in a thread and in IPython too, and other exceptions are left to who shows them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from lessismore_transforms.bundle import mistakes
from lessismore_transforms.bundle.mistakes import say_mistakes
from lessismore_transforms.errors import UserError


@pytest.fixture(autouse=True)
def hooks() -> Iterator[None]:
    """Leave the hooks for uncaught exceptions as they were."""
    before, former = (sys.excepthook, threading.excepthook), dict(mistakes._former)
    yield
    sys.excepthook, threading.excepthook = before
    mistakes._former.clear()  # the hooks of a host that a test played
    mistakes._former.update(former)


def wrapped(error: Exception) -> None:
    """Raise as MONAI does what an expression raised."""
    try:
        raise error
    except Exception as cause:
        raise RuntimeError("Failed to evaluate the expression") from cause


def test_a_mistake_in_a_thread_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[object] = []
    threading.excepthook = seen.append
    say_mistakes()
    for error in (UserError("expected this, found that: do so"), KeyError("a defect")):
        thread = threading.Thread(target=wrapped, args=(error,))
        thread.start()
        thread.join()
    assert capsys.readouterr().err == "error: expected this, found that: do so\n"
    assert len(seen) == 1  # the host's own hook got the defect


def test_the_hook_of_a_host_gets_what_is_no_mistake() -> None:
    seen: list[object] = []
    sys.excepthook = lambda kind, error, traceback: seen.append(kind)
    say_mistakes()
    say_mistakes()
    sys.excepthook(KeyError, KeyError("a defect"), None)
    assert seen == [KeyError]


NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="nocolor")
shell.run_cell("from lessismore_transforms.errors import UserError")
shell.run_cell("raise UserError('expected A, found B: do so')")
print("=", flush=True)
shell.run_cell("from lessismore_transforms.bundle.mistakes import one_sentence, say_mistakes; say_mistakes()")
shell.run_cell("with one_sentence(): raise UserError('expected C, found D: do so')")
shell.run_cell("raise RuntimeError('of MONAI') from UserError('expected E, found F: do so')")
print("=", flush=True)
shell.run_cell("{}['a defect']")
"""


def test_a_mistake_in_a_notebook_is_one_sentence() -> None:
    pytest.importorskip("IPython", reason="IPython is not installed")
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], text=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    alone, handled, defect = done.stdout.split("=\n")
    assert alone.strip().splitlines() == ["error: expected A, found B: do so"]
    assert handled.strip().splitlines() == ["error: expected C, found D: do so", "error: expected E, found F: do so"]
    assert "KeyError: 'a defect'" in defect
