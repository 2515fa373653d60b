"""Run an experiment of the paper, or one like it: reduce, pre-train, fine-tune, and the table beside the paper's.

    python scripts/reproduce_paper.py scripts/experiments/table5.json --output_dir EXP --data LIDC=DIR --data Brain=DIR

What is done in EXP is not done again; what was interrupted goes on. Experiments that share an EXP share what is equal.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from reproduction.experiment import Experiment, tiny
from reproduction.experiment_file import read_experiment
from reproduction.kept import Kept
from reproduction.labels import write_labels
from reproduction.processes import interruptible
from reproduction.steps import Book, Step, all_steps, label_table
from reproduction.work import Failures, work

from lessismore_transforms.atomic import TEMPORARY, writing
from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.cli.exit_code import exit_code
from lessismore_transforms.cli.parser import Parser
from lessismore_transforms.errors import UserError
from lessismore_transforms.wording import counted, plural


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an experiment; returns the exit code: 0, 1 where steps failed, 2 for a mistake that a sentence explains."""
    options = _parser().parse_args(arguments)
    interruptible()
    return exit_code(lambda: _run(options))


def _parser() -> Parser:
    parser = Parser(
        description="Run what is missing of an experiment of the paper: reduce, pre-train, fine-tune; then write "
        "EXP/tables/EXPERIMENT.csv, .md and .txt with the paper's values beside, and EXPERIMENT.png, AUC against the "
        "duration of pre-training.",
        epilog="Data sets are the experiment's pretrain_datasets (folders of CT volumes) and its tasks, "
        f"{', '.join(TASKS)} (as their bundles want them). Experiments: scripts/experiments/*.json.",
    )
    parser.add_argument("experiment", metavar="EXPERIMENT.json", type=Path, help="what to compare")
    parser.add_argument("--output_dir", metavar="EXP", type=Path, required=True, help="folder for all results")
    parser.add_argument(
        "--data", metavar="NAME=DIR", action="append", default=[], type=_named, help="where a data set is (repeatable)"
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="on synthetic data and with small networks, two reductions and few epochs: the whole way in minutes",
    )
    parser.add_argument(
        "--keep",
        metavar="FILE.jsonl",
        type=Path,
        help="where the results of probes are kept, in a small form without weights (default: "
        "EXP/tables/EXPERIMENT.jsonl); what stands there is not run again, in another EXP either",
    )
    parser.add_argument(
        "--at_once",
        metavar="N",
        type=_count,
        default=1,
        help="run so many steps side by side: small trainings leave most of a GPU idle; on a CPU at most the number of "
        "cores, with OMP_NUM_THREADS=1 (default: 1)",
    )
    parser.add_argument("--dry_run", action="store_true", help="only show the commands that would run")
    parser.add_argument(
        "--only",
        metavar="STEP",
        nargs="+",
        default=[],
        help="only steps whose names begin so: reduce, pretrain, evaluate, pretrain/LIDC_SwAV, evaluate/Brain, ...; or "
        "table, to write the table from what is finished",
    )
    return parser


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"expected NAME=DIR, found {text!r}")
    return name, Path(folder).resolve()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    experiment = read_experiment(options.experiment)
    folder = options.output_dir.resolve()
    if options.tiny:
        experiment = tiny(experiment)
    data = _folders(options, experiment.data_names, folder)
    steps = all_steps(experiment, folder, data)
    book = Book(folder, steps, data)
    chosen = _chosen(steps, options.only)
    _refuse_changed(book, chosen, steps)
    kept = Kept((options.keep or folder / "tables" / f"{experiment.name}.jsonl").resolve())
    spared = _spared(steps, book, kept)
    to_do = [step for step in chosen if step.name not in spared and not book.done(step)]
    if options.dry_run:
        _show(to_do, len(chosen))
        return 0
    if options.tiny:
        _write_tiny_data(data, {name for step in to_do for name in step.data})
    _refuse_absent(to_do, data)
    _write_labels(experiment, folder, data, to_do)
    failed = _keep_all(chosen, book, kept)  # of a run that was stopped before it kept them
    failed |= work(
        to_do,
        chosen,
        book,
        keep=lambda step: _keep_all([step], book, kept),
        refused=failed,
        at_once=options.at_once,
    )
    _say_failures(failed)
    if not options.only or any(name == "table" or name.startswith(("evaluate", "probe")) for name in options.only):
        _conclude(experiment, folder, failed, kept)
    return 1 if failed else 0


def _spared(steps: Sequence[Step], book: Book, kept: Kept) -> set[str]:
    """The names of the steps that need not run, as the results of all that is made from them are kept.

    Raises:
        UserError: what is kept was found with other settings.
    """
    there = kept.identities()
    for step in steps:
        if there.get(step.name, book.identity(step)) != book.identity(step):
            raise UserError(
                f"expected results of these settings in {kept.path}, found those of others for {step.name}: name "
                "another file with --keep"
            )
    spared = {step.name for step in steps if step.name in there and step.name.startswith("probe/")}
    for step in reversed(steps):
        users = [other.name for other in steps if step.name in other.needs]
        if users and all(name in spared for name in users) and (step.name in there or not _is_kept(step, steps)):
            spared.add(step.name)
    return spared


def _is_kept(step: Step, steps: Sequence[Step]) -> bool:
    """Whether what a step finds is kept: probes, and the trainings that they are of."""
    probed = any(each.name.startswith("probe/") and step.name in each.needs for each in steps)
    return step.name.startswith("probe/") or (step.name.startswith("pretrain/") and probed)


