"""A plan with any value in any place, and a file of any bytes, is a plan or is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sizer.errors import SizerError
from studies.plan import Plan
from studies.reading import read_plan
from tests.sizer.test_damaged_files import VALUES, damaged, one_line

FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WHOLE: dict[str, Any] = {
    "name": "mine", "data": "digits", "network": "mlp", "widths": [8], "epochs": 2, "trials": 2, "folds": 2,
    "samples": 100, "seed": 1, "batch_size": 8, "learning_rate": 0.1, "optimizer": "adam", "validation": 0.2,
    "sampler": "random", "description": "",
    "arms": {
        "shrinknets": {"lambda": {"low": 1e-3, "high": 1e-2}, "enqueue": [1e-3], "settings": {"rule": "proximal"}},
        "auto-sizing": {"alpha": {"low": 1e-3, "high": 1e-2}, "learning_rate": [1e-3, 1e-2], "match": "shrinknets",
                        "start": [4]},
        "fixed": {"widths": {"low": 4, "high": 8}, "depth": {"low": 1, "high": 2}},
        "static": {"method": "fixed", "widths": {"mean_of": "auto-sizing", "cut": 0.1}},
        "fixed-l2": {"widths": {"low": 4, "high": 8}, "weight_decay": {"low": 1e-3, "high": 1e-2}},
    },
}  # fmt: skip
KNOWN = st.sampled_from(
    ["shrinknets", "auto-sizing", "static", "fixed", "grid", "tpe", "mlp", "lenet", "digits", "sgd"]
)


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """The plan, with other values in one to three places."""
    plan: dict[str, Any] = json.loads(json.dumps(WHOLE))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = plan
        while True:
            key = draw(st.sampled_from([*place])) if isinstance(place, dict) else draw(st.integers(0, len(place) - 1))
            if not (isinstance(place[key], dict | list) and place[key]) or draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        if isinstance(place, dict) and draw(st.integers(0, 5)) == 0:
            del place[key]
        else:
            place[key] = draw(VALUES | KNOWN | st.sampled_from([0, -1, 1, 1e-300, 1e300, 10**9]))
        if not plan:
            break
    return plan


@FEW
@given(values=changed())
def test_any_values(values: dict[str, Any]) -> None:
    try:
        plan = Plan(**{str(key): value for key, value in values.items()})
    except SizerError as error:
        one_line(error)
    else:
        assert json.loads(json.dumps(plan.spec())) == plan.spec()


TOML = b"""
name = "mine"
data = "digits"
network = "mlp"
epochs = 2
trials = 2
[arms.shrinknets]
lambda = { low = 1e-3, high = 1e-2 }
[cells.one]
widths = [8]
[scale.small]
trials = 1
[scale.small.cells.one]
epochs = 1
"""


@FEW
@given(content=damaged(TOML))
@pytest.mark.parametrize("scale", ["full", "small"])
def test_any_bytes(content: bytes, scale: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_bytes(content)
    try:
        assert read_plan(tmp_path / "plan.toml", scale=scale)
    except SizerError as error:
        one_line(error)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "cells = 1",
        "scale = 1",
        "arms = [1]",
        "[scale]\nsmall = 3",
        "[cells]\none = 2",
        "[arms]\nfixed = 3",
    ],
)
def test_tables_where_none_are_and_nests_without_end(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(SizerError) as caught:
        read_plan(tmp_path / "plan.toml", scale="small" if "small" in text else "full")
    one_line(caught.value)
