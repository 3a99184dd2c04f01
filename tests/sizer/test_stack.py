"""Networks in a stack train as each would alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from sizer import InputError, networks
from sizer.chain import chain_of
from sizer.grouping import grouped
from sizer.looks import Looks
from sizer.recorded import Recorded
from sizer.stack import Stack
from sizer.stacked import padded, part
from tests.sizer import stacks
from tests.sizer.stacks import (
    Maker,
    Member,
    attached,
    batches,
    difference,
    generators,
    members,
    stacked,
    state_of,
    step_alone,
    train,
    train_alone,
    twins,
)

METHODS = ("shrinknets", "auto-sizing", "fixed", "fixed-l2")
CLOSED = {"check_every": 4, "ramp": 0.0}
"""Settings with which knobs of up to 1e-1 close gates within a few steps."""


@pytest.fixture
def exact() -> Iterator[None]:
    """Sums in another order then differ by nothing that an optimiser could enlarge."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def same_alone(those: list[Member], data: list[tuple[Tensor, Tensor]], **given: Any) -> Stack:
    """Trains twins in a stack and checks that they are the same as alone; the stack, written back."""
    together = twins(those)
    stack = stacked(together, generators=generators(len(those)), **given)
    assert torch.allclose(train(stack, data), train_alone(those, data, **given), rtol=1e-9)
    stack.write_back()
    assert difference(those, together) < 1e-9
    assert_padding_is_zero(stack)
    return stack


def assert_padding_is_zero(stack: Stack) -> None:
    for copied in stack._copied:
        own = [net.module.state_dict(keep_vars=True)[copied.name] for net in stack.nets]
        parts = [part(copied.tensor, at, like, copied.area) for at, like in enumerate(own)]
        assert torch.equal(padded(parts, copied.area), copied.tensor.detach()), copied.name


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ["mlp", "lenet", "das-conv"])
def test_members_train_as_they_would_alone(network: str, method: str) -> None:
    stack = same_alone(members(network, method), batches(stacks.SHAPES[network], 12))
    assert len({layer.width for layer in stack.groups}) > 1


@pytest.mark.parametrize("network", ["mlp", "lenet", "das-conv"])
def test_in_single_precision_they_differ_by_rounding(network: str) -> None:
    alone = members(network, "shrinknets")
    together, data = twins(alone), batches(stacks.SHAPES[network], 12)
    stack = stacked(together, generators=generators())
    assert torch.allclose(train(stack, data), train_alone(alone, data).double(), rtol=1e-5)
    stack.write_back()
    assert difference(alone, together) < 1e-4
    assert_padding_is_zero(stack)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("shrinknets", {"rule": "subgradient"}),
        ("shrinknets", {"ramp": 0.0, "start": "ones"}),
        *(("auto-sizing", {"penalty": penalty}) for penalty in ("l2,1", "linf,1", "l1", "none")),
        ("auto-sizing", {"f": "sqrt"}),
    ],
)
def test_settings_act_as_they_would_alone(method: str, settings: dict[str, Any]) -> None:
    same_alone(members("mlp", method, **settings), batches(stacks.SHAPES["mlp"], 6))


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("network", ["mlp", "lenet"])
def test_gates_below_zero_let_nothing_through(network: str) -> None:
    those = members(network, "shrinknets", rule="subgradient")
    for net, _ in those:
        for gate in net.gates.by_group.values():
            gate.theta.data[1:] *= -1
    same_alone(those, batches(stacks.SHAPES[network], 2))


@pytest.mark.usefixtures("exact")
def test_the_static_part_of_auto_sizing_has_no_penalty() -> None:
    those = members("mlp", "auto-sizing")
    for net, _ in those:
        net.epoch = 6
    assert stacked(twins(those)).bound_to()[0] is False
    same_alone(those, batches(stacks.SHAPES["mlp"], 3))


def adam(groups: list[dict[str, Any]]) -> Optimizer:
    return Adam(groups, amsgrad=True, foreach=False)


def adamw(groups: list[dict[str, Any]]) -> Optimizer:
    return AdamW(groups)


def nadam(groups: list[dict[str, Any]]) -> Optimizer:
    return NAdam(groups, decoupled_weight_decay=True)


def rmsprop(groups: list[dict[str, Any]]) -> Optimizer:
    return RMSprop(groups, centered=True, momentum=0.5)


def sgd(groups: list[dict[str, Any]]) -> Optimizer:
    return SGD(groups, momentum=0.9)


