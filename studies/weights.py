"""Which weights of an arm are kept, and where: safetensors among the artifacts, attached to the arm's study.

Kept are the best epochs of the arm's three best trials, and every (trial, epoch) that is the best of the arm under some
limit on parameters, on FLOPs or on both. A file that falls out of these goes, with its entry. So `sizer_weights` alone
says what an arm's best and its front are, however many trials it has; a row without a file is of weights that are lost.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import optuna
import sqlalchemy as sa
from optuna.artifacts import ArtifactMeta

from sizer import Epoch
from sizer.errors import InputError
from sizer.history import choices
from studies.attempts import weights_of
from studies.database import Database
from studies.files import ARTIFACTS, PIECE, Files
from studies.lease import Lease
from studies.tables import history, trials, weights
from studies.tables import study_system_attributes as _attributes

TOP = 3
_FETCHED = 16
_PREFIX = "artifacts:"
_FILE = r"trial-\d+-epoch-\d+\.safetensors"


@dataclass(frozen=True)
class Left:
    """What a run has left: the place, the run's name, and the attempt whose reports were believed."""

    files: Files
    run: str
    attempt: str


@dataclass(frozen=True)
class Candidate:
    """One epoch of one trial, as the choice of weights sees it."""

    trial_id: int
    epoch: int
    val_accuracy: float
    parameters: int
    flops: int
    best: bool
    artifact_id: str | None = None


class Point(NamedTuple):
    """A (trial, epoch) among others, as `sizer.front` sees an epoch; `epoch` tells them apart, and earlier ones win."""

    epoch: int
    val_accuracy: float
    parameters: int
    flops: int


def note(
    database: Database, lease: Lease, study: optuna.Study, trial_id: int, epochs: Sequence[Epoch], best: Epoch
) -> None:
    """Writes down which epochs of a trial are to be kept, before anybody hears that it is complete.

    Whoever asks for the best between that and `keep` is told of them. Arguments as `keep` has them.
    """
    wanted = chosen([*_held(database, study), *(_candidate(trial_id, epoch, best) for epoch in epochs)])
    row = {"trial_id": trial_id, "study_id": study._study_id}
    rows = [{**row, "epoch": entry.epoch} for entry in wanted if entry.trial_id == trial_id]
    if rows:
        with database.engine.begin() as connection:
            lease.show(connection)
            connection.execute(weights.delete().where(weights.c.trial_id == trial_id))
            connection.execute(weights.insert(), rows)


def forget(database: Database, lease: Lease, trial_id: int) -> None:
    """Drops what `note` wrote of a trial that is not complete after all."""
    with database.engine.begin() as connection:
        lease.show(connection)
        connection.execute(weights.delete().where(weights.c.trial_id == trial_id))


def keep(database: Database, lease: Lease, study: optuna.Study, trial_id: int, number: int, epochs: Sequence[Epoch],
         best: Epoch, left: Left) -> list[str]:  # fmt: skip
    """Brings the arm's weights up to date with a trial that ended.

    Args:
        database: Where they are recorded.
        lease: Shown with every write.
        study: The arm's study; the files are attached to it, because a study can still be changed after its trials
            have ended.
        trial_id: The trial.
        number: Its number in the study, for the file's name.
        epochs: Its epochs, accuracies finite.
        best: Its best epoch.
        left: Where its run left the weights of its epochs.

    Returns:
        Lines for the user: weights that should be there and are not.
    """
    held = _held(database, study)
    here = {entry.epoch for entry in held if entry.trial_id == trial_id}
    fresh = [_candidate(trial_id, epoch, best) for epoch in epochs if epoch.epoch not in here]
    # The best of the whole arm is the best of what was kept so far and what is new: nothing returns to a front.
    wanted = chosen([*held, *fresh])
    notes = []
    for entry in wanted:
        if entry.trial_id != trial_id or entry.artifact_id is not None:
            continue
        try:
            _add(database, lease, study, entry, number, left)
        except FileNotFoundError:
            # Remembered, so that another trial's do not take its place as one of the best.
            _record(database, lease, study, entry)
            where = f"{left.files.place}/{left.run}"
            notes.append(f"{study.study_name}: no weights of trial {number}, epoch {entry.epoch}, in {where}")
    for entry in held:
        if entry not in wanted:
            _discard(database, lease, study, entry.artifact_id, left.files, _place(entry))
    return notes


