"""What every data set keeps; a new file in sizer/datasets with `read` is tested here unasked.

Those that are downloaded are read from a data folder that holds small files of theirs: what is tested is ours, not the
originals.
"""

import json
from pathlib import Path

import pytest
import torch

from sizer import datasets
from sizer.datasets.npz import write_npz
from tests.sizer.originals import little

pytestmark = pytest.mark.parametrize("name", datasets.names())


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    write_npz(tmp_path / f"{name}.npz", little(name))
    return tmp_path


def parts(data: datasets.Data) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(data.x_train, data.y_train), (data.x_val, data.y_val), (data.x_test, data.y_test)]


def raw_targets(data: datasets.Data) -> torch.Tensor:
    """Test targets as they were before they were standardised by the training part's scale."""
    if data.task == "classification":
        return data.y_test
    scale = data.preprocessing["y"]
    return data.y_test * torch.tensor(scale["std"]) + torch.tensor(scale["mean"])


def test_shapes_and_types_are_as_stated(name, folder):
    data = datasets.load(name, folder=folder)
    assert data.name == name
    for x, y in parts(data):
        assert len(x) == len(y) > 0
        assert x.shape[1:] == data.input_shape
        assert x.dtype == torch.float32
        assert x.is_contiguous()
        assert x.isfinite().all()
        if data.task == "classification":
            assert y.dtype == torch.int64
            assert y.shape == (len(x),)
            assert 0 <= int(y.min()) <= int(y.max()) < data.outputs
        else:
            assert y.dtype == torch.float32
            assert y.shape == (len(x), data.outputs)


def test_every_class_is_trained(name, folder):
    data = datasets.load(name, folder=folder)
    if data.task == "classification":
        assert data.y_train.unique().tolist() == list(range(data.outputs))


def test_the_training_part_is_standardised(name, folder):
    x = datasets.load(name, folder=folder).x_train
    over = [0, *range(2, x.ndim)]
    torch.testing.assert_close(x.mean(over), torch.zeros(x.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(over, correction=0), torch.ones(x.shape[1]), atol=1e-4, rtol=0)


def test_the_seed_decides_the_validation_part_and_nothing_else(name, folder):
    first, again, other = (datasets.load(name, seed=seed, folder=folder) for seed in (3, 3, 4))
    for (x, y), (x_again, y_again) in zip(parts(first), parts(again), strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)
    assert not torch.equal(first.x_val, other.x_val)
    torch.testing.assert_close(raw_targets(first), raw_targets(other))


def test_validation_is_the_share_asked_for_and_comes_from_the_training_set(name, folder):
    third, tenth = (datasets.load(name, validation=share, folder=folder) for share in (0.3, 0.1))
    rows = len(third.x_train) + len(third.x_val)
    assert rows == len(tenth.x_train) + len(tenth.x_val)
    assert len(third.x_val) == pytest.approx(0.3 * rows, abs=1)
    assert len(tenth.x_val) == pytest.approx(0.1 * rows, abs=1)
    assert len(third.x_test) == len(tenth.x_test)


def test_its_preprocessing_is_kept_for_json(name, folder):
    preprocessing = datasets.load(name, folder=folder).preprocessing
    assert json.loads(json.dumps(preprocessing)) == preprocessing
    assert set(preprocessing["x"]) == {"kind", "divisor", "mean", "std"}


def test_folds_test_every_row_once_and_leave_the_rest_to_training(name, folder):
    whole, *parted = (datasets.load(name, folder=folder, **cut) for cut in ({}, *(fold(i) for i in range(3))))
    rows = sum(len(x) for x, _ in parts(whole))
    assert sum(len(data.x_test) for data in parted) == rows
    assert all(sum(len(x) for x, _ in parts(data)) == rows for data in parted)
    assert {(data.input_shape, data.outputs, data.task) for data in (whole, *parted)} == {
        (whole.input_shape, whole.outputs, whole.task)
    }


def fold(number: int) -> dict[str, int]:
    return {"folds": 3, "fold": number}


def test_a_shortened_set_keeps_its_classes_and_its_parts_proportion(name, folder):
    whole, short = (datasets.load(name, folder=folder, **cut) for cut in ({}, {"samples": 30}))
    assert len(short.x_train) + len(short.x_val) == 30
    trained = len(whole.x_train) + len(whole.x_val)
    assert len(short.x_test) == round(len(whole.x_test) * 30 / trained)
    assert short.outputs == whole.outputs
