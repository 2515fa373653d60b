"""Check and measure what runs on a GPU, step by step; `--device cpu --quick` is a dry run without one.

    python scripts/gpu_check.py --output_dir CHECK                                # all steps, on a GPU
    python scripts/gpu_check.py --output_dir CHECK --only tests method_swav       # steps whose names begin so
    python scripts/gpu_check.py --output_dir CHECK --device cpu --quick           # a dry run
    python scripts/gpu_check.py --output_dir CHECK --page docs/pages/speeds.md    # the page of what was measured
    python scripts/gpu_check.py --wheels WHEELS --python 3.12                     # packages to carry along

Steps, in their order: `tests` (those marked gpu); `method_NAME` (a pre-training by its train.json as it is: speed,
memory, shares of the step, the network alone, the first step beside the CPU's, resume); `variants_NAME` (fp16 and
torch.compile); `distributed_swav` (torchrun with one process); `bench_step` and `bench_views` (beside lightly and
torchvision); `measure_NAME` (SSIM, NMI, DeepNet and dHash beside the CPU); `projection` (the paper's hours);
`finetune` (the first row of Table 3). Each runs in its own process, for 8 minutes at most; one that fails does not stop
the others. CHECK gets STEP.json and STEP.log of each, and summary.json and table.md of all. Phantoms are made on the
spot. Exit code 1 where a step failed; no speed is a failure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gpu.page import write_page, write_summary
from gpu.running import about, python_command, run_all, run_step
from gpu.setup import FULL, QUICK, Setup
from gpu.steps import STEPS, chosen
from gpu.wheels import download

from lessismore_transforms.cli.exit_code import exit_code
from lessismore_transforms.errors import UserError

LIMIT_S = 480


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code: 0, 1 where a step failed, 2 for a mistake."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, metavar="CHECK", help="folder for the results")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="STEP", help=f"beginnings of names: {', '.join(STEPS)}"
    )
    parser.add_argument("--device", default="cuda", help="such as cuda:1; cpu for a dry run (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="tiny networks and pictures, few steps")
    parser.add_argument("--slices", type=Path, metavar="OUT", help="real slices, an output folder of `reduce`")
    parser.add_argument("--covid", type=Path, metavar="DIR", help="the data set COVID-CT, for `finetune`")
    parser.add_argument("--minutes", type=float, default=0, help="end after so many minutes (default: never)")
    parser.add_argument("--commit", default="", help="what is checked, where git cannot tell")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="write the page of what CHECK holds; run nothing")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="download the packages that travel; run nothing")
    parser.add_argument("--python", default="3.12", help="version of Python that the wheels are for (default: 3.12)")
    parser.add_argument("--here", action="store_true", help="run all steps in this process, without a time limit")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.wheels:
        try:
            print(download(options.wheels, options.python))
        except subprocess.CalledProcessError as error:
            raise UserError(f"pip could not download the wheels (exit code {error.returncode}): see above") from error
        return 0
    if options.output_dir is None:
        raise UserError("expected --output_dir CHECK, the folder for the results")
    folder = options.output_dir.resolve()
    if options.page:
        if not (folder / "summary.json").is_file():
            raise UserError(f"expected a check in {options.output_dir}, found no summary.json: run the check first")
        write_page(folder, options.page)
        return 0
    names = _names(options)
    _refuse_absent(options)
    folder.mkdir(parents=True, exist_ok=True)
    # The user's patient key stays untouched.
    os.environ["XDG_CONFIG_HOME"] = str(folder / "work" / "configuration")
    if options.here:
        failed = [name for name in names if run_step(name, _setup(options))["failed"]]
    else:
        deadline = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
        command = partial(_command, options)
        say = partial(print, flush=True)
        failed = run_all(names, folder, command, limit_s=LIMIT_S, deadline=deadline, say=say)
    write_summary(folder, about(options.device, options.commit))
    print(f"{len(names) - len(failed)} of {len(names)} steps are well: {options.output_dir / 'table.md'}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _names(options: argparse.Namespace) -> list[str]:
    for beginning in options.only:
        if not chosen([beginning]):
            raise UserError(f"expected the beginning of a step's name out of {', '.join(STEPS)}, found {beginning!r}")
    return chosen(options.only)


def _refuse_absent(options: argparse.Namespace) -> None:
    from lessismore_transforms.training.precision import pick_device

    pick_device(options.device)
    for name in ("slices", "covid"):
        path = getattr(options, name)
        if path is not None and not path.is_dir():
            raise UserError(f"expected a folder for --{name}, found {path}: fix the path")


def _setup(options: argparse.Namespace) -> Setup:
    folders = [path and path.resolve() for path in (options.slices, options.covid)]
    return Setup(options.device, QUICK if options.quick else FULL, options.output_dir.resolve(), *folders)


def _command(options: argparse.Namespace, name: str) -> list[str]:
    """The command that runs one step in a process of its own."""
    line = python_command("--here", "--only", name, "--output_dir", str(options.output_dir), "--device", options.device)
    line += ["--quick"] if options.quick else []
    for folder in ("slices", "covid"):
        if path := getattr(options, folder):
            line += [f"--{folder}", str(path)]
    return line


if __name__ == "__main__":
    sys.exit(main())
