"""Sizes at equal score: what each trial of a graph needed, beside the baselines that no smaller one matches."""

from __future__ import annotations

from typing import Any

import pandas as pd

from dashboards import tables
from studies.equal import cuts, equals

SPEC: dict[str, Any] = {"epochs": 1, "arms": {"growing": {"method": "growing"}, "layered": {"method": "fixed"}}}


def frames(*trials: tuple[str, int, list[tuple[int, float]]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and epochs from (arm, number, [(parameters, score), ...])."""
    rows, epochs = [], []
    for at, (arm, number, own) in enumerate(trials):
        best = max(range(len(own)), key=lambda k: own[k][1])
        rows.append(
            {"trial_id": at, "arm": arm, "number": number, "state": "COMPLETE", "epoch": best + 1,
             "parameters": own[best][0], "val_accuracy": own[best][1], "test_accuracy": own[best][1]}
        )  # fmt: skip
        epochs += [
            {
                "trial_id": at,
                "arm": arm,
                "number": number,
                "epoch": k + 1,
                "parameters": size,
                "val_accuracy": score,
                "training_flops": 1e6 * (k + 1),
            }
            for k, (size, score) in enumerate(own)
        ]
    return pd.DataFrame(rows), pd.DataFrame(epochs)


def test_each_baseline_that_no_smaller_one_matches_is_a_row() -> None:
    trials, history = frames(
        ("growing", 0, [(20, 0.5), (30, 0.72), (25, 0.71), (40, 0.9)]),
        ("growing", 1, [(22, 0.4), (35, 0.8)]),
        ("growing", 2, [(20, 0.3), (60, 0.75)]),
        ("layered", 0, [(50, 0.6), (50, 0.7)]),
        ("layered", 1, [(80, 0.69)]),
        ("layered", 2, [(100, 0.85)]),
        ("layered", 3, [(200, 0.95)]),
    )
    found = equals(SPEC, trials, history)
    assert [(each.parameters, each.smallest, each.median) for each in found] == [
        (50, (25, 35, 60), 35.0), (100, (40,), None), (200, (), None),
    ]  # fmt: skip
    first = found[0]
    assert first.ratio == 50 / 35
    assert (first.flops, first.spent, first.trials) == (2e6, 2e6, 3)
    table = tables.equals(found, "regression")
    assert table.rows[0][2:6] == ("50", "35", "25 .. 60", "1.43")
    assert table.rows[1][3:6] == ("-", "40 .. 40", "-")
    assert table.rows[2][3:8] == ("-", "-", "-", "1.00 M", "-")


def test_baselines_may_be_cut_to_as_many_epochs() -> None:
    trials, history = frames(("growing", 0, [(20, 0.5), (30, 0.6)]), ("layered", 0, [(50, 0.45), (50, 0.6), (50, 0.7)]))
    cut = [(each.score, each.median) for each in (equals(SPEC, trials, history, epochs)[0] for epochs in (1, 2, None))]
    assert cut == [(0.45, 20.0), (0.6, 30.0), (0.7, None)]


def test_baselines_that_are_trained_longer_are_compared_twice() -> None:
    arms = {"growing": {"method": "growing"}, "layered": {"method": "fixed", "epochs": 400}}
    assert cuts({"epochs": 60, "arms": arms}) == [60, None]
    assert cuts({"epochs": 400, "arms": arms}) == [None]
    both = {"epochs": 60, "arms": {**arms, "long": {"method": "growing", "epochs": 400}}}
    assert cuts(both) == [60, None]
    trials, history = frames(("growing", 0, [(20, 0.5)]), ("long", 0, [(30, 0.5)]), ("layered", 0, [(50, 0.45)]))
    assert [each.arm for each in equals(both, trials, history, 60)] == ["growing"]
    assert [each.arm for each in equals(both, trials, history)] == ["growing", "long"]
    assert cuts({"epochs": 60, "arms": {"layered": arms["layered"]}}) == []


def test_who_sizes_layers_has_no_such_rows() -> None:
    trials, history = frames(("shrinknets", 0, [(20, 0.5)]), ("layered", 0, [(50, 0.6)]))
    spec = {"arms": {"shrinknets": {"method": "shrinknets"}, "layered": {"method": "fixed"}}}
    assert equals(spec, trials, history) == []
    assert equals(SPEC, *frames(("growing", 0, [(20, 0.5)]))) == []
