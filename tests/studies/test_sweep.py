"""A sweep through Ray: from a plan to a database that is whole, twice without harm, quietly, and cheaply a trial."""

from __future__ import annotations

import itertools
import json
import os
import socket
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

import sizer
from sizer import networks
from sizer.checkpoint import load_tensors
from sizer.errors import InputError
from studies import cluster, luggage, query, selection
from studies.sweep import run
from tests.studies.driven import Sweep, sweep
from tests.studies.sweeps import ARMS, Seen, check_whole, rows, small_plan

pytestmark = pytest.mark.alone

THREE = {
    **ARMS,
    "auto-sizing": {"settings": {"min_growth": 2}},
    "fixed-l2": {"widths": {"low": 4, "high": 16}, "weight_decay": {"low": 1e-5, "high": 1e-2}},
}
PLAN: dict[str, Any] = {"arms": THREE, "trials": 3}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep]:
    """A database after one sweep of four arms, in a process with a home that is empty."""
    folder = tmp_path_factory.mktemp("swept")
    # A long temporary folder must not make Ray's socket paths too long.
    places = {"HOME": folder / "home", "TMPDIR": folder / ("x" * 100)}
    for place in places.values():
        place.mkdir()
    with sweep(folder / "x.db", environment={key: str(place) for key, place in places.items()}, **PLAN) as ran:
        assert ran.end() == (0, "")
    return folder / "x.db", ran


def test_every_trial_of_every_arm_is_complete(done: tuple[Path, Sweep]) -> None:
    path, ran = done
    check_whole(path, small_plan(**PLAN))
    assert ran.of("done") == [["0", ""]]
    assert ran.of("begin") == [[json.dumps({arm: [0, 3] for arm in THREE})]]
    assert len(ran.of("epoch")) == 36
    assert sorted(ran.of("trial")) == sorted(
        [arm, str(k), "COMPLETE", "complete", ""] for arm in THREE for k in range(3)
    )
    assert ran.of("note") == []


