"""Arms beyond the paper's tables, probes of frozen encoders, what is kept of them, and what it shows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reproduce_paper
from replaced_processes import replace_processes
from reproduction import kept as kept_module
from reproduction.arms import Reduction
from reproduction.evidence import Evidence, write_evidence
from reproduction.experiment_file import read_experiment
from reproduction.kept import Kept
from reproduction.labels import write_labels
from reproduction.places import EXPERIMENTS
from reproduction.steps import Book, all_steps

from lessismore_transforms.classification.metrics import METRICS, auc
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.errors import UserError
from lessismore_transforms.training.curves import LOG

SMALL: dict[str, Any] = {
    "title": "small",
    "pretrain_datasets": ["CT"],
    "methods": ["SimCLR", "SparK"],
    "reductions": {"SimCLR": ["ALL", "HASH-6", "Random@HASH-6", "ALL+mask"], "SparK": ["ALL", "HASH-6"]},
    "pretrain_seeds": [0, 1, 2],
    "max_steps": 8,
    "checkpoint_steps": [4],
    "followed": [["SimCLR", "ALL"]],
    "probes": {"Heads": {"labels": {"no": "^a", "yes": "^b"}, "repeats": 1, "fractions": 1}},
    "questions": {
        "less": {"plus": [["SimCLR", "HASH-6"]], "minus": [["SimCLR", "ALL"]]},
        "both": {"plus": [["SimCLR", "HASH-6"], ["SparK", "ALL"]], "minus": [["SimCLR", "ALL"], ["SparK", "HASH-6"]]},
    },
    "table_samples": 40,
}

SPREAD = {"reductions": {**SMALL["reductions"], "SparK": ["ALL+spread"]}, "questions": {}}


def experiment_file(folder: Path, **changes: Any) -> Path:
    path = folder / "small.json"
    path.write_text(json.dumps({**SMALL, **changes}), encoding="utf-8")
    return path


# Arms


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("EveryN@HASH-6", ("every_n", "like", "HASH-6", "", 0, "EveryN-at-HASH-6")),
        ("Random@HASH-3", ("random", "like", "HASH-3", "", 0, "Random-at-HASH-3_seed4")),
        ("HASH-6+2near", ("hash", "threshold", "6", "", 2, "HASH-6-2near")),
        ("HASH-6+rotate", ("hash", "threshold", "6", "rotate", 0, "HASH-6")),
    ],
)
def test_labels_of_controls(label: str, expected: tuple[Any, ...]) -> None:
    found = Reduction.of(label)
    assert (found.method, found.option, found.value, found.remedy, found.near, found.selection_of(4)) == expected
    assert found.measure == "hash"


@pytest.mark.parametrize("label", ["HASH-10%+2near", "HASH-6+0near", "ALL+2near", "Random@EveryN-10%", "SSIM@HASH-6"])
def test_labels_that_are_none(label: str) -> None:
    with pytest.raises(UserError, match="expected a"):
        Reduction.of(label)


def test_the_evidence_experiment_is_what_was_registered() -> None:
    experiment = read_experiment(EXPERIMENTS / "evidence.json")
    assert len(experiment.pretrainings) == 7 * len(experiment.pretrain_seeds)
    assert len(experiment.pretrain_seeds) >= 6
    assert set(experiment.probes) == {"COVID-CT", "IQ-OTH", "Head-CT", "SIIM"}
    assert [question.name for question in experiment.all_questions] == [
        "HASH-6 - ALL", "HASH-6 - EveryN", "mask - ALL", "rotate - HASH-6", "(HASH-6 - ALL), SimCLR - SparK",
    ]  # fmt: skip
    for name, settings in experiment.pretrain_settings.items():
        assert name != "all" or (settings["balance"], settings["volumes_per_batch"]) == (True, 8)


def test_the_full_size_asks_the_same_questions_of_larger_trainings() -> None:
    small, full = (read_experiment(EXPERIMENTS / f"{name}.json") for name in ("evidence", "evidence_full"))
    assert [step.name for step in all_steps(small, Path("/exp"), {}) if step.name.startswith("pretrain/")] == [
        step.name for step in all_steps(full, Path("/exp"), {}) if step.name.startswith("pretrain/")
    ]
    assert full.all_questions == small.all_questions
    by_root = {"SimCLR": 4.8, "SparK": 3.2e-3}  # the published rate of each, at batches of 4096
    for experiment, batch in ((small, 32), (full, 128)):
        assert experiment.pretrain_settings["all"]["batch_size"] == batch
        for method, rate in by_root.items():
            used = experiment.pretrain_settings[method]["learning_rate_per_256"] * batch / 256
            assert used == pytest.approx(rate * (batch / 4096) ** 0.5, rel=0.03), method
    command = next(step.command for step in all_steps(full, Path("/exp"), {}) if "SparK" in step.name)
    given = dict(itertools.pairwise(map(str, command)))
    wanted = {
        "backbone": "resnet50",
        "image_size": 224,
        "volumes_per_batch": None,
        "decoder_width": 768,
        "max_steps": 10000,
    }
    assert {name: given[f"--{name}"] for name in wanted} == {name: str(value) for name, value in wanted.items()}


@pytest.mark.parametrize(
    ("name", "shared_arms"),
    [
        ("evidence_controls", {"SimCLR_ALL", "SimCLR_HASH-6", "SparK_ALL", "SparK_HASH-6"}),
        ("evidence_methods", {"SimCLR_ALL", "SimCLR_HASH-6", "SparK_ALL", "SparK_HASH-6"}),
        ("evidence_finetuning", {"SimCLR_ALL", "SimCLR_HASH-6"}),
    ],
)
def test_what_others_share_with_the_experiment_is_run_once(name: str, shared_arms: set[str]) -> None:
    known: list[dict[str, str]] = []
    for each in ("evidence", name):
        steps = all_steps(read_experiment(EXPERIMENTS / f"{each}.json"), Path("/exp"), {})
        book = Book(Path("/exp"), steps, {})
        known.append({step.name: book.identity(step) for step in steps})
    shared = [name for name in known[0] if name in known[1]]
    assert all(known[0][name] == known[1][name] for name in shared)
    arms = {name.rpartition("_seed")[0] for name in shared if name.startswith("pretrain/")}
    assert arms == {f"pretrain/CT_{arm}" for arm in shared_arms}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reductions": {"SimCLR": ["ALL"]}}, "found SparK in one of the two only"),
        ({"reductions": {**SMALL["reductions"], "SparK": ["ALL+mask"]}}, "methods with negatives for ALL.mask"),
        ({"probes": {"Heads": {"label": "a"}}}, "the closest one is 'labels'"),
        (
            {"probes": {"Heads": {"labels": {"no": "(", "yes": "b"}}}},
            "expected a regular expression for the paths of 'no'",
        ),
        ({"questions": {"less": {"plus": [["SimCLR", "HASH-6"]]}}}, "expected the question 'less' to be"),
        (
            {"questions": {"less": {"plus": [["BYOL", "ALL"]], "minus": [["SparK", "ALL"]]}}},
            "arms of the experiment in the question 'les",
        ),
        ({"followed": [["SparK", "HASH-3"]]}, "in followed"),
        ({"checkpoint_steps": []}, "expected max_steps and checkpoint_steps for the arms that are followed"),
        ({"margin": 1}, "expected margin to be a number"),
        ({"margin": 0.0}, "a margin above 0 and below 1, found 0:"),
        ({"questions": {"less": None}}, "expected the question 'less' to be"),
        ({"questions": {"less": {"plus": None, "minus": []}}}, "write arms on both sides"),
        ({"questions": {"less": {"plus": [], "minus": [["SimCLR", "ALL"]]}}}, "write arms on both sides"),
        ({"questions": {"less": {"plus": [["SimCLR", "ALL"]] * 2, "minus": [["SparK", "ALL"]]}}}, "found 2 and 1"),
        ({"questions": {"less": {"plus": [["SimCLR", "ALL"]], "minus": [["SimCLR", "ALL"]]}}}, "and none in both"),
        ({"pretrain_datasets": ["CT", "MR"]}, "expected one of pretrain_datasets with probes, found 2"),
        ({"checkpoint_steps": [8]}, "below max_steps 8, the end, found 8"),
        ({"followed": [], "max_steps": None}, "beside max_steps, found none"),
        ({"probes": {"all": {}}}, "for probes, other than those of tasks and other data, found 'all'"),
        ({"probes": {"CT": {}}}, "found 'CT': rename it"),
        ({"probes": {"a/b": {}}}, "found 'a/b': rename it"),
        ({"probes": {"Heads": {"labels": ["a", "b"]}}}, "labels of Heads to be two classes or more"),
        ({"probes": {"Heads": {"labels": {"no": "a"}}}}, "labels of Heads to be two classes or more"),
        ({"probes": {"Heads": {**SMALL["probes"]["Heads"], "bundle": "slice_classification"}}}, "found both: drop one"),
        ({"probes": {"Heads": {"bundle": "slice_clasification"}}}, "the closest one is "),
        ({"probes": {"Heads": {"repeats": "x"}}}, "expected repeats of Heads in probes to be a number, found 'x'"),
        ({"probes": {"Heads": {"repeats": True}}}, "to be a number, found True"),
        ({"probes": {"Heads": {"repeats": 0}}}, "probes of Heads: expected repeats of 1 or more, found 0"),
        ({"probes": {"Heads": {"fractions": [2]}}}, "probes of Heads: expected fractions above 0 and up to 1, found 2"),
        ({"probes": {"Heads": {"window": 40}}}, "expected window of Heads in probes to be a text, found 40"),
        ({"probes": {"Heads": {"protocol": "fold"}}}, "to be auto or official or folds, found 'fold'"),
        ({"baselines": {"random": "resnet18"}}, "a name other than 'random'"),
        ({"baselines": {"imagenet": None}}, "a name other than 'random' and a network, found 'imagenet': None"),
        ({"reductions": {**SMALL["reductions"], "SimCLR": ["ALL", "HASH-06"]}}, "found 'HASH-06'"),
        ({**SPREAD, "pretrain_settings": {"all": {"balance": True}}}, "ALL.spread of SparK without balance"),
        (
            {"pretrain_settings": {"SimCLR": {"near_copies": "keep"}}},
            "near_copies, which the .* in a reduction, such as",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_experiment(experiment_file(tmp_path, **changes))


# Labels


def test_labels_by_paths(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png", "b/3.png", "other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    write_labels(tmp_path / "out" / "t.csv", tmp_path, {"no": "^a/", "yes": r"^b/.*\.png$"})
    assert (tmp_path / "out" / "t.csv").read_text() == "path,label\na/1.png,no\nb/2.png,yes\nb/3.png,yes\n"
    with pytest.raises(UserError, match=r"one label for b/2\.png, found yes and any"):
        write_labels(tmp_path / "out" / "t.csv", tmp_path, {"yes": "^b", "any": "2"})
    with pytest.raises(UserError, match="found none of no"):
        write_labels(tmp_path / "out" / "t.csv", tmp_path, {"yes": "^b", "no": "^c"})


# The driver, with stubs for what takes hours


UNITS = 12
LABELS = np.repeat(np.arange(UNITS) % 2, 2)  # two pictures of each unit
GAIN = {"CT_SimCLR_ALL": 0.5, "CT_SimCLR_HASH-6": 3.0, "CT_SparK_ALL": 1.0, "CT_SparK_HASH-6": 1.0}


class Stub:
    """Runs nothing, but leaves what the commands would."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.slices: dict[str, str] = {}  # by selection, where they are not the usual ones

    def __call__(self, command: Sequence[str], log: Path) -> int:
        self.commands.append(tuple(command))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        options = {part: command[number + 1] for number, part in enumerate(command[:-1]) if part.startswith("--")}
        if command[1] == "select":
            touch(Path(command[2]) / "selections" / f"{options['--name']}.json", "{}")
        elif command[1] == "reduce":
            touch(Path(options["--output_dir"]) / "manifest.json", "{}")
        elif command[1] == "probe":
            begin = list(command).index("--models") + 1
            models = [part for part in command[begin : begin + 3] if "=" in part]
            self.probe(Path(options["--output_dir"]), models)
        else:
            output = Path(options["--output_dir"])
            touch(output / "backbone.safetensors", "")
            settings = {"batch_size": 2, "dataset_dir": str(output), "output_dir": str(output), "seed": 0}
            settings["selection"] = options["--selection"]
            touch(output / "config.json", json.dumps({"settings": settings}))
            touch(output / LOG, '{"loss": 2.5, "step": 1}\n{"loss": 1.25, "step": 8}\n')
        return 0

    def probe(self, output: Path, models: Sequence[str]) -> None:
        for model in models:
            name, _, place = model.partition("=")
            rng = np.random.default_rng(sum(place.encode()))
            scores = 1 / (1 + np.exp(-rng.normal(GAIN.get(name, 0.8) * LABELS, 1)))
            for fold in (0, 1):
                rows = np.flatnonzero((np.arange(2 * UNITS) // 4) % 2 == fold)
                run = output / "logistic" / name / f"run_{fold:02d}"
                run.mkdir(parents=True, exist_ok=True)
                predictions = Predictions(
                    [f"{row:02d}.png" for row in rows],
                    [f"p{row // 2}" for row in rows],
                    ["test"] * len(rows),
                    LABELS[rows],
                    np.stack([1 - scores[rows], scores[rows]], 1),
                    [""] * len(rows),
                )
                predictions.write(run / "predictions.csv")
                test = {
                    name: float(METRICS[name](LABELS[rows], predictions.probabilities)) for name in ("auc", "accuracy")
                }
                record = {
                    "format": 1, "task": "Heads", "classes": ["no", "yes"], "positive": 1, "mode": "probe", "run": fold,
                    "experiment": dict.fromkeys(("pretrain_dataset", "ssl_method", "reduction")),
                    "weights": {"id": place}, "settings": {"fold": fold, "repeat": 0}, "test": test,
                }  # fmt: skip
                (run / "metrics.json").write_text(json.dumps(record))
        touch(output / "probe.html", "")


def touch(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    replace_processes(monkeypatch, stub)
    monkeypatch.setattr(kept_module, "slices_digest", lambda reduced, name: stub.slices.get(name, name))
    return stub


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("ct/x", "heads/a.png", "heads/b.png"):
        touch(tmp_path / name, "")
    return tmp_path


def drive(place: Path, exp: str, *more: str, **changes: Any) -> int:
    data = [part for name in ("CT=ct", "Heads=heads") for part in ("--data", name.replace("=", f"={place}/"))]
    arguments = [str(experiment_file(place, **changes)), "--output_dir", str(place / exp), *data, *more]
    return reproduce_paper.main([*arguments, "--keep", str(place / "kept" / "small.jsonl")])


def test_seed_by_seed_each_encoder_is_probed_and_kept(place: Path, stub: Stub, capsys: Any) -> None:
    assert drive(place, "exp") == 0
    kinds = [command[1] for command in stub.commands]
    assert kinds[:7] == ["reduce", *["select"] * 5, "run"]  # HASH-6, ALL, and a random one for each seed
    assert kinds[6:] == ["run", "probe"] * 18
    seeds = [command[command.index("--seed") + 1] for command in stub.commands if command[0] == "monai.bundle"]
    assert seeds == ["0"] * 6 + ["1"] * 6 + ["2"] * 6
    selections = [command[command.index("--selection") + 1] for command in stub.commands if command[1] == "run"]
    assert selections[:6] == ["ALL", "HASH-6", "Random-at-HASH-6_seed0", "ALL", "ALL", "HASH-6"]
    drawn = [command for command in stub.commands if "random" in command]
    assert [command[command.index("--seed") + 1] for command in drawn] == ["0", "1", "2"]
    assert all(command[command.index("--like") + 1] == "HASH-6" for command in drawn)
    followed = next(command for command in stub.commands if command[1] == "run")
    assert followed[followed.index("--export_epochs") + 1] == "4"
    probe = next(command for command in stub.commands if command[1] == "probe")
    models = [part.partition("=")[::2] for part in probe[probe.index("--models") + 1 :][:3]]
    run = place / "exp" / "pretrain" / "CT_SimCLR_ALL_seed0"
    assert models == [
        ("CT_SimCLR_ALL", str(run)),
        ("CT_SimCLR_ALL.4", str(run / "backbones" / "step_000004.safetensors")),
        ("random", "random:0"),
    ]
    assert probe[probe.index("--pretraining") + 1] == str(place / "exp" / "reduce" / "CT_hash")

    said = capsys.readouterr().out
    assert "3 seeds of each arm: 0, 1, 2. Heads: 24 pictures of 12 patients." in said
    kept = Kept(place / "kept" / "small.jsonl")
    assert len(kept.lines) == 18 + 18 + 6  # pre-trainings, encoders, and random and followed ones
    assert {tuple(line["loss"]) for line in kept.lines if "loss" in line} == {(2.5, 1.25)}
    text = kept.path.read_text() + kept.path.with_name("small_pictures.json").read_text()
    assert "p1" not in text  # no name of a patient or picture
    assert ".png" not in text
    assert str(place) not in text

    stub.commands.clear()
    assert drive(place, "exp") == 0
    assert stub.commands == []
    assert drive(place, "elsewhere") == 0  # another machine, with what was kept
    assert stub.commands == []
    assert drive(place, "elsewhere", pretrain_seeds=[0, 1, 2, 3]) == 0
    assert [command[1] for command in stub.commands] == ["reduce", *["select"] * 3, *["run", "probe"] * 6]


@pytest.mark.parametrize("changed", [{"max_steps": 12}, {"pretrain_settings": {"all": {"batch_size": 256}}}])
def test_what_was_kept_of_other_settings_is_refused(
    place: Path, stub: Stub, capsys: Any, changed: dict[str, Any]
) -> None:
    assert drive(place, "exp", pretrain_seeds=[0]) == 0
    assert drive(place, "exp2", pretrain_seeds=[0], **changed) == 2
    assert "expected results of these settings in" in capsys.readouterr().err


def test_other_labels_by_paths_are_another_probe(place: Path, stub: Stub, capsys: Any) -> None:
    assert drive(place, "exp", pretrain_seeds=[0]) == 0
    swapped = {"Heads": {**SMALL["probes"]["Heads"], "labels": {"no": "^b", "yes": "^a"}}}
    assert drive(place, "exp2", pretrain_seeds=[0], probes=swapped) == 2
    assert "found those of others for probe/Heads/" in capsys.readouterr().err


def test_a_pretraining_on_other_slices_fails_and_the_others_go_on(place: Path, stub: Stub, capsys: Any) -> None:
    assert drive(place, "exp", pretrain_seeds=[0]) == 0
    stub.slices["HASH-6"] = "others"
    assert drive(place, "exp2", pretrain_seeds=[0, 1]) == 1
    captured = capsys.readouterr()
    assert "expected pretrain/CT_SimCLR_HASH-6_seed1 on the slices of HASH-6 that pretrain/CT_S" in captured.err
    kept = Kept(place / "kept" / "small.jsonl")
    assert "pretrain/CT_SimCLR_ALL_seed1" in kept.identities()
    assert not [name for name in kept.identities() if "_HASH-6_seed1" in name]  # nor its probes, nor SparK's
    assert drive(place, "exp2", pretrain_seeds=[0, 1]) == 1
    assert not [name for name in kept.identities() if "_HASH-6_seed1" in name]
    assert "1 seed of each arm: 0" in capsys.readouterr().out


def test_a_seed_without_its_trainings_is_trained_again_before_it_counts(place: Path, stub: Stub) -> None:
    assert drive(place, "exp", pretrain_seeds=[0]) == 0
    kept = Kept(place / "kept" / "small.jsonl")
    lines = kept.path.read_text().splitlines(keepends=True)
    kept.path.write_text("".join(line for line in lines if '"step":"pretrain/CT_SimCLR_ALL_seed0"' not in line))
    experiment = read_experiment(experiment_file(place, pretrain_seeds=[0]))
    assert Evidence(experiment, kept).seeds == []
    stub.commands.clear()
    assert drive(place, "exp2", pretrain_seeds=[0]) == 0
    assert [command[1] for command in stub.commands] == ["reduce", "select", "run"]
    assert Evidence(experiment, kept).seeds == [0]


def test_a_step_of_which_a_line_was_lost_is_run_again(place: Path, stub: Stub) -> None:
    assert drive(place, "exp", pretrain_seeds=[0]) == 0
    kept = Kept(place / "kept" / "small.jsonl")
    lines = kept.path.read_text().splitlines(keepends=True)
    kept.path.write_text("".join(line for line in lines if '"network":"random"' not in line))
    stub.commands.clear()
    assert drive(place, "exp2", pretrain_seeds=[0]) == 0
    assert [command[1] for command in stub.commands] == ["reduce", "select", "run", "probe"]
    assert len(kept.lines) == len(lines)
    assert kept.identities().keys() == {json.loads(line)["step"] for line in lines}


def test_a_damaged_table_of_pictures_is_said(place: Path, stub: Stub, capsys: Any) -> None:
    assert drive(place, "exp", pretrain_seeds=[0]) == 0
    kept = Kept(place / "kept" / "small.jsonl")
    table = kept.path.with_name("small_pictures.json")
    whole = json.loads(table.read_text())
    turned = [1 - label for label in whole["Heads"]["labels"]]
    for text in (json.dumps({"Heads": {**whole["Heads"], "labels": turned}}), "{}", '{"Heads": {"lab', "[]"):
        table.write_text(text)
        assert drive(place, "exp", pretrain_seeds=[0]) == 2
        assert "expected labels, units and folds of " in capsys.readouterr().err
    table.write_text(json.dumps(whole))
    kept.path.write_text(kept.path.read_text() + '{"step": "pre')
    assert drive(place, "exp", pretrain_seeds=[0]) == 2
    assert "expected what a step found in line 15 of" in capsys.readouterr().err


def test_two_that_keep_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "slices_digest", lambda reduced, selection: "same")
    for name in range(16):
        touch(tmp_path / str(name) / LOG, "")
        touch(tmp_path / str(name) / "config.json", json.dumps({"settings": {"dataset_dir": "x", "selection": "ALL"}}))
    with ThreadPoolExecutor(8) as pool:  # each with a file of its own, as processes have
        for _ in pool.map(
            lambda name: Kept(tmp_path / "k" / "all.jsonl").add_pretraining(f"{name}", "", 1.0, tmp_path / f"{name}"),
            range(16),
        ):
            pass
    assert sorted(int(line["step"]) for line in Kept(tmp_path / "k" / "all.jsonl").lines) == list(range(16))


def test_two_names_of_one_folder_are_refused(place: Path, stub: Stub, capsys: Any) -> None:
    arguments = [str(experiment_file(place)), "--output_dir", str(place / "exp")]
    data = [part for name in ("CT", "Heads") for part in ("--data", f"{name}={place / 'ct'}")]
    assert reproduce_paper.main([*arguments, *data]) == 2
    assert "expected another folder for each name of --data, found one for two" in capsys.readouterr().err


def test_what_was_kept_gives_the_predictions_again(place: Path, stub: Stub) -> None:
    assert drive(place, "exp", pretrain_seeds=[0]) == 0
    kept = Kept(place / "kept" / "small.jsonl")
    line = next(line for line in kept.lines if line.get("network") == "CT_SparK_HASH-6")
    runs = kept.runs(line)
    folder = place / "exp" / "probe" / "Heads" / "CT_SparK_HASH-6_seed0" / "logistic" / "CT_SparK_HASH-6"
    for number, run in enumerate(runs):
        there = Predictions.read(folder / f"run_{number:02d}" / "predictions.csv")
        np.testing.assert_array_equal(run.labels, there.labels)
        np.testing.assert_allclose(run.probabilities, there.probabilities, atol=1e-4)
        assert len({*run.sources}) == len({*there.patients})
        assert line["auc"][number] == pytest.approx(auc(there.labels, there.probabilities), abs=1e-6)


def test_questions_are_answered_by_pairs_of_seeds(place: Path, stub: Stub) -> None:
    assert drive(place, "exp") == 0
    experiment = read_experiment(experiment_file(place))
    evidence = Evidence(experiment, Kept(place / "kept" / "small.jsonl"))
    less, both = (evidence.answer(question, ["Heads"]) for question in experiment.all_questions)
    lines = {(line["network"], line["seed"]): line["auc"] for line in evidence.kept.lines if "network" in line}
    by_seed = [np.mean(lines["CT_SimCLR_HASH-6", seed]) - np.mean(lines["CT_SimCLR_ALL", seed]) for seed in range(3)]
    assert less.value == pytest.approx(np.mean(by_seed), abs=1e-3)
    control = [np.mean(lines["CT_SparK_HASH-6", seed]) - np.mean(lines["CT_SparK_ALL", seed]) for seed in range(3)]
    assert both.value == pytest.approx(np.mean(by_seed) - np.mean(control), abs=1e-3)
    assert less.value > 0.1  # as planted
    text = write_evidence(experiment, evidence.kept)
    assert "each kind of p has Holm" in text
    for suffix in (".txt", "_contrasts.png", "_steps.png"):
        assert (place / "kept" / f"small{suffix}").stat().st_size > 100
