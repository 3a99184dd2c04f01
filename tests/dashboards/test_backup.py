"""The lines of docs/operations.md that back a database up and restore it, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from studies import selection
from studies.database import locate
from tests.dashboards.swept import small_plan, sweep_here
from tests.postgres import BIN

PAGE = Path(__file__).parents[2] / "docs/operations.md"


def lines(kind: str) -> tuple[list[str], list[str]]:
    """What the page says is to be typed, for one kind of database: to back up, and to restore."""
    section = PAGE.read_text().partition("## Back up")[2].partition("\n## ")[0]
    other = {"SQLite": "pg_", "PostgreSQL": "sqlite3"}[kind]
    typed = [line.strip().partition("   #")[0] for line in section.splitlines() if line.startswith("    ")]
    chosen = [line for line in typed if other not in line]
    at = next(number for number, line in enumerate(chosen) if "restore" in line)
    return chosen[:at], chosen[at:]


def test_what_was_backed_up_is_restored(place: str, tmp_path: Path) -> None:
    kind = "PostgreSQL" if place.startswith("postgresql") else "SQLite"
    path = place if kind == "PostgreSQL" else str(tmp_path / "sizer.db")
    sweep_here(small_plan(trials=1), path)  # type: ignore[arg-type]  # an address will do
    database = locate(path)[0]
    files, before = database.files, selection.best(path, "small").to_dict()
    database.close()
    (files / "runs" / "in-flight").mkdir()
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(BIN), str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    name = "sizer"
    if kind == "PostgreSQL":
        url = make_url(place)
        environment |= {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(url.port),
            "PGUSER": "sizer",
            "PGPASSWORD": str(url.password),
        }
        name = str(url.database)
        environment["SIZER_DB"] = place.replace(f":{url.password}@", "@")

    def run(line: str) -> str:
        typed = line.replace("FILES", str(files))
        typed = re.sub(r"(?<=[ =])sizer(?= |$)", name, typed)
        done = subprocess.run(
            typed, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (typed, done.stderr)
        return done.stdout

    back_up, restore = lines(kind)
    for line in back_up:
        run(line)
    shutil.rmtree(files)
    run("dropdb --force sizer" if kind == "PostgreSQL" else "rm sizer.db")
    said = [run(line) for line in restore]
    assert "all is well" in said[-1]
    assert not (files / "runs").exists()
    after = selection.best(path, "small")
    assert after.to_dict() == before
    selection.architecture(path, "small", after)


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
def test_the_page_says_how_to_do_both(kind: str) -> None:
    assert [len(typed) for typed in lines(kind)] == [3, 3]
