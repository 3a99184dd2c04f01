"""Random networks keep their outputs, their optimiser and themselves, whatever is removed from them or grown."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import Tensor, nn
from torch.optim import Optimizer

import sizer
from sizer import Net, UnsupportedNetworkError, dimensions
from sizer.dimensions import Atom, Dim
from sizer.groups import Group, Slot
from sizer.methods import create
from sizer.net import fresh
from tests.sizer.random_networks import Plan, outputs, plans

CLOSE = 1e-5


def examples(count: int) -> Any:
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def attached(plan: Plan, weights: int = 0, method: str = "shrinknets", **settings: Any) -> tuple[Net, tuple[Any, ...]]:
    """A random network in double precision, with gates anywhere between 0.3 and 1.3, and an input."""
    module = plan.build(weights).double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in plan.inputs())
    try:
        net = sizer.attach(module, inputs, create(method, 1e-3 if method == "shrinknets" else None), **settings)
    except UnsupportedNetworkError as error:
        if "has no width that is free" not in str(error):
            raise
        assume(False)
    for child in module.modules():
        if "Dropout" in type(child).__name__:
            child.p = 0.0  # what it draws depends on how many units there are
    with torch.no_grad():
        for theta in net.gates.parameters() if net.gates else []:
            theta.add_(0.3)
    return net, inputs


def run(net: Net, inputs: tuple[Any, ...], training: bool = False) -> list[Tensor]:
    """The outputs; running statistics stay as they are."""
    net.module.train(training)
    buffers = {name: value.clone() for name, value in net.module.named_buffers()}
    with torch.no_grad():
        found = outputs(net(*inputs))
    for name, value in net.module.named_buffers():
        value.copy_(buffers[name])
    return found


def assert_same(before: Iterable[Tensor], after: Iterable[Tensor], tolerance: float = CLOSE) -> None:
    for old, now in zip(before, after, strict=True):
        assert old.isfinite().all()
        assert old.shape == now.shape
        assert (old - now).abs().max() <= tolerance * old.abs().max().clamp(min=1)


def some(group: Group, draw: Random) -> Tensor:
    """A few units of a group, never all: bool of shape (width,)."""
    mask = torch.zeros(group.width, dtype=torch.bool)
    mask[draw.sample(range(group.width), draw.randint(0, group.width - 1))] = True
    return mask


def steps(net: Net, inputs: tuple[Any, ...], optimizer: Optimizer, count: int = 1) -> None:
    net.module.train()
    for _ in range(count):
        optimizer.zero_grad()
        loss(net, inputs).backward()
        optimizer.step()


def loss(net: Net, inputs: tuple[Any, ...]) -> Tensor:
    net.module.train()
    found = net(*inputs)
    if isinstance(found, Tensor):
        return found.square().mean()
    return found["result"].square().mean() + found["aside"][0].square().mean()


def close(net: Net, draw: Random) -> dict[str, int]:
    """Closes some gates; gives how many stay open."""
    stay: dict[str, int] = {}
    with torch.no_grad():
        for group in net.groups:
            mask = some(group, draw)
            for slot in group.roles("gate"):
                slot.ref.tensor[mask] = 0
            stay[group.name] = int((~mask).sum())
    return stay


@examples(30)
@given(plans())
def test_closed_gates_go_and_the_outputs_stay(plan: Plan) -> None:
    net, inputs = attached(plan)
    stay = close(net, Random(plan.seed))
    before = [run(net, inputs), run(net, inputs, training=True)]
    net.after_epoch()
    assert all(width <= stay[layer] for layer, width in net.widths.items())
    assert_same(before[0], run(net, inputs))
    if net.widths == stay:  # else a unit went that was constant in evaluation mode
        assert_same(before[1], run(net, inputs, training=True))


@examples(30)
@given(plans())
def test_units_that_became_constant_are_folded_or_stay(plan: Plan) -> None:
    net, inputs = attached(plan)
    draw, dead = Random(plan.seed), {}
    with torch.no_grad():
        for group in net.groups:
            mask = some(group, draw)
            for slot in group.roles("row"):
                where = dimensions.positions(slot.units, group.atom)[mask].flatten()
                slot.ref.tensor.index_fill_(slot.dim, where, 0)
            dead[group] = mask
    before, width = run(net, inputs), sum(net.widths.values())
    net.module.train(plan.second)
    removed = net.drop(dead)
    assert sum(net.widths.values()) == width - removed
    assert all(child.training == plan.second for child in net.module.modules())
    assert_same(before, run(net, inputs))


@examples(20)
@given(plans())
def test_growing_leaves_the_outputs_and_what_grew_is_trained(plan: Plan) -> None:
    net, inputs = attached(plan)
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    steps(net, inputs, optimizer)
    draw = Random(plan.seed)
    before = [run(net, inputs), run(net, inputs, training=True)]
    counts = {group: draw.randint(1, 3) for group in net.groups}
    widths = {layer: width + counts[net.group(layer)] for layer, width in net.widths.items()}
    net.grow_all(counts, fresh(1.0, 0.0))
    assert net.widths == widths
    assert_same(before[0], run(net, inputs))
    assert_same(before[1], run(net, inputs, training=True))
    old = {slot: slot.ref.tensor.detach().clone() for group in counts for slot in group.roles("column")}
    steps(net, inputs, optimizer)
    assert any(not torch.equal(slot.ref.tensor, value) for slot, value in old.items())


def numbered(tensor: Tensor) -> Tensor:
    """Another number for every entry."""
    return torch.arange(1.0, tensor.numel() + 1).to(tensor.dtype).view(tensor.shape)


def labels(dim: Dim) -> list[dict[Atom, int]]:
    """For every entry of a dimension which unit of which atom it belongs to, one entry at a time."""
    found: list[dict[Atom, int]] = [{}]
    for atom in dimensions.atoms(dim):
        inside = [label for part in atom.parts for label in labels(part)] if atom.parts else []
        inside = inside or [{atom: at} for at in range(atom.size)]
        found = [{**outer, **inner} for outer in found for inner in inside]
    return found


def reference(net: Net, kept: dict[Group, list[int]]) -> dict[int, Tensor]:
    """What stays of the numbered entries of every parameter and buffer, by the tensor's id."""
    stays = {group.atom: set(units) for group, units in kept.items()}
    parts: dict[int, list[Slot]] = {}
    for slot in dict.fromkeys(slot for group in kept for slot in group.slots):
        parts.setdefault(id(slot.ref.tensor), []).append(slot)
    found = {}
    for tensor in [*net.module.parameters(), *net.module.buffers()]:
        value = numbered(tensor)
        for slot in parts.get(id(tensor), []):
            chosen = [
                at
                for at, label in enumerate(labels(slot.units))
                if all(unit in stays[atom] for atom, unit in label.items() if atom in stays)
            ]
            value = value.index_select(slot.dim, torch.tensor(chosen))
        found[id(tensor)] = value
    return found