def ascending(groups: list[dict[str, Any]]) -> Optimizer:
    return SGD([group | {"lr": 1e-4} for group in groups], maximize=True)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("maker", [adam, adamw, nadam, RAdam, Adamax, rmsprop, sgd, ascending])
@pytest.mark.parametrize("method", ["fixed-l2", "shrinknets"])
def test_every_optimiser_steps_as_it_would_alone(maker: Maker, method: str) -> None:
    data = batches(stacks.SHAPES["mlp"], 6)
    those = members("mlp", method, maker)
    train_alone(those, data[:2])  # state is taken along
    same_alone(those, data[2:])


@pytest.mark.usefixtures("exact")
def test_each_members_gradients_are_clipped_alone() -> None:
    those = members("mlp", "shrinknets")
    data = [(x * 10 ** torch.arange(4.0).view(-1, 1, 1, 1, 1), y) for x, y in batches(stacks.SHAPES["mlp"], 5)]
    same_alone(those, data, clip=0.5)


@pytest.mark.usefixtures("exact")
def test_floats_are_regressed() -> None:
    for shape in ((stacks.BATCH, 1), (stacks.BATCH,)):
        those = [
            attached(nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1)), (3,), "auto-sizing", 1e-4)
            for width in (4, 2)
        ]
        data = [(torch.randn(2, stacks.BATCH, 3), torch.randn(2, *shape)) for _ in range(4)]
        if len(shape) == 1:
            together = stacked(twins(those))
            outputs = together(data[0][0])
            wanted = torch.stack([F.mse_loss(outputs[at, :, 0], data[0][1][at]) for at in range(2)])
            assert torch.allclose(together.losses(outputs, data[0][1]), wanted)
        else:
            same_alone(those, data)


def odd(width: int, first: int) -> nn.Module:
    """Whatever a chain may have."""
    return nn.Sequential(
        nn.Dropout(0.2), nn.AvgPool2d(2, ceil_mode=True),
        nn.Sequential(nn.Conv2d(2, first, 3, padding="same", dilation=2, bias=False), nn.LeakyReLU(0.3)),
        nn.Dropout(0.0), nn.Conv2d(first, width, (2, 3), stride=(1, 2), padding=(0, 1)), nn.ELU(inplace=True),
        nn.MaxPool2d(2, padding=1), nn.Dropout(0.4), nn.Flatten(), nn.Dropout(0.3), nn.GELU(),
        nn.Linear(4 * width, width + 1, bias=False), nn.SiLU(), nn.Identity(), nn.Dropout(0.5),
        nn.Linear(width + 1, stacks.CLASSES),
    )  # fmt: skip


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("method", ["shrinknets", "auto-sizing"])
def test_whatever_a_chain_has_acts_as_it_would_alone(method: str) -> None:
    those = [attached(odd(*widths), (2, 8, 6), method, 1e-3) for widths in ((3, 4), (5, 2), (3, 4))]
    same_alone(those, batches((2, 8, 6), 5, k=3))


def test_masks_are_the_ones_that_a_member_draws_alone() -> None:
    module = [nn.Sequential(nn.Linear(6, width), nn.Dropout(0.5), nn.Linear(width, 2)) for width in (7, 4)]
    stack = stacked([attached(each, (6,), "fixed", None) for each in module], generators=generators(2))
    x = torch.ones(2, 3, 7)
    x[1, :, 4:] = 0
    mask = stack._dropped(x, 0.3, stack._layers[0])
    for at, width in enumerate((7, 4)):
        torch.random.default_generator.set_state(generators(2)[at].get_state())
        assert torch.equal(mask[at, :, :width], F.dropout(torch.ones(3, width), 0.3))
        assert stack.generators[at].get_state().equal(torch.get_rng_state())
    assert not mask[1, :, 4:].any()
    assert not stack._dropped(x, 1.0, stack._layers[0]).any()


def test_members_are_evaluated_on_one_batch_or_one_each() -> None:
    for network in ("mlp", "das-conv"):
        those = members(network, "shrinknets")
        stack = stacked(those, generators=generators())
        x = torch.randn(5, *stacks.SHAPES[network])
        with pytest.raises(InputError, match="a batch for each of its members"):
            stack(x)
        stack.training = False
        with pytest.raises(InputError, match="a batch for each of its members"):
            stack(x[0])
        each = x.expand(4, *x.shape)
        for at, (net, _) in enumerate(those):
            net.module.eval()
            assert torch.allclose(stack(x)[at], net(x), atol=1e-6)
            assert torch.allclose(stack(each)[at], net(x), atol=1e-6)


