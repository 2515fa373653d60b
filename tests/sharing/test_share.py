"""Shared bundles and hub folders: what they hold, that they work elsewhere, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from helpers import bundle_environment
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shared_runs import STATED, train
from warm_python import warm_run

from lessismore_transforms.classification.network import load_classifier
from lessismore_transforms.classification.preprocessing import Prepare
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.cli.main import main
from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.embed import prepare
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.sharing.bundle_folder import large_files_text
from lessismore_transforms.sharing.classifier import _length, is_classification
from lessismore_transforms.sharing.encoder import _chosen, _draw
from lessismore_transforms.sharing.facts import recorded_paths, sha256
from lessismore_transforms.sharing.proof import prove_private
from lessismore_transforms.sharing.share import _give_name
from lessismore_transforms.weights.backbones import build_backbone, read_metadata

PICTURE = np.random.default_rng(3).integers(0, 256, (50, 40), np.uint8)


def share(*arguments: object) -> int:
    return main(["share", *(str(argument) for argument in arguments)])


def infer(folder: Path, place: Path, **overrides: Any) -> dict[str, str]:
    """The row that a bundle writes of one picture, run by MONAI from a folder that is not its own."""
    (place / "pictures").mkdir(exist_ok=True)
    Image.fromarray(PICTURE).save(place / "pictures" / "one.png")
    given = {"dataset_dir": "pictures", "output_dir": "result", "bundle_root": folder, "device": "cpu", **overrides}
    line = ["-m", "monai.bundle", "run", "--config_file", str(folder / "configs" / "inference.json")]
    line += [str(item) for name, value in given.items() for item in (f"--{name}", value)]
    done = warm_run(line, cwd=place, env=bundle_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    (table,) = (place / "result").glob("*.csv")
    (row,) = csv.DictReader(table.read_text().splitlines())
    return row


def numbers_of(row: dict[str, str], prefix: str) -> list[float]:
    return [float(value) for name, value in row.items() if name.startswith(prefix)]


def test_the_bundle_of_an_encoder_gives_what_the_run_gives(encoder: Path, place: Path, tmp_path: Path) -> None:
    header = read_metadata(place / "RUN" / "backbone.safetensors")
    network = build_backbone("resnet18", weights=place / "RUN" / "backbone.safetensors")
    image = torch.from_numpy(PICTURE)[None, None]
    with torch.no_grad():
        expected = network(prepare(image, size=32, mean=header["mean"], std=header["std"]))[0].numpy()
    found = numbers_of(infer(encoder, tmp_path), "e_")
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert sha256(encoder / "models" / "model.safetensors") == sha256(place / "RUN" / "backbone.safetensors")


def test_the_bundle_of_a_classifier_gives_what_the_run_gives(classifier: Path, place: Path, tmp_path: Path) -> None:
    network, header = load_classifier(place / "EVAL" / "run_00" / "model.safetensors")
    ready = Prepare(32, header["mean"], header["std"])({"image": torch.from_numpy(PICTURE)[None]})["image"][None]
    with torch.no_grad():
        expected = network(ready).softmax(1)[0].numpy()
        scripted = torch.jit.load(classifier / "models" / "model.ts")(ready).softmax(1)[0].numpy()
    row = infer(classifier, tmp_path)
    np.testing.assert_allclose(numbers_of(row, "p_"), expected, atol=1e-4)
    np.testing.assert_allclose(scripted, expected, atol=1e-4)
    assert row["predicted"] == ["COVID", "NonCOVID"][expected.argmax()]


def test_the_card_of_an_encoder_holds_facts(encoder: Path, place: Path) -> None:
    card = (encoder / "docs" / "README.md").read_text()
    manifest = Manifest.read(place / "OUT")
    kept = len(manifest.read_selection().kept_ids)
    for fact in (
        "| data | phantoms |",
        "| licence of the data | CC0 |",
        "| volumes | 4 of 4 patients, axial |",
        f"| selection | HASH at 6 bits, rule exemplars: kept {kept} of 96 slices ({100 * kept / 96:.1f} %) |",
        f"| SHA-256 of manifest.csv | `{sha256(place / 'OUT' / 'manifest.csv')}` |",
        f"| slices trained on | {kept}, equal to those that the checkpoint tells |",
        "| weights compared with the last checkpoint | yes: equal in every number |",
        "| `prototypes` | `20` |",
        "![Loss and health over the steps of the training](curves.png)",
        "| EVAL | SwAV | 1 run |",
        "95 % interval",
        "For research. Not for diagnosis",
        "- Student 2026",
        "The weights: cc-by-4.0",
        f"| `models/model.pt` | `{sha256(encoder / 'models' / 'model.pt')}` |",
    ):
        assert fact in card, fact
    assert {"curves.png", "data_license.txt"} <= {path.name for path in (encoder / "docs").iterdir()}
    assert (
        (encoder / "LICENSE").read_text().startswith("The weights (models/) are shared under cc-by-4.0 by A. Student")
    )


def test_the_card_of_a_classifier_holds_facts(classifier: Path, place: Path) -> None:
    card = (classifier / "docs" / "README.md").read_text()
    record = json.loads((place / "EVAL" / "run_00" / "metrics.json").read_text())
    low, high = record["intervals"]["auc"]
    scores = f"| AUC | {record['val']['auc']:.3f} | {record['test']['auc']:.3f} | {low:.3f} to {high:.3f} |"
    (a, b), (c, d) = ([int(number) for number in line] for line in record["confusion"]["test"])
    leaks = record["leakage"]
    for fact in (
        scores,
        f"| COVID | {a} | {b} |",
        f"| NonCOVID | {c} | {d} |",
        "| licence of the data | not stated: look it up at their source before you use the weights |",
        f"| pairs of nearly equal pictures of different splits | {leaks['near']} |",
        f"| pictures that are in the pre-training set, equal in all pixels | {leaks['pretraining_exact']} |",
        "finetune, from weights by SwAV",
    ):
        assert fact in card, fact
    metadata = json.loads((classifier / "configs" / "metadata.json").read_text())
    assert metadata["eval_metrics"]["auc"] == pytest.approx(record["test"]["auc"], abs=1e-6)
    formats = metadata["network_data_format"]
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "COVID", "1": "NonCOVID"}
    assert formats["inputs"]["image"]["spatial_shape"] == [32, 32]


def test_metadata_of_an_encoder_are_of_the_run(encoder: Path, place: Path) -> None:
    metadata = json.loads((encoder / "configs" / "metadata.json").read_text())
    header = read_metadata(place / "RUN" / "backbone.safetensors")
    image, pred = (metadata["network_data_format"][a][b] for a, b in (("inputs", "image"), ("outputs", "pred")))
    assert (image["num_channels"], image["spatial_shape"], pred["num_channels"]) == (3, [32, 32], 512)
    assert (image["modality"], metadata["image_classes"][:11]) == ("CT", "grey values")
    (mean,), (std,) = header["mean"], header["std"]
    assert image["value_range"] == pytest.approx([-mean / std, (1 - mean) / std], abs=1e-5)
    assert metadata["pytorch_version"] == torch.__version__.partition("+")[0]
    assert metadata["required_packages_version"]["timm"] == timm.__version__
    assert (metadata["version"], metadata["changelog"]) == ("0.1.0", {"0.1.0": "first version"})
    assert "AUC" not in json.dumps(metadata["eval_metrics"])
    assert list(metadata["eval_metrics"]) == ["auc, COVID-19"]


def test_no_file_holds_a_path(encoder: Path, classifier: Path, place: Path) -> None:
    for folder in (encoder, classifier):
        texts = [path for path in folder.rglob("*") if path.suffix in (".json", ".md", ".txt", ".yml", ".py")]
        assert len(texts) > 6
        assert not [path for path in texts if str(place) in path.read_text()]
        with safe_open(folder / "models" / "model.safetensors", "pt") as file:
            assert str(place) not in json.dumps(file.metadata())
    with zipfile.ZipFile(classifier / "models" / "model.ts") as archive:
        code = {name: archive.read(name) for name in archive.namelist() if "/code/" in name}
    assert any(b"def forward" in text for text in code.values())
    assert not [name for name, text in code.items() if str(Path(torch.__file__).parent).encode() in text]


def test_nothing_tells_which_pictures_a_classifier_was_trained_on(classifier: Path, place: Path) -> None:
    own = read_metadata(place / "EVAL" / "run_00" / "model.safetensors")
    shared = read_metadata(classifier / "models" / "model.safetensors")
    told = own.pop("trained_on_sha256")
    assert shared == own
    digests = {told[start : start + 64] for start in range(0, len(told), 64)}
    assert len(digests) > 4
    content = b"".join(path.read_bytes() for path in classifier.rglob("*") if path.is_file())
    assert not [each for each in digests if each.encode() in content]
    card = (classifier / "docs" / "README.md").read_text()
    assert "| checksums of the training pictures | left out of the weights: whoever has a picture" in card


def test_the_training_of_a_shared_bundle_runs_with_the_settings_of_the_run(encoder: Path, tmp_path: Path) -> None:
    config = json.loads((encoder / "configs" / "train.json").read_text())
    assert (config["prototypes"], config["large_size"], config["max_steps"]) == (20, 32, 3)
    assert str(config["mean"]).startswith("$")
    train(tmp_path, [str(encoder / "configs" / "train.json")], dataset_dir=encoder.parent / "OUT", output_dir="again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())["settings"]
    assert again["prototypes"] == 20
    first = load_file(encoder / "models" / "model.safetensors")
    assert all(
        torch.equal(first[name], value) for name, value in load_file(tmp_path / "again/backbone.safetensors").items()
    )


@pytest.mark.parametrize("kind", ["encoder", "classifier"])
def test_a_hub_folder_loads_in_timm_and_torchvision(place: Path, tmp_path: Path, kind: str) -> None:
    run = place / ("RUN" if kind == "encoder" else "EVAL/run_00")
    folder = tmp_path / "my_hub"
    stated = ["--license", "Ask us first", "--author", "A. Student"]
    where = ["--dataset_dir", place / "OUT"] if kind == "encoder" else []
    assert share(run, "--output_dir", folder, "--hub", *stated, *where) == 0
    pictures = torch.rand(2, 3, 32, 32)
    classes = 0 if kind == "encoder" else 2
    ours = (
        build_backbone("resnet18", weights=run / "backbone.safetensors")
        if not classes
        else load_classifier(run / "model.safetensors")[0]
    )
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    other = torchvision.models.resnet18()
    other.fc = torch.nn.Linear(512, 2) if classes else torch.nn.Identity()
    other.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(theirs(pictures), ours(pictures), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.eval()(pictures), ours(pictures), rtol=1e-4, atol=1e-5)
    told = timm.data.resolve_model_data_config(theirs)
    header = read_metadata(run / ("model.safetensors" if classes else "backbone.safetensors"))
    assert (told["input_size"], told["crop_pct"], told["crop_mode"]) == ((3, 32, 32), 1.0, "squash")
    assert list(told["mean"]) == pytest.approx(list(header["mean"]) * 3)
    assert "license" not in (folder / "config.json").read_text()  # timm's own, of ImageNet weights
    assert (folder / "model.safetensors").stat().st_mode == (folder / "README.md").stat().st_mode
    front = (folder / "README.md").read_text().split("---\n")[1]
    assert 'license: other\nlicense_name: "Ask us first"\nlibrary_name: timm\n' in front


def test_large_files_as_the_zoo_reads_them() -> None:
    assert large_files_text([("models/model.pt", "ab" * 32)], "https://example.org/w/") == (
        "large_files:\n"
        '- path: "models/model.pt"\n'
        '  url: "https://example.org/w/model.pt"\n'
        f'  hash_val: "{"ab" * 32}"\n'
        '  hash_type: "sha256"\n'
    )
    assert 'url: "STATE-THE-ADDRESS/model.pt"' in large_files_text([("models/model.pt", "0")], None)


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    """A copy of RUN that a test may damage."""
    return Path(shutil.copytree(place / "RUN", tmp_path / "RUN"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The sentence of a refusal; nothing is left beside."""
    folder = Path(str(arguments[arguments.index("--output_dir") + 1]))
    before = sorted(folder.parent.iterdir())
    capsys.readouterr()
    assert share(*arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert sorted(folder.parent.iterdir()) == before
    return said[0]


def test_what_only_a_person_can_state_is_asked_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    assert "found none: give --license" in refused(capsys, run, "--output_dir", out, "--author", "A")
    assert "found nobody: give --author" in refused(capsys, run, "--output_dir", out, "--license", "mit")
    out.mkdir()
    assert f"expected a new folder, found {out}" in refused(capsys, run, "--output_dir", out, *STATED)
    said = refused(capsys, run, "--output_dir", tmp_path / "a b", *STATED)
    assert "letters, digits and _, found 'a b'" in said
    for url in ("http://example.org", "https://", "https://a b.org", 'https://x.org/"', "https://me:key@x.org/w",
                "https://x.org/w?token=1", "https://x.org:port/", "https://[::1/w", "https://x.org/\nw"):  # fmt: skip
        said = refused(capsys, run, "--output_dir", tmp_path / "x", *STATED, "--url", url)
        assert f"https://HOST/PATH without a user, a query or blanks, found {url!r}: fix --url" in said
    for option in ("--title", "--author", "--license", "--data", "--cite", "--changes"):
        said = refused(capsys, run, "--output_dir", tmp_path / "x", *STATED, option, "one\nlicense: mit")
        assert f"one line of plain text for {option}, found 'one\\nlicense: mit': fix it" in said


def test_a_pre_training_that_did_not_finish(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (run, "--output_dir", tmp_path / "new", *STATED)
    log = run / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:-1]) + "\n")
    assert "expected a finished training in" in (said := refused(capsys, *given))
    assert "found one that is at step 3: let it end, or go on with it by --resume True" in said
    log.write_text("\n".join(lines) + "\n")
    (run / "config.json").unlink()
    assert "found no config.json in" in refused(capsys, *given)


