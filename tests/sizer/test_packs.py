"""Packs: each member comes to the end that it would have come to alone, whatever becomes of the others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sizer
from sizer import lanes, networks, packs
from sizer.batches import parts_of
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.lanes import Seat, stacks_of
from sizer.methods import create, method_class
from sizer.net import Net
from sizer.packs import Member
from sizer.run import Run
from sizer.stack import Stack
from sizer.training import made

EPOCHS, BATCH = 3, 32
WIDTHS = {"mlp": [24, 12], "lenet": [4, 6, 24], "das-conv": [6, 6, 6, 6, 12]}
METHODS: dict[str, dict[str, Any]] = {
    "shrinknets": {"check_every": 2},
    "shrinknets-paper": {"rule": "subgradient", "start": "ones"},
    "auto-sizing": {"min_growth": 3, "threshold": 0.02},
    "fixed": {},
    "fixed-l2": {},
}


@pytest.fixture(scope="module")
def data() -> Data:
    """129 images of 16 x 16 whose class can be learned: a last batch of one sample is left out."""
    torch.manual_seed(5)
    x, y = torch.randn(193, 1, 16, 16), torch.randint(4, (193,))
    x[torch.arange(193), 0, y] += 2.0
    parts = {"train": slice(0, 129), "val": slice(129, 161), "test": slice(161, 193)}
    tensors = {f"{name}_{part}": value[rows] for part, rows in parts.items() for name, value in (("x", x), ("y", y))}
    return Data(name="rows", task="classification", input_shape=(1, 16, 16), outputs=4, preprocessing={}, **tensors)


def members(network: str, method: str, data: Data, **more: Any) -> list[Member]:
    """Four of them, of knobs over four decades (one collapses), other widths where the method does not size."""
    found = []
    for seed, knob in enumerate((1e-4, 1e-2, 1e-1, 10.0)):
        name = method.removesuffix("-paper")
        own = create(name, None if not method_class(name).sizes else knob, **METHODS[method])
        widths = [max(2, width - seed * (not own.sizes)) for width in WIDTHS[network]]
        found.append(
            Member(builder(network, widths, seed, data), own, seed, 1e-2, 1e-3 * seed * (not own.sizes), **more)
        )
    return found


def builder(network: str, widths: list[int], seed: int, data: Data) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(seed)
        return networks.build(network, data.input_shape, data.outputs, widths)

    return build


def alone(member: Member, data: Data, epochs: int = EPOCHS, folder: Path | None = None) -> Run:
    return sizer.fit(
        member.build(), data, member.method, epochs=epochs, batch_size=BATCH, learning_rate=member.learning_rate,
        seed=member.seed, weight_decay=member.weight_decay, folder=folder,
    )  # fmt: skip


def same(one: Run | Exception, other: Run | Exception) -> bool:
    """Whether two runs are equal to the bit, in history, weights and end."""
    assert isinstance(one, Run), one
    assert isinstance(other, Run), other
    told = [[{**e.to_dict(), "seconds": 0, "peak_memory": 0} for e in run.history] for run in (one, other)]
    mine, theirs = one.net.module.state_dict(), other.net.module.state_dict()
    return (
        repr(told[0]) == repr(told[1])
        and (one.status, one.reason) == (other.status, other.reason)
        and mine.keys() == theirs.keys()
        and all(torch.equal(mine[name], theirs[name]) or mine[name].isnan().any() for name in mine)
    )


@pytest.fixture(scope="module")
def by_themselves(data: Data) -> Callable[[str, str], list[Run]]:
    """The members' runs without a pack; each is trained once."""
    return cache(lambda network, method: [alone(member, data) for member in members(network, method, data)])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", WIDTHS)
