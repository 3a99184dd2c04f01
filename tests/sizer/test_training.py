"""fit(): what it records, what it refuses, and how it ends."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sizer
from sizer import Epoch, InputError, best_epoch, cost, datasets, front, networks
from sizer.checkpoint import load_tensors, save_tensors
from sizer.methods import create
from sizer.training import STATE
from tests.sizer.digit_images import digits


def mlp(*widths: int) -> nn.Module:
    torch.manual_seed(0)
    return networks.build("mlp", (1, 8, 8), 10, list(widths))


def test_an_epoch_holds_what_was_measured() -> None:
    data = digits()
    run = sizer.fit(mlp(7, 5), data, create("fixed"), epochs=2, batch_size=100)
    last = run.history[-1]
    assert last.parameters == 64 * 7 + 7 + 7 * 5 + 5 + 5 * 10 + 10
    forward = 2 * (64 * 7 + 7 * 5 + 5 * 10)
    assert last.flops == forward
    backward = forward + 2 * (7 * 5 + 5 * 10)  # the first layer needs no gradient for its input
    assert last.training_flops == 2 * 400 * (forward + backward)
    module = run.net.finish().eval()
    with torch.no_grad():
        logits = module(data.x_test)
    assert last.test_loss == pytest.approx(float(nn.functional.cross_entropy(logits, data.y_test)), rel=1e-5)
    assert last.test_accuracy == pytest.approx(float((logits.argmax(1) == data.y_test).float().mean()))
    assert last.seconds > run.history[0].seconds > 0
    assert last.peak_memory > 10 * 2**20
    assert Epoch.from_dict(last.to_dict()) == last


def test_training_flops_follow_the_widths_as_they_change() -> None:
    run = sizer.fit(mlp(50), digits(), create("shrinknets", 0.1), epochs=6, batch_size=20)
    spent = np.diff([0] + [epoch.training_flops for epoch in run.history])
    widths = [epoch.widths["dense1"] for epoch in run.history]
    assert widths[-1] < 25
    assert spent[-1] < 0.6 * spent[0]
    assert spent[-1] == pytest.approx(spent[0] * widths[-1] / 50, rel=0.5)


def test_the_best_epoch_is_chosen_on_validation_data_and_ties_go_to_the_smaller_network() -> None:
    (one,) = sizer.fit(mlp(4), digits(), create("fixed"), epochs=1).history
    epochs = [
        replace(one, epoch=at, val_accuracy=val, test_accuracy=test, parameters=size, flops=size)
        for at, val, test, size in ((1, 0.8, 0.9, 90), (2, 0.9, 0.1, 80), (3, 0.9, 0.2, 70), (4, 0.9, 1.0, 70))
    ]
    assert best_epoch(epochs).epoch == 3
    assert [epoch.epoch for epoch in front(epochs)] == [3]
    assert [e.epoch for e in front([*epochs, replace(one, epoch=5, val_accuracy=0.7, parameters=9, flops=99)])] == [
        3,
        5,
    ]


def test_a_loss_that_is_no_number_ends_the_run_as_diverged(tmp_path: Path) -> None:
    run = sizer.fit(mlp(8), digits(), create("fixed"), epochs=5, learning_rate=1e30, optimizer="sgd", folder=tmp_path)
    assert run.status == "diverged"
    assert "epoch 1" in run.reason
    assert run.best is None
    assert list(tmp_path.iterdir()) == []


def test_regression_is_told_as_r_squared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 4)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5, 0.0] * 30 + 100).astype(np.float32)
    np.savez(tmp_path / "line.npz", x_train=x[:500], y_train=y[:500], x_test=x[500:], y_test=y[500:])
    data = datasets.load(tmp_path / "line.npz")
    torch.manual_seed(0)
    module = networks.build("mlp", data.input_shape, data.outputs, [30])
    run = sizer.fit(module, data, create("shrinknets", 1e-4), epochs=30, batch_size=32, learning_rate=3e-3)
    assert run.best is not None
    assert 0.97 < run.best.test_accuracy <= 1


def test_a_last_batch_of_one_sample_is_left_out() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 10))
    run = sizer.fit(module, digits(samples=101), create("shrinknets", 1e-4), epochs=1, batch_size=50)
    assert run.status == "complete"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be a positive number, got -1.0"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number, got nan"),
        ({"optimizer": "adan"}, "unknown optimizer 'adan'; there are: adam"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        sizer.fit(mlp(4), digits(), create("fixed"), **{"epochs": 1, **values})  # type: ignore[arg-type]  # wrong on purpose


def test_a_state_that_is_not_whole_is_named(tmp_path: Path) -> None:
    sizer.fit(mlp(4), digits(), create("fixed"), epochs=1, folder=tmp_path)
    whole = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"state\.safetensors is not a whole safetensors file"):
        sizer.fit(mlp(4), digits(), create("fixed"), epochs=2, folder=tmp_path)


def test_tensors_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.ones(3)}, {"note": 1})
    (path.parent / "blocked").mkdir()
    with pytest.raises(OSError, match="directory"):
        save_tensors(path.parent / "blocked", {"a": torch.zeros(3)})
    tensors, notes = load_tensors(path)
    assert torch.equal(tensors["a"], torch.ones(3))
    assert notes == {"note": 1}
    assert sorted(p.name for p in path.parent.iterdir()) == ["blocked", "t.safetensors"]


def test_counting_flops_changes_nothing() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    forward, both = cost.flops(module, (torch.randn(5, 3),))
    assert (forward, both) == (2 * (3 * 4 + 4 * 2), 2 * (3 * 4 + 4 * 2) * 2 + 2 * 4 * 2)
    assert module.training
    assert module[0].weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    del state
