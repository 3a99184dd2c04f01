"""A network of the size that one asks for: the search in one process, and the plan that is made of a wish."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import studies
from sizer import cost, networks
from sizer.datasets import load
from sizer.errors import InputError
from sizer.graph import Graph
from studies import sizing, sweep
from studies.path import Schedule
from tests.studies.sweeps import Seen, small_plan

DATA = load("digits")
RANGE = {"low": 1e-3, "high": 1e-1}


def module() -> nn.Module:
    torch.manual_seed(0)
    return networks.build("mlp", DATA.input_shape, DATA.outputs, [60])


@pytest.fixture(scope="module")
def found() -> tuple[nn.Module, sizing.Found]:
    given = module()
    return given, studies.size(given, DATA, max_params=2000, epochs=6, batch_size=16, **RANGE)


def test_it_gives_the_best_plain_network_under_the_budget(found: tuple[nn.Module, sizing.Found]) -> None:
    given, sized = found
    assert cost.parameters(sized.module) == sized.epoch.parameters <= 2000
    fitting = [epoch.val_accuracy for each in sized.trials for epoch in each.epochs if epoch.parameters <= 2000]
    assert sized.epoch.val_accuracy == max(fitting)
    with torch.no_grad():
        hits = sized.module.eval()(DATA.x_val).argmax(1) == DATA.y_val
    assert float(hits.float().mean()) == pytest.approx(sized.epoch.val_accuracy)
    assert cost.parameters(given) == cost.parameters(module())


def test_a_path_comes_down_to_the_budget_and_tunes_what_is_within_it(found: tuple[nn.Module, sizing.Found]) -> None:
    *steps, last, tuned = found[1].trials
    assert 1800 <= last.epochs[-1].parameters <= 2000 < steps[-1].epochs[-1].parameters
    assert {epoch.parameters for epoch in tuned.epochs} == {last.epochs[-1].parameters}
    assert (len(last.epochs), len(tuned.epochs)) == (1, 6)
    assert tuned.epochs[0].train_loss < steps[0].epochs[-1].train_loss, "each goes on from the one before"
    assert [each.knob for each in steps] == sorted(each.knob for each in steps)


def test_where_units_grow_a_search_ends_when_a_trial_is_just_under_the_budget() -> None:
    found = studies.size(module(), DATA, max_params=5500, method="auto-sizing", epochs=8, batch_size=64, low=1e-5)
    *others, last = [each.epochs[-1].parameters for each in found.trials]
    assert 4950 <= last <= 5500
    assert not any(4950 <= size <= 5500 for size in others)
    assert found.epoch.parameters <= 5500


def test_flops_may_be_the_budget_and_the_same_seed_finds_the_same() -> None:
    one, other = (studies.size(module(), DATA, max_flops=7000, epochs=4, batch_size=64, seed=3, **RANGE) for _ in "12")
    assert one.epoch.flops <= 7000
    assert [(each.knob, each.epochs[-1].val_loss) for each in one.trials] == [
        (each.knob, each.epochs[-1].val_loss) for each in other.trials
    ]


def test_under_a_latency_an_epoch_fits_that_is_no_larger_than_its_trial_s_last_network() -> None:
    found = studies.size(module(), DATA, max_latency=1000.0, epochs=3, batch_size=64, trials=2, **RANGE)
    each_of = [each.epochs for each in found.trials]
    fitting = [epoch for epochs in each_of for epoch in epochs if epoch.parameters <= epochs[-1].parameters]
    assert found.epoch.val_accuracy == max(epoch.val_accuracy for epoch in fitting)
    assert len(fitting) < sum(map(len, each_of)), "networks shrink"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "give one limit, max_params, max_flops or max_latency, not 0"),
        ({"max_params": 10, "max_flops": 10}, "give one limit, max_params, max_flops or max_latency, not 2"),
        ({"max_params": 10**9}, "max_params: 1,000,000,000 is no less than the network has before it is sized, 4,510"),
        (
            {"max_params": 200, "trials": 1, "high": 2e-4, "low": 1e-4},
            "no network of 1 trials is within max_params=200: ",
        ),
        ({"max_latency": 1e-6, "trials": 1}, "no network of 1 trials is within max_latency=1e-06 ms: "),
        ({"max_params": 200, "method": "fixed"}, "fixed sizes nothing: take one that does, such as shrinknets"),
        ({"max_params": 200, "method": "shrinkets"}, "unknown method 'shrinkets'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(values: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        studies.size(module(), DATA, epochs=1, **values)  # type: ignore[arg-type]  # what a user may give
    assert says in str(caught.value)


def test_a_wish_makes_a_plan() -> None:
    to_budget = sizing.plan("digits", "mlp", {"params": 2000}, method="shrinknets", epochs=16)
    assert (to_budget.name, to_budget.draws_by("shrinknets"), to_budget.epochs) == ("size-digits-mlp-2000", "path", 4)
    assert to_budget.schedule == Schedule(name="path", each=2, settle=0, tune=16)
    for limits, method in (({"latency": 0.5}, "shrinknets"), ({"params": 2000}, "auto-sizing")):
        searched = sizing.plan("digits", "mlp", limits, method=method, epochs=16)
        assert (searched.name, searched.draws_by(method), searched.trials) == ("size-digits-mlp", "size", 8)
    walked = sizing.plan("digits", "mlp", {}, method="auto-sizing", epochs=3, trials=5)
    assert (walked.name, walked.draws_by("auto-sizing"), walked.trials) == ("path-digits-mlp", "path", 5)
    with pytest.raises(InputError, match="give one limit, not 2: params and flops"):
        sizing.plan("digits", "mlp", {"params": 2000, "flops": 3000}, method="shrinknets", epochs=3)


def test_a_graph_is_sized_by_growing_unless_another_method_is_named() -> None:
    data = load("coordinates", samples=1500)
    torch.manual_seed(0)
    graph = networks.build("graph", data.input_shape, 1, [4, 4])
    found = sizing.size(graph, data, max_params=36, epochs=2, trials=3, settings={"steps": 2, "starts": 5})
    assert isinstance(found.module, Graph)
    found.module.check()
    assert cost.parameters(found.module) == found.epoch.parameters <= 36
    assert cost.parameters(graph) == 37
    with pytest.raises(InputError, match="shrinknets needs layers, and a graph has none"):
        sizing.size(graph, data, max_params=36, method="shrinknets")


def test_a_limit_under_the_start_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    arms = {"growing": {"settings": {"limit": 20}}}
    plan = small_plan(data="coordinates", network="graph", widths=[4, 4], samples=500, arms=arms)
    with pytest.raises(InputError, match=r"arms\.growing: limit of growing must be over the 37 param"):
        sweep.run(plan, tmp_path / "sizer.db", watch=Seen())
    assert list(tmp_path.iterdir()) == []
