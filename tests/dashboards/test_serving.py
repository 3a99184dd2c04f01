"""`sizer dashboard`: open to this machine's user alone, to others with tokens from files; quiet, and gone on Ctrl-C."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dashboards.gate import READ, WRITE, Keys
from dashboards.serving import Access
from sizer.errors import InputError
from tests.dashboards.served import READ as READS
from tests.dashboards.served import WRITE as WRITES


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    read, write = tmp_path / "read", tmp_path / "write"
    read.write_text(f"{READS}\n")
    write.write_text(f"{WRITES}\n")
    return read, write


def roles(access: Access) -> list[str | None]:
    """What the made token, that of the read file and that of the write file open."""
    keys = access.keys()
    digests = [Keys.of(token).read for token in (access.made, READS, WRITES)]
    return [keys.role(digest) for digest in digests if digest is not None]


def test_without_files_a_token_of_this_run_reads_and_of_a_writable_one_writes() -> None:
    assert roles(Access()) == [READ, None, None]
    assert roles(Access(writable=True)) == [WRITE, None, None]
    assert Access().made != Access().made
    assert Access().made not in repr(Access())


def test_files_say_who_reads_and_who_writes(files: tuple[Path, Path]) -> None:
    read, write = files
    assert roles(Access(read_file=read, write_file=write)) == [None, READ, WRITE]
    assert roles(Access(read_file=read)) == [None, READ, None]
    assert roles(Access(write_file=write)) == [None, None, WRITE]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_others_reach_it_only_where_tokens_were_given(files: tuple[Path, Path], host: str) -> None:
    with pytest.raises(InputError, match="lets others reach it: give --read-token-file"):
        Access(host)
    assert roles(Access(host, *files))[1:] == [READ, WRITE]


def test_writable_without_anybody_who_may_write_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="give --write-token-file"):
        Access(read_file=files[0], writable=True)


def test_it_answers_to_the_names_it_was_given(files: tuple[Path, Path]) -> None:
    assert set(Access().names()) == {"localhost", "127.0.0.1", "::1"}
    assert {"a.example", "b.example", "c.example"} <= set(Access(allowed=["a.example,b.example", "c.example"]).names())
    assert "0.0.0.0" not in Access("0.0.0.0", *files).names()
    assert "10.0.0.1" in Access("10.0.0.1", *files).names()


def test_a_run_prints_its_token_once_logs_none_and_ends_on_ctrl_c(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    running = subprocess.Popen(
        [sys.executable, "-m", "dashboards", "dashboard", "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "SIZER_ALLOWED_HOSTS": "one.example,two.example"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        said = []
        while not said or (said[-1] and said[-1] != "Ctrl-C ends it.\n"):
            said.append(running.stdout.readline())
        found = re.match(r"(http://one\.example:(\d+))/\?token=(\S{32})  all evaluations\n", said[0])
        assert found is not None, said
        assert f"{found[1]}/evaluation/small  evaluation\n" in said
        address, token = f"http://localhost:{found[2]}", found[3]
        with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
            assert client.get("/v1/plans").status_code == 401
            assert client.get(f"/dashboard?token={token}").headers["location"] == "/dashboard"
            assert client.get("/v1/plans", headers={"Host": "two.example"}).status_code == 200
            assert client.get(f"/nothing?token={token}").status_code == 303
            assert client.get("/artifacts/99/ab").status_code >= 400
            assert client.delete("/api/studies/1", headers={"Origin": address}).status_code == 403
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=20)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0
    assert token not in "".join(said[1:]) + out + error
    assert "GET" not in out + error
