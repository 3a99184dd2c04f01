"""Networks: the papers' shapes, counts and initialisation, and widths that cannot be."""

import importlib
import math
import re
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


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("mlp", nn.ReLU),
        ("lenet", nn.ReLU),
        ("das-conv", nn.SELU),
        ("das-mlp", nn.SELU),
        ("bnet-c", nn.ReLU),
        ("dec3", nn.ReLU),
        ("dec8", nn.ReLU),
        ("darn-mlp", nn.ReLU),
    ],
)
def test_every_hidden_layer_and_no_other_has_the_papers_activation(name, activation):
    parts = list(networks.build(name, (1, 28, 28), 10).children())
    followed = [isinstance(after, activation) for part, after in pairwise(parts) if hasattr(part, "weight")]
    assert followed == [True] * len(networks.layers(name))
    assert isinstance(parts[-1], nn.Linear)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vgg11", 9_228_362),
        ("resnet18", 11_173_962),
        ("mobilenetv2", 2_236_682),
        ("densenet", 176_122),
        ("unet", 1_864_714),
        ("vit", 810_890),
        ("conv1d", 267_146),
        ("bnet-c", 9_410_122),
        ("dec8", 6_683_594),
        ("dec3", 2_720_746),
    ],
)
def test_a_family_has_the_count_of_parameters_that_its_file_states(name, count):
    assert parameters(networks.build(name, (3, 32, 32), 10)) == count
    assert f"{count:,} parameters" in " ".join(
        str(importlib.import_module(f"sizer.networks.{name.replace('-', '_')}").__doc__).split()
    )


@pytest.mark.parametrize(("name", "count"), [("darn-mlp", 981_258), ("darn-cnn", 245_738)])
def test_darns_networks_have_the_count_of_parameters_that_their_files_state(name, count):
    assert parameters(networks.build(name, (1, 28, 28), 10)) == count
    module = importlib.import_module(f"sizer.networks.{name.replace('-', '_')}")
    assert f"{count:,} parameters" in " ".join(str(module.__doc__).split())


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("vgg11", [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]),
        ("bnet-c", [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]),
        ("dec8", [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]),
        ("dec3", [(32, 32), (16, 16), (8, 8), (4, 4)]),
        ("resnet18", [(32, 32), (16, 16), (8, 8), (4, 4), (1, 1)]),
        ("mobilenetv2", [(32, 32), (4, 4), (1, 1)]),
        ("densenet", [(32, 32), (16, 16), (8, 8), (1, 1)]),
    ],
)
def test_a_convolutional_family_has_its_sides_for_cifar(name, sides):
    network = networks.build(name, (3, 32, 32), 10, [2] * len(networks.layers(name))).eval()
    assert list(dict.fromkeys(shape[1:] for shape in sizes(network, 3, 32, 32) if len(shape) == 3)) == sides


def test_vgg11_pools_where_the_paper_does():
    parts = [name for name, _ in networks.build("vgg11", (3, 32, 32), 10, [2] * 8).named_children()]
    order = "".join(name[0] for name in parts if name.startswith(("conv", "pool")))
    assert order == "cpcpccpccpccp"


def test_bnet_c_is_vgg_b_up_to_its_dense_layers():
    parts = dict(networks.build("bnet-c", (3, 32, 32), 10).named_children())
    assert "".join(name[0] for name in parts if name.startswith(("conv", "pool"))) == "ccp" * 5
    assert [part.out_channels for part in parts.values() if isinstance(part, nn.Conv2d)] == [
        64, 64, 128, 128, 256, 256, 512, 512, 512, 512
    ]  # fmt: skip
    assert [name for name, part in parts.items() if isinstance(part, nn.Linear)] == ["out"]


@pytest.mark.parametrize(("name", "kernels"), [("dec8", [3] * 8), ("dec3", [9, 9, 7])])
def test_a_decomposed_convolution_is_a_vertical_one_then_a_horizontal_one(name, kernels):
    parts = networks.build(name, (3, 32, 32), 10, [2] * 2 * len(kernels))
    shapes = [part.kernel_size for part in parts if isinstance(part, nn.Conv2d)]
    assert shapes == [shape for k in kernels for shape in ((k, 1), (1, k))]


def test_das_mlp_is_the_network_of_the_15_puzzle():
    parts = list(networks.build("das-mlp", (256,), 1))
    assert [part.out_features for part in parts if isinstance(part, nn.Linear)] == [50] * 5 + [1]
    assert parameters(networks.build("das-mlp", (256,), 1)) == 257 * 50 + 4 * 51 * 50 + 51


