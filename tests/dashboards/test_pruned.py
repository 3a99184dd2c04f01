"""Trials that were pruned are told as that, cost what they cost, and are in no median."""

from __future__ import annotations

import pandas as pd
import pytest
from rich.console import Console

from dashboards import figures, report, tables, terminal
from dashboards.facts import facts
from studies.compare import Comparison, compare
from studies.standing import ArmStanding, Standing
from tests.frames import evaluation
from tests.studies.sweeps import ARMS, small_plan
from tests.studies.test_compare import NO_EPOCHS, trials_of

HYPERBAND = {"name": "hyperband", "reduction_factor": 4}


def with_pruned(trials: pd.DataFrame, arm: str, *numbers: int) -> pd.DataFrame:
    """The trials with some of an arm's pruned after a tenth of their training."""
    changed = trials.copy()
    rows = (changed["arm"] == arm) & changed["number"].isin(numbers)
    changed.loc[rows, ["state", "status", "reason"]] = ["PRUNED", "pruned", "hyperband: 0.412 after epoch 2 of 20"]
    changed["training_flops"] = changed["training_flops"].mask(rows, changed["training_flops"] // 10)
    return changed


def half_pruned() -> Comparison:
    """Two sizing trials; of four fixed ones, two were pruned, one of them when it was the best of all so far."""
    fixed = trials_of("fixed", [(0.8, 0.80, 10), (0.9, 0.92, 10), (0.95, 0.60, 10), (0.2, 0.20, 10)], first_id=100)
    sizing = trials_of("shrinknets", [(0.9, 0.92, 10), (0.8, 0.70, 10)])
    return compare(pd.concat([sizing, with_pruned(fixed, "fixed", 2, 3)]), NO_EPOCHS)


def test_the_distribution_is_of_what_was_trained_to_its_end() -> None:
    arm = half_pruned().arms[1]
    assert (arm.trials, arm.finished, arm.pruned, arm.failed, arm.unfinished) == (4, 2, 2, 0, 0)
    assert (arm.worst, arm.best, arm.chosen, arm.failures) == (0.80, 0.92, 0.92, ())


def test_expected_best_counts_all_trials_and_what_they_cost() -> None:
    """A pruned one is chosen only among pruned ones, whatever it had reached: its weights are gone."""
    arm = half_pruned().arms[1]
    one = (0.92 + 0.80 + 0.60 + 0.20) / 4
    two = (3 * 0.92 + 2 * 0.80 + 0.60) / 6
    assert arm.expected == pytest.approx((one, two, (3 * 0.92 + 0.80) / 4, 0.92))
    assert arm.cost == pytest.approx((100 + 100 + 10 + 10) / 4)


def test_an_arm_with_pruned_trials_is_compared_by_cost_and_not_tested() -> None:
    comparison = half_pruned()
    assert comparison.pairs == ()
    assert comparison.spread_p is None
    (reach,) = comparison.reaches
    assert (reach.baseline, reach.target, reach.baseline_trials, reach.baseline_flops) == ("fixed", 0.92, 4, 220)
    assert (reach.trials, reach.flops) == (2, 200)
    (note,) = [note for note in comparison.notes if "pruned" in note]
    assert note.startswith("fixed: 2 of 4 trials were pruned, so that the 2 of its distribution are a selection")


def test_an_arm_of_which_all_was_pruned_gave_nothing_and_does_not_fail() -> None:
    trials = pd.concat([trials_of("shrinknets", [(0.9, 0.9, 10)] * 2), trials_of("fixed", [(0.9, 0.9, 10)] * 2, 50)])
    comparison = compare(with_pruned(trials, "fixed", 0, 1), NO_EPOCHS)
    assert (comparison.arms[1].expected, comparison.arms[1].cost, comparison.reaches) == ((), None, ())
    assert any(note.startswith("fixed: no finished trial, too few") for note in comparison.notes)


def test_without_pruned_trials_nothing_is_said_of_them() -> None:
    trials, history = evaluation(trials=6)
    html = report.render("demo", compare(trials, history), trials, history, history.iloc[:0])
    assert "pruned" not in html.replace("plotly", "").rpartition("<h1>")[2]
    assert len(compare(trials, history).pairs) == 4


def test_figures_and_report_show_where_pruned_trials_stood() -> None:
    trials, history = evaluation(trials=6)
    trials = with_pruned(trials, "fixed", 1, 4)
    marks = [trace for trace in figures.distribution(trials).data if str(trace.marker.symbol).endswith("-open")]
    assert [(len(trace.x), trace.name) for trace in marks] == [(2, "fixed")]
    assert all("pruned (hyperband: 0.412 after epoch 2 of 20)" in text for text in marks[0].text)
    comparison = compare(trials, history)
    curve = next(trace for trace in figures.expected_best(comparison, "flops").data if trace.name == "fixed")
    assert len(curve.x) == 6
    ends = trials[trials["arm"] == "fixed"]["training_flops"].sum()
    assert curve.x[-1] == pytest.approx(ends)
    html = report.render("demo", comparison, trials, history, history.iloc[:0])
    for said in ("An open mark is a trial that was pruned", "fixed: 2 of 6 trials were pruned", "are in no median"):
        assert said in html
    assert "Trials that gave no network" not in html
    assert [row[:2] for row in tables.accuracies(comparison).rows][2] == ("fixed", "4/6")


@pytest.mark.parametrize("width", [80, 120])
def test_status_counts_them(width: int) -> None:
    counts = {"stage": "", "planned": 5, "collapsed": 0, "failed": 0, "running": 0, "waiting": 1, "epochs": 80}
    arms = (
        ArmStanding(arm="shrinknets", complete=4, pruned=0, **counts),
        ArmStanding(arm="fixed", complete=1, pruned=3, **counts),
    )
    console = Console(width=width)
    with console.capture() as captured:
        terminal.print_status(console, Standing("demo", "stopped", "nobody runs it", "digits", "mlp", arms, ()))
    lines = captured.get().splitlines()
    assert sum("pruned" in line for line in lines) == 1
    assert ["fixed", "1", "0", "3", "0", "0", "1", "80"] in [line.split() for line in lines]
    assert all(len(line) <= width for line in lines)


def test_a_sweep_says_what_prunes_each_arm_and_warns_where_it_should() -> None:
    def said(**values: object) -> list[str | None]:
        told = facts(small_plan(**values).spec())
        ends = [told[arm].rpartition(", pruned by ")[2] if "pruned" in told[arm] else None for arm in ARMS]
        return [*ends, told.get("pruning")]

    assert said() == [None, None, None]
    assert said(pruner=HYPERBAND) == [None, "hyperband (reduction_factor 4)", None]
    own = {**ARMS, "shrinknets": {**ARMS["shrinknets"], "pruner": "median"}}
    assert said(arms=own) == [
        "median", None, "by accuracy it tends to kill small networks, which shrinknets looks for"]  # fmt: skip
    alone = facts(small_plan(pruner="median", arms={"shrinknets": ARMS["shrinknets"]}).spec())
    assert alone["pruning"] == "median ends no arm's trials: those that size themselves must name their own"
