"""How much memory training takes, each time in a process of its own.

python -m tests.benchmarks.memory removes|keeps      the most bytes that were resident
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import sizer
from sizer.methods.shrinknets import ShrinkNets
from studies import sweep
from studies.plan import Plan
from tests.benchmarks.images import fashion, mlp
from tests.benchmarks.row import Side
from tests.benchmarks.sizing import STRENGTH, WIDE, NeverRemoves
from tests.studies.sweeps import Seen, rows

EPOCHS = 2


def with_removal() -> tuple[Side, ...]:
    """The most resident bytes, from the beginning of ``fit`` on, of a process that trains from 10,000 units and removes
    some, against one that never removes. Torch and the data are counted on both sides."""

    def resident(way: str) -> float:
        command = [sys.executable, "-m", "tests.benchmarks.memory", way]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    return lambda: resident("removes"), lambda: resident("keeps")


def worker() -> tuple[Side, ...]:
    """The most resident bytes of a worker that trains 3072-10000-10 on CIFAR-10 by ShrinkNets, in a sweep of one trial.

    Whatever was resident counts (VmHWM, as a trial's history has it): torch and Ray, and the data, which lies in Ray's
    object store once for all workers of a node. What is the worker's own alone (RssAnon) would be a third less; but a
    machine with one worker must have it all.
    """
    plan = Plan(name="memory", data="cifar10", network="mlp", widths=[WIDE], epochs=1, trials=1,
                arms={"shrinknets": {"lambda": {"low": 1e-5, "high": 1e-2}, "enqueue": [STRENGTH]}})  # fmt: skip

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.db"
            sweep.run(plan, path, watch=Seen(), cpus_per_trial=2)
            ((most,),) = rows(path, "select max(peak_memory) from sizer_history")
        return float(most)

    return (ours,)


def main(way: str) -> None:
    data = fashion(others=1_000)
    method = ShrinkNets(STRENGTH) if way == "removes" else NeverRemoves(STRENGTH)
    print(sizer.fit(mlp(data, WIDE), data, method, epochs=EPOCHS).history[-1].peak_memory)


if __name__ == "__main__":
    main(sys.argv[1])
