"""Networks: the papers' shapes, counts and initialisation, and widths that cannot be."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from sizer import networks
from sizer.errors import InputError, UnknownNameError


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def sizes(module: nn.Module, *input_shape: int) -> list[tuple[int, ...]]:
    """Shapes of all activations of one input, in the order they come."""
    seen: list[tuple[int, ...]] = []
    hooks = [part.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:]))) for part in module]
    module(torch.zeros(1, *input_shape))
    for hook in hooks:
        hook.remove()
    return seen


def test_das_conv_has_the_papers_count_of_parameters():
    assert parameters(networks.build("das-conv", (3, 32, 32), 100, [66, 20, 30, 64, 194])) == 850_840


def test_das_conv_halves_a_side_twice_rounding_up():
    shapes = sizes(networks.build("das-conv", (1, 7, 28), 10, [2, 3, 4, 5, 6]), 1, 7, 28)
    assert [shape for shape in shapes if len(shape) == 3][-1] == (5, 2, 7)
    assert (2, 7, 28) in shapes
    assert (3, 4, 14) in shapes


def test_das_conv_drops_out_a_fifth_and_a_half_after_the_strides():
    parts = dict(networks.build("das-conv", (1, 8, 8), 10, [2, 3, 4, 5, 6]).named_children())
    order = [name for name in parts if name.startswith(("conv", "drop", "dense", "out"))]
    assert order == ["conv1", "conv2", "dropout1", "conv3", "conv4", "dropout2", "dense", "out"]
    assert (parts["dropout1"].p, parts["dropout2"].p) == (0.2, 0.5)


def test_lenet_is_twice_conv5_and_pool2_without_padding():
    shapes = sizes(networks.build("lenet", (3, 32, 32), 10), 3, 32, 32)
    assert [shape for shape in dict.fromkeys(shapes) if len(shape) == 3] == [
        (50, 28, 28),
        (50, 14, 14),
        (50, 10, 10),
        (50, 5, 5),
    ]
    assert shapes[-4:] == [(1250,), (5000,), (5000,), (10,)]


def test_an_mlp_has_as_many_layers_as_widths():
    assert networks.layers("mlp", 1) == ("dense1",)
    assert parameters(networks.build("mlp", (1, 28, 28), 10, [10_000])) == 785 * 10_000 + 10_001 * 10
    deep = networks.build("mlp", (5,), 2, [7, 6, 5, 4])
    assert [name for name, part in deep.named_children() if isinstance(part, nn.Linear)] == [
        "dense1",
        "dense2",
        "dense3",
        "dense4",
        "out",
    ]


@pytest.mark.parametrize(("name", "activation"), [("mlp", nn.ReLU), ("lenet", nn.ReLU), ("das-conv", nn.SELU)])
def test_every_hidden_layer_and_no_other_has_the_papers_activation(name, activation):
    parts = list(networks.build(name, (1, 28, 28), 10).children())
    followed = [isinstance(after, activation) for part, after in pairwise(parts) if hasattr(part, "weight")]
    assert followed == [True] * len(networks.layers(name))
    assert isinstance(parts[-1], nn.Linear)


@pytest.mark.parametrize(
    ("name", "input_shape", "path", "std"),
    [
        ("mlp", (1, 28, 28), "dense2", math.sqrt(2) * math.sqrt(2 / 1000)),
        ("lenet", (1, 28, 28), "conv2", math.sqrt(2) * math.sqrt(2 / (100 * 25))),
        ("das-conv", (1, 28, 28), "conv2", math.sqrt(1 / (100 * 9))),
        ("das-conv", (1, 28, 28), "dense", math.sqrt(1 / (100 * 49))),
    ],
)
def test_weights_start_as_in_the_papers(name, input_shape, path, std):
    torch.manual_seed(0)
    weight = networks.build(name, input_shape, 10).get_submodule(path).weight.detach()
    assert float(weight.std()) == pytest.approx(std, rel=0.02)
    assert abs(float(weight.mean())) < std / 20
    assert float(weight.abs().max()) > 3 * std


@pytest.mark.parametrize("input_shape", [(1, 8, 8), (1, 15, 28), (1, 28, 15), (64,)])
def test_lenet_refuses_inputs_of_which_nothing_would_be_left(input_shape):
    with pytest.raises(InputError, match=r"16 x 16 or more, got input shape .*; mlp takes any"):
        networks.build("lenet", input_shape, 10)
    assert networks.build("lenet", (1, 16, 16), 10, [2, 3, 4])(torch.zeros(5, 1, 16, 16)).shape == (5, 10)


def test_das_conv_refuses_a_table():
    with pytest.raises(InputError, match=r"das-conv needs images .* got input shape \(64,\)"):
        networks.build("das-conv", (64,), 10)


@pytest.mark.parametrize("name", ["perceptron", "das_conv", "", "__init__"])
def test_an_unknown_network_lists_those_there_are(name):
    for call in (lambda: networks.layers(name), lambda: networks.default_widths(name)):
        with pytest.raises(UnknownNameError, match=f"unknown network '{name}'; there are: .*mlp"):
            call()


@pytest.mark.parametrize(
    ("name", "widths", "said"),
    [
        ("mlp", [], "mlp needs 1 width or more, got 0"),
        ("mlp", [5, 0], r"every width of mlp must be 1 or more, got \[5, 0\]"),
        ("mlp", [5, -3], r"got \[5, -3\]"),
        ("mlp", [5.5], r"widths of mlp must be whole numbers, got \[5.5\]"),
        ("lenet", [5, 5], r"lenet has 3 widths \(conv1, conv2, dense\), got 2"),
        ("das-conv", [5] * 6, "das-conv has 5 widths .*, got 6"),
    ],
)
def test_widths_that_cannot_be_are_refused(name, widths, said):
    with pytest.raises(InputError, match=said):
        networks.build(name, (1, 28, 28), 10, widths)


def test_widths_may_be_numpy_integers():
    assert networks.build("mlp", (3,), 2, np.array([4, 5]))(torch.zeros(1, 3)).shape == (1, 2)


@pytest.mark.parametrize(("input_shape", "outputs"), [((3,), 0), ((), 2), ((3, 0), 2)])
def test_shapes_that_cannot_be_are_refused(input_shape, outputs):
    with pytest.raises(InputError, match="got"):
        networks.build("mlp", input_shape, outputs)
