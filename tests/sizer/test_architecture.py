"""A network in a folder comes back as it was, and what is broken is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sizer
from sizer import Architecture, InputError, networks


def written(folder: Path) -> Architecture:
    architecture = Architecture("mlp", (1, 8, 8), 10, "classification", {"dense1": 5, "dense2": 3}, {"x": 1}, {"t": 2})
    sizer.save(folder, architecture, architecture.build().state_dict())
    return architecture


def test_json_gives_the_same_architecture_back(tmp_path: Path) -> None:
    architecture = written(tmp_path)
    assert Architecture.from_json((tmp_path / "architecture.json").read_text()) == architecture


def test_loading_gives_a_plain_module_in_evaluation_mode_and_leaves_the_random_state(tmp_path: Path) -> None:
    written(tmp_path)
    state = torch.random.get_rng_state()
    module = sizer.load(tmp_path)
    assert not module.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_weights_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    architecture = Architecture("mlp", (1, 8, 8), 10, "classification", {"dense1": 5})
    with pytest.raises(InputError, match="do not fit the architecture"):
        sizer.save(tmp_path / "new", architecture, networks.build("mlp", (1, 8, 8), 10, [6]).state_dict())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("architecture.json", None, "cannot read .*architecture.json"),
        ("architecture.json", b"{", "not an architecture of sizer"),
        ("architecture.json", b"[1]", "not an architecture of sizer"),
        ("architecture.json", b'{"format": 99}', "format is not 1"),
        ("architecture.json", b"\xff\xfe", "cannot read"),
        ("weights.safetensors", None, "weights.safetensors is not a whole"),
        ("weights.safetensors", b"no", "weights.safetensors is not a whole"),
    ],
)
def test_a_broken_folder_is_named(tmp_path: Path, file: str, content: bytes | None, says: str) -> None:
    written(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        sizer.load(tmp_path)
    assert "\n" not in str(error.value)


def test_the_wrong_weights_are_named(tmp_path: Path) -> None:
    written(tmp_path)
    text = (tmp_path / "architecture.json").read_text()
    (tmp_path / "architecture.json").write_text(text.replace('"dense1": 5', '"dense1": 6'))
    with pytest.raises(InputError, match="do not fit the architecture"):
        sizer.load(tmp_path)
