"""DARN's rounds: what goes, what comes, what is accepted and what is taken back."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import sizer
from sizer import InputError, Loaders, Net, snapshot
from sizer.methods import create
from sizer.methods.activity import SOURCES, falling, pick, unlike
from sizer.statistics import Statistics
from tests.sizer.fits import Interrupted, fit, interrupted_after, loaders, measured, mlp, part, weights

X = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
HARSH: dict[str, Any] = {"criterion": "l1+correlation", "pretrain": 1, "first": 0.5, "last": 0.1}


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 10), nn.Tanh(), nn.Linear(10, 3),
    )  # fmt: skip


def attached(scores: list[float] | None = None, knob: float = 0.01, **settings: Any) -> Net:
    """A network whose validation metric is as given, one call after the other, and then stays."""
    net = sizer.attach(convolutional(), X[:2], create("activity", knob, **settings))
    left = list(scores or [0.5])
    net.training_data = lambda: [X[:20], X[20:]]
    net.validate = lambda: left.pop(0) if len(left) > 1 else left[0]
    return net


def epoch(net: Net, optimizer: torch.optim.Optimizer) -> None:
    net.before_epoch()
    optimizer.zero_grad()
    net(X).square().sum().backward()
    optimizer.step()
    net.after_step()
    net.after_epoch()


def rounds(net: Net) -> list[Any]:
    return [(each["epoch"], each["accepted"]) for each in net.notes["activity"]["rounds"]]


# What goes ---------------------------------------------------------------------------------------------------------


def test_thresholds_fall_from_98_to_70_on_a_log_scale() -> None:
    made = falling(10, 0.98, 0.7)
    assert made[0] == pytest.approx(0.98)
    assert made[-1] == pytest.approx(0.7)
    assert np.diff(np.log(made)) == pytest.approx([np.log(0.7 / 0.98) / 9] * 9)
    assert falling([0.9, 0.5], 0, 0) == (0.9, 0.5)


@pytest.mark.parametrize(
    "settings",
    [
        {"thresholds": [0.9, 0.9]}, {"thresholds": [0.7, 0.8]}, {"thresholds": [0.9, 0.95, 0.7]}, {"thresholds": [1.0]},
        {"thresholds": [0.5, 0.0]}, {"thresholds": []}, {"thresholds": 0}, {"first": 0.7, "last": 0.98},
        {"first": 1.2}, {"last": -0.5}, {"first": 0.7, "last": 0.7},
    ],
)  # fmt: skip
def test_thresholds_that_do_not_fall_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="threshold"):
        create("activity", 0.01, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"criterion": "l2"}, {"criterion": "l1+"}, {"direction": "up"}, {"source": "none"}, {"maps": "all"},
        {"pretrain": -1}, {"retraining": -1}, {"share": 0}, {"share": 1.5}, {"max_growth": 0.5}, {"noise": 1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        create("activity", 0.01, **settings)


def test_epochs_that_end_with_the_pretraining_are_refused() -> None:
    with pytest.raises(InputError, match=r"nothing in 2 epochs.*set pretrain lower"):
        fit(method=create("activity", 0.01, pretrain=2))
    assert fit(method=create("activity", 0.01, criterion="l1", pretrain=1)).net.notes["activity"]["rounds"]


def statistics(l1: list[float], variance: list[float], pairs: dict[tuple[int, int], float]) -> Statistics:
    correlation = torch.eye(len(l1), dtype=torch.float64)
    for (a, b), value in pairs.items():
        correlation[a, b] = correlation[b, a] = value
    return Statistics(torch.tensor(l1), torch.zeros(len(l1)), torch.tensor(variance), correlation)


@pytest.mark.parametrize(
    ("criterion", "threshold", "gone"),
    [
        ("l1", 0.98, [0]),  # a fiftieth of five units, rounded up
        ("l1", 0.6, [0, 1]),
        ("l1", 0.59, [0, 1, 2]),
        ("variance", 0.8, [4]),
        ("correlation", 0.95, []),
        ("correlation", 0.85, [3]),  # 2-3 by -0.9: 3 varies less
        ("correlation", 0.75, [2, 3]),  # and 2-4 by 0.8: 2 varies more than 4; 3-4 does not count, 3 is gone
        ("l1+variance", 0.8, [0, 4]),
        ("l1+correlation", 0.85, [0, 3]),
    ],
)
def test_criteria_pick_what_they_say(criterion: str, threshold: float, gone: list[int]) -> None:
    pairs = {(2, 3): -0.9, (2, 4): 0.8, (3, 4): 0.85}
    found = statistics([0.2, 0.5, 1.2, 1.5, 1.6], [1, 1, 1.2, 1.1, 0.2], pairs)
    if criterion == "correlation":
        found = statistics([1] * 5, [1, 1, 1.2, 1.1, 2], pairs)
    assert pick(found, criterion.split("+"), threshold).tolist() == gone


def test_a_falling_threshold_removes_no_less_and_never_the_last_unit() -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(50, 12, generator=draw).double().relu()
    correlation = torch.corrcoef(values.T)
    for criteria in (["l1"], ["variance"], ["correlation"], ["l1", "variance", "correlation"]):
        found = Statistics(values.mean(0), values.mean(0), values.var(0), correlation)
        counts = [len(pick(found, criteria, threshold)) for threshold in falling(30, 0.999, 0.001)]
        assert counts == sorted(counts)
        assert 0 < counts[-1] < 12
    same = Statistics(torch.ones(4), torch.ones(4), torch.ones(4), torch.ones(4, 4))
    assert len(pick(same, ["correlation"], 0.9)) == 3
    assert pick(statistics([1.0, 2.0], [2.0, 1.0], {}), ["l1", "variance"], 0.9).tolist() == [1]
    assert pick(statistics([1.0], [1.0], {}), ["l1"], 0.9).tolist() == []


def test_what_stays_is_a_multiple_and_the_least_active_go() -> None:
    found = statistics([0.1, 0.1, 0.1, *[1.0] * 5], [0.3, 0.1, 0.2, *[1.0] * 5], {})
    assert pick(found, ["l1"], 0.65).tolist() == [0, 1, 2]
    assert pick(found, ["l1"], 0.65, multiple=2).tolist() == [1, 2]
    assert pick(found, ["l1"], 0.65, multiple=8).tolist() == []


def test_layers_confine_it() -> None:
    net = attached(layers="0, 6", **{**HARSH, "pretrain": 0})
    before = net.widths
    net.before_epoch()
    assert net.widths["3"] == before["3"]
    assert net.widths["0"] < before["0"]
    assert net.widths["6"] < before["6"]
    with pytest.raises(InputError, match="unknown layer to size by activity 'dense'"):
        attached(layers="dense")


def test_units_that_are_zero_go_exactly() -> None:
    net = attached()
    with torch.no_grad():
        for tensor in (net.module[3].weight, net.module[3].bias, net.module[1].weight, net.module[1].bias):
            tensor[2] = 0
    before = net.module.eval()(X)
    net.after_epoch()
    assert net.widths == {"0": 7, "3": 5, "6": 10}
    assert torch.allclose(net.module(X), before, atol=1e-5)


# Rounds ------------------------------------------------------------------------------------------------------------


def test_a_round_within_the_sacrifice_is_accepted_and_the_next_threshold_follows() -> None:
    net = attached([0.5, 0.49, 0.495], knob=0.01, **HARSH)
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    units = []
    for _ in range(4):
        epoch(net, optimizer)
        units.append(sum(net.widths.values()))
    assert units[0] == 24 > units[1] > units[2]
    assert rounds(net) == [(2, True), (3, True), (4, True)]
    tried = [each["threshold"] for each in net.notes["activity"]["rounds"]]
    assert tried == sorted(tried, reverse=True)
    assert set(tried) <= set(falling(10, 0.5, 0.1))
    assert net.snapshot is None


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_a_rejected_round_restores_weights_and_optimiser_bit_for_bit(name: str) -> None:
    net = attached([0.5, 0.489], knob=0.01, retraining=2, **HARSH)
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = net.track(getattr(torch.optim, name)(net.param_groups(1e-3), **options))
    epoch(net, optimizer)
    before = snapshot.take(net)
    for _ in range(2):
        epoch(net, optimizer)
        assert net.widths != before.widths
    assert rounds(net) == [(2, None)]
    epoch(net, optimizer)
    assert rounds(net) == [(2, False)]
    after = snapshot.take(net)
    assert after.widths == before.widths
    assert after.numbers == before.numbers
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(value, before.tensors[name]) for name, value in after.tensors.items())
    for _ in range(3):
        epoch(net, optimizer)
    assert net.widths == before.widths
    assert rounds(net) == [(2, False)]


def test_retraining_may_save_a_round() -> None:
    net = attached([0.5, 0.4, 0.4, 0.5], retraining=2, **HARSH)
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    for _ in range(4):
        epoch(net, optimizer)
    assert rounds(net) == [(2, True)]


def test_the_last_planned_epoch_decides() -> None:
    net = attached([0.5, 0.4], **HARSH)
    net.epochs = 2
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    epoch(net, optimizer)
    epoch(net, optimizer)
    assert rounds(net) == [(2, False)]
    assert net.widths == {"0": 8, "3": 6, "6": 10}


def test_rounds_end_where_no_threshold_removes_anything() -> None:
    net = attached(criterion="correlation", pretrain=0, thresholds=[0.999999, 0.99999])
    net.before_epoch()
    assert net.notes["activity"]["done"]
    assert rounds(net) == []


def test_data_and_score_are_asked_for_before_anything_is_trained() -> None:
    net = sizer.attach(convolutional(), X[:2], create("activity", 0.01, pretrain=3))
    with pytest.raises(InputError, match=r"activity needs net\.validate"):
        net.before_epoch()
    net.validate = lambda: 0.5
    with pytest.raises(InputError, match=r"activity needs net\.training_data"):
        net.before_epoch()


# In fit ------------------------------------------------------------------------------------------------------------


def with_generators() -> Loaders:
    generator = torch.Generator().manual_seed(3)
    train = DataLoader(part("train", 200), 50, shuffle=True, generator=generator)
    return Loaders(train, DataLoader(part("val", 100), 64, shuffle=True))


@pytest.mark.parametrize("data", [loaders, with_generators])
def test_looking_at_the_data_changes_no_random_number(data: Any) -> None:
    looks = create("activity", 0.01, criterion="correlation", pretrain=0, thresholds=[0.9999999])
    runs = [fit(mlp(12, 10), data(), method, epochs=3) for method in (create("fixed"), looks)]
    looked = sizer.cost.flops(mlp(12, 10), (X[:1],))[0] * (200 + 100)
    told = [replace(epoch, training_flops=epoch.training_flops - looked) for epoch in runs[1].history]
    assert measured(runs[0]) == measured(replace(runs[1], history=told)), "training and validation part, forward, count"
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert runs[1].net.notes["activity"]["done"]


@pytest.mark.parametrize(
    ("settings", "knob"), [(HARSH, 1e6), (HARSH, 1e-6), ({"direction": "add", "source": "copy", "pretrain": 1}, 1e-6)]
)
def test_a_run_that_goes_on_between_a_round_and_its_verdict_is_the_same(
    settings: dict[str, Any], knob: float, tmp_path: Path
) -> None:
    def run(folder: Path, stop: int = 0) -> sizer.Run:
        method = create("activity", knob, **settings)
        return fit(
            mlp(12, 10), with_generators(), method, epochs=6, folder=folder, on_epoch=interrupted_after(stop),
            metric=lambda outputs, _: outputs.abs().mean(1), learning_rate=1e-2,
        )  # fmt: skip

    whole = run(tmp_path / "whole")
    pending = 0
    for stop in range(1, 6):
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", stop)
        pending += any(name.startswith("snapshot/") for name in kept(tmp_path / "parts"))
    parts = run(tmp_path / "parts")
    assert measured(parts) == measured(whole)
    assert parts.net.notes == whole.net.notes
    assert whole.net.notes["activity"]["rounds"]
    assert torch.equal(weights(parts), weights(whole))
    assert (pending > 0) == (knob < 1)


def kept(folder: Path) -> dict[str, Tensor]:
    return sizer.checkpoint.load_tensors(folder / "state.safetensors")[0]


# What comes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_added_units_leave_the_outputs_and_copies_as_they_were(source: str) -> None:
    net = attached(direction="add", source=source, pretrain=0, noise=0.0, share=0.5, max_growth=9)
    average = net.follow(copy.deepcopy(net.module))
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    before, there = net.module.eval()(X), average.eval()(X)
    net.before_epoch()
    assert net.widths == {"0": 12, "3": 9, "6": 15}
    assert torch.allclose(net.module.eval()(X), before, atol=1e-5)
    assert torch.allclose(average.eval()(X), there, atol=1e-5)
    if source.startswith("split") or source == "copy":  # of its own units, not the network's
        assert all((average[6].weight[:10, :96] == row[:96]).all(1).any() for row in average[6].weight[10:])


@pytest.mark.parametrize("source", ["split-variance", "split-l1"])
def test_the_highest_units_are_split_in_two_halves(source: str) -> None:
    net = attached(direction="add", source=source, pretrain=0, noise=1e-3, share=0.2, layers="6")
    module = net.module
    with torch.no_grad():
        module[6].weight[4] *= 100  # of tanh: the highest by either measure
        module[6].weight[7] *= 50
    old = {name: value.clone() for name, value in module.state_dict().items()}
    net.before_epoch()
    assert net.widths["6"] == 12
    for parent, child in zip(
        (4, 7), sorted((10, 11), key=lambda at: -float(module[6].weight[at].detach().norm())), strict=True
    ):
        both = module[6].weight[[parent, child]]
        assert torch.allclose(both.mean(0), old["6.weight"][parent], atol=1e-6)
        apart = (both[0] - both[1]).detach().norm() / old["6.weight"][parent].norm()
        assert 1e-3 < float(apart) < 4e-3
        assert torch.equal(module[6].bias[child], old["6.bias"][parent])
        for unit in (parent, child):
            assert torch.equal(module[8].weight[:, unit], old["8.weight"][:, parent] / 2)


def test_the_least_correlated_pair_gives_its_average() -> None:
    net = attached(direction="add", source="average", pretrain=0, share=0.1, layers="6")
    module = net.module
    with torch.no_grad():
        module[6].weight[:] = module[6].weight[0] + 0.01 * torch.randn(10, 96)
        module[6].weight[5] = torch.randn(96)
        module[6].weight[5] -= module[6].weight[0]
    net.before_epoch()
    averages = (module[6].weight[:10, None] + module[6].weight[None, :10]) / 2
    assert any(torch.allclose(averages[5, other], module[6].weight[10]) for other in range(10) if other != 5)
    assert not module[8].weight[:, 10].any()


def test_the_least_correlated_pairs_come_first() -> None:
    found = statistics([1] * 3, [1] * 3, {(0, 1): 0.5, (0, 2): -0.1, (1, 2): -0.9})
    assert unlike(found, 2).tolist() == [[0, 2], [0, 1]]
    assert unlike(statistics([1.0], [1.0], {}), 1).tolist() == [[0, 0]]


def test_growth_ends_at_its_bound_and_where_it_costs_too_much() -> None:
    net = attached(direction="add", source="random", pretrain=0, share=0.2, max_growth=1.5)
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    start = sizer.cost.parameters(net.module)
    for _ in range(6):
        epoch(net, optimizer)
    assert start < sizer.cost.parameters(net.module) <= 1.5 * start
    assert net.notes["activity"]["done"]
    net = attached([0.5, 0.3], direction="add", source="random", pretrain=0, retraining=0)
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    for _ in range(3):
        epoch(net, optimizer)
    assert rounds(net) == [(1, False)]
    assert sizer.cost.parameters(net.module) == start
