"""Under what a trial was trained."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from studies.environment import commit, environment


def test_a_commit_is_told_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""
    assert commit(tmp_path / "nowhere") == ""
    words = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    (tmp_path / "file").write_text("1")
    for command in (["init"], ["add", "file"], [*words, "commit", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    at = commit(tmp_path)
    assert len(at) == 12
    (tmp_path / "other").write_text("untracked files are no difference")
    assert commit(tmp_path) == at
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{at}+"


def test_an_environment_names_versions() -> None:
    found = environment()
    assert found["torch"] == torch.__version__
    assert set(found) == {"python", "torch", "sizer", "system", "threads"}
