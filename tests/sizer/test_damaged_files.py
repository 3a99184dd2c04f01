"""Files of any content are read or refused in one line: no traceback of another kind, no crash, no memory for ever."""

from __future__ import annotations

import ast
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sizer
from sizer import datasets
from sizer.architecture import JSON, WEIGHTS, Architecture
from sizer.errors import SizerError

ROOT = Path(__file__).resolve().parents[2]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes of a file with some changed, cut off or put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content) - 1))
        content[at] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=8)) + content[at:] if draw(st.booleans()) else content[:at]
    return bytes(content)


def an_npz() -> bytes:
    file = io.BytesIO()
    y = np.arange(12) % 3
    np.savez(
        file, x_train=np.random.default_rng(0).normal(size=(12, 4)), y_train=y, x_test=np.ones((3, 4)), y_test=y[:3]
    )
    return file.getvalue()


def one_line(error: SizerError) -> None:
    assert str(error)
    assert "\n" not in str(error)


@FEW
@given(content=damaged(an_npz()))
def test_a_data_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    try:
        datasets.load(tmp_path / "d.npz", validation=0.5)
    except SizerError as error:
        one_line(error)


@pytest.mark.parametrize("shape", ["(1000000000000, 4)", "(-5, 4)", "(99999999999999999999, 4)", "(12, 40)", "()"])
def test_a_data_file_whose_header_promises_what_it_does_not_hold(shape: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(an_npz())) as whole, zipfile.ZipFile(tmp_path / "d.npz", "w") as changed:
        for name in whole.namelist():
            member = whole.read(name)
            if name == "x_train.npy":
                text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
                member = member[:8] + len(text).to_bytes(2, "little") + text.encode() + member[128:]
            changed.writestr(name, member)
    with pytest.raises(SizerError) as caught:
        datasets.load(tmp_path / "d.npz", validation=0.5)
    one_line(caught.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `sizer best --out`."""
    folder = tmp_path_factory.mktemp("net")
    module = sizer.networks.build("mlp", (4,), 3, [5])
    sizer.save(folder, Architecture("mlp", (4,), 3, "classification", {"dense1": 5}), module.state_dict())
    return folder


def loaded(folder: Path) -> None:
    try:
        net = sizer.load(folder)
    except SizerError as error:
        one_line(error)
    else:
        assert isinstance(net, torch.nn.Module)


@FEW
@given(data=st.data())
def test_an_architecture_with_a_field_of_any_value(data: st.DataObject, saved: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = json.loads((saved / JSON).read_text())
    fields[data.draw(st.sampled_from([*fields, "more"]))] = data.draw(VALUES)
    if data.draw(st.booleans()):
        fields["widths"] = {"dense1": data.draw(VALUES)}
    (tmp_path / JSON).write_text(json.dumps(fields))
    (tmp_path / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes())
    loaded(tmp_path)


@FEW
@given(data=st.data())
def test_an_architecture_or_weights_of_any_bytes(data: st.DataObject, saved: Path, tmp_path: Path) -> None:
    for name in (JSON, WEIGHTS):
        (tmp_path / name).write_bytes(data.draw(damaged((saved / name).read_bytes())))
    loaded(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("widths", {"dense1": 10**12}),
        ("input_shape", [10**6, 10**6]),
        ("outputs", 10**12),
        ("widths", {f"dense{k}": 10**5 for k in range(1, 300)}),
    ],
)
def test_an_architecture_that_would_fill_the_memory_is_refused_before_it_does(
    field: str, value: Any, saved: Path, tmp_path: Path
) -> None:
    fields = json.loads((saved / JSON).read_text())
    (tmp_path / JSON).write_text(json.dumps({**fields, field: value}))
    (tmp_path / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes())
    with pytest.raises(SizerError, match="do not fit") as caught:
        sizer.load(tmp_path)
    one_line(caught.value)


def test_json_nested_without_end_is_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / JSON).write_text("[" * 200_000)
    (tmp_path / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes())
    with pytest.raises(SizerError, match="not an architecture"):
        sizer.load(tmp_path)


def test_nothing_of_ours_unpickles_a_file() -> None:
    for package in ("sizer", "studies", "dashboards"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {name.partition(".")[0] for name in names} & {"pickle", "cloudpickle", "dill", "joblib",
                                                                         "shelve", "marshal"}, path  # fmt: skip
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}, path
                if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                    assert isinstance(node.value, ast.Constant), path
                    assert node.value.value is False, path