def test_a_member_is_trained_to_the_bit_as_alone(
    network: str, method: str, data: Data, by_themselves: Callable[[str, str], list[Run]]
) -> None:
    runs = packs.fit(members(network, method, data), data, epochs=EPOCHS, batch_size=BATCH, stacked=False)
    singles = by_themselves(network, method)
    assert [same(*pair) for pair in zip(runs, singles, strict=True)] == [True] * 4
    if method == "shrinknets":
        assert singles[-1].status == "collapsed"
        assert singles[1].history[-1].widths != singles[0].history[-1].widths


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", WIDTHS)
def test_a_stacked_member_is_trained_as_alone_but_for_the_last_digits(
    network: str, method: str, data: Data, by_themselves: Callable[[str, str], list[Run]]
) -> None:
    runs = packs.fit(members(network, method, data), data, epochs=EPOCHS, batch_size=BATCH, stacked=True)
    for run, single in zip(runs, by_themselves(network, method), strict=True):
        assert isinstance(run, Run), run
        assert (run.status, len(run.history)) == (single.status, len(single.history))
        first, other = run.history[0], single.history[0]
        assert first.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert first.val_loss == pytest.approx(other.val_loss, rel=1e-4)
        assert [epoch.training_flops for epoch in run.history[:1]] == [other.training_flops]
        for layer, width in single.history[-1].widths.items():
            assert run.history[-1].widths[layer] == pytest.approx(width, rel=0.05, abs=2)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_all_optimisers_train_packs(optimizer: str, data: Data) -> None:
    chosen = members("mlp", "shrinknets", data)[:2]
    runs = packs.fit(chosen, data, epochs=2, batch_size=BATCH, optimizer=optimizer, stacked=False)
    for run, member in zip(runs, members("mlp", "shrinknets", data), strict=False):
        single = sizer.fit(member.build(), data, member.method, epochs=2, batch_size=BATCH, learning_rate=1e-2,
                           optimizer=optimizer, seed=member.seed)  # fmt: skip
        assert same(run, single)


def test_a_member_that_diverges_or_fails_harms_no_other(data: Data) -> None:
    class Fails(nn.Sequential):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Fails.calls += self.training
            if Fails.calls > 6:
                raise ValueError("out of luck")
            result: Tensor = super().forward(x)
            return result

    good = members("mlp", "shrinknets", data)
    wild = Member(good[0].build, create("shrinknets", 1e-3), 1, learning_rate=1e30)
    weak = Member(lambda: Fails(nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 4)), create("fixed"))

    def unbuilt() -> nn.Module:
        raise InputError("there is none")

    ends: list[tuple[int, str]] = []

    def told(at: int) -> Callable[[Run | Exception], None]:
        return lambda end: ends.append((at, end.status if isinstance(end, Run) else str(end)))

    some = [good[0], wild, weak, Member(unbuilt, create("fixed")), good[3]]
    some = [Member(m.build, m.method, m.seed, m.learning_rate, on_end=told(at)) for at, m in enumerate(some)]
    runs = packs.fit(some, data, epochs=EPOCHS, batch_size=BATCH, stacked=False)
    assert same(runs[0], alone(good[0], data))
    assert same(runs[4], alone(good[3], data))
    assert sorted(ends) == [
        (0, "complete"),
        (1, "diverged"),
        (2, "out of luck"),
        (3, "there is none"),
        (4, "collapsed"),
    ]
    assert isinstance(runs[2], ValueError)


def test_what_is_kept_of_a_pack_goes_on_in_another_or_alone(data: Data, tmp_path: Path) -> None:
    class Cut(BaseException):
        pass

    def cut() -> list[Member]:
        raise Cut

    def kept() -> list[Member]:
        return [
            Member(m.build, m.method, m.seed, m.learning_rate, folder=tmp_path / str(m.seed))
            for m in members("das-conv", "auto-sizing", data)[:3]
        ]

    with pytest.raises(Cut):
        packs.fit(kept(), data, epochs=EPOCHS, batch_size=BATCH, after_epoch=cut)
    runs = packs.fit(kept()[:2], data, epochs=EPOCHS, batch_size=BATCH)
    runs.append(alone(kept()[2], data, folder=tmp_path / "2"))
    for run, member in zip(runs, members("das-conv", "auto-sizing", data), strict=False):
        assert same(run, alone(member, data))


@pytest.mark.parametrize("part", ["y_train", "y_val"])
def test_labels_that_do_not_count_count_in_no_pack(part: str, data: Data) -> None:
    labels = getattr(data, part).clone()
    labels[:7] = -100
    left_out = replace(data, **{part: labels})
    some = members("mlp", "shrinknets", data)[:2]
    runs = packs.fit(some, left_out, epochs=2, batch_size=BATCH)
    assert [same(run, alone(member, left_out, 2)) for run, member in zip(runs, some, strict=True)] == [True] * 2


def test_members_leave_when_they_are_told_to(data: Data) -> None:
    some = members("mlp", "fixed", data)
    rounds = 0

    def leaving() -> list[Member]:
        nonlocal rounds
        rounds += 1
        return [some[1]] if rounds == 2 else []

    runs = packs.fit(some, data, epochs=EPOCHS, batch_size=BATCH, after_epoch=leaving)
    assert [len(run.history) for run in runs if isinstance(run, Run)] == [3, 2, 3, 3]


