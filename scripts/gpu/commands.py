"""The steps that are other commands of the project: the tests marked gpu, and fine-tuning for the paper's Table 3."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence

from gpu.setup import ROOT, Figure, LeftOut, Setup

EXPERIMENT = ROOT / "scripts" / "experiments" / "table3_as_released.json"


def tests(setup: Setup) -> Iterator[Figure]:
    """All tests marked gpu. Without a GPU they skip; on one a test that skips is a failure."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    report = setup.work / "tests.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = _run([*line, *map(str, files)])
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None, done.stdout
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    names = [f"{case.get('classname')}::{case.get('name')}" for case in suite if case.find("failure") is not None]
    yield Figure(f"tests marked gpu in {len(files)} files", str(total), "> 0", equal=total > 0)
    yield Figure("of them failed", ", ".join([str(failed), *names]), "0", equal=not failed)
    yield Figure("of them skipped", str(skipped), "0", equal=not skipped if setup.on_gpu else None)


def finetune(setup: Setup) -> Iterator[Figure]:
    """The first row of Table 3: COVID-CT from scratch; what is finished of it is not run again."""
    if setup.covid is None and not setup.sizes.tiny:
        raise LeftOut("the data set COVID-CT was not given: --covid FOLDER names it")
    data = ["--tiny"] if setup.sizes.tiny else ["--data", f"COVID-19={setup.covid}"]
    only = "evaluate/COVID-19/scratch/run_00" if setup.sizes.tiny else "evaluate/COVID-19"
    script = str(ROOT / "scripts" / "reproduce_paper.py")
    output = setup.work / "table3"
    run_command([sys.executable, script, str(EXPERIMENT), "--output_dir", str(output), *data, "--only", only])
    for path in sorted((output / "evaluate").rglob("metrics.json")):
        yield Figure("finished", path.parent.name)
    with (output / "tables" / f"{EXPERIMENT.stem}.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == "COVID-19"]
    for row in rows:
        ours, paper = (_mean(row[f"{of}mean"], row[f"{of}std"]) for of in ("", "paper_"))
        yield Figure(f"{row['metric']}, {row['mean_of']} (the paper: {paper})", ours)


def _mean(mean: str, std: str) -> str:
    """A mean with its deviation, of which either may be lacking."""
    return " +- ".join(f"{float(number):.3f}" for number in (mean, std) if number) or "none"


def run_command(line: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed.

    Raises:
        RuntimeError: it did not; with the end of what it printed.
    """
    done = _run(line)
    if done.returncode:
        raise RuntimeError(f"{line[1]} ended with exit code {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    return done


def _run(line: Sequence[str]) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
