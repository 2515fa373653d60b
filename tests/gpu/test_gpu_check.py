"""The check of a GPU: its dry run on the CPU, and what it does with steps that fail, hang or are left out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from gpu.page import TABLE, write_page, write_summary
from gpu.projection import hours
from gpu.running import run_all, run_step
from gpu.setup import QUICK, Figure, LeftOut, Setup
from gpu.shares import BACKWARD, LOADER, NETWORK, VIEWS, Shares
from gpu.side_by_side import side_by_side
from gpu.steps import STEPS, chosen
from gpu.training import tiny_settings
from gpu_check import main
from helpers import ROOT, bundle_environment
from reproduction.experiment_file import read_experiment
from warm_python import warm_run

CHEAP = ["method_swav", "variants_swav", "bench", "measure", "projection"]


def dry_run(folder: Path, *only: str) -> dict[str, dict]:
    """The results of steps in one process, by step."""
    line = [str(ROOT / "scripts" / "gpu_check.py"), "--here", "--device", "cpu", "--quick", "--output_dir", "check"]
    done = warm_run([*line, *(("--only", *only) if only else ())], cwd=folder, env=bundle_environment())
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return {step["step"]: step for step in json.loads((folder / "check" / "summary.json").read_text())["steps"]}


def values(result: dict, part: str) -> dict[str, str]:
    return {figure["what"]: figure["value"] for figure in result["figures"] if figure["part"] == part}


def test_a_dry_run(tmp_path: Path) -> None:
    found = dry_run(tmp_path, *CHEAP)
    assert list(found) == chosen(CHEAP)
    assert not any(step["failed"] for step in found.values())
    speed = values(found["method_swav"], "speed")
    shares = [float(value.rstrip(" %")) for what, value in speed.items() if what.startswith("share of")]
    assert len(shares) == 7
    assert sum(shares) == pytest.approx(100, abs=0.5)
    first = values(found["method_swav"], "first_step")
    assert first["loss of the first step, cpu, fp32: relative difference"] == "0.00e+00"
    assert 0 < float(first["gradient of the first step, cpu, bf16: 1 - cosine"]) < 0.1
    assert values(found["method_swav"], "resume")["stopped after step"] == "3"
    assert found["variants_swav"]["left_out"] == ["fp16: fp16 needs a GPU"]
    assert values(found["measure_dhash"], "hashes")["bits that differ from the CPU's, of 1,536"] == "0"
    assert (
        values(found["measure_deepnet"], "deepnet")[
            "float32, slices that the CPU in float32 keeps too, at 50, 20 and 10 %"
        ]
        == "4 of 4, 2 of 2, 1 of 1"
    )


@pytest.mark.slow
def test_a_dry_run_of_all_steps(tmp_path: Path) -> None:
    found = dry_run(tmp_path)
    assert list(found) == list(STEPS)
    assert not any(step["failed"] for step in found.values())
    same = values(found["side_by_side"], "side_by_side")
    assert same["the same, largest relative difference of 4 first losses"] == "0.00e+00"
    assert values(found["finetune"], "finetune")["finished"] == "run_00"


def test_all_dry_runs_train_by_the_same_tiny_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that compares trainings side by side, too, which hands them to the driver of experiments."""

    def stop(line: list[str]) -> None:
        raise LeftOut("the experiment is written")

    monkeypatch.setattr("gpu.side_by_side.run_command", stop)
    setup = Setup("cpu", QUICK, tmp_path)
    with pytest.raises(LeftOut, match="the experiment is written"):
        list(side_by_side(setup))
    given = read_experiment(setup.work / "side_by_side.json").pretrain_settings["all"]
    small = json.loads((ROOT / "scripts" / "experiments" / "tiny.json").read_text())["pretrain_settings"]
    assert given == small["all"] | small["SimCLR"] | {"backbone": "timm:test_resnet", "device": "cpu"}
    assert tiny_settings("simclr").items() <= given.items()


WRITE = (
    "import json, sys; json.dump({'step': 'a', 'figures': [], 'failed': [], 'left_out': []}, open(sys.argv[1], 'w'))"
)


