"""`docs/results.md`: the papers' evaluations beside what was published, from the database, as Markdown."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboards import numbers, rounds, tables
from dashboards.budgets import spending
from dashboards.facts import facts
from dashboards.repeated import by_start, claimed, knobs, measured
from dashboards.source import Local
from dashboards.tables import Table, markdown
from sizer.errors import InputError
from studies import presets, query
from studies.claims import AS_PUBLISHED, MISSED, NOT_SETTLED, Claim, Evaluated, claims, ordered
from studies.compare import FEW, compare_plan
from studies.crossval import over_folds
from studies.equal import cuts, equals
from studies.papers import Published, published
from studies.plan import Plan, differences
from studies.reading import FULL, read_plan

UNEXPLAINED = "What was missed has no explanation here yet."
OVERRIDDEN = ("trials", "epochs", "seed")
"""What a sweep's command may say otherwise than its preset."""


@dataclass(frozen=True)
class Run:
    """An evaluation of a preset that the database has.

    Attributes:
        preset, scale, cell: Which; the cell is empty where there are none.
        name: In the database.
        evaluated: What came of it.
    """

    preset: str
    scale: str
    cell: str
    name: str
    evaluated: Evaluated


def results(source: Local, notes: Mapping[str, str], command: str) -> str:
    """The page.

    Args:
        source: The database.
        notes: Markdown: under `intro` for the top of the page, under a preset's or an evaluation's name for below it.
        command: What writes the page.

    Raises:
        InputError: The database has no evaluation of a preset, or a note is of none.
    """
    runs = [run for name in source.plan_names() if (run := _run(source, name)) is not None]
    if not runs:
        raise InputError("no evaluation of a preset in the database: `sizer sweep PRESET --scale small` makes one")
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (published(run.preset) is not None, run.preset, run.scale)):
        groups.setdefault((run.preset, run.scale), []).append(run)
    known = {"intro", *(each.name for each in runs), *(_heading(*group) for group in groups)}
    if strange := sorted(set(notes) - known):
        raise InputError(
            f"a note on {strange[0]}, of which the database has nothing: {', '.join(sorted(known))} are there"
        )
    found = {group: _claims(each) for group, each in groups.items()}
    lines = ["# Results", "", f"Written by `{command}` from the database of these sweeps; by hand are the first"
             " paragraphs and what stands under \"What to make of it\". The command of an evaluation repeats it, with"
             " `--arm NAME` one of its rows alone.", ""]  # fmt: skip
    lines += [notes["intro"].strip(), ""] if "intro" in notes else []
    lines += _summary(found)
    for (preset, scale), each in groups.items():
        lines += _section(source, preset, scale, each, found[preset, scale], notes)
    return "\n".join(lines).rstrip() + "\n"


def read_notes(path: Path) -> dict[str, str]:
    """The notes of a TOML file: name -> Markdown.

    Raises:
        InputError: There is no such file, or it holds something else.
    """
    if not path.is_file():
        raise InputError(f"no notes at {path}: name a .toml file of texts by preset or evaluation")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    for name, text in found.items():
        if not isinstance(text, str):
            raise InputError(f"{path}: {name} must be a text, got {text!r:.80}")
    return found


def _run(source: Local, name: str) -> Run | None:
    """What an evaluation is of the presets; None where it is of none, or nothing of it has ended."""
    base, _, cell = name.partition("/")
    preset, _, scale = base.partition(".")
    if preset not in presets.names() or _plan(preset, scale or FULL, cell) is None:
        return None
    spec, trials = source.spec(name), source.trials(name)
    trials = trials[trials["stage"] == ""]
    history = source.history(name)
    history = history[history["trial_id"].isin(trials["trial_id"])]
    evaluated = Evaluated(cell, spec, source.data(name), trials, history)
    return Run(preset, scale or FULL, cell, name, evaluated) if len(evaluated.done) else None


def _plan(preset: str, scale: str, cell: str, overrides: Mapping[str, Any] | None = None) -> Plan | None:
    """A cell of a preset; None where there is none, or no such scale."""
    try:
        (found,) = read_plan(f"{preset}/{cell}" if cell else preset, overrides, scale)
    except (InputError, ValueError):  # several are none
        return None
    return found


def _claims(runs: Sequence[Run]) -> dict[str, list[Claim]]:
    """What the paper of one preset claims, by evaluation; under the empty name, of all its cells together."""
    paper = published(runs[0].preset)
    if paper is None:
        return {}
    found = {run.name: claims(paper, run.evaluated) for run in runs}
    across = ordered(paper, [run.evaluated for run in runs])
    return {**found, "": [across] if across else []}


