"""Our pages: HTML from templates, readable without scripts but for the figures; scripts add that they follow along.

A page is one function of a database, in a file of its own, and one template.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dashboards import numbers, page, tables

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'self'"
)
ASSETS = {"sizer.css": "text/css", "figures.js": "text/javascript", "pages.js": "text/javascript"}
BUSY, IDLE = 1000, 4000
"""Milliseconds after which a page looks again: while something trains, and otherwise."""


@dataclass
class Page:
    """What a page shows.

    Attributes:
        template: The name of its file.
        title: Of the browser's tab.
        values: What the template speaks of.
        plots: Name -> figure, drawn where the template has `plot(name)`.
        data: Name -> what scripts read.
        every: Milliseconds after which it looks again; 0: never.
    """

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    plots: Mapping[str, go.Figure] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    every: int = 0

    def render(self) -> str:
        """The page as HTML."""
        scripts = page.drawings(self.plots) if self.plots else ""
        scripts += "".join(page.embedded(name, value) for name, value in self.data.items())
        return _ENVIRONMENT.get_template(self.template).render(
            **self.values, title=self.title, every=self.every, scripts=Markup(scripts), drawn=bool(self.plots)
        )


def tag(text: str) -> str:
    """An ETag of a page."""
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def asset(name: str) -> tuple[bytes, str]:
    """A file that pages are made of, and its media type.

    Raises:
        KeyError: There is none of that name.
    """
    if name == "plotly.js":
        return get_plotlyjs().encode(), "text/javascript"
    kind = ASSETS[name]
    return (page.ASSETS / name).read_bytes(), kind


def evaluation_path(name: str) -> str:
    """The address of an evaluation's page."""
    return f"/evaluation/{quote(name)}"


def knob_path(name: str, arm: str) -> str:
    """The address of a sizing arm's page."""
    return f"/knob/{quote(name)}?arm={quote(arm, safe='')}"


def _table(content: tables.Table, colours: Mapping[str, str] | None = None) -> Markup:
    return Markup(page.table(content, colours))


def _plot(name: str, caption: str, heading: str = "") -> Markup:
    return Markup(page.plot(name, caption, heading))


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_ENVIRONMENT.globals.update(table=_table, plot=_plot, evaluation_path=evaluation_path, knob_path=knob_path)
_ENVIRONMENT.filters.update(
    score=numbers.score, count=numbers.count, si=numbers.si, knob=numbers.knob, duration=numbers.duration, quoted=quote
)
