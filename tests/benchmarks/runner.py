"""Chooses rows, measures them, and keeps what was measured."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from tests.benchmarks.row import Row, SkippedError, minus

Result = dict[str, Any]
"""A row as it stands in JSON."""


def chosen(words: Iterable[str], rows: Mapping[str, Row]) -> list[Row]:
    """The rows of these names, or else of these prefixes, in their own order; all for no word.

    Raises:
        KeyError: no row is called or begins so; it names the word.
    """
    names: set[str] = set()
    for word in words:
        found = {word} & rows.keys() or {name for name in rows if name.startswith(word)}
        if not found:
            raise KeyError(word)
        names |= found
    return [row for name, row in rows.items() if name in names or not names]


def measure(row: Row) -> Result:
    """All sides in turn, each time in another order, after one uncounted turn each; medians of what they took."""
    result: Result = {"row": row.name, "what": row.how, "unit": row.unit, "date": now(), "load": os.getloadavg()[0]}
    try:
        sides = row.sides()
    except SkippedError as reason:
        return {**result, "skipped": str(reason)}
    for side in sides if row.warm else ():
        side()
    pairs: list[tuple[float, ...]] = []
    began = time.monotonic()
    for turn in range(row.pairs):
        order = [(at + turn) % len(sides) for at in range(len(sides))]
        taken = {at: sides[at]() for at in order}
        pairs.append(tuple(taken[at] for at in range(len(sides))))
        told = ", ".join(f"{value:.4g}" for value in pairs[-1])
        minutes = (time.monotonic() - began) / 60
        print(f"  {row.name} {turn + 1}/{row.pairs}: {told} {row.unit}, {minutes:.1f} min", file=sys.stderr, flush=True)
    return {**result, **summary(row, pairs)}


def summary(row: Row, pairs: list[tuple[float, ...]]) -> Result:
    """What a row's turns come to, against the opponent with the best median where there are several."""
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    best = medians.index(min(medians[1:])) if len(medians) > 1 else None
    values = [pair[0] if best is None else row.value(pair[0], pair[best]) for pair in pairs]
    value = statistics.median(values)
    return {
        "sides": list(row.names[: len(medians)]),
        "value": value,
        "interval": interval(values) if row.value is minus else None,
        "least": row.least,
        "most": row.most,
        "holds": row.holds(value),
        "ours": medians[0],
        "theirs": None if best is None else medians[best],
        "against": row.elsewhere or None if best is None else row.names[best],
        "pairs": pairs,
    }


def interval(values: list[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean of a row's differences; None for fewer than two."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values) - half, statistics.mean(values) + half


def merged(before: Iterable[Result], now: Iterable[Result], names: Iterable[str]) -> list[Result]:
    """Rows measured now in place of those measured before, the others as they were; in the order of the names."""
    held = {result["row"]: result for result in (*before, *now)}
    return [held[name] for name in names if name in held]


def keep(path: Path, result: Result, names: Iterable[str]) -> None:
    """Puts one row into the file, beside those that are there."""
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    text = json.dumps({"rows": merged(before, [{**result, "machine": machine()}], names)}, indent=1)
    path.with_suffix(".new").write_text(text + "\n")
    path.with_suffix(".new").replace(path)


def machine() -> dict[str, Any]:
    """What rows are measured on."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def is_missed(result: Result) -> bool:
    return not result.get("holds", True) or math.isnan(result.get("value", 0.0))
