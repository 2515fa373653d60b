"""Pages of the site that are written elsewhere: README, changes, commands, bundles, and the API room by room.

MkDocs calls the functions `on_...`. So each text exists once, and a new bundle, command or room has its page without
an edit here.
"""

from __future__ import annotations

import ast
import json
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lessismore_transforms"
COMMAND = f"python -m {PACKAGE}"
TEXTS = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
TUTORIAL = ROOT / "docs" / "tutorial"
EVIDENCE = ROOT / "docs" / "evidence"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the parts of the navigation that follow from folders."""
    pages = {
        "Bundles": [f"bundles/{bundle.name}.md" for bundle in _bundles()],
        "API": ["api/index.md", *({name: f"api/{name}.md"} for name in [*_rooms(), "files"])],
    }
    for section in config.nav or []:
        for part in next(iter(section.values())):
            if isinstance(part, dict):
                part.update({title: pages[title] for title in part if title in pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that lie outside of the documentation's folder."""
    for source, target in _elsewhere().items():
        files.append(File.generated(config, target, abs_src_path=str(source)))
    pages = {"commands.md": _commands(), "api/index.md": _names()}
    pages |= {f"api/{room}.md": _room(room) for room in _rooms()}
    pages["api/files.md"] = "# Files beside the rooms\n\n" + _described(ROOT / PACKAGE)
    for target, content in pages.items():
        files.append(File.generated(config, target, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page with its links as the site has them: in the repository they lead to files that the site has elsewhere."""
    source = page.file.abs_src_path
    if source is None:  # written above
        return markdown
    elsewhere, here = _elsewhere(), posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        path = (Path(source).parent / match[1]).resolve()
        if path.is_relative_to(config.docs_dir):
            target = path.relative_to(config.docs_dir).as_posix()
        else:
            target = elsewhere.get(path, "")
        return f"]({posixpath.relpath(target, here or '.')}" if target else match[0]

    plain = re.sub(r"^<!--.*-->$", "", markdown, flags=re.MULTILINE)  # marks for those who edit the file
    return re.sub(r"\]\((?![a-z]+:|#)([^)#\s]+)", moved, plain)


def _elsewhere() -> dict[Path, str]:
    """The files outside of the documentation's folder that the site has, and where."""
    found = {ROOT / source: target for source, target in TEXTS.items()}
    found |= {TUTORIAL / "README.md": "tutorial/index.md"}
    found |= {picture: f"tutorial/{picture.name}" for picture in sorted(TUTORIAL.glob("*.png"))}
    shown = [*EVIDENCE.glob("*.png"), *EVIDENCE.glob("*.txt")]
    found |= {each: f"evidence/{each.name}" for each in sorted(shown)}
    for bundle in _bundles():
        found[bundle / "docs" / "README.md"] = f"bundles/{bundle.name}.md"
        found |= {picture: f"bundles/{picture.name}" for picture in sorted((bundle / "docs").glob("*.png"))}
    return found


def _bundles() -> list[Path]:
    return sorted(path.parents[1] for path in (ROOT / "bundles").glob("*/docs/README.md"))


def _rooms() -> list[str]:
    """The folders of the package; the command line has its own page."""
    return sorted({path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")} - {"cli"})


def _room(name: str) -> str:
    """The page of a room: what its `__init__.py` says and defines itself, then its files."""
    folder = ROOT / PACKAGE / name
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    own = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    parts = [f"# {name}", ast.get_docstring(tree) or ""]
    parts += [f"::: {PACKAGE}.{name}.{each}" for each in own]
    return "\n\n".join([*parts, _described(folder)])


def _described(folder: Path) -> str:
    """The API of the files in a folder."""
    package = ".".join(folder.relative_to(ROOT).parts)
    return "".join(f"::: {package}.{path.stem}\n\n" for path in sorted(folder.glob("[a-z]*.py")))


def _commands() -> str:
    """The page of all commands: what `--help` prints."""
    summary = _help()
    commands = re.findall(r"^    ([a-z][a-z-]*)(?=\s|$)", summary, re.MULTILINE)
    parts = [
        "# Commands",
        f"`lessismore` is the same as `{COMMAND}`; what follows is what its `--help` prints. Exit codes: 0, or 1 where "
        "something failed that is named, or 2 for a mistake that a sentence explains.",
        f"```text\n{summary}\n```",
        *(f"## {command}\n\n```text\n{_help(command)}\n```" for command in commands),
    ]
    return "\n\n".join(parts) + "\n"


def _help(*command: str) -> str:
    return _python("-m", PACKAGE, *command, "--help").strip()


def _names() -> str:
    """The first page of the API: the rooms, and the names that the package itself offers of each."""
    homes = json.loads(_python("-c", f"import json, {PACKAGE}; print(json.dumps({PACKAGE}._HOMES))"))
    names: dict[str, list[str]] = {}
    for name, home in homes.items():
        names.setdefault(home.split(".")[1], []).append(f"[`{name}`][{home}.{name}]")
    rows = [
        f"| [{room}]({room}.md) | {_says(ROOT / PACKAGE / room / '__init__.py')} | {', '.join(names.get(room, []))} |"
        for room in _rooms()
    ]
    rows += [
        f"| [{name}](files.md) | {_says(ROOT / PACKAGE / f'{name}.py')} | {', '.join(names[name])} |"
        for name in sorted(set(names) - set(_rooms()))
    ]
    return (
        f"# API\n\nWhat users take is imported from the package itself, `from {PACKAGE} import SliceSelectionDataset`. "
        "That import is free: a name is looked up in its room when it is first used.\n\n"
        "| room | holds | offered by the package itself |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _says(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _python(*arguments: str) -> str:
    """What the package prints in a process of its own, so that nothing of it stays in that of MkDocs."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout
