"""The table of settings in each bundle's README: every setting at the top of the configuration, with its default."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest
from helpers import BUNDLES, bundle_scripts, bundles
from new_bundle import as_documented, settings_of
from shared_files import OWN, TEMPLATE, family_of

from lessismore_transforms.options import options_of

every_bundle = pytest.mark.parametrize("bundle", bundles())


def configuration(bundle: str) -> dict[str, Any]:
    """What a bundle's main command reads."""
    folder = BUNDLES / bundle / "configs"
    path = next(path for name in ("train", "reduce", "inference") if (path := folder / f"{name}.json").is_file())
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def documented(path: Path) -> dict[str, tuple[str, str]]:
    """Default and meaning of each setting in a README's table."""
    _, head, rest = path.read_text(encoding="utf-8").partition("| setting | default | meaning |\n|---|---|---|\n")
    assert head, f"{path} has no table of settings"
    rows = [re.fullmatch(r"\| `(\w+)` \| (.+?) \| (.+) \|", line) for line in rest.partition("\n\n")[0].splitlines()]
    assert all(rows)
    found = {row[1]: (row[2], row[3]) for row in rows if row}
    assert len(found) == len(rows), "a setting stands there twice"
    return found


@every_bundle
def test_every_setting_stands_there_with_its_default(bundle: str) -> None:
    content, told = configuration(bundle), documented(BUNDLES / bundle / "docs" / "README.md")
    assert [name for name in content if name in told] == list(told)  # in the order of the configuration; none beside
    for name, value in settings_of(content).items():
        assert name in told, f"{name} is not in the table"
        default, meaning = told[name]
        assert meaning
        in_words = value is None and not re.fullmatch(r"`[^`]*`|-?[\d.e-]+|\[.*\]", default)
        assert default == as_documented(value) or in_words, f"{name}: {default}"


@every_bundle
def test_computed_defaults_are_told_in_words_or_by_their_place(bundle: str) -> None:
    content, told = configuration(bundle), documented(BUNDLES / bundle / "docs" / "README.md")
    assert told["output_dir"][0] == content["output_dir"].replace("$@bundle_root + '", "`<bundle_root>").replace(
        "'", "`"
    )
    computed = [name for name, value in content.items() if str(value).startswith(("$", "@")) and name in told]
    for name in computed:
        default = told[name][0]
        assert default.startswith("`<bundle_root>/") or re.fullmatch(r"[a-zA-Z][\w ,.-]+", default), (
            f"{name}: {default}"
        )


def settings_class(bundle: str) -> type | None:
    """The dataclass that a configuration reads its settings into; None where it does not say."""
    named = re.search(r"read_settings\('([\w.]+)\.(\w+)'\)", str(configuration(bundle).get("settings")))
    if named is None:
        return None
    module = bundle_scripts(bundle) if named[1] == "scripts" else importlib.import_module(named[1])
    kind: type = getattr(module, named[2])
    return kind


@pytest.mark.parametrize("bundle", [bundle for bundle in bundles() if settings_class(bundle)])
def test_meanings_and_defaults_are_those_of_the_dataclass(bundle: str) -> None:
    content, told = configuration(bundle), documented(BUNDLES / bundle / "docs" / "README.md")
    family = family_of(bundle)
    template = documented(TEMPLATE / family / "docs" / "README.md") if family else {}
    options = {option.name: option for option in options_of(settings_class(bundle))}
    assert list(told) == [name for name in content if name in options]
    for name, (_, meaning) in told.items():
        if name in settings_of(content) and options[name].default is not MISSING and options[name].role != "path":
            default = options[name].default
            assert content[name] == (list(default) if isinstance(default, tuple) else default), name
        if template.get(name, ("", ""))[1] != OWN:  # the README may add what is special about a shared setting
            assert meaning == options[name].help, name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "`true`"),
        ("auto", "`auto`"),
        (128, "128"),
        (1e-06, "1e-06"),
        (5.0, "5.0"),
        ([0.1806], "[0.1806]"),
    ],
)
def test_a_default_as_it_is_documented(value: Any, text: str) -> None:
    assert as_documented(value) == text
