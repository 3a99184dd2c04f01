"""The lines on a trial's page train it again, to the same figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dashboards.repeating import repeating
from dashboards.source import Local
from dashboards.starts import starts
from studies import query
from studies.database import open_database
from tests.dashboards.swept import assert_repeated, small_plan


@pytest.mark.parametrize(("arm", "number"), [("shrinknets", 1), ("fixed", 0)])
def test_the_lines_train_the_trial_again(trained: Path, arm: str, number: int) -> None:
    source = Local(open_database(trained))
    spec, trials = source.spec("small"), source.trials("small")
    row = trials[(trials["arm"] == arm) & (trials["number"] == number)].iloc[0]
    lines, why = repeating(spec, row.to_dict(), starts(spec, trials).get(arm))
    assert why == ""
    assert_repeated(lines, query.history(source.database, "small", [row["trial_id"]]))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"schedule": "path", "trials": 4}, "It is a step of a path"),
        ({"folds": 3}, "It was trained in cross-validation"),
        ({"samples": 500, "folds": 3}, "It was trained in cross-validation"),
    ],
)
def test_what_lines_cannot_repeat_says_why(trained: Path, values: dict[str, Any], says: str) -> None:
    row = query.trials(trained, "small").iloc[0].to_dict()
    lines, why = repeating(small_plan(**values).spec(), row, {"dense1": 12})
    assert (lines, why.startswith(says)) == ([], True)