@pytest.mark.parametrize("network", ["mlp", "lenet", "das-conv"])
@pytest.mark.parametrize("method", ["shrinknets", "auto-sizing", "fixed-l2"])
def test_a_member_that_is_not_a_number_leaves_the_others_as_they_are(network: str, method: str) -> None:
    data = batches(stacks.SHAPES[network], 4)
    sound = members(network, method)
    broken = twins(sound)
    for at, those in enumerate((sound, broken)):
        stack = stacked(those, generators=generators(), clip=1.0)
        train(stack, data[:1])
        if at:
            data[1][0][1] = math.nan
        train(stack, data[1:])
        stack.write_back()
    for at in (0, 2, 3):
        pairs = zip(state_of(sound[at]).values(), state_of(broken[at]).values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    assert not torch.isfinite(broken[1][0].module[-1].weight).any()


def test_losses_and_hits_are_counted_for_each_member() -> None:
    those = members("mlp", "fixed")
    x, y = batches(stacks.SHAPES["mlp"], 1)[0]
    stack = stacked(those)
    outputs = [net(x[at]) for at, (net, _) in enumerate(those)]
    wanted = torch.stack([F.cross_entropy(each, own) for each, own in zip(outputs, y, strict=True)])
    stack.begin_step()
    stack.step(x, y)
    assert torch.allclose(stack.total.float() / stacks.BATCH, wanted)
    assert stack.hits.tolist() == [int((each.argmax(1) == own).sum()) for each, own in zip(outputs, y, strict=True)]
    stack.write_back()
    stack.refresh()
    assert not stack.total.any()
    assert not stack.hits.any()


# Removal --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("exact")
def test_units_go_from_members_of_a_stack_when_they_would_alone() -> None:
    alone, together = (members("lenet", "shrinknets", own=True, **CLOSED) for _ in range(2))
    data = batches(stacks.SHAPES["lenet"], 16)
    stack, resized = stacked(together), 0
    for x, y in data:
        for at, member in enumerate(alone):
            step_alone(member, x[at], y[at])
        train(stack, [(x, y)])
        due = stack.due()
        if due:
            stack.write_back()
            for at in due:
                net = together[at][0]
                net.method.remove(net)
            stack = stacked(together)
            resized += 1
        assert [net.widths for net, _ in together] == [net.widths for net, _ in alone]
    stack.write_back()
    assert resized > 1
    assert difference(alone, together) < 1e-9
    assert len({tuple(net.widths.values()) for net, _ in together}) > 2


def test_padding_is_no_closed_gate() -> None:
    stack = stacked(members("mlp", "shrinknets", check_every=1))
    stack.begin_step()
    assert stack.due() == []
    with torch.no_grad():
        next(iter(stack.gates.by_group.values())).theta[2, 0] = 0  # type: ignore[union-attr]
    stack.begin_step()
    assert stack.due() == [2]


def test_a_look_is_answered_a_fixed_number_of_steps_later() -> None:
    looks = Looks(delay=2)
    looks.ask(4, torch.tensor([1]))
    looks.ask(5, torch.tensor([2]))
    answers = [looks.answer(step) for step in (4, 5, 6, 7)]
    assert [answer if answer is None else answer.tolist() for answer in answers] == [None, None, [1], None]
    looks.ask(8, torch.tensor([3]))
    looks.forget()
    assert looks.answer(20) is None
    at_once = Looks()
    at_once.ask(1, torch.tensor([5]))
    assert at_once.answer(1) is not None


def test_a_network_on_its_own_also_removes_as_many_steps_later() -> None:
    first_removal = []
    for delay in (0, 3):
        module = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 2))
        member = attached(module, (3,), "shrinknets", 1e-1, **CLOSED)
        member[0].looks = Looks(delay)
        for at in range(1, 13):
            step_alone(member, torch.randn(6, 3), torch.tensor([0, 1] * 3))
            if member[0].resizes:
                first_removal.append(at)
                break
    assert first_removal == [4, 7]


def test_a_look_on_the_way_is_forgotten_by_resizes_and_new_epochs() -> None:
    net, _ = small_member("shrinknets")
    for change in (net.before_epoch, lambda: net.remove("0", [0])):
        net.looks = Looks(delay=1)
        net.looks.ask(0, torch.tensor(1))
        change()
        assert net.looks.answer(1) is None
    stack = stacked([small_member("shrinknets")])
    stack.looks = Looks(delay=1)
    stack.looks.ask(0, torch.tensor(1))
    stack.refresh()
    assert stack.looks.answer(1) is None


