"""fit() on anyone's data: Datasets, DataLoaders, several inputs, and what does not fit."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import sizer
from sizer import InputError, Loaders
from sizer.methods import create
from tests.sizer.digit_images import digits
from tests.sizer.fits import Interrupted, Stream, fit, interrupted_after, loaders, measured, mlp, part, shrink, weights


class Noisy(Dataset[Any]):
    """Digits whose augmentation draws from every global generator."""

    def __init__(self, source: TensorDataset) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        x, y = self.source[at]
        return x + 0.1 * torch.randn(x.shape) + 0.1 * np.random.rand() + 0.1 * random.random(), int(y)


class Uneven(Dataset[Any]):
    """Every fourth picture is one pixel larger."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        side = 9 if at % 4 == 3 else 8
        return torch.zeros(1, side, side), at % 10


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(32, 9)
        self.right = nn.Linear(32, 9)
        self.out = nn.Linear(9, 10)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        outputs: Tensor = self.out(torch.relu(self.left(a) + self.right(b)))
        return outputs


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 10))


def test_a_dataset_trains_as_the_resident_data_do_and_without_a_test_part_its_figures_are_nan() -> None:
    whole = digits()
    run = sizer.fit(
        mlp(30), Loaders(part("train"), part("val")), create("fixed"), epochs=8, batch_size=50, learning_rate=5e-3
    )
    resident = sizer.fit(mlp(30), whole, create("fixed"), epochs=8, batch_size=50, learning_rate=5e-3)
    assert run.history[-1].val_accuracy == pytest.approx(resident.history[-1].val_accuracy, abs=0.05)
    assert run.history[-1].val_accuracy > 0.85
    assert math.isnan(run.history[-1].test_loss)
    assert math.isnan(run.history[-1].test_accuracy)
    assert run.net.steps_per_epoch == 8


def test_the_training_part_is_shuffled_and_the_others_are_measured_in_whole() -> None:
    one, other = fit(seed=0), fit(seed=1)
    assert one.history[0].train_loss != other.history[0].train_loss
    run = fit(data=loaders(test=part("test", 70)))
    module = run.net.finish().eval()
    x, y = part("test", 70).tensors
    with torch.no_grad():
        assert run.history[-1].test_loss == pytest.approx(float(nn.functional.cross_entropy(module(x), y)), rel=1e-5)
        assert run.history[-1].test_accuracy == pytest.approx(float((module(x).argmax(1) == y).float().mean()))


def test_a_dataloader_is_used_as_it_is() -> None:
    seen: list[int] = []

    def collate(samples: list[Any]) -> tuple[Tensor, Tensor]:
        seen.append(len(samples))
        return torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])

    loader = DataLoader(part("train", 90), batch_size=40, collate_fn=collate)
    run = fit(data=loaders(train=loader), epochs=1)
    assert seen == [40, 40, 40, 10]  # the first one shows what the data is like
    assert run.net.steps_per_epoch == 3


def test_a_stream_of_unknown_length_trains() -> None:
    run = fit(data=loaders(train=Stream(*part("train", 101).tensors)), method=shrink(), epochs=2)
    assert run.status == "complete"
    assert run.net.steps_per_epoch == 2  # of 50 samples each; the last one, alone, is left out


def test_a_batch_may_hold_several_inputs_and_numpys_types() -> None:
    x, y = part("train", 100).tensors
    halves = np.asarray(x.flatten(1), dtype=np.float64)
    samples = TensorDataset(torch.from_numpy(halves[:, :32]), torch.from_numpy(halves[:, 32:]), y.to(torch.uint8))
    joined = DataLoader(
        samples, 20, collate_fn=lambda rows: (tuple(map(torch.stack, list(zip(*rows, strict=True))[:2])),
                                              torch.stack([row[2] for row in rows]))
    )  # fmt: skip
    run = sizer.fit(TwoInputs(), Loaders(joined, joined), shrink(), epochs=15, learning_rate=5e-3)
    assert run.history[-1].val_accuracy > 0.6
    assert list(run.net.widths) == ["left"]


def test_an_interrupted_run_on_a_dataset_goes_on_equal_to_the_bit(tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None = None) -> sizer.Run:
        data = Loaders(Noisy(part("train", 120)), part("val", 50))
        values = {"folder": folder, "on_epoch": interrupted_after(stop) if stop else None, "batch_size": 30}
        return fit(mlp(20), data, shrink(0.05), epochs=4, **values)

    whole = run(tmp_path / "whole")
    for stop in (1, 3):
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", stop)
    parts = run(tmp_path / "parts")
    assert measured(parts) == measured(whole)
    assert len(whole.history) == 4
    assert torch.equal(weights(parts), weights(whole))


