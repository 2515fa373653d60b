"""A file by HTTPS: from known hosts only, resumed where it broke, checked by its size and sum.

What is not whole yet lies beside the file as NAME.part, with what the server said of it in NAME.part.json.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lessismore_transforms import __version__
from lessismore_transforms.atomic import write_json, writing
from lessismore_transforms.downloads.data_sets import RemoteFile
from lessismore_transforms.errors import OutputError, UserError, first_line
from lessismore_transforms.progress import progress_bar

_CHUNK, _TRIES, _TIMEOUT_S = 2**20, 4, 60.0
_PAST_THE_END, _TOO_MANY = 416, 429
_SPARE = 100_000_000  # bytes that stay free
_AGAIN = "run the same command again to go on; what was got stays"


class Client:
    """Gets files from a list of hosts.

    Args:
        hosts: that may answer; a redirect to any other is refused.
        page: of the data set, for an error.
        schemes: of addresses.
        pause: seconds before a new try after one that brought something, twice as many after each that did not.
    """

    def __init__(
        self, hosts: Sequence[str], page: str, *, schemes: Sequence[str] = ("https",), pause: float = 1.0
    ) -> None:
        self.hosts, self.page, self.schemes, self.pause = tuple(hosts), page, tuple(schemes), pause
        self._opener = urllib.request.build_opener(_Redirects(self))

    def check(self, url: str) -> None:
        """Refuse an address that is none of the hosts'.

        Raises:
            UserError: it is not.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise self._no_address(error) from error
        if parts.scheme not in self.schemes or parts.netloc not in self.hosts:
            raise UserError(
                f"expected an answer from {' or '.join(self.hosts)} by {' or '.join(self.schemes)}, found one that "
                f"leads to {parts.scheme}://{parts.netloc}: get the file from {self.page} by hand"
            )

    def fetch(self, file: RemoteFile, path: Path) -> str:
        """Get a file, whole and checked; returns its SHA-256.

        Args:
            file: what is got.
            path: where it goes; its folder is made.

        Raises:
            UserError: the network, the server or a redirect fails, or the file is not what it should be.
            OutputError: there is no room, or the folder cannot be written.
        """
        if path.is_dir():
            raise UserError(f"expected a file at {path}, found a folder: move it away, then {_AGAIN}")
        if not path.is_file():
            with writing(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._transfer(file, path.with_name(f"{path.name}.part"))
            path.with_name(f"{path.name}.part").replace(path)
            path.with_name(f"{path.name}.part.json").unlink(missing_ok=True)
        return _check_file(file, path)

    def size_of(self, file: RemoteFile) -> int | None:
        """Bytes of a file, by what is known or the server says; None where it does not."""
        if file.size is not None:
            return file.size
        try:
            with self._open(file.url, {}, "HEAD") as answer:
                said = answer.headers.get("Content-Length")
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return None  # some servers answer no such question; the transfer tells what is wrong, if anything
            raise self._unreachable(file.url, error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(file.url, error) from error
        return int(said) if said and said.isdigit() else None

    def _transfer(self, file: RemoteFile, part: Path) -> None:
        """Try until the file is whole, or until several tries in a row brought nothing."""
        failures, before = 0, _size(part)
        while True:
            try:
                self._go_on(file, part)
                return
            except (OSError, http.client.HTTPException) as error:
                failure = error
            if isinstance(failure, urllib.error.HTTPError) and failure.code == _PAST_THE_END:
                if _size(part) == _told_size(failure, file):
                    return  # it was whole already
                part.unlink(missing_ok=True)  # it has more bytes than the file
            elif isinstance(failure, urllib.error.HTTPError) and failure.code < 500 and failure.code != _TOO_MANY:
                raise self._refused(file.url, failure) from failure
            elif not _of_the_network(failure):
                raise OutputError(
                    f"cannot write to {part}: {first_line(failure)}: make room, then {_AGAIN}"
                ) from failure
            failures = 0 if _size(part) > before else failures + 1
            before = _size(part)
            if failures == _TRIES:
                raise self._unreachable(file.url, failure) from failure
            time.sleep(self.pause * 2**failures)

    def _go_on(self, file: RemoteFile, part: Path) -> None:
        """One try, from where the last one ended if the server still has the same file."""
        about = part.with_name(f"{part.name}.json")
        known = _read(about)
        start = part.stat().st_size if part.exists() and known.get("url") == file.url else 0
        headers = {}
        mark = known.get("etag")
        if start and mark:
            headers = {"Range": f"bytes={start}-", "If-Range": mark}
        with self._open(file.url, headers, "GET") as answer:
            resumed = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(
                f"bytes {start}-"
            )
            start = start if resumed else 0
            said = answer.headers.get("Content-Length")
            total = start + int(said) if said and said.isdigit() else file.size
            if file.size is not None and total != file.size:
                raise self._changed(file, f"{total:,}")
            _check_room(part.parent, (total or 0) - start)
            write_json(about, {"url": file.url, "etag": answer.headers.get("ETag")})
            with part.open("ab" if start else "wb") as out, _bar(file, total, start) as bar:
                got = start
                while chunk := answer.read(_CHUNK):
                    got += len(chunk)
                    if total is not None and got > total:  # of a server that does not tell it beforehand
                        raise self._changed(file, f"more than {total:,}")
                    out.write(chunk)
                    bar.update(1)
        if total is not None and (found := part.stat().st_size) != total:
            raise http.client.IncompleteRead(b"", total - found)

    def _open(self, url: str, headers: dict[str, str], method: str) -> Any:
        self.check(url)
        told = {"User-Agent": f"lessismore_transforms/{__version__}", **headers}
        request = urllib.request.Request(url, headers=told, method=method)
        try:
            return self._opener.open(request, timeout=_TIMEOUT_S)
        except UserError:
            raise
        except ValueError as error:  # of a redirect that leads to no address
            raise self._no_address(error) from error

    def _changed(self, file: RemoteFile, found: str) -> UserError:
        return UserError(
            f"expected {file.size or 0:,} bytes at {file.url}, found {found}: it was changed; see {self.page}"
        )

    def _no_address(self, error: ValueError) -> UserError:
        return UserError(
            f"expected an answer from {' or '.join(self.hosts)}, found one that leads to no address "
            f"({first_line(error)}): get the file from {self.page} by hand"
        )

    def _refused(self, url: str, error: urllib.error.HTTPError) -> UserError:
        why = {401: "it asks for a login", 403: "it asks for a login or an agreement", 404: "it is not there any more"}
        return UserError(
            f"{urlsplit(url).netloc} does not give {url} ({error.code}: {why.get(error.code, error.reason)}): get it "
            f"from {self.page} by hand"
        )

    def _unreachable(self, url: str, error: Exception) -> UserError:
        reason = getattr(error, "reason", None) or first_line(error)
        if isinstance(error, http.client.IncompleteRead):
            reason = "the transfer broke off"
        return UserError(f"cannot get {url}: {reason}: look at the network, then {_AGAIN}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the hosts of a client alone."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> Any:
        """The request that a redirect asks for, if it leads to one of the hosts."""
        self.client.check(newurl)
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and req.get_method() == "HEAD":
            new.method = "HEAD"
        return new


def _check_file(file: RemoteFile, path: Path) -> str:
    """The SHA-256 of a file that is what it should be; one that is not is deleted, so that the next try begins anew.

    Raises:
        UserError: size or sum are others.
    """
    if file.size is not None and (size := path.stat().st_size) != file.size:
        path.unlink()
        raise UserError(
            f"expected {file.size:,} bytes of {path.name}, found {size:,}: it was cut short, or changed by its "
            "publisher; it was deleted, run the same command to get it again"
        )
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    found = {"SHA-256": (file.sha256, sha256.hexdigest()), "MD5": (file.md5, md5.hexdigest())}
    for kind, (expected, digest) in found.items():
        if expected and digest != expected:
            path.unlink()
            raise UserError(
                f"expected {kind} {expected} of {path.name}, found {digest}: it was damaged on its way, or changed by "
                "its publisher; it was deleted, run the same command to get it again"
            )
    return sha256.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _told_size(answer: urllib.error.HTTPError, file: RemoteFile) -> int | None:
    """Bytes of a file by the answer that a range lies behind its end, else as they are known."""
    said = str(answer.headers.get("Content-Range", "")).removeprefix("bytes */")
    return int(said) if said.isdigit() else file.size


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise OutputError(
            f"expected room for {needed / 1e9:.2f} GB in {folder}, found {free / 1e9:.2f} GB: make room, then {_AGAIN}"
        )


def _of_the_network(error: Exception) -> bool:
    kinds = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, socket.gaierror)
    return isinstance(error, kinds) or "ssl" in type(error).__name__.lower()


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _bar(file: RemoteFile, total: int | None, start: int) -> Any:
    pieces = None if total is None else math.ceil(total / _CHUNK)
    return progress_bar(total=pieces, initial=start // _CHUNK, desc=Path(file.path).name, unit=" MiB")
