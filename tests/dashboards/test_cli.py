"""The command line: what it takes, what it says, and one clear line for whatever cannot be done."""

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.main import get_command

import sizer
from dashboards.cli import app, main
from sizer import datasets
from studies import query, selection
from tests.dashboards.swept import small_plan, sweep_here

Sizer = Callable[..., tuple[int, str, str]]

COMMANDS = {
    "sweep": "PLAN --trials --epochs --seed --scale --name --arm --cpus-per-trial --gpus-per-trial --concurrency --pack"
    " --target-params --target-flops --target-latency --address --timeout --trial-timeout --files --dry-run --db",
    "size": "--data --network --max-params --max-flops --max-latency --widths --method --epochs --trials --seed --name"
    " --out --cpus-per-trial --gpus-per-trial --db",
    "submit": "PLAN --address --trials --epochs --seed --scale --name --cpus-per-trial --gpus-per-trial --concurrency"
    " --pack --target-params --target-flops --target-latency --timeout --trial-timeout --files --db --server",
    "status": "PLAN --follow --db --server",
    "stop": "PLAN --wait --db --server",
    "compare": "PLAN --threshold --db --server",
    "best": "PLAN --arm --max-params --max-flops --max-latency --out --db --server",
    "retrain": "FOLDER --data --epochs --seeds --from-scratch --learning-rate --batch-size --optimizer --out",
    "report": "PLAN --out --db --server",
    "results": "--out --notes --db",
    "dashboard": "--host --port --writable --read-token-file --write-token-file --allowed-host --jobs --db",
    "presets": "NAME",
    "db": "",
}


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own, with the evaluation in `sizer.db`."""
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sizer:
    """Runs `sizer` in a terminal of 80 columns; gives exit code, stdout and stderr."""

    def run(*arguments: str, columns: int = 80) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def refused(run: Sizer, *arguments: str) -> str:
    """The one line that a refusal is, without its `sizer: `."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("sizer: ")
    assert err.count("\n") == 1
    return err.removeprefix("sizer: ").rstrip("\n")


def test_the_command_line_is_as_published() -> None:
    """Whoever changes this changes what people have typed into their scripts."""
    group = get_command(app)
    taken = {
        name: " ".join(
            parameter.opts[0] if parameter.opts[0].startswith("--") else str(parameter.metavar).strip("[]")
            for parameter in command.params
        )
        for name, command in group.commands.items()  # type: ignore[attr-defined]  # the app's command is a group
    }
    assert taken == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Sizer, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


def test_the_help_shows_the_way_from_nothing_to_a_network(run: Sizer) -> None:
    _, out, _ = run("--help")
    assert [line for line in ("sizer presets ", "sizer sweep demo ", "sizer best demo --out") if line not in out] == []


