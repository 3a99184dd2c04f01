"""Two workers at one trial never write the same file, and one that lives on when it has ended brings nothing back.

Run as a module it is such a worker: PLACE RUN EPOCHS, an epoch's number to a line.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import sizer
from sizer import Epoch, front
from sizer.checkpoint import load_tensors
from sizer.errors import InputError
from sizer.training import STATE, weights_file
from studies import attempts
from studies.attempts import ClearedError, left, run_of, taken_up
from studies.files import Files, at
from tests.studies.test_files import files, service

__all__ = ["files", "service"]
ROOT = Path(__file__).resolve().parents[2]
RUN = run_of("small/fixed", 0)


def train(attempt: attempts.Attempt, epochs: int, aloud: bool = False) -> list[Epoch]:
    """What a worker does with an attempt, on data so small that an epoch takes some milliseconds."""
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.randint(0, 3, (60,))
    data = sizer.datasets.Data("noise", "classification", x, y, x[:20], y[:20], x[:20], y[:20], (4,), 3, {})
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def on_epoch(epoch: Epoch) -> None:
        attempt.keep()
        if aloud:
            print(epoch.epoch, flush=True)

    method = sizer.methods.create("fixed")
    return sizer.fit(network, data, method, epochs=epochs, folder=attempt.folder, on_epoch=on_epoch).history


@contextlib.contextmanager
def worker(files: Files, epochs: int) -> Iterator[subprocess.Popen[str]]:
    """One in a process of its own, after its third epoch."""
    command = [sys.executable, "-m", "tests.studies.test_attempts", files.place, RUN, str(epochs)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "3\n":
                break
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("files", ["folder", pytest.param("bucket", marks=pytest.mark.soak)], indirect=True)
def test_a_worker_that_lives_on_is_neither_waited_for_nor_able_to_bring_a_run_back(
    files: Files, tmp_path: Path
) -> None:
    files.make("runs")
    files.make(RUN)
    with worker(files, 100_000) as old:
        # It is alive, and writes on while another takes its trial up and trains it to its end.
        with taken_up(files, RUN) as attempt:
            begun = attempt.epochs
            history = train(attempt, begun + 3)
            name = attempt.name
        assert begun >= 3
        assert old.poll() is None
        assert [epoch.epoch for epoch in history] == list(range(1, begun + 4))
        for epoch in front(history):
            files.get(attempts.weights_of(RUN, name, epoch.epoch), tmp_path / "weights")
            assert set(load_tensors(tmp_path / "weights")[0]) == {"0.weight", "0.bias", "2.weight", "2.bias"}
        files.clear(RUN)
        error = old.communicate(timeout=60)[1]
    assert old.returncode == 1
    assert "was cleared: its trial has ended" in error or "No such file or directory" in error
    # A bucket has no folders to be gone: what was on its way when it was cleared is found, and cleared again.
    for run, study, number in left(files, ["small/fixed", "small/other"]):
        assert (study, number, files.folder) == ("small/fixed", 0, None)
        files.clear(run)
    assert files.names("runs") == []


def test_an_attempt_at_a_run_that_is_gone_is_refused(files: Files) -> None:
    files.make("runs")
    with pytest.raises((ClearedError, FileNotFoundError)), taken_up(files, RUN) as attempt:
        train(attempt, 1)
    assert files.names("runs") == []


def test_an_attempt_begins_with_the_furthest_state_that_is_whole(files: Files, tmp_path: Path) -> None:
    files.make("runs")
    files.make(RUN)
    for epochs in (2, 4):
        with taken_up(files, RUN) as attempt:
            train(attempt, epochs)
            last = attempt.name
    with taken_up(files, RUN) as third:
        assert third.epochs == 4
        assert {path.name for path in third.folder.iterdir()} == {
            STATE, *(weights_file(tmp_path, epoch.epoch).name for epoch in front(train(third, 4)))
        }  # fmt: skip
    with (tmp_path / "half").open("wb+") as half:
        half.write(b"half a state")
        half.seek(0)
        files.put(half, f"{RUN}/{last}/{STATE}")
    with taken_up(files, RUN) as fourth:
        assert fourth.epochs == 4
        assert fourth.seconds > 0


def test_somebody_elses_scratch_is_not_used(
    service: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"sizer-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    remote = at("s3://bucket/scratch")
    remote.make(RUN)
    with pytest.raises(InputError, match="belongs to somebody else"), taken_up(remote, RUN):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


if __name__ == "__main__":
    _, place, run, count = sys.argv
    with taken_up(at(place), run) as mine:
        train(mine, int(count), aloud=True)
