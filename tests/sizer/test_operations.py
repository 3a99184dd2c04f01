"""What each kind of operation does to widths: which are free, which are fixed and why. One small network each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sizer
from sizer import UnsupportedNetworkError, dimensions
from sizer.methods import create
from tests.sizer.pieces import disturb
from tests.sizer.random_networks import outputs

VECTOR, SEQUENCE, SIGNAL = torch.randn(4, 3), torch.randn(4, 5, 3), torch.randn(4, 2, 12)
IMAGE, VOLUME, WORDS = torch.randn(4, 2, 8, 8), torch.randn(2, 2, 5, 5, 5), torch.randint(0, 7, (4, 5))


class Network(nn.Module):
    """Layers ``a``, ``b``, ... and what forward() does with them."""

    def __init__(self, forward: Callable[..., Any], layers: Mapping[str, Any]) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


@dataclass
class Case:
    """One network, its free widths, and why others are fixed (outputs are left out)."""

    inputs: Any
    forward: Callable[..., Any]
    layers: Callable[[], Mapping[str, Any]]
    free: dict[str, int]
    fixed: dict[str, str] = field(default_factory=dict)


def linear(*sizes: int) -> Callable[[], dict[str, nn.Module]]:
    """``a``, ``b``, ... of 3 inputs and the sizes, then ``out`` of 2."""
    return lambda: {
        **{name: nn.Linear(i, o) for name, i, o in zip("abcd", (3, *sizes), sizes, strict=False)},
        "out": nn.Linear(sizes[-1], 2),
    }


def mean(x: Tensor) -> Tensor:
    return x.flatten(2).mean(2)


def heads(x: Tensor, size: int) -> Tensor:
    return x.unflatten(-1, (-1, size)).transpose(1, 2)


CASES: dict[str, Case] = {
    "linear": Case(VECTOR, lambda m, x: m.out(torch.tanh(m.b(torch.tanh(m.a(x))))), linear(5, 4), {"a": 5, "b": 4}),
    "grouped convolution": Case(
        IMAGE,
        lambda m, x: m.out(mean(F.relu(m.b(F.relu(m.a(x)))))),
        lambda: {"a": nn.Conv2d(2, 6, 3), "b": nn.Conv2d(6, 9, 3, groups=3), "out": nn.Linear(9, 2)},
        {"a": 3},
    ),
    "depthwise convolution": Case(
        IMAGE,
        lambda m, x: m.out(mean(F.relu(m.b(F.relu(m.a(x)))))),
        lambda: {"a": nn.Conv2d(2, 6, 3), "b": nn.Conv2d(6, 12, 3, groups=6), "out": nn.Linear(12, 2)},
        {"a": 6},
    ),
    "transposed convolution": Case(
        SIGNAL,
        lambda m, x: m.out(mean(F.relu(m.b(F.relu(m.a(x)))))),
        lambda: {"a": nn.ConvTranspose1d(2, 4, 3), "b": nn.ConvTranspose1d(4, 5, 3), "out": nn.Linear(5, 2)},
        {"a": 4, "b": 5},
    ),
    "grouped transposed convolution": Case(
        VOLUME,
        lambda m, x: m.out(mean(F.relu(m.b(F.relu(m.a(x)))))),
        lambda: {"a": nn.Conv3d(2, 4, 3), "b": nn.ConvTranspose3d(4, 6, 2, groups=2), "out": nn.Linear(6, 2)},
        {"a": 2},
    ),
    "group normalisation": Case(
        IMAGE,
        lambda m, x: m.out(mean(m.n(m.a(x)))),
        lambda: {"a": nn.Conv2d(2, 6, 3), "n": nn.GroupNorm(3, 6), "out": nn.Linear(6, 2)},
        {"a": 3},
    ),
    "one group of all": Case(
        IMAGE,
        lambda m, x: m.out(mean(m.n(m.a(x)))),
        lambda: {"a": nn.Conv2d(2, 6, 3), "n": nn.GroupNorm(1, 6), "out": nn.Linear(6, 2)},
        {},
        {"a": "normalised together by module 'n'"},
    ),
    "layer normalisation": Case(
        VECTOR,
        lambda m, x: m.out(torch.relu(m.b(m.n(m.a(x))))),
        lambda: {**linear(6, 5)(), "n": nn.LayerNorm(6)},
        {"b": 5},
        {"a": "layer_norm takes its mean over them in module 'n'"},
    ),
    "instance normalisation and slopes": Case(
        IMAGE,
        lambda m, x: m.out(mean(m.p(m.n(m.a(x))))),
        lambda: {
            "a": nn.Conv2d(2, 6, 3),
            "n": nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
            "p": nn.PReLU(6),
            "out": nn.Linear(6, 2),
        },
        {"a": 6},
    ),
    "concatenation under a normalisation": Case(
        IMAGE,
        lambda m, x: m.out(mean(m.n(torch.cat([m.a(x), x, m.b(x)], 1)))),
        lambda: {"a": nn.Conv2d(2, 3, 1), "b": nn.Conv2d(2, 4, 1), "n": nn.BatchNorm2d(9), "out": nn.Linear(9, 2)},
        {"a": 3, "b": 4},
    ),
    "halves": Case(
        VECTOR,
        lambda m, x: m.out(torch.mul(*m.a(x).chunk(2, 1)).relu()),
        lambda: {"a": nn.Linear(3, 8), "out": nn.Linear(4, 2)},
        {"a": 4},
    ),
    "gated linear units": Case(
        VECTOR, lambda m, x: m.out(F.glu(m.a(x))), lambda: {"a": nn.Linear(3, 8), "out": nn.Linear(4, 2)}, {"a": 4}
    ),
    "pieces of two sizes": Case(
        VECTOR,
        lambda m, x: m.out(torch.cat(m.a(x).split([2, 5], 1)[::-1], 1).relu()),
        lambda: {"a": nn.Linear(3, 7), "out": nn.Linear(7, 2)},
        {},
        {"a": "hard-coded where it is used"},
    ),
    "squeeze and excitation": Case(
        IMAGE,
        lambda m, x: m.out(mean(m.a(x) * torch.sigmoid(m.c(torch.relu(m.b(mean(m.a(x))))))[:, :, None, None])),
        lambda: {"a": nn.Conv2d(2, 6, 3), "b": nn.Linear(6, 4), "c": nn.Linear(4, 6), "out": nn.Linear(6, 2)},
        {"a": 6, "b": 4},
    ),
    "channel shuffle by hand": Case(
        IMAGE,
        lambda m, x: m.out(mean(m.b(m.a(x).unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)))),
        lambda: {"a": nn.Conv2d(2, 6, 1), "b": nn.Conv2d(6, 6, 3, groups=6), "out": nn.Linear(6, 2)},
        {"a": 3},
    ),
    "channel shuffle": Case(
        IMAGE,
        lambda m, x: m.out(mean(m.s(m.a(x)))),
        lambda: {"a": nn.Conv2d(2, 6, 1), "s": nn.ChannelShuffle(2), "out": nn.Linear(6, 2)},
        {"a": 3},
    ),
    "shuffled across the groups that follow": Case(
        IMAGE,
        lambda m, x: m.out(mean(m.b(m.s(m.a(x))))),
        lambda: {
            "a": nn.Conv2d(2, 6, 1),
            "s": nn.ChannelShuffle(2),
            "b": nn.Conv2d(6, 6, 1, groups=2),
            "out": nn.Linear(6, 2),
        },
        {},
        {"a": "cut across its units"},
    ),
    "pixel shuffle": Case(
        IMAGE,
        lambda m, x: m.out(mean(F.pixel_shuffle(m.a(x), 2).relu())),
        lambda: {"a": nn.Conv2d(2, 12, 1), "out": nn.Linear(3, 2)},
        {"a": 3},
    ),
    "pixels to channels": Case(
        IMAGE,
        lambda m, x: m.out(mean(m.b(F.pixel_unshuffle(m.a(x).relu(), 2)))),
        lambda: {"a": nn.Conv2d(2, 3, 1), "b": nn.Conv2d(12, 4, 1), "out": nn.Linear(4, 2)},
        {"a": 3, "b": 4},
    ),
    "neighbours to channels": Case(
        IMAGE,
        lambda m, x: m.out(m.b(F.unfold(m.a(x).relu(), 3).transpose(1, 2)).mean(1)),
        lambda: {"a": nn.Conv2d(2, 3, 1), "b": nn.Linear(27, 4), "out": nn.Linear(4, 2)},
        {"a": 3, "b": 4},
    ),
    "flattened maps": Case(
        IMAGE,
        lambda m, x: m.out(m.b(F.max_pool2d(m.a(x), 4).flatten(1)).relu()),
        lambda: {"a": nn.Conv2d(2, 3, 1), "b": nn.Linear(12, 4), "out": nn.Linear(4, 2)},
        {"a": 3, "b": 4},
    ),
    "maps to tokens and back": Case(
        IMAGE,
        lambda m, x: m.out(m.c(m.b(m.a(x).flatten(2).transpose(1, 2)).relu().mT.unflatten(2, (8, 8))).mean((2, 3))),
        lambda: {"a": nn.Conv2d(2, 3, 1), "b": nn.Linear(3, 5), "c": nn.Conv2d(5, 4, 3), "out": nn.Linear(4, 2)},
        {"a": 3, "b": 5, "c": 4},
    ),
    "heads by their size": Case(
        SEQUENCE,
        lambda m, x: m.out(
            F.scaled_dot_product_attention(*(heads(layer(x), size) for layer, size in ((m.a, 2), (m.b, 2), (m.c, 4))))
            .transpose(1, 2)
            .flatten(2)
            .mean(1)
        ),
        lambda: {"a": nn.Linear(3, 6), "b": nn.Linear(3, 6), "c": nn.Linear(3, 12), "out": nn.Linear(12, 2)},
        {"a": 3},
    ),
    "a feed-forward part beside attention": Case(
        SEQUENCE,
        lambda m, x: m.out(m.e(m.a(x)).mean(1)),
        lambda: {
            "a": nn.Linear(3, 8),
            "e": nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
            "out": nn.Linear(8, 2),
        },
        {"e.linear1": 12},
        {"a": "layer_norm takes its mean over them", "e.self_attn.in_proj_weight": "hard-coded where it is used"},
    ),
    "embedding": Case(
        WORDS, lambda m, x: m.out(m.a(x).mean(1)), lambda: {"a": nn.Embedding(7, 6), "out": nn.Linear(6, 2)}, {"a": 6}
    ),
    "a table that is read as a layer, too": Case(
        WORDS,
        lambda m, x: F.linear(m.b(m.a(x)).relu(), m.a.weight),
        lambda: {"a": nn.Embedding(7, 6), "b": nn.Linear(6, 6)},
        {},
        {"a": "reads them with the weight that gives them"},
    ),
    "two inputs and two outputs": Case(
        (VECTOR, IMAGE),
        lambda m, x, y: {"sum": m.out(m.a(x) + mean(m.b(y))), "parts": [m.c(m.a(x)), y]},
        lambda: {"a": nn.Linear(3, 5), "b": nn.Conv2d(2, 5, 3), "c": nn.Linear(5, 4), "out": nn.Linear(5, 2)},
        {"a": 5},
    ),
    "a product with a parameter": Case(
        VECTOR,
        lambda m, x: m.out(torch.relu(x @ m.a)),
        lambda: {"a": nn.Parameter(torch.randn(3, 5)), "out": nn.Linear(5, 2)},
        {"a": 5},
    ),
    "a product of every unit with every other": Case(
        VECTOR,
        lambda m, x: m.out((m.a(x)[:, :, None] * m.a(x)[:, None]).flatten(1)),
        lambda: {"a": nn.Linear(3, 4), "out": nn.Linear(16, 2)},
        {},
        {"a": "hard-coded where it is used"},
    ),
    "softmax over units": Case(
        VECTOR, lambda m, x: m.out(torch.softmax(m.a(x), 1)), linear(5), {}, {"a": "softmax over its units"}
    ),
    "a transposed weight": Case(
        VECTOR,
        lambda m, x: F.linear(torch.relu(m.b(torch.relu(m.a(x)))), m.a.weight.t()),
        lambda: {"a": nn.Linear(3, 5), "b": nn.Linear(5, 5)},
        {},
        {"a": "the weight of linear in the network's own forward() is computed"},
    ),
    "a weight that is computed": Case(
        VECTOR,
        lambda m, x: m.out(m.b(m.a(x).relu()).relu()),
        lambda: {**linear(5, 4)(), "b": nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))},
        {},
        {"a": "the weight of linear in module 'b' is computed"},
    ),
    "a hard-coded number of units a pixel": Case(
        VECTOR,
        lambda m, x: m.out(m.a(x).view(4, -1, 2, 2).relu().flatten(1)),
        lambda: {"a": nn.Linear(3, 16), "out": nn.Linear(16, 2)},
        {"a": 4},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_widths_are_free_or_fixed_with_their_reason(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    module = Network(case.forward, case.layers())
    disturb(module)
    module.double()
    given = case.inputs if isinstance(case.inputs, tuple) else (case.inputs,)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in given)
    if not case.free:
        with pytest.raises(UnsupportedNetworkError) as error:
            sizer.attach(module, inputs, create("shrinknets", 1e-3))
        for layer, reason in case.fixed.items():
            assert f"{layer}: " in str(error.value)
            assert reason in str(error.value)
        return
    net = sizer.attach(module, inputs, create("shrinknets", 1e-3))
    reasons = {fixed.name: fixed.reason for fixed in net.fixed if fixed.reason != "an output of the network"}
    assert net.widths == case.free
    assert reasons.keys() == case.fixed.keys()
    assert all(reason in reasons[layer] for layer, reason in case.fixed.items())
    module.eval()
    with torch.no_grad():
        before = outputs(net(*inputs))
        for layer in net.widths:
            net.grow(layer, 2)
        for old, now in zip(before, outputs(net(*inputs)), strict=True):
            torch.testing.assert_close(old, now)
        for layer, width in net.widths.items():
            net.remove(layer, range(0, width, 2))
        assert [value.shape for value in outputs(net(*inputs))] == [value.shape for value in before]
        net.finish()
        assert [value.shape for value in outputs(module(*inputs))] == [value.shape for value in before]


def test_sizes_that_have_no_common_cut_stay() -> None:
    (first,) = dimensions.view((dimensions.new(2), dimensions.new(9), dimensions.new(2)), [36])
    three, twelve = dimensions.view((first,), [3, 12])
    assert (dimensions.size(three), dimensions.size(twelve)) == (3, 12)
    assert dimensions.pinned(first)
    left, right = (dimensions.view((dimensions.new(6),), [a, b]) for a, b in ((2, 3), (3, 2)))
    dimensions.unify((*left[0], *left[1]), (*right[0], *right[1]))
    assert all(map(dimensions.pinned, (*left, *right)))
    with pytest.raises(ValueError, match="a dimension of 6 cannot be one of 8"):
        dimensions.unify(dimensions.new(6), dimensions.new(8))
