"""What README, guides and the bundles' pages name exists: commands, options, settings, files, modules, links."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT, bundle_environment
from warm_python import warm_run

import lessismore_transforms
from lessismore_transforms.classification.paper import paper_value
from lessismore_transforms.weights.backbones import build_backbone, save_backbone

PACKAGE = "lessismore_transforms"
TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/tutorial/README.md")),
    *sorted(ROOT.glob("docs/pages/**/*.md")),
]
BUNDLES = sorted(ROOT.glob("bundles/*/docs/README.md"))
WRITTEN_BY_A_BUILD = ("docs/site",)
SHARED = ("../my_ct_encoder", "bundles/ct_swav_pretraining")  # the tutorial makes the first out of the second

each_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
each_page = pytest.mark.parametrize("path", TEXTS + BUNDLES, ids=lambda path: path.relative_to(ROOT).as_posix())


# Reading


def fences(path: Path, *languages: str) -> Iterator[str]:
    """The code blocks of a text that are in one of the languages."""
    for language, code in re.findall(
        r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        if language in languages:
            yield code


def spans(path: Path) -> list[str]:
    """What stands between backticks in a line."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", text)


def lines(path: Path) -> Iterator[list[str]]:
    """The words of each command; `...` at the beginning of a line stands for the whole command above."""
    above: list[str] = []
    for code in fences(path, "", "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            if not re.match(r"\s*(python|torchrun|lessismore|bash|\.\.\.) ", line):
                continue
            words = shlex.split(line, comments=True)
            if words[0] == "...":
                words = above + words[1:]
            else:
                above = words
            yield words
    for span in spans(path):
        if span.startswith((f"python -m {PACKAGE} ", "lessismore ", "python scripts/", "bash scripts/")):
            yield shlex.split(span)
        elif span.split()[0] in commands() and " --" in span:
            yield ["lessismore", *shlex.split(span)]


def options(words: Sequence[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]


@functools.cache
def commands() -> dict[str, set[str]]:
    """The options of each command of the package, by its own help."""

    def told(*command: str) -> str:
        line = [sys.executable, "-m", PACKAGE, *command, "--help"]
        return subprocess.run(line, env=bundle_environment(), capture_output=True, text=True, check=True).stdout

    names = re.findall(r"^    ([a-z][a-z-]*)(?=\s|$)", told(), re.MULTILINE)
    assert {"reduce", "select", "table"} <= set(names)
    return {name: set(re.findall(r"--[a-z][\w-]*", told(name))) for name in names}


@functools.cache
def settings(config: Path) -> set[str]:
    """What stands at the top of a configuration."""
    return {name.lstrip("+") for name in json.loads(config.read_text(encoding="utf-8"))}


@functools.cache
def script_options() -> set[str]:
    paths = [*ROOT.glob("scripts/**/*.[ps][yh]"), *ROOT.glob("docs/*/*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in paths)
    return set(re.findall(r"--[a-z][\w-]*", code))


# Commands


def test_commands_are_found_in_the_texts() -> None:
    found = [words for path in TEXTS for words in lines(path)]
    starts = {" ".join(words[:4]) for words in found}
    assert {f"python -m {PACKAGE} reduce", f"python -m {PACKAGE} select", "python -m monai.bundle run"} <= starts
    assert ["--resume", "True"] in [words[-2:] for words in found if "monai.bundle" in words]


@each_page
def test_commands_have_the_options_that_are_named(path: Path) -> None:
    for words in lines(path):
        if words[0] == "lessismore" or words[:3] == ["python", "-m", PACKAGE]:
            command, *rest = words[1 if words[0] == "lessismore" else 3 :]
            assert command in commands(), words
            assert set(options(rest)) <= commands()[command], words


@each_page
def test_bundles_have_the_settings_that_are_named(path: Path) -> None:
    bundle = path.parents[1] if path in BUNDLES else ROOT
    for words in lines(path):
        if "monai.bundle" not in words or "run" not in words:
            continue
        rest = words[words.index("run") + 1 :]
        given = rest[rest.index("--config_file") + 1].replace(*SHARED)
        files = ast.literal_eval(given) if given.startswith("[") else [given]
        configs = [bundle / file for file in files]
        assert all(config.is_file() for config in configs), given
        known = set().union(*map(settings, configs))
        assert {option.removeprefix("--") for option in options(rest)} - {"config_file"} <= known, words


@each_text
def test_scripts_have_the_options_that_are_named(path: Path) -> None:
    for words in lines(path):
        script = words[1]
        if script.startswith(("scripts/", "docs/")):
            assert (ROOT / script).is_file(), words
            known = set(re.findall(r"--[a-z][\w-]*", (ROOT / script).read_text(encoding="utf-8")))
            assert set(options(words)) <= known | ({"--quick", "--plan", "--only"} if "bench" in script else set()), (
                words
            )


@each_text
def test_an_option_on_its_own_is_one_of_something(path: Path) -> None:
    tops = set().union(*map(settings, ROOT.glob("bundles/*/configs/*.json")))
    known = set().union(*commands().values()) | {f"--{name}" for name in tops} | script_options() | {"--tracking"}
    named = {option for span in spans(path) for option in re.findall(r"(?<!\S)--[a-z][\w-]*", span)}
    assert named <= known


# Files, links, modules


@each_page
def test_files_that_are_named_exist(path: Path) -> None:
    places = (ROOT, path.parents[1]) if path in BUNDLES else (ROOT,)
    folders = r"(?:bundles|scripts|tests|docs|lessismore_transforms)"
    named = re.findall(rf"(?<![\w/.]){folders}/[\w./-]*\w", " ".join([*spans(path), *fences(path, "", "bash")]))
    missing = [
        name
        for name in named
        if not any((place / name).exists() for place in places)
        and "NAME" not in name
        and not name.startswith(WRITTEN_BY_A_BUILD)
    ]
    assert missing == []


@each_page
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for target, heading in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]+)?\)", path.read_text(encoding="utf-8")):
        file = path.parent / target if target else path
        assert file.is_file(), target
        titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading[1:] in {re.sub(r"[^\w]+", "-", title.lower()).strip("-") for title in titles}


@each_page
def test_modules_that_are_named_exist(path: Path) -> None:
    for name in set(re.findall(rf"\b{PACKAGE}(?:\.[A-Za-z_]\w*)+", path.read_text(encoding="utf-8"))):
        pkgutil.resolve_name(name)


# Python


@each_text
def test_python_compiles_and_imports_what_exists_from_where_users_take_it(path: Path) -> None:
    for code in fences(path, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                assert node.module is not None
                for each in node.names:
                    assert hasattr(importlib.import_module(node.module), each.name), each.name
                    assert node.module == PACKAGE or each.name not in lessismore_transforms.__all__, each.name


def test_the_guide_to_pipelines_runs(small_data: Path, tmp_path: Path) -> None:
    blocks = [code for code in fences(ROOT / "docs/pages/guides/pipelines.md", "python") if "SwAV.ckpt" not in code]
    blocks.sort(key=lambda code: "reduce_dataset" not in code)  # makes OUT, which the others read
    script = "\n".join([f"DATA = {str(small_data)!r} + '/'", *blocks])
    for before, after in {
        '"OUT", settings)': '"OUT", settings, workers=0)',
        "num_workers=4": "num_workers=0",
        '"DATASET_DIR"': "DATA",
        '"TEST_IMAGES"': '"OUT"',
    }.items():
        assert before in script
        script = script.replace(before, after)
    script += """
assert tuple(batch["image"].shape) == (len(slices), 1, 224, 224), batch["image"].shape
assert len(slices) == summary.kept < summary.slices == len(manifest.slices) == 96
assert chosen.kept_ids == Selection.read("OUT", "hash3").kept_ids
assert len(chosen.kept_ids) > summary.kept
nifti = next(volume for volume in found.volumes if volume.format == "nifti")
indices = keep({"image": DATA + nifti.path})["image_slices"][0]
ids = [name for name in Selection.read("OUT").kept_ids if name.startswith(nifti.volume)]
assert [int(name[-4:]) for name in ids] == indices.tolist(), (ids, indices)
assert ct_slice.hu.shape == (48, 48)
assert set(pairs["image_a"]) == set(Selection.read("OUT").kept_ids)
"""
    done = warm_run(["-c", script], cwd=tmp_path, env=bundle_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "OUT" / "report.html").is_file()


# Form


def test_the_encoder_gives_the_same_features_elsewhere(tmp_path: Path) -> None:
    """Each block of the guide, but for the library that is not installed here, beside our own network."""
    (tmp_path / "RUN").mkdir()
    header = {"backbone": "resnet50", "mean": [0.4], "std": [0.2], "image_size": 64}
    ours = build_backbone("resnet50", weights="random", seed=3)
    save_backbone(tmp_path / "RUN" / "backbone.safetensors", ours, header)
    blocks = fences(ROOT / "docs/pages/guides/use_the_encoder.md", "python")
    found: dict[str, Any] = {}
    for code in blocks:
        if "segmentation_models_pytorch" not in code or importlib.util.find_spec("segmentation_models_pytorch"):
            exec(code.replace("RUN/", f"{tmp_path}/RUN/"), found)
    assert [found[name] for name in ("mean", "std", "side")] == [[0.4], [0.2], 64]
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    pooled = {
        "encoder": lambda network: network(images),
        "grey": lambda network: network(images[:, :1]),
        "monai_encoder": lambda network: network(images),
        "unet": lambda network: network.encoder(images)[-1].mean((2, 3)),
        "detector": lambda network: network.backbone.body(images)["3"].mean((2, 3)),
    }
    with torch.no_grad():
        expected = ours(images)
        for name, features in pooled.items():
            torch.testing.assert_close(features(found[name].eval()), expected, rtol=1e-4, atol=1e-4)
        found["classifier"].fc = torch.nn.Identity()
        torch.testing.assert_close(found["classifier"].eval()(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet101"])
def test_which_sizes_fit_monais_unet(name: str) -> None:
    """As the guide has it: the shortcuts of MONAI's small encoders have no weights."""
    from monai.networks.nets import FlexibleUNet

    tensors = build_backbone(name, weights="random").state_dict()
    unet = FlexibleUNet(in_channels=3, out_channels=2, backbone=name, spatial_dims=2, pretrained=False)
    if name == "resnet101":
        unet.encoder.load_state_dict(tensors)
    else:
        with pytest.raises(RuntimeError, match=r"Unexpected key.*downsample"):
            unet.encoder.load_state_dict(tensors)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_citation_names_this_version_and_the_paper() -> None:
    yaml = pytest.importorskip("yaml", reason="comes with the extra docs")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == lessismore_transforms.__version__
    paper = citation["preferred-citation"]
    assert (paper["doi"], paper["volume"], paper["start"]) == ("10.1016/j.compbiomed.2024.109242", 183, 109242)
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    entry = " ".join((ROOT / "bundles/ct_swav_pretraining/docs/README.md").read_text(encoding="utf-8").split())
    assert f"author={{{' and '.join(names)}}}" in entry.replace('{\\"o}', "ö")


def test_the_first_sentence_is_what_the_paper_reports() -> None:
    """Its tables compare sets at equal epochs; the encoders by contrastive learning are SwAV and MoCo."""
    paragraph = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")[1].split())
    first = paragraph.partition(". This ")[0]
    assert first.startswith('[Wolf et al. 2024, "Less is More"]')
    for words in (
        "report that, at equal epochs",
        "contrastive",
        "a well-chosen tenth",
        "three tasks",
        "up to nine times",
    ):
        assert words in first
    for dataset, method in (("LIDC", "SwAV"), ("PET-CT", "SwAV"), ("LIDC", "MoCoV2")):
        for task in ("COVID-19", "OrgMNIST", "Brain"):
            kept, everything = (paper_value(task, "AUC", dataset, method, name) for name in ("HASH-6", "ALL"))
            assert kept is not None
            assert everything is not None
            assert kept[0] > everything[0]


@each_page
def test_no_page_says_that_the_hashed_picture_is_the_papers(path: Path) -> None:
    for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
        words = " ".join(paragraph.split())
        assert not re.search(r"(min-max of the paper|hash\w*[^.]*, as in the paper)", words), words
