"""P1 to P3, P11 and P12: whole processes, from files to a manifest, beside the released way."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench_tools import (
    ROOT,
    Bench,
    Row,
    Times,
    comparison,
    descendants,
    for_slices,
    median_s,
    nifti_shape,
    nifti_slices,
    say,
    timed,
)

RELEASED = [sys.executable, str(ROOT / "scripts" / "released_way.py")]
OURS = """
import sys
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings

dataset, out, png, released, threshold, workers = sys.argv[1:]
reduce_dataset(
    dataset,
    out,
    Settings(
        target=Target.of(threshold=float(threshold), rule="exemplars"),
        pixels="released" if released else "clipped",
        as_released=bool(released),
        keep_patient_ids=True,
    ),
    workers=int(workers) if workers else None,
    png_dir=png or None,
)
"""
IMPORTED = """
import sys
from lessismore_transforms.cli.main import main
code = main(sys.argv[1:])
heavy = sorted({"torch", "monai"} & set(sys.modules))
sys.exit(code or (f"imported: {', '.join(heavy)}" if heavy else 0))
"""


def nifti(bench: Bench) -> Iterator[Row]:
    """P1: NIfTI.gz volumes to manifest and PNG files."""
    dataset, count = link_volumes(bench, "nifti", bench.sizes.slices)
    yield from compare_volumes(bench, "P1", "nifti", "NIfTI.gz", dataset, count, (12, 8))


def dicom(bench: Bench) -> Iterator[Row]:
    """P2: the same volumes as uncompressed DICOM."""
    from lessismore_transforms.phantom import write_dicom

    dataset, count = bench.new("dicom"), 0
    say(f"writing {bench.sizes.slices} DICOM files")
    for number, path in enumerate(cycle(bench.volumes)):
        if count >= bench.sizes.slices:
            break
        patient = f"LIDC-IDRI-{number:04d}"
        scan = as_scan(patient, nifti_slices(path))
        count += len(write_dicom(scan, dataset / patient / "study" / "series"))
    yield from compare_volumes(bench, "P2", "dicom", "DICOM", dataset, count, (15, 10))
    bench.new("dicom")


def compare_volumes(
    bench: Bench, goal: str, kind: str, name: str, dataset: Path, count: int, wanted: tuple[int, int]
) -> Iterator[Row]:
    """Ours with and without PNG files, and with the default settings, against the released way."""
    theirs, out, png = (bench.work / f"{kind}_{part}" for part in ("released", "ours", "png"))
    variants = {"manifest": ("", "1"), "manifest and PNG": (str(png), "1"), "manifest, default settings": ("", "")}
    times: dict[str, list[Times]] = {step: [] for step in ("released", *variants)}
    kept: dict[str, list[str]] = {}
    for number in range(bench.sizes.rounds):
        say(f"{goal}: {count} slices as {name}, round {number + 1} of {bench.sizes.rounds}")
        bench.new(theirs.name)
        times["released"].append(timed([*RELEASED, kind, str(dataset), str(theirs), "--threshold", "6"]))
        for step, (png_dir, released) in variants.items():
            bench.new(out.name), bench.new(png.name)
            times[step].append(timed(ours(dataset, out, png=png_dir, released=released)))
            kept[step] = kept_names(out, kind) if released else []
            if png_dir:
                same_pictures = equal_folders(png, theirs / "kept")
    names = sorted(path.name for path in (theirs / "kept").iterdir())
    equal = {
        "manifest": kept["manifest"] == names,
        "manifest and PNG": kept["manifest and PNG"] == names and same_pictures,
    }
    for step, least in zip(variants, (*wanted, None), strict=True):
        yield comparison(
            goal,
            f"{name} to {step}",
            times["released"],
            times[step],
            wanted=least,
            equal=equal.get(step),
            judged_by="wall",
            show=for_slices(count),
        )


def pngs(bench: Bench) -> Iterator[Row]:
    """P3: the released PNG folder to manifest."""
    source = bench.work / "nifti_released" / "png"
    if not source.is_dir():
        say("P3: writing the PNG files")
        dataset, _ = link_volumes(bench, "nifti", bench.sizes.pngs)
        timed([*RELEASED, "nifti", str(dataset), str(bench.new("nifti_released"))])
    folder, theirs, out = bench.new("pngs"), bench.work / "png_released", bench.work / "png_ours"
    folder.mkdir()
    for path in sorted(source.iterdir())[: bench.sizes.pngs]:
        (folder / path.name).hardlink_to(path)
    reference, times = [], []
    for number in range(max(bench.sizes.rounds, 3)):
        say(f"P3: {bench.sizes.pngs} PNG files, round {number + 1}")
        bench.new(theirs.name), bench.new(out.name)
        reference.append(timed([*RELEASED, "png", str(folder), str(theirs), "--threshold", "6"]))
        times.append(timed(ours(folder, out, released="1")))
    equal = kept_names(out, "png") == sorted(path.name for path in (theirs / "kept").iterdir())
    yield comparison(
        "P3",
        "PNG folder to manifest",
        reference,
        times,
        wanted=5,
        equal=equal,
        judged_by="wall",
        show=for_slices(bench.sizes.pngs),
    )


def memory(bench: Bench) -> Iterator[Row]:
    """P11: the most memory that one process of a reduction takes, short and long volumes."""
    import nibabel

    from lessismore_transforms.phantom import write_dicom

    say(f"P11: writing volumes of {bench.sizes.long} slices")
    volume = np.concatenate([nifti_slices(path) for path in bench.volumes])
    many = np.stack([np.roll(volume[i % len(volume)], 11 * i, axis=1) for i in range(bench.sizes.long)])
    for name, hu in (("short", volume[:100]), ("long", many)):
        (bench.work / f"{name}_nifti" / "p" / "study").mkdir(parents=True)
        nibabel.save(
            nibabel.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1])),
            bench.work / f"{name}_nifti" / "p" / "study" / "CT.nii",
        )
        subprocess.run(["gzip", "-1", bench.work / f"{name}_nifti" / "p" / "study" / "CT.nii"], check=True)
        write_dicom(as_scan(name, hu), bench.work / f"{name}_dicom" / "p" / "study" / "series")
    for kind in ("nifti", "dicom"):
        released = peak_mib([*RELEASED, kind, str(bench.work / f"short_{kind}"), str(bench.new("memory"))])
        for name, count in (("short", 100), ("long", len(many))):
            out = bench.new("memory")
            peak = peak_mib(ours(bench.work / f"{name}_{kind}", out, threshold=3, workers="1"))
            kept = len(kept_names(out, kind))
            yield Row(
                goal="P11",
                step=f"{kind}, a volume of {count} slices ({kept} kept), process with the most memory",
                reference=f"{released:.0f} MiB" if name == "short" else "",
                ours=f"{peak:.0f} MiB",
                wanted="<= 300 MiB",
                met=peak <= 300,
            )
    for name in ("short_nifti", "long_nifti", "short_dicom", "long_dicom", "memory"):
        bench.new(name)


def start(bench: Bench) -> Iterator[Row]:
    """P12: the time until a command answers, and the large packages that it imports."""
    from lessismore_transforms.phantom import write_demo_data

    write_demo_data(bench.new("small"), patients=2, slices=20, size=64)
    command = [
        sys.executable,
        "-c",
        IMPORTED,
        "reduce",
        str(bench.work / "small"),
        "--output_dir",
        str(bench.new("out")),
    ]
    done = subprocess.run([*command, "--workers", "0"], capture_output=True, text=True, check=False)
    if done.returncode and "imported:" not in done.stderr:
        raise RuntimeError(f"reduce failed: {done.stderr}")
    found = done.stderr.rpartition("imported: ")[2].strip() if done.returncode else "none"
    yield Row("P12", "torch or MONAI imported by reduce --workers 0", "", found, wanted="none", met=not done.returncode)
    python, module = sys.executable, [sys.executable, "-m", "lessismore_transforms"]
    for step, line in (
        ("python, nothing imported", [python, "-c", "pass"]),
        ("import lessismore_transforms", [python, "-c", "import lessismore_transforms"]),
        ("reduce --help", [*module, "reduce", "--help"]),
        (
            "reduce, 40 slices, --workers 0",
            [*module, "reduce", str(bench.work / "small"), "--workers", "0", "--output_dir"],
        ),
        ("reduce, 40 slices", [*module, "reduce", str(bench.work / "small"), "--output_dir"]),
    ):
        folders = [[tempfile.mkdtemp(dir=bench.work)] for _ in range(bench.sizes.rounds)]
        times = [timed([*line, *(folder if line[-1] == "--output_dir" else [])]) for folder in folders]
        seconds = f"{median_s(times, 'wall'):.2f} s, {median_s(times):.2f} s of CPU"
        yield Row("P12", step, "", seconds)


# Commands, and what came of them.


def ours(
    dataset: Path, out: Path, *, png: str = "", released: str = "", threshold: int = 6, workers: str = ""
) -> list[str]:
    """The command that reduces `dataset` into `out`; with the released scripts' settings if `released` is not empty."""
    return [sys.executable, "-c", OURS, str(dataset), str(out), png, released, str(threshold), workers]


