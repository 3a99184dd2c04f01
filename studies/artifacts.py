"""The places of the evaluations in a database, and all of them together as the artifact store of Optuna Dashboard."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from typing import BinaryIO

import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound

from sizer.errors import InputError
from studies.database import Database
from studies.files import ARTIFACTS, Files, at, place_of
from studies.tables import plans


def files_of(database: Database, plan: str) -> Files:
    """Where the files of an evaluation lie: where they began, or else beside the database."""
    with database.engine.connect() as connection:
        place = connection.scalar(sa.select(plans.c.files).where(plans.c.name == plan))
    return at(place or str(database.files))


def settled(database: Database, plan: str, given: str | None) -> tuple[Files, str | None]:
    """Where the files of an evaluation lie from its first trial on.

    Args:
        database: Where the evaluation is, or will be.
        plan: Its name.
        given: The place as the user named it, for the files of many evaluations, be they of one database or of
            several; each has a folder of its own there. None is beside the database.

    Returns:
        The files, and their place for the database to keep; None for a folder beside the database, which moves
        with it.
    """
    with database.engine.connect() as connection:
        known = connection.execute(sa.select(plans.c.files).where(plans.c.name == plan)).first()
    if known is not None:
        return at(known.files or str(database.files)), known.files
    default = str(database.files)
    if given is not None:
        place = f"{place_of(given)}/{plan.replace('/', '+')}-{secrets.token_hex(4)}"
        return at(place), place
    # What is beside an SQLite file moves with it; a server has no such place.
    return at(default), None if database.is_file else default


def looked_at(database: Database, plan: str | None, given: str | None) -> Files | None:
    """The place that every machine must see, before anything of an evaluation is written.

    Args:
        database: Where the evaluation is, or will be.
        plan: Its name; None where the database has no tables yet.
        given: The place as the user named it.

    Returns:
        None where nobody said it, and the database is a server, beside which there is no place.
    """
    if plan is not None and (files := files_of(database, plan)).place != str(database.files):
        return files
    if given is not None:
        return at(place_of(given))
    return at(str(database.files)) if database.is_file else None


def elsewhere(files: Files, given: str | None) -> str:
    """One line where the user names another place than that where the files have begun to lie, else nothing."""
    if given is None or files.place == place_of(given) or files.place.rpartition("/")[0] == place_of(given):
        return ""
    return f"its files stay in {files.place}, where they began"


class Artifacts:
    """The kept weights of all evaluations of a database, as Optuna's ArtifactStore; and what users attach."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The bytes of an artifact.

        Raises:
            ArtifactNotFound: No evaluation has it.
        """
        for files in self._places():
            with contextlib.suppress(FileNotFoundError, InputError):
                return files.open(f"{ARTIFACTS}/{artifact_id}")
        raise ArtifactNotFound(f"there is no artifact {artifact_id!r}")

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keeps what a user attached, beside the database."""
        home = at(str(self._database.files))
        home.make(ARTIFACTS)
        home.put(content_body, f"{ARTIFACTS}/{artifact_id}")

    def remove(self, artifact_id: str) -> None:
        """Removes an artifact wherever it is."""
        for files in self._places():
            with contextlib.suppress(InputError):
                files.remove(f"{ARTIFACTS}/{artifact_id}")

    def _places(self) -> Sequence[Files]:
        with self._database.engine.connect() as connection:
            named = connection.scalars(sa.select(plans.c.files).distinct()).all()
        return [at(place) for place in dict.fromkeys([str(self._database.files), *(each for each in named if each)])]
