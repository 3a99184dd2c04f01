"""The benchmark's runner and table, on rows that take no time."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as bench
from tests.benchmarks import runner, table
from tests.benchmarks.row import Row, Side, SkippedError, minus, times
from tests.benchmarks.rows import ROWS


def row(name: str, *sides: list[float], **values: object) -> Row:
    """One whose sides take what they are given, turn by turn."""
    turns: list[Side] = [iter(side).__next__ for side in sides]
    settings = {"pairs": len(sides[0]), "warm": False, **values}
    return Row(name, "ours / theirs", "in full", lambda: tuple(turns), **settings)  # type: ignore[arg-type]


def skipped() -> tuple[Side, ...]:
    raise SkippedError("no such thing here")


def test_the_value_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    result = runner.measure(row("x", [1.0, 4.0, 9.0], [2.0, 1.0, 3.0], most=3))
    assert (result["value"], result["ours"], result["theirs"]) == (3.0, 4.0, 2.0)
    assert result["holds"]
    assert result["pairs"] == [(1.0, 2.0), (4.0, 1.0), (9.0, 3.0)]


@pytest.mark.parametrize(("bound", "holds"), [({"least": 2}, True), ({"least": 2.1}, False), ({}, True)])
def test_bounds_from_below_are_on_how_many_times_faster_ours_is(bound: dict[str, float], holds: bool) -> None:
    result = runner.measure(row("x", [1.0] * 5, [2.0] * 5, value=times, **bound))
    assert result["value"] == 2.0
    assert runner.is_missed(result) is not holds


def test_of_several_opponents_the_one_with_the_best_median_counts() -> None:
    result = runner.measure(row("x", [2.0] * 3, [9.0, 9.0, 1.0], [4.0] * 3, names=("a", "b", "c"), most=1))
    assert (result["against"], result["value"]) == ("c", 0.5)
    assert result["sides"] == ["a", "b", "c"]


def test_each_side_has_one_uncounted_turn_and_turns_change_their_order() -> None:
    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return 1.0

    runner.measure(Row("x", "what", "how", lambda: (partial(turn, "a"), partial(turn, "b")), pairs=2))
    assert order == ["a", "b", "a", "b", "b", "a"]


def test_what_is_not_a_number_misses_its_bound() -> None:
    assert runner.is_missed(runner.measure(row("x", [math.nan], most=1)))


def test_a_row_that_cannot_be_measured_says_why_and_misses_nothing() -> None:
    without = Row("x", "what", "how", skipped)
    result = runner.measure(without)
    assert not runner.is_missed(result)
    assert "skipped: no such thing" in table.lines(without, result)


def test_a_name_is_a_row_and_else_a_prefix() -> None:
    rows = {name: row(name, [1.0]) for name in ("loop", "loop-wide", "attach-a", "attach-b")}

    def names(*words: str) -> list[str]:
        return [each.name for each in runner.chosen(words, rows)]

    assert names() == list(rows)
    assert names("loop") == ["loop"]
    assert names("loop-") == ["loop-wide"]
    assert names("attach", "loop") == ["loop", "attach-a", "attach-b"]
    with pytest.raises(KeyError, match="lop"):
        names("lop")


def test_an_unknown_row_is_one_line_and_leaves_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["lop"], tmp_path / "bench.json") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("no row 'lop'; there are: loop-100, ")
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_some_rows_measured_anew_leave_the_others_and_their_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    rows = {name: row(name, [1.0, 1.0, 3.0, 3.0], [2.0] * 4, pairs=2, most=1) for name in ("a", "b")}
    monkeypatch.setattr(bench, "ROWS", rows)
    monkeypatch.setattr(runner, "now", lambda: "then")
    assert bench.main([], path) == 0
    monkeypatch.setattr(runner, "now", lambda: "today")
    rows["a"] = row("a", [3.0, 3.0], [2.0, 2.0], most=1)
    assert bench.main(["a"], path) == 1
    assert "MISSED" in capsys.readouterr().out
    kept = json.loads(path.read_text())["rows"]
    assert [(each["row"], each["date"], each["value"]) for each in kept] == [("a", "today", 1.5), ("b", "then", 0.5)]
    assert kept[0]["machine"].keys() >= {"cores", "cpu", "torch", "threads"}
    assert kept[0].keys() >= {"pairs", "sides", "unit", "load"}


@pytest.mark.parametrize("name", ROWS)
def test_the_table_is_80_columns_wide_whatever_is_measured(name: str) -> None:
    each = ROWS[name]
    for value in (0.00012, 0.5, 12345.6) if each.unit != "bytes" else (5e6, 999 * 2**20, 3.5 * 2**30):
        alone = each.elsewhere or (each.plain and each.value is not minus)
        sides = 1 if alone else len(each.names)
        result = {"row": name, **runner.summary(each, [(value,) * sides] * 3)}
        lines = table.lines(each, result).splitlines()
        assert max(map(len, lines)) <= table.WIDTH
        assert len(lines) <= 2
        assert lines[0].split()[0] == name


def test_quantities_are_short() -> None:
    given = [(0.0123, "s"), (0.5, "s"), (61.25, "CPU-s"), (1.234, ""), (123.4, ""), (3 * 2**29, "bytes"), (-0.02, "s")]
    assert [table.quantity(*each) for each in given] == [
        "12.3ms", "0.50s", "61.2s", "1.23", "123", "1.50GiB", "-20.0ms",
    ]  # fmt: skip


def test_the_head_describes_the_machine() -> None:
    lines = table.head(runner.machine(), 0.25).splitlines()
    assert "torch" in " ".join(lines)
    assert "load 0.25" in " ".join(lines)
    assert lines[-2].split() == ["row", "what", "ratio", "bound", "ours", "theirs"]
    assert max(map(len, lines)) <= table.WIDTH


def test_every_row_has_a_bound_or_a_figure_beside_it_and_enough_pairs() -> None:
    for each in ROWS.values():
        assert each.pairs >= 5
        # A difference says itself what it is, and so does a ratio between sides that have names.
        assert table.bound(each) or each.elsewhere or each.value is minus or each.names != ("ours", "theirs")
