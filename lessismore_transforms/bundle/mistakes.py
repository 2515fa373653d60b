"""A user's mistake as one sentence wherever it shows: a program's end, a thread's end, a notebook.

MONAI wraps what the expressions of a configuration raise, so that the mistake is a cause among causes. A program
prints it through `sys.excepthook`, a thread through `threading.excepthook`, IPython through its own handler; each is
asked first and hands on what is no mistake. LESSISMORE_TRACEBACK=1 in the environment shows the traceback too.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from lessismore_transforms.errors import SHOW, UserError, first_line

_COMPONENT = re.compile(r"Failed to instantiate component '([\w.]+)'")  # MONAI's words
_LAST_ERROR = re.compile(r"^[\w.]+Error: ", re.MULTILINE)  # the head of the sentence below a traceback

_former: dict[str, Any] = {}  # hooks by the name of what has them


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a user's mistake inside into its sentence on stderr and exit code 2.

    SystemExit is the one exception that MONAI does not wrap when the expressions of a configuration raise it. In a
    notebook the mistake is raised as it is: there an exit is nothing, and the sentence is shown by `say_mistakes`.
    """
    try:
        yield
    except UserError as error:
        if _shell() is not None:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def say_mistakes() -> None:
    """From now on show a user's mistake that nobody catches as one sentence: in this program, its threads, IPython."""
    if sys.excepthook is not _of_program:
        _former["program"], sys.excepthook = sys.excepthook, _of_program
    if threading.excepthook is not _of_thread:
        _former["thread"], threading.excepthook = threading.excepthook, _of_thread
    shell = _shell()
    if shell is not None and shell.custom_exceptions == ():  # whoever has a handler already keeps it
        shell.set_custom_exc((Exception,), _of_notebook)


def _shell() -> Any:
    """The IPython that runs this code; None where there is none."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _of_program(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print an uncaught exception: one sentence where a mistake that our code found is at its root.

    Raises:
        SystemExit: it is such a mistake, with whose exit code Python then ends.
    """
    mistake = mistake_behind(error)
    if mistake is None or os.environ.get(SHOW):
        _former.get("program", sys.__excepthook__)(kind, error, traceback)
    if mistake is not None:
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(mistake.exit_code)


def _of_thread(told: Any) -> None:
    """Print an exception that ends a thread."""
    mistake = None if told.exc_value is None else mistake_behind(told.exc_value)
    if mistake is None or os.environ.get(SHOW):
        _former.get("thread", threading.__excepthook__)(told)
    if mistake is not None:
        print(f"error: {mistake}", file=sys.stderr)


def _of_notebook(shell: Any, kind: type[BaseException], error: BaseException, traceback: Any, tb_offset: Any) -> None:
    """Print an exception that ends a cell."""
    mistake = mistake_behind(error)
    if mistake is None or os.environ.get(SHOW):
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)
    if mistake is not None:
        print(f"error: {mistake}", file=sys.stderr)


def mistake_behind(error: BaseException | None) -> UserError | None:
    """The first user's mistake among an exception and its causes."""
    component = ""
    while error is not None:
        if isinstance(error, UserError):
            return UserError(_LAST_ERROR.split(str(error))[-1].strip()) if _of_a_loader(error) else error
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
            return UserError(
                f"{first_line(error)}: perhaps it lacked memory; --resume True goes on, with fewer --workers"
            )
        if found := _COMPONENT.match(str(error)):
            component = found[1]
        elif component and _refuses(component, error):
            return UserError(f"{component} cannot take what it was given: {first_line(error)} ({SHOW}=1 shows where)")
        else:
            component = ""
        error = error.__cause__ or error.__context__
    return None


def _of_a_loader(error: UserError) -> bool:
    """Whether torch brought a mistake from a worker of a DataLoader: with its traceback, the sentence last."""
    return "in DataLoader worker process" in first_line(error)


def _refuses(component: str, error: BaseException) -> bool:
    """Whether a component of a library refused what it was given, or one of ours an argument that it does not have.

    Ours say what else they refuse by themselves: any other exception in them is a defect.
    """
    if component.partition(".")[0] not in ("lessismore_transforms", "scripts"):
        return isinstance(error, (ValueError, TypeError, RuntimeError, AssertionError))
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    called_from = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    return isinstance(error, TypeError) and called_from.startswith("monai.")
