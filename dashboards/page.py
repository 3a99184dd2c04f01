"""The frame of our HTML pages: one file that needs nothing else, light or dark as the reader's system is."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from dashboards import figures, tables

STYLE = """
:root { color-scheme: light dark; }
:root { --paper: #f5f6f8; --card: #ffffff; --ink: #1b1f24; --quiet: #57606a; --line: #d9dde2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #111417; --card: #191d21; --ink: #e6e6e6; --quiet: #a8adb3; --line: #33383e; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 4px; }
h3 { font-size: .95rem; margin: 18px 0 6px; }
p { margin: 0 0 10px; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
section { padding: 18px 20px; margin: 18px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 12px 0 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
ul { margin: 8px 0 0; padding-left: 20px; }
li { margin: 4px 0; }
figure { margin: 0; min-width: 0; }
.two { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 24px; }
.drawing { width: 100%; margin-top: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr:last-child td { border-bottom: 0; }
i.arm { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .5em; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
@media (max-width: 760px) {
  main { padding: 18px 10px 32px; }
  section { padding: 14px 12px; }
  .two { grid-template-columns: minmax(0, 1fr); }
}
"""

SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const templates = JSON.parse(document.getElementById("templates").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const config = { responsive: true, displayModeBar: false };
function draw() {
  for (const [id, figure] of Object.entries(structuredClone(figures))) {
    const template = templates[dark.matches ? "dark" : "light"];
    Plotly.react(id, figure.data, { ...figure.layout, template, autosize: true }, config);
  }
}
dark.addEventListener("change", draw);
draw();
"""


@cache
def policy() -> str:
    """The page's Content-Security-Policy: of scripts, its own two and no other."""
    scripts = " ".join(f"'sha256-{_sha256(script)}'" for script in (get_plotlyjs(), SCRIPT))
    return f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:"


def page(title: str, body: str, plots: Mapping[str, go.Figure]) -> str:
    """A whole HTML page; `plots` are drawn where the body has `plot(name)`. The same input gives the same bytes."""
    drawn = {f"plot-{name}": json.loads(figure.to_json()) for name, figure in plots.items()}
    for figure in drawn.values():
        figure["layout"].pop("template", None)
    looks = {"light": figures.template(), "dark": figures.template(dark=True)}
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
<script type="application/json" id="figures">{_embedded(drawn)}</script>
<script type="application/json" id="templates">{_embedded(looks)}</script>
<script>{get_plotlyjs()}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def plot(name: str, caption: str, heading: str = "") -> str:
    """The place of a figure, with its caption (HTML)."""
    title = f"<h3>{escape(heading)}</h3>" if heading else ""
    return f'<figure>{title}<figcaption>{caption}</figcaption><div class="drawing" id="plot-{name}"></div></figure>'


def table(content: tables.Table, colours: Mapping[str, str] | None = None) -> str:
    """A table of text; where `colours` knows the first cell it gets a patch of its colour."""
    head = "".join(f"<th>{escape(column)}</th>" for column in content.columns)
    lines = []
    for first, *rest in content.rows:
        patch = f'<i class="arm" style="background:{colours[first]}"></i>' if colours and first in colours else ""
        lines.append(f"<tr><td>{patch}{escape(first)}</td>" + "".join(f"<td>{escape(v)}</td>" for v in rest) + "</tr>")
    return (
        f"<h3>{escape(content.title)}</h3>"
        f'<div class="scroll"><table><tr>{head}</tr>\n' + "\n".join(lines) + "</table></div>"
    )


def bullets(lines: list[str]) -> str:
    """A list of plain sentences."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def _embedded(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