def test_weights_that_do_not_fit_the_record(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (run, "--output_dir", tmp_path / "new", *STATED)
    path = run / "backbone.safetensors"
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    save_file(tensors, path, {**header, "iteration": "2"})
    assert "with iteration 3 as in config.json and the log, found iteration 2" in refused(capsys, *given)
    save_file(tensors, path, {**header, "method": "nothing"})
    assert "expected a method out of swav, moco," in refused(capsys, *given)
    save_file(tensors, path, {**header, "method": "moco"})
    assert "expected weights of method swav in" in refused(capsys, *given)
    save_file({**tensors, "conv1.weight": tensors["conv1.weight"] + 1e-3}, path, header)
    assert "last.pt in " in (said := refused(capsys, *given))
    assert "found others: put the file that the run wrote there" in said
    tensors.pop("conv1.weight")
    save_file(tensors, path, header)
    assert "1 missing, first conv1.weight" in refused(capsys, *given)


def test_data_and_evaluations_of_other_runs(
    run: Path, place: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (run, "--output_dir", tmp_path / "new", *STATED)
    other = tmp_path / "other"
    line = ["reduce", str(small_data), "--output_dir", str(other), "--workers", "0", "--no_report", "--threshold", "2"]
    assert main(line) == 0
    assert "expected the data that" in refused(capsys, *given, "--dataset_dir", other)
    changed = Path(shutil.copytree(place / "OUT", tmp_path / "changed"))
    (first, *_) = sorted((changed / "store").glob("*.npy"))
    pixels = np.load(first)
    pixels[0, 0, 0] ^= 1
    np.save(first, pixels)
    said = refused(capsys, *given, "--dataset_dir", changed)
    assert f"found 1 file changed since they were written, first store/{first.name}: put them back, or" in said
    evaluation = shutil.copytree(place / "EVAL", tmp_path / "EVAL", ignore=shutil.ignore_patterns("checkpoints"))
    record = json.loads((evaluation / "run_00" / "metrics.json").read_text())
    record["weights"]["id"] = "0" * 16
    (evaluation / "run_00" / "metrics.json").write_text(json.dumps(record))
    assert "expected an evaluation of this encoder" in refused(capsys, *given, "--evaluation", evaluation)


def test_a_classification_whose_parts_do_not_fit(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(place / "EVAL", tmp_path / "EVAL")) / "run_00"
    given = (run, "--output_dir", tmp_path / "new", *STATED)
    assert "which holds run_00: name one" in refused(capsys, run.parent, *given[1:])
    assert "--evaluation for a pre-training" in refused(capsys, *given, "--evaluation", run.parent)
    said = refused(capsys, *given, "--data", f"see {tmp_path / 'COVID'}")  # where its record says that its data are
    assert "expected no path of this machine in" in said
    path, text = run / "metrics.json", (run / "metrics.json").read_text()
    for change, sentence in (
        ({"best_epoch": 9}, "with the best epoch of metrics.json 9, found"),
        ({"classes": ["a", "b"]}, "with the classes of metrics.json"),
        ({"test": {"auc": 0.123, "accuracy": 0.5}}, "metrics.json and predictions.csv of the same run"),
        ({"counts": {"train": 3}}, "found one without counts.val: evaluate again"),
        ({"confusion": None, "val": []}, "found one without confusion.test: evaluate again"),
        ({"epochs": "2"}, "found one without epochs: evaluate again"),
    ):
        path.write_text(json.dumps(json.loads(text) | change))
        assert sentence in refused(capsys, *given)
    path.unlink()
    assert "found no metrics.json, which is written last" in refused(capsys, *given)


def test_a_path_in_what_is_stated_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = place / "EVAL" / "run_00"
    said = refused(capsys, run, "--output_dir", tmp_path / "new", *STATED, "--data", f"see {run.resolve()}")
    assert "expected no path of this machine in" in said


def test_the_name_of_a_runs_folder_is_in_no_picture(place: Path, tmp_path: Path) -> None:
    drawn = []
    for name in ("RUN", "somebody"):
        copy = tmp_path / name
        copy.mkdir()
        shutil.copyfile(place / "RUN" / "log.jsonl", copy / "log.jsonl")
        _draw(copy, tmp_path / f"{name}.png")
        drawn.append((tmp_path / f"{name}.png").read_bytes())
    assert drawn[0] == drawn[1]


def test_a_record_that_lacks_something(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (run, "--output_dir", tmp_path / "new", *STATED)
    path, text = run / "config.json", (run / "config.json").read_text()
    for name, value in (
        ("processes", "many"), ("torch", None), ("plan", []), ("settings.batch_size", None), ("settings.selection", 3),
        ("settings.dataset_dir", None), ("trainer", "none"),
    ):  # fmt: skip
        content = json.loads(text)
        inner, _, last = name.rpartition(".")
        (content[inner] if inner else content)[last] = value
        path.write_text(json.dumps(content))
        said = refused(capsys, *given)
        assert f"expected the record of a pre-training in {path}, found one without {name}" in said
    for damaged in ("[]", "{", "[" * 100_000):
        path.write_text(damaged)
        assert str(path) in refused(capsys, *given)
    path.write_text(text)
    weights = run / "backbone.safetensors"
    with safe_open(weights, "pt") as file:
        header = file.metadata()
    header.pop("image_size")
    save_file(load_file(weights), weights, header)
    assert "found a header without image_size: put the file" in refused(capsys, *given)


def test_which_of_the_data_were_taken_stays_known(place: Path, run: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(place / "OUT", tmp_path / "OUT"))
    assert main(["select", str(out), "--threshold", "6", "--name", "again"]) == 0
    config = json.loads((run / "config.json").read_text())
    config["settings"]["selection"] = "again"
    (run / "config.json").write_text(json.dumps(config))
    assert share(run, "--output_dir", tmp_path / "new", "--dataset_dir", out, *STATED) == 0
    assert json.loads((tmp_path / "new" / "configs" / "train.json").read_text())["selection"] == "again"
    assert "| `selection` | `again` |" in (tmp_path / "new" / "docs" / "README.md").read_text()
    chosen = _chosen({"selection": "default", "split": "/home/somebody/table.csv:train"})
    assert chosen == {"selection": "default", "split": "table.csv:train"}


def test_what_a_run_is_is_told_by_what_it_holds(place: Path, tmp_path: Path) -> None:
    for name, source, expected in (("run_1", "RUN", False), ("mine", "EVAL/run_00", True)):
        (tmp_path / name).mkdir()
        shutil.copyfile(place / source / "config.json", tmp_path / name / "config.json")
        assert is_classification(tmp_path / name) is expected
    assert _length({"epochs": None, "penalty": 10.0}) == (
        "a logistic regression on features of the frozen encoder, penalty 10.0"
    )


def test_two_shares_at_once(tmp_path: Path) -> None:
    for name in ("empty", "full"):
        place, folder = tmp_path / "place", tmp_path / name
        place.mkdir(exist_ok=True)
        folder.mkdir()
        if name == "full":
            (folder / "theirs").touch()
        with pytest.raises(UserError, match=f"expected a new folder, found {folder}: name another one, or delete it"):
            _give_name(place, folder)
        assert place.is_dir()


def test_paths_of_a_record(tmp_path: Path) -> None:
    given = {"dataset_dir": ["/a/b", "c"], "labels": "/d/table.csv", "task": "Own", "seed": 3, "pretrained": None}
    found = recorded_paths(given, ClassificationSettings, tmp_path / "EVAL" / "run_00")
    assert found == sorted(
        ["/a/b", "/d/table.csv", *(str(base / "c") for base in (Path.cwd(), tmp_path, tmp_path / "EVAL"))]
    )


def test_paths_are_found_whole_and_in_weights(tmp_path: Path) -> None:
    facts: Any = SimpleNamespace(private=["/data", "/workspace/data", "/home/somebody"])
    (tmp_path / "a.json").write_text('"/workspace/data/my_ct_encoder" /data2 x/data https://data.org /home/somebody2')
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"from": "data"})
    prove_private(tmp_path, facts)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"from": "/data/lidc"})
    with pytest.raises(UserError, match=r"no path of this machine in a\.safetensors, found /data: leave"):
        prove_private(tmp_path, facts)
    (tmp_path / "a.safetensors").unlink()
    for text, path in (
        ("file:///data/x", "/data"),
        ('"a\\n/home/somebody/x"', "/home/somebody"),
        ("at /data.", "/data"),
    ):
        (tmp_path / "a.md").write_text(text)
        with pytest.raises(UserError, match=rf"no path of this machine in a\.md, found {path}: leave"):
            prove_private(tmp_path, facts)
    (tmp_path / "a.md").unlink()
    with zipfile.ZipFile(tmp_path / "a.ts", "w") as archive:
        archive.writestr("a/data/0", "/data")  # numbers
        archive.writestr("a/code/b.py", "# /data/x.py")
    with pytest.raises(UserError, match=r"no path of this machine in a\.ts, found /data: leave"):
        prove_private(tmp_path, facts)
