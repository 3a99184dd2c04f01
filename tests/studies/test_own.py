"""A plan that names one's own functions: checked before anything runs, swept through Ray, taken out, trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sizer
from sizer import Epoch, datasets
from sizer.checkpoint import load_tensors
from sizer.errors import InputError
from studies import estimate, search, selection
from studies.database import open_database
from studies.plan import Plan, differences
from studies.reading import read_plan
from studies.retrain import Retraining, best_of
from studies.sweep import run
from tests.sizer import users_code
from tests.studies.sweeps import Seen, check_whole, rows

pytestmark = pytest.mark.alone

TOML = """
name = "own"
data = "mine:data"
network = "mine:net"
epochs = 2
trials = 1
batch_size = 32
[arms.shrinknets]
lambda = { low = 1e-2, high = 1e-1 }
[arms.fixed]
widths = { low = 4, high = 7 }
"""
FIXED: dict[str, Any] = {"widths": {"low": 4, "high": 7}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return users_code.enter(tmp_path, monkeypatch)


def own_plan(**values: Any) -> Plan:
    given = {"name": "own", "data": "mine:data", "network": "mine:net", "epochs": 2, "trials": 1, "batch_size": 32}
    return Plan(**{**given, "arms": {"shrinknets": {}, "fixed": FIXED}, **values})


def test_a_baseline_draws_a_width_for_each_layer_of_ones_own_network(here: Path) -> None:
    plan = own_plan()
    assert plan.layers() == ("1", "3.first")
    assert set(search.space(plan, plan.arms["fixed"])) == {"width_1", "width_3.first"}
    data = plan.read_data()
    given = search.point(plan, "fixed", {"width_1": 5, "width_3.first": 7})
    assert plan.build(data.input_shape, data.outputs, given.widths).get_parameter("3.first.weight").shape == (7, 5)
    assert search.point(plan, "shrinknets", {"lambda": 1e-3}).widths is None
    ranges = {"1": {"low": 2, "high": 3}, "3.first": {"low": 4, "high": 5}}
    own_plan(arms={"fixed": {"widths": ranges, "enqueue": [{"widths": [9, 9]}]}})


def test_the_plan_is_known_by_its_source_but_not_by_where_that_lies(here: Path) -> None:
    before = own_plan().spec()
    users_code.write(here / "moved")
    (here / "moved/plan.toml").write_text(TOML)
    (moved,) = read_plan(here / "moved/plan.toml")
    code = moved.code("network")
    assert code is not None
    assert code.folder == str(here / "moved")
    assert moved.spec()["network_sha256"] == before["network_sha256"]
    users_code.write(here / "moved", blocks=users_code.BLOCKS.replace("relu", "tanh"))
    assert moved.spec()["network_sha256"] == before["network_sha256"]
    (edited,) = read_plan(here / "moved/plan.toml")
    changed = [line.partition(":")[0] for line in differences(moved.spec(), edited.spec())]
    assert changed == ["network_sha256", "data_sha256"]
    users_code.write(here / "moved", mine=users_code.MINE + "\nother = data\n")
    assert [line for line in differences({**before, "data": "mine:other"}, before) if line.startswith("data: was")]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"network": "mine:nett"}, "unknown function of mine"),
        ({"network": "nowhere:net"}, "nowhere:net: no module nowhere in"),
        ({"network": "mine:data"}, "mine:data raised TypeError"),
        ({"network": "mine:"}, "named package.module:function, got 'mine:'"),
        ({"data": "mine:dat"}, "unknown function of mine"),
        ({"data": "mine:net"}, "mine:net raised TypeError"),
        ({"widths": [3, 4]}, r"widths: sizing arms start from what mine:net builds; leave out \[3, 4\]"),
        ({"arms": {"fixed": {**FIXED, "depth": {"low": 1, "high": 2}}}}, "arms.fixed.depth: mine:net decides"),
        ({"arms": {"fixed": {"widths": {"1": {"low": 1, "high": 2}}}}}, "arms.fixed.widths lacks the layers 3.first"),
        ({"arms": {"fixed": {**FIXED, "enqueue": [{"widths": [3]}]}}}, "1 widths given, mine:net has 2 to 2"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(here: Path, values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        own_plan(**values)
    assert "\n" not in str(caught.value)


def test_data_that_the_function_does_not_give_is_refused_before_anything_is_written(here: Path) -> None:
    users_code.write(here, mine="def data():\n    return 3")
    with pytest.raises(InputError, match="mine:data must give"):
        run(own_plan(network="mlp", arms={"shrinknets": {}}), here / "x.db", watch=Seen())
    assert not (here / "x.db").exists()


def test_what_it_would_cost_is_measured_from_small_to_what_the_function_builds(here: Path) -> None:
    sizing, fixed = estimate.dry_run(own_plan())
    assert (sizing.smallest.widths, sizing.largest.widths) == ({"1": 2, "3.first": 2}, users_code.WIDTHS)
    assert (fixed.smallest.widths, fixed.largest.widths) == ({"1": 4, "3.first": 4}, {"1": 7, "3.first": 7})


@pytest.mark.usefixtures("ray_here")
def test_a_sweep_of_ones_own_network_and_data_and_what_becomes_of_its_best(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = "default_rng(int(Path('seed').read_text()))"
    text = "from pathlib import Path\n" + users_code.MINE.replace("default_rng(0)", reading)
    users_code.write(here / "plans", mine=text)
    (here / "plans/own.toml").write_text(TOML)
    (here / "plans/seed").write_text("7")
    # The data's function can read this file here alone: no worker's current folder has it.
    monkeypatch.chdir(here / "plans")
    (plan,) = read_plan("own.toml")
    path = here / "x.db"
    outcome = run(plan, path, watch=Seen())
    assert outcome.ended == {"shrinknets": {"complete": 1}, "fixed": {"complete": 1}}
    check_whole(path, plan)
    assert run(plan, path, watch=Seen()).already_done
    layers = rows(path, "select distinct layer from sizer_architectures order by layer")
    assert layers == [("1",), ("3.first",)]

    row = selection.best(path, "own")
    found, weights = selection.architecture(open_database(path), "own", row)
    sizer.save(here / "net", found, load_tensors(weights)[0])
    data = datasets.load("mine:data")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    net = sizer.load(here / "net")
    with torch.no_grad():
        right = (net(data.x_val).argmax(1) == data.y_val).float().mean().item()
    assert right == pytest.approx(row["val_accuracy"], abs=1e-6)

    monkeypatch.chdir(here / "plans")
    seen: list[Epoch] = []
    again = Retraining(here / "net", from_scratch=False, given={"epochs": 3, "batch_size": None})
    assert (again.same_data, again.settings["batch_size"], again.settings["data"]) == (True, 32, "mine:data")
    results = [again.run(seed, seen.append, keep_weights=True) for seed in range(2)]
    assert [epoch.widths for epoch in seen] == [row["widths"]] * 6
    best = best_of(results)
    assert best.best is not None
    assert best.best.train_loss < float(row["train_loss"])
    again.save(here / "again", best)
    with torch.no_grad():
        right = (sizer.load(here / "again")(data.x_test).argmax(1) == data.y_test).float().mean().item()
    assert right == pytest.approx(best.best.test_accuracy, abs=1e-6)

    users_code.write(here / "plans")
    with pytest.raises(InputError, match="the plan own changed since its study began: network_sha256"):
        run(read_plan("own.toml")[0], path, watch=Seen())


def test_retraining_from_scratch_forgets_the_weights_and_keeps_the_widths(here: Path) -> None:
    sizer.save(here / "net", made := written(here), made.build().state_dict())
    (here / "net/weights.safetensors").unlink()
    fresh = Retraining(here / "net", from_scratch=True, given={"data": "mine:data", "epochs": 1})
    results = [fresh.run(seed, lambda _: None, keep_weights=False) for seed in (0, 1, 0)]
    assert all(each.best is not None and each.best.widths == made.widths for each in results)
    losses = [each.best.train_loss for each in results if each.best]
    assert losses[0] == losses[2] != losses[1]


def written(here: Path) -> sizer.Architecture:
    return sizer.Architecture("mine:net", (6,), 4, "classification", {"1": 5, "3.first": 3})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "net does not say its data: give --data"),
        ({"data": "mine:data"}, "net does not say its epochs: give --epochs"),
        (
            {"data": "digits", "epochs": 1},
            r"takes inputs \(6,\), 4 outputs, classification; digits has inputs \(1, 8, 8\)",
        ),
        ({"data": "mine:data", "epochs": 1, "optimizer": "adm"}, "unknown optimizer 'adm'; there are: adam"),
        ({"data": "nowhere.npz", "epochs": 1}, "no data file at .*nowhere.npz"),
    ],
)
def test_what_cannot_be_trained_again_is_refused_in_one_line(here: Path, given: dict[str, Any], says: str) -> None:
    sizer.save(here / "net", made := written(here), made.build().state_dict())
    with pytest.raises(InputError, match=says) as caught:
        Retraining(here / "net", from_scratch=False, given=given)
    assert "\n" not in str(caught.value)


def test_a_file_is_named_by_its_whole_path(here: Path) -> None:
    made = datasets.load("mine:data")
    arrays = {f"x_{part}": np.random.default_rng(0).normal(size=(40, 6)) for part in ("train", "test")}
    np.savez("arrays.npz", **arrays, y_train=np.arange(40) % made.outputs, y_test=np.arange(40) % made.outputs)
    sizer.save(here / "net", own := written(here), own.build().state_dict())
    again = Retraining("net", from_scratch=True, given={"data": "arrays.npz", "epochs": 1})
    assert again.settings["data"] == str(here / "arrays.npz")
