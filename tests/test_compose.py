"""docker-compose.yml is as specified, has no default passwords, and its very commands make a service that works."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.composed import FILE, ROOT, Composed, UnsetError, can_run, read

SET = {"SIZER_SECRETS": "/somewhere/secrets"}
OURS = ("tables", "ray-head", "ray-worker", "ray-worker-gpu", "dashboard")


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    """The file, its variables put in."""
    return read(SET)


def test_it_is_what_the_compose_specification_describes(file: dict[str, Any]) -> None:
    parsed = PyCompose.from_yaml(yaml.safe_dump(file))
    assert set(parsed.service_names()) == {"postgres", *OURS}
    wrong = {**file, "services": {**file["services"], "more": {"imgae": "x"}}}
    with pytest.raises(ValueError, match="imgae"):
        PyCompose.from_yaml(yaml.safe_dump(wrong))


def test_nothing_starts_without_secrets_and_none_stands_in_the_file() -> None:
    with pytest.raises(UnsetError, match="set SIZER_SECRETS to the folder of the secrets"):
        read({})
    file = read(SET)
    for secret in file["secrets"].values():
        assert secret["file"].startswith(SET["SIZER_SECRETS"] + "/")
    for name, service in file["services"].items():
        held = {f"/run/secrets/{secret}" for secret in service.get("secrets", [])}
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET", key) and key != "RAY_AUTH_MODE":
                assert value in held, (name, key)
        assert not re.search(r"://[^/@]*:[^/@]*@", json.dumps(service))


def test_only_the_dashboard_is_reached_from_outside_and_on_loopback_unless_told(file: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in file["services"].items() if service.get("ports")}
    assert published == {"dashboard": ["127.0.0.1:8080:8080"]}
    assert read({**SET, "SIZER_BIND": "0.0.0.0", "SIZER_PORT": "80"})["services"]["dashboard"]["ports"] == [
        "0.0.0.0:80:8080"
    ]
    assert file["networks"]["inside"] == {"internal": True}
    for name in ("postgres", "ray-worker", "ray-worker-gpu", "tables"):
        assert file["services"][name]["networks"] == ["inside"]


def test_every_service_is_guarded_and_watched(file: dict[str, Any]) -> None:
    for name, service in file["services"].items():
        assert service["user"].partition(":")[0] not in {"", "0", "root"}
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert "privileged" not in service
        assert ("healthcheck" in service) == (name != "tables")
        for mount in service.get("volumes", []):
            assert mount.partition(":")[0] in file["volumes"]
    assert {file["services"][name]["image"] for name in OURS} == {"sizer:0.1.0"}
    assert all(file["services"][name]["build"] == "." for name in OURS)
    assert "USER 1000:1000" in (ROOT / "Dockerfile").read_text()
    assert ":latest" not in FILE.read_text()


def test_workers_hold_neither_the_database_nor_its_password(file: dict[str, Any]) -> None:
    for name in ("ray-worker", "ray-worker-gpu"):
        service = file["services"][name]
        assert service["secrets"] == ["ray_token"]
        assert set(service["environment"]) == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "SIZER_DATA"}
    head = file["services"]["ray-head"]["command"]
    assert "--num-cpus=0" in head  # no trial is trained where the password is
    assert file["services"]["ray-worker-gpu"]["profiles"] == ["gpu"]


PLAN = """
name = "composed"
data = "digits"
network = "mlp"
widths = [12]
epochs = 2
trials = 2
batch_size = 256
[arms.shrinknets]
lambda = { low = 1e-3, high = 1e-2 }
[arms.fixed]
widths = { low = 4, high = 16 }
"""
ASK = """
import json, sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.stdin.readline().strip()})
sys.stdout.buffer.write(urllib.request.urlopen(request, timeout=60).read())
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Composed]:
    """All services, as `docker compose up` starts them."""
    if not can_run():
        pytest.skip("needs root on Linux, for file systems and networks of its own")
    with Composed() as composed:
        composed.up("dashboard", "ray-worker")
        yield composed


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_sweep_goes_through_its_very_commands_and_is_read_from_the_dashboard(
    running: Composed, tmp_path: Path
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    server = "http://127.0.0.1:8080"
    sizer = [sys.executable, "-m", "dashboards"]
    write = {"SIZER_SERVER": server, "SIZER_TOKEN": running.tokens["write_token"]}
    submitted = running.outside(*sizer, "submit", str(tmp_path / "plan.toml"), **write)
    assert submitted.returncode == 0, (submitted.stderr, running.log("dashboard"))
    read_only = {"SIZER_SERVER": server, "SIZER_TOKEN": running.tokens["read_token"]}
    followed = running.outside(*sizer, "status", "composed", "--follow", timeout=300, **read_only)
    assert followed.returncode == 0, (followed.stdout, followed.stderr, running.log("ray-head"))
    best = running.outside(*sizer, "best", "composed", "--out", str(tmp_path / "net"), **read_only)
    assert best.returncode == 0, best.stderr
    assert (tmp_path / "net" / "weights.safetensors").stat().st_size > 1000
    # What a browser shows: Optuna Dashboard's own list of studies.
    studies = running.outside(sys.executable, "-c", ASK, f"{server}/api/studies", token=running.tokens["read_token"])
    names = {study["study_name"] for study in json.loads(studies.stdout)["study_summaries"]}
    assert names == {"composed/shrinknets", "composed/fixed"}
    refused = running.outside(sys.executable, "-c", ASK, f"{server}/api/studies", token="nobody's")
    assert "401" in refused.stderr
    # Nobody who only reads may stop or submit.
    stop = running.outside(*sizer, "stop", "composed", **read_only)
    assert stop.returncode == 2


@pytest.mark.soak
def test_no_process_of_ray_and_no_log_holds_a_secret(running: Composed) -> None:
    hidden = {name: token.encode() for name, token in running.tokens.items()}
    for service in ("ray-head", "ray-worker", "dashboard"):
        for pid in running.pids(service):
            for part in ("environ", "cmdline"):
                try:
                    content = Path(f"/proc/{pid}/{part}").read_bytes()
                except OSError:
                    continue
                for name, token in hidden.items():
                    assert token not in content, (service, pid, part, name)
        for name, token in hidden.items():
            assert token not in running.log(service).encode(), (service, name)
    for path in running.volume("files").rglob("*"):
        if path.is_file():
            assert not any(token in path.read_bytes() for token in hidden.values()), path
