"""Messages without the paths, file names, patients and series that they may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from lessismore_transforms.reduced.manifest import Manifest

_QUOTED = re.compile(r"(?<!\w)[bru]?(['\"]).*?\1(?!\w)")
_SLASHES = re.compile(r"\S*[/\\](?:.*[/\\])?[^\s:,;)]*")  # from the first word with a slash to the last
_UID = re.compile(r"\d+(?:\.\d+){3,}")
_BRACKETS = "'\"`()[]{}<>,;:"


def anonymiser(manifest: Manifest) -> Callable[[str], str]:
    """A function that takes everything private out of a message.

    Out goes what the manifest knows as a path, a patient or a series and, since messages of libraries hold what they
    like, whatever is quoted or looks like a path or a UID: better a word too few in a page that is passed around.
    """
    items = [*manifest.info["failures"], *manifest.info["skipped"], *manifest.volumes]
    paths = {str(item["path"]) for item in items} | set(manifest.slices["path"])
    names = paths | {PurePosixPath(path).name for path in paths}
    names.update(*(manifest.slices[column] for column in ("patient", "series")))
    private = {" ".join(name.split()) for name in names if len(name) > 3}
    longest = max((len(name.split()) for name in private), default=0)

    def public(message: str) -> str:
        words = _QUOTED.sub("…", message).split()
        result = []
        while words:
            for length in range(min(longest, len(words)), 0, -1):
                phrase = " ".join(words[:length])
                name = phrase.strip(_BRACKETS)
                if name in private or name.rstrip(".") in private:
                    result.append(phrase.replace(name, "…"))
                    break
            else:
                length = 1
                result.append(words[0])
            del words[:length]
        message = _UID.sub("…", _SLASHES.sub("…", " ".join(result)))
        return re.sub(r"^(?:…[:,;]?\s*)+", "", message) or "no reason given"

    return public
