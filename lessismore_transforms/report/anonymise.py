"""Messages without the paths, file names, patients and series that they may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from lessismore_transforms.reduced.manifest import Manifest

_QUOTED = re.compile(r"(?<!\w)[bru]?(['\"]).*?\1(?!\w)")
_SLASHES = re.compile(r"\S*[/\\](?:.*[/\\])?[^\s:,;)]*")  # from the first word with a slash to the last
_UID = re.compile(r"\d+(?:\.\d+){3,}")
_NAMED = re.compile(  # what our own messages name, whatever it is called
    r"(?<=a copy of ).*(?= \(same SOPInstanceUID\))|(?<= as ).*(?=, which was kept)|(?<=by another path: ).*"
    r"|(?<=cannot be read: ).*(?= is not there)"
)
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
    # A volume that failed has no rows: of its slices the folder alone is known.
    folders = {" ".join(str(folder).split()) for path in paths for folder in (path, *PurePosixPath(path).parents)}
    longest = max((len(name.split()) for name in private | folders), default=0)

    def hide(phrase: str) -> str:
        """A phrase without the name that it is, or without the folder that it begins with."""
        for name in (phrase, phrase.strip(_BRACKETS)):
            if name in private or name.rstrip(".") in private:
                return phrase.replace(name, "…")
        for start in (phrase, phrase.lstrip(_BRACKETS)):
            while "/" in start:
                start, _, _ = start.rpartition("/")
                if start in folders:
                    return phrase.replace(start, "…", 1)
        return phrase

    def public(message: str) -> str:
        words = _NAMED.sub("…", " ".join(message.split())).split()
        result = []
        while words:
            for length in range(min(longest, len(words)), 0, -1):
                phrase = " ".join(words[:length])
                if (hidden := hide(phrase)) != phrase:
                    result.append(hidden)
                    break
            else:
                length = 1
                result.append(words[0])
            del words[:length]
        message = _QUOTED.sub("…", " ".join(result))
        message = _UID.sub("…", _SLASHES.sub("…", message))
        return re.sub(r"^(?:…[:,;]?\s*)+", "", message) or "no reason given"

    return public
