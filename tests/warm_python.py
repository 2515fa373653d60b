"""A Python that has imported what bundles need and forks for each run: a test saves the start of ten seconds.

What runs is a process of its own, with its own arguments, folder, environment and output. It ends as any other does,
with its exit functions and threads, but for the last act, in which Python takes apart every module that it ever
imported: two seconds of work that the system does at once. Some tests start Python anew all the same, so that nothing
rests on what is imported here, nor on how it ends.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_TIMEOUT = 300  # seconds
_IMPORTED = (
    "fire", "matplotlib.backends.backend_agg", "monai.bundle", "monai.engines", "numba", "pyarrow.pandas_compat",
    "tensorboard", "timm.optim", "torchvision", "lessismore_transforms.bundle.network",
    "lessismore_transforms.classification.trainer", "lessismore_transforms.pretraining.heads",
    "lessismore_transforms.pretraining.trainer",
)  # fmt: skip
# Of glibc: keep what tensors leave. Getting pages from the kernel for each anew takes a seventh of a small training.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def warm_run(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """`subprocess.run([sys.executable, *arguments])`, for `-m MODULE ...`, `-c CODE ...` and `FILE ...`."""
    (done,) = _run(arguments, cwd, [env])
    return done


def warm_ranks(
    arguments: Sequence[str], processes: int, *, cwd: Path, env: Mapping[str, str]
) -> list[subprocess.CompletedProcess[str]]:
    """The same in several processes that find each other, as `torchrun --nproc_per_node` starts them."""
    if processes == 1:
        return _run(arguments, cwd, [env])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    meet |= {"LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}
    ranks = [{**env, **meet, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return _run(arguments, cwd, ranks)


def _run(
    arguments: Sequence[str], cwd: Path, environments: Sequence[Mapping[str, str]]
) -> list[subprocess.CompletedProcess[str]]:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number, env in enumerate(environments):
            places = [str(Path(folder) / f"{number}.{name}") for name in ("out", "err")]
            runs.append({"arguments": list(map(str, arguments)), "cwd": str(cwd), "env": dict(env), "places": places})
        server.stdin.write(f"{json.dumps(runs)}\n")
        server.stdin.flush()
        codes = json.loads(server.stdout.readline())
        said = [[Path(place).read_text(encoding="utf-8") for place in run["places"]] for run in runs]
    line = [sys.executable, *arguments]
    return [subprocess.CompletedProcess(line, code, *texts) for code, texts in zip(codes, said, strict=True)]


@cache
def _server() -> subprocess.Popen[str]:
    """The Python that waits, one for each process of pytest."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MONAI_FAIL_ON_DUPLICATE_CONFIG": "1", **_MEMORY}
    server = subprocess.Popen(
        [sys.executable, __file__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.kill)
    return server


def _warm_up() -> None:
    """Do once what takes longer the first time: load the kernels of the views, and find the fonts of a figure."""
    import torch
    from matplotlib.figure import Figure

    from lessismore_transforms.pretraining.views import View, Views

    for size in (8, 40):  # smaller and larger than the picture
        Views([View(size, 1)], [0.5], [0.5])(
            torch.zeros(1, 1, 16, 16, dtype=torch.uint8), torch.tensor([[16, 16]]), step=1
        )
    axes = Figure().add_subplot()
    axes.set_title("title")
    axes.plot([0, 1], label="line")
    axes.legend()
    axes.figure.savefig(io.BytesIO(), format="png")


def _serve() -> dict[str, Any]:
    """Fork for each run that is asked for; comes back in the new process, with what it is to run."""
    for line in sys.stdin:
        children = []
        for run in json.loads(line):
            child = os.fork()
            if not child:
                return run  # type: ignore[no-any-return]
            children.append(child)
        deadline = time.monotonic() + _TIMEOUT
        print(json.dumps([_wait(child, deadline) for child in children]), flush=True)
    raise SystemExit


def _wait(child: int, deadline: float) -> int:
    """The exit code of a process; it and those that it started are killed at the deadline."""
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(run: Mapping[str, Any]) -> None:
    """Take on folder, environment and output, and run what `python` would."""
    os.setsid()
    for number, place in enumerate(run["places"], start=1):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(run["cwd"])
    os.environ.clear()
    os.environ.update(run["env"])
    tempfile.tempdir = None  # TMPDIR may be another one now
    first, *rest = run["arguments"]
    folder = Path.cwd() if first in ("-c", "-m") else Path(first).parent
    sys.path[:1] = [str(folder), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def _status(end: SystemExit) -> int:
    """The exit code that Python makes of `sys.exit(...)`; a text is told."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


def _ended(run: Mapping[str, Any]) -> int:
    """Run, and tell the exit code; an error goes to the hook, which may end the process with a code of its own."""
    try:
        try:
            _become(run)
        except Exception:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            return 1
    except SystemExit as end:
        return _status(end)
    except KeyboardInterrupt:
        atexit.unregister(_leave)  # Python ends by the signal
        raise
    return 0


def _leave() -> None:
    """End at once, with the exit code of what was run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code)


if __name__ == "__main__":
    _code = 0
    atexit.register(_leave)  # the first one: it is called last
    for module in _IMPORTED:
        importlib.import_module(module)
    _warm_up()
    inspect.stack()  # fire asks for it in each run; it remembers the files of modules
    gc.collect()
    gc.freeze()  # what is here stays: looking at it again would copy its memory into each process
    _code = _ended(_serve())
