"""A ZIP archive, such as torch.save writes, with the checksum of itself in its comment, which readers pass over."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

_MARK = b"sha256 "
_COMMENT = len(_MARK) + 64
_END = b"PK\x05\x06"  # begins the last record of an archive, 22 bytes with the comment's length as its last two
_RECORD = 22


def sealed(archive: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """The pieces of an archive without a comment, with its checksum as the comment."""
    head, length = archive[:-2], _COMMENT.to_bytes(2, "little")
    if bytes(archive[-_RECORD : -_RECORD + 4]) != _END:
        raise ValueError("expected a ZIP archive without a comment")
    digest = hashlib.sha256(head)
    digest.update(length)
    yield from (head, length, _MARK, digest.hexdigest().encode())


def is_whole(data: bytes) -> bool:
    """Whether the content of a file is what `sealed` made, byte for byte."""
    body, comment = memoryview(data)[:-_COMMENT], data[-_COMMENT:]
    return comment == _MARK + hashlib.sha256(body).hexdigest().encode()
