"""Run the tutorial: what README.md beside this file tells, block by block, in a new folder.

    python docs/tutorial/run.py FOLDER            # stops at the first block that fails
    python docs/tutorial/run.py FOLDER --write    # puts what was printed, and the pictures, into the page, too

Blocks of `bash` and `python` are run. A line of a block of `text` is one that the block above it prints; digits may
differ, as they do from machine to machine. A picture is made by a block, at the place that its mark names. Only the
standard library is needed here, so that a release runs the page where nothing else is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("README.md")
BLOCK = re.compile(r"^```(bash|python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"^<!-- picture: (\S+) -->\n!\[[^\]]*\]\(([^)]+)\)", re.MULTILINE)
WIDTH, COLOURS = 760, 64  # of a picture in the page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="new folder")
    parser.add_argument("--write", action="store_true", help="put what was printed, and the pictures, into the page")
    options = parser.parse_args(arguments)
    if options.folder.exists():
        parser.error(f"expected a new folder, found {options.folder}: name another one")
    options.folder.mkdir(parents=True)
    begun = time.monotonic()
    text, mistakes = run(PAGE.read_text(encoding="utf-8"), options.folder)
    pictures = {target: options.folder / source for source, target in PICTURE.findall(text)}
    mistakes += [f"no picture {path}" for path in pictures.values() if not path.is_file()]
    if options.write and not mistakes:
        PAGE.write_text(text, encoding="utf-8")
        for target, path in pictures.items():
            shrink(path, PAGE.with_name(target))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"the tutorial took {time.monotonic() - begun:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processors")
    for mistake in mistakes:
        print(f"error: {mistake}", file=sys.stderr)
    return int(bool(mistakes))


def run(page: str, folder: Path) -> tuple[str, list[str]]:
    """The page with the lines that were really printed, and what went wrong; nothing is run after a failure."""
    printed, mistakes, parts, end = "", list[str](), list[str](), 0
    for block in BLOCK.finditer(page):
        kind, code = block.groups()
        parts.append(page[end : block.start(2)])
        end = block.end(2)
        if kind == "text":
            code, missing = found(code, printed)
            mistakes += [f"expected a line like {line!r} below the block, found none" for line in missing]
        else:
            code_of_exit, printed = execute(kind, code, folder)
            if code_of_exit:
                return page, [*mistakes, f"exit code {code_of_exit} of the block\n{code}"]
        parts.append(code)
    return "".join([*parts, page[end:]]), mistakes


def execute(kind: str, code: str, folder: Path) -> tuple[int, str]:
    """Exit code and printed text of a block, which is told while it runs."""
    print(f"\n--- {kind}\n{code}---", flush=True)
    line = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [sys.executable, "-c", code]
    first = str(Path(sys.executable).parent)  # `python` and `lessismore` of this very environment
    environment = {**os.environ, "PATH": os.pathsep.join([first, os.environ.get("PATH", "")]), "MPLBACKEND": "Agg"}
    environment.setdefault("OMP_NUM_THREADS", "1")  # as the page advises
    printed = []
    with subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for told in process.stdout:
            print(told, end="", flush=True)
            printed.append(told)
    return process.returncode, "".join(printed)


def found(shown: str, printed: str) -> tuple[str, list[str]]:
    """The shown lines as they were printed this time, and those of which there is none."""

    def shape(line: str) -> str:
        return " ".join(re.sub(r"\d+", "0", line).split())

    lines = {shape(line): line.rstrip() for line in reversed(printed.splitlines())}  # the first one of each shape
    missing = [line for line in shown.splitlines() if line not in ("", "...") and shape(line) not in lines]
    return "".join(f"{lines.get(shape(line), line)}\n" for line in shown.splitlines()), missing


def shrink(source: Path, target: Path) -> None:
    """Write a picture in few pixels and colours."""
    from PIL import Image

    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture.quantize(COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