def test_a_step_that_fails_or_hangs_does_not_stop_the_others(tmp_path: Path) -> None:
    codes = {"a": WRITE, "b": "raise SystemExit('no GPU left')", "c": "import time; time.sleep(60)", "d": WRITE}
    said: list[str] = []
    failed = run_all(
        list(codes),
        tmp_path,
        lambda name: [sys.executable, "-c", codes[name], str(tmp_path / f"{name}.json")],
        limit_s=1.5,
        deadline=time.monotonic() + 100,
        say=said.append,
    )
    assert failed == ["b", "c"]
    assert [line.split()[0] for line in said] == ["a:", "b:", "c:", "d:"]
    assert "ended with exit code 1: see b.log" in said[1]
    assert "no GPU left" in (tmp_path / "b.log").read_text()
    (sentence,) = json.loads((tmp_path / "c.json").read_text())["failed"]
    assert sentence.startswith("stopped after ")


def test_no_step_begins_when_the_time_is_up(tmp_path: Path) -> None:
    said: list[str] = []
    failed = run_all(["a"], tmp_path, lambda name: [], limit_s=1, deadline=time.monotonic() - 1, say=said.append)
    assert failed == ["a"]
    assert said == ["a: not run, the time is up"]


def test_a_part_that_fails_does_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(setup: Setup):
        yield Figure("pairs", "3", "4", equal=False)
        raise ValueError(f"no file in {ROOT}/scripts")

    def lacks(setup: Setup):
        raise LeftOut("no data")
        yield

    def works(setup: Setup):
        yield Figure("speed", "5", "> 6", met=False)

    parts = {"breaks": breaks, "lacks": lacks, "works": works}
    monkeypatch.setattr("gpu.running.parts", lambda step: parts)
    result = run_step("tests", Setup("cpu", QUICK, tmp_path))
    assert result["failed"] == ["breaks: pairs: expected 4, found 3", "breaks: ValueError: no file in ./scripts"]
    assert result["left_out"] == ["lacks: no data"]
    assert [figure["part"] for figure in result["figures"]] == ["breaks", "works"]
    assert json.loads((tmp_path / "tests.json").read_text()) == result
    write_summary(tmp_path, {"device": "a GPU"})
    table = (tmp_path / TABLE).read_text()
    assert "| speed | 5 | > 6 | **no** |  |" in table
    assert "- failed: breaks: pairs: expected 4, found 3" in table
    write_page(tmp_path, tmp_path / "speeds.md")
    page = (tmp_path / "speeds.md").read_text()
    assert "Measured on: device a GPU." in page
    assert table in page


def test_the_paper_s_hours_follow_from_the_measured_step(tmp_path: Path) -> None:
    setup = Setup("cpu", QUICK, tmp_path)
    with pytest.raises(LeftOut, match="method_swav"):
        list(hours(setup))
    figure = {"what": "pictures per second (resnet50, batch 128, bf16)", "value": "2000"}
    (tmp_path / "method_swav.json").write_text(json.dumps({"figures": [figure]}))
    found = {each.what.partition(":")[0]: each for each in hours(setup)}
    assert found["PET-CT ALL"].value == "60.1 h, 8.9x less"  # 4,229 batches of 128 x 800 / 2000 / 3600
    assert "541,312 slices x 800 epochs / 2000 per s" in found["PET-CT ALL"].what
    assert found["PET-CT HASH-6"].value == "5.4 h, 11.5x less"


def test_shares_of_a_step() -> None:
    shares = Shares("cpu", warm_up=1)
    step = [(VIEWS, 0.0), (NETWORK, 1.0), (BACKWARD, 3.0), (LOADER, 6.0)]
    shares._marks = [(part, 10.0 * number + moment) for number in range(4) for part, moment in step]
    shares._marks[0] = (VIEWS, -100.0)  # the warm-up does not count
    found = shares.seconds()
    assert {part: found[part] for part, _ in step} == {VIEWS: 1.0, NETWORK: 2.0, BACKWARD: 3.0, LOADER: 4.0}
    assert sum(found.values()) == 10


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["--only", "metod", "--device", "cpu"], "expected the beginning of a step's name out of tests, method_swav"),
        (["--device", "cpu", "--slices", "nowhere"], "expected a folder for --slices, found nowhere"),
        (["--page", "page.md"], "found no summary.json: run the check first"),
    ],
)
def test_mistakes(
    tmp_path: Path, line: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--output_dir", "check", *line]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "check").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output_dir", str(tmp_path / "check")]) == 2
    assert "expected a device that this machine has, found 'cuda'" in capsys.readouterr().err
