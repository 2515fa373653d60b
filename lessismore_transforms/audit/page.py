"""The page of an audit."""

from pathlib import Path

PAGE = "audit.html"


def write_page(folder, about):
    return folder / PAGE
