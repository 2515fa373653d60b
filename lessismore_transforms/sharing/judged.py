"""What evaluations and probes say of an encoder, for its card: tables with intervals, and leaks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from lessismore_transforms.classification.comparison import make_table, named
from lessismore_transforms.classification.finished_runs import FinishedRuns, evaluations_in, read_finished_runs
from lessismore_transforms.classification.metrics import METRICS
from lessismore_transforms.classification.statistics import mean_of_runs
from lessismore_transforms.classification.tables import as_markdown
from lessismore_transforms.errors import UserError, reading
from lessismore_transforms.sharing.facts import markdown_table
from lessismore_transforms.sharing.leaks import leak_rows

_PROBE = "probe.json"


def judged(folders: Sequence[Path], weights: str) -> tuple[str, dict[str, float]]:
    """The part of a card on evaluations, in Markdown, and the mean AUC of this encoder by task.

    Args:
        folders: evaluations, probes, or folders that hold them; some of them of this encoder, others to compare with.
        weights: id of the encoder's weights.

    Raises:
        UserError: a folder is no evaluation, or none of them is of this encoder.
    """
    if not folders:
        return "No evaluation was given: what this encoder is worth for a task is not known.", {}
    ids = {weights, *(each for folder in folders for each in _in_probe(folder, weights))}
    finished = [read_finished_runs(path) for folder in folders for path in evaluations_in(folder.resolve())]
    own = {name: each for name, each in _named(finished).items() if each.weights <= ids}
    if not own:
        raise UserError(
            f"expected an evaluation of this encoder (weights {weights}) in {', '.join(map(str, folders))}, found "
            "those of others: fine-tune or probe this one, or leave --evaluation out"
        )
    names = ", ".join(sorted({name for _, name in own}))
    about = f"Of this encoder: {names}. What else is in the tables is there to compare."
    table = as_markdown(make_table(folders, advice=False)).strip()
    leaks = dict.fromkeys(_leaks(name, each) for (_, name), each in own.items())
    return "\n\n".join([about, table, "#### **Leaks**", *leaks]), _scores(list(own.values()))


def _named(finished: Sequence[FinishedRuns]) -> dict[tuple[str, str], FinishedRuns]:
    """Evaluations by their task and the name that the tables give them."""
    tasks: dict[str, list[FinishedRuns]] = {}
    for each in finished:
        tasks.setdefault(each.task, []).append(each)
    return {(task, name): each for task, same in tasks.items() for name, each in named(same).items()}


def _scores(own: Sequence[FinishedRuns]) -> dict[str, float]:
    """The mean AUC of each evaluation, by its task, and by its mode and a number too where a task has several."""
    scores: dict[str, float] = {}
    tasks = Counter(each.task for each in own)
    for each in own:
        label = f"auc, {each.task}" if tasks[each.task] == 1 else f"auc, {each.task}, {each.mode}"
        numbered = (f"{label}, {number}" for number in count(2))
        name = next(name for name in chain([label], numbered) if name not in scores)
        scores[name] = mean_of_runs(list(each.runs.values()), METRICS["auc"])
    return scores


def _in_probe(folder: Path, weights: str) -> list[str]:
    """The ids by which a probe calls a network of these weights: they tell its preparation too."""
    path = folder / _PROBE
    if not path.is_file():
        return []
    try:
        with reading(path):
            models = json.loads(path.read_text(encoding="utf-8"))["models"]
        return [model["id"] for model in models if model["weights"] == weights]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"expected the record of a probe in {path}, found a damaged file: probe again") from error


def _leaks(name: str, each: FinishedRuns) -> str:
    found = None if each.leaks is None else {"checked": True, **each.leaks}
    rows = [("leaks", "not looked for in all runs")] if found is None else leak_rows(found)
    rows = [row for row in rows if row[1] != "not known"] or [("leaks", "none found")]
    return f"{name}, the most of all runs:\n\n" + markdown_table(("leak", "found"), rows)