# What a stack takes and refuses ---------------------------------------------------------------------------------------


def test_an_epoch_begins_with_the_members_knobs_and_rates() -> None:
    those = members("mlp", "shrinknets")
    stack = stacked(those)
    for net, optimizer in those:
        net.knob *= 2
        net.before_epoch()
        optimizer.param_groups[0] |= {"lr": 0.5, "betas": (0.5, 0.6)}
    stack.refresh()
    assert stack.knob.tolist() == pytest.approx([2e-4, 2e-3, 2e-2, 2e-1])
    assert stack.epoch == 2
    assert [group["lr"] for group in stack.optimizer.param_groups] == [0.5, 0.1]
    assert [group["betas"] for group in stack.optimizer.param_groups] == [(0.5, 0.6), (0.9, 0.999)]


def test_some_members_are_written_back_and_none_that_was_resized() -> None:
    those = members("mlp", "fixed", own=True)
    stack, before = stacked(those), twins(those)
    train(stack, batches(stacks.SHAPES["mlp"], 2))
    stack.write_back([1])
    assert difference(those[:1] + those[2:], before[:1] + before[2:]) == 0
    assert [net.steps for net, _ in those] == [0, 2, 0, 0]
    assert state_of(those[1]).keys() > state_of(before[1]).keys()
    those[2][0].remove("dense1", [0])
    with pytest.raises(RuntimeError, match="member 2 was resized"):
        stack.write_back()


@pytest.mark.parametrize("network", ["mlp", "das-mlp", "lenet", "das-conv"])
def test_chains_are_read(network: str) -> None:
    shape = stacks.SHAPES[network]
    pieces = chain_of(networks.build(network, shape, 3, stacks.WIDTHS[network][0]))
    assert pieces is not None
    assert [piece.path for piece in pieces if isinstance(piece.module, (nn.Linear, nn.Conv2d))][-1] == "out"
    assert chain_of(members(network, "shrinknets")[0][0].module) is not None


def hooked() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    module[1].register_forward_hook(lambda module, args, output: output + 1)
    return module


def tied() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(2, 2),
        nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)),
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(2), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.MaxPool2d(2, return_indices=True), nn.Flatten(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(2, 4), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv2d(2, 4, 1)),
        nn.Sequential(nn.Linear(2, 3), nn.LSTM(3, 2)),
        nn.Sequential(),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))),
        hooked(),
        tied(),
    ],
)
def test_what_is_no_chain_is_not_read_as_one(module: nn.Module) -> None:
    assert chain_of(module) is None


def small_member(
    method: str = "fixed",
    maker: Maker = stacks.fused_adam,
    *,
    width: int = 3,
    inputs: int = 2,
    outputs: int = 2,
    bias: bool = True,
) -> Member:
    module = nn.Sequential(nn.Linear(inputs, width, bias), nn.ReLU(), nn.Linear(width, outputs))
    return attached(module, (inputs,), method, 1e-3 if method in ("shrinknets", "group-sparsity") else None, maker)


def test_networks_that_differ_in_more_than_widths_are_refused() -> None:
    plain = small_member()
    for other, said in (
        (small_member(bias=False), "differ in their widths alone"),
        (small_member(outputs=3), "as many outputs"),
        (small_member(inputs=3), "the same inputs"),
        (small_member("shrinknets"), "one method"),
        (small_member(maker=sgd), "got Adam, SGD"),
    ):
        with pytest.raises(InputError, match=said):
            stacked([plain, other])
    stacked([plain, small_member(width=5)])


def test_methods_optimisers_and_networks_that_do_not_stack_are_refused() -> None:
    sigmoid = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 2))
    dropping = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    for member, said in (
        (small_member("group-sparsity"), "under group-sparsity cannot be stacked"),
        (small_member("dropout"), "under dropout cannot be stacked"),
        (small_member(maker=Adagrad), "got Adagrad"),
        (attached(sigmoid, (2,), "fixed", None), "only chains"),
        (attached(dropping, (2,), "fixed", None), "a generator for each member"),
    ):
        with pytest.raises(InputError, match=said):
            stacked([member])


