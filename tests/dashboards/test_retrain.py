"""`sizer retrain`: the widths of a network that was found, trained again over seeds: what it says, what it writes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sizer
from dashboards.cli import main
from dashboards.running import _ctrl_c
from sizer import Architecture, datasets

Sizer = Callable[..., tuple[int, str, str]]
TRAINING = {
    "data": "digits", "validation": 0.2, "data_seed": 0, "seed": 0, "weight_decay": 0.0, "epochs": 2,
    "batch_size": 256, "learning_rate": 1e-3, "optimizer": "adam", "precision": "float32",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sizer:
    """Runs `sizer` beside a network in `net`; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    info = {"study": "demo/shrinknets", "trial": 3, "epoch": 7, "val_accuracy": 0.5, "test_accuracy": 0.4}
    built = Architecture(
        "mlp", (1, 8, 8), 10, "classification", {"dense1": 9, "dense2": 7},
        datasets.load("digits").preprocessing, {**info, "data": "digits", "training": TRAINING},
    )  # fmt: skip
    torch.manual_seed(0)
    sizer.save("net", built, built.build().state_dict())

    def run(*arguments: str, columns: int = 80) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as ended:
            main(["retrain", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.mark.parametrize("columns", [80, 120])
def test_it_shows_every_seed_and_the_median_between_quartiles(run: Sizer, columns: int) -> None:
    code, out, err = run("net", "--seeds", "3", "--from-scratch", "--learning-rate", "0.02", columns=columns)
    lines = [line.rstrip() for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert "network    mlp, 9-7 units, of demo/shrinknets trial 3, epoch 7" in lines
    assert "training   3 seeds from scratch, 2 epochs, batch 256, adam at 0.02" in lines
    assert "as it was  validation 50.00 %, test 40.00 %" in lines
    assert sum(line.startswith(f"retrain {k}/3: seed {k - 1} complete") for k in (1, 2, 3) for line in lines) == 3
    table = lines[next(at for at, line in enumerate(lines) if line.startswith("Trained again")) + 1 :]
    assert [row.split()[0] for row in table[2:]] == ["0", "1", "2", "median", "quartiles"]
    assert len({len(row) for row in table[2:]}) == 1
    tests = sorted(float(row.split()[3]) for row in table[2:5])
    assert tests[0] < float(table[5].split()[2]) == tests[1] < tests[2]
    assert max(map(len, lines[lines.index(table[0]) :])) < 80


def test_the_best_seed_is_written_and_can_be_trained_again(run: Sizer) -> None:
    arguments = ("--seeds", "2", "--from-scratch", "--epochs", "3", "--learning-rate", "0.01", "--batch-size", "64")
    code, out, _ = run("net", *arguments, "--optimizer", "sgd", "--out", "again")
    assert code == 0
    assert 'net = sizer.load("again")' in out
    assert "2 seeds from scratch, 3 epochs, batch 64, sgd at 0.01" in out
    info = json.loads(Path("again/architecture.json").read_text())["info"]
    rows = {row[0]: row for row in map(str.split, out.splitlines()) if len(row) == 4 and row[0] in "01"}
    seed = max(rows, key=lambda seed: float(rows[seed][2]))
    assert info["training"] == {
        **TRAINING, "epochs": 3, "learning_rate": 0.01, "batch_size": 64, "optimizer": "sgd", "seed": int(seed)
    }  # fmt: skip
    data = datasets.load("digits")
    with torch.no_grad():
        right = (sizer.load("again")(data.x_test).argmax(1) == data.y_test).float().mean().item()
    assert right == pytest.approx(info["test_accuracy"], abs=1e-6)
    assert f"{100 * right:.2f}" == rows[seed][3]
    _, out, _ = run("again", "--seeds", "1")
    assert "1 seed from its weights, 3 epochs, batch 64, sgd at 0.01" in out
    assert "network    mlp, 9-7 units " in out
    assert f"test {100 * right:.2f} %" in out


def test_ctrl_c_ends_it_at_once_and_writes_nothing(run: Sizer) -> None:
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    code, _, err = run("net", "--epochs", "1000000", "--seeds", "2", "--out", "again")
    timer.join()
    assert code == 130
    assert err == "sizer: interrupted with 0 of 2 seeds trained; nothing was written\n"
    assert not Path("again").exists()


def test_a_ctrl_c_that_a_library_swallows_is_not_lost() -> None:
    before = signal.getsignal(signal.SIGINT)
    with _ctrl_c() as check:
        check()
        with contextlib.suppress(KeyboardInterrupt):  # as a library's bare except does
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "cannot read nowhere/architecture.json"),
        (("net", "--data", "dgits"), "unknown data set 'dgits'; there are: digits"),
        (("net", "--optimizer", "adm"), "unknown optimizer 'adm'; there are: adam"),
        (("net", "--data", "mine:data"), "mine:data: no module mine in"),
        (("net", "--learning-rate", "0"), "learning_rate must be a positive number, got 0"),
        (("net", "--learning-rate", "1e30", "--seeds", "1"), "no seed gave a network (the loss became"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Sizer, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith("sizer: ")
    assert err.count("\n") == 1
    assert said in err
