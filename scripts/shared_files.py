"""What bundles share: whole files and parts of files, copied from one template, so that each bundle runs alone.

`scripts/bundle_template/` has a folder of shared files for all bundles (`all`) and one for each family (`pretraining`,
`classification`), which adds to it. What a template leaves to the bundle says so:

- JSON: a value "{{own}}" is the bundle's; a key "{{own}}" stands for further entries.
- Markdown: shared is only what stands between `<!-- shared: NAME -->` and `<!-- /shared -->`, and such a part has to
  be in the bundle's file too. The bundle may give values in its mark: `<!-- shared: commands data=COVID -->`. In
  `<!-- shared table: NAME -->` the rows that the template has are shared, by their first cell; a cell {{own}} in them,
  and other rows, are the bundle's.
- Other texts: a paragraph {{own}} stands for any paragraphs of the bundle.

{{bundle}}, {{methods}}, {{published}}, {{paper_titles}} and the values of a mark are filled in.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import UserError
from lessismore_transforms.methods import METHODS
from lessismore_transforms.wording import listed

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = ROOT / "bundles"
TEMPLATE = ROOT / "scripts" / "bundle_template"
FAMILIES = ("pretraining", "classification")
OWN = "{{own}}"
TO_WRITE = "To write:"  # begins what a new bundle leaves to its author

_PART = re.compile(
    r"(?P<mark><!-- shared(?P<table> table)?: (?P<name>\w+)(?P<values>[^\n]*) -->\n)(?P<text>.*?)<!-- /shared -->\n",
    re.DOTALL,
)


def family_of(bundle: str) -> str | None:
    """The family that a bundle's name ends with; None for a bundle of its own kind."""
    return next((family for family in FAMILIES if bundle.endswith(f"_{family}")), None)


def shared_files(bundle: str) -> dict[str, list[Path]]:
    """The templates of each file that a bundle shares something of, by the file's path in the bundle."""
    found: dict[str, list[Path]] = {}
    for layer in filter(None, ("all", family_of(bundle))):
        for path in sorted((TEMPLATE / layer).rglob("*")):
            if path.is_file():
                found.setdefault(path.relative_to(TEMPLATE / layer).as_posix(), []).append(path)
    return found