@pytest.mark.parametrize("arguments", [["--nonsense"], ["compare", "--nonsense"], ["fly"], ["sweep"]])
def test_an_unknown_option_or_a_missing_argument_is_exit_code_2(run: Sizer, arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "Usage" in err


def test_presets_are_listed_and_printed_as_toml(run: Sizer) -> None:
    _, listed, _ = run("presets")
    assert all(name in listed for name in ("demo", "shrinknets-search", "das"))
    _, text, _ = run("presets", "demo")
    assert tomllib.loads(text)["data"] == "digits"


@pytest.mark.parametrize("command", [["presets", "dmeo"], ["sweep", "dmeo"]])
def test_an_unknown_preset_lists_those_there_are_nearest_first(run: Sizer, command: list[str]) -> None:
    assert refused(run, *command).startswith("unknown preset 'dmeo'; there are: demo, ")


@pytest.mark.parametrize(
    ("option", "value"), [("--trials", "0"), ("--epochs", "0"), ("--seed", "-1"), ("--cpus-per-trial", "0")]
)
def test_a_number_that_makes_no_sense_is_refused_before_anything_is_made(
    run: Sizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("sweep", "demo", option, value)
    assert (code, err.count("\n")) == (2, 1)
    assert value in err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_to_expect_and_makes_nothing(
    run: Sizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("sweep", "demo", "--trials", "2", "--epochs", "3", "--dry-run")
    assert code == 0
    assert "2 trials an arm, 3 epochs" in out
    row = next(line for line in out.splitlines() if line.split()[:2] == ["shrinknets", "2"])
    # From 64-10-10-10-10 to 64-100-100-100-10.
    assert "980 .." in row
    assert "27,710" in out
    assert "8 trials, " in out
    assert max(map(len, out.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [80, 120])
def test_the_comparison_fits_the_terminal_and_names_every_arm(run: Sizer, here: Path, columns: int) -> None:
    code, out, _ = run("compare", columns=columns)
    assert code == 0
    assert max(map(len, out.splitlines())) <= columns
    assert "shrinknets: median" in out.replace("\n ", "")
    assert "fixed, trial 2: diverged, the loss became NaN in epoch 1" in out
    medians = query.trials("sizer.db", "small").query("state == 'COMPLETE'").groupby("arm")["test_accuracy"].median()
    assert all(f"{100 * median:.2f}" in out for median in medians)


def test_a_threshold_is_typed_in_percent(run: Sizer, here: Path) -> None:
    _, out, _ = run("compare", "--threshold", "12.5")
    assert "epochs until validation 12.50 %" in out


def test_status_tells_trials_by_state_and_why_one_failed(run: Sizer, here: Path) -> None:
    code, out, _ = run("status")
    assert code == 0
    row = next(line for line in out.splitlines() if line.split()[:1] == ["fixed"])
    assert row.split() == ["fixed", "2", "0", "1", "0", "0", "6"]
    assert "fixed trial 2: diverged, the loss became NaN in epoch 1" in out
    assert "nobody runs it" in out


def test_status_of_a_sweep_in_its_middle_says_what_is_left(
    run: Sizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep_here(small_plan(), tmp_path / "sizer.db", trials=1)
    _, out, _ = run("status")
    rows = [line.split() for line in out.splitlines() if line.split()[:1] in (["shrinknets"], ["fixed"])]
    assert rows == [["shrinknets", "1", "0", "0", "0", "2", "3"], ["fixed", "0", "0", "0", "0", "3", "0"]]
    code, out, _ = run("compare")
    assert code == 0
    assert "fixed: no finished trial, too few to compare" in out
    assert "no trial of small/fixed is complete" in refused(run, "best", "--arm", "fixed")
    assert run("report")[0] == 0


def test_best_shows_the_widths_and_writes_a_network_that_scores_the_same(run: Sizer, here: Path) -> None:
    code, out, _ = run("best", "small", "--out", "net")
    row = selection.best("sizer.db", "small")
    assert code == 0
    assert f"dense1  {row['widths']['dense1']}" in out
    assert f"validation {100 * row['val_accuracy']:.2f} %" in out
    net = sizer.load("net")
    data = datasets.load("digits")
    with torch.no_grad():
        right = (net(data.x_test).argmax(1) == data.y_test).float().mean()
    assert float(right) == pytest.approx(row["test_accuracy"], abs=1e-6)


def test_best_under_a_budget_takes_the_best_epoch_that_fits(run: Sizer, here: Path) -> None:
    smallest = int(selection.front("sizer.db", "small")["parameters"].min())
    code, out, _ = run("best", "--max-params", f"{smallest / 1000}k")
    assert code == 0
    assert f"at most {smallest:,} parameters" in out
    assert f"{smallest:,} parameters, " in out


def test_best_where_nothing_fits_names_the_nearest(run: Sizer, here: Path) -> None:
    line = refused(run, "best", "--max-params", "5", "--out", "net")
    assert "the nearest is " in line
    assert not (here / "net").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["best", "--arm", "shrinknet"], "unknown arm of small 'shrinknet'; there are: shrinknets, fixed"),
        (["best", "--max-params", "lots"], "--max-params must be a positive number such as"),
        (["compare", "smal"], "unknown plan 'smal'; there are: small"),
        (["compare", "--db", "none.db"], "none.db"),
        (["report", "--out", "nowhere/report.html"], "nowhere does not exist"),
        (["report", "--out", "/proc/report.html"], "/proc/"),
        (["dashboard", "--db", "notes.txt"], "notes.txt is not an SQLite database"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Sizer, here: Path, arguments: list[str], said: str) -> None:
    (here / "notes.txt").write_text("not a database, but long enough to be one")
    assert said in refused(run, *arguments)
    assert not (here / "report.html").exists()


def test_a_plan_may_be_left_out_only_while_it_is_the_only_one(run: Sizer, here: Path) -> None:
    sweep_here(small_plan(name="search/one", trials=1), here / "sizer.db")
    sweep_here(small_plan(name="search/two", trials=1), here / "sizer.db")
    assert refused(run, "best") == "which plan? name one of: small, search/one, search/two"
    assert "small" not in run("status", "search")[1]
    assert all(f"search/{cell} ──" in run("compare", "search")[1] for cell in ("one", "two"))
    assert run("best", "search/two")[0] == 0


def test_the_database_may_be_named_by_the_environment(run: Sizer, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert run("compare")[0] == 2
    monkeypatch.setenv("SIZER_DB", str(here / "sizer.db"))
    assert run("compare")[0] == 0


def test_a_report_is_written_once(run: Sizer, here: Path) -> None:
    assert run("report")[:2] == (0, "report.html written\n")
    before = (here / "report.html").stat().st_mtime_ns
    assert run("report")[:2] == (0, "report.html is up to date\n")
    assert (here / "report.html").stat().st_mtime_ns == before
