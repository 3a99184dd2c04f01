"""fit()'s training manners: optimisers, schedules, clipping, accumulation, precision, patience, knob, progress."""

from __future__ import annotations

import math
import sys
from collections import Counter, OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop
from torch.optim import lr_scheduler as schedules

import sizer
from sizer import InputError, plain
from sizer.history import epochs_since_better
from sizer.methods import create
from tests.sizer.fits import Interrupted, fit, interrupted_after, measured, mlp, shrink, weights


class Seen(SGD):
    """Keeps the gradient norms and learning rates of its steps."""

    def __init__(self, groups: Any, **options: Any) -> None:
        super().__init__(groups, **options)
        self.norms: list[float] = []
        self.rates: list[list[float]] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # without its overloads
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        self.norms.append(float(torch.cat(gradients).norm()))
        self.rates.append([group["lr"] for group in self.param_groups])
        super().step(closure)


class Tiring(SGD):
    """Its steps become smaller by a number that it keeps for each parameter."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # without its overloads
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["count"] = self.state[p].get("count", 0) + 1
                p.grad /= self.state[p]["count"]
        super().step(closure)


class Observed:
    """Makes a ``Seen`` and remembers it."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.made: list[Seen] = []

    def __call__(self, groups: list[dict[str, Any]]) -> Seen:
        self.made.append(Seen(groups, **self.options))
        return self.made[-1]


@pytest.mark.parametrize(
    "optimizer",
    [
        "rmsprop",
        "sgd",
        lambda groups: RMSprop(groups, foreach=True, momentum=0.5),
        lambda groups: AdamW(groups, foreach=True),
        lambda groups: SGD(groups, fused=True),
        lambda groups: NAdam(groups),
        lambda groups: Adagrad(groups),
        lambda groups: Tiring(groups),
    ],
)
def test_any_optimiser_trains_and_goes_on_equal_to_the_bit(optimizer: Any, tmp_path: Path) -> None:
    values = {"optimizer": optimizer, "epochs": 3, "learning_rate": 5e-3}
    whole = fit(mlp(30), method=shrink(0.05), **values)
    assert whole.history[-1].train_loss < whole.history[0].train_loss
    with pytest.raises(Interrupted):
        fit(mlp(30), method=shrink(0.05), folder=tmp_path, on_epoch=interrupted_after(2), **values)
    parts = fit(mlp(30), method=shrink(0.05), folder=tmp_path, **values)
    assert measured(parts) == measured(whole)
    assert torch.equal(weights(parts), weights(whole))


def test_weight_decay_is_added_to_the_methods_own_and_never_on_gates() -> None:
    own = Observed()
    fit(method=create("fixed-l2", weight_decay=0.25), weight_decay=0.5, optimizer=own)
    assert [group["weight_decay"] for group in own.made[0].param_groups] == [0.75]
    gated = Observed()
    fit(method=shrink(), weight_decay=0.5, optimizer=gated)
    assert [group["weight_decay"] for group in gated.made[0].param_groups] == [0.5, 0.0]


def test_a_cosine_ends_at_zero_and_the_gates_follow_it() -> None:
    optimizer = Observed()
    fit(method=shrink(), optimizer=optimizer, schedule="cosine", epochs=4, learning_rate=0.01)
    rates = optimizer.made[0].rates[::4]
    assert [rate[0] for rate in rates] == pytest.approx(
        [0.01 * (1 + math.cos(math.pi * at / 4)) / 2 for at in range(4)]
    )
    assert [gates / own for own, gates in rates] == pytest.approx([10] * 4)
    assert optimizer.made[0].param_groups[0]["lr"] == 0


@pytest.mark.parametrize(
    "schedule",
    [
        "cosine",
        lambda optimizer: schedules.MultiStepLR(optimizer, [1, 3], 0.5),
        lambda optimizer: schedules.OneCycleLR(optimizer, 0.02, total_steps=5),
        lambda optimizer: schedules.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5),
        lambda optimizer: schedules.SequentialLR(
            optimizer, [schedules.LinearLR(optimizer, total_iters=2), schedules.ExponentialLR(optimizer, 0.5)], [2]
        ),
    ],
)
def test_a_schedule_goes_on_equal_to_the_bit(schedule: Any, tmp_path: Path) -> None:
    def run(folder: Path | None, stop: int | None = None) -> sizer.Run:
        on_epoch = interrupted_after(stop) if stop else None
        values = {"schedule": schedule, "folder": folder, "on_epoch": on_epoch, "learning_rate": 5e-3}
        return fit(mlp(30), method=shrink(0.05), epochs=4, **values)

    whole = run(None)
    for stop in (1, 3):
        with pytest.raises(Interrupted):
            run(tmp_path, stop)
    parts = run(tmp_path)
    assert measured(parts) == measured(whole)
    assert torch.equal(weights(parts), weights(whole))
    assert measured(whole) != measured(fit(mlp(30), method=shrink(0.05), epochs=4, learning_rate=5e-3))


