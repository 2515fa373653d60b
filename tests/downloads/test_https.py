"""Transfers from a local server: resumed, checked, and refused where they lead elsewhere."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lessismore_transforms.downloads import https
from lessismore_transforms.downloads.data_sets import RemoteFile
from lessismore_transforms.downloads.https import Client
from lessismore_transforms.errors import OutputError, UserError

CONTENT = bytes(range(256)) * 40_000  # 10 MB
SUM = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers /file with CONTENT; what goes wrong is set on it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = True
        self.etag = '"one"'
        self.break_after = 0  # bytes after which each transfer breaks off
        self.breaks = 0  # how many do
        self.tells_size = True
        self.asked: list[str | None] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        if self.path != "/file":
            self.send_error(int(self.path.removeprefix("/")))
            return
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        fresh = self.headers.get("If-Range") in (None, self.server.etag)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges and fresh else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if self.server.tells_size:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", self.server.etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(CONTENT)
        if self.server.breaks:
            self.server.breaks -= 1
            end = start + self.server.break_after
        self.wfile.write(CONTENT[start:end])

    do_HEAD = do_GET  # noqa: N815 (of http.server)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


def client(server: Server) -> Client:
    return Client([server.host], "https://example.org/page", schemes=["http"], pause=0.0)


def file(server: Server, path: str = "/file", **known: Any) -> RemoteFile:
    return RemoteFile(f"http://{server.host}{path}", "data.bin", **known)


def test_a_file_is_got_and_checked(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "below" / "data.bin"
    assert client(server).size_of(file(server)) == len(CONTENT)
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert client(server).fetch(file(server, sha256=SUM, md5=md5, size=len(CONTENT)), path) == SUM
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["data.bin"]
    server.asked.clear()
    assert client(server).fetch(file(server, sha256=SUM), path) == SUM
    assert server.asked == []  # it is there already


def test_a_broken_transfer_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.break_after, server.breaks = 3_000_000, 3
    assert client(server).fetch(file(server), tmp_path / "data.bin") == SUM
    assert server.asked == [None, "bytes=3000000-", "bytes=6000000-", "bytes=9000000-"]


@pytest.mark.parametrize("change", ["no ranges", "another file"])
def test_a_transfer_begins_anew_where_it_cannot_go_on(server: Server, tmp_path: Path, change: str) -> None:
    server.break_after, server.breaks = 3_000_000, 1
    server.ranges = change != "no ranges"
    part = tmp_path / "data.bin.part"
    part.write_bytes(b"x" * 5_000)
    about = {"url": f"http://{server.host}/file", "etag": '"two"' if change == "another file" else server.etag}
    part.with_name("data.bin.part.json").write_text(json.dumps(about))
    assert client(server).fetch(file(server), tmp_path / "data.bin") == SUM
    assert server.asked[0] == "bytes=5000-"


def test_what_was_got_stays_where_the_network_ends(server: Server, tmp_path: Path) -> None:
    server.break_after, server.breaks = 4_000_000, 1
    url = file(server)
    one = client(server)

    def fail(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    real, calls = one._opener.open, []

    def once(*given: Any, **more: Any) -> Any:
        calls.append(given)
        return real(*given, **more) if len(calls) == 1 else fail()

    one._opener.open = once  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"cannot get http://.*/file: .*Connection refused.*what was got stays"):
        one.fetch(url, tmp_path / "data.bin")
    assert (tmp_path / "data.bin.part").stat().st_size == 4_000_000
    assert client(server).fetch(url, tmp_path / "data.bin") == SUM
    assert server.asked == [None, "bytes=4000000-"]


def test_a_part_that_is_too_long_begins_anew(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "data.bin.part"
    part.write_bytes(CONTENT + b"x")
    about = {"url": f"http://{server.host}/file", "etag": server.etag}
    part.with_name("data.bin.part.json").write_text(json.dumps(about))
    assert client(server).fetch(file(server), tmp_path / "data.bin") == SUM


def test_a_part_that_is_whole_is_taken(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "data.bin.part"
    part.write_bytes(CONTENT)
    about = {"url": f"http://{server.host}/file", "etag": server.etag}
    part.with_name("data.bin.part.json").write_text(json.dumps(about))
    assert client(server).fetch(file(server), tmp_path / "data.bin") == SUM
    assert server.asked == [f"bytes={len(CONTENT)}-"]
    assert [each.name for each in tmp_path.iterdir()] == ["data.bin"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [(-1, "found more than 10,239,999: it was changed"), (1, "found 10,240,000: it was cut short")],
)
def test_a_known_size_is_checked_where_the_server_tells_none(
    server: Server, tmp_path: Path, more: int, sentence: str
) -> None:
    server.tells_size = False
    with pytest.raises(UserError, match=sentence):
        client(server).fetch(file(server, size=len(CONTENT) + more), tmp_path / "data.bin")
    assert not (tmp_path / "data.bin").exists()
    (tmp_path / "data.bin").write_bytes(b"short")
    with pytest.raises(UserError, match=r"expected 10,240,000 bytes of data\.bin, found 5: .* it was deleted"):
        client(server).fetch(file(server, size=len(CONTENT)), tmp_path / "data.bin")
    assert client(server).fetch(file(server, size=len(CONTENT)), tmp_path / "data.bin") == SUM


def test_a_folder_in_the_place_of_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").mkdir()
    with pytest.raises(UserError, match=r"expected a file at .*data\.bin, found a folder: move it away"):
        client(server).fetch(file(server), tmp_path / "data.bin")
    assert server.asked == []


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_sum_is_refused(server: Server, tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"expected (SHA-256|MD5) 0+ of data.bin, found .* it was deleted"):
        client(server).fetch(file(server, **{kind: "0" * 32}), tmp_path / "data.bin")
    assert list(tmp_path.iterdir()) == []


def test_another_size_is_refused_before_the_transfer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected 7 bytes at .*, found 10,240,000: it was changed"):
        client(server).fetch(file(server, size=7), tmp_path / "data.bin")


@pytest.mark.parametrize("target", ["http://elsewhere.example/x", "https://127.0.0.1/x", "ftp://127.0.0.1/x"])
def test_a_redirect_that_leaves_the_hosts_is_refused(server: Server, tmp_path: Path, target: str) -> None:
    with pytest.raises(UserError, match=r"found one that leads to .*get the file from .*/page by hand"):
        client(server).fetch(file(server, f"/to/{target}"), tmp_path / "data.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_no_address(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"leads to no address \(Invalid IPv6 URL\): get the file from .*/page by hand"):
        client(server).fetch(file(server, "/to/http://[x/"), tmp_path / "data.bin")
    with pytest.raises(UserError, match=r"leads to no address"):
        client(server).check("https://[x/")


def test_a_redirect_within_the_hosts_is_followed(server: Server, tmp_path: Path) -> None:
    assert client(server).size_of(file(server, "/to//file")) == len(CONTENT)
    assert client(server).fetch(file(server, "/to//file"), tmp_path / "data.bin") == SUM


def test_only_https_by_default(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"by https, found one that leads to http://example.org"):
        Client(["example.org"], "page").fetch(RemoteFile("http://example.org/x", "x"), tmp_path / "x")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(401, "401: it asks for a login"), (403, "a login or an agreement"), (404, "it is not there any more")],
)
def test_what_a_server_refuses(server: Server, tmp_path: Path, code: int, sentence: str) -> None:
    assert client(server).size_of(file(server, f"/{code}")) is None
    with pytest.raises(UserError, match=f"{sentence}.*get it from https://example.org/page by hand"):
        client(server).fetch(file(server, f"/{code}"), tmp_path / "data.bin")


def test_a_server_that_is_down_is_tried_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot get .*/503: Service Unavailable: look at the network"):
        client(server).fetch(file(server, "/503"), tmp_path / "data.bin")


def test_no_room(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = type("Usage", (), {"free": 50_000_000})
    monkeypatch.setattr(https.shutil, "disk_usage", lambda _: free)
    with pytest.raises(
        OutputError, match=r"expected room for 0.01 GB in .*, found 0.05 GB: make room, then run the same"
    ):
        client(server).fetch(file(server), tmp_path / "data.bin")
