"""A plan is read from a preset or TOML, says what it will do, and refuses in one line what makes no sense."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sizer.errors import InputError
from studies import presets
from studies.plan import Plan, differences
from studies.reading import read_plan
from tests.studies.sweeps import ARMS, small_plan

TOML = """
name = "mine"
data = "digits"
network = "mlp"
widths = [20, 20]
epochs = 5
trials = 3
[arms.shrinknets]
lambda = { low = 1e-4, high = 1e-3 }
settings = { rule = "subgradient" }
enqueue = [1e-2]
[arms.fixed]
widths = { low = 4, high = 32 }
depth = { low = 1, high = 3 }
[cells.small]
widths = [10]
[cells.long]
epochs = 50
arms.shrinknets.lambda = { low = 1e-5, high = 1e-3 }
"""


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_valid_plan_at_every_scale(name: str) -> None:
    for scale in ("full", *tomllib.loads(presets.text(name)).get("scale", {})):
        for plan in read_plan(name, scale=scale):
            assert plan.name.startswith(name)
            assert plan.description


@pytest.mark.parametrize("name", [name for name in presets.names() if "[scale.small]" in presets.text(name)])
def test_a_small_scale_keeps_the_shape(name: str) -> None:
    full, small = read_plan(name), read_plan(name, scale="small")
    assert [plan.name for plan in small] == [plan.name.replace(name, f"{name}.small") for plan in full]
    for large, little in zip(full, small, strict=True):
        assert list(little.arms) == list(large.arms)
        assert {arm.method for arm in little.arms.values()} == {arm.method for arm in large.arms.values()}
        assert little.samples is not None or little.epochs < large.epochs


def test_figure_2_is_there_in_full() -> None:
    plans = {plan.name.partition("/")[2]: plan for plan in read_plan("shrinknets-search")}
    assert set(plans) == {f"{net}-{data}" for net in ("mlp", "lenet") for data in ("mnist", "fashion_mnist", "cifar10")}
    for cell, plan in plans.items():
        ours = ["unsized", *(["gates", "gates-from-1"] if cell == "mlp-cifar10" else [])]  # no part of the figure
        assert list(plan.arms) == ["shrinknets", "fixed", "fixed-l2", *ours]
        assert (plan.trials, plan.batch_size, plan.validation, plan.learning_rate) == (50, 256, 0.2, 1e-3)
        assert plan.epochs == (100 if cell.startswith("mlp") else 200)
        assert plan.arms["shrinknets"].settings == {"rule": "subgradient"}
        knob, decay = plan.arms["shrinknets"].knob, plan.arms["fixed-l2"].weight_decay
        assert knob == decay
        assert knob is not None
        assert (knob.low, knob.high) == (1e-6 if cell.endswith("cifar10") else 1e-5, 1e-2)


def test_a_toml_file_has_cells_that_override_its_top(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(TOML)
    small, long = read_plan(path)
    assert (small.name, small.widths, small.epochs) == ("mine/small", [10], 5)
    assert (long.name, long.widths, long.epochs) == ("mine/long", [20, 20], 50)
    knob = long.arms["shrinknets"].knob
    assert knob is not None
    assert knob.low == 1e-5
    assert long.arms["shrinknets"].settings == {"rule": "subgradient"}
    assert [plan.name for plan in read_plan(f"{path}/long")] == ["mine/long"]


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    (plan,) = read_plan("demo", {"trials": 2, "epochs": 1, "seed": 7, "name": "other", "data": None})
    assert (plan.trials, plan.epochs, plan.seed, plan.name, plan.data) == (2, 1, 7, "other", "digits")


def test_the_knobs_range_is_the_methods_unless_given() -> None:
    knob = small_plan(arms={"shrinknets": {}}).arms["shrinknets"].knob
    assert knob is not None
    assert (knob.low, knob.high) == (1e-5, 1e-2)


def test_an_arm_may_train_otherwise_and_says_so() -> None:
    plan = small_plan(arms={**ARMS, "fixed": {**ARMS["fixed"], "epochs": 9}})
    assert (plan.setting("fixed", "epochs"), plan.setting("shrinknets", "epochs")) == (9, 3)
    assert plan.spec()["arms"]["fixed"]["epochs"] == 9


def test_a_users_file_is_known_by_its_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.normal(size=(20, 3)) for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(20) % 2 for part in ("train", "test")}
    np.savez(tmp_path / "mine.npz", **arrays)
    (tmp_path / "plan.toml").write_text(TOML.replace('"digits"', '"mine.npz"').partition("[cells")[0])
    (before,) = read_plan(tmp_path / "plan.toml")
    assert before.data == str(tmp_path / "mine.npz")
    (tmp_path / "mine.npz").rename(tmp_path / "moved.npz")
    (moved,) = read_plan(tmp_path / "plan.toml", {"data": str(tmp_path / "moved.npz")})
    assert not differences({**moved.spec(), "data": before.data}, moved.spec())
    np.savez(tmp_path / "other.npz", **{**arrays, "x_train": arrays["x_train"] + 1})
    (other,) = read_plan(tmp_path / "plan.toml", {"data": str(tmp_path / "other.npz")})
    assert any("data_sha256" in line for line in differences(moved.spec(), other.spec()))


def test_a_changed_plan_says_what_differs() -> None:
    before = small_plan().spec()
    lambda_ = {"low": 1e-4, "high": 1e-2}
    after = small_plan(epochs=4, trials=9, arms={**ARMS, "shrinknets": {"lambda": lambda_}, "fixed-l2": {
        "widths": {"low": 4, "high": 16}, "weight_decay": {"low": 1e-5, "high": 1e-2}}}).spec()  # fmt: skip
    assert differences(before, after) == ["epochs: was 3, now 4", "arms.shrinknets.lambda.low: was 0.001, now 0.0001"]
    assert differences(after, before)[-1] == "arms.fixed-l2: was a table, now not there"


FIXED: dict[str, Any] = {"widths": {"low": 4, "high": 16}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"trials": 0}, "trials: should be greater than or equal to 1, got 0"),
    ({"epochs": 0}, "epochs: should be greater than or equal to 1, got 0"),
    ({"epochs": 2.5}, "epochs: should be a valid integer, got 2.5"),
    ({"epoch": 3}, "epoch: unknown field 'epoch'; there are: epochs"),
    ({"validation": 1.0}, "validation: should be less than 1, got 1.0"),
    ({"learning_rate": float("nan")}, "learning_rate"),
    ({"data": "digit"}, "unknown data set 'digit'; there are: digits"),
    ({"data": "nowhere.npz"}, "no data file at nowhere.npz"),
    ({"network": "mpl"}, "unknown network 'mpl'; there are: mlp"),
    ({"sampler": "radnom"}, "unknown sampler 'radnom'; there are: random"),
    ({"optimizer": "adm"}, "unknown optimizer 'adm'; there are: adam"),
    ({"precision": "float16"}, "unknown precision 'float16'; there are: bfloat16, float32"),
    ({"widths": [10, 0]}, "widths.1: should be greater than or equal to 1, got 0"),
    ({"network": "lenet", "widths": [10, 10]}, "lenet has 3 widths (conv1, conv2, dense), got 2"),
    ({"name": "a b"}, "name: must be letters"),
    ({"arms": {}}, "arms"),
    ({"arms": {"shrinknet": {}}}, "unknown method 'shrinknet'; there are: shrinknets"),
    ({"arms": {"shrinknets": {"lambda": {"low": 0, "high": 1}}}}, "arms.shrinknets.lambda.low: should be greater than"),
    ({"arms": {"shrinknets": {"lambda": {"low": -1e-3, "high": 1}}}}, "got -0.001"),
    ({"arms": {"shrinknets": {"lambda": {"low": 1e-2, "high": 1e-3}}}}, "low must be below high, got low=0.01"),
    ({"arms": {"shrinknets": {"lambda": 1e-3}}}, "single points go into enqueue"),
    ({"arms": {"shrinknets": {"alpha": {"low": 1, "high": 2}}}}, "sweeps lambda and nothing else"),
    ({"arms": {"shrinknets": {"widths": {"low": 4, "high": 16}}}}, "sweeps lambda and nothing else"),
    ({"arms": {"shrinknets": {"learning_rate": {"low": 1e-4, "high": 1e-2}}}}, "sweeps lambda and nothing else"),
    ({"arms": {"shrinknets": {"settings": {"ramp": {"low": 1, "high": 2}}}}}, "sweeps lambda and nothing else"),
    ({"arms": {"shrinknets": {"settings": {"rul": "proximal"}}}}, "setting of shrinknets 'rul'; there are: rule"),
    ({"arms": {"shrinknets": {"settings": {"rule": "proximate"}}}}, "arms.shrinknets: unknown rule"),
    ({"arms": {"shrinknets": {"enqueue": [-1e-3]}}}, "got -0.001"),
    ({"arms": {"activity": {"epochs": 3}}}, "arms.activity: activity sizes nothing in 3 epochs, the first 3 being"),
    ({"arms": {"shrinknets": {"lamda": {"low": 1, "high": 2}}}}, "unknown field 'lamda'; there are: lambda"),
    ({"arms": {"fixed": {}}}, "arms.fixed.widths is missing"),
    ({"arms": {"fixed": {"widths": {"dense2": {"low": 1, "high": 2}}}}}, "layer of mlp 'dense2'; there are: dense1"),
    ({"widths": [5, 5], "arms": {"fixed": {"widths": {"dense1": {"low": 1, "high": 2}}}}}, "lacks the layers dense2"),
    ({"arms": {"fixed": {"widths": {"low": 1.5, "high": 8}}}}, "whole numbers from 1, got 1.5..8"),
    ({"arms": {"fixed": {**FIXED, "weight_decay": {"low": 1e-5, "high": 1e-2}}}}, "use the method fixed-l2"),
    ({"arms": {"fixed-l2": FIXED}}, "arms.fixed-l2.weight_decay is missing"),
    ({"arms": {"fixed": FIXED}, "sampler": "grid"}, "grid is for a knob"),
    ({"arms": {"fixed": {**FIXED, "enqueue": [3.0]}}}, "a baseline's point is a table of widths, got 3.0"),
    ({"arms": {"fixed": {**FIXED, "enqueue": [{"widths": [3, 3]}]}}}, "2 widths given, mlp has 1 to 1"),
    ({"folds": 1}, "folds: should be greater than or equal to 2, got 1"),
    ({"samples": 0}, "samples: should be greater than or equal to 2, got 0"),
    ({"arms": {"shrinknets": {"stage": "knob"}}}, "arms.shrinknets.stage: unknown field 'stage'"),
    ({"arms": {"shrinknets": {"start": [3, 3]}}}, "start: 2 widths given, the plan's network has 1 layers"),
    ({"arms": {"shrinknets": {"start": []}}}, "arms.shrinknets.start: list should have at least 1 item"),
    ({"arms": {"shrinknets": {"learning_rate": [1e-3, -1.0]}}}, "learning_rate.1: should be greater than 0, got -1.0"),
    ({"arms": {"shrinknets": {"match": "fxed"}, "fixed": FIXED}}, "match: unknown arm 'fxed'; there are: fixed"),
    ({"arms": {"fixed": {"widths": {"mean_of": "x"}}}}, "arms.fixed.widths: unknown arm 'x'; there are: fixed"),
    ({"arms": {"fixed": {"widths": {"mean_of": "fixed"}}}}, "arms.fixed waits for itself"),
    ({"arms": {"a": {"method": "shrinknets", "match": "b"}, "b": {"method": "fixed", "widths": {"mean_of": "a"}}}},
     "waits for itself, by way of"),
    ({"arms": {"fixed": {"widths": {"cut": 1.0}}}}, "arms.fixed.widths.cut: should be less than 1, got 1.0"),
    ({"arms": {"fixed": {"widths": {"cut": 0.1, "uniformly": True}}}}, "unknown field 'uniformly'; there are: uniform"),
    ({"arms": {"fixed": {"widths": {"cut": 0.1}, "depth": {"low": 1, "high": 2}}}}, "there is nothing to draw"),
    ({"arms": {"fixed": {**FIXED, "match": "shrinknets"}, "shrinknets": {}}},
     "arms.fixed.match is for arms that size themselves"),
    ({"arms": {"fixed": {**FIXED, "learning_rate": [1e-3]}}}, "a grid of rates needs one network to try them on"),
    ({"arms": {"fixed": {**FIXED, "epochs": 0}}}, "arms.fixed.epochs: should be greater than or equal to 1, got 0"),
    ({"network": "graph"}, "arms.shrinknets: shrinknets needs layers, and a graph has none: take growing, fixed"),
    ({"arms": {"growing": {}}}, "arms.growing: growing needs a graph, and this network has layers: take the network"),
    ({"network": "graph", "arms": {"dropout": FIXED}}, "arms.dropout: dropout needs layers, and a graph has none"),
    ({"network": "graph", "arms": {"growing": {}, "fixed": {"widths": {"mean_of": "growing"}}}},
     "arms.fixed: growing ends with neurons and synapses, and no widths of layers"),
    ({"network": "graph", "arms": {"growing": {"epsilon": {"low": 0, "high": 1}}}},
     "arms.growing.epsilon.low: should be greater than 0, got 0"),
    ({"data": "coordinates@gone.png"}, "no data file at gone.png"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "says"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_makes_no_sense_is_refused_in_one_line(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        small_plan(**values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_is_looked_for_beside_its_plan_and_known_by_its_content(tmp_path: Path) -> None:
    Image.new("L", (20, 20), 9).save(tmp_path / "photo.png")
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\ndata = "coordinates@photo.png"\nnetwork = "graph"\nepochs = 2\ntrials = 1\n[arms.growing]\n'
    )
    (plan,) = read_plan(tmp_path / "mine.toml")
    assert plan.data == f"coordinates@{tmp_path / 'photo.png'}"
    before = plan.spec()
    Image.new("L", (20, 20), 8).save(tmp_path / "photo.png")
    assert differences(before, read_plan(tmp_path / "mine.toml")[0].spec())[0].startswith("data_sha256: was")


def test_unknown_sources_list_what_there_is(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    for source, says in (
        ("dem", "unknown preset 'dem'; there are: demo"),
        ("shrinknets-search/mlp-mnst", "there are: mlp-mnist"),
        (str(tmp_path / "gone.toml"), "no plan at"),
        (str(broken), "is not TOML"),
    ):
        with pytest.raises(InputError, match=says):
            read_plan(source)


def test_an_unknown_scale_lists_what_there_is() -> None:
    with pytest.raises(InputError, match="unknown scale of das-puzzle 'smal'; there are: small, full"):
        read_plan("das-puzzle", scale="smal")
    with pytest.raises(InputError, match="unknown scale of demo 'small'; there are: full"):
        read_plan("demo", scale="small")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InputError, match="network is missing from the plan"):
        Plan(name="x", data="digits", epochs=1, trials=1, arms=ARMS)