def test_the_global_random_states_are_left_as_they_were() -> None:
    module, data = mlp(), Loaders(Noisy(part("train", 60)), part("val", 50))

    def states() -> str:
        return repr((torch.get_rng_state().tolist(), random.getstate(), np.random.get_state(legacy=False)))

    before = states()
    fit(module, data, shrink())
    assert states() == before


def test_the_generator_of_a_dataloader_goes_on_where_it_was(tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None = None) -> sizer.Run:
        own = DataLoader(part("train", 120), 30, shuffle=True, generator=torch.Generator().manual_seed(5))
        on_epoch = interrupted_after(stop) if stop else None
        return fit(data=loaders(train=own), epochs=3, folder=folder, on_epoch=on_epoch)

    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", 2)
    assert measured(run(tmp_path / "parts")) == measured(whole)


def test_a_last_batch_of_one_sample_is_left_out_of_a_dataset() -> None:
    assert fit(normed(), loaders(101), shrink(), epochs=1).status == "complete"
    assert fit(mlp(), loaders(3), epochs=1, batch_size=1).net.steps == 3


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (DataLoader(part("train", 101), 50), r"training batch of 1 sample.*drop_last=True"),
        (DataLoader(part("train", 3), 1), r"training batch of 1 sample.*drop_last=True"),
    ],
)
def test_a_batch_of_one_sample_under_normalisation_says_what_to_do(train: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        fit(normed(), loaders(train=train), shrink())


def shaped(*sides: int) -> DataLoader[Any]:
    """A batch of 2 pictures of each side."""
    batches: Any = [(torch.zeros(2, 1, side, side), torch.zeros(2, dtype=torch.int64)) for side in sides]
    return DataLoader(batches, batch_size=None)


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (Uneven(), r"train part have different shapes: \[1, \d, \d\] at entry 0 and \[1, \d, \d\] at entry"),
        (DataLoader(Uneven(), 8), r"different shapes: \[1, 8, 8\] at entry 0 and \[1, 9, 9\] at entry 3; bring them"),
        (shaped(8, 9), r"fails on inputs of shape \(1, 9, 9\), the first ones had \(1, 8, 8\)"),
        (shaped(9), r"fails on inputs of shape \(1, 9, 9\) \(float32\): mat1 and mat2"),
        (TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0)), "the train part is empty"),
        (Stream(torch.zeros(0, 1, 8, 8), torch.zeros(0)), "the train part gave no batch"),
        (DataLoader(part("train", 5), 8, drop_last=True), "the train part is empty"),
        ([1, 2], "train must be a torch Dataset or DataLoader, got list"),
        (TensorDataset(torch.zeros(8, 1, 8, 8)), r"must be \(x, y\).*; got a list of 1"),
        (TensorDataset(*[torch.zeros(8, 1, 8, 8)] * 3), r"must be \(x, y\).*; got a list of 3"),
        (DataLoader(part("train", 8), 4, collate_fn=lambda _: (torch.zeros(4, 1, 8, 8), "y")), "got a str in it"),
        (
            DataLoader(part("train", 8), 4, collate_fn=lambda _: (torch.zeros(4, 64), torch.zeros(3))),
            r"of equally many samples; got \[4\] x and 3 y",
        ),
        (TensorDataset(torch.zeros(8, 1, 8, 8), torch.full((8,), 10)), "labels go from 10 to 10.*outputs for 0 to 9"),
        (
            TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8, 1, dtype=torch.int64)),
            r"outputs of shape \(2, 10\) need targets of shape \(2,\), got \(2, 1\)",
        ),
        (TensorDataset(torch.zeros(8, 1, 8, 8), torch.zeros(8)), r"outputs of shape \(2, 10\) need targets of shape"),
    ],
)
def test_data_that_does_not_fit_is_told_in_one_line(train: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        fit(data=loaders(train=train))
    assert "\n" not in str(caught.value)


def test_workers_collations_are_told_too() -> None:
    with pytest.raises(InputError, match="the samples of the train part have different shapes"):
        fit(data=loaders(train=DataLoader(Uneven(), 8, num_workers=1)))


def test_errors_of_the_users_own_code_stay_what_they_are() -> None:
    class Broken(Noisy):
        def __getitem__(self, at: int) -> tuple[Tensor, int]:
            raise RuntimeError("no such picture")

    with pytest.raises(RuntimeError, match="no such picture"):
        fit(data=loaders(train=Broken(part("train", 8))))

    class Moody(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and not torch.compiler.is_compiling():
                raise RuntimeError("not today")
            outputs: Tensor = super().forward(x)  # type: ignore[no-untyped-call]  # torch has no types for it
            return outputs

    with pytest.raises(RuntimeError, match=r"^not today$"):
        fit(Moody(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10)))


def test_data_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"or sizer\.Loaders\(train, val\), got TensorDataset"):
        fit(data=part("train", 8))