def test_a_plateau_is_one_of_the_validation_part() -> None:
    made: list[schedules.ReduceLROnPlateau] = []

    def schedule(optimizer: Optimizer) -> schedules.ReduceLROnPlateau:
        made.append(schedules.ReduceLROnPlateau(optimizer, mode="max", patience=0, threshold=0))
        return made[-1]

    run = fit(schedule=schedule, epochs=3)
    assert made[0].best == max(epoch.val_accuracy for epoch in run.history)


def test_accumulated_batches_are_one_larger_batch() -> None:
    """Of 200 samples in batches of 30, by 4: 120 and a last step of 30 + 30 + 20, as with batches of 120."""
    values: dict[str, Any] = {"optimizer": lambda groups: SGD(groups, momentum=0.9), "learning_rate": 0.1}
    small = fit(batch_size=30, accumulate=4, epochs=3, **values)
    large = fit(batch_size=120, epochs=3, **values)
    assert (weights(small) - weights(large)).abs().max() < 1e-5
    assert small.net.steps == large.net.steps == 6
    assert small.net.steps_per_epoch == 2
    assert small.history[-1].train_loss == pytest.approx(large.history[-1].train_loss, rel=1e-5)
    assert small.history[-1].training_flops == large.history[-1].training_flops


def test_a_penalty_is_felt_once_a_step_however_many_batches_it_has() -> None:
    values: dict[str, Any] = {"optimizer": lambda groups: SGD(groups), "learning_rate": 0.1}
    small, large = (
        fit(mlp(12), method=create("shrinknets", 0.02, rule="subgradient"), epochs=2, **batches, **values)
        for batches in ({"batch_size": 25, "accumulate": 4}, {"batch_size": 100})
    )
    assert small.history[-1].widths == large.history[-1].widths
    assert (weights(small) - weights(large)).abs().max() < 1e-5


def test_clipping_bounds_the_norm_of_all_gradients_together() -> None:
    free, clipped = Observed(), Observed()
    fit(optimizer=free, method=shrink())
    fit(optimizer=clipped, method=shrink(), clip=0.1)
    assert min(free.made[0].norms) > 0.2
    assert clipped.made[0].norms == pytest.approx([0.1] * 8, rel=1e-4)


