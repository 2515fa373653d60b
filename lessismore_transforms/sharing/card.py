"""The card of a shared network, in Markdown: facts of the run, what its user states, and what is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lessismore_transforms.sharing.facts import NOT_STATED, Facts, markdown_table, numbers
from lessismore_transforms.sharing.settings import ShareSettings

_ALWAYS = (
    "For research. Not for diagnosis, treatment or any other clinical decision.",
    "Pictures of other scanners, body parts, populations or windows than those of the training may be seen wrongly.",
    "Not for finding out who somebody is.",
)


def card(
    facts: Facts, settings: ShareSettings, *, use: str, metadata: Mapping[str, Any], files: Sequence[tuple[str, str]]
) -> str:
    """The whole card.

    Args:
        facts: of the network.
        settings: what the user states.
        use: the part on how it is loaded and run, in Markdown.
        metadata: of the bundle.
        files: name and SHA-256 of each file of weights.
    """
    header = facts.header
    mean, std = (", ".join(f"{value:g}" for value in numbers(header[name])) for name in ("mean", "std"))
    resize = header.get("resize", "bilinear, antialiased")
    prepared = [
        ("size", f"the whole picture, squeezed to {facts.size} x {facts.size} pixels ({resize})"),
        ("channels", "grey, as one channel" if facts.channels == 1 else "colour, or three windows"),
        ("normalised by", f"mean {mean}, standard deviation {std}, of values in 0..1"),
        *([("window", str(header["window"]))] if header.get("window") else []),
        *([("rows and columns", "exchanged")] if header.get("transpose") else []),
    ]
    trained_on = [
        ("data", settings.data or f"{NOT_STATED} by who shares it"),
        (
            "licence of the data",
            settings.data_license or f"{NOT_STATED}: look it up at their source before you use the weights",
        ),
        *facts.data,
    ]
    sums = [(f"`{name}`", f"`{digest}`") for name, digest in files]
    given = [(f"`{name}`", f"`{value}`") for name, value in facts.settings.items() if value is not None]
    versions = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    versions |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    tested = ", ".join(f"{name} {version}" for name, version in versions.items())
    cited = [settings.cite] if settings.cite else ["Who shares these weights states no citation of their own."]
    parts = [
        f"# {facts.title}",
        f"### **Authors**\n{', '.join(settings.author)}",
        f"## **Description**\n{facts.description}\n\nVersion {settings.version}: {settings.changes}.",
        f"## **Data**\n{markdown_table(('trained on', ''), trained_on)}",
        f"#### **Preprocessing**\n{markdown_table(('a picture', ''), prepared)}",
        f"## **Method**\n{markdown_table(('training', ''), facts.training)}",
        f"#### **Settings**\n{markdown_table(('setting', 'value'), given)}",
        f"## **Performance**\n{facts.performance.strip()}",
        f"## **Use**\n{use.strip()}",
        f"## **System Configuration**\nProven with {tested}.",
        "## **Limitations**\n" + "\n".join(f"- {line}" for line in (*facts.limits, *_ALWAYS)),
        f"## **Files**\n{markdown_table(('file', 'SHA-256'), sums)}",
        "## **Citation Info**\n" + "\n".join(f"- {line}" for line in dict.fromkeys([*cited, *metadata["references"]])),
        f"## **License**\nThe weights: {settings.license}, as stated by who shares them. Code and configuration: "
        "Apache License 2.0.",
    ]
    return "\n\n".join(parts) + "\n"


def licence_text(apache: str, settings: ShareSettings) -> str:
    """The file LICENSE: what it covers, then the text of the code's licence."""
    return (
        f"The weights (models/) are shared under {settings.license} by {', '.join(settings.author)}.\n"
        "Code and configuration are under the Apache License 2.0, whose text follows.\n\n"
        f"{apache}"
    )


def data_licence_text(settings: ShareSettings) -> str:
    """The file docs/data_license.txt."""
    stated = settings.data_license or NOT_STATED
    return (
        "No data are in this bundle. Its weights were trained on data with terms of their own, which may cover the\n"
        "weights too.\n\n"
        f"    data       {settings.data or NOT_STATED}\n"
        f"    licence    {stated}\n\n"
        f"So it was stated by {', '.join(settings.author)}, who shares the weights.\n"
    )
