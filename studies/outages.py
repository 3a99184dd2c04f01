"""What a disk or a database refuses: waited for while it may pass, and one line where it does not."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from sizer.errors import InputError, SizerError

if TYPE_CHECKING:
    from studies.database import Database

LASTS = 300.0
"""For how many seconds a database that does not answer is asked again."""

_WAITS = (0.2, 0.5, 1.0, 2.0, 5.0)
# Classes of SQLSTATE that no waiting mends: a wrong password, no such database.
_FOR_EVER = ("28", "3D")
_T = TypeVar("_T")
REFUSALS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, StorageInternalError)
"""What SQLAlchemy raises, and Optuna makes of it, where a database does not answer."""


class LostDatabaseError(SizerError):
    """Another driver writes this evaluation now; nothing more was written here."""


class RefusedError(InputError):
    """A database does not answer, or refuses what it is asked."""


def retried(action: Callable[[], _T], waiting: Callable[[str], None] = lambda line: None, lasts: float = LASTS) -> _T:
    """Does a database action again while the database is locked, restarts or cannot be reached.

    Args:
        action: Can be done twice, as its first time may have been committed though the answer was lost.
        waiting: Told before each wait why there is one; what it raises ends it.
        lasts: For how many seconds.
    """
    until = time.monotonic() + lasts
    for attempt in range(10**9):
        try:
            return action()
        except REFUSALS as error:
            if not passes(error) or time.monotonic() > until:
                raise
            waiting(f"the database does not answer ({first_line(error)}): trying again for up to {lasts / 60:.0f} min")
        time.sleep(_WAITS[min(attempt, len(_WAITS) - 1)])
    raise AssertionError


def passes(error: BaseException) -> bool:
    """Whether what a database refused may be done a while later."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if not isinstance(cause, sa.exc.DBAPIError):
        return isinstance(cause, sa.exc.TimeoutError)
    if isinstance(cause.orig, sqlite3.Error):
        return "locked" in str(cause.orig) or "busy" in str(cause.orig)
    if not isinstance(cause, sa.exc.OperationalError | sa.exc.InterfaceError):
        return cause.connection_invalidated
    state = getattr(cause.orig, "sqlstate", None) or ""
    return not state.startswith(_FOR_EVER) and "authentication failed" not in str(cause.orig)


@contextlib.contextmanager
def plain_errors(database: Database) -> Iterator[None]:
    """Turns what a disk or a database refuses into one line.

    Raises:
        InputError: The disk is full or read-only.
        RefusedError: The database does not answer.
    """
    try:
        yield
    except (*REFUSALS, sa.exc.ProgrammingError, sa.exc.InternalError) as error:
        raise RefusedError(f"the database {database.url} refused: {first_line(error)}") from None
    except sqlite3.Error as error:
        raise RefusedError(f"the database {database.url} refused: {error}") from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise InputError(f"{error.strerror or error}{where}: is the disk full or read-only?") from None


def first_line(error: BaseException) -> str:
    """What the database itself said, without SQLAlchemy's and Optuna's words around it."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__


class PatientStorage(RDBStorage):
    """Optuna's storage, which asks again while the database does not answer.

    New studies and trials are made once: whether one was made already, only who asked for it can tell.

    Attributes:
        waiting: As `retried` takes it.
    """

    waiting: Callable[[str], None] = staticmethod(lambda line: None)


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @functools.wraps(method)
    def again(self: PatientStorage, *values: Any, **named: Any) -> Any:
        return retried(lambda: method(self, *values, **named), self.waiting)

    return again


for _name in (
    "set_study_user_attr", "set_study_system_attr", "get_study_id_from_name", "get_study_name_from_id",
    "get_study_directions", "get_study_user_attrs", "get_study_system_attrs", "get_all_studies", "_set_trial_param",
    "get_trial_id_from_study_id_trial_number", "_get_best_trial_id", "set_trial_state_values",
    "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr", "get_trial", "_get_trials",
):  # fmt: skip
    setattr(PatientStorage, _name, _patient(_name))
