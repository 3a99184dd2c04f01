"""The database of an evaluation: our tables beside Optuna's own, in SQLite or anything SQLAlchemy speaks.

Optuna keeps `studies` (named `PLAN/ARM`), `trials`, `trial_params` (the knob, or the widths a baseline drew) and
`trial_user_attributes`. Beside them stand the tables below; deleting a trial deletes its rows here.

    select architecture.layer, architecture.width from sizer_architectures architecture
    join trials using (trial_id) join studies using (study_id) where study_name = 'demo/shrinknets' and number = 3
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.engine import URL, make_url

from sizer.errors import InputError, SizerError

SCHEMA = 1
_T = TypeVar("_T")
_OPTUNA = {"studies", "trials", "trial_params", "trial_values", "trial_user_attributes", "version_info"}
_BUSY_SECONDS = 30.0

metadata = sa.MetaData()
# Optuna's own tables as far as we read them; it creates them, never we.
studies = sa.Table("studies", metadata, sa.Column("study_id", sa.Integer, primary_key=True),
                   sa.Column("study_name", sa.String))  # fmt: skip
trials = sa.Table("trials", metadata, sa.Column("trial_id", sa.Integer, primary_key=True),
                  sa.Column("number", sa.Integer), sa.Column("study_id", sa.Integer),
                  sa.Column("state", sa.String))  # fmt: skip
trial_params = sa.Table("trial_params", metadata, sa.Column("param_id", sa.Integer, primary_key=True),
                        sa.Column("trial_id", sa.Integer), sa.Column("param_name", sa.String),
                        sa.Column("param_value", sa.Float))  # fmt: skip
trial_user_attributes = sa.Table("trial_user_attributes", metadata,
                                 sa.Column("trial_user_attribute_id", sa.Integer, primary_key=True),
                                 sa.Column("trial_id", sa.Integer), sa.Column("key", sa.String),
                                 sa.Column("value_json", sa.Text))  # fmt: skip
study_system_attributes = sa.Table("study_system_attributes", metadata,
                                   sa.Column("study_system_attribute_id", sa.Integer, primary_key=True),
                                   sa.Column("study_id", sa.Integer), sa.Column("key", sa.String),
                                   sa.Column("value_json", sa.Text))  # fmt: skip


def _trial_id() -> sa.Column[int]:
    return sa.Column("trial_id", sa.Integer, sa.ForeignKey("trials.trial_id", ondelete="CASCADE"), primary_key=True)


schema = sa.Table("sizer_schema", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))

plans = sa.Table(
    "sizer_plans", metadata,
    sa.Column("name", sa.String(255), primary_key=True, doc="the evaluation; its studies are named NAME/ARM"),
    sa.Column("spec", sa.Text, nullable=False, doc="the plan as JSON"),
    sa.Column("data", sa.Text, nullable=False, doc="what the data was, as JSON: task, shapes, preprocessing"),
    sa.Column("created", sa.String(32), nullable=False, doc="when it began, UTC, ISO 8601"),
)  # fmt: skip

history = sa.Table(
    "sizer_history", metadata, _trial_id(),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False, doc="counts from 1"),
    *(sa.Column(f"{part}_{what}", sa.Float(53)) for part in ("train", "val", "test") for what in ("loss", "accuracy")),
    sa.Column("parameters", sa.BigInteger, doc="weights and biases of the network as it then was"),
    sa.Column("flops", sa.BigInteger, doc="of one sample's forward pass"),
    sa.Column("training_flops", sa.BigInteger, doc="spent on training since the trial began"),
    sa.Column("seconds", sa.Float(53), doc="since the trial began"),
    sa.Column("peak_memory", sa.BigInteger, doc="bytes"),
    sa.Column("units", sa.BigInteger, doc="the sum of the widths"),
    sa.Column("widths", sa.Text, doc="layer -> width as JSON, in the order the layers run"),
)  # fmt: skip

architectures = sa.Table(
    "sizer_architectures", metadata, _trial_id(),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False, doc="0 for the layer that runs first"),
    sa.Column("layer", sa.String(255), nullable=False, doc="the submodule's path"),
    sa.Column("width", sa.BigInteger, nullable=False, doc="its units at the trial's best epoch"),
)  # fmt: skip

weights = sa.Table(
    "sizer_weights", metadata, _trial_id(),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("artifact_id", sa.String(64), nullable=False, doc="the file's name in X.files/artifacts"),
    sa.Column("sha256", sa.String(64), nullable=False),
)  # fmt: skip

leases = sa.Table(
    "sizer_leases", metadata,
    sa.Column("plan", sa.String(255), primary_key=True),
    sa.Column("token", sa.String(64), nullable=False, doc="what every write of the holder must show"),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("machine", sa.String(255), nullable=False, doc="tells hosts of one name, and reboots, apart"),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started", sa.String(64), nullable=False, doc="when the process began: a pid is used again"),
    sa.Column("since", sa.String(32), nullable=False, doc="UTC, ISO 8601"),
    sa.Column("expires", sa.Float(53), nullable=False, doc="seconds since 1970"),
)  # fmt: skip

OURS = (schema, plans, history, architectures, weights, leases)


class Database:
    """One database, and the folder of files beside it.

    Attributes:
        url: Where it is.
        files: The folder for what is no row: `artifacts/` and `runs/`. Beside SQLite's `X.db` it is `X.files`;
            of a database server it is `DATABASE.files` in the current folder.
        engine: SQLAlchemy's engine; on SQLite with WAL, synchronous=NORMAL and foreign keys on every connection.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        if url.get_backend_name() == "sqlite":
            path = Path(url.database or "").resolve()
            self.files = path.with_suffix(".files")
            self._arguments: dict[str, object] = {"creator": lambda: _connect(path)}
        else:
            self.files = Path(f"{url.database}.files").resolve()
            self._arguments = {"pool_pre_ping": True, "pool_recycle": 1800}
        self.engine = sa.create_engine(url, **self._arguments)
        self._storage: BaseStorage | None = None

    @property
    def storage(self) -> BaseStorage:
        """Optuna's storage in this database; the tables must exist."""
        if self._storage is None:
            self._storage = get_storage(self._rdb(ready=True))
        return self._storage

    @property
    def artifacts(self) -> Path:
        """Where weights are kept, in the form of Optuna's FileSystemArtifactStore."""
        return self.files / "artifacts"

    @property
    def runs(self) -> Path:
        """Where the trials in flight keep their state."""
        return self.files / "runs"

    def create(self) -> None:
        """Makes whatever tables and folders are missing. Safe to repeat, and while another does the same."""
        for attempt in range(6):
            try:
                self._rdb(ready=False)
                metadata.create_all(self.engine, tables=list(OURS))
                with self.engine.begin() as connection:
                    if connection.scalar(sa.select(schema.c.version)) is None:
                        connection.execute(schema.insert().values(version=SCHEMA))
                break
            except (sa.exc.OperationalError, sa.exc.IntegrityError, sa.exc.ProgrammingError) as error:
                # Two processes that create the same tables at once trip over each other once.
                if ("exist" not in str(error) and "UNIQUE" not in str(error).upper()) or attempt == 5:
                    raise
                time.sleep(0.3)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.runs.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Gives the connections back."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage = None
        self.engine.dispose()

    def _rdb(self, *, ready: bool) -> RDBStorage:
        url = self.url.render_as_string(hide_password=False)
        try:
            return RDBStorage(
                url, engine_kwargs=dict(self._arguments), skip_table_creation=ready, skip_compatibility_check=ready
            )
        except RuntimeError as error:
            line = str(error).splitlines()[0]
            raise InputError(f"Optuna cannot use the database {self.url}: {line}") from None


