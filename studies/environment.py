"""Under what a trial was trained: versions, the machine's kind, and the commit of the folder of its sweep."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def environment() -> dict[str, str]:
    """Of this process: versions of Python, torch and sizer, the system, and the threads that torch computes with."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sizer": version("sizer"),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
    }


def commit(folder: Path | None = None) -> str:
    """The commit that a folder, or the current one, is at, such as `1af688d03b4c`; with `+` where files differ from it.

    Empty where it is in no git repository, or there is no git.
    """

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
        return found.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""