def chosen(candidates: Sequence[Candidate]) -> set[Candidate]:
    """Whose weights are worth keeping: the top three trials' best epochs, and what is best under some limit."""
    bests = [entry for entry in candidates if entry.best]
    top = sorted(bests, key=lambda entry: (-entry.val_accuracy, entry.parameters, entry.trial_id))[:TOP]
    order = sorted(candidates, key=lambda entry: (entry.trial_id, entry.epoch))
    points = [Point(at, entry.val_accuracy, entry.parameters, entry.flops) for at, entry in enumerate(order)]
    return {order[point.epoch] for point in choices(points)} | set(top)


def kept_epochs(database: Database, trial_id: int) -> list[int]:
    """The epochs of a trial whose weights are kept."""
    own = sa.select(weights.c.epoch).where(weights.c.trial_id == trial_id, weights.c.artifact_id.is_not(None))
    with database.engine.connect() as connection:
        return list(connection.scalars(own.order_by(weights.c.epoch)))


def file_of(database: Database, files: Files, trial_id: int, epoch: int) -> Path:
    """The kept weights of one epoch of a trial; out of a bucket, a copy that this process keeps for a while.

    Raises:
        InputError: They were not kept, are gone from their place, or are not what was written.
    """
    with database.engine.connect() as connection:
        place = (weights.c.trial_id == trial_id) & (weights.c.epoch == epoch)
        row = connection.execute(weights.select().where(place)).first()
    called = f"the weights of trial {trial_id}, epoch {epoch}"
    if row is None:
        raise InputError(f"{called} were not kept: only the best are")
    if row.artifact_id is None:
        raise InputError(f"{called} were lost before they could be kept: train them again, with `sizer sweep --name`")
    name = f"{ARTIFACTS}/{row.artifact_id}"
    try:
        path = _fetched(files, name) if files.folder is None else files.folder / name
        with path.open("rb") if files.folder is None else files.open(name) as file:
            digest = _digest(file)
    except FileNotFoundError:
        raise InputError(f"{called} are gone: {files.place}/{name} does not exist") from None
    if digest != row.sha256:
        raise InputError(f"{called} were changed since: {files.place}/{name}")
    return path


def _held(database: Database, study: optuna.Study) -> list[Candidate]:
    """What is kept of complete trials."""
    whole = history.alias()
    best = sa.select(sa.func.max(whole.c.val_accuracy)).where(whole.c.trial_id == weights.c.trial_id)
    columns = (*weights.c, history.c.val_accuracy, history.c.parameters, history.c.flops)
    query = (
        sa.select(*columns, best.correlate(weights).scalar_subquery().label("highest"))
        .join(history, (history.c.trial_id == weights.c.trial_id) & (history.c.epoch == weights.c.epoch))
        .join(trials, trials.c.trial_id == weights.c.trial_id)
        .where(weights.c.study_id == study._study_id, trials.c.state == "COMPLETE")
    )
    with database.engine.connect() as connection:
        rows = connection.execute(query).all()
    # A trial's best epoch, as best_epoch() picks it: highest accuracy, then fewest parameters, then earliest.
    first: dict[int, tuple[int, int]] = {}
    for row in rows:
        if row.val_accuracy == row.highest:
            place = (row.parameters, row.epoch)
            first[row.trial_id] = min(first.get(row.trial_id, place), place)
    return [
        Candidate(row.trial_id, row.epoch, row.val_accuracy, row.parameters, row.flops,
                  first.get(row.trial_id, (0, 0))[1] == row.epoch, row.artifact_id)
        for row in rows
    ]  # fmt: skip


