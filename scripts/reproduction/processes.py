"""Run commands, each in a process of its own that need not import torch and MONAI again.

A fork server imports them once. It has no threads and never touches a GPU, so its children are as good as new.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any

from lessismore_transforms.atomic import writing

_PRELOAD = [
    *("monai.bundle", "monai.engines", "monai.handlers", "torch.utils.tensorboard", "matplotlib.figure", "timm"),
    *("lessismore_transforms.pretraining.health", "lessismore_transforms.classification.evaluation"),
    "lessismore_transforms.classification.leakage",
]


def start(command: Sequence[str], log: Path) -> Any:
    """Start `python -m COMMAND`, what it prints goes into a file; returns its process.

    Raises:
        OutputError: the log cannot be written.
    """
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    process = _context().Process(target=_run_module, args=(tuple(command), str(log)))
    process.start()
    return process


def wait_for_any(processes: Sequence[Any]) -> list[Any]:
    """Wait until a process has ended; returns those that have, each with its `exitcode`, negative for a signal."""
    ended = set(wait([process.sentinel for process in processes])) if processes else set()
    found = [process for process in processes if process.sentinel in ended]
    for process in found:
        process.join()
    return found


def end_all(processes: Sequence[Any]) -> None:
    """Interrupt processes, which may save their state, and wait for them; another interrupt does not wait."""
    try:
        for process in processes:
            _ask_to_end(process)
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()


def interruptible() -> None:
    """Treat SIGTERM, as schedulers send it, and a closed terminal like Ctrl-C."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, interrupt)


def last_error(log: Path) -> str:
    """The sentence by which a command says what went wrong, else the error it began with, else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if told := [line for line in lines if line.startswith(("error: ", "failed: "))]:
        return told[-1]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]  # MONAI wraps the first one
    return (raised[:1] or lines[-1:] or ["it printed nothing"])[0]


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def _ask_to_end(process: Any) -> None:
    """Once: a second SIGINT would mean at once, without saving."""
    with suppress(ProcessLookupError):
        if process.exitcode is None:  # the number of one that has ended may be another's by now
            os.kill(process.pid, signal.SIGINT)


def _run_module(command: tuple[str, ...], log: str) -> None:
    """Become `python -m COMMAND`."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in a terminal reaches the driver alone, which passes it on once
    # What a shell has started in the background ignores SIGINT, and so would this; only the driver sends it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(log, "ab", buffering=0) as file:  # noqa: PTH123
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = list(command)
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)  # a bundle has set one that says a sentence
        sys.exit(1)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
