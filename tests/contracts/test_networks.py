"""What every network keeps; a new file in sizer/networks is tested here unasked."""

import pytest
import torch
from torch import nn

import sizer
from sizer import cost, networks
from sizer.errors import InputError
from sizer.groups import find_groups
from sizer.methods import create

IMAGE = (3, 17, 22)  # what is left of the sides differs too

pytestmark = pytest.mark.parametrize("name", networks.names())


def has_layers(name: str) -> None:
    """Leaves out what only layers can keep."""
    if not networks.layered(name):
        pytest.skip(f"{name} has no layers: its sizes, and what its tensors are, follow from single synapses")


def widths(name: str) -> list[int]:
    """Small widths, each another, so that no two layers can be taken for each other."""
    return [3 + i for i in range(len(networks.layers(name)))]


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return networks.build(name, IMAGE, 7, widths(name)).eval()


def result(name: str, batch: int, outputs: int = 7) -> tuple[int, ...]:
    """The shape of what the network returns for a batch of `IMAGE`."""
    return {"vector": (batch, outputs), "map": (batch, outputs, *IMAGE[1:])}[networks.output(name)]


def found(network: nn.Module) -> list[tuple[str, int]]:
    """The free widths of any network, without knowing its family."""
    return [(group.name, group.width) for group in find_groups(network, (torch.randn(2, *IMAGE),)).free]


def test_it_takes_any_batch_and_gives_one_value_an_output(name):
    network = build(name)
    for batch in (1, 5):
        out = network(torch.randn(batch, *IMAGE))
        assert out.shape == result(name, batch)
        assert out.isfinite().all()


def test_it_returns_logits_or_values_and_no_probabilities(name):
    out = build(name)(10 * torch.randn(20, *IMAGE))
    assert (out < 0).any()
    assert not torch.allclose(out.exp().sum(1), torch.ones(()))


def test_its_layers_are_all_its_free_widths_in_the_order_they_run_and_as_given(name):
    has_layers(name)
    assert found(build(name)) == list(zip(networks.layers(name), widths(name), strict=True))


def test_its_default_widths_are_one_a_layer(name):
    default = networks.default_widths(name)
    assert min(default) >= 1
    assert len(networks.layers(name, len(default))) == len(default)
    chosen, given = networks.build(name, IMAGE, 7), networks.build(name, IMAGE, 7, default)
    shapes = [{path: value.shape for path, value in network.state_dict().items()} for network in (chosen, given)]
    assert shapes[0] == shapes[1]


def test_its_last_layer_is_out_and_has_one_row_an_output(name):
    has_layers(name)
    assert build(name).get_submodule("out").weight.shape[0] == 7


def test_every_width_may_be_one(name):
    network = networks.build(name, IMAGE, 1, [1] * len(networks.layers(name)))
    assert network.eval()(torch.randn(2, *IMAGE)).shape == result(name, 2, outputs=1)


def test_a_width_under_one_is_refused(name):
    with pytest.raises(InputError, match="must be 1 or more"):
        networks.build(name, IMAGE, 7, [0, *widths(name)[1:]])


def test_the_seed_decides_its_weights_and_its_biases_start_at_zero(name):
    first, again, other = build(name), build(name), build(name, seed=1)
    for path, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[path])
    for path, parameter in first.named_parameters():
        if path.endswith("bias"):
            assert not parameter.any(), path
        elif parameter.dim() == 1 and networks.layered(name):
            assert (parameter == 1).all(), f"{path} is a normalisation's scale"
        else:
            assert not torch.equal(parameter, other.get_parameter(path)), path


def test_torch_export_follows_it_with_any_batch_and_names_its_input_alike(name):
    network = build(name)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (torch.randn(4, *IMAGE),), dynamic_shapes=({0: batch},))
    x = torch.randn(9, *IMAGE)
    torch.testing.assert_close(program.module()(x), network(x))
    assert program.graph_signature.user_inputs == ("input",)


def test_its_forward_states_no_width(name):
    """Each layer's tensors put in from a network of other widths: the forward follows them."""
    has_layers(name)
    network, other = build(name), networks.build(name, IMAGE, 7, [w + 2 for w in widths(name)]).eval()
    for path, tensor in [*other.named_parameters(), *other.named_buffers()]:
        owner, _, leaf = path.rpartition(".")
        setattr(network.get_submodule(owner), leaf, tensor)
    for path, module in other.named_modules():
        if hasattr(module, "groups"):
            network.get_submodule(path).groups = module.groups
    x = torch.randn(3, *IMAGE)
    torch.testing.assert_close(network(x), other(x))


def test_flops_are_worked_out_from_widths_as_torch_counts_them(name):
    has_layers(name)
    network = build(name)
    inputs = (torch.randn(2, *IMAGE),)
    net = sizer.attach(network, inputs, create("shrinknets", 1e-3))
    counter = cost.Flops(network, inputs)
    assert counter() == cost.flops(network, inputs)
    for group in net.groups[::2]:
        net.drop({group: torch.arange(group.width) == 0})
    next(network.parameters()).requires_grad_(False)
    passes = []
    network.register_forward_hook(lambda *_: passes.append(1))
    worked_out = counter()
    assert not passes or any(isinstance(child, nn.ConvTranspose2d) for child in network.modules())
    assert worked_out == cost.flops(network, inputs)


def test_gradients_reach_every_parameter(name):
    network = build(name)
    network(torch.randn(64, *IMAGE)).square().sum().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().sum() > 0, path


def test_training_moves_every_layer_by_more_than_rounding(name):
    """It would not move a bias that a batch normalisation takes away again."""
    network = build(name).train()
    network(torch.randn(32, *IMAGE)).square().sum().backward()
    largest = {
        f"{path}.{leaf}": float(parameter.grad.abs().max())
        for path, module in network.named_modules()
        if not hasattr(module, "running_mean")  # its own shift may be taken away by the next one
        for leaf, parameter in module.named_parameters(recurse=False)
    }
    assert min(largest.values()) > 1e-5 * max(largest.values()), min(largest, key=largest.__getitem__)