def peak_mib(command: Sequence[str]) -> float:
    """The largest resident set that any process of a command had, in MiB, from /proc."""
    peaks: dict[int, float] = {}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while process.poll() is None:
            for pid in descendants(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), high_water_mib(pid))
            time.sleep(0.005)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command[:4])} ... failed:\n{output.read().decode()}")
    return max(peaks.values())


def high_water_mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def kept_names(out: Path, kind: str) -> list[str]:
    """The names that the released way gives to the slices that the default selection in `out` keeps, sorted."""
    records = json.loads((out / "manifest.json").read_text())["volumes"]
    prefixes = {
        record["volume"]: record["patient"] + (f"_{number}" if kind == "nifti" else "")
        for number, record in enumerate(records, start=1)
    }
    first = {record["volume"]: record.get("first_number", 0) for record in records}
    with (
        (out / "manifest.csv").open(newline="") as table,
        (out / "selections" / "default.csv").open(newline="") as chosen,
    ):
        pairs = zip(csv.DictReader(table), csv.DictReader(chosen), strict=True)
        return sorted(
            Path(row["path"]).name
            if kind == "png"
            else f"{prefixes[row['volume']]}_{first[row['volume']] + int(row['index'])}.png"
            for row, choice in pairs
            if choice["kept"] == "1"
        )


