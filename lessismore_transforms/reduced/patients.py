"""Patients without their names: a keyed hash that is the same for a patient in every data set of one user."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from lessismore_transforms.errors import OutputError, UserError
from lessismore_transforms.wording import counted

_LEAST = 16  # characters of a key
_WAIT = 2.0  # seconds for another process to write the key that it has begun


def default_key_path() -> Path:
    """The key file in the user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA") or Path.home() / ".config"
    return Path(base) / "lessismore_transforms" / "patient.key"


def load_key(path: Path | None = None) -> bytes:
    """The secret key in `path`; the default one is made once, readable by its owner only.

    Raises:
        UserError: a given file is missing, or one is too short to keep a secret.
    """
    if path is None:
        path = default_key_path()
        try:
            if not path.exists():
                _make_key(path)
            _await_key(path)
        except OSError as error:
            raise OutputError(
                f"cannot write the patient key {path}: {error.strerror}: name a file of your own with --patient_key"
            ) from error
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UserError(
            f"cannot read the patient key {path}: {error.strerror}: name an existing file with --patient_key"
        ) from error
    if len(key) < _LEAST:
        raise UserError(
            f"the patient key {path} has {counted(len(key), 'character')}: expected at least {_LEAST} random ones: "
            "name another file with --patient_key"
        )
    return key


def _make_key(path: Path) -> None:
    """Write a key, unless another process was faster; its key is as good."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = secrets.token_hex(32) + "\n"
    own = path.with_name(f".{secrets.token_hex(8)}")  # whole before it has its name, whoever is killed
    try:
        _write_new(own, key)
        os.link(own, path)
    except FileExistsError:
        return
    except OSError:  # exFAT and some network file systems have no hard links
        with suppress(FileExistsError):
            _write_new(path, key)  # under its name at once: a rename would replace a key that is in use by now
    finally:
        own.unlink(missing_ok=True)


def _write_new(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _await_key(path: Path) -> None:
    """Wait until the key is whole: where there are no hard links, another process may be writing it just now."""
    deadline = time.monotonic() + _WAIT
    while path.stat().st_size < _LEAST and time.monotonic() < deadline:
        time.sleep(0.01)


def key_fingerprint(key: bytes) -> str:
    """Eight hex digits by which two outputs show that their patients were hashed with the same key."""
    return hmac.new(key, b"fingerprint", hashlib.sha256).hexdigest()[:8]


def hash_patient(patient: str, key: bytes) -> str:
    """16 hex digits of the HMAC-SHA256 of a patient's identifier."""
    return hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()[:16]