def test_nothing_is_left_in_the_home_nor_running(done: tuple[Path, Sweep]) -> None:
    assert list((done[0].parent / "home").rglob("*")) == []
    group = done[1].process.pid
    deadline = time.monotonic() + 10
    while (left := [pid for pid in pids() if os.getpgid(pid) == group]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def test_again_it_is_all_done_and_nothing_changes(done: tuple[Path, Sweep]) -> None:
    path = done[0]
    before = path.read_bytes()
    seen = Seen()
    began = time.monotonic()
    outcome = run(small_plan(**PLAN), path, watch=seen)
    assert time.monotonic() - began < 1
    assert outcome.already_done
    assert seen.lines == []
    assert path.read_bytes() == before


def test_the_weights_kept_are_those_of_the_epoch_they_stand_for(done: tuple[Path, Sweep], tmp_path: Path) -> None:
    path = done[0]
    data = sizer.datasets.load("digits", validation=0.2, seed=0)
    for arm in THREE:
        row = selection.best(path, "small", arm)
        architecture, weights = selection.architecture(path, "small", row)
        sizer.save(tmp_path / arm, architecture, load_tensors(weights)[0])
        net = sizer.load(tmp_path / arm)
        net.eval()
        with torch.no_grad():
            right = (net(data.x_val).argmax(1) == data.y_val).float().mean().item()
        assert right == pytest.approx(row["val_accuracy"], abs=1e-6)
        assert sum(parameter.numel() for parameter in net.parameters()) == row["parameters"]
        assert tuple(row["widths"]) == networks.layers("mlp", 1)


def test_a_trial_is_the_same_whoever_runs_it(done: tuple[Path, Sweep]) -> None:
    """The worker's run equals, to the bit, sizer.fit called here with the same seed and knob."""
    frame = query.trials(done[0], "small")
    row = frame[(frame["arm"] == "shrinknets") & (frame["number"] == 1)].iloc[0]
    data = sizer.datasets.load("digits", validation=0.2, seed=0)
    torch.manual_seed(int(row["seed"]))
    module = networks.build("mlp", data.input_shape, data.outputs, [12])
    method = sizer.methods.create("shrinknets", float(row["knob"]))
    here = sizer.fit(module, data, method, epochs=3, batch_size=256, seed=int(row["seed"])).history
    there = query.history(done[0], "small").query(f"trial_id == {row['trial_id']}")
    for column in ("train_loss", "val_loss", "test_accuracy", "parameters", "training_flops"):
        assert [getattr(epoch, column) for epoch in here] == list(there[column])


class Clock(Seen):
    """Keeps when trials ended, too."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def trial(self, *words: Any) -> None:
        super().trial(*words)
        self.ends.append(time.monotonic())


@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_more_trials_are_more_of_the_same_study(tmp_path: Path) -> None:
    plan: dict[str, Any] = {"epochs": 1, "batch_size": 1024, "arms": {"fixed": ARMS["fixed"]}}
    run(small_plan(trials=1, **plan), tmp_path / "x.db", watch=Seen())
    clock = Clock()
    outcome = run(small_plan(trials=12, **plan), tmp_path / "x.db", watch=clock)
    check_whole(tmp_path / "x.db", small_plan(trials=12, **plan))
    assert clock.of("begin") == [('{"fixed": [1, 12]}',)]
    assert outcome.ended == {"fixed": {"complete": 11}}
    # Warm workers: a trial of one epoch of a tiny network, its training included, on a machine that others use.
    assert statistics.median(later - sooner for sooner, later in itertools.pairwise(clock.ends)) < 0.6


@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_stages_and_folds_run_in_order_and_give_the_arms_what_they_found(tmp_path: Path) -> None:
    arms = {
        "dynamic": {"method": "auto-sizing", "enqueue": [1e-4], "settings": {"min_growth": 2},
                    "learning_rate": [1e-3, 4e-4]},
        "static": {"method": "fixed", "widths": {"mean_of": "dynamic"}},
        "l21": {"method": "auto-sizing", "match": "dynamic", "settings": {"min_growth": 2, "penalty": "l2,1"}},
        "darn": {"method": "activity", "enqueue": [0.5], "settings": {"pretrain": 1, "first": 0.8, "last": 0.1}},
    }  # fmt: skip
    plan = small_plan(trials=1, folds=2, samples=600, epochs=4, arms=arms)
    outcome = run(plan, tmp_path / "x.db", watch=Seen())
    assert outcome.left == 0
    check_whole(tmp_path / "x.db", plan)
    trials = query.trials(tmp_path / "x.db", "small")
    assert set(trials["status"]) == {"complete"}
    assert [widths["dense1"] for widths in trials[trials["arm"] == "static"]["widths"]] == [
        round(statistics.mean(widths["dense1"] for widths in trials[trials["arm"] == "dynamic"]["widths"]))
    ] * 2
    rates = trials[trials["arm"] == "dynamic.learning-rate"]
    best = rates.loc[rates["val_accuracy"].idxmax(), "learning_rate"]
    assert set(trials[trials["arm"] == "dynamic"]["learning_rate"]) == {best}
    assert all(notes["activity"]["rounds"] for notes in trials[trials["arm"] == "darn"]["notes"])
    assert run(plan, tmp_path / "x.db", watch=Seen()).already_done


@pytest.mark.usefixtures("ray_here")
def test_a_loss_that_is_no_number_is_recorded_and_the_sweep_goes_on(tmp_path: Path) -> None:
    arms = {"fixed": {**ARMS["fixed"], "learning_rate": 1e30}, "shrinknets": ARMS["shrinknets"]}
    seen = Seen()
    outcome = run(small_plan(trials=1, arms=arms), tmp_path / "x.db", watch=seen)
    assert outcome.ended == {"fixed": {"diverged": 1}, "shrinknets": {"complete": 1}}
    found = {line[0]: line[2:] for line in seen.of("trial")}
    assert found["fixed"][:2] == ("FAIL", "diverged")
    assert "the" in found["fixed"][2]
    assert found["shrinknets"] == ("COMPLETE", "complete", "")
    assert run(small_plan(trials=1, arms=arms), tmp_path / "x.db", watch=Seen()).already_done


def test_an_address_that_does_not_answer_is_one_line_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as free, socket.create_server(("127.0.0.1", 0)) as mute:
        free.bind(("127.0.0.1", 0))
        closed, silent = (f"127.0.0.1:{end.getsockname()[1]}" for end in (free, mute))
        free.close()
        for given in (closed, silent, "somewhere"):
            began = time.monotonic()
            with pytest.raises(InputError, match=f"no Ray at {given}|{given} is no Ray address") as caught:
                run(small_plan(), tmp_path / "x.db", watch=Seen(), address=given)
            assert "\n" not in str(caught.value)
            assert time.monotonic() - began < 8
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"cpus_per_trial": 0}, "cpus per trial must be positive, got 0"),
        ({"gpus_per_trial": 1.5}, "gpus per trial must be a share from 0 to 1, or a whole number, got 1.5"),
        ({"concurrency": 0}, "concurrency must be 1 or more, got 0"),
        ({"timeout": -1}, "timeout must be a positive number of seconds, got -1"),
    ],
)
def test_shares_that_make_no_sense_are_refused(tmp_path: Path, shares: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run(small_plan(), tmp_path / "x.db", watch=Seen(), **shares)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("ray_here")
def test_a_trial_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no machine has 999 CPUs and 0 GPUs for a trial"):
        run(small_plan(), tmp_path / "x.db", watch=Seen(), cpus_per_trial=999)
    assert rows(tmp_path / "x.db", "select * from trials") == []


def pids() -> list[int]:
    """All processes there are."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def test_data_lies_once_on_a_machine_in_memory_that_its_workers_share(ray_here: None) -> None:
    plan = small_plan()
    whole = plan.read()
    carried = cluster.carried(luggage.pack(plan, whole, plan.part(whole)))

    def where(packed: luggage.Luggage) -> tuple[int, str]:
        at, maps = luggage.data_of(packed, 0).x_train.data_ptr(), Path("/proc/self/maps").read_text().splitlines()
        ranges = ((line, [int(end, 16) for end in line.split()[0].split("-")]) for line in maps)
        return os.getpid(), next(line for line, (first, last) in ranges if first <= at < last)

    places = dict(ray.get([ray.remote(where).remote(carried) for _ in range(2)]))
    assert os.getpid() not in places
    assert all("plasma" in line for line in places.values())
