"""What all figures look like: a colour and a marker for each arm, in every figure the same, and light and dark paper.

The palette is Okabe and Ito's, told apart by colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
MARKER_SIZES = {"triangle-up": 10, "star": 10, "diamond": 9}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")


def colours(arms: Iterable[str]) -> dict[str, str]:
    """Arm -> its colour in every figure, in the order in which the arms stand in the evaluation."""
    return {arm: PALETTE[i % len(PALETTE)] for i, arm in enumerate(dict.fromkeys(arms))}


def template(dark: bool = False) -> dict[str, Any]:
    """The look of all figures, as a plotly template, for light or for dark paper."""
    ink, quiet, grid = ("#e6e6e6", "#a8adb3", "#33383e") if dark else ("#1b1f24", "#57606a", "#e3e6ea")
    axis = {
        "gridcolor": grid,
        "linecolor": quiet,
        "tickcolor": quiet,
        "tickfont": {"color": quiet},
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "automargin": True,
        "title": {"standoff": 10, "font": {"color": ink}},
    }
    return {
        "layout": {
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 10, "r": 16, "t": 12, "b": 10},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            "hoverlabel": {"align": "left", "bgcolor": "#22272d" if dark else "#ffffff", "font": {"color": ink}},
            "hovermode": "closest",
            "xaxis": axis,
            "yaxis": axis,
        }
    }


LIGHT = go.layout.Template(template())
"""The look on light paper, checked once: plotly takes tens of milliseconds to check it for each figure."""


def marker(place: int, colour: str) -> dict[str, Any]:
    """The marker of the arm in this place of the evaluation: another one for each arm of a colour."""
    symbol = MARKERS[(place + place // len(PALETTE)) % len(MARKERS)]
    return {"symbol": symbol, "size": MARKER_SIZES.get(symbol, 8), "color": colour}


def faded(colour: str, opacity: float) -> str:
    """`#rrggbb`, seen through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def knob_colour(share: float) -> str:
    """A colour of the knob's own scale, from small (purple) to large (amber), readable on light and dark paper."""
    stops = ((107, 76, 196), (0, 125, 190), (0, 158, 115), (150, 150, 30), (214, 120, 0))
    place = share * (len(stops) - 1)
    left = min(int(place), len(stops) - 2)
    mixed = [a + (b - a) * (place - left) for a, b in zip(stops[left], stops[left + 1], strict=True)]
    return "rgb({:.0f},{:.0f},{:.0f})".format(*mixed)
