"""The scripts for SLURM, with stand-ins for its commands and for ours."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers import ROOT

from lessismore_transforms.reduced.picture_set import is_reduction

CLUSTER = ROOT / "scripts" / "cluster"
OPTIONS = {
    "job-name", "array", "nodes", "ntasks", "gres", "cpus-per-task", "mem", "time", "signal", "requeue", "open-mode",
    "output",
}  # fmt: skip


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, str]:
    """An environment in which `srun` runs its command, and the others write down what they are given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    said = f'echo "$(basename "$0") $*" >> {tmp_path}/calls\n'
    texts = dict.fromkeys(("lessismore", "scontrol"), said)
    texts |= {
        "srun": 'exec "$@"\n',
        "apptainer": said + 'while [[ "$1" != *.sif ]]; do shift; done; shift; exec "$@"\n',
    }
    texts["torchrun"] = said + f"trap 'touch {tmp_path}/saved; exit 143' TERM\n[[ \"$*\" == *--wait* ]] || exit 0\n"
    texts["torchrun"] += f"touch {tmp_path}/started; for i in {{1..200}}; do sleep 0.05; done\n"
    for name, text in texts.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (folder / name).chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "8"}
    return {"PATH": f"{folder}:{os.environ['PATH']}", **slurm, "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}


def call(script: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    line = ["bash", str(CLUSTER / script), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("script", ["reduce.sbatch", "pretrain.sbatch"])
def test_directives_are_those_of_slurm(script: str, commands: dict[str, str]) -> None:
    lines = (CLUSTER / script).read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    assert all(not line.startswith("#SBATCH") for line in lines[first:]), "SLURM reads none behind the first command"
    found = [re.fullmatch(r"#SBATCH --([a-z-]+)(=\S+)?", line) for line in lines if line.startswith("#SBATCH")]
    assert all(found)
    assert {each[1] for each in found if each} <= OPTIONS
    done = call(script, "x", env=commands)
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected ")


def test_an_array_shares_the_folders_out(tmp_path: Path, commands: dict[str, str]) -> None:
    for name in ("a", "b c", "d"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for task in ("1", "2"):
        done = call("reduce.sbatch", tmp_path / "data", "out", "--threshold", 6, cwd=tmp_path,
                    env={**commands, "SLURM_ARRAY_TASK_ID": task})  # fmt: skip
        assert done.returncode == 0, done.stderr
    links = {
        path.relative_to(tmp_path / "out" / "links").as_posix(): path.resolve()
        for path in tmp_path.glob("out/links/*/*")
    }
    assert links == {f"{job}/{name}": tmp_path / "data" / name for job, name in ((0, "a"), (1, "b c"), (0, "d"))}
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"lessismore reduce out/links/{job} --output_dir out/{job} --workers 8 --threshold 6" for job in (0, 1)
    ]
    third = {**commands, "SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "9"}
    (tmp_path / "data" / "download.json").touch()
    done = call("reduce.sbatch", tmp_path / "data", "other", cwd=tmp_path, env=third)
    assert (done.returncode, "nothing to do" in done.stdout) == (0, True)
    assert "that are no scans by their names, left out: 1\n" in done.stdout


def links_of(out: Path) -> dict[str, list[str]]:
    """The folders of each job."""
    return {str(job): sorted(link.name for link in (out / "links" / str(job)).glob("*")) for job in range(2)}


def test_a_patient_stays_with_his_job(tmp_path: Path, commands: dict[str, str]) -> None:
    for name in ("b", "c", "e"):
        (tmp_path / "data" / name).mkdir(parents=True)

    def submit(task: int, low: int, count: int, **more: str) -> subprocess.CompletedProcess[str]:
        slurm = {
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_MIN": str(low),
            "SLURM_ARRAY_TASK_COUNT": str(count),
        }
        return call("reduce.sbatch", tmp_path / "data", "out", cwd=tmp_path, env={**commands, **slurm, **more})

    assert submit(1, 1, 2).returncode == 0
    assert links_of(tmp_path / "out") == {"0": ["b", "e"], "1": ["c"]}
    (tmp_path / "data" / "a").mkdir()  # the first by name
    assert submit(2, 2, 1).returncode == 0  # the second job alone
    assert links_of(tmp_path / "out") == {"0": ["b", "e"], "1": ["a", "c"]}
    assert (tmp_path / "calls").read_text().splitlines()[1] == (
        "lessismore reduce out/links/1 --output_dir out/1 --workers 8"
    )
    done = submit(3, 1, 4)  # of a larger array
    assert done.returncode == 2
    assert "expected a job out of 1 to 2, among which" in done.stderr
    assert "found job 3: submit --array=1-2, or name another OUT" in done.stderr
    moved = tmp_path / "moved"
    (tmp_path / "data").rename(moved)
    (tmp_path / "data").symlink_to(moved)
    assert submit(1, 1, 2).returncode == 0
    assert links_of(tmp_path / "out") == {"0": ["b", "e"], "1": ["a", "c"]}
    assert {path.resolve() for path in (tmp_path / "out" / "links").glob("?/?")} == {moved / name for name in "abce"}


def test_jobs_that_begin_at_once_share_out_the_same(tmp_path: Path, commands: dict[str, str]) -> None:
    for number in range(40):
        (tmp_path / "data" / f"{number:02d}").mkdir(parents=True)
    line = ["bash", str(CLUSTER / "reduce.sbatch"), "data", "out"]
    jobs = [
        subprocess.Popen(line, cwd=tmp_path, env={**commands, "SLURM_ARRAY_TASK_ID": str(task)})
        for task in (1, 2, 1, 2)
    ]
    assert [job.wait(timeout=60) for job in jobs] == [0] * 4
    found = links_of(tmp_path / "out")
    assert (len(found["0"]), len(found["1"])) == (20, 20)
    assert len({*found["0"], *found["1"]}) == 40


@pytest.mark.parametrize("name", ["scan.nii.gz", "1.2.840.17", "IM0001", "slice.PNG"])
def test_scans_beside_the_folders_are_refused(name: str, tmp_path: Path, commands: dict[str, str]) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / name).touch()
    task = {**commands, "SLURM_ARRAY_TASK_ID": "1"}
    done = call("reduce.sbatch", tmp_path / "data", "out", cwd=tmp_path, env=task)
    assert done.returncode == 2
    assert (
        f"expected a folder for each patient in {tmp_path / 'data'}, found the file {name} beside them" in done.stderr
    )
    assert not (tmp_path / "out").exists()


def finish(output: Path) -> None:
    for name in ("manifest.json", "selections/default.csv"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).touch()


def test_unfinished_outputs_are_not_trained_on(tmp_path: Path, commands: dict[str, str]) -> None:
    def refused(out: str) -> str:
        done = call("pretrain.sbatch", "b", out, "run", cwd=tmp_path, env=commands)
        assert done.returncode == 2
        assert not (tmp_path / "calls").exists()
        return done.stderr

    (tmp_path / "none").mkdir()
    assert "expected an output of reduce, or a folder of those of an array, found none in none: fix OUT" in refused(
        "none"
    )
    for path in ("out/links/0/a", "out/links/1/b"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    finish(tmp_path / "out" / "0")
    assert "found that out/1 is not: let it end" in refused("out")  # not begun
    (tmp_path / "out" / "1" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "1" / "parts" / "settings.json").touch()
    finish(tmp_path / "out" / "1")  # of an earlier run: it is reduced again
    assert "found that out/1 is not: let it end" in refused("out")
    assert "found that out/1 is not: let it end" in refused("out/1")
    shutil.rmtree(tmp_path / "out" / "1" / "parts")
    assert call("pretrain.sbatch", "b", "out", "run", cwd=tmp_path, env=commands).returncode == 0
    assert "--dataset_dir ['out/0','out/1']" in (tmp_path / "calls").read_text()


def test_a_training_takes_all_outputs_and_goes_on(tmp_path: Path, commands: dict[str, str]) -> None:
    for name in ("0", "1"):
        finish(tmp_path / "out" / name)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.pt").touch()
    for out, environment in (("out", commands), ("out/0", {**commands, "LESSISMORE_IMAGE": "l.sif"})):
        assert call("pretrain.sbatch", "b", out, "run", "--seed", 1, cwd=tmp_path, env=environment).returncode == 0
    first, container, second = (tmp_path / "calls").read_text().splitlines()
    assert first == (
        "torchrun --standalone --nproc_per_node=4 -m monai.bundle run --config_file "
        "['b/configs/train.json','b/configs/multi_gpu_train.json'] --dataset_dir ['out/0','out/1'] --output_dir run "
        "--resume True --seed 1"
    )
    assert container.startswith("apptainer exec --nv l.sif torchrun ")
    assert "--dataset_dir out/0 --" in second


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("selections/default.csv", "manifest.json"), True),
        (("manifest.csv", "manifest.json", "store/index.csv"), True),  # the training tells of what was lost
        (("manifest.json",), False),
        (("manifest.csv", "manifest.json", "store/a.png"), False),
        (("parts/a.png", "manifest.json"), False),
    ],
)
def test_outputs_are_those_of_is_reduction(
    names: tuple[str, ...], taken: bool, tmp_path: Path, commands: dict[str, str]
) -> None:
    for name in names:
        (tmp_path / "out" / "0" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "0" / name).touch()
    assert is_reduction(tmp_path / "out" / "0") is taken
    for out, found in (("out", "['out/0']"), ("out/0", "out/0")):
        done = call("pretrain.sbatch", "b", out, "run", cwd=tmp_path, env=commands)
        assert done.returncode == (0 if taken else 2)
        assert taken == (not done.stderr)
        if taken:
            assert f"--dataset_dir {found} --" in (tmp_path / "calls").read_text()
        else:
            assert f"found none in {out}: fix OUT" in done.stderr


def test_a_training_is_queued_again_when_time_is_up(tmp_path: Path, commands: dict[str, str]) -> None:
    finish(tmp_path / "out")
    line = ["bash", str(CLUSTER / "pretrain.sbatch"), "b", "out", "run", "--wait"]
    job = subprocess.Popen(line, cwd=tmp_path, env=commands, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=20) == 143
    assert (tmp_path / "saved").exists()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "--resume False --wait" in calls[0]
    assert calls[1] == "scontrol requeue 7"