def test_augmentation_is_for_training_alone() -> None:
    seen: list[tuple[int, ...]] = []

    def flipped(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return x.flip(-1) if torch.rand(()) < 0.5 else x

    run = fit(augment=flipped)
    assert seen == [(50, 1, 8, 8)] * 8
    assert measured(run) == measured(fit(augment=flipped))
    assert measured(run) != measured(fit())


def test_bfloat16_computes_lower_and_keeps_parameters_as_they_are() -> None:
    kinds: set[torch.dtype] = set()

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(64, 30)
            self.out = nn.Linear(30, 10)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.out(torch.relu(self.hidden(x.flatten(1))))
            if not torch.compiler.is_compiling():
                kinds.add(outputs.dtype)
            return outputs

    def build() -> nn.Module:
        torch.manual_seed(0)
        return Watched()

    values: dict[str, Any] = {"epochs": 6, "learning_rate": 5e-3}
    lower = fit(build(), method=shrink(), precision="bfloat16", **values)
    assert torch.bfloat16 in kinds
    assert {p.dtype for p in lower.net.module.parameters()} == {torch.float32}
    full = fit(build(), method=shrink(), **values)
    assert lower.history[-1].val_loss == pytest.approx(full.history[-1].val_loss, rel=0.1)
    assert lower.history[-1].val_loss != full.history[-1].val_loss


def test_patience_ends_a_run_as_complete_and_it_stays_ended(tmp_path: Path) -> None:
    calls = 0

    def never_better(outputs: Tensor, targets: Tensor) -> float:
        nonlocal calls
        calls += 1
        return 0.5

    def run(patience: int | None = 2) -> sizer.Run:
        return fit(metric=never_better, patience=patience, epochs=6, folder=tmp_path)

    first = run()
    assert (first.status, len(first.history)) == ("complete", 3)
    assert first.reason == "no better validation metric since epoch 1: ended in epoch 3 (patience 2)"
    before, again = calls, run()
    assert measured(again) == measured(first)
    assert again.reason == first.reason
    assert calls == before + 1  # the look at the first batch
    longer = run(patience=4)
    assert (len(longer.history), longer.reason[-12:]) == (5, "(patience 4)")
    assert (len(run(patience=None).history), run(patience=None).reason) == (6, "")


def test_patience_that_ends_with_the_last_epoch_is_no_reason() -> None:
    assert fit(metric=lambda outputs, y: 0.5, patience=1, epochs=2).reason == ""


def test_patience_that_was_interrupted_counts_on(tmp_path: Path) -> None:
    values: dict[str, Any] = {"patience": 2, "epochs": 5, "folder": tmp_path}
    with pytest.raises(Interrupted):
        fit(metric=lambda outputs, y: 0.5, on_epoch=interrupted_after(2), **values)
    run = fit(metric=lambda outputs, y: 0.5, **values)
    assert len(run.history) == 3


def test_patience_waits_for_strictly_better() -> None:
    (one,) = fit(epochs=1).history
    rows = [replace(one, epoch=at + 1, val_accuracy=value) for at, value in enumerate((0.5, 0.7, 0.6, 0.7))]
    assert [epochs_since_better(rows[:at]) for at in range(5)] == [0, 0, 0, 1, 2]


def test_a_knob_follows_the_epochs(tmp_path: Path) -> None:
    asked: list[int] = []

    def knob(epoch: int) -> float:
        asked.append(epoch)
        return 1e-5 if epoch < 4 else 0.3

    def run(folder: Path | None, stop: int | None = None) -> sizer.Run:
        on_epoch = interrupted_after(stop) if stop else None
        values = {"knob": knob, "batch_size": 20, "folder": folder, "on_epoch": on_epoch}
        return fit(mlp(40), method=create("shrinknets", 1e-5, ramp=0.0), epochs=6, **values)

    whole = run(None)
    assert asked == [1, 2, 3, 4, 5, 6]
    units = [epoch.widths["dense1"] for epoch in whole.history]
    still = fit(mlp(40), method=create("shrinknets", 1e-5, ramp=0.0), epochs=6, batch_size=20)
    assert measured(whole)[:3] == measured(still)[:3]
    assert units[-1] < still.history[-1].widths["dense1"] / 2
    with pytest.raises(Interrupted):
        run(tmp_path, 4)
    assert measured(run(tmp_path)) == measured(whole)


def test_a_bar_on_stderr_says_epoch_loss_metric_and_units(capfd: pytest.CaptureFixture[str]) -> None:
    run = fit(method=shrink(), progress=True, accumulate=3)
    out, err = capfd.readouterr()
    assert out == ""
    last = err.replace("\r", "\n").strip().splitlines()[-1]
    assert "epoch 2/2: 100%" in last
    assert "| 4/4 [" in last  # of 4 batches each epoch has 2 steps
    for shown in ("loss=", "val=0.", f"units={run.history[-1].widths['dense1']}"):
        assert shown in last
    fit(method=shrink())
    assert capfd.readouterr() == ("", "")


def test_a_bar_without_tqdm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    fit(epochs=1)
    with pytest.raises(InputError, match="progress=True needs tqdm: pip install tqdm"):
        fit(progress=True)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"clip": 0.0}, r"clip must be a positive number, got 0\.0"),
        ({"clip": math.inf}, "clip must be a positive number, got inf"),
        ({"weight_decay": -1.0}, r"weight_decay must be a number of at least 0, got -1\.0"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; there are: cosine"),
        (
            {"schedule": lambda optimizer: None},
            "schedule must make a torch LRScheduler of the optimiser, got",
        ),
        ({"optimizer": lambda groups: None}, r"must make a torch\.optim\.Optimizer of the groups, got a NoneType"),
        ({"optimizer": lambda groups: torch.optim.LBFGS(groups)}, "LBFGS needs a closure"),
        ({"precision": "float16"}, "unknown precision 'float16'; there are: .*bfloat16"),
        ({"augment": "flip"}, "augment must be a callable, got 'flip'"),
        ({"augment": lambda x: None}, "augment must return what it is given, a batch's inputs, got a NoneType"),
        ({"augment": lambda x: x[:3]}, r"augment must keep the 50 samples of a batch, got \[3\]"),
        ({"knob": lambda epoch: 1.0}, "fixed has no knob to change while training"),
        ({"knob": 1.0, "method": shrink()}, r"knob must be a callable, got 1\.0"),
        (
            {"knob": lambda epoch: -1.0, "method": shrink()},
            r"knob\(1\) must give lambda as a positive number, got -1\.0",
        ),
    ],
)
def test_manners_out_of_range_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        fit(**values)


def test_a_state_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    class Odd(Adam):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]  # without its overloads
            super().step(closure)
            for state in self.state.values():
                state["notes"] = ["a list"]

    fit(optimizer=lambda groups: Odd(groups))
    with pytest.raises(InputError, match=r"the state of Odd cannot be kept \('notes' of 'dense1\.weight' is a list\)"):
        fit(optimizer=lambda groups: Odd(groups), folder=tmp_path)


def test_what_a_schedule_keeps_is_plain_and_comes_back_as_it_was() -> None:
    value = {
        "a": [1, 2.5, float("inf"), None, True, "x"], 3: (1, [2]), "c": Counter({4: 2}),
        "t": [torch.arange(3.0), {"deep": torch.tensor(1)}], "o": OrderedDict(b=1),
    }  # fmt: skip
    kept = plain.pack("s", value)
    assert all(isinstance(tensor, torch.Tensor) for tensor in kept.values())
    back = plain.unpack("s", kept)
    assert str(back) == str(value)
    assert [type(each) for each in back.values()] == [type(each) for each in value.values()]
    with pytest.raises(TypeError, match="it holds a function"):
        plain.pack("s", {"f": plain.pack})
    with pytest.raises(ValueError, match="Expecting value"):
        plain.unpack("s", {"s": torch.tensor([128, 4], dtype=torch.uint8) // 2})
