"""Figures of the pages, drawn alike, as SVG that is the same for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 10.6  # inches; the page shows it at 1080 px
BLUE, ORANGE, GREY, PALE, INK = "#1763b6", "#c2560c", "#66737f", "#b9cbdc", "#1c2733"
COLOURS = (BLUE, ORANGE, "#2e7d4f", "#7b4fa3", "#a3722d", "#3aa0a8", "#8a2f4d", "#5d6d7e")  # of several series
DASHED: dict[str, Any] = {"linewidth": 1.2, "linestyle": (0, (4, 3))}
LABEL: dict[str, Any] = {
    "textcoords": "offset points",
    "bbox": {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lessismore",  # makes ids, and so bytes, the same
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6ebf0",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.75,
    "legend.fontsize": 10,
}


def plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def as_svg(draw: Callable[[Figure], None], height: float) -> bytes:
    """What `draw` puts on a figure of so many inches."""
    from matplotlib import style
    from matplotlib.figure import Figure  # not pyplot: it keeps state and may look for a display

    with style.context(["default", _STYLE]):  # from the defaults, so that nobody's matplotlibrc changes the page
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Drawing:
    """A drawing of one plot, on which points can be found."""

    svg: bytes
    axes: Axes

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies, or the nearest of the plot, in percent of the drawing from its left and from its top."""
        figure = self.axes.get_figure(root=True)
        assert figure is not None
        across, up = figure.transFigure.inverted().transform(self.axes.transData.transform((x, y))).tolist()
        left, top, right, bottom = self.frame()
        return min(max(round(100 * across, 2), left), right), min(max(round(100 * (1 - up), 2), top), bottom)

    def frame(self) -> tuple[float, float, float, float]:
        """Where the plot lies, in percent of the drawing: left, top, right, bottom."""
        box = self.axes.get_position()
        left, top, right, bottom = (round(100 * end, 2) for end in (box.x0, 1 - box.y1, box.x1, 1 - box.y0))
        return left, top, right, bottom


def as_drawing(draw: Callable[[Axes], None], height: float) -> Drawing:
    """What `draw` puts on the one plot of a figure of so many inches."""
    made: list[Axes] = []

    def draw_all(figure: Figure) -> None:
        made.append(figure.add_subplot())
        draw(made[0])

    return Drawing(as_svg(draw_all, height), made[0])
