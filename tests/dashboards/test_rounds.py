"""The summary of rounds says what the last kept round came to, against the network before the first."""

from __future__ import annotations

from dashboards.rounds import summary
from tests.dashboards.test_sizing_figures import pruned
from tests.frames import evaluation


def test_a_row_says_where_the_last_kept_round_came_to() -> None:
    trials, history = pruned(trials=2)
    for notes in trials["notes"]:
        notes["activity"]["parameters"] = 2 * notes["activity"]["rounds"][0]["parameters"]
    content = summary(trials, history, "classification")
    assert content is not None
    assert [row[0] for row in content.rows] == ["shrinknets, 0", "shrinknets, 1"]
    for row, trial in zip(content.rows, trials.to_dict("records"), strict=True):
        run = history[history["trial_id"] == trial["trial_id"]].set_index("epoch")
        assert row[2] == "1/3"
        assert row[3] == f"{run.parameters[4]:,}"
        assert row[4] == "-50 %"
        assert row[5] == f"{100 * (run.flops[4] / run.flops[3] - 1):+.0f} %"
        assert row[6:] == (f"{100 * run.test_accuracy[3]:.2f} %", f"{100 * run.test_accuracy[4]:.2f} %")


def test_nothing_kept_is_no_change() -> None:
    trials, history = pruned(trials=1)
    noted = trials["notes"].iloc[0]["activity"]
    noted["parameters"] = 1234
    noted["rounds"] = noted["rounds"][1:2]
    content = summary(trials, history, "classification")
    assert content is not None
    assert content.rows[0][2:6] == ("0/1", "1,234", "0 %", "0 %")


def test_without_rounds_there_is_no_table() -> None:
    trials, history = evaluation(trials=2)
    trials["notes"] = [{}] * len(trials)
    assert summary(trials, history, "classification") is None
