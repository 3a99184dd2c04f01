"""How much memory training takes, each time in a process of its own.

python -m tests.benchmarks.memory removes|keeps      the most bytes that were resident
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sizer
from sizer.methods.shrinknets import ShrinkNets
from studies import sweep
from studies.plan import Plan
from tests.benchmarks.fashion import fashion, mlp
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


def worker(peak: str) -> tuple[Side, ...]:
    """Peak bytes of the worker that trains 3072-10000-10 on CIFAR-10 by ShrinkNets, of a sweep of one trial.

    Args:
        peak: ``all``: whatever was resident (VmHWM), so the data, too, which lies in Ray's object store once for all
            workers of a node, and torch. ``own``: what is the worker's alone (RssAnon), looked at every 20 ms.
    """
    plan = Plan(name="memory", data="cifar10", network="mlp", widths=[WIDE], epochs=1, trials=1,
                arms={"shrinknets": {"lambda": {"low": 1e-5, "high": 1e-2}, "enqueue": [STRENGTH]}})  # fmt: skip

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder, _workers_own() as own:
            path = Path(folder) / "bench.db"
            sweep.run(plan, path, watch=Seen(), cpus_per_trial=2)
            ((whole,),) = rows(path, "select max(peak_memory) from sizer_history")
        return float(whole if peak == "all" else own[0])

    return (ours,)


@contextmanager
def _workers_own() -> Iterator[list[int]]:
    """The most memory of its own that any of Ray's workers had meanwhile."""
    most, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], *map(_own, Path("/proc").glob("[0-9]*")))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _own(process: Path) -> int:
    try:
        if not (process / "cmdline").read_bytes().startswith(b"ray::"):
            return 0
        return status(process, "RssAnon")
    except (OSError, ValueError):  # it has ended
        return 0


def status(process: Path, field: str) -> int:
    """Bytes that the kernel's account of a process has under a name."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(field)


def main(way: str) -> None:
    data = fashion(others=1_000)
    method = ShrinkNets(STRENGTH) if way == "removes" else NeverRemoves(STRENGTH)
    print(sizer.fit(mlp(data, WIDE), data, method, epochs=EPOCHS).history[-1].peak_memory)


if __name__ == "__main__":
    main(sys.argv[1])
