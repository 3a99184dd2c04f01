"""The page of results: what the database has of the presets, beside what was published, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dashboards.cli import main
from dashboards.results import read_notes, results
from dashboards.source import Local
from dashboards.tables import Table, markdown
from sizer.errors import InputError
from studies import query
from studies.plan import Plan
from studies.reading import read_plan
from tests.studies.benches import Bench
from tests.studies.sweeps import epoch, small_plan

SEARCH = "shrinknets-search/mlp-mnist"
FEW = {"trials": 6, "epochs": 2}
ENVIRONMENT = {"python": "3.11", "torch": "2.13.0", "system": "Linux x86_64"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(str(tmp_path / "x.db"))
    yield made
    if made.lease is not None:
        made.lease.release()
    made.database.close()


def fill(
    bench: Bench, plan: Plan, accuracy: Callable[[str, int], float], most: int = 10**9, width: int = 8, **made: str
) -> None:
    """Trials of two epochs, the second of which reaches an accuracy."""
    driver = bench.start(plan)
    while driver.left and most > 0:
        most -= 1
        member = driver.next()
        assert member is not None
        top = accuracy(member["arm"], member["number"])
        widths = dict.fromkeys(plan.layers(), width)
        for number, reached in enumerate((top - 0.1, top), start=1):
            driver.epoch(member["trial_id"], epoch(number, reached, width, widths=widths))
        driver.end(member["trial_id"], "complete", "", device="cpu", environment={**ENVIRONMENT, **made})
    assert bench.lease is not None
    bench.lease.release()
    bench.lease = None


def search(bench: Bench, sized: float = 0.95, fixed: float = 0.9) -> Local:
    (plan,) = read_plan(SEARCH, FEW, "small")
    tops = {"shrinknets": sized, "fixed": fixed, "fixed-l2": 0.94, "unsized": 0.92}
    fill(bench, plan, lambda arm, number: tops[arm] + number / 1000)
    return Local(bench.database)


def table(page: str, title: str) -> dict[str, list[str]]:
    """The rows of a table, by their first cell."""
    lines = page.partition(f"{title}:\n\n")[2].partition("\n\n")[0].splitlines()
    return {
        cells[0]: cells[1:] for line in lines for cells in [[each.strip() for each in line.strip("| ").split(" | ")]]
    }


def test_ours_stands_beside_the_published_figure_with_n_interval_and_cost(bench: Bench) -> None:
    page = results(search(bench), {}, "sizer results")
    rows = table(page, "At the best validation epoch, medians over trials; size and cost of a trial are medians")
    assert rows["arm"] == ["n", "test accuracy", "95 % interval", "published", "parameters", "units", "published",
                           "training", "time"]  # fmt: skip
    assert " ".join(rows["shrinknets"]) == "6 94.25 % 94.00 to 94.50 98.30 % 610 24 341 2.00 kFLOP 1.0 s"
    assert rows["fixed-l2"][:4] == ["6", "93.25 %", "93.00 to 93.50", "98.00 %"]
    verdicts = {claim: cells[-1] for claim, cells in table(page, "Claims").items()}
    assert verdicts["shrinknets less fixed, test accuracy"] == "as published"
    assert "- shrinknets: median 5.00 points above fixed, 95 % interval" in page
    assert "| [shrinknets-search, small scale](#shrinknets-search-small-scale) | 2 | 2 | 0 |" in page


def test_what_is_missed_is_shown_so_until_somebody_explains_it(bench: Bench) -> None:
    source = search(bench, sized=0.9, fixed=0.95)
    missed = results(source, {}, "sizer results")
    assert "| **missed** |" in missed
    assert "What was missed has no explanation here yet." in missed
    told = results(source, {"shrinknets-search.small/mlp-mnist": "Too few epochs."}, "sizer results")
    assert "What to make of it:\n\nToo few epochs.\n" in told
    assert "no explanation" not in told


def test_claims_of_several_cells_stand_together(bench: Bench) -> None:
    for cell in ("mlp-mnist", "mlp-fashion_mnist"):
        (plan,) = read_plan(f"shrinknets-search/{cell}", FEW, "small")
        fill(bench, plan, lambda arm, number: {"shrinknets": 0.95}.get(arm, 0.9) + number / 1000)
    page = results(Local(bench.database), {}, "sizer results")
    assert page.count("Claims:") == 1
    told = table(page, "Claims")
    for cell in ("mlp-mnist", "mlp-fashion_mnist"):
        assert told[f"{cell}: shrinknets less fixed, test accuracy"][-1] == "as published"


@pytest.mark.parametrize(("widths", "verdict"), [((8, 9), "as published"), ((9, 8), "**missed**")])
def test_the_order_of_cells_is_a_claim_and_explained_like_others(
    bench: Bench, widths: tuple[int, int], verdict: str
) -> None:
    for cell, width in zip(("mnist", "cifar10"), widths, strict=True):
        (plan,) = read_plan(f"das-datasets/{cell}", {"epochs": 2}, "dense")
        fill(bench, plan, lambda arm, number: 0.9, width=width)
    page = results(Local(bench.database), {}, "sizer results")
    assert table(page, "Claims")["all: mean parameters, mnist < cifar10"][-1] == verdict
    assert ("no explanation here" in page) == (verdict == "**missed**")
    told = results(Local(bench.database), {"das-datasets, dense scale": "Chance."}, "sizer results")
    assert "no explanation here" not in told


def test_the_page_says_where_it_comes_from_and_what_differs_from_the_paper(bench: Bench) -> None:
    page = results(search(bench), {"intro": "First of all."}, "sizer results --out here.md")
    assert page.startswith("# Results\n\nWritten by `sizer results --out here.md`")
    assert "\nFirst of all.\n" in page
    assert "- In this scale: trials 6 (full: 50), epochs 2 (full: 100).\n" in page
    assert "- Not run: mlp-fashion_mnist, mlp-cifar10, lenet-mnist," in page
    assert re.search(r"24 trials on cpu \(Linux x86_64, torch 2\.13\.0\) at [0-9a-f]{12}", page)
    assert "48.0 kFLOP and 24 s in all" in page


def test_the_command_of_an_evaluation_repeats_it(bench: Bench) -> None:
    page = results(search(bench), {}, "sizer results")
    command = re.search(r"^    sizer sweep (.*)$", page, re.MULTILINE)
    assert command is not None
    words = command[1].split()
    assert words == [SEARCH, "--scale", "small", "--trials", "6", "--epochs", "2", "--pack", "1"]
    (plan,) = read_plan(words[0], {"trials": 6, "epochs": 2}, words[2])
    assert plan.spec() == query.spec(bench.database, plan.name)


def test_where_trials_trained_in_packs_the_page_says_so(bench: Bench) -> None:
    (plan,) = read_plan(SEARCH, FEW, "small")
    fill(bench, plan, lambda arm, number: 0.9, pack="3")
    page = results(Local(bench.database), {}, "sizer results")
    assert "--pack" not in page
    assert ", in packs of 3; " in page


def test_an_evaluation_that_is_not_done_says_so_and_others_are_left_out(bench: Bench) -> None:
    (plan,) = read_plan(SEARCH, FEW, "small")
    fill(bench, plan, lambda arm, number: 0.9, most=4)
    fill(bench, small_plan(), lambda arm, number: 0.9)
    page = results(Local(bench.database), {}, "sizer results")
    assert "**Not done yet: stopped.**" in page
    assert "small_plan" not in page
    assert "digits; mlp, sizing arms start from 12" not in page


def test_cells_whose_data_cannot_be_had_name_what_stands_for_them(bench: Bench) -> None:
    (plan,) = read_plan("das-initial-size/puzzle15", {"trials": 2, "epochs": 2}, "small")
    fill(bench, plan, lambda arm, number: 0.9)
    page = results(Local(bench.database), {}, "sizer results")
    assert "- Not run: cifar10, fashion_mnist.\n" in page
    assert "- Not run, as the data cannot be had here: cifar100 (cifar10 stands for it).\n" in page
    assert table(page, "Units of all layers at the end of an epoch, mean (least to most) over trials")["2"] == (
        ["40 (40 to 40)"] * 3
    )
    ends = table(page, "Units of each layer at the end, mean (least to most) over trials")
    assert ends["from-100"] == ["8 (8 to 8)"] * 5


def test_searches_on_the_same_flops_are_told_over_their_seeds(bench: Bench) -> None:
    for seed in (0, 1, 2):
        (plan,) = read_plan(f"equal-flops-mlp/seed-{seed}", {"trials": 4, "epochs": 9}, "small")
        plan = Plan(**{**plan.model_dump(exclude_none=True), "max_training_flops": 6000.0})
        tops = {"shrinknets": 0.90, "tpe": 0.92}
        fill(bench, plan, lambda arm, number, tops=tops: tops.get(arm, 0.88) + number / 100)
    page = results(Local(bench.database), {}, "sizer results")
    assert page.count("    sizer sweep equal-flops-mlp/seed-") == 3
    whole = (
        "With 6.00 kFLOP of training each: the test accuracy of what validation chooses, median and range of 3 seeds"
    )
    rows = table(page, whole)
    assert rows["random"][:3] == ["3", "89.00 (89.00 to 89.00)", ""]
    assert rows["tpe"][:3] == ["3", "93.00 (93.00 to 93.00)", "+4.00 (+4.00 to +4.00)"]
    until = next(line for line in page.splitlines() if line.startswith("Training FLOPs, in percent of these, until"))
    assert table(page, until[:-1])["shrinknets"] == ["33 (33 to 33, 3 seeds)"] * 2
    assert table(page, until[:-1])["random"][1] == "100 (100 to 100, 3 seeds)"
    assert "- In this scale: trials 4 (full: 200), " in page
    assert "- Not equal: auto-sizing-4e-4: learning rate 0.0004 (others 0.001); tpe: sampler tpe" in page
    assert "seed-1: **The preset has changed since: max_training_flops: was 6000.0, now" in page


def test_searches_of_one_seed_have_no_range(bench: Bench) -> None:
    (plan,) = read_plan("equal-flops-mlp/seed-0", {"trials": 4, "epochs": 9}, "small")
    tops = {"shrinknets": 0.90, "tpe": 0.87}
    plan = Plan(**{**plan.model_dump(exclude_none=True), "max_training_flops": 6000.0})
    fill(bench, plan, lambda arm, number: tops.get(arm, 0.88))
    page = results(Local(bench.database), {}, "sizer results")
    rows = table(page, "With 6.00 kFLOP of training each: the test accuracy of what validation chooses, of one seed")
    assert rows["shrinknets"][1:3] == ["89.00", "+2.00"]
    until = next(line for line in page.splitlines() if line.startswith("Training FLOPs, in percent of these, until"))
    assert table(page, until[:-1])["shrinknets"] == ["33 (1 seed)"] * 2
    assert table(page, until[:-1])["tpe"] == ["- (no seed)"] * 2


def test_where_arms_train_otherwise_than_others_the_page_says_so(bench: Bench) -> None:
    (plan,) = read_plan("growing-brightness", scale="small")
    fill(bench, plan, lambda arm, number: 0.9)
    page = results(Local(bench.database), {}, "sizer results")
    assert " Not equal: growing: learning rate 0.001 (others 0.003); layered-narrow: epochs 120 (others 24); " in page


def test_an_arm_that_an_evaluation_lacks_is_named(bench: Bench) -> None:
    (plan,) = read_plan(SEARCH, FEW, "small")
    given = plan.model_dump(exclude_none=True)
    del given["arms"]["fixed-l2"]
    fill(bench, Plan(**given), lambda arm, number: 0.9)
    assert ", epochs 2 (full: 100), without fixed-l2.\n" in results(Local(bench.database), {}, "sizer results")


def test_an_evaluation_that_the_preset_no_longer_gives_says_so(bench: Bench) -> None:
    (plan,) = read_plan(SEARCH, FEW, "small")
    fill(bench, Plan(**{**plan.model_dump(exclude_none=True), "batch_size": 128}), lambda arm, number: 0.9)
    page = results(Local(bench.database), {}, "sizer results")
    assert "**The preset has changed since: batch_size: was 128, now 256.**" in page


def test_of_few_trials_no_tests_are_told(bench: Bench) -> None:
    (plan,) = read_plan("darn-mlp", scale="small")
    fill(bench, plan, lambda arm, number: 0.9 + number / 100)
    page = results(Local(bench.database), {}, "sizer results")
    assert "- fewer than 6 finished trials (unsized, correlation)" in page
    assert "- correlation: " not in page
    assert "Brown-Forsythe" not in page


def test_an_arms_own_epochs_are_no_change_of_the_preset(bench: Bench) -> None:
    (plan,) = read_plan("growing-brightness", scale="small")
    assert plan.arms["layered-narrow"].epochs != plan.epochs
    fill(bench, plan, lambda arm, number: 0.9)
    assert "has changed since" not in results(Local(bench.database), {}, "sizer results")


@pytest.mark.parametrize(
    "name", ["shrinknets-search.small/mine", "demo.foo", "das-baselines", "shrinknets-search.x/mlp-mnist"]
)
def test_evaluations_of_other_names_are_no_presets(bench: Bench, name: str) -> None:
    source = search(bench)
    before = results(source, {}, "sizer results")
    fill(bench, small_plan(name=name), lambda arm, number: 0.9)
    assert results(source, {}, "sizer results") == before


def test_the_command_writes_the_page(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search(bench)
    notes, out = tmp_path / "notes.toml", tmp_path / "results.md"
    notes.write_text('intro = "Seen."\n')
    words = ["results", "--db", bench.path, "--notes", str(notes), "--out", str(out)]
    for said in ("written", "is up to date"):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert said in capsys.readouterr().out
    assert f"sizer results --notes {notes} --out {out}" in out.read_text()


def test_nothing_to_tell_and_notes_on_nothing_are_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluation of a preset in the database: `sizer sweep PRESET"):
        results(Local(bench.database), {}, "sizer results")
    source = search(bench)
    with pytest.raises(InputError, match="a note on das-puzzle, of which the database has nothing: intro, shrinknets"):
        results(source, {"das-puzzle": "x"}, "sizer results")
    file = tmp_path / "notes.toml"
    for text, says in (("a = 1", "a must be a text, got 1"), ("a =", "is not TOML"), (None, "no notes at")):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        with pytest.raises(InputError, match=says):
            read_notes(file)


def test_a_table_is_markdown_whatever_its_cells_hold() -> None:
    assert markdown(Table("So", ("a", "b"), (("x|y", "1"),)), "##") == [
        "## So", "", "| a | b |", "| --- | ---: |", "| x\\|y | 1 |", "",
    ]  # fmt: skip
