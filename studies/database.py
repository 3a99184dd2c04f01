"""The database of an evaluation: our tables beside Optuna's own, in an SQLite file or on a PostgreSQL server."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage
from sqlalchemy.engine import URL

from sizer.errors import InputError, unknown
from studies import credentials, migrations
from studies.outages import PatientStorage, first_line, plain_errors, retried
from studies.storage import Storage
from studies.tables import SCHEMA, schema

_OPTUNA = {"studies", "trials", "trial_params", "trial_values", "trial_user_attributes", "version_info"}
_T = TypeVar("_T")
_BUSY_SECONDS = 30.0
# Who makes or changes tables on a PostgreSQL holds this lock; the number only has to be ours.
_MAKING = 0x51C30001
_SERVER: dict[str, object] = {
    "pool_pre_ping": True, "pool_recycle": 1800,
    # A server that is gone without a word is noticed within half a minute.
    "connect_args": {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
                     "tcp_user_timeout": 30000, "client_encoding": "utf8", "application_name": "sizer"},
}  # fmt: skip


class Database:
    """One database, and the folder of files beside it.

    Attributes:
        url: Where it is; shown without its password.
        files: The folder for what is no row, unless an evaluation has another place. Beside SQLite's `X.db` it is
            `X.files`; of a database server it is `DATABASE.files` in the current folder.
        engine: SQLAlchemy's engine; on SQLite with WAL, synchronous=NORMAL and foreign keys on every connection.
        waiting: Told why there is a wait, before each, where the database does not answer; what it raises ends it.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.waiting: Callable[[str], None] = lambda line: None
        self._guard = _Guard(url)
        self._storage: Storage | None = None
        if self.is_file:
            path = Path(url.database or "").resolve()
            self.files = path.with_suffix(".files")
            self._arguments: dict[str, object] = {"creator": lambda: _connect(path)}
        else:
            self.files = Path(os.environ.get("SIZER_FILES", ""), f"{url.database}.files").resolve()
            self._arguments = _SERVER
        self.engine = sa.create_engine(url, **self._arguments)
        weakref.finalize(self, self.engine.dispose)

    @property
    def is_file(self) -> bool:
        """Whether it is an SQLite file, not a server's."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def storage(self) -> BaseStorage:
        """Optuna's storage in this database; the tables must exist."""
        if self._storage is None:
            made = self._rdb(ready=True)
            made.waiting = lambda line: self.waiting(line)
            sa.event.listen(made.engine, "begin", self._guard)
            weakref.finalize(self, made.engine.dispose)
            self._storage = Storage(made)
        return self._storage

    def again(self, action: Callable[[], _T]) -> _T:
        """Does what can be done twice, and waits while the database does not answer; see `outages.retried`."""
        return retried(action, self.waiting)

    @contextlib.contextmanager
    def guarded(self, check: Callable[[sa.Connection], None]) -> Iterator[None]:
        """Has every transaction of Optuna's storage begin with a check that nobody else can overtake.

        Args:
            check: Raises where this process may not write any more.
        """
        self._guard.check = check
        try:
            yield
        finally:
            self._guard.check = None

    def create(self) -> None:
        """Makes whatever tables are missing. Safe to repeat, and while another does the same."""
        with self._making():
            self._rdb(ready=False).engine.dispose()
            self._migrate()

    def upgrade(self) -> None:
        """Brings Optuna's tables and ours to the versions that this code works with. All rows stay.

        Raises:
            InputError: A newer version made it.
        """
        with self._making(), _quiet():
            rdb = self._rdb(ready=True)
            if rdb.get_current_version() not in rdb.get_all_versions():
                raise InputError(f"{self.url} was made by a newer Optuna: upgrade optuna")
            rdb.upgrade()
            rdb.engine.dispose()
            self._migrate()

    def close(self) -> None:
        """Gives the connections back."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage._backend.engine.dispose()
            self._storage = None
        self.engine.dispose()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Database is not pickled: its URL may hold a password")

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        """Alone while tables are made: with a server's lock; SQLite's own is held a transaction at a time."""
        if self.is_file:
            yield
            return
        with self.engine.connect() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_lock(_MAKING)))
            yield  # the lock goes with the connection
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_MAKING)))

    def _migrate(self) -> None:
        with self.engine.connect() as connection, connection.begin():
            if self.is_file:  # Python begins no transaction of its own before a change of tables
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            migrations.upgrade(connection)

    def _rdb(self, *, ready: bool) -> PatientStorage:
        url = self.url.render_as_string(hide_password=False)
        for attempt in range(6):
            try:
                return PatientStorage(
                    url, engine_kwargs=dict(self._arguments), skip_table_creation=ready, skip_compatibility_check=ready
                )
            except RuntimeError as error:
                line = str(error).splitlines()[0]
                raise InputError(f"Optuna cannot use {self.url}: {line}; try `sizer db upgrade`") from None
            except (sa.exc.OperationalError, sa.exc.IntegrityError, sa.exc.ProgrammingError) as error:
                # Two processes that create Optuna's tables at once trip over each other once.
                if ("exist" not in str(error) and "UNIQUE" not in str(error).upper()) or attempt == 5:
                    raise
                time.sleep(0.3)
        raise AssertionError


class _Guard:
    """What a transaction of Optuna's storage begins with."""

    def __init__(self, url: URL) -> None:
        self.check: Callable[[sa.Connection], None] | None = None
        self._is_file = url.get_backend_name() == "sqlite"

    def __call__(self, connection: sa.Connection) -> None:
        if self.check is None:
            return
        if self._is_file:  # at once, so that nobody writes between the check and what it guards
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        self.check(connection)


