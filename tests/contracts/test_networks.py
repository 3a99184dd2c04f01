"""What every network keeps; a new file in sizer/networks is tested here unasked."""

import pytest
import torch
from torch import nn

from sizer import networks
from sizer.errors import InputError

IMAGE = (3, 17, 22)  # what is left of the sides differs too

pytestmark = pytest.mark.parametrize("name", networks.names())


def widths(name: str) -> list[int]:
    """Small widths, each another, so that no two layers can be taken for each other."""
    return [3 + i for i in range(len(networks.layers(name)))]


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return networks.build(name, IMAGE, 7, widths(name)).eval()


def test_it_takes_any_batch_and_gives_one_value_an_output(name):
    network = build(name)
    for batch in (1, 5):
        out = network(torch.randn(batch, *IMAGE))
        assert out.shape == (batch, 7)
        assert out.isfinite().all()


def test_it_returns_logits_or_values_and_no_probabilities(name):
    out = build(name)(10 * torch.randn(20, *IMAGE))
    assert (out < 0).any()
    assert not torch.allclose(out.exp().sum(1), torch.ones(20))


def test_its_layers_are_its_submodules_in_the_order_they_run(name):
    network = build(name)
    ran: list[str] = []
    for path, module in network.named_modules():
        if isinstance(getattr(module, "weight", None), nn.Parameter):
            module.register_forward_hook(lambda _m, _i, _o, path=path: ran.append(path))
    network(torch.zeros(2, *IMAGE))
    assert (*networks.layers(name), "out") == tuple(ran)


def test_each_layer_has_the_width_it_was_given(name):
    network = build(name)
    for layer, width in zip(networks.layers(name), widths(name), strict=True):
        assert network.get_submodule(layer).weight.shape[0] == width


def test_its_default_widths_are_one_a_layer(name):
    default = networks.default_widths(name)
    assert len(default) == len(networks.layers(name)) == len(networks.layers(name, len(default)))
    assert min(default) >= 1
    network = networks.build(name, IMAGE, 7)
    for layer, width in zip(networks.layers(name), default, strict=True):
        assert network.get_submodule(layer).weight.shape[0] == width


def test_every_width_may_be_one(name):
    network = networks.build(name, IMAGE, 1, [1] * len(networks.layers(name)))
    assert network.eval()(torch.randn(2, *IMAGE)).shape == (2, 1)


def test_a_width_under_one_is_refused(name):
    with pytest.raises(InputError, match="must be 1 or more"):
        networks.build(name, IMAGE, 7, [0, *widths(name)[1:]])


def test_the_seed_decides_its_weights_and_its_biases_start_at_zero(name):
    first, again, other = build(name), build(name), build(name, seed=1)
    for path, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[path])
        if path.endswith("bias"):
            assert not weight.any()
        else:
            assert not torch.equal(weight, other.state_dict()[path])


def test_torch_export_follows_it_with_any_batch(name):
    network = build(name)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (torch.randn(4, *IMAGE),), dynamic_shapes=({0: batch},))
    x = torch.randn(9, *IMAGE)
    torch.testing.assert_close(program.module()(x), network(x))


def test_its_forward_states_no_width(name):
    """Each layer's parameters put in from a network of other widths: the forward follows them."""
    network, other = build(name), networks.build(name, IMAGE, 7, [w + 2 for w in widths(name)]).eval()
    for path, parameter in other.named_parameters():
        owner, _, leaf = path.rpartition(".")
        setattr(network.get_submodule(owner), leaf, parameter)
    x = torch.randn(3, *IMAGE)
    torch.testing.assert_close(network(x), other(x))


def test_gradients_reach_every_parameter(name):
    network = build(name)
    network(torch.randn(64, *IMAGE)).square().sum().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().sum() > 0, path