def test_members_that_are_not_at_the_same_place_are_refused() -> None:
    plain, gated = small_member(), small_member("shrinknets")

    def refused(those: list[Member], said: str) -> None:
        with pytest.raises(InputError, match=said):
            stacked(those)

    other = twins([gated])[0]
    other[0].method.share = 0.5  # type: ignore[attr-defined]
    refused([gated, other], "the same settings")
    ahead = twins([plain])[0]
    batch = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    step_alone(ahead, *batch)
    refused([plain, ahead], "no state yet")
    further = twins([ahead])[0]
    stacked([ahead, further])
    step_alone(further, *batch)
    refused([ahead, further], "counts differ")
    faster, frozen, later = (twins([plain])[0] for _ in range(3))
    faster[1].param_groups[0]["lr"] = 1.0
    refused([plain, faster], "one lr, got")
    frozen[0].module[0].weight.requires_grad_(False)
    refused([plain, frozen], "'0.weight' must be trained in all")
    later[0].epoch = 3
    refused([plain, later], "the same step")
    refused([(plain[0], later[1])], "must train the parameters of their members")
    with pytest.raises(InputError, match="an optimiser for each"):
        Stack([plain[0]], [])


# Which are stacked ----------------------------------------------------------------------------------------------------


def parameters_of(widths: Any) -> int:
    return 10 * widths["a"] + widths["a"] * widths["b"]


WIDTHS = [{"a": 10, "b": 10}, {"a": 100, "b": 50}, {"a": 11, "b": 9}, {"a": 10, "b": 10}, {"a": 90, "b": 60}]


def test_who_is_stacked_with_whom_follows_from_what_one_more_stack_costs() -> None:
    assert grouped(WIDTHS, parameters_of, 0) == [[0, 3], [2], [1], [4]]
    assert grouped(WIDTHS, parameters_of, 100) == [[0, 2, 3], [1], [4]]
    assert grouped(WIDTHS, parameters_of, 3_000) == [[0, 2, 3], [1, 4]]
    assert grouped(WIDTHS, parameters_of, 1e6) == [[0, 1, 2, 3, 4]]
    assert grouped([], parameters_of, 0) == []
    assert grouped([{"a": 1}, {"a": 2}], lambda widths: 5, 0) == [[0], [1]]


# Steps on resident data -----------------------------------------------------------------------------------------------


def epochs_of(device: str, recorded: bool, method: str, network: str) -> tuple[list[Tensor], list[Member]]:
    """Two epochs of two stacks, the last batch of each not full: the losses of each step, and the members."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(50, *stacks.SHAPES[network], generator=draw).to(device)
    y = torch.randint(stacks.CLASSES, (50,), generator=draw).to(device)
    those = members(network, method)
    for at, (net, optimizer) in enumerate(those):
        net.module.to(device)
        optimizer = type(optimizer)(net.param_groups(1e-2, net.method.weight_decay), fused=True)
        net.optimizers = [optimizer]
        net.steps_per_epoch = 7
        those[at] = net, optimizer
    draws = [torch.Generator(device).manual_seed(at) for at in range(4)]
    two = [stacked(those[:3], generators=draws[:3]), stacked(those[3:], generators=draws[3:])]
    steps, losses = Recorded(two, x, y, 8), []
    for _ in range(2):
        for stack in two:
            stack.write_back()
        for net, _ in those:
            net.before_epoch() if method != "auto-sizing" else None
        for stack in two:
            stack.refresh()
        orders = [torch.stack([torch.randperm(50, generator=draw) for _ in s.nets]).to(device) for s in two]
        steps.begin(orders)
        for at in range(7):
            if recorded:
                steps.step()
            else:
                for stack, order in zip(two, orders, strict=True):
                    rows = order[:, at * 8 : at * 8 + 8]
                    stack.begin_step()
                    stack.step(x[rows], y[rows])
            losses.append(torch.cat([stack.total for stack in two]).clone())
    for stack in two:
        stack.write_back()
    return losses, those


@pytest.mark.parametrize("method", ["shrinknets", "auto-sizing", "fixed-l2"])
def test_steps_on_resident_data_take_the_samples_of_each_members_order(method: str) -> None:
    wanted, left = epochs_of("cpu", False, method, "mlp")
    found, right = epochs_of("cpu", True, method, "mlp")
    assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True))
    assert difference(left, right) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ["mlp", "lenet", "das-conv"])
def test_recorded_steps_are_the_ones_taken_one_by_one(network: str, method: str) -> None:
    wanted, left = epochs_of("cuda", False, method, network)
    found, right = epochs_of("cuda", True, method, network)
    assert torch.allclose(torch.stack(wanted), torch.stack(found), rtol=1e-4)
    assert difference(left, right) < 1e-3
