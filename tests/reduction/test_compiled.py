from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lessismore_transforms

CODE = """
import numpy as np
from numba.core import caching
caching.CacheImpl._locator_classes = []  # no folder can be written, as in a read-only container
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.intensity import min_max_uint8
picture = min_max_uint8(np.arange(64 * 64, dtype=np.int16).reshape(64, 64) % 97)
print(int(dhash(picture)))
"""


def test_without_a_place_for_a_cache_kernels_are_compiled_anew() -> None:
    """Root may write everywhere, so that the places are taken away from numba itself."""
    place = str(Path(lessismore_transforms.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": place}
    results = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
        for code in (CODE, CODE.replace("caching.CacheImpl._locator_classes = []", ""))
    ]
    assert [result.stderr for result in results] == ["", ""]
    assert results[0].stdout == results[1].stdout
    assert int(results[0].stdout) > 0


def test_the_first_run_on_a_machine_gives_the_bits_of_the_next_ones(tmp_path: Path) -> None:
    """Kernels that were just compiled and kernels from the cache add up floats in one order."""
    code = """
import numpy as np
from lessismore_transforms.reduction.ssim import ssim_matrix
slices = np.random.default_rng(0).integers(0, 256, (4, 32, 40), dtype=np.uint8)
print(ssim_matrix(slices).tobytes().hex())
"""
    place = str(Path(lessismore_transforms.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": place, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True).stdout
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc"))
    assert first == second


def test_numba_is_imported_when_a_kernel_is_called() -> None:
    code = """
import sys
import numpy as np
import lessismore_transforms.pipeline.run
from lessismore_transforms.reduction.intensity import pixel_sums
before = "numba" in sys.modules
print(before, pixel_sums(np.array([1, 2, 255], np.uint8)), "numba" in sys.modules)
"""
    place = str(Path(lessismore_transforms.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": place}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "False (258, 65030) True\n"


def test_a_cache_that_is_cut_short_or_cannot_be_written_is_no_damage_of_files(tmp_path: Path) -> None:
    """By a power cut or a full disk; the kernels are compiled anew, and the cache repairs itself."""
    code = """
import numpy as np
from lessismore_transforms.reduction.intensity import pixel_sums
print(pixel_sums(np.array([1, 2, 255], np.uint8)))
"""
    full = """
import errno
from numba.core import caching
def refuse(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
caching.IndexDataCacheFile.save = refuse
"""
    place = str(Path(lessismore_transforms.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": place, "NUMBA_CACHE_DIR": str(tmp_path)}

    def run(script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
        )
        assert done.stderr == ""
        return done.stdout

    expected = run(full + code)
    assert not list(tmp_path.rglob("*.nbc"))
    assert run(code) == expected
    for ending in ("nbc", "nbi"):
        (file,) = tmp_path.rglob(f"*.{ending}")
        file.write_bytes(file.read_bytes()[:20])
        assert run(code) == expected
    whole = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")}
    assert run(code) == expected
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")} == whole
