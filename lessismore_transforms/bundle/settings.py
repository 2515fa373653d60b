"""The settings at the top of a configuration as one object."""

from __future__ import annotations

import importlib
from typing import Any

from lessismore_transforms.bundle.caller import calling_parser, calling_root
from lessismore_transforms.bundle.scripts_folder import use_scripts
from lessismore_transforms.options import names


def read_settings(kind: str) -> Any:
    """Settings of the configuration that calls this, each by its name at the top.

    Args:
        kind: dotted name of a dataclass of options; the configuration has an entry for each.

    Raises:
        UserError: a value makes no sense.
    """
    parser = calling_parser()
    use_scripts(calling_root())
    module, _, name = kind.rpartition(".")
    settings = getattr(importlib.import_module(module), name)
    return settings(**{option: parser.get_parsed_content(option) for option in names(settings)})
