"""What has to be run for an experiment: commands with the files that prove them done, in an order that works.

In the folder of results, EXP:

- reduce/SET_MEASURE/: one `reduce` for each measure; encoders are trained on selections of it.
- pretrain/SET_METHOD_REDUCTION_seedK/: a pre-training.
- evaluate/TASK/SET_METHOD_REDUCTION_seedK_epochE/ and evaluate/TASK/scratch/: fine-tunings, a folder for each run.
- probe/PICTURES/SET_METHOD_REDUCTION_seedK/: a probe of an encoder; probe/PICTURES/baselines/: of networks of others.
- steps/: of each step the settings, which have to be the same where its output is used again, and what it printed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessismore_transforms.atomic import write_json, writing
from lessismore_transforms.classification.finished_runs import METRICS_FILE
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.classification.tasks import TASKS
from lessismore_transforms.cli.reduce import Reduce
from lessismore_transforms.options import names
from lessismore_transforms.pretraining.settings import PretrainingSettings
from lessismore_transforms.weights.layouts import BACKBONE
from reproduction.arms import METHODS, REMEDIES, Pretraining, Reduction
from reproduction.experiment import Experiment, settings_of
from reproduction.places import BUNDLES, RANDOM

LAST = Path("checkpoints", "last.pt")  # what a training can go on from; importing it from there would import torch
SCRATCH, BASELINES = "scratch", "baselines"
PROBE_PAGE = "probe.html"  # written last
# What says where and how fast a step runs, not what comes out of it.
_FREE = {
    *names(Reduce, "speed"), *names(PretrainingSettings, "speed"), *names(ClassificationSettings, "speed"),
    "patient_key", "features_dir",
}  # fmt: skip
_UNKNOWN = "<{}>"  # stands in a command for the folder of a data set that --data does not name


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        name: its kind and what it makes, with /.
        command: what follows `python -m`.
        output: what it makes: to be deleted to make it anew.
        products: files that others read, the one that is written last at the end.
        proof: whether these alone prove that the step is done; else the record has to say so.
        resumable: whether it takes --resume True where there is a checkpoint in `output`.
        needs: names of the steps whose output it reads.
        data: names of the data sets that it reads.
        content: what the command does not tell of what it reads, and what it makes depends on.
    """

    name: str
    command: tuple[str, ...]
    output: Path
    products: tuple[Path, ...]
    proof: bool = True
    resumable: bool = False
    needs: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    content: str = ""

    @property
    def kind(self) -> str:
        """What takes about as long as this: the method of a pre-training, the pictures of a probe or a task."""
        kind, name, *_ = self.name.split("/")
        return f"{kind}/{name.split('_')[1]}" if kind == "pretrain" else f"{kind}/{name}"

    @property
    def place(self) -> str:
        """Where it writes, which no other step may do at the same time: selections share the store of a `reduce`."""
        parts = self.name.split("/")
        return "/".join(parts[:2]) if parts[0] == "reduce" else self.name

    def full_command(self) -> tuple[str, ...]:
        """What follows `python -m` now: goes on from a checkpoint if there is one."""
        resume = self.resumable and (self.output / LAST).is_file()
        return (*self.command, "--resume", "True") if resume else self.command