@pytest.mark.parametrize(
    "name",
    [
        "vgg11",
        "resnet18",
        "mobilenetv2",
        "densenet",
        "unet",
        "vit",
        "conv1d",
        "bnet-c",
        "dec8",
        "dec3",
        "das-mlp",
        "darn-cnn",
        "darn-mlp",
    ],
)
@pytest.mark.parametrize("sides", [(1, 1), (5, 16), (8, 8), (33, 2)])
def test_images_of_any_size_can_be_trained_on(name, sides):
    network = networks.build(name, (1, *sides), 3, [4] * len(networks.layers(name)))
    out = network(torch.randn(2, 1, *sides))
    assert out.shape == ((2, 3, *sides) if networks.output(name) == "map" else (2, 3))
    assert out.isfinite().all()


@pytest.mark.parametrize(
    "name",
    ["das-conv", "vgg11", "resnet18", "mobilenetv2", "densenet", "unet", "vit", "bnet-c", "dec8", "dec3", "darn-cnn"],
)
@pytest.mark.parametrize("input_shape", [(64,), (3, 64), (3, 4, 8, 8)])
def test_what_is_no_image_is_refused_by_name(name, input_shape):
    said = re.escape(f"{name} needs images (channels, height, width), got input shape {input_shape}; mlp takes any")
    with pytest.raises(InputError, match=said):
        networks.build(name, input_shape, 10)


def test_only_a_unet_returns_maps():
    assert [name for name in networks.names() if networks.output(name) == "map"] == ["unet"]


def test_a_residual_sum_adds_the_input_of_its_block():
    for name, block in (("resnet18", "layer1.0"), ("mobilenetv2", "blocks.2")):
        part = networks.build(name, (3, 8, 8), 10, [4] * len(networks.layers(name))).eval().get_submodule(block)
        x = torch.rand(2, 4, 8, 8)
        torch.nn.init.zeros_(part.get_submodule("bn2" if name == "resnet18" else "bn3").weight)
        torch.testing.assert_close(part(x), x)


def test_mobilenetv2_is_the_papers_table_of_blocks():
    blocks = networks.build("mobilenetv2", (3, 32, 32), 10).blocks
    strides = [at for at, block in enumerate(blocks) if block.depthwise.stride == (2, 2)]
    assert strides == [3, 6, 13]
    assert [at for at, block in enumerate(blocks) if not block.adds] == [0, 1, 3, 6, 10, 13, 16]
    for block in blocks[1:]:
        assert block.expand.out_channels == block.depthwise.groups == 6 * block.expand.in_channels
    assert [block.project.out_channels for block in blocks if not block.adds] == [16, 24, 32, 64, 96, 160, 320]


def test_a_dense_layer_passes_its_input_on_and_adds_its_growth():
    layer = networks.build("densenet", (3, 8, 8), 10).eval().get_submodule("block1.3")
    x = torch.randn(2, 24 + 3 * 12, 8, 8)
    assert layer(x).shape == (2, 24 + 4 * 12, 8, 8)
    torch.testing.assert_close(layer(x)[:, :60], x)


def test_a_unet_keeps_pixels_in_their_places_where_sides_are_odd():
    torch.manual_seed(0)
    network = networks.build("unet", (1, 81, 87), 2, [4] * 12).eval()
    x = torch.randn(1, 1, 84, 88)
    inside = (..., slice(40, 44), slice(40, 44))  # farther from all borders than a pixel sees
    torch.testing.assert_close(network(x[..., :81, :87])[inside], network(x)[inside])
    assert network(x[..., :6, :5]).shape == (1, 2, 6, 5)


def test_the_heads_of_a_vit_are_those_of_torchs_attention():
    block = networks.build("vit", (1, 8, 8), 10, [2, 8] * 6).blocks[0].attn
    x = torch.randn(2, 5, 128)
    query, key, value = (part.unflatten(-1, (2, 32)) for part in block.qkv(x).chunk(3, -1))
    scores = torch.einsum("nqhd,nkhd->nhqk", query, key) / math.sqrt(32)
    seen = torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1), value)
    torch.testing.assert_close(block(x), block.proj(seen.flatten(2)))


def test_a_vit_sees_every_pixel_and_where_it_stands():
    torch.manual_seed(0)
    network = networks.build("vit", (1, 7, 9), 10, [1, 4] * 6)
    x = torch.randn(1, 1, 7, 9, requires_grad=True)
    network(x)[0, 0].backward()
    assert (x.grad != 0).all()
    assert network.positions.shape == (2 * 3, 128)
    assert not torch.allclose(network(x), network(x.flip(-1)))


