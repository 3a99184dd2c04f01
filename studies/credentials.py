"""Where a database's password comes from: the environment or a file, never a command line.

A URL in `SIZER_DB` may hold it. Else it is read from the file that `SIZER_DB_PASSWORD_FILE` names, and else libpq looks
where it always does: `PGPASSWORD`, `PGPASSFILE`, `~/.pgpass`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from sizer.errors import InputError

FILE = "SIZER_DB_PASSWORD_FILE"
SECRETS = ("SIZER_DB", "PGPASSWORD", "SIZER_TOKEN", "RAY_AUTH_TOKEN")
"""Variables that may hold a secret: processes that need none of them are started without them."""

_REMEDY = f"leave it out and name the file that holds it in {FILE}, or use ~/.pgpass"


def refuse_on_command_line(source: str) -> None:
    """Refuses a URL with a password in an argument: everyone on the machine can read it there.

    Raises:
        InputError: It has one.
    """
    if "://" in source and source != hidden(source):
        raise InputError(f"{hidden(source)} on the command line shows its password to everyone here: {_REMEDY}")


def resolved(source: str) -> URL:
    """The URL of a database, with the password that belongs to it; PostgreSQL is spoken to by psycopg.

    Raises:
        sqlalchemy.exc.ArgumentError: It is no URL.
        InputError: The file of the password cannot be read, or is empty.
    """
    url = make_url(source)
    if url.drivername in {"postgresql", "postgres"}:
        url = url.set(drivername="postgresql+psycopg")
    if "password" in url.query:
        url = url.set(password=str(url.query["password"])).difference_update_query(["password"])
    named = os.environ.get(FILE)
    if url.get_backend_name() != "postgresql" or url.password is not None or not named:
        return url
    try:
        password = Path(named).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{FILE}={named} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not password:
        raise InputError(f"{FILE}={named} is empty: it should hold the database's password and nothing else")
    return url.set(password=password)


def hidden(source: str) -> str:
    """A URL as it may be shown, whether it can be parsed or not."""
    masked = re.sub(r"(://[^:/@\s]*):.*@", r"\1:***@", source)
    return re.sub(r"([?&](?:ssl)?password=)[^&\s]*", r"\1***", masked)
