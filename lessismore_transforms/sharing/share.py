"""Share a trained network: read what is known, write it beside its place, prove it, and only then give it its name."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from lessismore_transforms.atomic import TEMPORARY, writing
from lessismore_transforms.errors import OutputError, UserError
from lessismore_transforms.sharing.bundle_folder import LARGE_FILES, write_bundle
from lessismore_transforms.sharing.classifier import is_classification, read_classifier
from lessismore_transforms.sharing.encoder import read_encoder
from lessismore_transforms.sharing.hub_folder import prove_hub, write_hub
from lessismore_transforms.sharing.proof import prove_bundle
from lessismore_transforms.sharing.settings import ShareSettings


def share(settings: ShareSettings) -> Path:
    """Write the folder of a trained network for others; returns it.

    Raises:
        UserError: something that has to be stated is missing, the folder exists, the run did not finish, its parts do
            not fit each other, or the proof fails; nothing is left then.
        OutputError: the folder cannot be written.
    """
    check(settings)
    facts = read_classifier(settings) if is_classification(settings.run) else read_encoder(settings)
    folder = settings.output_dir
    place = folder.resolve().with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir()
            if settings.hub:
                write_hub(place, facts, settings)
            else:
                write_bundle(place, facts, settings)
        if settings.hub:
            prove_hub(place, facts)
        else:
            prove_bundle(place, facts)
        _give_name(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if (folder / LARGE_FILES).is_file() and settings.url is None:
        print(f"files above 25 MB: upload them somewhere and state the address in {folder / LARGE_FILES}")
    return folder


def _give_name(place: Path, folder: Path) -> None:
    """Give a folder its name.

    Raises:
        UserError: another one has it by now.
        OutputError: it cannot be given.
    """
    _refuse_folder(folder)  # an empty one would be replaced
    try:
        with writing(folder):
            place.rename(folder)
    except OutputError:
        _refuse_folder(folder)  # made by another run in between
        raise


def _refuse_folder(folder: Path) -> None:
    if folder.exists():
        raise UserError(f"expected a new folder, found {folder}: name another one, or delete it")


def check(settings: ShareSettings) -> None:
    """Refuse what lacks a statement that only a person can make, and a folder that is there.

    Raises:
        UserError: licence or author are missing, or the folder exists.
    """
    _refuse_folder(settings.output_dir)
    if not settings.license or not settings.license.strip():
        raise UserError(
            "expected the licence under which you share the weights, found none: give --license, such as cc-by-4.0, "
            "after a look at what the licence of the data allows"
        )
    if not any(name.strip() for name in settings.author):
        raise UserError("expected who shares the weights, found nobody: give --author, once for each")
