"""Trials that fail by themselves: bugs, memory, no end. Each fails with its reason, and the others are trained."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sizer.errors import InputError
from studies import query, selection
from studies.artifacts import files_of
from studies.database import locate
from studies.files import at
from studies.plan import Plan
from studies.sweep import run
from tests.studies.buckets import BUCKET, bucket
from tests.studies.driven import sweep, workers_of
from tests.studies.sweeps import Seen, check_whole, rows, small_plan

pytestmark = pytest.mark.alone


def faulty_plan(*widths: int, **values: Any) -> Plan:
    """A trial of each of these widths of `tests.studies.faulty`."""
    arm = {"widths": {"low": 4, "high": 12}, "enqueue": [{"widths": [width]} for width in widths]}
    given = {"network": "tests.studies.faulty:build", "widths": None, "trials": len(widths), "epochs": 1}
    return small_plan(**{**given, "arms": {"fixed": arm}, **values})


def ends(path: Path) -> list[tuple[str, str, str]]:
    """State, status and reason of the trials in their order."""
    frame = query.trials(path, "small")
    return list(zip(frame["state"], frame["status"], frame["reason"], strict=True))


def tracebacks(path: Path) -> list[str]:
    """What was kept of where trials failed, in their order."""
    query = "select value_json from trial_user_attributes where key = 'traceback' order by trial_id"
    return [json.loads(text) for (text,) in rows(path, query)]


@pytest.mark.usefixtures("ray_here")
def test_a_bug_or_no_memory_is_the_trials_failure_and_is_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    seen = Seen()
    outcome = run(faulty_plan(4, 5, 6, 7, 12), path, watch=seen)
    assert (outcome.left, outcome.ended) == (0, {"fixed": {"error": 4, "complete": 1}})
    assert seen.of("note") == []
    found = ends(path)
    assert found[0] == ("FAIL", "error", "ValueError: a user's bug")
    for state, status, reason in found[1:3]:
        assert (state, status) == ("FAIL", "error")
        assert reason.startswith("out of memory (")
        assert "a smaller batch_size or widths would help, or fewer trials at once" in reason
    assert found[3] == ("FAIL", "error", "SystemExit: a user's bug")
    assert found[4] == ("COMPLETE", "complete", "")
    kept = tracebacks(path)
    assert len(kept) == 4
    assert all("faulty.py" in text and text.startswith("Traceback") for text in kept)
    assert not list((tmp_path / "x.files" / "runs").iterdir())
    assert run(faulty_plan(4, 5, 6, 7, 12), path, watch=Seen()).already_done


@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_what_ends_the_interpreter_is_tried_three_times_more(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    seen = Seen()
    outcome = run(faulty_plan(8, 9, 12), path, watch=seen)
    assert (outcome.left, outcome.ended) == (0, {"fixed": {"error": 2, "complete": 1}})
    assert len(seen.of("note")) == 2 * 3
    for state, status, reason in ends(path)[:2]:
        assert (state, status) == ("FAIL", "error")
        assert reason.startswith("its worker died 4 times: it crashed, as by os._exit")
    assert ends(path)[2][0] == "COMPLETE"
    assert not list((tmp_path / "x.files" / "runs").iterdir())


@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_a_trial_that_hangs_is_ended_when_its_time_is_over_and_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    seen = Seen()
    outcome = run(faulty_plan(10, 11, 12), path, watch=seen, trial_timeout=15)
    assert (outcome.left, outcome.ended) == (0, {"fixed": {"timeout": 2, "complete": 1}})
    # Not one epoch is noted as lost, nor a worker as dead: it was ended on purpose.
    assert seen.of("note") == []
    for state, status, reason in ends(path)[:2]:
        assert (state, status) == ("FAIL", "timeout")
        assert reason == "it trained for longer than its limit of 15 s (--trial-timeout), ended after epoch 0"
    assert all("Timeout (0:00:" in text and "faulty.py" in text for text in tracebacks(path))
    assert len(tracebacks(path)) == 2
    assert not list((tmp_path / "x.files" / "runs").iterdir())


@pytest.mark.soak
def test_a_worker_that_ray_ends_for_want_of_memory_is_tried_three_times_more(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    # Of the machine's memory, more is always taken.
    environment = {"RAY_memory_usage_threshold": "0.01"}
    plan: dict[str, Any] = {"trials": 1, "arms": {"fixed": {"widths": {"low": 4, "high": 16}}}, "epochs": 100_000}
    with sweep(path, environment, **plan) as running:
        assert running.end() == (0, "")
    (end,) = running.of("trial")
    assert end[:4] == ["fixed", "0", "FAIL", "error"]
    assert end[4].startswith("its worker was ended 4 times because its machine ran out of memory: a smaller batch_size")
    assert len(running.of("note")) == 3
    assert all("its machine ran out of memory; it goes on after epoch" in note for (note,) in running.of("note"))
    assert len(running.lines) == len([line for line in running.lines if len(line) > 1])


@pytest.fixture(params=["artifacts", "runs"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder of the files of `x.db` that is a disk of its own, and full."""
    place = tmp_path / "x.files" / request.param
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "sizer-test", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_a_full_disk_is_one_line_and_the_same_command_finishes_later(tmp_path: Path, small_disk: Path) -> None:
    path = tmp_path / "x.db"
    plan = small_plan(trials=1)
    with pytest.raises(InputError, match="No space left on device") as caught:
        run(plan, path, watch=Seen())
    assert "\n" not in str(caught.value)
    assert not [file for file in small_disk.rglob("*") if file.is_file() and file.stat().st_size not in (0, 64 * 1024)]
    assert rows(path, "select * from sizer_weights where artifact_id is not null") == []
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    run(plan, path, watch=Seen())
    check_whole(path, plan)