def test_seconds_are_shared_and_random_states_left_alone(data: Data) -> None:
    torch.manual_seed(77)
    before = torch.get_rng_state()
    runs = packs.fit(members("mlp", "shrinknets", data), data, epochs=1, batch_size=BATCH)
    assert torch.equal(torch.get_rng_state(), before)
    seconds = [run.history[-1].seconds for run in runs if isinstance(run, Run)]
    assert max(seconds) < 3 * min(seconds)


@pytest.mark.soak
def test_a_pack_that_does_not_fit_in_memory_halves_itself(tmp_path: Path) -> None:
    # Each of six networks takes about 66 MB with its gradients and Adam's two moments; only three fit at once.
    script = """
import gc
import resource
import torch
from sizer import lanes, networks, packs
from sizer.batches import parts_of
from sizer.datasets import Data
from sizer.methods import create

torch.set_num_threads(1)
x, y = torch.randn(64, 4096), torch.randint(2, (64,))
data = Data("noise", "classification", x, y, x, y, x, y, (4096,), 2, {})

def member(seed):
    def build():
        torch.manual_seed(seed)
        return networks.build("mlp", (4096,), 2, [1000])
    return packs.Member(build, create("fixed"), seed, on_epoch=lambda e: print(seed, e.epoch))

packs.fit([member(9)], data, epochs=1, batch_size=32)
gc.collect()
held = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 320 * 2**20,) * 2)
runs = packs.fit([member(seed) for seed in range(6)], data, epochs=2, batch_size=32, stacked=False, note=print)
print([type(run).__name__ for run in runs], [len(run.history) for run in runs])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "a pack of 6 does not fit in memory: it goes on as packs of 3" in done.stdout
    assert f"{['Run'] * 6} {[2] * 6}" in done.stdout


def test_a_method_without_packs_says_which_have_them(data: Data) -> None:
    member = Member(members("mlp", "fixed", data)[0].build, create("group-sparsity", 1e-3))
    with pytest.raises(InputError, match="no packs: auto-sizing, fixed, fixed-l2, shrinknets have"):
        packs.fit([member], data, epochs=1)


def test_the_best_size_is_1_where_steps_are_long_or_few(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def member(seed: int) -> Member:
        return Member(builder("mlp", [8], seed, data), create("shrinknets", 1e-3), seed)

    assert packs.best_size(member, data, 16, batch_size=BATCH) in (1, 4, 16)
    assert packs.best_size(member, data, 3, batch_size=BATCH) in (1, 3)
    assert packs.best_size(member, data, 16, steps=10, batch_size=BATCH) == 1
    monkeypatch.setattr(packs, "LONG", 0.0)
    assert packs.best_size(member, data, 16, batch_size=BATCH) == 1


def test_stacks_are_made_anew_only_where_widths_have_changed(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(Stack):
        def __init__(self, nets: Sequence[Net], *more: Any) -> None:
            super().__init__(nets, *more)
            made.append(len(nets))

    monkeypatch.setattr(lanes, "Stack", Counted)
    packs.fit(members("mlp", "fixed", data), data, epochs=4, batch_size=BATCH)
    assert [count for count in made if count > 1] == [4]


def test_dense_networks_of_like_widths_are_stacked_on_a_cpu_and_convolutions_are_not(data: Data) -> None:
    def seated(network: str, *several: list[int]) -> list[Seat]:
        found = []
        for seed, widths in enumerate(several):
            member = Member(builder(network, widths, seed, data), create("fixed"), seed)
            parts = parts_of(data, torch.device("cpu"), torch.float32, BATCH)
            training = made(member.build(), parts, member.method, epochs=1, learning_rate=1e-3, optimizer="adam",
                            seed=seed, device=torch.device("cpu"))  # fmt: skip
            training.begin()
            found.append(Seat(member, training, torch.device("cpu")))
        return found

    def stacks(seats: list[Seat], wanted: bool | None = None) -> list[list[int]]:
        return [[seat.member.seed for seat in some] for some in stacks_of(seats, torch.device("cpu"), wanted)]

    dense = seated("mlp", [30, 9], [4000, 40], [20, 12], [4000, 40], [2000, 900])
    assert stacks(dense) == [[0, 2], [1, 3]]
    assert stacks(dense, True) == [[0, 2], [1, 3], [4]]
    assert stacks(dense, False) == []
    dense[2].net.epoch = 1
    assert stacks(dense) == [[1, 3]]
    maps = seated("lenet", [3, 3, 9], [3, 3, 9])
    assert stacks(maps) == []
    assert stacks(maps, True) == [[0, 1]]
