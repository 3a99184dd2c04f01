"""Ratios of one run: each row against a named opponent, interleaved, the median of 11 pairs; JSON beside it.

make bench               all rows
make bench ROW=loop      one row
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.rows import ROWS, Row

PAIRS = 11


def measure(row: Row) -> dict[str, Any]:
    """Runs both sides in turn, after one uncounted turn each."""
    ours, theirs = row.sides()
    sides = [side for side in (ours, theirs) if side is not None]
    for side in sides:
        side()
    pairs = []
    for at in range(PAIRS):
        seconds = {side: side() for side in (sides if at % 2 else sides[::-1])}
        pairs.append((seconds[ours], seconds[theirs] if theirs else float("nan")))
        print(f"  {row.name} {at + 1}/{PAIRS}: {pairs[-1][0]:.4g} s, {pairs[-1][1]:.4g} s", file=sys.stderr, flush=True)
    value = statistics.median(row.value(a, b) for a, b in pairs)
    return {
        "row": row.name,
        "what": row.what,
        "value": value,
        "bound": row.bound,
        "holds": value <= row.limit if row.at_most else value >= row.limit,
        "ours": statistics.median(a for a, _ in pairs),
        "theirs": statistics.median(b for _, b in pairs),
        "pairs": pairs,
    }


def main() -> int:
    wanted = sys.argv[1:]
    for name in wanted:
        if name not in ROWS:
            print(f"no row {name!r}; there are: {', '.join(ROWS)}", file=sys.stderr)
            return 2
    machine = (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"{machine}; medians of {PAIRS} interleaved pairs\n")
    results = []
    for name in wanted or ROWS:
        result = measure(ROWS[name])
        results.append(result)
        mark = "" if result["holds"] else "   MISSED"
        print(f"{result['what']}\n    {result['value']:.3g}  ({result['bound']}){mark}", flush=True)
        against = "" if math.isnan(result["theirs"]) else f" against {result['theirs']:.4g} s"
        print(f"    medians: {result['ours']:.4g} s{against}\n", flush=True)
    Path("bench.json").write_text(json.dumps({"machine": machine, "rows": results}, indent=1) + "\n")
    return 0 if all(result["holds"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