@pytest.mark.parametrize("input_shape", [(9,), (4, 9), (3, 2, 5)])
def test_conv1d_reads_signals_and_the_pixels_of_images_as_steps(input_shape):
    network = networks.build("conv1d", input_shape, 2, [4, 5, 6, 7]).eval()
    x = torch.randn(3, *input_shape)
    assert network(x).shape == (3, 2)
    steps = dict(network.named_children())["steps"](x)
    torch.testing.assert_close(steps, x.reshape(3, -1, math.prod(input_shape[1:] or input_shape)))
    assert [conv.kernel_size for conv in network if isinstance(conv, nn.Conv1d)] == [(7,), (5,), (3,), (3,)]


@pytest.mark.parametrize(
    ("name", "input_shape", "path", "std"),
    [
        ("mlp", (1, 28, 28), "dense2", math.sqrt(2) * math.sqrt(2 / 1000)),
        ("lenet", (1, 28, 28), "conv2", math.sqrt(2) * math.sqrt(2 / (100 * 25))),
        ("das-conv", (1, 28, 28), "conv2", math.sqrt(1 / (100 * 9))),
        ("das-conv", (1, 28, 28), "dense", math.sqrt(1 / (100 * 49))),
        ("vgg11", (3, 32, 32), "conv4", math.sqrt(2 / (256 * 9))),
        ("resnet18", (3, 32, 32), "layer2.0.shortcut.0", math.sqrt(2 / 64)),
        ("mobilenetv2", (3, 32, 32), "blocks.16.depthwise", math.sqrt(2 / 9)),
        ("densenet", (3, 32, 32), "block3.5.conv1", math.sqrt(2 / 120)),
        ("unet", (3, 32, 32), "decode1.conv1", math.sqrt(2 / (128 * 9))),
        ("unet", (3, 32, 32), "up1", math.sqrt(1 / 128)),
        ("vit", (3, 32, 32), "blocks.3.mlp.fc1", math.sqrt(2 / (128 + 256))),
        ("vit", (3, 32, 32), "patches", math.sqrt(2 / (48 + 128))),
        ("conv1d", (3, 1024), "conv2", math.sqrt(2 / (128 * 5))),
        ("bnet-c", (3, 32, 32), "conv6", math.sqrt(2 / (256 * 9))),
        ("dec8", (3, 32, 32), "horizontal5", math.sqrt(2 / (512 * 3))),
        ("dec3", (3, 32, 32), "vertical3", math.sqrt(2 / (128 * 7))),
        ("das-mlp", (256,), "dense1", math.sqrt(1 / 256)),
    ],
)
def test_weights_start_as_in_the_papers(name, input_shape, path, std):
    torch.manual_seed(0)
    weight = networks.build(name, input_shape, 10).get_submodule(path).weight.detach()
    assert float(weight.std()) == pytest.approx(std, rel=0.02)
    assert abs(float(weight.mean())) < std / 20
    largest = float(weight.abs().max())
    assert largest <= 1.01 * math.sqrt(3) * std if name == "vit" else largest > 3 * std


@pytest.mark.parametrize("input_shape", [(1, 8, 8), (1, 15, 28), (1, 28, 15), (64,)])
def test_lenet_refuses_inputs_of_which_nothing_would_be_left(input_shape):
    with pytest.raises(InputError, match=r"16 x 16 or more, got input shape .*; mlp takes any"):
        networks.build("lenet", input_shape, 10)
    assert networks.build("lenet", (1, 16, 16), 10, [2, 3, 4])(torch.zeros(5, 1, 16, 16)).shape == (5, 10)


@pytest.mark.parametrize("name", ["perceptron", "das_conv", "", "__init__"])
def test_an_unknown_network_lists_those_there_are(name):
    for call in (networks.layers, networks.default_widths, networks.output):
        with pytest.raises(UnknownNameError, match=f"unknown network '{name}'; there are: .*mlp"):
            call(name)


@pytest.mark.parametrize(
    ("name", "widths", "said"),
    [
        ("mlp", [], "mlp needs 1 width or more, got 0"),
        ("mlp", [5, 0], r"every width of mlp must be 1 or more, got \[5, 0\]"),
        ("mlp", [5, -3], r"got \[5, -3\]"),
        ("mlp", [5.5], r"widths of mlp must be whole numbers, got \[5.5\]"),
        ("lenet", [5, 5], r"lenet has 3 widths \(conv1, conv2, dense\), got 2"),
        ("das-conv", [5] * 6, "das-conv has 5 widths .*, got 6"),
        ("conv1d", [], "conv1d needs 1 width or more, got 0"),
        ("resnet18", [5], r"resnet18 has 12 widths \(conv1, layer1.0.conv1, .*\), got 1"),
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