@examples(20)
@given(plans())
def test_the_optimiser_keeps_what_belongs_to_the_units_that_stay_and_goes_on(plan: Plan) -> None:
    net, inputs = attached(plan)
    adam = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    momentum = net.track(torch.optim.SGD(net.module.parameters(), 1e-3, momentum=0.9))
    loss(net, inputs).backward()
    adam.step()
    momentum.step()
    names = {name: parameter for name, parameter in net.module.named_parameters() if parameter.grad is not None}
    with torch.no_grad():
        for parameter in names.values():
            parameter.copy_(numbered(parameter))
            assert parameter.grad is not None
            parameter.grad.copy_(numbered(parameter))
            for optimizer in (adam, momentum):
                for value in optimizer.state[parameter].values():
                    if value.dim():
                        value.copy_(numbered(parameter))
    alive = loss(net, inputs)
    draw = Random(plan.seed)
    kept = {group: (~some(group, draw)).nonzero()[:, 0].tolist() for group in net.groups}
    wanted = {name: reference(net, kept)[id(parameter)] for name, parameter in names.items()}
    for group, units in kept.items():
        gone = [unit for unit in range(group.width) if unit not in units]
        if gone:
            net.remove(group.name, gone)
    for name, parameter in net.module.named_parameters():
        if name not in names:
            continue
        states = [value for opt in (adam, momentum) for value in opt.state[parameter].values() if value.dim()]
        assert len(states) == 3
        for value in (parameter.detach(), parameter.grad, *states):
            assert torch.equal(value, wanted[name]), name
    mine = {id(parameter) for parameter in net.module.parameters()}
    for optimizer in (adam, momentum):
        assert {id(p) for options in optimizer.param_groups for p in options["params"]} == mine
        assert {id(p) for p in optimizer.state} <= mine
    alive.backward()
    for parameter in net.module.parameters():
        nn.init.uniform_(parameter.data)
    before = {name: parameter.detach().clone() for name, parameter in net.module.named_parameters()}
    steps(net, inputs, adam)
    for name, parameter in net.module.named_parameters():
        if parameter.grad is not None and parameter.grad.abs().max() > 0:
            assert not torch.equal(parameter, before[name]), name


