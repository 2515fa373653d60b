"""CT series of the Imaging Data Commons: chosen in the index that comes with idc-index, got by its own client."""

from __future__ import annotations

import difflib
import logging
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessismore_transforms.errors import IncompleteError, OutputError, UserError, first_line
from lessismore_transforms.wording import count, counted

if TYPE_CHECKING:
    import pandas as pd

_TEMPLATE = "%PatientID/%StudyInstanceUID/%Modality_%SeriesInstanceUID"  # of folders, as the client fills it
_ROUNDED = 0.01  # MB; the index rounds sizes


@dataclass(frozen=True)
class Choice:
    """What is got.

    Args:
        series: rows of the index, a CT series each.
    """

    series: pd.DataFrame

    @property
    def licences(self) -> str:
        """As the index tells them."""
        return ", ".join(sorted(set(self.series["license_short_name"])))

    @property
    def megabytes(self) -> float:
        """Of all files."""
        return float(self.series["series_size_MB"].sum())

    def told(self) -> str:
        """`20 patients, 20 CT series, 2,700 files, 1.4 GB`."""
        patients = self.series["PatientID"].nunique()
        files = int(self.series["instanceCount"].astype(int).sum())
        return (
            f"{counted(patients, 'patient')}, {count(len(self.series))} CT series, {counted(files, 'file')}, "
            f"{self.megabytes / 1000:.1f} GB"
        )


def open_client() -> Any:
    """The client of idc-index.

    Raises:
        UserError: it is not installed, or cannot start.
    """
    try:
        from idc_index import IDCClient
    except ModuleNotFoundError as error:
        raise UserError(
            "the Imaging Data Commons need the package idc-index: pip install 'lessismore-transforms[download]'"
        ) from error
    try:
        return IDCClient()
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"idc-index cannot start: {first_line(error)}: install it again") from error


def choose(client: Any, collection: str, patients: int | None, ids: Sequence[str]) -> Choice:
    """The CT series of a collection, of the first patients by id or of those that are named.

    Raises:
        UserError: the collection has no such patient, or both ways to choose are given.
    """
    if patients is not None and ids:
        raise UserError("expected --patients or --ids, found both: leave one of them out")
    index = client.index
    series = index[(index["collection_id"] == collection) & (index["Modality"] == "CT")]
    known = sorted(series["PatientID"].unique())
    for name in ids:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise UserError(f"expected a patient of {collection}, found {name!r}: the nearest one is {close[0]}")
    if patients is not None and patients > len(known):
        raise UserError(
            f"expected at most {counted(len(known), 'patient')} of {collection}, found {patients}: leave it out for all"
        )
    chosen = list(ids) or known[:patients]
    kept = series[series["PatientID"].isin(chosen)].sort_values(["PatientID", "SeriesInstanceUID"])
    return Choice(kept.reset_index(drop=True))


def transfer(client: Any, choice: Choice, folder: Path) -> None:
    """Get all files that are not there yet, and look whether all are there.

    Raises:
        OutputError: there is no room.
        UserError: the client fails.
        IncompleteError: files are missing at the end.
    """
    there = sum(_megabytes(folder / _place(row)) for row in choice.series.itertuples())
    free = shutil.disk_usage(folder).free / 1e6
    if choice.megabytes - there > free:
        raise OutputError(
            f"expected room for {(choice.megabytes - there) / 1000:.1f} GB in {folder}, found {free / 1000:.1f} GB: "
            "make room, or take fewer --patients, then run the same command again; what was got stays"
        )
    missing = [row for row in choice.series.itertuples() if not is_whole(row, folder)]
    if missing:
        logging.getLogger("idc_index").setLevel(logging.ERROR)  # it takes a network that is lost for nothing to do
        try:
            client.download_from_selection(
                downloadDir=str(folder.resolve()),
                seriesInstanceUID=[row.SeriesInstanceUID for row in missing],
                quiet=True,
                show_progress_bar=True,
                use_s5cmd_sync=there > 0,
                dirTemplate=_TEMPLATE,
            )
        except (subprocess.SubprocessError, OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"idc-index ends with {first_line(error)}: look at the network, then run the same command again to go "
                "on; what was got stays"
            ) from error
    lacking = [row for row in missing if not is_whole(row, folder)]
    if lacking:
        raise IncompleteError(
            f"{len(lacking)} of {len(choice.series)} series are not whole in {folder}, first {_place(lacking[0])}: "
            "look at the network, then run the same command again to go on; what was got stays"
        )


def is_whole(row: Any, folder: Path) -> bool:
    """Whether all files of a series are there, by number and size as the index tells them."""
    place = folder / _place(row)
    files = list(place.glob("*.dcm"))
    return len(files) == int(row.instanceCount) and abs(_megabytes(place) - float(row.series_size_MB)) <= _ROUNDED


def _place(row: Any) -> Path:
    return Path(row.PatientID, row.StudyInstanceUID, f"{row.Modality}_{row.SeriesInstanceUID}")


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.dcm")) / 1e6
