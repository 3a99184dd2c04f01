"""The report of an evaluation: one HTML file that opens offline, the same bytes as long as the data is the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboards import aims, figures, looks, numbers, rounds, sizing_figures, tables
from dashboards.page import bullets, page, plot, table
from sizer.errors import InputError
from studies.compare import Arm, Comparison, finished, ranked
from studies.target import Aim

METHOD = """
<p>A trial counts with its best validation epoch: accuracy, widths, parameters and weights all come from that epoch. The
test set chooses nothing. Trials that collapsed (a layer emptied) count with the epochs before; trials that failed are
named and do not count.</p>
<p>Medians and <b>quartiles</b> are over trials; <b>spread</b> is the interquartile range, tested with Brown-Forsythe.
<b>Chosen</b> is the test score of the trial with the best validation score. <b>Expected best of n</b> is that of the
best-validated among n of the trials drawn without replacement, computed exactly; its cost is n times the training
FLOPs spent for each of these trials, those of failed ones included. Training FLOPs count forward and backward passes.
<b>p median</b> is a two-sided Mann-Whitney U test; the interval is a percentile bootstrap of the difference of medians
(10,000 resamples, fixed seed); <b>params</b> is the sizing arm's median over the baseline's. <b>Half of trials</b> is
the epoch by which half of an arm's trials had reached the named validation score, the lowest of the arms' medians.</p>
<p>An axis marked "log error" spaces scores by the logarithm of what is missing to a perfect one, so that trials that
are all good can be told apart beside bad ones. In the figures: drag to zoom, double-click to go back, click an arm in
a legend to hide it, point at a mark to read its widths.</p>
"""

PRUNED = """
<p>Trials that were pruned are in no median, quartile or test: what was left of their arm is a selection. They do count
in the expected best of n, where n is of all trials: with what they had cost and reached, but behind every trial that
was trained to its end, as their weights are not kept. A sweep of fewer trials would have pruned others, so that for
such an arm this is exact for all its trials and an estimate for fewer.</p>
"""

ROUNDS = (
    "<p class='quiet'><b>Before</b> is the last epoch before the first round, <b>after</b> the first one with the "
    "widths of the last round that was kept.</p>"
)


def render(
    name: str,
    comparison: Comparison,
    trials: pd.DataFrame,
    history: pd.DataFrame,
    front: pd.DataFrame,
    description: str = "",
    facts: Mapping[str, str] | None = None,
    folds: Sequence[tables.Table] = (),
    starts: Mapping[str, Mapping[str, int]] | None = None,
    walks: Collection[str] = (),
    wanted: Mapping[str, Sequence[Aim]] | None = None,
    spec: Mapping[str, Any] | None = None,
    drawn: str = "",
    same: Sequence[tables.Table] = (),
) -> str:
    """The report as HTML.

    Args:
        name: the evaluation's name.
        comparison: of its arms (`studies.compare`).
        trials: one row a trial, `history` one a trial and epoch (`studies.query`), `front` of `studies.selection`.
        description: one line on the evaluation.
        facts: what else the head should say, label -> text.
        folds: what cross-validation says.
        starts: sizing arm -> layer -> the width that its networks started from, where that is known.
        walks: arms whose trials are the steps of a path.
        wanted: how far the plan's target is, arm by arm (`studies.target.by_arm`); then `spec` is the plan.
        drawn: HTML of the best network, where more can be drawn of it than its widths.
        same: sizes at equal validation score (`studies.equal`).
    """
    task = comparison.task
    colours = looks.colours(trials["arm"])
    sizing = [arm for arm in comparison.arms if arm.sizes and arm.finished]
    plots: dict[str, go.Figure] = {}
    body = [_head(name, description, facts or {}), _findings(comparison)]
    if any(arm.finished for arm in comparison.arms):
        plots["boxes"] = figures.distribution(trials, task, [arm.name for arm in comparison.arms if arm.dependent])
        plots["expected-trials"] = figures.expected_best(comparison, "trials")
        plots["expected-flops"] = figures.expected_best(comparison, "flops")
        counted = spec["target"].get("params", []) if spec and wanted else []
        plots["size"] = figures.size_against_accuracy(trials, front, task, walks, counted)
        body += [_folds(folds, colours)] if folds else []
        body += [_target(wanted, spec)] if wanted and spec else []
        body += [_distribution(comparison, colours), _expected(comparison)]
        body.append(_size(trials, comparison, colours, walks, bool(counted), drawn))
        body += [f"<section><h2>Equally good</h2>{''.join(map(table, same))}</section>"] if same else []
    for place, arm in enumerate(sizing):
        body.append(_sizing(arm, place, trials, history, plots, task))
    known = {arm.name: (starts or {})[arm.name] for arm in sizing if arm.name in (starts or {})}
    body += [_from_starts(same, place, trials, history, plots) for place, same in enumerate(_meeting(sizing, known))]
    body.append(_reduction(trials, known, plots))
    body.append(_methods(comparison))
    return page(f"sizer: {name}", "\n".join(body), plots)


def write(path: Path, html: str) -> bool:
    """Writes the report whole or not at all; returns False, and leaves the file alone, when it already says this.

    Raises:
        InputError: the folder does not exist, or the path is a folder.
        OSError: the disk is full or read-only.
    """
    content = html.encode("utf-8")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file, such as {path / 'report.html'}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: the folder {path.absolute().parent} does not exist; make it first")
    if path.is_file() and path.read_bytes() == content:
        return False
    try:
        _replace(path.absolute(), content)
    except OSError as error:
        # Named by the file that was asked for, not by the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from None
    return True


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _head(name: str, description: str, facts: Mapping[str, str]) -> str:
    said = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in facts.items())
    return f'<h1>{escape(name)}</h1>\n<p class="quiet">{escape(description)}</p>' + (f"<dl>{said}</dl>" if said else "")


def _findings(comparison: Comparison) -> str:
    return f"<section><h2>What came out</h2>{bullets(tables.findings(comparison))}</section>"


def _folds(folds: Sequence[tables.Table], colours: Mapping[str, str]) -> str:
    shown = "".join(table(content, colours) for content in folds)
    return (
        f"<section><h2>Cross-validation</h2>{shown}<p class='quiet'>Each fold is tested once, at its best validation "
        "epoch; validation chooses the point. An asterisk marks p below 1e-5, the paper's level.</p></section>"
    )


def _distribution(comparison: Comparison, colours: Mapping[str, str]) -> str:
    caption = (
        f"Test {numbers.score_name(comparison.task)} at the best validation epoch. Every trial is a point; the box "
        "spans the quartiles, its line is the median, the whiskers reach the worst and the best trial."
    )
    if any(arm.pruned for arm in comparison.arms):
        caption += " An open mark is a trial that was pruned, as it was then; it is in no box."
    if any(arm.dependent for arm in comparison.arms):
        caption += " Trials that depend on each other have no box."
    return (
        f"<section><h2>How the trials are distributed</h2>{plot('boxes', caption)}"
        f"{table(tables.accuracies(comparison), colours)}"
        + (table(tables.pairs(comparison)) if comparison.pairs else "")
        + "</section>"
    )


def _expected(comparison: Comparison) -> str:
    name = numbers.score_name(comparison.task)
    caption = f"Expected test {name} of the network that validation chooses among n trials"
    return (
        "<section><h2>Expected best of n trials</h2><div class='two'>"
        + plot("expected-trials", f"{caption}, against the number of trials.")
        + plot("expected-flops", f"{caption}, against the training FLOPs that they cost.")
        + "</div></section>"
    )


def _target(wanted: Mapping[str, Sequence[Aim]], spec: Mapping[str, Any]) -> str:
    """What came of the plan's target."""
    lines = aims.not_met(wanted, spec)
    said = bullets(lines) if lines else ""
    return f"<section><h2>Networks under budgets</h2>{table(aims.table(wanted, spec))}{said}</section>"


