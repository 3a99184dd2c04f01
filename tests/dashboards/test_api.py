"""The API says what the database holds, refuses in one line, and starts what is submitted once."""

import base64
import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dashboards import models, rows
from sizer.checkpoint import load_tensors
from studies import query, selection
from studies.database import Database
from studies.launch import Launched
from studies.reading import written
from tests.dashboards.served import WRITE, Served, served
from tests.dashboards.swept import small_plan
from tests.studies.standings import told

TABLES = {"trials": query.trials, "history": query.history, "front": selection.front}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SMALL = """
name = "mine"
data = "digits"
network = "mlp"
epochs = 2
trials = {trials}
[arms.shrinknets]
"""


def test_health_is_open_and_says_whether_the_database_answers(service: Served) -> None:
    health = service.ask("/v1/health", None).json()
    assert (health["status"], health["database"]) == ("ok", True)


def test_the_plans_are_listed_with_their_state(service: Served) -> None:
    assert service.ask("/v1/plans").json() == [
        {"name": "small", "state": "done", "driver": "nobody runs it", "planned": 6, "ended": 6}
    ]


def test_status_counts_trials_by_state_and_says_what_failed(service: Served) -> None:
    said = service.ask("/v1/status?plan=small").json()
    counts = {arm["arm"]: (arm["complete"], arm["failed"], arm["waiting"], arm["epochs"]) for arm in said["arms"]}
    assert counts == {"shrinknets": (3, 0, 0, 9), "fixed": (2, 1, 0, 6)}
    assert said["unusual"] == [
        {"arm": "fixed", "number": 2, "status": "diverged", "reason": "the loss became NaN in epoch 1"}
    ]


@pytest.mark.parametrize("what", TABLES)
def test_tables_come_as_they_are_and_what_is_no_number_is_null(service: Served, what: str) -> None:
    frame = TABLES[what](service.database, "small")
    told = service.ask(f"/v1/{what}?plan=small").json()
    assert told == json.loads(json.dumps(rows.plain(frame)))
    assert [list(row) for row in told] == [list(frame.columns)] * len(frame)
    if what == "trials":
        failed = next(row for row in told if row["state"] == "FAIL")
        assert (failed["val_accuracy"], failed["knob"]) == (None, None)


def test_the_models_name_every_column() -> None:
    assert set(models.Trial.model_fields) == set(query.TRIALS)
    assert set(models.Epoch.model_fields) == set(query.HISTORY)


