"""Sweeps on a cluster of two real nodes, which see different folders where root may arrange that."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from studies.reading import read_plan
from tests.postgres import Postgres
from tests.studies.clusters import (
    ROOT,
    Cluster,
    Wire,
    below,
    cluster,
    kill,
    may_part_networks,
    until,
    without,
)  # fmt: skip
from tests.studies.sweeps import check_whole, rows

pytestmark = [pytest.mark.alone, pytest.mark.soak]

SIZER = [sys.executable, "-c", "from dashboards.cli import main; main()"]
CODE = ("sizer", "studies", "dashboards", "tests")
PLAN = """
name = "two"
data = "digits"
network = "mine:net"
epochs = {epochs}
trials = {trials}
batch_size = {batch}
[arms.shrinknets]
lambda = {{ low = 1e-3, high = 1e-2 }}
"""
# Says where it was built: on which node, with which GPU, by which process, of which code. It waits for the other
# processes, so that none is through with all trials before another has begun.
MINE = """
import json, math, os, sys, time
from pathlib import Path
from torch import nn
import sizer

def net(input_shape, outputs):
    if (ray := sys.modules.get("ray")) is not None and ray.is_initialized():
        here = ray.get_runtime_context()
        said = here.get_node_id(), here.get_accelerator_ids()["GPU"], os.getpid(), sizer.__file__
        with open(Path(LOG) / str(os.getpid()), "a") as file:
            print(json.dumps(said), file=file)
        deadline = time.monotonic() + 120
        while len(os.listdir(LOG)) < TOGETHER and time.monotonic() < deadline:
            time.sleep(0.1)
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), 16), nn.ReLU(), nn.Linear(16, outputs))
"""


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is another one on the second node."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def team(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an operator sets where the head is started: the database, the file of its password, the place of files."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "password").write_text(postgres.password)
    place = postgres.create().replace(f":{postgres.password}@", "@")
    return {"SIZER_DB": place, "SIZER_DB_PASSWORD_FILE": str(folder / "password"), "SIZER_FILES": str(folder / "files")}


@pytest.fixture(scope="module")
def two(hidden: Path, team: dict[str, str]) -> Iterator[Cluster]:
    """Two nodes of one CPU and two logical GPUs each; the second has neither our code nor `hidden`, if root is here."""
    with cluster() as made:
        made.start_head(gpus=2, environment=team)
        apart = [*(ROOT / name for name in CODE), hidden]
        made.add_node(gpus=2, inside=without(*apart) if os.geteuid() == 0 else ())
        yield made


def written(folder: Path, together: int = 1, epochs: int = 3, trials: int = 4, batch: int = 256) -> None:
    """Writes a plan, and the module that it names; so many processes train together."""
    (folder / "built").mkdir()
    (folder / "mine.py").write_text(f"LOG, TOGETHER = {str(folder / 'built')!r}, {together}\n{MINE}")
    (folder / "two.toml").write_text(PLAN.format(epochs=epochs, trials=trials, batch=batch))


def built(folder: Path) -> list[tuple[str, list[str], int, str]]:
    """node, GPUs, process and code of every network that a worker built."""
    lines = [line for file in (folder / "built").iterdir() for line in file.read_text().splitlines()]
    return [tuple(json.loads(line)) for line in lines]


def sizer(
    folder: Path, made: Cluster, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`sizer` as a user of the cluster runs it."""
    return subprocess.run(
        [*SIZER, *arguments], cwd=folder, env={**os.environ, **made.environment, **(environment or {})},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def sweeping(folder: Path, made: Cluster, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A sweep on the cluster that does not outlive its test."""
    command = [*SIZER, "sweep", "two.toml", "--address", made.address, *options]
    running = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **made.environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def epochs_of(folder: Path) -> int:
    """How many epochs are in the database."""
    with contextlib.suppress(Exception):
        return int(rows(folder / "sizer.db", "select count(*) from sizer_history")[0][0])
    return 0


def test_trials_run_on_both_nodes_on_shares_of_their_gpus_with_the_code_that_came_along(
    two: Cluster, tmp_path: Path
) -> None:
    written(tmp_path, together=4)
    shares = ["--cpus-per-trial", "0.5", "--gpus-per-trial", "0.25"]
    ran = sizer(tmp_path, two, "sweep", "two.toml", "--address", two.address, *shares)
    assert (ran.returncode, ran.stderr) == (0, "")
    (plan,) = read_plan(tmp_path / "two.toml")
    check_whole(tmp_path / "sizer.db", plan)
    seen = built(tmp_path)
    assert len({node for node, *_ in seen}) == 2
    assert all(len(gpus) == 1 and "py_modules_files" in code for _, gpus, _, code in seen)
    processes = {(node, gpus[0], process) for node, gpus, process, _ in seen}
    assert max(Counter((node, gpu) for node, gpu, _ in processes).values()) == 2
    assert rows(
        tmp_path / "sizer.db", "select distinct value_json from trial_user_attributes where key = 'device'"
    ) == [('"cpu"',)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can show a node other folders")
def test_a_folder_that_one_node_does_not_see_is_found_out_before_anything_is_written(
    two: Cluster, hidden: Path, tmp_path: Path
) -> None:
    written(tmp_path)
    ran = sizer(tmp_path, two, "sweep", "two.toml", "--address", two.address, "--db", str(hidden / "x.db"))
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "does not see" in ran.stderr
    assert str(hidden) in ran.stderr
    assert list(hidden.iterdir()) == []


def test_who_has_not_the_token_is_told_so_in_a_line(two: Cluster, tmp_path: Path) -> None:
    written(tmp_path)
    for command, address in (("sweep", two.address), ("submit", two.jobs)):
        wrong = {"RAY_AUTH_TOKEN": "f" * 64}
        ran = sizer(tmp_path, two, command, "two.toml", "--address", address, environment=wrong)
        assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
        assert f"the Ray at {address} refuses the token of RAY_AUTH_TOKEN:" in ran.stderr
    assert not (tmp_path / "sizer.db").exists()


def test_a_submitted_sweep_is_followed_to_its_end_and_is_one_study_when_submitted_again(
    two: Cluster, team: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    written(tmp_path, trials=2)
    word = "planted-" + secrets.token_hex(8)
    planted = {"PGPASSWORD": word, "SIZER_TOKEN": word, "SIZER_DB": f"postgresql://me:{word}@host/db"}
    submit = ["submit", "two.toml", "--address", two.jobs]
    submitted = sizer(tmp_path, two, *submit, environment=planted)
    assert (submitted.returncode, submitted.stderr) == (0, "")
    job = submitted.stdout.splitlines()[0].removeprefix("two submitted as job ")
    assert job.startswith("sizer-two-")
    again = sizer(tmp_path, two, *submit, "--trials", "3", environment=planted)
    assert again.stdout.splitlines()[0] == f"two runs already as job {job}"
    followed = sizer(tmp_path, two, "status", "two", "--follow", environment=team)
    assert (followed.returncode, followed.stderr) == (0, "")
    assert followed.stdout.splitlines()[-1] == "two: 2 of 2 trials done, 0 running; nobody runs it"
    assert rows(postgres.url(_name(team)), "select distinct state from trials") == [("COMPLETE",)]
    assert {"py_modules_files" in code for *_, code in built(tmp_path)} == {True}

    # With more trials it goes on under another id; and is stopped from here.
    until(lambda: f"job {job}-2" in sizer(tmp_path, two, *submit, "--trials", "500").stdout, 60)
    until(lambda: rows(postgres.url(_name(team)), "select count(*) from trials") > [(3,)], 120)
    stopped = sizer(tmp_path, two, "stop", "two", "--wait", environment=team)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert stopped.stdout.startswith("asked process ")
    assert rows(postgres.url(_name(team)), "select * from sizer_leases") == []
    assert rows(postgres.url(_name(team)), "select count(*) from trials") < [(500,)]

    # Neither what was set here nor the database's password is known to Ray.
    pids = [pid for node in two.nodes for pid in below(node.pid)]
    told = [Path(f"/proc/{pid}/{file}") for pid in pids for file in ("environ", "cmdline")]
    kept = [path for path in two.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    for secret in (word, postgres.password):
        assert [path for path in (*told, *kept) if secret in _text(path)] == []


def _name(team: dict[str, str]) -> str:
    return team["SIZER_DB"].rpartition("/")[2]


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):  # a process that has ended
        return path.read_text(errors="replace")
    return ""


def test_a_node_that_is_lost_in_mid_sweep_costs_no_trial(two: Cluster, tmp_path: Path) -> None:
    written(tmp_path, together=3, epochs=40, batch=8)
    lost = two.add_node()
    with sweeping(tmp_path, two) as running:
        until(lambda: epochs_of(tmp_path) > 6, 200)
        kill(below(lost.pid))
        said, error = running.communicate(timeout=240)
    assert (running.returncode, error) == (0, "")
    assert "its worker died; it goes on after epoch" in said
    (plan,) = read_plan(tmp_path / "two.toml")
    check_whole(tmp_path / "sizer.db", plan)
    assert rows(tmp_path / "sizer.db", "select distinct state from trials") == [("COMPLETE",)]


@pytest.mark.skipif(not may_part_networks(), reason="no network namespaces may be made here")
def test_a_node_that_the_network_parts_from_the_others_costs_no_trial(tmp_path: Path) -> None:
    written(tmp_path, together=2, epochs=40, trials=3, batch=8)
    wire = Wire()
    try:
        with cluster(wire.here) as made:
            made.start_head()
            made.add_node(inside=wire.inside, host=wire.there)
            alone = {"RAY_AUTH_MODE": "disabled"}
            refused = sizer(tmp_path, made, "sweep", "two.toml", "--address", made.address, environment=alone)
            assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
            assert f"{made.address} is a cluster of other machines, and RAY_AUTH_MODE is not token" in refused.stderr
            with sweeping(tmp_path, made) as running:
                until(lambda: epochs_of(tmp_path) > 6, 200)
                wire.cut()
                said, error = running.communicate(timeout=240)
    finally:
        wire.remove()
    assert (running.returncode, error) == (0, "")
    assert "its worker died; it goes on after epoch" in said
    (plan,) = read_plan(tmp_path / "two.toml")
    check_whole(tmp_path / "sizer.db", plan)
    assert rows(tmp_path / "sizer.db", "select distinct state from trials") == [("COMPLETE",)]
