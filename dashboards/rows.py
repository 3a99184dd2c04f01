"""Tables of rows as JSON and as CSV: what is no number is null, and no spreadsheet takes a text for a formula."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from typing import Any

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as values that JSON has: NaN, NA and infinity are None."""
    return [{str(key): _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def to_json(frame: pd.DataFrame) -> str:
    """The rows as a JSON array of objects; floats as exact as they are."""
    return json.dumps(plain(frame), separators=(",", ":"), allow_nan=False)


def to_csv(frame: pd.DataFrame) -> str:
    """The rows as CSV with a head, tables within cells as JSON."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(map(quoted, frame.columns))
    for row in plain(frame):
        writer.writerow([quoted(json.dumps(cell) if isinstance(cell, dict | list) else cell) for cell in row.values()])
    return out.getvalue()


def to_parquet(frame: pd.DataFrame) -> bytes:
    """The rows as a Parquet file, tables within cells as JSON."""
    told = frame.copy()
    for name in told.columns:
        if any(isinstance(cell, dict | list) for cell in told[name]):
            told[name] = [json.dumps(_plain(cell)) for cell in told[name]]
    return bytes(told.to_parquet(index=False))


def without_formulas(text: str) -> str:
    """CSV of somebody else's making, its texts quoted as `to_csv` does it."""
    csv.field_size_limit(sys.maxsize)  # a method's notes may be longer than the library's own limit
    out = io.StringIO()
    csv.writer(out).writerows([quoted(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline="")))
    return out.getvalue()


def quoted(cell: Any) -> Any:
    """A cell that a spreadsheet shows as it stands: a text that could be a formula has a ' before it."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