class Book:
    """The records of what was run, in EXP/steps.

    Args:
        folder: EXP.
        steps: of the experiment, each after those that it needs.
        data: folder of each data set.
    """

    def __init__(self, folder: Path, steps: Iterable[Step], data: Mapping[str, Path]) -> None:
        self.folder, self.steps = folder, list(steps)
        # A data set or EXP that has moved is the same one.
        places = {path: Path(_UNKNOWN.format(name)) for name, path in data.items()} | {folder: Path("EXP")}
        self._settings: dict[str, list[str]] = {}
        self._identities: dict[str, str] = {}
        for step in self.steps:
            self._settings[step.name] = settings = _portable(step.command, places)
            known = json.dumps([settings, [self._identities[need] for need in step.needs], step.content])
            self._identities[step.name] = hashlib.sha256(known.encode()).hexdigest()[:16]

    def log(self, step: Step) -> Path:
        """Where a step's output goes."""
        return self.folder / "steps" / f"{step.name}.log"

    def write(self, step: Step, *, finished: bool, seconds: float = 0.0) -> None:
        """Record that a step begins, or that it is finished."""
        path = self._path(step)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        content = {"identity": self._identities[step.name], "settings": self._settings[step.name]}
        write_json(path, {**content, "finished": finished, "seconds": round(seconds, 1)})

    def identity(self, step: Step) -> str:
        """16 hex digits of a step's settings and of those that it is made from."""
        return self._identities[step.name]

    def seconds(self, step: Step) -> float:
        """How long a finished step took."""
        found: float = self._read(step).get("seconds", 0.0)
        return found

    def expected_seconds(self, to_do: Sequence[Step]) -> float | None:
        """How long steps will take, by the mean of finished ones of their kind; None where one of a kind is new."""
        found: dict[str, list[float]] = {}
        for step in self.steps:
            if step not in to_do and self._read(step).get("finished") is True:
                found.setdefault(step.kind, []).append(self.seconds(step))
        if any(step.kind not in found for step in to_do):
            return None
        return sum(statistics.fmean(found[step.kind]) for step in to_do)

    def done(self, step: Step) -> bool:
        """Whether a step is done, with these settings."""
        proved = step.proof or self._read(step).get("finished") is True
        return proved and all(path.is_file() for path in step.products)

    def difference(self, step: Step) -> str | None:
        """In what the output of a step, if there is any, differs from what is asked for; None where it does not."""
        if not step.output.exists():
            return None
        record = self._read(step)
        if not record:
            return "nothing tells its settings"
        if record["identity"] == self._identities[step.name]:
            absent = [path for path in step.products if not path.is_file()]
            if not absent or not step.products[-1].is_file():  # done, or still to be done
                return None
            return f"it has no {absent[0].relative_to(step.output)}"
        then, now = _options(record["settings"]), _options(self._settings[step.name])
        for name in (*now, *then):
            if then.get(name) != now.get(name):
                return f"{name} was {then.get(name, 'not given')}, now {now.get(name, 'not given')}"
        return "what it is made from has changed"

    def _path(self, step: Step) -> Path:
        return self.folder / "steps" / f"{step.name}.json"

    def _read(self, step: Step) -> dict[str, Any]:
        try:
            content = json.loads(self._path(step).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) and {"identity", "settings"} <= content.keys() else {}


def all_steps(experiment: Experiment, folder: Path, data: Mapping[str, Path]) -> list[Step]:
    """All steps of an experiment, each after those that it needs.

    Pre-trainings of one seed, each with its probes, come before the next seed's, and so do fine-tunings, so that what
    is there when time is up is a smaller experiment.

    Args:
        experiment: what is asked for.
        folder: EXP, absolute.
        data: absolute folder of each data set, as far as known.
    """
    steps = [*_reduce_steps(experiment, folder, data), *_baseline_steps(experiment, folder, data)]
    probes = list(_probe_steps(experiment, folder, data))
    trained = list(_pretrain_steps(experiment, folder, data))
    for seed in experiment.pretrain_seeds:
        for step in (each for each in trained if each.name.endswith(f"_seed{seed}")):
            steps += [step, *(probe for probe in probes if step.name in probe.needs)]
    return [*steps, *_evaluate_steps(experiment, folder, data)]


def evaluation_folder(folder: Path, task: str, pretraining: Pretraining | None, epoch: int | None = None) -> Path:
    """Where the runs of a fine-tuning lie; from scratch without a pre-training."""
    if pretraining is None:
        return folder / "evaluate" / task / SCRATCH
    when = "end" if epoch is None else f"epoch{epoch:04d}"
    return folder / "evaluate" / task / f"{pretraining.name}_{when}"


def probe_folder(folder: Path, name: str, networks: str) -> Path:
    """Where a probe lies: of labelled pictures, and of a pre-training or the networks of others."""
    return folder / "probe" / name / networks


def label_table(folder: Path, name: str) -> Path:
    """Where the labels that an experiment tells by paths are written as a table."""
    return folder / "labels" / f"{name}.csv"


def pretraining_folder(folder: Path, pretraining: Pretraining) -> Path:
    """Where a pre-training lies."""
    return folder / "pretrain" / pretraining.name


def run_names(experiment: Experiment, task: str) -> list[str]:
    """The folders of the runs of a fine-tuning."""
    return [f"run_{number:02d}" for number in range(experiment.folds if TASKS[task].folds else experiment.runs)]


