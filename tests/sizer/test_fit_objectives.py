"""fit() for regression, segmentation, and losses and metrics of one's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import sizer
from sizer import InputError, Loaders
from sizer.objectives import Accuracy, MeanIoU, RSquared
from tests.sizer.fits import fit, loaders, part, shrink


def line(samples: int, seed: int, columns: bool) -> TensorDataset:
    x = torch.randn(samples, 5, generator=torch.Generator().manual_seed(seed))
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 1.0]) + 3
    return TensorDataset(x, y[:, None] if columns else y)


def masks(name: str, samples: int) -> TensorDataset:
    """Three classes of pixels by how dark they are."""
    x, _ = part(name, samples).tensors
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 0] > 1).long())


def pixels(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, classes, 1))


@pytest.mark.parametrize("columns", [False, True])
def test_float_targets_are_regressed_and_told_as_r_squared(columns: bool) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 1))
    val = line(100, 1, columns)
    data = Loaders(line(300, 0, columns), val, val)
    run = sizer.fit(module, data, shrink(1e-4), epochs=25, batch_size=30, learning_rate=1e-2)
    last = run.history[-1]
    assert 0.95 < last.val_accuracy < 1
    x, y = val.tensors
    with torch.no_grad():
        errors = run.net.finish().eval()(x).flatten() - y.flatten()
    assert last.test_loss == pytest.approx(float(errors.square().mean()), rel=1e-4)
    assert last.test_accuracy == pytest.approx(1 - float(errors.square().mean() / y.var(correction=0)), abs=1e-5)


def test_integer_maps_are_segmented_and_told_as_pixel_accuracy_or_intersection_over_union() -> None:
    data = Loaders(masks("train", 100), masks("val", 50))
    values: dict[str, Any] = {"epochs": 8, "batch_size": 10, "learning_rate": 1e-2}
    plain = sizer.fit(pixels(3), data, shrink(), **values)
    overlap = sizer.fit(pixels(3), data, shrink(), metric="miou", **values)
    x, y = masks("val", 50).tensors
    with torch.no_grad():
        found = plain.net.finish().eval()(x).argmax(1)
    shares = [float(((found == c) & (y == c)).sum() / ((found == c) | (y == c)).sum()) for c in range(3)]
    assert plain.history[-1].val_accuracy == pytest.approx(float((found == y).float().mean()))
    assert overlap.history[-1].val_accuracy == pytest.approx(sum(shares) / 3)
    assert 0.6 < overlap.history[-1].val_accuracy < plain.history[-1].val_accuracy
    assert plain.history[-1].val_loss == overlap.history[-1].val_loss


def test_a_label_counts_for_all_pixels_of_its_image() -> None:
    run = fit(pixels(10), loaders(100), shrink(), epochs=3, learning_rate=1e-2)
    x, y = part("val", 100).tensors
    with torch.no_grad():
        maps = run.net.finish().eval()(x)
    wide = y[:, None, None].expand(-1, 8, 8)
    assert run.history[-1].val_loss == pytest.approx(float(F.cross_entropy(maps, wide)), rel=1e-4)
    assert run.history[-1].val_accuracy == pytest.approx(float((maps.argmax(1) == wide).float().mean()))
    assert run.history[-1].train_loss < run.history[0].train_loss


def test_a_loss_of_ones_own_is_what_is_lowered() -> None:
    def margin(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.multi_margin_loss(outputs, targets)

    run = fit(loss=margin, epochs=3, learning_rate=5e-3)
    x, y = part("val", 100).tensors
    with torch.no_grad():
        assert run.history[-1].val_loss == pytest.approx(float(margin(run.net.module(x), y)), rel=1e-5)
    assert run.history[-1].val_loss < run.history[0].val_loss


@pytest.mark.parametrize("each", [True, False])
def test_a_metric_of_ones_own_is_averaged_over_samples(each: bool) -> None:
    def top3(outputs: Tensor, targets: Tensor) -> Tensor:
        hits = (outputs.topk(3, dim=1).indices == targets[:, None]).any(1)
        return hits if each else hits.float().mean()

    run = fit(metric=top3, batch_size=30)
    x, y = part("val", 100).tensors
    with torch.no_grad():
        expected = float((run.net.module(x).topk(3, dim=1).indices == y[:, None]).any(1).float().mean())
    assert run.history[-1].val_accuracy == pytest.approx(expected, abs=1e-6)


def test_any_outputs_train_under_a_loss_and_a_metric_of_ones_own() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(64, 8)
            self.out = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = torch.relu(self.hidden(x.flatten(1)))
            return {"logits": self.out(hidden)}

    run = fit(
        Two(),
        method=shrink(),
        loss=lambda outputs, y: F.cross_entropy(outputs["logits"], y),
        metric=lambda outputs, y: outputs["logits"].argmax(1) == y,
    )
    assert 0 < run.history[-1].val_accuracy < 1
    with pytest.raises(InputError, match="the network returns a dict, not a tensor; give fit"):
        fit(Two())


def test_scores_leave_out_what_has_no_label_and_hold_where_targets_do_not_vary() -> None:
    outputs = torch.eye(3)[torch.tensor([[0, 1, 2, 2]])].movedim(-1, 1)
    truth = torch.tensor([[0, 1, 1, -100]])
    accuracy, overlap = Accuracy(), MeanIoU()
    for score in (accuracy, overlap):
        score.add(outputs, truth)
    assert accuracy.value() == pytest.approx(2 / 3)
    assert overlap.value() == pytest.approx((1 + 1 / 2 + 0) / 3)
    constant = RSquared()
    constant.add(torch.zeros(4, 1), torch.full((4, 1), 0.1))
    assert constant.value() == 0.0
    far = RSquared()
    y = torch.arange(6, dtype=torch.float64) + 1e9
    for at in (0, 3):
        far.add(y[at : at + 3] + 1, y[at : at + 3])
    assert far.value() == pytest.approx(1 - 6 / 17.5)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"loss": lambda outputs, y: F.cross_entropy(outputs, y, reduction="none")},
            r"the loss must be a scalar, got shape \(2,\); end it with \.mean\(\)",
        ),
        ({"loss": lambda outputs, y: 1.0}, r"the loss must be a tensor of shape \(\), got a float"),
        ({"loss": lambda outputs, y: F.cross_entropy(outputs.detach(), y)}, "the loss has no gradient"),
        ({"loss": "mse"}, "loss must be a callable, got 'mse'"),
        ({"metric": "f1"}, "unknown metric 'f1'; there are:"),
        ({"metric": "r2"}, "metric 'r2' is for float targets, these are torch.int64"),
        ({"metric": lambda outputs, y: outputs}, r"one for each of the 2 samples, got shape \(2, 10\)"),
        ({"metric": lambda outputs, y: "good"}, "the metric must give a number or a tensor, got a str"),
    ],
)
def test_losses_and_metrics_that_do_not_fit_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        fit(**values)


def test_miou_of_float_targets_is_refused_before_training() -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
    with pytest.raises(InputError, match="metric 'miou' is for integer targets"):
        sizer.fit(module, Loaders(line(20, 0, True), line(20, 1, True)), shrink(), epochs=1, metric="miou")


def test_a_metric_that_is_no_number_ends_the_run_as_diverged() -> None:
    run = fit(metric=lambda outputs, y: float("nan"))
    assert (run.status, run.reason) == ("diverged", "the validation metric became nan")
    assert run.history == []