def _size(
    trials: pd.DataFrame,
    comparison: Comparison,
    colours: Mapping[str, str],
    walks: Collection[str],
    aimed: bool,
    drawn: str,
) -> str:
    name = numbers.score_name(comparison.task)
    caption = (
        f"A point is a trial. The dotted line joins the front over all trials and epochs: what "
        f"<code>sizer best --max-params</code> would choose by validation {name}, drawn at its test {name}."
    )
    if walks:
        caption += f" The steps of {escape(', '.join(walks))} are joined as they were walked, each with what all steps "
        caption += "up to it cost."
    if aimed:
        caption += " The upright lines are the budgets."
    return (
        f"<section><h2>Test {name} against size</h2>{plot('size', caption)}"
        f"{table(tables.costs(comparison), colours)}{_best(trials, comparison.task)}{drawn}</section>"
    )


def _best(trials: pd.DataFrame, task: str) -> str:
    """The network that validation chooses among all trials."""
    row: dict[Any, Any] = ranked(finished(trials)).iloc[0].to_dict()
    widths = ", ".join(f"{escape(layer)} <b>{width:,}</b>" for layer, width in row["widths"].items())
    return (
        f"<h3>Best architecture, chosen by validation {numbers.score_name(task)}</h3><p>{escape(row['arm'])} trial "
        f"{row['number']}, epoch {row['epoch']}: {widths}; {numbers.count(row['parameters'])} parameters, validation "
        f"{numbers.score(row['val_accuracy'], task)}, test {numbers.score(row['test_accuracy'], task)}.</p>"
    )