@pytest.mark.soak
def test_files_in_a_bucket_outlive_worker_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    plan: dict[str, Any] = {"epochs": 12, "trials": 2, "batch_size": 16, "widths": [40]}
    with bucket() as environment:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        options = {"files": f"s3://{BUCKET}/team"}
        with sweep(path, **plan, options=options) as first:
            first.until("epoch", 7)
            os.kill(workers_of(first.process.pid)[0], signal.SIGKILL)
            first.until("note")
            first.until("epoch", 3)
            first.kill()
        assert "its worker died; it goes on after epoch" in first.of("note")[0][0]
        with sweep(path, **plan, options={"files": str(tmp_path / "elsewhere")}) as second:
            assert second.end() == (0, "")
        (note,) = second.of("note")
        assert note[0].startswith(f"its files stay in s3://{BUCKET}/team/small-")
        told = {tuple(line[:3]) for line in first.of("epoch")}
        assert not told & {tuple(line[:3]) for line in second.of("epoch")}
        check_whole(path, small_plan(**plan))
        for _, row in selection.front(path, "small").iterrows():
            selection.architecture(path, "small", row)
        for text in (*rows(path, "select files from sizer_plans"), *first.lines, *second.lines):
            assert environment["AWS_SECRET_ACCESS_KEY"] not in "".join(text)
    assert not (tmp_path / "elsewhere").exists()
    at.cache_clear()


@pytest.mark.soak
def test_a_trial_that_hangs_leaves_nothing_in_a_bucket_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, scratch = tmp_path / "x.db", Path(tempfile.gettempdir(), f"sizer-{os.getuid()}")
    before = set(scratch.glob("*/attempt-*"))
    plan = faulty_plan(11, 12)
    values = {key: value for key, value in plan.model_dump(exclude_none=True).items() if key != "arms"}
    arms = {"fixed": {"widths": {"low": 4, "high": 12}, "enqueue": [{"widths": [11]}, {"widths": [12]}]}}
    with bucket() as environment:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        options = {"files": f"s3://{BUCKET}/team", "trial_timeout": 15}
        with sweep(path, **{**values, "widths": None, "arms": arms}, options=options) as running:
            assert running.end() == (0, "")
        assert running.of("note") == []
        assert ends(path)[0][:2] == ("FAIL", "timeout")
        assert "faulty.py" in tracebacks(path)[0]
        assert files_of(locate(path)[0], "small").names("runs") == []
    at.cache_clear()
    assert set(scratch.glob("*/attempt-*")) <= before
