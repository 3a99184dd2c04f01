"""The frame of our HTML pages: one file that needs nothing else, light or dark as the reader's system is."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from dashboards import looks, tables

ASSETS = Path(__file__).parent / "assets"
STYLE, SCRIPT = ((ASSETS / name).read_text(encoding="utf-8") for name in ("sizer.css", "figures.js"))
"""What the report and the pages that are served look like, and how figures are drawn."""


@cache
def policy() -> str:
    """The page's Content-Security-Policy: of scripts, its own two and no other."""
    scripts = " ".join(f"'sha256-{_sha256(script)}'" for script in (get_plotlyjs(), SCRIPT))
    return f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:"


def page(title: str, body: str, plots: Mapping[str, go.Figure]) -> str:
    """A whole HTML page; `plots` are drawn where the body has `plot(name)`. The same input gives the same bytes."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy()}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
{drawings(plots)}
<script>{get_plotlyjs()}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def drawings(plots: Mapping[str, go.Figure]) -> str:
    """What `figures.js` draws, as elements of a page: the figures, and how they look on light and on dark paper."""
    drawn = {f"plot-{name}": json.loads(figure.to_json()) for name, figure in plots.items()}
    for figure in drawn.values():
        figure["layout"].pop("template", None)
    templates = {"light": looks.template(), "dark": looks.template(dark=True)}
    return "".join(embedded(name, value) for name, value in (("figures", drawn), ("templates", templates)))


def embedded(name: str, value: object) -> str:
    """Data of a page for its scripts, as JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def plot(name: str, caption: str, heading: str = "") -> str:
    """The place of a figure, with its caption (HTML)."""
    title = f"<h3>{escape(heading)}</h3>" if heading else ""
    return f'<figure>{title}<figcaption>{caption}</figcaption><div class="drawing" id="plot-{name}"></div></figure>'


def table(content: tables.Table, colours: Mapping[str, str] | None = None) -> str:
    """A table of text; where `colours` knows the first cell it gets a patch of its colour."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in content.columns)
    lines = []
    for first, *rest in content.rows:
        patch = f'<i class="arm" style="background:{colours[first]}"></i>' if colours and first in colours else ""
        lines.append(f"<tr><td>{patch}{escape(first)}</td>" + "".join(f"<td>{escape(v)}</td>" for v in rest) + "</tr>")
    return (
        f"<h3>{escape(content.title)}</h3>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(content.title)}">'
        f"<table><tr>{head}</tr>\n" + "\n".join(lines) + "</table></div>"
    )


def bullets(lines: list[str]) -> str:
    """A list of plain sentences."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