def _keep_all(steps: Sequence[Step], book: Book, kept: Kept) -> Failures:
    """Keep what steps found, once; returns of those whose results cannot be kept why, and the log.

    What is made from such a step is not kept either.
    """
    there, failed = kept.identities(), Failures()
    for step in steps:
        if step.name in there or any(name in failed for name in step.needs):
            continue
        if not _is_kept(step, book.steps) or not book.done(step):
            continue
        add = kept.add_probe if step.name.startswith("probe/") else kept.add_pretraining
        try:
            add(step.name, book.identity(step), book.seconds(step), step.output)
        except UserError as error:
            failed[step.name] = f"{error}", book.log(step)
    return failed


def _write_labels(experiment: Experiment, folder: Path, data: Mapping[str, Path], to_do: Sequence[Step]) -> None:
    """The tables of labels that probes want and that the experiment tells by paths."""
    wanted = {step.name.split("/")[1] for step in to_do if step.name.startswith("probe/")}
    for name in wanted:
        if labels := experiment.probes[name].get("labels"):
            write_labels(label_table(folder, name), data[name], labels)


def _conclude(experiment: Experiment, folder: Path, failed: Mapping[str, tuple[str, Path]], kept: Kept) -> None:
    from reproduction.results import drop_losers, outcomes, write_results  # takes seconds to import

    if experiment.probes and kept.lines:
        from reproduction.evidence import write_evidence

        print(f"\n{write_evidence(experiment, kept)}", flush=True)
    if not experiment.tasks:
        return
    if failed and not outcomes(experiment, folder):
        return  # there is no table, and it was said why
    print(f"\n{write_results(experiment, folder)}", flush=True)
    if dropped := drop_losers(experiment, folder):
        print(f"deleted {counted(dropped, 'fine-tuned network')} of checkpoints that the table does not show")


def _folders(options: argparse.Namespace, names: Sequence[str], folder: Path) -> dict[str, Path]:
    """The folder of each data set that is known."""
    given = dict(options.data)
    if unknown := [name for name in given if name not in names]:
        raise UserError(f"the experiment has no data set {unknown[0]!r}: it has {', '.join(names)}")
    if options.tiny and given:
        raise UserError("--tiny makes its own data: drop --data")
    if len(given) < len(options.data):
        raise UserError("expected --data once for each name, found one twice: drop one")
    if len({*given.values()}) < len(given):
        raise UserError("expected another folder for each name of --data, found one for two: name one folder once")
    return {name: folder / "data" / name for name in names} if options.tiny else given


def _chosen(steps: Sequence[Step], only: Sequence[str]) -> list[Step]:
    beginnings = tuple(name for name in only if name != "table")
    for beginning in beginnings:
        if not any(step.name.startswith(beginning) for step in steps):
            raise UserError(
                f"expected --only with the beginning of a step's name, such as {steps[0].name}, found {beginning!r}: "
                "--dry_run shows the names"
            )
    return [step for step in steps if step.name.startswith(beginnings)] if only else list(steps)


def _refuse_changed(book: Book, chosen: Sequence[Step], steps: Sequence[Step]) -> None:
    """Results of other settings are never taken for those that are asked for."""
    needed, by_name = dict.fromkeys(chosen), {step.name: step for step in steps}
    for step in chosen:
        needed |= dict.fromkeys(by_name[name] for name in step.needs)
    changed = [(step, what) for step in needed if (what := book.difference(step)) is not None]
    if not changed:
        return
    first, what = changed[0]
    more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    outputs = " ".join(shlex.quote(str(step.output)) for step, _ in changed[:20]) + (" ..." if changed[20:] else "")
    raise UserError(
        f"expected results of these settings, found others in {first.output} ({what}){more}: name another "
        f"--output_dir, or delete {outputs}"
    )


def _refuse_absent(to_do: Sequence[Step], data: Mapping[str, Path]) -> None:
    names = list(dict.fromkeys(name for step in to_do for name in step.data))
    absent = [f"--data {name}=DIR" for name in names if name not in data]
    wrong = [f"{name} ({data[name]} is not there)" for name in names if name in data and not data[name].exists()]
    if absent or wrong:
        raise UserError(
            "; ".join(
                ([f"expected the folders of all data sets, found none for {', '.join(absent)}"] if absent else [])
                + ([f"fix --data {', '.join(wrong)}"] if wrong else [])
            )
        )


def _show(to_do: Sequence[Step], total: int) -> None:
    for step in to_do:
        print(f"# {step.name}\npython -m {shlex.join(step.full_command())}")
    print(f"# {len(to_do)} of {counted(total, 'step')} {plural(total, 'is', 'are')} to be done; nothing was run")


def _write_tiny_data(data: Mapping[str, Path], wanted: set[str]) -> None:
    """Phantoms in the layouts of the data sets that are wanted and not there yet."""
    from lessismore_transforms.phantom import write_demo_data, write_demo_task

    for number, (name, folder) in enumerate(data.items()):
        if name not in wanted or folder.exists():
            continue
        if name in TASKS:
            write_demo_task(folder, TASKS[name].phantom)
            continue
        partial = folder.with_name(f"{TEMPORARY}{name}")
        shutil.rmtree(partial, ignore_errors=True)
        write_demo_data(partial, patients=2, size=64, seed=100 * number)
        with writing(folder):
            partial.rename(folder)


def _say_failures(failed: Mapping[str, tuple[str, Path]]) -> None:
    """One line for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, (reason, _) in failed.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"failed: {names[0]}{more}: {reason}; log: {failed[names[0]][1]}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
