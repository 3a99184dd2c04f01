"""A run that begins where another ended, and one whose last epochs settle."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

import sizer
from sizer import networks
from sizer.checkpoint import load_tensors
from sizer.datasets import Data, load
from sizer.errors import InputError
from sizer.methods import create
from sizer.training import STATE

METHODS = {"shrinknets": 3e-2, "auto-sizing": 1e-4, "group-sparsity": 1e-3}


@pytest.fixture(scope="module")
def data() -> Data:
    return load("digits")


def module(data: Data) -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.build("mlp", data.input_shape, data.outputs, [40])


def hashes(state: Path) -> dict[str, str]:
    """Of each weight, gate and moment in a state."""
    tensors = {name: value for name, value in load_tensors(state)[0].items() if not name.startswith("extra/")}
    return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in tensors.items()}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_begins_with_another_runs_weights_and_optimiser_state(method: str, data: Data, tmp_path: Path) -> None:
    def fit(folder: str, epochs: int, knob: float, start: str | None = None) -> sizer.Run:
        first = tmp_path / start / STATE if start else None
        return sizer.fit(
            module(data), data, create(method, knob), epochs=epochs, folder=tmp_path / folder, start=first,
            batch_size=64,
        )  # fmt: skip

    before = fit("first", 4, METHODS[method])
    seen: dict[str, str] = {}
    widths: dict[str, int] = {}

    def knob(epoch: int) -> float:
        """Looks before the first epoch: nothing has moved yet."""
        if epoch == 1:
            widths.update(training.net.widths)
            sizer.run.save_run(tmp_path / "seen", training.net, training.stepper.optimizer, {})
            seen.update(hashes(tmp_path / "seen"))
        return METHODS[method]

    made = sizer.training.made
    parts = sizer.batches.parts_of(data, torch.device("cpu"), torch.float32, 64)
    training = made(
        module(data), parts, create(method, METHODS[method]), epochs=2, learning_rate=1e-3, optimizer="adam", seed=0,
        device=torch.device("cpu"), start=tmp_path / "first" / STATE, knob=knob,
    )  # fmt: skip
    training.run(False)
    assert seen == hashes(tmp_path / "first" / STATE)
    assert widths == before.net.widths

    after = fit("second", 2, METHODS[method], start="first")
    assert [epoch.epoch for epoch in after.history] == [1, 2]
    assert after.history[0].val_loss < before.history[0].val_loss
    assert after.history[-1].training_flops < before.history[-1].training_flops


def test_a_run_that_is_cut_off_goes_on_from_its_own_state(data: Data, tmp_path: Path) -> None:
    def fit(folder: str, epochs: int = 3, stop: int | None = None) -> sizer.Run | None:
        def told(epoch: sizer.Epoch) -> None:
            if epoch.epoch == stop:
                raise KeyboardInterrupt

        try:
            return sizer.fit(
                module(data), data, create("shrinknets", 1e-2), epochs=epochs, folder=tmp_path / folder,
                start=tmp_path / "first" / STATE if folder != "first" else None, on_epoch=told, settle=1,
            )  # fmt: skip
        except KeyboardInterrupt:
            return None

    fit("first")
    whole = fit("whole")
    assert fit("cut", stop=2) is None
    again = fit("cut")
    assert whole is not None
    assert again is not None
    assert [e.val_loss for e in again.history] == [e.val_loss for e in whole.history]


@pytest.mark.parametrize("method", METHODS)
def test_in_the_last_epochs_widths_stay_and_no_penalty_acts(method: str, data: Data) -> None:
    settings = {"fine_tuning": 0.0} if method == "auto-sizing" else {}
    run = sizer.fit(module(data), data, create(method, METHODS[method], **settings), epochs=6, settle=3, batch_size=32)
    widths = [epoch.widths for epoch in run.history]
    assert widths[2] == widths[3] == widths[4] == widths[5]
    assert widths[0] != widths[2] or method == "group-sparsity"
    run.net.epoch = 6
    assert not run.net.penalty().item()
    run.net.epoch = 3
    assert (run.net.penalty().item() > 0) == (method == "auto-sizing")  # the others' penalties are proximal steps


@pytest.mark.parametrize("settle", [-1, 3])
def test_no_more_than_all_epochs_can_settle(settle: int, data: Data) -> None:
    with pytest.raises(InputError, match="settle must be from 0 to 2, the epochs, got"):
        sizer.fit(module(data), data, create("fixed"), epochs=2, settle=settle)


@pytest.mark.parametrize("limit", [{"max_params": 2000}, {"max_flops": 3900}])
@pytest.mark.parametrize("method", ["shrinknets", "group-sparsity"])
def test_a_network_that_is_small_enough_stays_as_it_is(
    method: str, limit: dict[str, int], data: Data, tmp_path: Path
) -> None:
    """The last removal before that may take several units; from then on nothing is removed, in later epochs neither."""

    def fit(**more: Any) -> sizer.Run:
        knob = {"shrinknets": 3e-2, "group-sparsity": 1e-1}[method]
        return sizer.fit(module(data), data, create(method, knob), epochs=8, batch_size=32, **more)

    def size(epoch: sizer.Epoch) -> int:
        return epoch.parameters if "max_params" in limit else epoch.flops

    (most,), run = limit.values(), fit(**limit, folder=tmp_path / "run")
    sizes = [size(epoch) for epoch in run.history]
    assert size(fit().history[-1]) < 0.9 * most
    assert 0.9 * most < sizes[-1] <= most
    assert sizes[0] > most
    assert len({size for size in sizes if size <= most}) == 1
    assert run.net.settling
    assert fit(**limit, folder=tmp_path / "run").net.settling, "a run that goes on sees it, too"


@pytest.mark.parametrize(("method", "what"), [("auto-sizing", "grows"), ("fixed", "removes nothing")])
def test_what_does_not_shrink_has_no_size_to_stop_at(method: str, what: str, data: Data) -> None:
    with pytest.raises(InputError, match=f"but {method} {what}: leave them out"):
        sizer.fit(module(data), data, create(method, METHODS.get(method)), epochs=2, max_params=100)
