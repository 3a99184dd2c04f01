"""`sizer size` as a user runs it: from data and a budget to a network in a folder, and again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sizer
from dashboards.cli import main
from sizer import cost

COMMAND = [sys.executable, "-c", "from dashboards.cli import main; main()", "size"]


def sized(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], cwd=folder, env={**os.environ, "COLUMNS": "80", "HOME": str(folder)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.alone
def test_a_budget_gives_a_network_in_a_folder_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    options = ["--data", "digits", "--widths", "60", "--epochs", "25"]
    first = sized(tmp_path, *options, "--max-params", "4k", "--out", "net")
    assert (first.returncode, first.stderr) == (0, "")
    assert "Networks for the target, at most 10 % under each budget" in first.stdout
    assert "Best of size-digits-mlp-4000 by validation accuracy, at most 4,000 parameters" in first.stdout
    # What a trial gave is a line of a log, as long as it is.
    screen = [line for line in first.stdout.splitlines() if ": trial " not in line and " trial " not in line[:18]]
    assert max(map(len, screen)) <= 80
    assert cost.parameters(sizer.load(tmp_path / "net")) <= 4000
    report = (tmp_path / "net" / "report.html").read_text()
    assert "Networks under budgets" in report
    assert "The upright lines are the budgets." in report
    assert "not ended yet" not in report, "no more trials are to come"

    again = sized(tmp_path, *options, "--max-params", "4k", "--out", "net")
    assert (again.returncode, again.stderr) == (0, "")
    assert "are done already; nothing was run." in again.stdout


@pytest.mark.alone
@pytest.mark.soak
def test_without_a_budget_it_walks_through_all_sizes(tmp_path: Path) -> None:
    walked = sized(tmp_path, "--data", "digits", "--widths", "40", "--epochs", "6", "--trials", "3", "--out", "net")
    assert (walked.returncode, walked.stderr) == (0, "")
    assert "a path: 6 epochs, then 2 a step, and 1 of each without the penalty" in " ".join(walked.stdout.split())
    assert "Best of path-digits-mlp by validation accuracy" in walked.stdout
    assert sizer.load(tmp_path / "net") is not None
    report = (tmp_path / "net" / "report.html").read_text()
    assert "joined as they were walked" in report
    assert "are the steps of a path" in report


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--max-params", "much"], "--max-params must be a positive number such as 5000, 100k, 1.5M or 2G, got 'much'"),
        (["--max-params", "9k", "--max-flops", "9k"], "give one limit, not 2: params and flops"),
        (["--max-latency", "2 h"], "--max-latency must be a positive time such as 0.2ms, 150us or 1.5 (milliseconds)"),
        (
            ["--widths", "500", "--max-params", "9"],
            "target.params: 9 is less than the smallest such network has, 160: take another",
        ),
        (
            ["--widths", "500", "--max-params", "1M"],
            "target.params: 1,000,000 is no less than the network has before it is sized, 37,510",
        ),
        (["--widths", "3,x"], "--widths must be positive numbers with commas between them, such as 500,300, got 3,x"),
        (["--max-params", "9k", "--method", "fixed"], "arms.fixed.widths is missing: a baseline draws its widths"),
        (["--network", "mpl"], "unknown network 'mpl'; there are: mlp"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["size", "--data", "digits", *options])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1), said
    assert says in said
    assert not any(tmp_path.iterdir())