def _candidate(trial_id: int, epoch: Epoch, best: Epoch) -> Candidate:
    return Candidate(
        trial_id, epoch.epoch, epoch.val_accuracy, epoch.parameters, epoch.flops, epoch.epoch == best.epoch
    )


def drop_unrecorded(database: Database, lease: Lease, study: optuna.Study, files: Files) -> None:
    """Removes weights that a driver uploaded and was killed before it wrote them down."""
    attached = (_attributes.c.study_id == study._study_id) & _attributes.c.key.startswith(_PREFIX)
    with database.engine.connect() as connection:
        recorded = set(connection.scalars(sa.select(weights.c.artifact_id)))
        entries = connection.execute(sa.select(_attributes.c.value_json).where(attached)).scalars().all()
    # Optuna keeps the entry as JSON within JSON; null is what its dashboard leaves of a deleted one.
    for entry in (json.loads(json.loads(text) or "null") for text in entries):
        if entry and entry["artifact_id"] not in recorded and re.fullmatch(_FILE, entry["filename"]):
            _discard(database, lease, study, entry["artifact_id"], files)


def _add(database: Database, lease: Lease, study: optuna.Study, entry: Candidate, number: int, left: Left) -> None:
    source = weights_of(left.run, left.attempt, entry.epoch)
    with left.files.open(source) as content:
        digest = _digest(content)
    artifact_id = uuid.uuid4().hex
    named = f"trial-{number}-epoch-{entry.epoch}.safetensors"
    meta = ArtifactMeta(artifact_id=artifact_id, filename=named, mimetype="application/octet-stream", encoding=None)
    # The entry first, as Optuna's own upload does: a file is never there that nobody knows of.
    database.storage.set_study_system_attr(study._study_id, _PREFIX + artifact_id, json.dumps(asdict(meta)))
    left.files.copy(source, f"{ARTIFACTS}/{artifact_id}")
    _record(database, lease, study, entry, artifact_id=artifact_id, sha256=digest)


def _record(database: Database, lease: Lease, study: optuna.Study, entry: Candidate, **file: str) -> None:
    """Writes a row down, over what `note` has written."""
    row = {"trial_id": entry.trial_id, "epoch": entry.epoch, "study_id": study._study_id, **file}
    with database.engine.begin() as connection:
        lease.show(connection)
        connection.execute(weights.delete().where(_place(entry)))
        connection.execute(weights.insert().values(row))


def _place(entry: Candidate) -> sa.ColumnElement[bool]:
    return (weights.c.trial_id == entry.trial_id) & (weights.c.epoch == entry.epoch)


def _digest(content: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := content.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()


@cache
def _fetching() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sizer-weights-")


def _fetched(files: Files, name: str) -> Path:
    """A file of a bucket in a folder of this process, which holds the last few."""
    folder = Path(_fetching().name)
    for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-_FETCHED]:
        old.unlink(missing_ok=True)
    path = folder / f"{uuid.uuid4().hex}.safetensors"
    files.get(name, path)
    return path


def _discard(
    database: Database, lease: Lease, study: optuna.Study, artifact_id: str | None, files: Files,
    place: sa.ColumnElement[bool] | None = None,
) -> None:  # fmt: skip
    """Removes an artifact's file, its entry in the study, and the row at a place of the table."""
    if artifact_id is not None:
        files.remove(f"{ARTIFACTS}/{artifact_id}")
    entry = (_attributes.c.study_id == study._study_id) & (_attributes.c.key == f"{_PREFIX}{artifact_id}")
    with database.engine.begin() as connection:
        lease.show(connection)
        if place is not None:
            connection.execute(weights.delete().where(place))
        # Optuna has no call for it. The null that its dashboard writes instead breaks get_all_artifact_meta().
        connection.execute(_attributes.delete().where(entry))