def open_database(source: str | Path | Database) -> Database:
    """Opens a database that holds a sweep already.

    Args:
        source: The path of an SQLite file, or an SQLAlchemy URL.

    Raises:
        InputError: It is not there, or it is somebody else's. It is left as it was.
    """
    database, fresh = locate(source)
    if fresh:
        raise InputError(f"no sweep in {database.url}: `sizer sweep PLAN --db ...` makes one")
    return database


def open_study(name: str, db: str | Path | Database | None = None) -> optuna.Study:
    """The plain `optuna.Study` of an arm, for all that Optuna can do with one.

    Args:
        name: `PLAN/ARM`, or a study that is not ours.
        db: Its database; unless given that which the environment variable `SIZER_DB` names, or `sizer.db` here.

    Raises:
        InputError: There is no such database, or no such study; the line lists those there are.
    """
    database = open_database(os.environ.get("SIZER_DB", "sizer.db") if db is None else db)
    with plain_errors(database):
        try:
            return optuna.load_study(study_name=name, storage=database.storage)
        except KeyError:
            raise unknown("study", name, optuna.get_all_study_names(database.storage)) from None


def locate(source: str | Path | Database) -> tuple[Database, bool]:
    """Finds a database and whether it is still to be made by `Database.create`; touches nothing.

    Raises:
        InputError: It is somebody else's, or of another version, or can be none.
    """
    if isinstance(source, Database):
        return source, False
    database = named(source)
    version = version_of(database)
    if version is not None and version < SCHEMA:
        raise InputError(
            f"{database.url} was made by an older sizer (schema {version}, this one works with {SCHEMA}):"
            " back it up, then run `sizer db upgrade`"
        )
    return database, version is None


def named(source: str | Path) -> Database:
    """The database of a path or URL, not looked at.

    Raises:
        InputError: It can be none.
    """
    try:
        is_url = "://" in str(source)
        return Database(
            credentials.resolved(str(source)) if is_url else URL.create("sqlite", database=str(Path(source)))
        )
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError, ValueError) as error:
        shown = credentials.hidden(str(source))
        raise InputError(f"{shown} is no database that can be opened: {first_line(error)}") from None


def version_of(database: Database) -> int | None:
    """The version of our tables in a database; None where there are none.

    Raises:
        InputError: It is somebody else's, or a newer sizer's, or does not answer. It is left as it was.
    """
    with plain_errors(database):
        tables, version = _tables_of_file(database) if database.is_file else _tables_of_server(database)
    if version is not None and version > SCHEMA:
        raise InputError(
            f"{database.url} was made by a newer sizer (schema {version}, this one knows {SCHEMA}): upgrade sizer"
        )
    if tables and not tables & _OPTUNA:
        shown = ", ".join(sorted(tables)[:3])
        raise InputError(f"{database.url} holds other tables ({shown}) and no sweep: name another with --db")
    return version


def _tables_of_server(database: Database) -> tuple[set[str], int | None]:
    with database.engine.connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        return tables, connection.scalar(sa.select(schema.c.version)) if schema.name in tables else None


def _tables_of_file(database: Database) -> tuple[set[str], int | None]:
    path = Path(database.url.database or "").resolve()
    if not database.url.database or database.url.database == ":memory:":
        raise InputError("a sweep needs a database that stays: give the path of a file, such as sizer.db")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path} cannot be a database: {'it is a folder' if path.is_dir() else 'no such folder'}")
    if not path.exists() or path.stat().st_size == 0:
        return set(), None
    # SQLite alone may open the file: closing it by other means drops this process's locks on it, and another
    # process would then delete the log that a sweep is writing.
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as reader:
        try:
            tables = {name for (name,) in reader.execute("select name from sqlite_master where type = 'table'")}
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            raise InputError(f"{path} is not an SQLite database: name another file with --db") from None
        if schema.name not in tables:
            return tables, None
        return tables, next(iter(reader.execute("select version from sizer_schema")), (None,))[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Alembic's lines, which Optuna's settings of it would print."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _connect(path: Path) -> sqlite3.Connection:
    if path.exists() and not os.access(path.parent, os.W_OK):
        # WAL wants a file beside the database even to read; where none can be made, nobody writes either.
        return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level="IMMEDIATE")
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
