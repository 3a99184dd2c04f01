"""What a network looks like while it is sized: print(net), and the same in a notebook."""

from __future__ import annotations

import html as escaping
import shutil
import textwrap
from typing import TYPE_CHECKING

from torch import nn

from sizer import cost, dimensions
from sizer.groups import Group

if TYPE_CHECKING:
    from sizer.net import Net

HEAD = ("layer", "width", "parameters")
WIDEST = 120
"""Lines are broken where the terminal ends, but at this at the latest."""


def sizes(net: Net) -> dict[str, tuple[int, int]]:
    """Layer -> its width and its own parameters; under "all parameters" those of all, with the width 0."""
    found = {group.name: (group.width, _parameters(net.module, group)) for group in net.groups}
    return {**found, "all parameters": (0, cost.parameters(net.module))}


def _parameters(module: nn.Module, group: Group) -> int:
    path = group.name.partition(":")[0]
    if not path:
        return sum(value.numel() for value in module.parameters(recurse=False))
    own = dict(module.named_parameters()).get(path)
    if own is not None:
        return own.numel()
    if path in dict(module.named_modules()):
        return cost.parameters(module.get_submodule(path))
    held = (slot.ref.tensor for slot in group.slots)  # neurons and synapses of a graph are no modules
    return sum(value.numel() for value in held if isinstance(value, nn.Parameter))


def _rows(net: Net, start: dict[str, tuple[int, int]]) -> list[tuple[str, str, str]]:
    """Layer, width and parameters, before => after, of the free widths; the sum."""
    now = sizes(net)
    units = {group.name: _channels(group) for group in net.groups}
    rows = []
    for name, (width, parameters) in now.items():
        each = f" x {units[name]}" if units.get(name, 1) > 1 else ""
        widths = _change(start[name][0], width, each) if name in units else ""
        rows.append((name or "forward()", widths, _change(start[name][1], parameters)))
    return rows


def _channels(group: Group) -> int:
    """How many channels one unit gives to its readers: those of a head, or of a group of a grouped convolution."""
    rows, path = group.roles("row"), group.name.partition(":")[0]
    own = [slot for slot in rows if slot.ref.path.rpartition(".")[0] == path] or rows
    places = [dimensions.positions(slot.units, group.atom).shape[1] for slot in [*own, *group.roles("column")]]
    return min(places, default=1)


def _change(before: int, after: int, each: str = "") -> str:
    """``before => after``, or one of them where they are equal."""
    return f"{after:,}{each}" if before == after else f"{before:,}{each} => {after:,}{each}"


def _fixed(net: Net) -> list[str]:
    """The fixed widths, those with one reason together."""
    alike: dict[str, list[str]] = {}
    for fixed in net.fixed:
        own = fixed.name if f"'{fixed.name}'" in fixed.reason else fixed.name.rpartition(".")[0]
        reason = fixed.reason.replace(f" in module '{own}'", "").replace(f"module '{own}'", "its module")
        alike.setdefault(reason, []).append(f"{fixed.name or 'forward()'}: {fixed.width:,} units")
    return [f"{', '.join(widths)}, fixed: {reason}" for reason, widths in alike.items()]


def _title(net: Net) -> str:
    knob = f"({net.method.knob.name}={net.knob:g})" if net.method.knob else ""
    return f"{net.method.name}{knob} on {type(net.module).__name__}"


def text(net: Net, start: dict[str, tuple[int, int]]) -> str:
    """A table of the free widths, then the fixed ones; as wide as the terminal where that can be."""
    table = [HEAD, *_rows(net, start)]
    first, second, third = (max(len(row[at]) for row in table) for at in range(3))
    lines = [_title(net)]
    lines += [f"  {layer:<{first}}  {width:>{second}}  {count:>{third}}" for layer, width, count in table]
    columns = min(shutil.get_terminal_size().columns, WIDEST)
    for fixed in _fixed(net):
        lines += textwrap.wrap(
            fixed,
            columns,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def html(net: Net, start: dict[str, tuple[int, int]]) -> str:
    """The same as a table for a notebook, in the notebook's own colours."""

    def row(cells: tuple[str, ...], tag: str = "td") -> str:
        inside = [
            f'<{tag} style="text-align:{"left" if at == 0 else "right"}">{escaping.escape(cell)}</{tag}>'
            for at, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(inside)}</tr>"

    head = f"<thead>{row(HEAD, 'th')}</thead>"
    body = f"<tbody>{''.join(row(cells) for cells in _rows(net, start))}</tbody>"
    fixed = [f"<li>{escaping.escape(line)}</li>" for line in _fixed(net)]
    listed = f"<ul>{''.join(fixed)}</ul>" if fixed else ""
    return f"<p><b>{escaping.escape(_title(net))}</b></p><table>{head}{body}</table>{listed}"