@examples(15)
@given(plans())
def test_a_finished_network_is_plain_and_loads_into_one_of_its_widths(plan: Plan) -> None:
    net, inputs = attached(plan)
    optimizer = net.track(torch.optim.AdamW(net.param_groups(1e-3)))
    close(net, Random(plan.seed))
    net.after_epoch()
    for layer in list(net.widths)[::2]:
        net.grow(layer, 2)
    steps(net, inputs, optimizer)
    before, widths, state = run(net, inputs), net.widths, net.plain_state()
    module = net.finish().eval()
    assert_same(before, outputs(module(*inputs)))
    assert all(not child._forward_hooks and not child._forward_pre_hooks for child in module.modules())
    assert_told_sizes(module)
    program = torch.export.export(module, inputs)
    assert_same(before, outputs(program.module()(*inputs)))
    other, _ = attached(plan, weights=1, method="fixed")
    other.resize_to(widths)
    again = other.finish().eval()
    again.load_state_dict(module.state_dict())
    assert_same(outputs(module(*inputs)), outputs(again(*inputs)), 0)
    again.load_state_dict(state)
    assert_same(before, outputs(again(*inputs)))


def assert_told_sizes(module: nn.Module) -> None:
    """What modules say of their sizes is what their tensors are."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            assert child.weight.shape == (child.out_features, child.in_features)
        elif isinstance(child, nn.modules.conv._ConvNd):
            channels = (child.in_channels, child.out_channels // child.groups)
            if not child.transposed:
                channels = (child.out_channels, child.in_channels // child.groups)
            assert child.weight.shape[:2] == channels
        elif isinstance(child, nn.modules.batchnorm._NormBase) and child.running_mean is not None:
            assert child.running_mean.shape == (child.num_features,)
        elif isinstance(child, nn.GroupNorm) and child.affine:
            assert child.weight.shape == (child.num_channels,)
            assert child.num_channels % child.num_groups == 0
        elif isinstance(child, nn.PReLU):
            assert child.weight.shape == (child.num_parameters,)
        elif isinstance(child, nn.Embedding):
            assert child.weight.shape == (child.num_embeddings, child.embedding_dim)


@examples(15)
@given(plans())
def test_removal_to_multiples_leaves_multiples(plan: Plan) -> None:
    net, inputs = attached(plan, round_to=4)
    widths = net.widths
    close(net, Random(plan.seed))
    before = run(net, inputs)
    net.after_epoch()
    assert all(width % 4 == 0 or width == widths[layer] for layer, width in net.widths.items())
    assert_same(before, run(net, inputs))
