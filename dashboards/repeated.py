"""Tables of an evaluation that a paper has, too: what was measured beside what was published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from dashboards import numbers
from dashboards.tables import Table
from studies.claims import MISSED, Claim, Evaluated, interval_of_median, total
from studies.crossval import over_folds
from studies.papers import Figures

NOTHING = Figures()


def measured(each: Evaluated, figures: Mapping[str, Figures]) -> Table:
    """A row an arm: n, test score with its interval, size and cost, and what was published of them."""
    task, folds = each.data["task"], each.spec.get("folds")
    shown = {
        name: any(getattr(figure, name) is not None for figure in figures.values())
        for name in ("accuracy", "parameters", "units")
    }
    over = {arm.arm: arm for arm in over_folds(each.done, folds)} if folds else {}
    of = next((f" ({figure.of})" for figure in figures.values() if figure.of), "")
    graph = any(set(widths) == {"neurons", "synapses"} for widths in each.done["widths"])
    columns = ["arm", "n", f"test {numbers.score_name(task)}", "2 SD" if folds else "95 % interval"]
    columns += [f"published{of}"] if shown["accuracy"] else []
    columns += ["parameters", *(["published"] if shown["parameters"] else [])]
    columns += ["neurons" if graph else "units", *(["published"] if shown["units"] else []), "training", "time"]
    rows = []
    for arm, planned in each.spec["arms"].items():
        done = each.of(arm)
        if "stage" in planned or done.empty:
            continue
        figure, test = figures.get(arm, NOTHING), sorted(done["test_accuracy"].astype(float))
        if folds:
            score, spread = over[arm].mean, f"± {numbers.score(over[arm].two_sd, task).removesuffix(' %')}"
        else:
            low, high = (numbers.score(end, task).removesuffix(" %") for end in interval_of_median(test))
            score, spread = float(pd.Series(test).median()), f"{low} to {high}"
        units = done["widths"].map(total)
        rows.append((
            arm, str(len(done)), numbers.score(score, task), spread,
            *([_known(figure.accuracy, " %")] if shown["accuracy"] else []),
            numbers.count(float(done["parameters"].astype(float).median())),
            *([_known(figure.parameters)] if shown["parameters"] else []),
            numbers.count(float(units.median())), *([_known(figure.units)] if shown["units"] else []),
            numbers.si(float(done["training_flops"].astype(float).median()), "FLOP"),
            numbers.duration(float(done["seconds"].median())),
        ))  # fmt: skip
    what = "means over folds" if folds else "medians over trials"
    return Table(
        f"At the best validation epoch, {what}; size and cost of a trial are medians", tuple(columns), tuple(rows)
    )


def claimed(found: Mapping[str, Sequence[Claim]]) -> Table:
    """What a paper claims of each cell, and what came of it, a row a claim; where there are cells, their names lead."""
    rows = [
        (f"{cell}: {each.what}" if cell else each.what, each.published, each.ours, each.interval, _shown(each.verdict))
        for cell, claims in found.items()
        for each in claims
    ]
    return Table("Claims", ("claim", "published", "ours", "interval", "verdict"), tuple(rows))


def knobs(each: Evaluated, against: str) -> Table | None:
    """A row for each value of a knob that the plan itself names, where there are several."""
    task = each.data["task"]
    base = each.of(against) if against else each.done.iloc[:0]
    rows = []
    for arm in each.sizing:
        planned = each.spec["arms"][arm]
        named = planned.get("enqueue") or planned.get("sampler", each.spec.get("sampler")) == "grid"
        done = each.of(arm)
        if not named or done["knob"].nunique() < 2:
            continue
        last = each.epochs(arm).sort_values("epoch").groupby("trial_id").tail(1).set_index("trial_id")
        for knob in sorted(done["knob"].astype(float).unique()):
            same = done[done["knob"] == knob]
            ends = last.loc[same["trial_id"], "widths"].map(total)
            parameters, score = float(same["parameters"].astype(float).median()), float(same["test_accuracy"].median())
            changes: tuple[str, ...] = ()
            if len(base):
                points = score - float(base["test_accuracy"].median())
                change = parameters / float(base["parameters"].astype(float).median()) - 1
                changes = (
                    f"{100 * change:+.0f} %",
                    f"{points:+.3f}" if task == "regression" else f"{100 * points:+.2f}",
                )
            rows.append((
                arm, numbers.knob(knob), str(len(same)), numbers.score(score, task), numbers.count(parameters),
                numbers.count(float(ends.median())), *changes,
            ))  # fmt: skip
    if not rows:
        return None
    more = (f"against {against}", "R²" if task == "regression" else "points") if len(base) else ()
    columns = ("arm", "knob", "n", f"test {numbers.score_name(task)}", "parameters", "units at the end", *more)
    return Table("By the knob; size and score at the best validation epoch", columns, tuple(rows))


def by_start(each: Evaluated) -> list[Table]:
    """Of arms that differ in where they start: units over epochs, and each layer's at the end."""
    arms = [arm for arm in each.sizing if isinstance(each.spec["arms"][arm].get("start"), list) and len(each.of(arm))]
    if len(arms) < 2:
        return []
    last = int(each.history["epoch"].max())
    looked = sorted({max(1, round(last * share)) for share in (0, 0.1, 0.25, 0.5, 0.75, 1)})
    epochs = {arm: each.epochs(arm).sort_values("epoch") for arm in arms}
    rows = [
        (str(epoch), *(_around(of.loc[of["epoch"] == epoch, "widths"].map(total)) for of in epochs.values()))
        for epoch in looked
    ]
    ends = {arm: pd.DataFrame(list(of.groupby("trial_id").tail(1)["widths"])) for arm, of in epochs.items()}
    layers = list(map(str, ends[arms[0]]))
    means = "mean (least to most) over trials"
    return [
        Table(f"Units of all layers at the end of an epoch, {means}", ("epoch", *arms), tuple(rows)),
        Table(
            f"Units of each layer at the end, {means}",
            ("arm", *layers),
            tuple((arm, *(_around(of[layer]) for layer in layers)) for arm, of in ends.items()),
        ),
    ]


def _around(values: pd.Series[int]) -> str:
    return f"{values.mean():.0f} ({values.min()} to {values.max()})" if len(values) else "-"


def _known(value: float | None, unit: str = "") -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}{unit}" if unit else numbers.count(value)


def _shown(verdict: str) -> str:
    return f"**{verdict}**" if verdict == MISSED else verdict
