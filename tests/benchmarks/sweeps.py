"""Sweeps through Ray and the database, against plain loops over trials."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import ray
import torch

import sizer
from sizer import datasets, networks
from sizer.methods import create
from studies import cluster, sweep
from studies.plan import Plan
from tests.benchmarks.row import Side
from tests.studies.sweeps import Seen, small_plan

TRIALS = 16
WORKERS = 2
_random = random.Random(0)
KNOBS = [10 ** _random.uniform(-5, -2) for _ in range(TRIALS)]
BATCH = 128
PACKS = (1, 4, 16)
_WARMING = "BENCH_WARMING"


def trials(width: int, epochs: int, images: int) -> tuple[Side, ...]:
    """Seconds of 16 ShrinkNets trials on two workers of one CPU, against ``sizer.fit`` for one after the other here.

    Both train 784-W-10 with the same knobs and seeds, and measure validation and test images after each epoch. Ours is
    counted from the moment when the first worker takes up a trial to the last trial's end, in processes that have
    trained before, as this one has: handing trials out, files and the database count, the start of Ray does not.
    """
    plan = _plan(width, epochs, images)

    def theirs() -> float:
        data = plan.read_data()
        began = time.perf_counter()
        for seed, knob in enumerate(KNOBS):
            torch.manual_seed(seed)
            module = networks.build("mlp", data.input_shape, data.outputs, [width])
            sizer.fit(module, data, create("shrinknets", knob), epochs=epochs, batch_size=BATCH, seed=seed)
        return time.perf_counter() - began

    return partial(_sweep, plan), theirs


def packs(width: int, epochs: int, images: int) -> tuple[Side, ...]:
    """The same 16 trials, ``pack="auto"`` against packs of 1, 4 and 16."""
    plan = _plan(width, epochs, images)
    return tuple(partial(_sweep, plan, pack=pack) for pack in ("auto", *PACKS))


def _plan(width: int, epochs: int, images: int) -> Plan:
    return Plan(
        name="bench", data="fashion_mnist", network="mlp", widths=[width], epochs=epochs, trials=TRIALS,
        batch_size=BATCH, samples=images * 5 // 4,
        arms={"shrinknets": {"lambda": {"low": 1e-5, "high": 1e-2}, "enqueue": KNOBS}},
    )  # fmt: skip


def _sweep(plan: Plan, **options: Any) -> float:
    """Seconds from the moment when the first worker takes up a trial to the last trial's end."""
    with tempfile.TemporaryDirectory() as folder, _warm_workers():
        watch = _Clock(Path(folder))
        sweep.run(plan, Path(folder) / "bench.db", watch=watch, concurrency=WORKERS, **options)
    assert len(watch.of("trial")) == TRIALS, watch.of("note")
    assert watch.begun, "the first trial was not seen"
    return watch.end - watch.begun


class _Clock(Seen):
    """Sees from a sweep's files when its first trial is taken up, and hears when its last one ends."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.begun = self.end = 0.0
        threading.Thread(target=self._look, args=(folder,), daemon=True).start()

    def _look(self, folder: Path) -> None:
        while folder.exists():
            with suppress(OSError):  # folders come and go while it looks
                if any(folder.rglob("attempt-*")):
                    break
            time.sleep(0.01)
        self.begun = time.perf_counter()

    def trial(self, arm: str, number: int, state: str, status: str, reason: str) -> None:
        super().trial(arm, number, state, status, reason)
        self.end = time.perf_counter()


@contextmanager
def _warm_workers() -> Iterator[None]:
    """A Ray whose workers have trained, all of them, before one is given anything."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"worker_process_setup_hook": f"{__name__}.warm", "env_vars": {_WARMING: folder}}
        init = partial(ray.init, runtime_env=environment)
        with mock.patch.object(ray, "init", init), cluster.connected(None, 1, 0, None, memory=2**28):
            yield


def warm() -> None:
    """Imports what a training needs, trains, and waits until the workers that began to do so meanwhile have done it."""
    folder = Path(os.environ[_WARMING])
    (folder / f"begun-{os.getpid()}").touch()
    data = datasets.load("digits")
    module = networks.build("mlp", data.input_shape, data.outputs, [100])
    torch.set_num_threads(1)
    sizer.fit(module, data, create("shrinknets", 1e-3), epochs=3)
    (folder / f"done-{os.getpid()}").touch()
    while len([*folder.glob("done-*")]) < len([*folder.glob("begun-*")]):
        time.sleep(0.01)


def orchestration(count: int) -> tuple[Side, ...]:
    """Seconds a trial, the first two left out so that workers are warm, against plain Optuna in this process.

    One worker, one epoch of a tiny network.
    """
    plan = small_plan(name="bench", widths=[8], epochs=1, trials=count, batch_size=512, arms={"shrinknets": {}})

    def spacing(study: optuna.Study) -> float:
        ends = sorted(t.datetime_complete for t in study.trials if t.datetime_complete is not None)[1:]
        return (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.db"
            sweep.run(plan, path, watch=Seen(), concurrency=1)
            return spacing(optuna.load_study(study_name="bench/shrinknets", storage=f"sqlite:///{path}"))

    def theirs() -> float:
        data = datasets.load("digits")

        def objective(trial: optuna.Trial) -> float:
            torch.manual_seed(trial.number)
            module = networks.build("mlp", data.input_shape, data.outputs, [8])
            method = create("shrinknets", trial.suggest_float("lambda", 1e-5, 1e-2, log=True))
            best = sizer.fit(module, data, method, epochs=1, batch_size=512).best
            assert best is not None
            return best.val_accuracy

        with tempfile.TemporaryDirectory() as folder:
            study = optuna.create_study(storage=f"sqlite:///{folder}/bench.db", direction="maximize")
            study.optimize(objective, n_trials=count)
            return spacing(study)

    return ours, theirs
