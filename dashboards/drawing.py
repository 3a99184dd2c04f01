"""A drawing of an architecture: its layers from left to right as bars, SVG without scripts or other files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from markupsafe import Markup

_STEP, _BAR, _TALL, _TOP, _FOOT = 74, 34, 120, 22, 40


def drawing(widths: Mapping[str, int], before: Mapping[str, int] | None, data: Mapping[str, Any]) -> Markup:
    """The layers that can change their width, between the input and the outputs.

    A bar's height is the width, by its square root. Where it is known from what a layer was sized, a dashed outline
    says that.

    Args:
        widths: Layer -> units, in the order in which they run.
        before: The same before the first epoch; None where it is not known.
        data: What the data is, with `input_shape` and `outputs`.
    """
    shape = "x".join(map(str, data["input_shape"]))
    ends = (math.prod(data["input_shape"]), int(data["outputs"]))
    most = max([*widths.values(), *(before or {}).values(), 1])
    bars: list[tuple[str, int | None, int | None, str]] = [("input", None, None, shape)]
    bars += [(layer, width, (before or {}).get(layer), f"{width:,}") for layer, width in widths.items()]
    bars += [("output", None, None, f"{ends[1]:,}")]
    wide, tall = _STEP * len(bars), _TOP + _TALL + _FOOT
    parts = []
    for place, (layer, width, was, text) in enumerate(bars):
        x, middle = place * _STEP + (_STEP - _BAR) / 2, _TOP + _TALL / 2
        if place:
            parts.append(f'<line class="flow" x1="{x - _STEP + _BAR}" y1="{middle}" x2="{x}" y2="{middle}"/>')
        height = _height(width, most)
        if was is not None and was != width:
            parts.append(_bar("before", x, middle, _height(was, most)))
        parts.append(_bar("end" if width is None else "layer", x, middle, height))
        centre = place * _STEP + _STEP / 2
        label = layer if len(layer) <= 11 else f"{layer[:4]}…{layer[-5:]}"
        changed = f" of {was:,}" if was is not None and was != width else ""
        parts.append(f'<text x="{centre}" y="{_TOP + _TALL + 16}" text-anchor="middle">{escape(text)}</text>')
        parts.append(
            f'<text class="quiet" x="{centre}" y="{_TOP + _TALL + 31}" text-anchor="middle">{escape(label)}</text>'
        )
        if changed:
            parts.append(
                f'<text class="quiet" x="{centre}" y="14" text-anchor="middle">{escape(changed.strip())}</text>'
            )
    told = ", ".join(f"{layer} {width}" for layer, width in widths.items())
    return Markup(
        f'<svg class="architecture" role="img" aria-label="{escape(f"Architecture: {told}")}" width="{wide}" '
        f'height="{tall}" viewBox="0 0 {wide} {tall}">{"".join(parts)}</svg>'
    )


def _height(width: int | None, most: int) -> float:
    return _TALL * (0.5 if width is None else max(0.03, math.sqrt(width / most)))


def _bar(kind: str, x: float, middle: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x}" y="{middle - height / 2:.1f}" width="{_BAR}" height="{height:.1f}" rx="3"/>'