def as_shared(folder: Path) -> dict[str, str]:
    """The text that each of a bundle's shared files should have: the template's, and in it what is the bundle's own.

    Raises:
        UserError: a file that is not shared as a whole is absent, or lacks what the template leaves to it.
    """
    texts = {}
    for name, templates in shared_files(folder.name).items():
        text = (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else None
        for template in templates:
            try:
                texts[name] = text = _merged(template, text, folder.name)
            except UserError as error:
                raise UserError(f"{folder.name}/{name}: {error}") from error
    return texts


def differing(folder: Path) -> list[str]:
    """Paths of the shared files of a bundle that are not as they should be.

    Raises:
        UserError: as of `as_shared`.
    """
    return [name for name, text in as_shared(folder).items() if not _equals(folder / name, text)]


def update(folder: Path) -> list[str]:
    """Write the shared files of a bundle that are not as they should be; returns their paths.

    Raises:
        UserError: as of `as_shared`.
    """
    texts, names = as_shared(folder), differing(folder)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(texts[name], encoding="utf-8")
    return names


def unwritten(folder: Path) -> list[str]:
    """Paths of a bundle's files in which its author has left something to write."""
    texts = (path for path in sorted(folder.rglob("*")) if path.suffix in (".md", ".txt", ".json", ".py"))
    return [path.relative_to(folder).as_posix() for path in texts if TO_WRITE in path.read_text(encoding="utf-8")]


def parts_of(markdown: str) -> dict[str, str]:
    """The shared parts of a Markdown text, by name."""
    return {part["name"]: part["text"] for part in _PART.finditer(markdown)}


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text with each {{name}} replaced by its value; {{own}} stays.

    Raises:
        UserError: there is no such value.
    """
    names = {name: value for name, value in values.items() if name != "own"} | {"own": OWN}
    if unknown := [name for name in re.findall(r"\{\{(\w+)\}\}", text) if name not in names]:
        raise UserError(f"expected a value of {unknown[0]}, found none: give one in the mark, {unknown[0]}=VALUE")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: names[match[1]], text)


def known_values(bundle: str) -> dict[str, str]:
    """What every template may name: the bundle, and the methods that there are."""
    rows = METHODS.values()
    return {
        "bundle": bundle,
        "methods": listed([f"`{row.name}`" for row in rows], "or"),
        "published": listed(row.title for row in rows if row.layout),
        "paper_titles": ", ".join(f"`{row.title}`" for row in rows if row.paper),
    }


def _equals(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _merged(template: Path, present: str | None, bundle: str) -> str:
    """A template's text, with what is the bundle's own in `present`."""
    known, text = known_values(bundle), template.read_text(encoding="utf-8")
    if template.suffix == ".md":
        return _merged_markdown(text, present or "", known)
    text = filled(text, known)
    if OWN not in text:
        return text
    if present is None:
        raise UserError("expected what is the bundle's own in this file, found no file: write it")
    if template.suffix == ".json":
        return json.dumps(_merged_json(json.loads(text), json.loads(present), ""), indent=4, ensure_ascii=False) + "\n"
    return _merged_paragraphs(text, present)


def _merged_json(template: Any, present: Any, place: str) -> Any:
    if not isinstance(template, dict) or not isinstance(present, dict):
        return template
    merged = {}
    for key in (*present, *(key for key in template if key not in present)):  # in the order of the bundle
        if key == OWN or (key not in template and OWN not in template):
            continue
        shared = template.get(key, OWN)
        if shared == OWN and key not in present:
            raise UserError(f"expected an own value of {place}{key}, found none: write one")
        merged[key] = present[key] if shared == OWN else _merged_json(shared, present.get(key), f"{place}{key}#")
    return merged


def _merged_paragraphs(template: str, present: str) -> str:
    """Between as many paragraphs at the start and at the end as the template has there, the bundle's own."""
    head, _, tail = template.partition(f"{OWN}\n\n")
    own = present.split("\n\n")[head.count("\n\n") : -tail.count("\n\n") - 1]
    return "".join([head, *(f"{paragraph}\n\n" for paragraph in own), tail])


def _merged_markdown(template: str, present: str, known: Mapping[str, str]) -> str:
    shared = {part["name"]: part["text"] for part in _PART.finditer(template)}
    there = [part["name"] for part in _PART.finditer(present)]
    for name in shared:
        if name not in there:
            raise UserError(
                f"expected a shared part {name!r}, found none: add <!-- shared: {name} --> and <!-- /shared -->"
            )
    for name in there:
        if name not in shared or there.count(name) > 1:
            raise UserError(
                f"expected shared parts out of {', '.join(shared)}, each once, found {name!r}: drop its marks"
            )

    def one(part: re.Match[str]) -> str:
        given = dict(word.partition("=")[::2] for word in shlex.split(part["values"]))
        text = filled(shared[part["name"]], {**known, **given})
        if part["table"]:
            text = _merged_table(text, part["text"])
        return f"{part['mark']}{text}<!-- /shared -->\n"

    return _PART.sub(one, present)


def _merged_table(template: str, present: str) -> str:
    """The template's text, its table with the cells and rows that are the bundle's own."""
    before, table, after = _around_table(template)
    shared, rows = {row[0]: row for row in table}, {row[0]: row for row in _around_table(present)[1]}
    for key, row in shared.items():
        if OWN in row and key not in rows:
            raise UserError(f"expected own cells in a row {key!r} of the table, found no such row: write it")
    merged = {key: _with_own(shared[key], row) if key in shared else row for key, row in rows.items()}
    order = list(merged)
    for earlier, key in itertools.pairwise(shared):
        if key not in order:
            order.insert(order.index(earlier) + 1, key)
    lines = [f"| {' | '.join(merged.get(key) or shared[key])} |\n" for key in order]
    return "".join([before, *lines, after]).replace("| --- ", "|---")


def _with_own(shared: list[str], own: list[str]) -> list[str]:
    return [mine if cell == OWN else cell for cell, mine in itertools.zip_longest(shared, own, fillvalue="")]


def _around_table(text: str) -> tuple[str, list[list[str]], str]:
    """What is before a table, its rows as cells, and what is after it."""
    lines = text.splitlines(keepends=True)
    places = [number for number, line in enumerate(lines) if line.startswith("|")]
    if not places:
        raise UserError("expected a table in a shared table, found none: write its first row")
    first, last = places[0], places[-1] + 1
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[first:last]]
    return "".join(lines[:first]), rows, "".join(lines[last:])
