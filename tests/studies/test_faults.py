"""Faults that are really caused: the driver killed, a worker killed, Ctrl-C, a full disk. Afterwards all is whole."""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from sizer.errors import InputError
from studies.sweep import run
from tests.postgres import Postgres
from tests.studies.clusters import below
from tests.studies.driven import sweep, workers_of
from tests.studies.sweeps import ARMS, Seen, check_whole, rows, small_plan

pytestmark = pytest.mark.alone

# Long enough to be hit in the middle: an epoch takes some 50 ms.
LONG: dict[str, Any] = {"epochs": 12, "trials": 2, "batch_size": 16, "widths": [40]}


@pytest.mark.usefixtures("ray_here")
def test_a_killed_driver_loses_nothing_and_the_same_command_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sweep(path, **LONG) as first:
        first.until("epoch", 7)
        first.kill()
    told = {(arm, int(number), int(epoch)) for arm, number, epoch, _ in first.of("epoch")}
    written = rows(path, "select study_name, number, epoch from sizer_history join trials using (trial_id)"
                         " join studies using (study_id)")  # fmt: skip
    assert {(arm.rpartition("/")[2], number, epoch) for arm, number, epoch in written} >= told
    assert rows(path, "select distinct state from trials") == [("RUNNING",)]

    seen = Seen()
    plan = small_plan(**LONG)
    outcome = run(plan, path, watch=seen)
    assert outcome.left == 0
    check_whole(path, plan)
    again = {(arm, int(number), int(epoch)) for arm, number, epoch, _ in seen.of("epoch")}
    # What was written is not trained again: the run's own state is at least as far.
    assert not again & told
    assert sum(len(each) for each in (again, told)) >= 4 * 12 - 4


@pytest.mark.soak
def test_a_killed_worker_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sweep(path, **LONG) as running:
        running.until("epoch", 8)
        victims = workers_of(running.process.pid)
        assert victims
        os.kill(victims[0], signal.SIGKILL)
        code, error = running.end()
    assert (code, error) == (0, "")
    check_whole(path, small_plan(**LONG))
    (note,) = running.of("note")
    assert "its worker died; it goes on after epoch" in note[0]
    assert len(running.of("epoch")) == 4 * 12
    assert running.of("done") == [["0", ""]]


# Epochs of seconds, whose end an interruption must not wait for.
SLOW: dict[str, Any] = {"batch_size": 1, "trials": 1, "arms": {"fixed": {"widths": {"low": 150, "high": 200}}}}


@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_ctrl_c_ends_it_at_once_and_it_goes_on_later(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sweep(path, **SLOW) as running:
        running.until("epoch", 1)
        began = time.monotonic()
        # A terminal sends it to the whole group, Ray included.
        os.killpg(running.process.pid, signal.SIGINT)
        code, error = running.end()
        assert time.monotonic() - began < 10
    assert (code, error) == (0, "")
    assert running.of("done") == [["1", "interrupted"]]
    assert rows(path, "select epoch from sizer_history")[: len(running.of("epoch"))] == [(1,)]
    assert rows(path, "select * from sizer_leases") == []
    run(small_plan(**SLOW), path, watch=Seen())
    check_whole(path, small_plan(**SLOW))


@pytest.mark.soak
def test_sigterm_ends_it_like_ctrl_c_and_no_process_below_it_knew_a_password(tmp_path: Path) -> None:
    word = "planted-" + secrets.token_hex(8)
    planted = {
        "SIZER_DB": f"postgresql://me:{word}@host/db", "PGPASSWORD": word, "SIZER_TOKEN": word, "SMTP_PASSWORD": word,
        "SIZER_READ_TOKENS": word, "HTTPS_PROXY": f"http://me:{word}@proxy:3128", "RAY_AUTH_TOKEN": word,
    }  # fmt: skip
    with sweep(tmp_path / "x.db", environment=planted, **SLOW) as running:
        running.until("epoch", 1)
        pids = [pid for pid in below(running.process.pid) if pid != running.process.pid]
        assert len(pids) > 5
        assert workers_of(running.process.pid)
        told = [Path(f"/proc/{pid}/{file}") for pid in pids for file in ("environ", "cmdline")]
        (session,) = {
            match for pid in pids for match in re.findall(r"[^=\0]*/session_[\d_-]+", _text(f"/proc/{pid}/cmdline"))
        }
        kept = [path for path in Path(session).rglob("*") if path.is_file() and not path.is_symlink()]
        assert kept
        assert [path for path in (*told, *kept) if word in _text(path)] == []
        began = time.monotonic()
        running.process.terminate()
        assert running.end() == (0, "")
        assert time.monotonic() - began < 10
    assert running.of("done") == [["1", "interrupted"]]


@pytest.mark.usefixtures("ray_here")
def test_a_timeout_ends_like_an_interruption_and_says_so(tmp_path: Path) -> None:
    plan = small_plan(**{**LONG, "epochs": 100000})
    began = time.monotonic()
    outcome = run(plan, tmp_path / "x.db", watch=Seen(), timeout=1)
    assert time.monotonic() - began < 30
    assert (outcome.stopped, outcome.left) == ("timeout", 4)


@pytest.mark.usefixtures("ray_here")
def test_a_disk_that_refuses_a_worker_is_one_line_and_leaves_the_trial_to_be_done(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    (tmp_path / "x.files" / "runs").mkdir(parents=True)
    in_the_way = tmp_path / "x.files" / "runs" / "small+fixed-0"
    in_the_way.write_text("a file where the run's folder would be")
    plan = small_plan(arms={"fixed": ARMS["fixed"]}, trials=1)
    with pytest.raises(InputError, match=r"small\+fixed-0") as caught:
        run(plan, path, watch=Seen())
    assert "\n" not in str(caught.value)
    in_the_way.unlink()
    run(plan, path, watch=Seen())
    check_whole(path, plan)


@pytest.mark.soak
def test_a_server_that_is_away_for_20_seconds_and_a_killed_driver_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = small_plan(**LONG)
    with Postgres() as server:
        place = server.create()
        with sweep(place, **LONG) as first:
            first.until("epoch", 3)
            server.stop(signal.SIGKILL)
            time.sleep(20)
            server.start()
            first.until("epoch", 6)
            first.kill()
        assert any("the database does not answer" in line for (line,) in first.of("note"))
        with sweep(place, **LONG) as second:
            second.until("epoch", 3)
            server.stop(signal.SIGINT)
            time.sleep(2)
            server.start()
            assert second.end() == (0, "")
        assert second.of("done") == [["0", ""]]
        check_whole(place, plan)


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # a process that has ended, a socket
        return ""