def _summary(found: Mapping[tuple[str, str], Mapping[str, Sequence[Claim]]]) -> list[str]:
    verdicts = (AS_PUBLISHED, NOT_SETTLED, MISSED)
    rows = []
    for group, by_run in found.items():
        counts = Counter(claim.verdict for each in by_run.values() for claim in each)
        if counts:
            heading = _heading(*group)
            rows.append((f"[{heading}](#{_anchor(heading)})", *(str(counts[verdict]) for verdict in verdicts)))
    table = Table("What the papers claim, and what came of it here", ("evaluation", *verdicts), tuple(rows))
    return markdown(table, "##") if rows else []


def _section(
    source: Local,
    preset: str,
    scale: str,
    runs: Sequence[Run],
    found: Mapping[str, Sequence[Claim]],
    notes: Mapping[str, str],
) -> list[str]:
    heading, paper = _heading(preset, scale), published(preset)
    lines = [f"## {heading}", "", str(runs[0].evaluated.spec.get("description", "")), ""]
    if paper is not None:
        lines += [f"Published: {paper.source}.", ""]
        lines += [f"- The paper says: {said}" for said in paper.says]
        lines += [f"- Otherwise than there: {line}" for line in paper.protocol]
        lines += [f"- {line}" for line in _missing(preset, paper, runs)]
    lines += [*(f"- In this scale: {line}" for line in _scaled(preset, runs)), ""]
    if any(found.values()):
        cells = {run.cell if len(runs) > 1 else "": found.get(run.name, ()) for run in runs}
        lines += markdown(claimed({"all": found.get("", ()), **cells}))
    if runs[0].evaluated.spec.get("max_training_flops"):
        left = [run.cell for run in runs if source.standing(run.name).state != "done"]
        lines += [f"Not done yet: {', '.join(left)}.", ""] if left else []
        runs = sorted((run for run in runs if run.cell not in left), key=lambda run: run.cell)
        commands = [_command(source, run) for run in runs]
        lines += [f"- {run.cell}: {changed}" for run in runs if (changed := _changed(run))]
        lines += spending([run.evaluated for run in runs], commands)
    else:
        for run in runs:
            lines += _cell(source, run, paper, found.get(run.name, []), notes)
    if heading in notes:
        lines += ["### What to make of it", "", notes[heading].strip(), ""]
    elif _misses(found.get("", ())):
        lines += [UNEXPLAINED, ""]
    return lines


def _cell(
    source: Local, run: Run, paper: Published | None, found: Sequence[Claim], notes: Mapping[str, str]
) -> list[str]:
    each, task = run.evaluated, run.evaluated.data["task"]
    lines = [f"### {run.cell}", ""] if run.cell else []
    lines += [f"    {_command(source, run)}", ""]
    lines += [_how(source, run), ""]
    published_of = paper.of(run.cell) if paper else {}
    lines += markdown(measured(each, published_of))
    lines += markdown(by_knob) if (by_knob := knobs(each, paper.against if paper else "")) else []
    if summed := rounds.summary(each.trials, each.history, task):
        lines += markdown(summed)
    for table in by_start(each):
        lines += markdown(table)
    if each.spec.get("folds") and len(arms := over_folds(each.done, each.spec["folds"])[0].widths) <= 8 and arms:
        lines += markdown(tables.mean_widths(over_folds(each.done, each.spec["folds"])))
    for cut in cuts(each.spec) if any(figures.ratios for figures in published_of.values()) else []:
        rows = equals(each.spec, each.trials, each.history, cut)
        lines += markdown(tables.equals(rows, task, cut)) if rows else []
    comparison = compare_plan(each.spec, each.trials, each.history, task=task)
    # Of few trials a table says as much as a test would.
    few = any(arm.finished < FEW for arm in comparison.arms if not (arm.pruned or arm.dependent))
    told = tables.findings(comparison) if comparison.pairs and not few else comparison.notes
    lines += [*(f"- {line}" for line in told), ""] if told and not each.spec.get("folds") else []
    if run.name in notes:
        lines += ["What to make of it:", "", notes[run.name].strip(), ""]
    elif _misses(found):
        lines += [UNEXPLAINED, ""]
    return lines


def _misses(found: Sequence[Claim]) -> bool:
    return any(claim.verdict == MISSED for claim in found)


