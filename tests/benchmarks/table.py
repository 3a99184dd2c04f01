"""The table that the benchmark prints: 80 columns, a row as soon as it is measured."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping
from typing import Any

from tests.benchmarks.row import Row
from tests.benchmarks.runner import Result

WIDTH = 80
_COLUMNS = {"row": 18, "what": 23, "ratio": 6, "bound": 7, "ours": 7, "theirs": 7, "": 6}
_LEFT = {"row", "what", ""}
_SECONDS = (0.1, 1.0, "s"), (0.0, 1e-3, "ms")
_SCALES = {
    "": ((0.0, 1.0, ""),),
    "s": _SECONDS,
    "CPU-s": _SECONDS,
    "bytes": ((2**30, 2**30, "GiB"), (0.0, 2**20, "MiB")),
    "FLOP": ((1e12, 1e12, "T"), (0.0, 1e9, "G")),
    "%": ((-math.inf, 1.0, ""),),
    "trials": ((0.0, 1.0, ""),),
}
"""Unit -> from what value on, divided by what, it is written how."""
BELOW = """\
ratio: of medians' pairs; "<=": ours over theirs, ">=": theirs over ours.
95 %: Student's interval of the mean of the pairs' differences.
*: measured elsewhere on another occasion; it shows the magnitude, and no ratio."""


def listed(rows: Collection[Row]) -> str:
    """What rows there are."""
    told = (f"{row.how} ({bound(row)})" if bound(row) else row.how for row in rows)
    return "\n".join(
        textwrap.fill(f"{row.name:{_COLUMNS['row']}} {how}", WIDTH, subsequent_indent=" " * (_COLUMNS["row"] + 1))
        for row, how in zip(rows, told, strict=True)
    )


def head(machine: Mapping[str, Any], load: float) -> str:
    """The machine, and the names of the columns."""
    told = "{cores} cores, {cpu}, Python {python}, torch {torch}, {threads} threads".format(**machine)
    said = textwrap.wrap(f"{told}, load {load:.2f} at the start; medians of interleaved pairs", WIDTH)
    return "\n".join([*said, "", _line(dict(zip(_COLUMNS, _COLUMNS, strict=True))), "-" * WIDTH])


def lines(row: Row, result: Result) -> str:
    """One row."""
    if "skipped" in result:
        return _cells(row, f"skipped: {result['skipped']}", {})
    theirs = row.elsewhere + "*" if row.elsewhere else quantity(result["theirs"], row.unit)
    cells = {
        "ratio": quantity(result["value"], row.unit if row.plain else "") if result["theirs"] is not None else "",
        "bound": bound(row),
        "ours": quantity(result["ours"], row.unit),
        "theirs": theirs,
        "": ("ok" if result["holds"] else "MISSED") if bound(row) else "",
    }
    return _cells(row, row.what, cells, _between(result.get("interval"), row.unit))


def _between(interval: tuple[float, float] | None, unit: str) -> str:
    return "" if interval is None else f"95 %: {quantity(interval[0], unit)} to {quantity(interval[1], unit)}"


def bound(row: Row) -> str:
    """``<=`` or ``>=``, and the limit; empty where there is none."""
    limit, sign = (row.least, ">=") if row.most is None else (row.most, "<=")
    if limit is None:
        return ""
    divisor, name = _scale(limit, row.unit if row.plain else "")
    return f"{sign}{limit / divisor:g}{name}"


def quantity(value: float | None, unit: str) -> str:
    """A number as the table has it; seconds as ms where they are few, bytes as MiB or GiB."""
    if value is None:
        return ""
    divisor, name = _scale(value, unit)
    value /= divisor
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}{name}"


def _scale(value: float, unit: str) -> tuple[float, str]:
    return next((divisor, name) for least, divisor, name in _SCALES[unit] if abs(value) >= least)


def _cells(row: Row, what: str, cells: dict[str, str], below: str = "") -> str:
    first, *rest = textwrap.wrap(what, _COLUMNS["what"], break_on_hyphens=False)
    more = [_line({"what": line}) for line in rest or [""] * bool(below)]
    if below:
        more[0] = f"{more[0]:{_COLUMNS['row'] + _COLUMNS['what'] + 2}}{below}"
    return "\n".join([_line({"row": row.name, "what": first, **cells}), *more])


def _line(cells: Mapping[str, str]) -> str:
    laid = []
    for name, width in _COLUMNS.items():
        cell = cells.get(name, "")
        laid.append(cell.ljust(width) if name in _LEFT else cell.rjust(width))
    return " ".join(laid).rstrip()
