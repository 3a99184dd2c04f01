"""What Optuna Dashboard has of an evaluation beside its own; and the plain study."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import optuna
import pytest

import studies
from dashboards.drawing import drawing
from dashboards.pages.trial import changes
from dashboards.published import publish
from dashboards.source import Local
from sizer.errors import InputError
from studies import query
from studies.database import locate
from tests.dashboards.served import served


def test_each_study_gets_a_description_and_our_figures_once(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    database = locate(tmp_path / "sizer.db")[0]
    for _ in range(2):
        publish(Local(database), "small")
    database.close()
    with served(tmp_path / "sizer.db") as server:
        ids = {each["study_name"]: each["study_id"] for each in server.ask("/api/studies").json()["study_summaries"]}
        told = {name: server.ask(f"/api/studies/{number}").json() for name, number in ids.items()}
    figures = {name: sorted(each["id"] for each in found["plotly_graph_objects"]) for name, found in told.items()}
    assert figures == {"small/shrinknets": ["sizer-distribution", "sizer-knob"], "small/fixed": ["sizer-distribution"]}
    note = told["small/shrinknets"]["note"]["body"]
    assert note.startswith("**shrinknets** of the evaluation **small**: lambda 1e-3 .. 0.01, random.")
    assert "[the whole evaluation](/evaluation/small), [what its knob does](/knob/small?arm=shrinknets)" in note


def test_a_study_is_optunas_own(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZER_DB", str(trained))
    study = studies.open("small/shrinknets")
    assert isinstance(study, optuna.Study)
    assert study.best_value == query.trials(trained, "small", "shrinknets")["val_accuracy"].max()
    with pytest.raises(InputError, match=r"unknown study 'small'; there are: small/fixed, small/shrinknets"):
        studies.open("small", trained)


def test_what_went_and_came_is_what_the_widths_say(trained: Path) -> None:
    history = query.history(trained, "small")
    own = history[(history["arm"] == "shrinknets") & (history["number"] == 0)]
    found = changes(own, {"dense1": 14})
    widths = [14, *(each["dense1"] for each in own["widths"])]
    steps = [(at, was, now) for at, (was, now) in enumerate(itertools.pairwise(widths), 1) if was != now]
    assert [(each["epoch"], each["was"], each["now"]) for each in found] == steps
    assert found[0]["was"] == 14
    assert len(changes(own, None)) < len(found)


def test_a_drawing_says_the_widths_and_escapes_names() -> None:
    drawn = drawing({"a<b": 5, "dense": 20}, {"a<b": 50, "dense": 20}, {"input_shape": [1, 8, 8], "outputs": 10})
    assert 'aria-label="Architecture: a&lt;b 5, dense 20"' in drawn
    assert drawn.count('class="layer"') == 2
    assert drawn.count('class="before"') == 1
    assert "of 50" in drawn
    assert "a<b" not in drawn