def _sizing(
    arm: Arm,
    place: int,
    trials: pd.DataFrame,
    history: pd.DataFrame,
    plots: dict[str, go.Figure],
    task: str,
) -> str:
    """One sizing arm: Figure 1, what its knob does, layer by layer too, and its rounds. Adds its plots to `plots`."""
    knob = str(trials.loc[trials["arm"] == arm.name, "knob_name"].iloc[0])
    plots[f"convergence-{place}"] = figures.convergence(history, arm.name, knob)
    plots[f"knob-{place}"] = figures.knob_effect(trials, arm.name, task)
    return (
        f"<section><h2>{escape(arm.name)}: how networks find their size</h2><div class='two'>"
        + plot(
            f"convergence-{place}",
            f"Units (all resizable layers together) and validation loss over epochs, for several values of "
            f"{escape(knob)}.",
        )
        + plot(
            f"knob-{place}",
            f"Parameters and test {numbers.score_name(task)} of every trial against {escape(knob)}.",
        )
        + "</div>"
        + _layers(arm, place, trials, plots, knob)
        + _rounds(arm, place, trials, history, plots, task)
        + "</section>"
    )


def _layers(arm: Arm, place: int, trials: pd.DataFrame, plots: dict[str, go.Figure], knob: str) -> str:
    """Final widths layer by layer, where there are layers to tell apart."""
    done = finished(trials)
    done = done[done["arm"] == arm.name]
    if max((len(widths) for widths in done["widths"]), default=0) < 2:
        return ""
    plots[f"layers-{place}"] = sizing_figures.sizes_against_knob(trials, arm.name)
    many = f", its colour {escape(knob)}; of many trials some are drawn, spread over its range"
    line = f"A line is a trial{many if done['knob'].nunique() > 1 else ''}."
    return plot(
        f"layers-{place}",
        f"Units of each layer at the best validation epoch. {line}",
        "Where each layer ends",
    )


def _rounds(
    arm: Arm, place: int, trials: pd.DataFrame, history: pd.DataFrame, plots: dict[str, go.Figure], task: str
) -> str:
    """What each round did, where the method noted rounds."""
    if sizing_figures.with_rounds(trials, arm.name).empty:
        return ""
    plots[f"rounds-{place}"] = sizing_figures.rounds(trials, history, arm.name, task)
    summed = rounds.summary(trials[trials["arm"] == arm.name], history, task)
    return plot(
        f"rounds-{place}",
        f"The network after each round and its retraining, before the first at 0; a cross is a round that was taken "
        f"back, an open circle one that was not decided. Validation {numbers.score_name(task)} decides.",
        "Round by round",
    ) + (table(summed) + ROUNDS if summed is not None else "")


def _meeting(sizing: Sequence[Arm], known: Mapping[str, Mapping[str, int]]) -> list[dict[str, Mapping[str, int]]]:
    """Arms of one method, for each method of which they start from different widths."""
    groups: dict[str, dict[str, Mapping[str, int]]] = {}
    for arm in sizing:
        if arm.name in known:
            groups.setdefault(arm.method, {})[arm.name] = known[arm.name]
    return [same for same in groups.values() if any(start != next(iter(same.values())) for start in same.values())]


def _from_starts(
    same: Mapping[str, Mapping[str, int]],
    place: int,
    trials: pd.DataFrame,
    history: pd.DataFrame,
    plots: dict[str, go.Figure],
) -> str:
    plots[f"starts-{place}"] = sizing_figures.widths_from_starts(history, trials, same)
    caption = "Units over epochs, from the start at 0. A line is a trial, its colour the arm."
    return f"<section><h2>From several starting widths</h2>{plot(f'starts-{place}', caption)}</section>"


def _reduction(trials: pd.DataFrame, known: Mapping[str, Mapping[str, int]], plots: dict[str, go.Figure]) -> str:
    """What went, of the arms whose chosen trial ends with fewer units than it started with."""
    done = finished(trials)
    best = {arm: ranked(done[done["arm"] == arm]).iloc[0] for arm in known}
    shrunk = {arm: start for arm, start in known.items() if sum(best[arm]["widths"].values()) < sum(start.values())}
    if not shrunk:
        return ""
    plots["reduction"] = sizing_figures.reduction_per_layer(trials, shrunk)
    caption = (
        "Share of each layer's starting units that is gone in the trial that validation chooses; below 0 a layer grew."
    )
    grown = [f"{escape(arm)} ended larger than it started and is left out." for arm in known if arm not in shrunk]
    return f"<section><h2>What each layer loses</h2>{plot('reduction', ' '.join([caption, *grown]))}</section>"


def _methods(comparison: Comparison) -> str:
    failed = tables.failures(comparison)
    named = f"<h3>Trials that gave no network</h3>{bullets(failed)}" if failed else ""
    pruned = PRUNED if any(arm.pruned for arm in comparison.arms) else ""
    return f'<section><h2>How this was computed</h2><div class="quiet">{METHOD}{pruned}</div>{named}</section>'
