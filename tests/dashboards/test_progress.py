"""Progress fits the terminal it is in, and never floods a file."""

import io

import pytest
from rich.console import Console

from dashboards import running
from dashboards.progress import EVERY, Bars, Lines, short, watch
from sizer.history import Epoch
from studies.sweep import Outcome
from tests.studies.sweeps import small_plan


def epoch(number: int, accuracy: float = 0.9, widths: tuple[int, ...] = (34, 22, 16)) -> Epoch:
    return Epoch(
        epoch=number,
        train_loss=0.1,
        train_accuracy=accuracy,
        val_loss=0.1,
        val_accuracy=accuracy,
        test_loss=0.1,
        test_accuracy=accuracy,
        widths={f"dense{i}": width for i, width in enumerate(widths, start=1)},
        parameters=3989,
        flops=7900,
        training_flops=10**9,
        seconds=1.0,
        peak_memory=10**8,
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def drawn(width: int) -> tuple[Console, Bars]:
    console = Console(file=io.StringIO(), width=width, height=40, force_terminal=True, color_system=None, record=True)
    return console, Bars(console, lambda: "classification")


def test_a_terminal_gets_bars_and_a_file_gets_lines() -> None:
    assert isinstance(watch(Console(file=io.StringIO(), force_terminal=True), lambda: ""), Bars)
    assert isinstance(watch(Console(file=io.StringIO()), lambda: ""), Lines)


def test_every_trial_that_ends_is_one_line_with_its_best_epoch() -> None:
    console = Console(file=io.StringIO(), width=40)
    with Lines(console, lambda: "classification", Clock()) as progress:
        progress.begin({"shrinknets": (3, 10), "fixed": (0, 10)})
        for number, accuracy in enumerate((0.9, 0.97, 0.95), start=1):
            progress.epoch("shrinknets", 3, epoch(number, accuracy), 3)
        progress.trial("shrinknets", 3, "COMPLETE", "complete", "")
        progress.trial("fixed", 0, "FAIL", "diverged", "the loss became NaN in epoch 2")
    assert lines_of(console) == [
        "trials done: shrinknets 3/10, fixed 0/10",
        "shrinknets 4/10: trial 3 complete: validation 97.00 %, 34-22-16 units, 3,989 parameters",
        "fixed 1/10: trial 0 diverged (the loss became NaN in epoch 2)",
    ]


def test_an_arm_that_a_limit_ends_counts_as_many_trials_as_it_is_to_have() -> None:
    console = Console(file=io.StringIO(), width=80)
    with Lines(console, lambda: "classification", Clock()) as progress:
        progress.begin({"fixed": (0, 200)})
        progress.expect("fixed", 2)
        progress.trial("fixed", 0, "FAIL", "error", "out of memory")
    assert lines_of(console)[-1] == "fixed 1/2: trial 0 error (out of memory)"
    console, bars = drawn(80)
    with bars:
        bars.begin({"fixed": (0, 200)})
        bars.expect("fixed", 1)
        bars.trial("fixed", 0, "COMPLETE", "complete", "")
        assert bars._progress.finished
    assert "1/1" in console.export_text()


def test_epochs_are_said_only_after_a_silence() -> None:
    console, clock = Console(file=io.StringIO(), width=80), Clock()
    with Lines(console, lambda: "classification", clock) as progress:
        progress.begin({"fixed": (0, 1)})
        for number in range(1, 1001):
            clock.now += EVERY / 100
            progress.epoch("fixed", 0, epoch(number), 1000)
    said = lines_of(console)
    assert 9 <= len(said) <= 12
    assert said[1].startswith("fixed trial 0: epoch 100/1000, validation 90.00 %")


def test_a_sweep_that_is_done_says_nothing_of_its_progress() -> None:
    console = Console(file=io.StringIO())
    with Lines(console, lambda: "classification") as progress:
        progress.begin({"fixed": (10, 10)})
    assert lines_of(console) == []


def test_epochs_that_a_resumed_trial_tells_again_count_once() -> None:
    console = Console(file=io.StringIO())
    with Lines(console, lambda: "classification") as progress:
        progress.begin({"fixed": (0, 1)})
        for number in (1, 2, 3, 2, 3):
            progress.epoch("fixed", 0, epoch(number), 4)
        assert progress._arms.share("fixed") == pytest.approx(0.75)


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_shows_trials_widths_and_accuracy_on_one_line(width: int) -> None:
    console, progress = drawn(width)
    progress.begin({"shrinknets": (3, 10), "auto-sizing": (2, 10)})
    progress.epoch("shrinknets", 3, epoch(12, 0.972), 30)
    progress.epoch("auto-sizing", 2, epoch(7, 0.5, widths=(1000, 1000, 1000, 1000, 1000, 1000)), 30)
    console.print(progress._progress.get_renderable())
    first, second = lines_of(console)
    assert max(len(first), len(second)) <= width
    assert first.startswith("shrinknets")
    assert all(part in first for part in ("3/10", "12/30", "34-22-16", "97.20 %"))
    assert "50.00 %" in second


def test_bars_name_the_trials_that_did_not_complete() -> None:
    console, progress = drawn(80)
    with progress:
        progress.begin({"fixed": (0, 2)})
        progress.epoch("fixed", 0, epoch(1), 2)
        progress.trial("fixed", 0, "COMPLETE", "collapsed", "dense1 would have emptied in epoch 2")
        progress.trial("fixed", 1, "FAIL", "error", "out of memory")
    text = console.export_text()
    assert "fixed: trial 0 collapsed (dense1 would have emptied in epoch 2)" in text
    assert "fixed: trial 1 error (out of memory)" in text
    assert "2/2" in text


def test_a_regression_shows_r_squared() -> None:
    console = Console(file=io.StringIO(), width=80)
    with Lines(console, lambda: "regression") as progress:
        progress.begin({"fixed": (0, 1)})
        progress.epoch("fixed", 0, epoch(1, 0.9124), 1)
        progress.trial("fixed", 0, "COMPLETE", "complete", "")
    assert "validation 0.912, 34-22-16" in lines_of(console)[-1]


def test_a_deep_networks_widths_are_cut_in_the_middle() -> None:
    assert short({f"conv{i}": i for i in range(1, 21)}, 4) == "1-2-..-20"


@pytest.mark.parametrize("limit", [{"max_training_flops": 1e9}, {}])
def test_an_interrupted_sweep_counts_what_is_left_where_that_is_known(
    limit: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(left=3, stopped="interrupted")
    assert running.sweep(small_plan(**limit), "x.db", lambda watch: outcome) == 130
    left = "" if limit else " with 3 of 4 trials to do"
    assert capsys.readouterr().err == f"sizer: interrupted{left}; the same command goes on where it was\n"
