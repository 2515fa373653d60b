"""Time `reduce` and its measures beside what others take, check that both give the same, and print ratios and goals.

    python scripts/bench_reduction.py --quick            # small sizes, under two minutes on two idle cores
    python scripts/bench_reduction.py --json out.json    # 10,000 slices; 9 GB of disk, about 30 minutes
    python scripts/bench_reduction.py --quick --plan     # and what larger data and more machines would take

P1 to P3, P11, P12 (`bench_pipeline.py`) are whole processes, imports included: the released way, that is
`scripts/released_way.py`, one process as it is, and ours with its default number of workers. P4 to P9
(`bench_measures.py`) are functions of arrays. Both sides of a comparison run in turn (A B A B ...); a ratio is the
median of its rounds, a time the median of its runs. Beside the ratio of wall time stands that of CPU time (user and
system, child processes included), which other work on the machine hardly changes; each goal says which of the two it
is about. Volumes are the real ones of LESSISMORE_TEST_DATA/ct with slices of 512 x 512, linked several times where
many are needed, or phantoms where that folder is absent. Exit code 1 where results differ; times never fail.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bench_measures
import bench_pipeline
import bench_plan
from bench_tools import FULL, QUICK, ROOT, Bench, Row, conclude, describe, find_volumes, say

GOALS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "P1": bench_pipeline.nifti,
    "P2": bench_pipeline.dicom,
    "P3": bench_pipeline.pngs,
    "P4": bench_measures.hashes,
    "P5": bench_measures.ssim,
    "P6": bench_measures.mutual_information,
    "P7": bench_measures.exemplars,
    "P8": bench_measures.pair_rule,
    "P9": bench_measures.embedding,
    "P11": bench_pipeline.memory,
    "P12": bench_pipeline.start,
}
PROCESSES = {"P1", "P2", "P3", "P11"}  # goals that time whole processes


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="small sizes, and one round of whole processes: noisy")
    parser.add_argument("--only", nargs="+", choices=GOALS, default=list(GOALS), help="some of the goals")
    parser.add_argument("--plan", action="store_true", help="project the costs to larger data and more machines")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON too")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="where the temporary folder goes (default: the system's)"
    )
    options = parser.parse_args()
    if options.plan and (missing := {"P5", "P6"} - set(options.only)):
        parser.error(f"--plan needs the costs of {' and '.join(sorted(missing))}: add them to --only")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.work) as folder:
        os.environ["XDG_CONFIG_HOME"] = folder  # the user's patient key stays untouched
        os.environ["PYTHONPATH"] = str(ROOT)
        bench = Bench(QUICK if options.quick else FULL, Path(folder), find_volumes(Path(folder)))
        about = describe(bench.sizes)
        if PROCESSES & set(options.only):
            bench_pipeline.warm_up(bench)
        for goal in options.only:
            for row in GOALS[goal](bench):
                say(str(row))
                rows.append(row)
        plan = bench_plan.plan(bench) if options.plan else ""
    return conclude(rows, about, options.json, below=plan, costs_s=bench.costs)


if __name__ == "__main__":
    sys.exit(main())
