"""Imports go one way: dashboards -> studies -> sizer, and sizer needs torch and numpy alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "sizer": {"studies", "dashboards", "optuna", "ray", "sqlalchemy", "plotly", "pandas", "pydantic"},
    "studies": {"dashboards", "plotly", "typer", "rich", "optuna_dashboard"},
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert len(files) > 5
    for path in files:
        assert not set(imported(path)) & FORBIDDEN[package], path


def test_sizer_imports_without_what_only_studies_need() -> None:
    blocked = ["optuna", "ray", "sqlalchemy", "plotly", "pandas", "pydantic", "sklearn", "pooch", "typer", "scipy"]
    code = f"import sys\nfor n in {blocked}: sys.modules[n] = None\nimport sizer\nfrom sizer import networks, methods\n"
    subprocess.run([sys.executable, "-c", code + "print(methods.names(), networks.names())"], check=True, cwd=ROOT)