def test_csv_opens_in_a_spreadsheet_and_no_text_of_it_is_a_formula(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    evil = '=HYPERLINK("http://evil")'
    with served(tmp_path / "sizer.db") as running:
        with running.database.engine.begin() as connection:
            told = "update trial_user_attributes set value_json = ? where key = 'reason'"
            connection.exec_driver_sql(told, (json.dumps(evil),))
        plain = running.ask("/v1/trials?plan=small").json()
        table = list(csv.DictReader(io.StringIO(running.ask("/v1/trials?plan=small&format=csv").text)))
        assert [row["reason"] for row in plain if row["reason"]] == [evil]
        assert [row["reason"] for row in table if row["reason"]] == [f"'{evil}"]
        numbers = [float(row["val_accuracy"]) if row["val_accuracy"] else None for row in table]
        assert numbers == [row["val_accuracy"] for row in plain]
        theirs = running.ask("/csv/2").text
        assert (f"'{evil}".replace('"', '""') in theirs, theirs.count("evil")) == (True, 1)


def test_it_answers_from_a_database_of_either_kind(place: str) -> None:
    database = told(place)
    with served(place) as running:
        for what in TABLES:
            frame = TABLES[what](database, "small")
            assert running.ask(f"/v1/{what}?plan=small").json() == json.loads(json.dumps(rows.plain(frame)))
        assert running.ask("/v1/plans").json()[0]["ended"] == 6
        assert (
            running.ask("/v1/best?plan=small").json()["val_accuracy"] == selection.best(database, "small").val_accuracy
        )
        assert running.ask("/v1/health", None).json()["database"] is True
        assert len(running.ask("/api/studies").json()["study_summaries"]) == 2
        assert running.status("/v1/status?plan=none") == 404
    database.close()


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_text_that_a_spreadsheet_would_compute_is_quoted(text: str) -> None:
    assert rows.quoted(text) == f"'{text}"
    assert list(csv.reader(io.StringIO(rows.without_formulas(f'a,"{text}"\r\n'), newline=""))) == [["a", f"'{text}"]]


@pytest.mark.parametrize("cell", ["-1.5", "+2", "1e-5", "plain", "", "a=b", -1.5, None])
def test_numbers_and_plain_texts_stay(cell: Any) -> None:
    assert rows.quoted(cell) is cell


def test_best_is_what_the_database_says_under_the_same_limits(service: Served) -> None:
    found = selection.best(service.database, "small", "fixed", 700)
    told = service.ask("/v1/best?plan=small&arm=fixed&max_params=700").json()
    assert {key: told[key] for key in ("arm", "trial_id", "epoch", "widths", "val_accuracy")} == {
        key: found[key] for key in ("arm", "trial_id", "epoch", "widths", "val_accuracy")
    }
    nothing = service.ask("/v1/best?plan=small&max_params=5")
    assert (nothing.status_code, "the nearest is" in nothing.json()["detail"]) == (400, True)


def test_an_architecture_and_its_weights_are_those_of_the_epoch_named_or_of_the_best(service: Served) -> None:
    row = selection.best(service.database, "small")
    built, file = selection.architecture(service.database, "small", row)
    kept = {name: value.tolist() for name, value in load_tensors(file)[0].items()}
    chosen = f"plan=small&trial_id={row.trial_id}&epoch={row.epoch}"
    for asked in ("plan=small", chosen):
        assert service.ask(f"/v1/architecture?{asked}").json() == json.loads(built.to_json())
        answer = service.ask(f"/v1/weights?{asked}")
        sent = safetensors.torch.load(answer.content)
        assert {name: value.tolist() for name, value in sent.items()} == kept
        digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
        assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert service.status("/v1/architecture?plan=small&trial_id=999&epoch=1") == 404
    assert service.status(f"/v1/architecture?plan=small&trial_id={row.trial_id}&epoch=99") == 404
    assert service.status(f"/v1/architecture?plan=small&trial_id={row.trial_id}") == 400


def test_weights_that_were_changed_are_not_sent(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    with served(tmp_path / "sizer.db") as running:
        _, file = selection.architecture(running.database, "small", selection.best(running.database, "small"))
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        answer = running.ask("/v1/weights?plan=small")
        assert (answer.status_code, "were changed since" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/v1/status?plan=smal", 404, "there are: small"),
        ("/v1/best?plan=small&arm=x", 404, "there are: fixed, shrinknets"),
        ("/v1/status", 422, "plan: Field required"),
        ("/v1/best?plan=small&max_params=few", 422, "max_params: "),
        ("/v1/best?plan=small&max_params=0", 422, "max_params: "),
        ("/v1/trials?plan=small&format=xml", 422, "format: "),
        ("/v1/nothing", 404, "/openapi.json lists them"),
        ("/v1", 404, "/openapi.json lists them"),
        ("/v1/stop?plan=small", 405, "Method Not Allowed"),
    ],
)
def test_what_cannot_be_answered_is_one_line(service: Served, path: str, status: int, said: str) -> None:
    answer = service.ask(path)
    assert (answer.status_code, list(answer.json())) == (status, ["detail"])
    assert said in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


class Starts:
    """Stands for `studies.launch.launch`: starts something that only waits, and keeps what was asked."""

    def __init__(self) -> None:
        self.plans: list[tuple[str, str]] = []
        self.launched: list[Launched] = []

    def __call__(self, plan_toml: str, database: Database, name: str, jobs_address: str | None) -> Launched:
        self.plans.append((name, plan_toml))
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.launched.append(Launched(process, database.files / "none.log"))
        return self.launched[-1]

    def end(self) -> None:
        for each in self.launched:
            assert each.process is not None
            each.process.kill()
            each.process.wait()


@pytest.fixture
def starting(tmp_path: Path, trained: Path) -> Iterator[tuple[Served, Starts]]:
    """A server that may change its own copy of the database, and what it started."""
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    starts = Starts()
    with served(tmp_path / "sizer.db", start=starts) as running:
        try:
            yield running, starts
        finally:
            starts.end()


def submit(service: Served, **body: Any) -> tuple[int, Any]:
    answer = service.ask("/v1/plans", WRITE, "POST", json=body)
    return answer.status_code, answer.json()


def test_a_plan_submitted_twice_is_one_study_and_another_of_its_name_is_refused(
    starting: tuple[Served, Starts],
) -> None:
    service, starts = starting
    plan = SMALL.format(trials=2)
    assert submit(service, plan=plan) == (202, [{"name": "mine", "state": "starting"}])
    assert submit(service, plan=plan) == (200, [{"name": "mine", "state": "running"}])
    assert submit(service, plan=SMALL.format(trials=9))[0] == 200
    changed, said = submit(service, plan=plan, overrides={"epochs": 3})
    assert (changed, "epochs: was 2, now 3" in said["detail"]) == (409, True)
    assert len(starts.plans) == 1
    listed = service.ask("/v1/plans").json()[-1]
    assert (listed["name"], listed["state"], listed["planned"], listed["ended"]) == ("mine", "starting", 2, 0)
    assert service.ask("/v1/status?plan=mine").json()["arms"][0]["waiting"] == 2


def test_what_is_done_is_not_started_and_may_not_be_changed(starting: tuple[Served, Starts]) -> None:
    service, starts = starting
    assert submit(service, plan=written([small_plan()])) == (200, [{"name": "small", "state": "done"}])
    changed, said = submit(service, plan=written([small_plan(batch_size=64)]))
    assert (changed, "batch_size: was 256, now 64" in said["detail"]) == (409, True)
    assert starts.plans == []
    assert submit(service, plan=written([small_plan(trials=4)])) == (202, [{"name": "small", "state": "starting"}])


def test_a_preset_with_cells_is_several_plans_and_one_start(starting: tuple[Served, Starts]) -> None:
    service, starts = starting
    status, plans = submit(service, preset="das-ablation", overrides={"trials": 1, "name": "a"})
    assert (status, [plan["name"] for plan in plans]) == (202, ["a/cifar100", "a/cifar10"])
    assert [name for name, _ in starts.plans] == ["a"]
    assert submit(service, preset="das-ablation/cifar10", overrides={"trials": 1, "name": "a"})[0] == 200
    assert submit(service, preset="das-ablation/cifar10", scale="small")[1][0]["name"] == "das-ablation.small/cifar10"


def test_a_target_may_be_said_with_a_preset(starting: tuple[Served, Starts]) -> None:
    service, starts = starting
    aimed = {"name": "aimed", "target": {"params": [5000]}}
    assert submit(service, preset="demo", overrides=aimed) == (202, [{"name": "aimed", "state": "starting"}])
    ((_, text),) = starts.plans
    assert tomllib.loads(text)["target"]["params"] == [5000]
    refused, said = submit(service, preset="demo", overrides={"name": "b", "target": {"params": [5000], "flops": [9]}})
    assert (refused, "flops or latency, one of them" in str(said)) == (422, True)


def test_a_plan_that_never_began_is_stopped_and_said_to_have_failed(starting: tuple[Served, Starts]) -> None:
    service, starts = starting
    submit(service, plan=SMALL.format(trials=2))
    (launched,) = starts.launched
    assert launched.log is not None
    launched.log.write_text("some lines\nsizer: the disk is full\n")
    assert launched.process is not None
    assert str(launched.process.pid) in service.ask("/v1/stop?plan=mine", WRITE, "POST").json()["asked"]
    launched.process.wait(timeout=10)
    said = service.ask("/v1/status?plan=mine").json()
    assert (said["state"], said["driver"]) == ("failed", "the disk is full")
    assert service.status("/v1/stop?plan=mine", WRITE, "POST") == 409
    assert service.status("/v1/stop?plan=none", WRITE, "POST") == 404
    assert submit(service, plan=SMALL.format(trials=2))[0] == 202


@pytest.mark.parametrize("field", ["data = 'os:getcwd'", "data = '/etc/mine.npz'", "network = 'os:system'"])
@pytest.mark.parametrize("place", ["", "[cells.a]\n", "[scale.small]\n"])
def test_a_plan_sent_here_names_nothing_of_this_machine(service: Served, field: str, place: str) -> None:
    plan = SMALL.format(trials=1)
    if not place:
        plan = "\n".join(line for line in plan.splitlines() if line.split(" ")[0] != field.split(" ")[0])
    plan = f"{field if not place else ''}\n{plan}\n{place}{field if place else ''}\n"
    status, said = submit(service, plan=plan, scale="small" if "scale" in place else "full")
    assert status == 422
    assert "`sizer sweep` and `sizer submit` run it" in said["detail"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "give one of plan (TOML text) and preset (a name)"),
        ({"plan": "x = 1", "preset": "demo"}, "give one of plan"),
        ({"preset": "dmeo"}, "unknown preset 'dmeo'; there are: demo"),
        ({"preset": "/etc/mine.toml"}, "unknown preset"),
        ({"plan": "nonsense"}, "the plan is not TOML"),
        ({"plan": "x = " + "[" * 9000}, "the plan is "),
        ({"plan": "arms = 3"}, "arms must be a table"),
        ({"preset": "demo", "scale": "huge"}, "unknown scale"),
        ({"preset": "demo", "overrides": {"data": "x.npz"}}, "overrides.data: "),
        ({"preset": "demo", "overrides": {"epochs": 0}}, "overrides.epochs: "),
        ({"preset": "demo", "more": 1}, "more: "),
    ],
)
def test_a_submission_that_cannot_be_run_is_refused_in_one_line(
    service: Served, body: dict[str, Any], said: str
) -> None:
    status, answer = submit(service, **body)
    assert (status, list(answer)) == (422, ["detail"])
    assert said in answer["detail"]


def test_a_body_larger_than_any_plan_is_not_read(service: Served) -> None:
    assert service.status("/v1/plans", WRITE, "POST", content=b"x" * (1 << 21)) == 413


def fuzz(path: Path, examples: int) -> None:
    """Asks every operation what its description allows and what it does not; answers must be as described."""
    with served(path, start=lambda *_: Launched(None, None, "a job that is none")) as running:
        schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) == 15
        for operation in operations:
            ask_as_described(operation, GenerationMode.POSITIVE, examples)
            if operation.query or operation.body:  # else nothing can be wrong of it
                ask_as_described(operation, GenerationMode.NEGATIVE, examples)


def ask_as_described(operation: schemathesis.APIOperation, mode: GenerationMode, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and "plan" in case.query:
            case.query["plan"] = "small"  # no other would ever be found
        case.call_and_validate(headers={"Authorization": f"Bearer {WRITE}"}, checks=CHECKS)

    ask()


def test_the_api_answers_as_it_is_described(trained: Path) -> None:
    fuzz(trained, 5)


@pytest.mark.soak
def test_the_api_answers_as_it_is_described_whatever_is_sent(trained: Path) -> None:
    fuzz(trained, 100)