def _reduce_steps(experiment: Experiment, folder: Path, data: Mapping[str, Path]) -> Iterator[Step]:
    reductions = [Reduction.of(label) for label in experiment.all_reductions]
    for dataset in experiment.pretrain_datasets:
        for measure in dict.fromkeys(reduction.measure for reduction in reductions):
            chosen = [reduction for reduction in reductions if reduction.measure == measure]
            yield from _reduce(experiment, folder, dataset, chosen, _place(data, dataset))


def _reduce(
    experiment: Experiment, folder: Path, dataset: str, chosen: Sequence[Reduction], place: str
) -> Iterator[Step]:
    """The `reduce` for one measure, and the selections of it."""
    measure = chosen[0].measure
    output = _reduced(folder, dataset, chosen[0])
    target = ["--method", measure]
    if measure != "hash":  # these rank only until the smallest fraction is left; HASH ranks all
        target += ["--fraction", min((reduction.value for reduction in chosen), key=float)]
    if measure == "deepnet":
        target += ["--weights", experiment.deepnet_weights]
    if "reduce" in experiment.as_released:
        target.append("--as_released")
    name = f"reduce/{output.name}"
    yield Step(
        name,
        ("lessismore_transforms", "reduce", place, "--output_dir", str(output), *target, *_flags(experiment, dataset)),
        output,
        (output / "manifest.json",),
        data=(dataset,),
    )
    if any(reduction.remedy == "rotate" for reduction in chosen):  # it draws what was removed, too
        chosen = [*chosen, Reduction.of("ALL")]
    if like := [Reduction.of(each.label.partition("@")[2]) for each in chosen if each.option == "like"]:
        chosen = [*like, *chosen]
    selections = {each.selection_of(seed): (each, seed) for each in chosen for seed in experiment.pretrain_seeds}
    for selection, (reduction, seed) in selections.items():
        product = output / "selections" / f"{selection}.json"
        amount = [f"--{reduction.option}", reduction.value] if reduction.option else []
        amount += ["--near", str(reduction.near)] if reduction.near else []
        amount += ["--seed", str(seed)] if reduction.method == "random" else []
        yield Step(
            f"{name}/{selection}",
            (
                *("lessismore_transforms", "select", str(output), "--name", selection),
                *("--method", reduction.method, *amount, "--fill_store", "--dataset_dir", place),
            ),
            product,
            (product,),
            proof=False,  # the store is filled after it
            needs=(name, *([f"{name}/{reduction.value}"] if reduction.option == "like" else [])),
            data=(dataset,),
        )


def _pretrain_steps(experiment: Experiment, folder: Path, data: Mapping[str, Path]) -> Iterator[Step]:
    del data  # reads what was reduced
    for pretraining in experiment.pretrainings:
        output = pretraining_folder(folder, pretraining)
        reduced = _reduced(folder, pretraining.dataset, pretraining.reduction)
        length: dict[str, Any] = {"max_epochs": experiment.max_epochs, "export_epochs": 0}
        if experiment.max_steps is not None:
            length = {"max_steps": experiment.max_steps, "export_epochs": 0}
            if experiment.checkpoint_steps:  # a setting in epochs is then one in steps, for all arms
                length["max_epochs"] = experiment.max_steps
            if (pretraining.method, pretraining.reduction.label) in experiment.followed:
                length["export_epochs"] = math.gcd(*experiment.checkpoint_steps, experiment.max_steps)
        elif experiment.checkpoint_epochs:
            length["export_epochs"] = math.gcd(*experiment.checkpoint_epochs)
        settings = {
            "dataset_dir": reduced,
            "selection": pretraining.selection,
            "output_dir": output,
            "seed": pretraining.seed,
            **length,
            **REMEDIES.get(pretraining.reduction.remedy, {}),
            **settings_of(experiment.pretrain_settings, pretraining.method),
        }
        overlay = METHODS[pretraining.method].overlay
        selections = [pretraining.selection, *(["ALL"] if pretraining.reduction.remedy == "rotate" else [])]
        yield Step(
            f"pretrain/{output.name}",
            _bundle(METHODS[pretraining.method].bundle, "pretrain" in experiment.as_released, settings, overlay),
            output,
            tuple(_weights(experiment, folder, pretraining, epoch) for epoch in experiment.epochs),
            resumable=True,
            needs=tuple(f"reduce/{reduced.name}/{name}" for name in selections),
        )


