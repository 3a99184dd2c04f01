"""The network of a user's function: its widths, others, data of one's own, and the folder that gives it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sizer
from sizer import Architecture, datasets, own_network
from sizer.errors import DataError, InputError, SizerError
from sizer.usercode import find
from tests.sizer import users_code
from tests.sizer.users_code import WIDTHS

WRONG_NETWORKS = {
    "not_a_module": ("def net(shape, outputs): return 3", "mine:net must give a torch.nn.Module, got int"),
    "outputs": (
        "from torch import nn\ndef net(shape, outputs): return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 7))",
        r"must give 4 outputs for each input, got shape \(2, 7\) for 2",
    ),
    "inputs": ("from torch import nn\ndef net(shape, outputs): return nn.Linear(5, 4)", r"fails on inputs \(N, 6\)"),
    "no_width": ("from torch import nn\ndef net(shape, outputs): return nn.Linear(6, 4)", "no width that is free"),
    "arguments": ("def net(): return 3", "mine:net raised TypeError"),
}
WRONG_DATA = {
    "number": ("return 3", "must give sizer.datasets.Data, or arrays .*; got a int"),
    "missing": ("return {'x_train': 1}", "got a dict without y_train, x_test, y_test"),
    "three": ("return 1, 2, 3", "got a tuple of 3"),
    "ragged": ("return [[1, 2], [3]], 1, 2, 3", "they are none"),
    "lengths": ("return [[1.0], [2.0]], [0, 1, 1], [[1.0]], [0]", "x_train has 2 rows but y_train has 3"),
    "raises": ("return open('nowhere.csv')", "mine:data raised FileNotFoundError: .*mine.py, line 2"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return users_code.enter(tmp_path, monkeypatch)


def test_its_free_widths_are_named_by_the_layer_and_random_states_stay(here: Path) -> None:
    state = torch.random.get_rng_state()
    assert own_network.widths_of(find("mine:net"), (6,), 4) == WIDTHS
    assert torch.equal(torch.random.get_rng_state(), state)


def test_other_widths_start_from_weights_drawn_for_them(here: Path) -> None:
    code = find("mine:net")
    module = own_network.build(code, (6,), 4, {"1": 5, "3.first": 400})
    assert {name: list(value.shape) for name, value in module.named_parameters() if name.startswith("3")} == {
        "3.first.weight": [400, 5], "3.first.bias": [400], "3.second.weight": [5, 400], "3.second.bias": [5],
    }  # fmt: skip
    # torch draws the weights of a Linear uniformly up to 1 / sqrt(inputs): here 400 in the place of 8.
    assert 0.9 < float(module.get_parameter("3.second.weight").abs().max().detach()) * 400**0.5 <= 1
    assert module(torch.zeros(3, 6)).shape == (3, 4)
    torch.manual_seed(1)
    first = own_network.build(code, (6,), 4, [5, 7])
    torch.manual_seed(1)
    again = own_network.build(code, (6,), 4, [5, 7])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_what_keeps_its_width_keeps_the_weights_that_the_function_gave_it(here: Path) -> None:
    text = users_code.MINE + "\ndef filled(input_shape, outputs):\n    made = net(input_shape, outputs)\n"
    text += "    for value in made.parameters():\n        nn.init.constant_(value, 0.5)\n    return made\n"
    users_code.write(here, mine=text)
    module = own_network.build(find("mine:filled"), (6,), 4, {"1": 12, "3.first": 3})
    assert bool((module.get_parameter("1.weight") == 0.5).all())
    assert not bool((module.get_parameter("3.first.weight") == 0.5).any())


@pytest.mark.parametrize("kind", WRONG_NETWORKS)
def test_a_function_that_gives_no_such_network_is_one_line(here: Path, kind: str) -> None:
    text, says = WRONG_NETWORKS[kind]
    users_code.write(here, mine=text)
    with pytest.raises(SizerError, match=says) as caught:
        own_network.widths_of(find("mine:net"), (6,), 4)
    assert "\n" not in str(caught.value)


def test_widths_that_it_has_not_are_named(here: Path) -> None:
    code = find("mine:net")
    with pytest.raises(InputError, match=r"mine:net has 2 widths \(1, 3.first\), got 1"):
        own_network.build(code, (6,), 4, [5])
    with pytest.raises(InputError, match="unknown layer 'first'"):
        own_network.build(code, (6,), 4, {"first": 5})


def test_a_width_that_forward_counts_on_is_none_of_the_free_ones(here: Path) -> None:
    text = "from torch import nn\nclass Net(nn.Module):\n  def __init__(self):\n    super().__init__()\n"
    text += "    self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(12, 9), nn.Linear(9, 4)\n"
    text += "  def forward(self, x):\n    return self.c(self.b(self.a(x).view(-1, 12)))\n"
    users_code.write(here, mine=text + "def net(shape, outputs): return Net()")
    code = find("mine:net")
    assert own_network.widths_of(code, (6,), 4) == {"b": 9}
    # A fixed network's record lists it nevertheless.
    assert own_network.build(code, (6,), 4, {"a": 12, "b": 3}).get_parameter("c.weight").shape == (4, 3)


def test_data_of_a_function_is_prepared_as_a_file_is(here: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(240, 6)), np.arange(240) % 4
    np.savez("arrays.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    text = "import numpy as np\nimport torch\nimport sizer\ndef data():\n  return dict(np.load('arrays.npz'))\n"
    text += "def in_order():\n  return tuple(torch.tensor(value) for value in data().values())\n"
    users_code.write(here, mine=text + "def ready():\n  return sizer.datasets.load('arrays.npz', seed=3)\n")
    of_file, ready = datasets.load("arrays.npz"), datasets.load("arrays.npz", seed=3)
    for name, expected in (("data", of_file), ("in_order", of_file), ("ready", ready)):
        given = datasets.load(f"mine:{name}")
        for part in datasets.PARTS:
            assert torch.equal(getattr(given, f"x_{part}"), getattr(expected, f"x_{part}"))
            assert torch.equal(getattr(given, f"y_{part}"), getattr(expected, f"y_{part}"))
        assert given.preprocessing == expected.preprocessing


@pytest.mark.parametrize("kind", WRONG_DATA)
def test_a_function_that_gives_no_data_is_one_line(here: Path, kind: str) -> None:
    text, says = WRONG_DATA[kind]
    users_code.write(here, mine=f"def data():\n  {text}")
    with pytest.raises(InputError, match=says) as caught:
        datasets.load("mine:data")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("task='ranking'", "task must be classification or regression, got 'ranking'"),
        ("x_val=made.x_val.double()", "x_val must be float32"),
        ("input_shape=(7,)", "x_train must be float32 .* got float32"),
        ("outputs=3", "y_train must be int64 classes 0 to 2, got int64"),
        ("y_test=made.y_test.float()", "y_test must be int64 classes 0 to 3, got float32"),
        ("preprocessing={'x': made.x_val}", "preprocessing must be plain values"),
    ],
)
def test_data_that_does_not_fit_itself_is_one_line(here: Path, change: str, says: str) -> None:
    text = "import dataclasses, sizer\ndef ready():\n  made = sizer.datasets.load('mine:data')\n"
    users_code.write(here, mine=f"{users_code.MINE}\n{text}  return dataclasses.replace(made, {change})")
    with pytest.raises(DataError, match=says):
        datasets.load("mine:ready")


def saved(folder: Path) -> Architecture:
    code = find("mine:net")
    info = {"network_sha256": code.sha256, "network_folder": code.folder}
    architecture = Architecture("mine:net", (6,), 4, "classification", {"1": 5, "3.first": 3}, info=info)
    sizer.save(folder, architecture, architecture.build().state_dict())
    return architecture


def test_a_folder_gives_it_back_from_where_its_module_lay_or_from_the_current_folder(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(here / "net")
    x = torch.randn(3, 6)
    expected = sizer.load("net")(x)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert torch.equal(sizer.load(here / "net")(x), expected)
    for name in ("mine.py", "blocks.py"):
        (here / name).rename(elsewhere / name)
    assert torch.equal(sizer.load(here / "net")(x), expected)
    (elsewhere / "mine.py").unlink()
    with pytest.raises(InputError, match=f"mine:net: no module mine in {here}, .* nor installed") as caught:
        sizer.load(here / "net")
    assert "\n" not in str(caught.value)


def test_a_function_that_changed_meanwhile_is_told(here: Path) -> None:
    saved(here / "net")
    users_code.write(here, mine=users_code.MINE.replace("nn.ReLU()", "nn.Tanh()"))
    with pytest.warns(UserWarning, match="mine:net has changed since this network was trained"):
        sizer.load("net")
    users_code.write(here, mine=users_code.MINE.replace("nn.Linear(12, outputs)", "nn.Linear(12, outputs, False)"))
    with pytest.raises(InputError, match=r"do not fit the architecture \(mine:net has changed since"):
        sizer.load("net")