def _how(source: Local, run: Run) -> str:
    """How it was trained, by what, and what all of it cost, in a sentence or two."""
    each = run.evaluated
    told = facts(each.spec, each.data)
    parts = []
    for row in query.origins(source.database, run.name).to_dict("records"):
        made = row["environment"]
        if not made and row["trials"] < len(each.trials):
            continue
        parts.append(
            f"{row['trials']} trials on {row['device'] or 'an unknown device'}"
            f" ({made.get('system', '?')}, torch {made.get('torch', '?')}) at {row['commit'] or 'an unknown commit'}"
            + (f", in packs of {made['pack']}" if "pack" in made else "")
        )
    flops, seconds = (each.trials[column].fillna(0).sum() for column in ("training_flops", "seconds"))
    state = source.standing(run.name).state
    unequal = f" Not equal: {told['not equal']}." if "not equal" in told else ""
    unfinished = "" if state == "done" else f" **Not done yet: {state}.**"
    return (
        f"{told['data']}; {told['network']}; {told['training']}.{unequal} {'; '.join(parts)}; "
        f"{numbers.si(flops, 'FLOP')} and {numbers.duration(seconds)} in all.{unfinished} {_changed(run)}".rstrip()
    )


def _command(source: Local, run: Run) -> str:
    """What repeats an evaluation, digit for digit where its trials trained alone."""
    plan, words = _plan(run.preset, run.scale, run.cell), [f"{run.preset}/{run.cell}" if run.cell else run.preset]
    assert plan is not None
    words += [f"--scale {run.scale}"] if run.scale != FULL else []
    for field in OVERRIDDEN:
        if (value := run.evaluated.spec[field]) != getattr(plan, field):
            words.append(f"--{field} {value}")
    made = query.origins(source.database, run.name)["environment"]
    return " ".join(["sizer sweep", *words, *([] if any("pack" in each for each in made) else ["--pack 1"])])


def _changed(run: Run) -> str:
    """Where the preset is no longer what the evaluation ran, in words; empty where it is."""
    spec = run.evaluated.spec
    plan = _plan(run.preset, run.scale, run.cell)
    assert plan is not None
    # A field of the arms' own goes where one is said for all; so only what differs is said.
    given = {field: spec[field] for field in OVERRIDDEN if spec[field] != getattr(plan, field)}
    plan = _plan(run.preset, run.scale, run.cell, given)
    assert plan is not None
    lines = differences(spec, plan.spec())
    for field in ("max_training_flops", "max_concurrent_trials"):
        if spec.get(field) != (now := getattr(plan, field)):
            lines.append(f"{field}: was {spec.get(field)}, now {now}")
    return f"**The preset has changed since: {'; '.join(lines)}.**" if lines else ""


def _scaled(preset: str, runs: Sequence[Run]) -> Iterator[str]:
    """Where evaluations differ from the preset at full scale, a line for all cells that differ alike."""
    full = {plan.name.partition("/")[2]: plan for plan in read_plan(preset)}
    said: dict[str, list[str]] = {}
    for run in runs:
        if line := _shrunk(full[run.cell], run.evaluated.spec):
            said.setdefault(line, []).append(run.cell)
    for line, cells in said.items():
        yield line + ("." if len(cells) == len(runs) else f" ({', '.join(cells)}).")


def _shrunk(full: Plan, spec: Mapping[str, Any]) -> str:
    before = full.spec()
    found, arms = [], dict[str, list[str]]()
    if before["trials"] != spec["trials"]:
        found.append(f"trials {spec['trials']} (full: {before['trials']})")
    for line in differences(before, spec):
        field, _, values = line.partition(": was ")
        was, _, now = values.partition(", now ")
        place, _, inner = field.removeprefix("arms.").partition(".")
        if f"{place}.{inner.partition('.')[0]}" in {**before["arms"], **spec["arms"]}:  # a stage goes by its arm
            continue
        if field.startswith("arms.") and not inner:
            found.append(f"without {place}")
        elif field.startswith("arms."):
            arms.setdefault(inner.partition(".")[0].replace("_", " "), []).append(place)
        elif field not in ("name", "data_sha256", "description"):
            found.append(f"{field.replace('_', ' ')} {now}" + ("" if was == "not there" else f" (full: {was})"))
    return ", ".join(found + [f"other {field} in {', '.join(dict.fromkeys(names))}" for field, names in arms.items()])


def _missing(preset: str, paper: Published, runs: Sequence[Run]) -> Iterator[str]:
    cells = [plan.name.partition("/")[2] for plan in read_plan(preset)]
    left = [cell for cell in cells if cell not in {run.cell for run in runs}]
    if simply := [cell for cell in left if cell not in paper.stands_for]:
        yield f"Not run: {', '.join(simply)}."
    if lacking := [f"{cell} ({paper.stands_for[cell]} stands for it)" for cell in left if cell in paper.stands_for]:
        yield f"Not run, as the data cannot be had here: {', '.join(lacking)}."


def _heading(preset: str, scale: str) -> str:
    return preset if scale == FULL else f"{preset}, {scale} scale"


def _anchor(heading: str) -> str:
    return "".join(each for each in heading.lower().replace(" ", "-") if each.isalnum() or each in "-_")