def _evaluate_steps(experiment: Experiment, folder: Path, data: Mapping[str, Path]) -> Iterator[Step]:
    for task in experiment.tasks:
        if experiment.scratch:
            yield from _runs(experiment, folder, task, _place(data, task), None, None)
        for pretraining in sorted(experiment.pretrainings, key=lambda each: experiment.pretrain_seeds.index(each.seed)):
            for epoch in experiment.epochs:
                yield from _runs(experiment, folder, task, _place(data, task), pretraining, epoch)


def _runs(
    experiment: Experiment, folder: Path, task: str, place: str, pretraining: Pretraining | None, epoch: int | None
) -> Iterator[Step]:
    """The runs of one fine-tuning."""
    output = evaluation_folder(folder, task, pretraining, epoch)
    for number, name in enumerate(run_names(experiment, task)):
        run = {"fold": number, "folds": experiment.folds} if TASKS[task].folds else {"run_index": number}
        settings = {
            "dataset_dir": place,
            "output_dir": output,
            **run,
            **_encoder(experiment, folder, pretraining, epoch),
            **settings_of(experiment.evaluate_settings, task),
        }
        as_released = "evaluate" in experiment.as_released
        if pretraining is None and not as_released:  # the released code freezes every encoder
            settings.pop("frozen_epochs", None)  # random features are not worth keeping
        yield Step(
            f"evaluate/{task}/{output.name}/{name}",
            _bundle(TASKS[task].bundle, as_released, settings),
            output / name,
            (output / name / METRICS_FILE,),
            resumable=True,
            needs=() if pretraining is None else (f"pretrain/{pretraining.name}",),
            data=(task,),
        )


def _probe_steps(experiment: Experiment, folder: Path, data: Mapping[str, Path]) -> Iterator[Step]:
    """A probe of each encoder once it is trained; beside the first of a seed, of the weights that it began with."""
    started = set[int]()
    for each in experiment.pretrainings:
        trained = pretraining_folder(folder, each)
        models = {each.arm: str(trained)}
        if (each.method, each.reduction.label) in experiment.followed:
            for step in experiment.checkpoint_steps:
                models[f"{each.arm}.{step}"] = str(trained / "backbones" / f"step_{step:06d}.safetensors")
        if each.seed not in started:
            models[RANDOM] = f"random:{each.seed}"
            started.add(each.seed)
        reduced = _reduced(folder, each.dataset, each.reduction)
        for name in experiment.probes:
            needs = (f"pretrain/{each.name}",)
            yield _probe(experiment, folder, data, name, each.name, models, reduced=str(reduced), needs=needs)


def _baseline_steps(experiment: Experiment, folder: Path, data: Mapping[str, Path]) -> Iterator[Step]:
    for name in experiment.probes if experiment.baselines else ():
        models = {
            network: re.sub(r"\{(\w+)\}", lambda found: _place(data, found[1]), what)
            for network, what in experiment.baselines.items()
        }
        yield _probe(experiment, folder, data, name, BASELINES, models)


def _probe(
    experiment: Experiment,
    folder: Path,
    data: Mapping[str, Path],
    name: str,
    networks: str,
    models: Mapping[str, str],
    *,
    reduced: str | None = None,
    needs: tuple[str, ...] = (),
) -> Step:
    output = probe_folder(folder, name, networks)
    options = dict(experiment.probes[name])
    labels = options.pop("labels", None)
    flags = ["--labels", str(label_table(folder, name))] if labels else []
    if "bundle" in options:
        flags += ["--bundle", str(BUNDLES / options.pop("bundle"))]
    for option, value in options.items():
        flags += [f"--{option}", *map(str, value if isinstance(value, tuple) else [value])]
    flags += ["--pretraining", reduced] if reduced else []
    return Step(
        f"probe/{name}/{networks}",
        (
            *("lessismore_transforms", "probe", _place(data, name), "--output_dir", str(output), "--task", name),
            *("--models", *(f"{model}={place}" for model, place in models.items()), *flags),
            *("--features_dir", str(folder / "probe" / name / "features")),
        ),
        output,
        (output / PROBE_PAGE,),
        needs=needs,
        data=(
            name,
            *(() if needs else [each for each in experiment.data_names if f"{{{each}}}" in str(experiment.baselines)]),
        ),
        content=json.dumps(labels) if labels else "",
    )


