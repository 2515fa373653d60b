"""The packages that travel as wheels to a machine without network that has PyTorch and the usual others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# What pyproject.toml asks for and such a machine often lacks. itk stays behind (its parts are over 100 MB): nothing
# here reads NRRD, MHA or compressed DICOM, and it is imported only for these.
NEEDED = (
    "monai",
    "pytorch-ignite",
    "nibabel",
    "pydicom",
    "isal",
    "fire",
    "termcolor",
    "jsonschema",
    "jsonschema-specifications",
    "referencing",
    "rpds-py",
    "imagehash",
    "PyWavelets",
)
PEERS = ("lightly", "lightly_utils", "lightning-utilities", "kornia", "kornia_rs")  # what G3 is compared with
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)


def download(folder: Path, python: str) -> str:
    """Download the wheels for a version of Python on Linux x86-64; the sizes as text.

    Raises:
        subprocess.CalledProcessError: pip found no such wheel, or no network.
    """
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    line += ["--implementation", "cp", "--python-version", python]
    for platform in PLATFORMS:
        line += ["--platform", platform]
    subprocess.run([*line, *NEEDED, *PEERS], check=True)
    wheels = sorted(folder.glob("*.whl"))
    sizes = [f"{path.stat().st_size / 2**20:6.2f} MiB  {path.name}" for path in wheels]
    total = sum(path.stat().st_size for path in wheels) / 2**20
    return "\n".join([*sizes, f"{total:6.2f} MiB  in all"])
