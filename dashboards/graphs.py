"""Drawings of what a trained network is: a graph by its neurons and synapses, a picture beside its approximation."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup
from PIL import Image
from torch import nn

from dashboards.source import Source
from sizer import Architecture, datasets, networks
from sizer.architecture import fill
from sizer.datasets import coordinates, picture
from sizer.errors import SizerError
from sizer.graph import Graph
from sizer.levels import KINDS

SYNAPSES, NODES = 1_500, 24
"""Synapses that are drawn at most, the strongest; inputs that are drawn one by one."""
SIDE = 320
"""Pixels of a picture's longer side."""
_TALL, _TALLEST, _TOP, _RADIUS = 150, 420, 26, 6


def drawn(
    source: Source, name: str, spec: Mapping[str, Any], row: pd.Series[Any], *, beside: bool = True
) -> Markup | None:
    """What can be drawn of a trial's network by its weights; None where there is nothing more than its widths.

    Args:
        source: Where its weights are kept.
        name: The evaluation.
        spec: Its plan.
        row: A row of `studies.query.trials` or `studies.selection.best`.
        beside: Whether a picture and its approximation are drawn, too.
    """
    graph = spec["network"] in networks.names() and not networks.layered(spec["network"])
    pictured = beside and spec["data"].partition(datasets.MADE_OF)[0] == "coordinates"
    if not (graph or pictured):
        return None
    try:
        architecture, weights = source.architecture(name, row)
        module = fill(architecture, weights, "the weights").eval()
    except SizerError:  # not kept, or of a function of one's own that is not here
        return None
    parts = [drawing(module)] if isinstance(module, Graph) else []
    shown = pictures(module, architecture, spec["data"]) if pictured else None
    parts += [shown] if shown else []
    return Markup("").join(parts) or None


def drawing(graph: Graph) -> Markup:
    """Inputs, neurons by level, and outputs, from left to right; a synapse is as wide as its weight is large.

    Many inputs are one bar; of many synapses the strongest are drawn.
    """
    inputs, end = graph.inputs, graph.inputs + graph.neurons
    levels = graph.levels()
    columns = [list(range(inputs)) if inputs <= NODES else []]
    columns += [[inputs + at for at in range(graph.neurons) if levels[at] == level] for level in range(max(levels) + 1)]
    columns += [list(range(end, end + graph.outputs))]
    most = max(len(column) for column in columns)
    step, tall = max(44, min(120, 860 // len(columns))), _TOP * 2 + max(_TALL, min(24 * most, _TALLEST))
    wide = step * len(columns)
    at: dict[int, tuple[float, float]] = {}
    for place, column in enumerate(columns):
        for row, node in enumerate(column):
            at[node] = (step * (place + 0.5), _TOP + (tall - 2 * _TOP) * (row + 0.5) / len(column))
    weight = graph.weight.detach()
    strength = (weight.abs() / weight.abs().max().clamp(min=1e-30)).sqrt()
    order = strength.argsort(descending=True)[:SYNAPSES].tolist()
    bar = (step * 0.5, _TOP, tall - 2 * _TOP)
    parts = []
    for synapse in reversed(order):
        source, target = int(graph.source[synapse]), int(graph.target[synapse])
        x2, y2 = at[target]
        x1, y1 = at.get(source, (bar[0] + 5, bar[1] + bar[2] * (source + 0.5) / inputs))
        share = float(strength[synapse])
        kind = "plus" if float(weight[synapse]) > 0 else "minus"
        parts.append(
            f'<path class="{kind}" d="M{x1:.0f} {y1:.0f}Q{(x1 + x2) / 2:.0f} {_bowed(x1, y1, x2, y2, step):.0f} '
            f'{x2:.0f} {y2:.0f}" stroke-width="{0.4 + 2.4 * share:.1f}" opacity="{0.12 + 0.7 * share:.2f}"/>'
        )
    if inputs > NODES:
        parts.append(f'<rect class="end" x="{bar[0] - 5}" y="{bar[1]}" width="10" height="{bar[2]}" rx="3"/>')
    for node, (x, y) in at.items():
        inside = inputs <= node < end
        told = f"{'input' if node < inputs else 'output'} {node - (0 if node < inputs else end)}"
        if inside:
            kind, bias = KINDS[int(graph.kind[node - inputs])], float(graph.bias.detach()[node - inputs])
            told = f"neuron {node - inputs}: {kind}, bias {bias:.3g}, level {levels[node - inputs] + 1}"
        parts.append(
            f'<circle class="{"layer" if inside else "end"}" cx="{x:.0f}" cy="{y:.0f}" r="{_RADIUS}">'
            f"<title>{told}</title></circle>"
        )
    ends = ((step * 0.5, _counted(inputs, "input")), (wide - step * 0.5, _counted(graph.outputs, "output")))
    parts += [f'<text class="quiet" x="{x}" y="{tall - 6}" text-anchor="middle">{text}</text>' for x, text in ends]
    told = f"{graph.neurons:,} neurons on {len(columns) - 2} levels, {graph.synapses:,} synapses"
    cut = f", of which the {SYNAPSES:,} strongest are drawn" if graph.synapses > SYNAPSES else ""
    return Markup(
        f'<svg class="architecture" role="img" aria-label="Graph: {told}" width="{wide}" height="{tall}" '
        f'viewBox="0 0 {wide} {tall}">{"".join(parts)}</svg>'
        f'<p class="quiet">{told}{cut}; <span class="plus">blue</span> adds, <span class="minus">orange</span> takes'
        " away, as wide as the weight.</p>"
    )


def _bowed(x1: float, y1: float, x2: float, y2: float, step: float) -> float:
    """Where the middle of a synapse is drawn to: off the neurons that it passes."""
    passed = min((x2 - x1) / step - 1, 7)
    return (y1 + y2) / 2 + (14 * passed if y1 >= y2 else -14 * passed)


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def pictures(module: nn.Module, architecture: Architecture, data: str) -> Markup | None:
    """The picture that `coordinates` was made of, and what the network makes of it; None where it is not here."""
    if data.partition(datasets.MADE_OF)[0] != "coordinates":
        return None
    try:
        grey = Image.fromarray(picture.grey(datasets.file_of(data)))
    except SizerError:
        return None
    grey.thumbnail((SIDE, SIDE))
    x, y = architecture.preprocessing["x"], architecture.preprocessing["y"]
    places = coordinates.places(grey.height, grey.width) / x["divisor"]
    given = torch.from_numpy((places - np.array(x["mean"])) / np.array(x["std"])).float()
    with torch.no_grad():
        found = module(given).numpy() * np.array(y["std"]) + np.array(y["mean"])
    pixels = (found.reshape(grey.height, grey.width) * y["divisor"] * 255).clip(0, 255).round().astype(np.uint8)
    both = (("The picture", grey), ("What the network makes of it", Image.fromarray(pixels)))
    shown = "".join(
        f'<figure class="picture"><img src="{_embedded(image)}" alt="{escape(title)}" width="{image.width}" '
        f'height="{image.height}"><figcaption>{escape(title)}</figcaption></figure>'
        for title, image in both
    )
    return Markup(f'<div class="two">{shown}</div>')


def _embedded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
