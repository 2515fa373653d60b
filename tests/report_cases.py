"""Made-up output folders for the report, the page that is made from one, and the slow, obvious rules."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.reduced.manifest import Manifest, write_manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.table_files import format_number, slice_id
from lessismore_transforms.reduction.hashing import format_hash
from lessismore_transforms.reduction.measures import rank_slices
from lessismore_transforms.reduction.selection import Ranking
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import write_report
from lessismore_transforms.report.summary import (
    VolumeSummary,
    summarise,
)
from lessismore_transforms.volumes import volume_id

VOID = {"meta", "img", "br", "rect", "input"}


@dataclass
class Case:
    """A volume of a made-up output folder."""

    hashes: list[int]
    unreadable: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    spacing: float = 1.0
    thumbnails: bool = False
    first_number: int | None = None
    ranked_to: int = 0
    patient: str = "patient-0815"
    series: str = "1.2.840.113619.2.55"
    path: str = "Doe^John 1970/CT 3"


def similarities(hashes: list[int]) -> NDArray[np.float64]:
    """A stand-in for SSIM: the share of the bits that are the same."""
    return np.array([[1 - bits_apart(one, other) / 64 for other in hashes] for one in hashes]).reshape(len(hashes), -1)


def rank_case(case: Case, measure: str, readable: NDArray[np.bool_]) -> Ranking:
    matrix = None if measure == "hash" else (similarities(case.hashes) + (measure == "mi"))[np.ix_(readable, readable)]
    ranking = rank_slices(measure, np.array(case.hashes, dtype=np.uint64), readable, matrix=matrix)
    left = ranking.rank <= case.ranked_to
    return Ranking(
        np.where(left, np.nan, ranking.removed_at),
        np.where(left, -1, ranking.removed_by),
        np.where(left, 0, ranking.rank),
    )


def make_out(out: Path, cases: list[Case], target: Target | None = None, *, measure: str = "hash", **info: Any) -> Path:
    rows, records = [], []
    (out / "store" / "thumbnails").mkdir(parents=True)
    for number, case in enumerate(cases):
        volume, count = volume_id(str(number)), len(case.hashes)
        readable = np.array([index not in case.unreadable for index in range(count)])
        ranking = rank_case(case, measure, readable)
        for index, value in enumerate(case.hashes):
            by = ranking.removed_by[index]
            rows.append(
                (
                    slice_id(volume, index), volume, case.patient, case.series, f"{case.path}/IM{index}.dcm",
                    str(index), str(index * case.spacing), "64", "48", format_hash(value) if readable[index] else "",
                    format_number(ranking.removed_at[index]), slice_id(volume, by) if by >= 0 else "",
                    str(ranking.rank[index] or ""), case.unreadable.get(index, ""),
                )
            )  # fmt: skip
        record = {
            "volume": volume, "patient": case.patient, "series": case.series, "format": "dicom", "path": case.path,
            "slices": count, "height": 64, "width": 48, "spacing_mm": [case.spacing, 0.5, 0.5], "plane": "axial",
            "crc32": "0x00000000", "notes": list(case.notes),
            "store": {"slices": 0, "crc32": "0x00000000", "sum": 0, "squares": 0},
        }  # fmt: skip
        if case.ranked_to:
            record["ranked_to"] = case.ranked_to
        records.append(record if case.first_number is None else {**record, "first_number": case.first_number})
        if case.thumbnails:
            grey = np.arange(count, dtype=np.uint8) * (250 // count)
            np.save(out / "store" / "thumbnails" / f"{volume}.npy", np.tile(grey[:, None, None], (1, 96, 96)))
    content = {"version": "9.9", "settings": {"pixels": "lung"}, "failures": [], "skipped": [], **info}
    content["settings"] = {"method": measure, **content["settings"]}
    write_manifest(out, rows, {**content, "volumes": records})
    Manifest.read(out).select(target or Target.of()).write(out, "default")
    return out


def walk_hashes(count: int, seed: int = 0, most: int = 3) -> list[int]:
    """Hashes that drift apart by up to `most` bits a step."""
    rng = np.random.default_rng(seed)
    value, result = 0, []
    for _ in range(count):
        for bit in rng.integers(0, 64, rng.integers(0, most + 1)).tolist():
            value ^= 1 << bit
        result.append(value)
    return result


def summaries_of(out: Path) -> list[VolumeSummary]:
    return list(summarise(Manifest.read(out), Selection.read(out)))


def bits_apart(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def count_exemplars(hashes: list[int], threshold: int) -> int:
    kept: list[int] = []
    for value in hashes:
        if all(bits_apart(value, other) > threshold for other in kept):
            kept.append(value)
    return len(kept)


def count_pairs(hashes: list[int], threshold: int) -> int:
    there = set(range(len(hashes)))
    pairs = [(bits_apart(hashes[i], hashes[j]), i, j) for j in range(len(hashes)) for i in range(j)]
    for distance, i, j in sorted(pairs):
        if distance <= threshold and {i, j} <= there:
            there.remove(j)
    return len(there)


def count_similar(hashes: list[int], threshold: float) -> int:
    return count_pairs(hashes, int(64 * (1 - threshold) + 1e-9))


def plain(rows: list[list[str]]) -> list[list[str]]:
    return [[cell.replace("\u00a0", " ") for cell in row] for row in rows]


class Page(HTMLParser):
    """Tables by id as rows of cell texts, the text of the page, its elements; fails on tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.marked: list[list[str]] = []
        self.texts: list[str] = []
        self._table: list[list[str]] = []
        self._mark = False
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(attributes.get("id", f"table {len(self.tables)}"), [])
        elif tag == "tr":
            self._table.append([])
            if attributes.get("class") == "chosen":
                self.marked.append(self._table[-1])
        elif tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & {*self.open}:
            self.texts.append(data)
            if "td" in self.open or "th" in self.open:
                self._table[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def bare(self) -> str:
        """The source without its pictures, whose base64 may hold any short word by chance."""
        return re.sub("base64,[A-Za-z0-9+/=]*", "", self.source)

    @property
    def numbers(self) -> dict[str, str]:
        """The tiles of the head: label and number."""
        return dict(re.findall(r"<dt>(?:<a[^>]*>)?([^<]*)(?:</a>)?</dt><dd>([^<]*)</dd>", self.source))

    @property
    def drawings(self) -> list[str]:
        sources = [attributes["src"] for tag, attributes in self.elements if tag == "img"]
        return [base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")).decode() for source in sources]

    def tiles(self, kind: str) -> list[str]:
        names = [a["aria-label"] for _, a in self.elements if a.get("class") == f"tile {kind}"]
        return [name.removesuffix(f", {kind}") for name in names]


def report(out: Path) -> Page:
    return Page(write_report(out))