def _encoder(
    experiment: Experiment, folder: Path, pretraining: Pretraining | None, epoch: int | None
) -> dict[str, object]:
    """What is fine-tuned, and its labels for the table."""
    if pretraining is None:
        return {"mode": "scratch"}
    return {
        "pretrained": _weights(experiment, folder, pretraining, epoch),
        "method": METHODS[pretraining.method].name,
        "pretrain_dataset": pretraining.dataset,
        "ssl_method": pretraining.method,
        "reduction": pretraining.reduction.label,
        "pretraining": _reduced(folder, pretraining.dataset, pretraining.reduction),
        "pretraining_selection": "ALL" if pretraining.reduction.remedy == "rotate" else pretraining.selection,
    }


def _weights(experiment: Experiment, folder: Path, pretraining: Pretraining, epoch: int | None) -> Path:
    trained = pretraining_folder(folder, pretraining)
    if epoch is None or epoch == experiment.max_epochs:
        return trained / BACKBONE
    return trained / "backbones" / f"epoch_{epoch:04d}.safetensors"


def _reduced(folder: Path, dataset: str, reduction: Reduction) -> Path:
    return folder / "reduce" / f"{dataset}_{reduction.measure}"


def _place(data: Mapping[str, Path], name: str) -> str:
    return str(data.get(name, _UNKNOWN.format(name)))


def _flags(experiment: Experiment, dataset: str) -> list[str]:
    """Further options of `reduce`."""
    flags: list[str] = []
    for name, value in settings_of(experiment.reduce_settings, dataset).items():
        if isinstance(value, bool):
            flags += [f"--{name}"] if value else []
        else:
            flags += [f"--{name}={item}" for item in (value if isinstance(value, list) else [value])]
    return flags


def _bundle(name: str, as_released: bool, settings: Mapping[str, object], overlay: str = "") -> tuple[str, ...]:
    """The command that runs a bundle with these settings, and with an overlay that makes it another method."""
    configs = BUNDLES / name / "configs"
    released = ["as_released.json", *([overlay.replace(".json", "_as_released.json")] if overlay else [])]
    names = ["train.json", *([overlay] if overlay else []), *(released if as_released else [])]
    files = [str(configs / each) for each in names]
    options = [part for option, value in settings.items() for part in (f"--{option}", _as_typed(value))]
    return ("monai.bundle", "run", "--config_file", files[0] if len(files) == 1 else repr(files), *options)


def _as_typed(value: object) -> str:
    """A value as the bundle's command line has to be given it: a text that looks like something else needs quotes."""
    if not isinstance(value, (str, Path)):
        return repr(value)
    try:
        ast.literal_eval(str(value))
    except (SyntaxError, ValueError):
        return str(value)
    return repr(str(value))


def _portable(command: Sequence[str], places: Mapping[Path, Path]) -> list[str]:
    """A command without what does not change its results: places, and options that are free."""
    parts, kept = [part.replace(str(BUNDLES), "bundles") for part in command], list[str]()
    while parts:
        part = parts.pop(0)
        if part.startswith("--") and part[2:].partition("=")[0] in _FREE:
            if "=" not in part and parts and not parts[0].startswith("--"):
                parts.pop(0)
            continue
        # A path alone, or of a network: NAME=PATH, NAME=NETWORK:PATH.
        before, path = (
            found.groups() if (found := re.fullmatch(r"((?:[^/=]+=)?(?:[^/:]+:)?)(/.*)", part)) else ("", part)
        )
        for place in sorted(places, key=lambda place: -len(place.parts)):
            if Path(path).is_relative_to(place):
                path = (places[place] / Path(path).relative_to(place)).as_posix()
                break
        kept.append(f"{before}{path}")
    return kept


def _options(settings: Sequence[str]) -> dict[str, str]:
    """Options with their values; a flag has an empty one."""
    found: dict[str, str] = {}
    for part, after in zip(settings, [*settings[1:], "--"], strict=True):
        if part.startswith("--"):
            name, equals, value = part[2:].partition("=")
            found[name] = value if equals or after.startswith("--") else after
    return found