def equal_folders(ours: Path, theirs: Path) -> bool:
    """Whether two folders hold pictures of the same names and the same pixels."""
    from PIL import Image

    names = sorted(path.name for path in theirs.iterdir())
    return names == sorted(path.name for path in ours.iterdir()) and all(
        np.array_equal(np.asarray(Image.open(ours / name)), np.asarray(Image.open(theirs / name))) for name in names
    )


# Data.


def warm_up(bench: Bench) -> None:
    """Compile the kernels, which are cached on disk, and read the files once, so that no round includes this."""
    from lessismore_transforms.phantom import write_demo_data

    say("warming up")
    write_demo_data(bench.new("warm"), patients=2, slices=20, size=64)
    for released in ("", "1"):
        timed(
            ours(
                bench.work / "warm", bench.new("out"), png=str(bench.work / "warm_png"), released=released, workers="1"
            )
        )
    pictures = bench.new("warm_pictures")
    pictures.mkdir()
    for path in (bench.work / "warm_png").iterdir():
        path.rename(pictures / f"LIDC-IDRI-0001_{len(list(pictures.iterdir()))}.png")
    timed(ours(pictures, bench.new("out"), released="1", workers="1"))
    for path in bench.volumes:
        path.read_bytes()


def link_volumes(bench: Bench, name: str, least: int) -> tuple[Path, int]:
    """A data set PATIENT/STUDY/CT.nii.gz of repeated links to the volumes, and its number of slices."""
    dataset, count = bench.new(name), 0
    for number, path in enumerate(cycle(bench.volumes)):
        if count >= least:
            break
        study = dataset / f"PETCT_{number:010x}" / "study"
        study.mkdir(parents=True)
        (study / "CT.nii.gz").symlink_to(path)
        count += nifti_shape(path)[2]
    return dataset, count


def as_scan(patient: str, hu: npt.NDArray[np.int16]) -> Any:
    """HU (S, H, W) as the scan of a patient, for the phantom's writers."""
    from lessismore_transforms.phantom import PhantomScan

    return PhantomScan(hu, (1.0, 0.8, 0.8), (-200.0, -200.0, 0.0), patient, (), ())
