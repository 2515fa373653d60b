"""CT series of the Imaging Data Commons: the real index, and a client with the real signatures that writes files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pandas as pd
import pytest

from lessismore_transforms.downloads import idc
from lessismore_transforms.downloads.idc import choose, is_whole, transfer
from lessismore_transforms.errors import IncompleteError, OutputError, UserError

idc_index = pytest.importorskip("idc_index", reason="idc-index is not installed: pip install -e '.[download]'")
COLUMNS = [
    "collection_id", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "instanceCount",
    "series_size_MB", "license_short_name",
]  # fmt: skip


@pytest.fixture(scope="module")
def index() -> pd.DataFrame:
    """The rows of both collections in the index that comes with the package."""
    import idc_index_data

    wanted = [("collection_id", "in", ["lidc_idri", "fdg_pet_ct_lesions"])]
    rows = pd.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH, columns=COLUMNS, filters=wanted)
    return rows.astype({"series_size_MB": float})


def fake_client(index: pd.DataFrame, *, share: float = 1.0, error: Exception | None = None) -> Any:
    """A client whose calls have to fit the signatures of idc-index; it writes a share of each series' files."""
    client = create_autospec(idc_index.IDCClient, instance=True)
    client.index = index

    def write(downloadDir: str, *, seriesInstanceUID: list[str], dirTemplate: str, **_: Any) -> None:  # noqa: N803
        rows = index[index["SeriesInstanceUID"].isin(seriesInstanceUID)]
        for row in rows.itertuples():
            place = dirTemplate
            for name in ("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality"):
                place = place.replace(f"%{name}", str(getattr(row, name)))
            folder, count = Path(downloadDir) / place, int(row.instanceCount)
            folder.mkdir(parents=True, exist_ok=True)
            size = round(row.series_size_MB * 1e6 / count)
            for number in range(int(count * share)):
                with (folder / f"{number}.dcm").open("wb") as file:
                    file.truncate(size)  # a hole, which takes no room
        if error is not None:
            raise error

    client.download_from_selection.side_effect = write
    return client


def test_the_index_holds_what_the_paper_used(index: pd.DataFrame) -> None:
    client = fake_client(index)
    everything = choose(client, "lidc_idri", None, ())
    assert everything.series["PatientID"].nunique() == 1010
    assert len(everything.series) == 1018  # the scans of LIDC-IDRI
    assert everything.licences == "CC BY 3.0"
    assert choose(client, "fdg_pet_ct_lesions", None, ()).series["PatientID"].nunique() == 900
    assert choose(client, "fdg_pet_ct_lesions", None, ()).licences == "CC BY 4.0"


def test_patients_by_number_and_by_name(index: pd.DataFrame) -> None:
    client = fake_client(index)
    chosen = choose(client, "lidc_idri", 20, ())
    names = [f"LIDC-IDRI-{number:04d}" for number in range(1, 21)]
    assert sorted(set(chosen.series["PatientID"])) == names
    assert set(chosen.series["Modality"]) == {"CT"}
    same = choose(client, "lidc_idri", None, names)
    pd.testing.assert_frame_equal(same.series, chosen.series)
    told = chosen.told()
    assert told.startswith("20 patients, ")
    assert told.endswith(f"{chosen.series['series_size_MB'].sum() / 1000:.1f} GB")
    with pytest.raises(UserError, match=r"found 'LIDC-IDRI-1010x': the nearest one is LIDC-IDRI-1010"):
        choose(client, "lidc_idri", None, ("LIDC-IDRI-1010x",))
    with pytest.raises(UserError, match=r"at most 1,010 patients of lidc_idri, found 2000"):
        choose(client, "lidc_idri", 2000, ())
    with pytest.raises(UserError, match=r"found both"):
        choose(client, "lidc_idri", 2, ("LIDC-IDRI-0001",))


def test_a_transfer_is_checked_and_goes_on(index: pd.DataFrame, tmp_path: Path) -> None:
    choice = choose(fake_client(index), "lidc_idri", 3, ())
    with pytest.raises(IncompleteError, match=r"3 of 3 series are not whole in .*what was got stays"):
        transfer(fake_client(index, share=0.5), choice, tmp_path)
    whole = fake_client(index)
    transfer(whole, choice, tmp_path)
    assert all(is_whole(row, tmp_path) for row in choice.series.itertuples())
    (call,) = whole.download_from_selection.call_args_list
    assert call.kwargs["use_s5cmd_sync"] is True  # half of the files were there
    again = fake_client(index)
    transfer(again, choice, tmp_path)
    again.download_from_selection.assert_not_called()
    more = fake_client(index)
    transfer(more, choose(more, "lidc_idri", 4, ()), tmp_path)
    (call,) = more.download_from_selection.call_args_list
    assert len(call.kwargs["seriesInstanceUID"]) == 1  # of the fourth patient alone


def test_no_network_and_no_room(index: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = choose(fake_client(index), "lidc_idri", 1, ())
    lost = fake_client(index, share=0.5, error=OSError("Network is unreachable"))
    with pytest.raises(UserError, match=r"idc-index ends with Network is unreachable: look at the network"):
        transfer(lost, choice, tmp_path)
    assert list(tmp_path.rglob("*.dcm"))
    monkeypatch.setattr(idc.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e6))
    with pytest.raises(OutputError, match=r"found 0.0 GB: make room, or take fewer --patients"):
        transfer(fake_client(index), choice, tmp_path)
