"""Ratios of one run: rows against named opponents, interleaved, medians of their pairs; `bench.json` keeps them all.

make bench                        all rows
make bench ROW="loop sweep-"      those of a name, or else those whose names begin so; the file keeps the others
make bench ROW=list               which there are
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.benchmarks import runner, table
from tests.benchmarks.rows import ROWS

FILE = Path("bench.json")


def main(words: list[str], file: Path = FILE) -> int:
    """0 if all bounds hold, 1 if one was missed, 2 if there is no such row."""
    if words == ["list"]:
        print(table.listed(ROWS.values()))
        return 0
    try:
        rows = runner.chosen(words, ROWS)
    except KeyError as word:
        print(f"no row {word}; there are: {', '.join(ROWS)}", file=sys.stderr)
        return 2
    print(table.head(runner.machine(), os.getloadavg()[0]), flush=True)
    missed = False
    for row in rows:
        result = runner.measure(row)
        runner.keep(file, result, ROWS)
        print(table.lines(row, result), flush=True)
        missed = missed or runner.is_missed(result)
    print(table.BELOW)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