def open_database(source: str | Path | Database) -> Database:
    """Opens a database that holds a sweep already.

    Args:
        source: The path of an SQLite file, or an SQLAlchemy URL.

    Raises:
        InputError: It is not there, or it is somebody else's. It is left as it was.
    """
    database, fresh = locate(source)
    if fresh:
        raise InputError(f"no sweep in {database.url.render_as_string()}: `sizer sweep PLAN --db ...` makes one")
    return database


def locate(source: str | Path | Database) -> tuple[Database, bool]:
    """Finds a database and whether it is still to be made by `Database.create`; touches nothing.

    Raises:
        InputError: It is somebody else's, or can be none.
    """
    if isinstance(source, Database):
        return source, False
    try:
        url = make_url(str(source)) if "://" in str(source) else URL.create("sqlite", database=str(Path(source)))
        database = Database(url)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
        raise InputError(f"{source} is no database that can be opened: {_first_line(error)}") from None
    with plain_errors(database):
        return database, _check_ours(database)


@contextlib.contextmanager
def plain_errors(database: Database) -> Iterator[None]:
    """Turns what a disk or a database refuses into one line.

    Raises:
        InputError: The disk is full or read-only, or the database does not answer.
    """
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        raise InputError(f"the database {database.url} refused: {_first_line(error)}") from None
    except sqlite3.Error as error:
        raise InputError(f"the database {database.url} refused: {error}") from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise InputError(f"{error.strerror or error}{where}: is the disk full or read-only?") from None


def retried(action: Callable[[], _T]) -> _T:
    """Does a database action again for some seconds while the database is locked or its connection was lost."""
    for wait in (0.2, 0.5, 1.0, 2.0):
        try:
            return action()
        except sa.exc.OperationalError as error:
            if not error.connection_invalidated and "locked" not in str(error):
                raise
            time.sleep(wait)
    return action()


def _connect(path: Path) -> sqlite3.Connection:
    if path.exists() and not os.access(path.parent, os.W_OK):
        # WAL wants a file beside the database even to read; where none can be made, nobody writes either.
        return sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _check_ours(database: Database) -> bool:
    """Whether the database is still to be made; refuses one that is somebody else's without touching it."""
    url = database.url
    version = None
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "").resolve()
        if not url.database or url.database == ":memory:":
            raise InputError("a sweep needs a database that stays: give the path of a file, such as sizer.db")
        if path.is_dir() or not path.parent.is_dir():
            raise InputError(f"{path} cannot be a database: {'it is a folder' if path.is_dir() else 'no such folder'}")
        if not path.exists() or path.stat().st_size == 0:
            return True
        # SQLite alone may open the file: closing it by other means drops this process's locks on it, and another
        # process would then delete the log that a sweep is writing.
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as reader:
            try:
                tables = {name for (name,) in reader.execute("select name from sqlite_master where type = 'table'")}
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                raise InputError(f"{path} is not an SQLite database: name another file with --db") from None
            if schema.name in tables:
                version = next(iter(reader.execute("select version from sizer_schema")), (None,))[0]
    else:
        with database.engine.connect() as connection:
            tables = set(sa.inspect(connection).get_table_names())
            if schema.name in tables:
                version = connection.scalar(sa.select(schema.c.version))
    if version is not None and version > SCHEMA:
        raise InputError(f"{url} was made by a newer sizer (schema {version}, this one knows {SCHEMA}): upgrade sizer")
    if tables and not tables & _OPTUNA:
        shown = ", ".join(sorted(tables)[:3])
        raise InputError(f"{url} holds other tables ({shown}) and no sweep: name another file with --db")
    return version is None


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__


class LostDatabaseError(SizerError):
    """Another driver writes this evaluation now; nothing more was written here."""
