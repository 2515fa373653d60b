"""Functions that tests of several rooms share; fixtures are in conftest.py."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from warm_python import warm_run

from lessismore_transforms.methods import METHODS
from lessismore_transforms.volumes import Found, read_slices

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = ROOT / "bundles"


def bundles(family: str = "") -> list[str]:
    """The names of all bundles, or of those of a family, `pretraining` or `classification`, in their order.

    They are listed, so that a new bundle is tested without a test file being edited.
    """
    ending = f"_{family}" if family else ""
    return sorted(path.parents[1].name for path in BUNDLES.glob(f"*{ending}/configs/metadata.json"))


def tiny_settings() -> dict[str, dict[str, Any]]:
    """What makes a training small, of each method with a bundle, by its name; the driver's --tiny takes the same."""
    settings = json.loads((ROOT / "scripts" / "experiments" / "tiny.json").read_text())["pretrain_settings"]
    lacking = [method.title for method in METHODS.values() if method.bundle and method.title not in settings]
    assert not lacking, f"scripts/experiments/tiny.json has no pretrain_settings for {', '.join(lacking)}: add them"
    return {name: settings[method.title] for name, method in METHODS.items() if method.bundle}


def tiny_backbone(method: str = "") -> str:
    """The name of a ResNet of 0.4 million weights, a thirtieth of a ResNet18; SparK takes torchvision's only."""
    return "resnet18" if method == "spark" else "timm:test_resnet"


def method_files(method: str, *overlays: str) -> list[str]:
    """The configuration files that train by a method, then further ones of its bundle."""
    row = METHODS[method]
    names = ["train.json", *filter(None, [row.overlay]), *(f"{name}.json" for name in overlays)]
    return [str(BUNDLES / row.bundle / "configs" / name) for name in names]


def tree(folder: Path, *, without: tuple[str, ...] = ("run.jsonl",)) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in without
    }


def read_index(out: Path) -> dict[str, int]:
    """Row of every slice in its volume's array, as `store/index.csv` says it to people."""
    with (out / "store" / "index.csv").open(newline="", encoding="utf-8") as file:
        return {row["slice_id"]: int(row["row"]) for row in csv.DictReader(file)}


def stack(found: Found, root: Path, number: int = 0) -> np.ndarray:
    """All slices of a found volume, each of which can be read, as one array (S, H, W)."""
    volume = found.volumes[number]
    hu = np.full(volume.shape, -9999, dtype=np.float64)
    for piece in read_slices(volume, root):
        assert not piece.reason
        hu[piece.index] = piece.hu
    return hu


def processes_with(mark: str) -> list[str]:
    """The ids of the processes that have a mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def bundle_scripts(bundle: str) -> ModuleType:
    """The package `scripts` of a bundle under a name of its own, so that several bundles fit into one process."""
    name = f"{bundle}_scripts"
    if name not in sys.modules:
        folder = ROOT / "bundles" / bundle / "scripts"
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def bundle_environment(bundle: str | None = None) -> dict[str, str]:
    """The environment of a bundle's own process; with the bundle's name for code that runs no MONAI command."""
    path = {} if bundle is None else {"PYTHONPATH": os.pathsep.join([str(ROOT / "bundles" / bundle), str(ROOT)])}
    return {**os.environ, "OMP_NUM_THREADS": "1", "MONAI_FAIL_ON_DUPLICATE_CONFIG": "1"} | path


def in_bundle(folder: Path, bundle: str, code: str) -> str:
    """What code prints, with the bundle on the path, as in the zoo's tests: before `run` MONAI needs it there."""
    done = warm_run(["-c", code], cwd=folder, env=bundle_environment(bundle))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def workflows(*given: tuple[list[str], dict[str, Any]]) -> str:
    """Code for `in_bundle` that makes trainings of (configuration files, overrides), and `run`, which tells the errors.

    Several trainings in one process save its start.
    """
    return f"""
import io, json, sys
from contextlib import suppress
from monai.bundle import ConfigWorkflow

workflows = [ConfigWorkflow(workflow_type="train", config_file=files, **given) for files, given in {list(given)!r}]

def run(workflow):
    before, sys.stderr = sys.stderr, io.StringIO()
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    except SystemExit:
        pass  # has said its sentence
    except Exception as error:
        with suppress(SystemExit):
            sys.excepthook(type(error), error, error.__traceback__)
    finally:
        said, sys.stderr = sys.stderr.getvalue(), before
    return said
"""


def run_workflow(chosen: Any) -> None:
    """Run a workflow of MONAI as its command line does."""
    chosen.initialize()
    chosen.run()
    chosen.finalize()


def in_processes(function: Callable[..., Any], processes: int, *arguments: Any) -> list[Any]:
    """What a function of a test module returns in each of several gloo processes."""
    with tempfile.TemporaryDirectory() as folder:
        spawned = torch.multiprocessing.start_processes(
            _in_process, (processes, folder, function, arguments), nprocs=processes, start_method="fork"
        )
        assert spawned is None or spawned.join()
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def _in_process(rank: int, processes: int, folder: str, function: Callable[..., Any], arguments: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=processes)
    torch.save(function(*arguments), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
